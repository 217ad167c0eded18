//! Which QEMU runs the machines, and on what: software emulation, or KVM where a whole kernel boots on it.
//!
//! The software emulation of QEMU 7.2 and 8.0 may, with several processors, run an instruction that another
//! processor has already replaced. Kernels patch themselves whenever a probe is attached, so there they die of
//! "Oops: int3" now and then; under 10.0 they do not. When the system's QEMU is older than that, a newer one is
//! unpacked into the cache; it uses the libraries of the system's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::archive::{Archive, Wanted};
use crate::kernels::Processors;
use crate::system;

/// The oldest version whose software emulation has been seen to be sound for kernels that patch themselves.
const SOUND: (u32, u32) = (10, 0);

/// Processors of a machine.
const PROCESSORS: &str = "2";

const PACKAGES: &[&str] = &[
    "qemu-system-x86/bookworm-backports",
    "qemu-system-data/bookworm-backports",
    "seabios/bookworm-backports",
];

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Accel {
    /// KVM if a kernel boots on it here, else software emulation
    Auto,
    /// Hardware virtualization
    Kvm,
    /// Software emulation
    Tcg,
}

/// A QEMU that can be run.
#[derive(Clone, Debug)]
pub struct Emulator {
    program: PathBuf,
    firmware: Vec<PathBuf>,
    /// On what it runs. Never `Auto`.
    pub accel: Accel,
}

impl Emulator {
    /// The system's QEMU, or the cache's if the system's is too old for software emulation.
    pub fn find(accel: Accel, archive: &mut Archive) -> Result<Self> {
        let program = system::program("qemu-system-x86_64")?;
        if accel == Accel::Kvm || version(&program)? >= SOUND {
            return Ok(Self { program, firmware: Vec::new(), accel });
        }
        let wanted = Wanted { name: "qemu", packages: PACKAGES.to_vec() };
        // If it lacks a library, it must not get into the cache.
        let set =
            archive.unpacked(&wanted, |set| version(&set.join("usr/bin/qemu-system-x86_64")).map(drop))?;
        let firmware = ["usr/share/qemu", "usr/share/seabios"].map(|name| set.join(name)).to_vec();
        Ok(Self { program: set.join("usr/bin/qemu-system-x86_64"), firmware, accel })
    }

    /// A command that starts an empty machine with so much memory (MiB), which dies with the thread that starts it.
    pub fn command(&self, memory: u32, processors: Processors) -> Result<Command> {
        // setpriv becomes QEMU, so the process that is started is QEMU's own.
        let mut command = Command::new(system::program("setpriv")?);
        command.args(["--pdeathsig", "KILL"]).arg(&self.program);
        for directory in &self.firmware {
            command.arg("-L").arg(directory);
        }
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"]);
        command.args(["-smp", PROCESSORS, "-m", &memory.to_string()]);
        command.args(match self.accel {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Five-level page tables only cost time in emulation, and so do copies and fills by the byte, with one
            // instruction. SVM with nested paging: KVM works inside.
            _ => [
                "-accel",
                match processors {
                    Processors::SideBySide => "tcg,thread=multi,tb-size=512",
                    Processors::InTurn => "tcg,thread=single,tb-size=512",
                },
                "-cpu",
                "max,-la57,-erms,-fsrm,-fzrm,-fsrs,-fsrc,+svm,+npt",
            ],
        });
        Ok(command)
    }
}

/// The first two numbers of the program's version.
fn version(program: &Path) -> Result<(u32, u32)> {
    let said = system::output(Command::new(program).arg("--version"))?;
    parse(&said).with_context(|| format!("{} does not say its version", program.display()))
}

fn parse(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether KVM can be tried at all on this machine.
pub fn kvm_is_there() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Answers `Auto`: `boots` tells whether a kernel boots on that emulator, and why not.
pub fn decide(
    accel: Accel,
    archive: &mut Archive,
    boots: impl Fn(&Emulator) -> Result<()>,
) -> Result<Emulator> {
    if accel != Accel::Tcg && !kvm_is_there() {
        if accel == Accel::Kvm {
            bail!("/dev/kvm is not there or may not be used by this user: leave out --accel kvm");
        }
        return Emulator::find(Accel::Tcg, archive);
    }
    if accel != Accel::Auto {
        return Emulator::find(accel, archive);
    }
    let kvm = Emulator::find(Accel::Kvm, archive)?;
    let Err(reason) = boots(&kvm) else { return Ok(kvm) };
    eprintln!("xtask: software emulation, because a kernel does not boot on this machine's KVM: {reason:#}");
    Emulator::find(Accel::Tcg, archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some((10, 0)));
        assert!(parse("QEMU emulator version 7.2.22 (Debian)") < Some(SOUND));
    }
}

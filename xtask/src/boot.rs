//! One virtual machine, from its first instruction to its last: files and script in, lines and exit codes
//! out.
//!
//! The host's file system is inside, read-only, below a layer in memory. What goes in and comes back by files
//! is in a small directory that both sides write. The machine dies with this process: QEMU is killed by the
//! system when we die, and the guest powers off when nobody holds the other end of its port.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::archive::{Archive, Wanted};
use crate::emulator::Emulator;
use crate::kernels::Kernel;
use crate::system::{self, Scratch};
use crate::{initramfs, system::quote};

const SESSION: &str = include_str!("../guest/session");

/// A kernel that says nothing for that long does not boot. Software emulation needs 6 to 10 s.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// `panic` and `oops` end the machine at once, and so the test. To fill what is given out to the kernel with zeros only
/// costs time. The emulator's processors have one clock; kernels that find that out for themselves may not believe it, and
/// ask a device for the time instead.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=7 quiet panic=-1 oops=panic random.trust_cpu=on init_on_alloc=0 tsc=reliable";

/// What `End::died` says when it was the kernel or something inside that ended the machine.
pub const DIED: &str = "the kernel died or was shut down before the work was done";

/// The scratch disk: real storage, so that reading a file can be a major fault.
const DISK: u64 = 2 << 30;

/// A kernel's unpacked packages.
#[derive(Debug)]
pub struct Files {
    set: PathBuf,
    version: String,
    image: PathBuf,
}

impl Files {
    /// From the cache, or else from the archive.
    pub fn get(kernel: &Kernel, archive: &mut Archive) -> Result<Self> {
        let packages = kernel.packages.iter().copied().chain(["busybox-static"]).collect();
        // Kernels that differ only in their command line share a set.
        let name = kernel.packages.first().map_or(kernel.name, |first| first).replace('*', "N");
        let set = archive.unpacked(&Wanted { name: &name, packages }, arrange)?;
        Self::open(set)
    }

    /// The kernel's release, as `uname -r` gives it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The compressed kernel.
    pub fn image(&self) -> &Path {
        &self.image
    }

    fn open(set: PathBuf) -> Result<Self> {
        let root = set.join("root");
        let modules =
            fs::read_dir(root.join("usr/lib/modules"))?.next().context("there are no modules")??;
        let version = modules.file_name().to_string_lossy().into_owned();
        let images = [root.join(format!("boot/vmlinuz-{version}")), modules.path().join("vmlinuz.unsigned")];
        let image = images.into_iter().find(|file| file.exists()).context("there is no kernel image")?;
        Ok(Self { set, version, image })
    }
}

/// Makes unpacked packages a layer that fits over a file system: `root` holds what the guest sees.
fn arrange(set: &Path) -> Result<()> {
    let root = set.join("root");
    fs::create_dir(&root)?;
    fs::rename(set.join("bin/busybox"), set.join("busybox"))?;
    fs::rename(set.join("usr"), root.join("usr"))?;
    if set.join("boot").exists() {
        fs::rename(set.join("boot"), root.join("boot"))?;
    }
    if set.join("lib/modules").exists() {
        system::make(&root.join("usr/lib"))?;
        fs::rename(set.join("lib/modules"), root.join("usr/lib/modules"))?;
    }
    // As on every Debian system now; kmod looks there.
    std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    let files = Files::open(set.to_owned())?;
    system::output(system::command("depmod")?.arg("--basedir").arg(&root).arg(&files.version))?;
    Ok(())
}

/// What is to be booted, and how.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What runs it.
    pub emulator: &'a Emulator,
    /// The line of the table.
    pub kernel: &'a Kernel,
    /// Its unpacked packages.
    pub files: &'a Files,
    /// Added to the kernel's command line.
    pub append: &'a str,
    /// MiB.
    pub memory: u32,
}

/// How a machine ended.
#[derive(Debug, Default)]
pub struct End {
    /// From the start of QEMU to the first command, if it came to that.
    pub booted: Option<Duration>,
    /// The exit codes of the commands that ended, in order.
    pub codes: Vec<i32>,
    /// Why the machine ended before the commands did.
    pub died: Option<String>,
}

impl Machine<'_> {
    /// Boots it, runs the shell script `work` inside, gives each line that it prints to `line`, and waits for
    /// its end. Exit codes are counted when `work` appends them to `/run/trapline/status`.
    pub fn run(&self, work: &str, limit: Duration, mut line: impl FnMut(&str)) -> Result<End> {
        let scratch = Scratch::new(self.kernel.name)?;
        self.fill(scratch.path(), work)?;
        let said = scratch.path().join("qemu.log");
        let mut command = self.command(scratch.path())?;
        command.args([
            "-chardev",
            "stdio,id=port,signal=off",
            "-device",
            "virtserialport,chardev=port,name=port",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&said)?);
        let started = Instant::now();
        let mut qemu = command.spawn().context("cannot start QEMU")?;
        // Open until we are done: see `guest/session`.
        let lifeline = qemu.stdin.take();
        let lines = lines_of(&mut qemu)?;
        let mut end = End::default();
        let patience = loop {
            let limit = if end.booted.is_some() { limit } else { limit.min(BOOT_LIMIT) };
            match lines.recv_timeout(limit.saturating_sub(started.elapsed())) {
                Ok(text) if end.booted.is_none() && text.starts_with("ready ") => {
                    end.booted = Some(started.elapsed())
                }
                Ok(text) => line(&text),
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) => break Some(limit),
            }
        };
        if patience.is_some() {
            qemu.kill().context("cannot end QEMU")?;
        }
        let status = qemu.wait()?;
        drop(lifeline);
        let reported = fs::read_to_string(share(scratch.path()).join("status")).unwrap_or_default();
        end.codes = reported.lines().filter_map(|code| code.parse().ok()).collect();
        if !reported.ends_with("end\n") {
            let qemu = fs::read_to_string(&said).unwrap_or_default();
            end.died = Some(match patience {
                Some(limit) if end.booted.is_none() => format!("did not boot within {} s", limit.as_secs()),
                Some(limit) => format!("was not done within {} s", limit.as_secs()),
                None if !status.success() => format!("QEMU ended with {status}: {}", qemu.trim()),
                None => DIED.to_owned(),
            });
        }
        keep_results(&share(scratch.path()), self.kernel.name)?;
        Ok(end)
    }

    /// Boots it with a shell on our terminal.
    pub fn shell(&self, work: &str) -> Result<()> {
        let scratch = Scratch::new(self.kernel.name)?;
        self.fill(scratch.path(), work)?;
        fs::write(share(scratch.path()).join("shell"), "")?;
        let mut command = self.command(scratch.path())?;
        command.args(["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal"]);
        let status = command.status().context("cannot start QEMU")?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    /// Everything the machine reads, in a directory of its own.
    fn fill(&self, scratch: &Path, work: &str) -> Result<()> {
        let share = share(scratch);
        system::make(&share.join("results"))?;
        let keep = hidden(&[system::repository(), system::target()]);
        // A dot would end what a prompt shows of it.
        let name = format!("vm-{}\n", self.kernel.name.replace('.', "-"));
        let files = [("session", SESSION), ("work", work), ("keep", &keep), ("name", &name)];
        for (name, content) in files {
            fs::write(share.join(name), content)?;
        }
        let root = self.files.set.join("root");
        let busybox = self.files.set.join("busybox");
        initramfs::write(&scratch.join("initramfs"), &root, &self.files.version, &busybox)?;
        let disk = scratch.join("disk");
        File::create(&disk)?.set_len(DISK)?;
        // Not lazy: nothing may write to the disk behind a test's back.
        let mut format = system::command("mke2fs")?;
        format.args(["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&disk);
        system::output(&mut format)?;
        Ok(())
    }

    /// QEMU with this machine's devices, but for the one that we talk to it by.
    fn command(&self, scratch: &Path) -> Result<Command> {
        let mut command = self.emulator.command(self.memory, self.kernel.processors)?;
        command.arg("-kernel").arg(&self.files.image).arg("-initrd").arg(scratch.join("initramfs"));
        command.args(["-append", format!("{COMMAND_LINE} {} {}", self.kernel.append, self.append).trim()]);
        let log = kernel_log(self.kernel)?;
        command.args(["-serial", &format!("file:{}", log.display())]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"]);
        let disk = option(&scratch.join("disk"));
        command.args(["-drive", &format!("file={disk},format=raw,if=none,id=disk,cache=unsafe")]);
        command.args(["-device", "virtio-blk-pci,drive=disk"]);
        let shares = [
            ("host", PathBuf::from("/"), ",readonly=on,multidevs=remap"),
            ("kernel", self.files.set.join("root"), ",readonly=on"),
            ("run", share(scratch), ""),
        ];
        for (tag, path, how) in shares {
            command
                .args(["-fsdev", &format!("local,id={tag},path={},security_model=none{how}", option(&path))]);
            command.args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
        }
        Ok(command)
    }
}

/// The directory that the machine and we both write: `/run/trapline` inside.
fn share(scratch: &Path) -> PathBuf {
    scratch.join("share")
}

/// The file with everything the kernel says.
pub fn kernel_log(kernel: &Kernel) -> Result<PathBuf> {
    Ok(system::directory("logs")?.join(format!("{}.kernel.log", kernel.name)))
}

/// The path as the value of an option of QEMU, where a comma ends a value unless doubled.
fn option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Those directories that the guest's own file systems would hide, one a line.
fn hidden(directories: &[PathBuf]) -> String {
    let hidden = |path: &&PathBuf| ["/tmp", "/run"].iter().any(|place| path.starts_with(place));
    directories.iter().filter(hidden).map(|path| format!("{}\n", path.display())).collect()
}

fn keep_results(share: &Path, name: &str) -> Result<()> {
    let place = system::directory("results")?.join(name);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::rename(share.join("results"), &place).context("cannot keep the results")
}

fn lines_of(qemu: &mut Child) -> Result<Receiver<String>> {
    let Some(output) = qemu.stdout.take() else { bail!("QEMU has no output") };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    Ok(receiver)
}

/// A line of the script that a machine runs: the command, and its exit code for `End::codes`.
pub fn step(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
    format!("{}; echo $? >> /run/trapline/status\n", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_guest_hides_is_kept() {
        let directories = ["/tmp/clone", "/home/me/trapline", "/tmporary"].map(PathBuf::from);
        assert_eq!(hidden(&directories), "/tmp/clone\n");
    }

    #[test]
    fn a_step_keeps_its_words() {
        let words = ["/a b/test".to_owned(), "it's".to_owned()];
        assert_eq!(step(&words), "'/a b/test' 'it'\\''s'; echo $? >> /run/trapline/status\n");
    }
}

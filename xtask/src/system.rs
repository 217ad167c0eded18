//! Programs of this machine, the directories of the stage, and the removal of what a killed run left behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// The Debian package of each program that the stage calls, for the message when it is missing.
const PACKAGES: &[(&str, &str)] = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("depmod", "kmod"),
    ("gcc", "gcc"),
    ("dpkg-deb", "dpkg"),
    ("make", "make"),
    ("mke2fs", "e2fsprogs"),
    ("modprobe", "kmod"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Where the program is. The sbin directories are searched too: they are not in everybody's `PATH`.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    if let Some(found) =
        env::split_paths(&path).chain(sbin).map(|dir| dir.join(name)).find(|file| file.is_file())
    {
        return Ok(found);
    }
    let package = PACKAGES.iter().find(|(program, _)| *program == name).map_or(name, |(_, package)| package);
    bail!("{name} is not installed, and the virtual machines need it: apt-get install {package}");
}

/// A command that never reads the terminal.
pub fn command(name: &str) -> Result<Command> {
    let mut command = Command::new(program(name)?);
    command.stdin(Stdio::null());
    Ok(command)
}

/// Runs it and gives its output; what it wrote to standard error is the error when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot run {}", name_of(command)))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        bail!("{} failed ({status}): {}", name_of(command), said.trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

fn name_of(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned()
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    repository().join(target)
}

/// A directory under `target/vm`, made if need be.
pub fn directory(name: &str) -> Result<PathBuf> {
    let directory = target().join("vm").join(name);
    make(&directory)?;
    Ok(directory)
}

/// Makes the directory and those above it.
pub fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// A directory that is this process's own. It is removed when dropped, or, after a kill -9, by the next run.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one for `name`, under `target/vm/run`: two of one name are two.
    pub fn new(name: &str) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let run = directory("run")?;
        sweep(&run)?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let scratch = Self(run.join(format!("{name}-{serial}.{}", std::process::id())));
        make(&scratch.0)?;
        Ok(scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is lost if this fails: the next run sweeps.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories whose process (the number after the last dot) no longer runs.
fn sweep(run: &Path) -> Result<()> {
    for entry in fs::read_dir(run)? {
        let path = entry?.path();
        let owner = path.extension().and_then(OsStr::to_str).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // A program that the killed run had started may still be writing there: then a later run sweeps.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

/// The text as one word of a shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_one_word() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn two_of_one_name_do_not_share_a_directory() {
        let (one, other) = (Scratch::new("twice").unwrap(), Scratch::new("twice").unwrap());
        assert_ne!(one.path(), other.path());
        drop(one);
        assert!(other.path().is_dir());
    }

    #[test]
    fn a_missing_program_names_its_package() {
        assert!(
            program("no-such-program").unwrap_err().to_string().contains("apt-get install no-such-program")
        );
    }
}

//! One tracer at a time: two would take each other's resets for accesses, and restore each other's settings.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// What we keep while the machine is up.
pub(crate) const RUN_DIR: &str = "/run/trapline";

/// Held as long as it lives; the kernel lets it go with the process.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] Flock<File>);

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another tracer has it, and which, or /run cannot be written.
    pub(crate) fn take() -> Result<Self> {
        fs::create_dir_all(RUN_DIR).with_context(|| format!("cannot make {RUN_DIR} (run as root?)"))?;
        let path = format!("{RUN_DIR}/access.lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot open {path} (run as root?)"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)
                    .and_then(|()| writeln!(lock, "{}", std::process::id()))
                    .context("cannot write the lock")?;
                Ok(Self(lock))
            }
            Err((mut file, _)) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                bail!("page accesses are being traced already, by process {}: one at a time", holder.trim());
            }
        }
    }
}

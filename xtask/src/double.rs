//! The stand-in for an SGX driver (`tests/sgx-double`), built for the kernel that is to be booted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use crate::archive::Archive;
use crate::boot::Files;
use crate::headers::Headers;
use crate::system;

/// Where the module is, or will be.
pub fn module(files: &Files) -> PathBuf {
    directory(files).join("sgx_double.ko")
}

fn directory(files: &Files) -> PathBuf {
    system::target().join("vm/modules").join(files.version())
}

/// Builds the module unless it is newer than its sources.
pub fn build(files: &Files, archive: &mut Archive) -> Result<()> {
    let sources = system::repository().join("tests/sgx-double");
    let (place, module) = (directory(files), module(files));
    let newest = times(&sources)?.into_iter().max().context("the SGX stand-in has no sources")?;
    if fs::metadata(&module).and_then(|meta| meta.modified()).is_ok_and(|built| built > newest) {
        return Ok(());
    }
    let headers = Headers::get(files, archive)?;
    eprintln!("xtask: building the SGX stand-in for {}", files.version());
    system::make(&place)?;
    for entry in fs::read_dir(&sources)? {
        let entry = entry?;
        fs::copy(entry.path(), place.join(entry.file_name()))?;
    }
    let mut make = system::command("make")?;
    make.arg("-C").arg(&headers.objects);
    make.args([format!("M={}", place.display()), format!("PAHOLE={}", headers.pahole.display())]);
    make.args([format!("CC={}", system::program("gcc")?.display()), "CROSS_COMPILE=".to_owned()]);
    let said = system::output(make.arg("modules")).context("cannot build the SGX stand-in")?;
    ensure!(module.exists(), "make built no {}: {}", module.display(), said.trim());
    Ok(())
}

fn times(directory: &Path) -> Result<Vec<SystemTime>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.metadata()?.modified()?)).collect()
}

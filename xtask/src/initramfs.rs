//! The first file system of a virtual machine: busybox, the modules that reach the host's files, and
//! `guest/init`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::system;

/// What has to be loaded before the host's file system is there. kmod adds what these need, in order.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "9pnet_virtio", "9p", "ext4", "overlay"];

const INIT: &[u8] = include_bytes!("../guest/init");

const DIRECTORIES: &[&str] = &["bin", "dev", "host", "kernel", "modules", "proc", "root", "sys", "upper"];

/// Writes it for the kernel `version`, whose files are unpacked in `root`.
pub fn write(file: &Path, root: &Path, version: &str, busybox: &Path) -> Result<()> {
    let mut archive = Cpio::default();
    for name in DIRECTORIES {
        archive.entry(name, DIRECTORY, &[]);
    }
    archive.entry("init", PROGRAM, INIT);
    archive.entry("bin/busybox", PROGRAM, &read(busybox)?);
    let mut order = String::new();
    for (name, content) in modules(root, version)? {
        archive.entry(&format!("modules/{name}"), FILE, &content);
        order += &format!("{name}\n");
    }
    archive.entry("modules/order", FILE, order.as_bytes());
    fs::write(file, archive.finish()).with_context(|| format!("cannot write {}", file.display()))
}

/// The modules in the order in which they load, unpacked.
fn modules(root: &Path, version: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut modprobe = system::command("modprobe")?;
    modprobe
        .arg("--dirname")
        .arg(root)
        .args(["--set-version", version, "--show-depends", "--all"])
        .args(MODULES);
    let listed = system::output(&mut modprobe)?;
    let mut seen = HashSet::new();
    let mut modules = Vec::new();
    // Each line is `insmod PATH [OPTIONS]`, or `builtin NAME`. The path may hold spaces; there are no options
    // here.
    for path in listed.lines().filter_map(|line| line.strip_prefix("insmod ")).map(str::trim_end) {
        let path = Path::new(path);
        if !seen.insert(path.to_owned()) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let packed = name.strip_suffix(".xz");
        let content = if packed.is_some() { unpack(path)? } else { read(path)? };
        modules.push((packed.unwrap_or(&name).to_owned(), content));
    }
    Ok(modules)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn unpack(file: &Path) -> Result<Vec<u8>> {
    let output = system::command("xz")?.args(["--decompress", "--stdout"]).arg(file).output()?;
    anyhow::ensure!(output.status.success(), "cannot unpack {}", file.display());
    Ok(output.stdout)
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// An archive in the only format that the kernel reads here (cpio "newc"): every entry is a header of 8-digit
/// hexadecimal numbers, the name and the content, the last two padded to four bytes.
#[derive(Debug, Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let fields = [
            self.entries,
            mode,
            0, // user
            0, // group
            links,
            0, // time
            content.len() as u32,
            0, // device of the file
            0,
            0, // device that the file is
            0,
            name.len() as u32 + 1,
            0, // checksum, unused
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_starts_with_a_header_and_is_padded() {
        let mut archive = Cpio::default();
        archive.entry("file", FILE, b"12345");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"07070100000001000081a4"));
        // 110 bytes of header and "file\0" make 115, padded to 116; the content makes 121, padded to 124.
        assert_eq!(&bytes[110..121], b"file\0\x0012345");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }
}

//! What a module is built against: a kernel's headers and build programs, unpacked and not installed.
//!
//! The packages expect to lie in `/usr/src`, and those of newer kernels to run with the libraries and the compiler of the
//! next release. So their makefiles are given the place where they are, each program is started through that release's
//! dynamic loader, and what that release's compiler could do and this machine's may not is taken from the configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::{Archive, Wanted};
use crate::boot::Files;
use crate::system;

/// Libraries for the build programs, and the one that makes type information.
const TOOLS: &[&str] = &[
    "libc6/trixie",
    "pahole/trixie",
    "libbpf1/trixie",
    "libdw1t64/trixie",
    "libelf1t64/trixie",
    "libbz2-1.0/trixie",
    "liblzma5/trixie",
    "libzstd1/trixie",
    "zlib1g/trixie",
];

/// Abilities of compilers newer than gcc 12. The code is as right without them.
const NEWER_COMPILERS: &[&str] = &["CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT"];

/// Headers that a module can be built against.
#[derive(Debug)]
pub struct Headers {
    /// Where `make` is to be run.
    pub objects: PathBuf,
    /// The program that makes type information.
    pub pahole: PathBuf,
}

impl Headers {
    /// Those of exactly this kernel, from the cache, or else from the archive.
    pub fn get(files: &Files, archive: &mut Archive) -> Result<Self> {
        let tools = Wanted { name: "kbuild-tools", packages: TOOLS.to_vec() };
        let tools = Archive::of_next_release().unpacked(&tools, |_| Ok(()))?;
        let version = files.version();
        let common = version.strip_suffix("-amd64").context("it is not a kernel for amd64")?;
        // Up to 6.1 the programs were the same for all kernels of a series.
        let programs = match common.split_once(".0-") {
            Some((series, _)) => format!("linux-kbuild-{series}"),
            None => format!("linux-kbuild-{common}"),
        };
        let packages =
            [format!("linux-headers-{version}"), format!("linux-headers-{common}-common"), programs];
        let name = format!("linux-headers-{version}");
        let wanted = Wanted { name: &name, packages: packages.iter().map(String::as_str).collect() };
        let place = system::directory("cache")?.join(&name);
        let pahole = place.join("pahole");
        if pahole.exists() && !fs::read_to_string(&pahole)?.contains(&tools.display().to_string()) {
            // The repository has been moved: nothing in there finds the rest of it any more.
            fs::remove_dir_all(&place)?;
        }
        let place =
            archive.unpacked(&wanted, |set| Layout { set, place: &place, tools: &tools, files }.arrange())?;
        Ok(Self { objects: place.join("usr/src").join(&name), pahole: place.join("pahole") })
    }
}

/// A set on its way into the cache.
struct Layout<'a> {
    /// Where it is now.
    set: &'a Path,
    /// Where it will be.
    place: &'a Path,
    tools: &'a Path,
    files: &'a Files,
}

impl Layout<'_> {
    fn arrange(&self) -> Result<()> {
        let objects = self.set.join("usr/src").join(format!("linux-headers-{}", self.files.version()));
        edit(&objects.join("Makefile"), |text| {
            text.replace("/usr/src/", &format!("{}/usr/src/", self.place.display()))
        })?;
        for name in ["include/generated/autoconf.h", "include/config/auto.conf"] {
            edit(&objects.join(name), without_newer_compilers)?;
        }
        let programs = fs::read_dir(self.set.join("usr/lib"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-kbuild-"))
            })
            .context("there are no build programs")?;
        self.wrap_all(&programs)?;
        self.script(&self.set.join("pahole"), &self.start(&self.tools.join("usr/bin/pahole")))?;
        let resolver = programs.join("tools/bpf/resolve_btfids/resolve_btfids");
        if !resolver.exists() {
            // It numbers the kernel functions that a module offers to BPF; ours offers none.
            system::make(resolver.parent().unwrap_or(&programs))?;
            self.script(&resolver, "exit 0")?;
        }
        let kernel = objects.join("vmlinux");
        if !kernel.exists() {
            // Up to 6.1 the package has no types of the kernel to build a module's on.
            fs::write(&kernel, unpacked(self.files.image())?)?;
        }
        Ok(())
    }

    /// Puts a script in the place of every program, which starts it.
    fn wrap_all(&self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.wrap_all(&path)?;
            } else if entry.file_type()?.is_file() && is_program(&path)? {
                self.wrap(&path)?;
            }
        }
        Ok(())
    }

    fn wrap(&self, path: &Path) -> Result<()> {
        let beside = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
        // Some only choose the one for the architecture, by a name that they could not find from our script.
        let chosen = [".real-lsb-64", ".real-x86"].map(beside).into_iter().find(|file| file.exists());
        if path.display().to_string().contains(".real-") || path.extension().is_some_and(|end| end == "elf") {
            return Ok(());
        }
        let real = match chosen {
            Some(real) => real,
            None => {
                fs::rename(path, beside(".elf"))?;
                beside(".elf")
            }
        };
        let real = self.place.join(real.strip_prefix(self.set)?);
        if path.exists() {
            fs::remove_file(path)?;
        }
        self.script(path, &self.start(&real))
    }

    /// A shell command that starts a program with the libraries of the tools.
    fn start(&self, program: &Path) -> String {
        let libraries = self.tools.join("usr/lib/x86_64-linux-gnu");
        let loader = libraries.join("ld-linux-x86-64.so.2");
        let words = [loader.as_path(), Path::new("--library-path"), &libraries, program];
        let words = words.map(|word| system::quote(&word.display().to_string()));
        format!("exec {} \"$@\"", words.join(" "))
    }

    fn script(&self, path: &Path, command: &str) -> Result<()> {
        fs::write(path, format!("#!/bin/sh\n{command}\n"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}

fn edit(path: &Path, change: impl Fn(&str) -> String) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(path, change(&text))?;
    Ok(())
}

fn without_newer_compilers(text: &str) -> String {
    let newer = |line: &&str| {
        let words = || line.split([' ', '=']);
        !NEWER_COMPILERS.iter().any(|name| words().any(|word| word == *name))
    };
    text.lines().filter(newer).map(|line| format!("{line}\n")).collect()
}

fn is_program(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut start = [0; 4];
    let read = fs::File::open(path)?.read(&mut start)?;
    Ok(read == 4 && start == *b"\x7fELF")
}

/// The kernel inside its image (Documentation/arch/x86/boot.rst), with the programs that unpack it.
fn unpacked(image: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let payload = payload(&bytes).context("the kernel image has no payload")?;
    let unpack = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => bail!("the kernel image is packed in a way that nobody here knows"),
    };
    let packed = image.with_extension("payload");
    let packed = std::env::temp_dir().join(packed.file_name().unwrap_or_default());
    fs::write(&packed, payload)?;
    let mut command = system::command(unpack)?;
    command.args(["--decompress", "--stdout"]).stdin(fs::File::open(&packed)?).stderr(Stdio::null());
    let output = command.output();
    fs::remove_file(&packed)?;
    let kernel = output?.stdout;
    ensure!(kernel.starts_with(b"\x7fELF"), "cannot unpack {}", image.display());
    Ok(kernel)
}

/// The packed kernel, without its length, which follows it.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        n => usize::from(n),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    image.get(start..start + word(0x24c)?.checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&7u32.to_le_bytes());
        image[1040..1043].copy_from_slice(b"abc");
        assert_eq!(payload(&image), Some(&b"abc"[..]));
        assert_eq!(payload(&image[..100]), None);
    }

    #[test]
    fn only_what_newer_compilers_can_is_left_out() {
        let text = "#define CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT 1\nCONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=y\nCONFIG_X86=y\n";
        assert_eq!(without_newer_compilers(text), "CONFIG_X86=y\n");
    }
}

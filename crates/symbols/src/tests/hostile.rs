//! Files that were made to harm who looks at them.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::ptr::NonNull;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::Mode;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};

use super::*;

/// Which signal asks for a lease (include/uapi/asm-generic/fcntl.h).
const F_SETSIG: i32 = 10;

/// A file that this process has mapped to execute, which it never does.
struct Mapped {
    at: NonNull<libc::c_void>,
    len: NonZeroUsize,
}

impl Mapped {
    fn new(file: &File) -> Self {
        let len = NonZeroUsize::new(file.metadata().unwrap().len().max(4096) as usize).unwrap();
        let code = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
        // SAFETY: a new mapping at an address of the kernel's choice, which nobody reads.
        let at = unsafe { mmap(None, len, code, MapFlags::MAP_PRIVATE, file, 0) }.unwrap();
        Self { at, len }
    }

    fn at(&self, offset: u64) -> u64 {
        self.at.as_ptr() as u64 + offset
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`, and nobody has a reference into it.
        unsafe { munmap(self.at, self.len.get()) }.unwrap();
    }
}

/// Where a function of a program is in its file.
fn offset_of(bytes: &[u8], function: &str) -> u64 {
    let elf = object::File::parse(bytes).unwrap();
    let address = elf.symbols().find(|symbol| symbol.name() == Ok(function)).unwrap().address();
    let holds = |address: u64, start: u64, len: u64| (start..start + len).contains(&address);
    let segment = elf.segments().find(|s| holds(address, s.address(), s.size())).unwrap();
    address - segment.address() + segment.file_range().0
}

/// Where the contents of a section are.
fn section(bytes: &[u8], name: &str) -> (u64, u64) {
    let elf = object::File::parse(bytes).unwrap();
    let section = elf.sections().find(|section| section.name() == Ok(name));
    section.unwrap_or_else(|| panic!("no {name}")).file_range().unwrap()
}

/// A file of these bytes, mapped, and what the symbolizer says of the function in it.
fn name_in(bytes: &[u8], offset: u64) -> Rc<Name> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mapped = Mapped::new(&file);
    one(&mut Symbols::new(), own(), mapped.at(offset))
}

/// The function that others were inlined into, and the line there; 0 if that is not known.
fn outermost(name: &Name) -> Result<(String, u32), Why> {
    let function = name.functions.clone()?.remove(0);
    Ok((function.name, function.line.map_or(0, |line| line.line)))
}

fn run(program: &str, args: &[&std::ffi::OsStr]) {
    assert!(Command::new(program).args(args).status().unwrap().success(), "{program}");
}

#[test]
fn a_truncated_file_costs_its_own_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let (cut, whole) = (compile(dir.path(), "cut", &["-g"]), compile(dir.path(), "whole", &["-g"]));
    let bytes = fs::read(&cut).unwrap();
    let (outer, main) = (offset_of(&bytes, "outer_one"), offset_of(&bytes, "main"));
    let (mapped, other) =
        (Mapped::new(&File::open(&cut).unwrap()), Mapped::new(&File::open(&whole).unwrap()));
    let mut symbols = Symbols::new();
    assert_eq!(outermost(&one(&mut symbols, own(), mapped.at(outer))).unwrap().0, "outer_one");
    OpenOptions::new().write(true).open(&cut).unwrap().set_len(0).unwrap();
    let names = symbols.resolve(own(), &[mapped.at(main), other.at(main), mapped.at(outer)]);
    let why = names[0].functions.clone().unwrap_err().to_string();
    assert_eq!(why, "cannot read the file: the file is empty");
    assert_eq!(outermost(&names[1]).unwrap().0, "main");
    assert_eq!(outermost(&names[2]).unwrap().0, "outer_one", "what was known is known");
}

#[test]
fn debug_information_that_is_no_file_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "linked", &["-g"]);
    let offset = offset_of(&fs::read(&path).unwrap(), "outer_one");
    let debug = dir.path().join("linked.debug");
    run("objcopy", &["--only-keep-debug".as_ref(), path.as_ref(), debug.as_ref()]);
    run("strip", &[path.as_ref()]);
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    run("objcopy", &[&link, path.as_ref()]);
    let mapped = Mapped::new(&File::open(&path).unwrap());
    let name = |what: &str| {
        let name = one(&mut Symbols::new(), own(), mapped.at(offset));
        (what.to_owned(), name.functions.clone().map(|functions| functions[0].name.clone()))
    };
    assert_eq!(name("whole"), ("whole".into(), Ok("outer_one".into())));
    // Others may write to the directory: anybody could have put it there.
    let open = |mode| fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(mode));
    open(0o777).unwrap();
    assert_eq!(name("anybody's"), ("anybody's".into(), Err(Why::Stripped)));
    open(0o700).unwrap();
    fs::rename(&debug, dir.path().join("elsewhere")).unwrap();
    nix::unistd::mkfifo(&debug, Mode::S_IRWXU).unwrap();
    assert_eq!(name("fifo"), ("fifo".into(), Err(Why::Stripped)));
    fs::remove_file(&debug).unwrap();
    symlink("/dev/ptmx", &debug).unwrap();
    assert_eq!(name("device"), ("device".into(), Err(Why::Stripped)));
}

#[test]
fn a_perf_map_is_the_processes_own_regular_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(&compile(dir.path(), "jit", &[]));
    let path = PathBuf::from(format!("/tmp/perf-{}.map", running.child.id()));
    let text = format!("{:x} 20 somebody's\n", running.made);
    let other = dir.path().join("other");
    let made = |what: &str| {
        let name = one(&mut Symbols::new(), running.image(), running.made);
        fs::remove_file(&path).unwrap();
        assert_eq!(name.functions, Err(Why::NoPerfMap), "{what}");
    };
    fs::write(&other, &text).unwrap();
    symlink(&other, &path).unwrap();
    made("a link");
    symlink("/dev/ptmx", &path).unwrap();
    made("a device");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    made("a FIFO");
    fs::write(&path, &text).unwrap();
    fs::hard_link(&path, dir.path().join("again")).unwrap_or_else(|_| {
        fs::hard_link(&path, path.with_extension("again")).unwrap();
    });
    made("one of two links");
    let _ = fs::remove_file(path.with_extension("again"));
    if nix::unistd::Uid::effective().is_root() {
        fs::write(&path, &text).unwrap();
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        made("somebody else's");
    }
    running.end();
}

#[test]
fn a_lease_on_a_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "leased", &["-g"]);
    let offset = offset_of(&fs::read(&path).unwrap(), "outer_one");
    let file = File::open(&path).unwrap();
    let mapped = Mapped::new(&file);
    // SAFETY: the arguments are numbers. The signal that asks for the lease is one that is ignored.
    let leased = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    if leased != 0 {
        // Not every file system has leases.
        return;
    }
    let name = one(&mut Symbols::new(), own(), mapped.at(offset));
    let why = "cannot read the file: another process holds a lease on it";
    assert_eq!(name.functions.clone().unwrap_err().to_string(), why);
}

#[test]
fn many_files_are_not_all_held_on_to() {
    let mut symbols = Symbols::new();
    let file = |name: u32| {
        let fd: OwnedFd = memfd_create(format!("m{name}").as_str(), MFdFlags::empty()).unwrap();
        let file = File::from(fd);
        file.set_len(4096).unwrap();
        file
    };
    let mapped: Vec<Mapped> = (0..500).map(|name| Mapped::new(&file(name))).collect();
    symbols.know(own());
    assert!(symbols.files.pinned() <= 384, "{}", symbols.files.pinned());
    let names = symbols.resolve(own(), &[mapped[0].at(0), a_known_function as fn() -> u32 as usize as u64]);
    assert_eq!(
        names[0].functions.clone().unwrap_err().to_string(),
        "cannot read the file: it is not an ELF file"
    );
    assert_eq!(names[1].to_string(), "trapline_symbols::tests::a_known_function");
}

#[test]
fn false_sizes_in_a_file_do_not_cost_functions() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(compile(dir.path(), "packed", &["-g", "-gz=zlib"])).unwrap();
    let offset = offset_of(&bytes, "outer_one");
    let name = name_in(&bytes, offset);
    assert_eq!(outermost(&name), Ok(("outer_one".into(), 16)), "{name:?}");
    // Elf64_Chdr: ch_type, ch_reserved, ch_size.
    let (info, _) = section(&bytes, ".debug_info");
    for size in [u64::MAX / 2, 4 << 30, 400 << 20, 1] {
        let mut bytes = bytes.clone();
        bytes[info as usize + 8..][..8].copy_from_slice(&size.to_le_bytes());
        let name = name_in(&bytes, offset);
        assert_eq!(outermost(&name), Ok(("outer_one".into(), 0)), "{size}: {name:?}");
    }
}

#[test]
fn a_huge_symbol_table_without_symbols_costs_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "sparse", &["-rdynamic"]);
    let mut bytes = fs::read(&path).unwrap();
    let offset = offset_of(&bytes, "outer_one");
    // Its section header: e_shoff, then the index, then sh_offset and sh_size.
    let index = object::File::parse(&*bytes).unwrap().section_by_name(".symtab").unwrap().index().0;
    let headers = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    let (at, len) = (bytes.len().next_multiple_of(4096) as u64, 24_u64 << 22);
    let header = &mut bytes[headers + 64 * index..][..64];
    header[24..32].copy_from_slice(&at.to_le_bytes());
    header[32..40].copy_from_slice(&len.to_le_bytes());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.set_len(at + len).unwrap();
    let mapped = Mapped::new(&file);
    // What is exported is in another table.
    assert_eq!(one(&mut Symbols::new(), own(), mapped.at(offset)).to_string(), "outer_one");
}

/// Whatever is changed in a file: an answer comes, and of the symbolizer's own time.
#[test]
fn changed_bytes_anywhere_have_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = 0x5eed_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below.max(1)
    };
    let mut client = child::Client::default();
    let (mut functions, mut tried, mut ended) = (0, 0, 0);
    for options in [&["-g"][..], &["-g", "-gz=zlib"], &["-g", "-gdwarf-4"]] {
        let whole = fs::read(compile(dir.path(), "changed", options)).unwrap();
        let offset = offset_of(&whole, "outer_one");
        let mut places: Vec<(u64, u64)> = vec![(0, whole.len() as u64)];
        for name in [".debug_line", ".debug_info", ".debug_abbrev", ".symtab"] {
            places.push(section(&whole, name));
        }
        let mut file = tempfile::tempfile().unwrap();
        for round in 0..800 {
            let mut bytes = whole.clone();
            let (start, len) = places[round % places.len()];
            for _ in 0..=next(4) {
                let at = start as usize + next(len as usize);
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1 << next(8)][next(6)];
            }
            file.rewind().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            tried += 1;
            let open = child::wire::Request::Open { id: 1, size: bytes.len() as u64, lines: true };
            let find = child::wire::Request::Find { id: 1, at: vec![offset, offset + 4, 0, u64::MAX] };
            let fd = std::os::fd::AsFd::as_fd(&file);
            let answer = client.call(&open, Some(fd)).and_then(|_| client.call(&find, None));
            match answer {
                Ok(child::wire::Reply::Found(found)) => functions += u32::from(found[0].is_ok()),
                Ok(_) => {}
                Err(error) => {
                    ended += 1;
                    assert!(ended < 4, "{error:?}: it should be found out why");
                }
            }
        }
    }
    assert_eq!(tried, 2400);
    assert!(functions > 1200, "{functions}");
}

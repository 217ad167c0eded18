//! A program that touches known pages of known files and sorts of memory, and tells which: the truth of `--by file`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::fixture::{PAGE, in_child, in_threads, rusage};
use crate::run::{Place, place, scratch};

/// The kernel maps up to so much around a fault of a file's page that is in memory, at a multiple of it.
const STRIDE: usize = 16 * PAGE;
const BLOCKS: usize = 12;
const LEN: usize = BLOCKS * STRIDE;
const HUGE: usize = 2 << 20;
/// Threads that share the work.
const THREADS: usize = 3;

/// How each block is touched.
#[derive(Clone, Copy)]
enum Touch {
    Read,
    Write,
    /// Two faults a page: what is read is not allowed to be written.
    ReadThenWrite,
    /// By the kernel, in a system call.
    Call,
}

struct Area {
    at: usize,
    stride: usize,
    blocks: usize,
    touch: Touch,
    /// What the rows and the events are to call it.
    file: String,
    /// Where it begins in that; nothing for memory without offsets.
    offset: Option<usize>,
    /// What became of it: how many faults, on which blocks.
    faults: AtomicUsize,
    first: AtomicUsize,
    last: AtomicUsize,
}

impl Area {
    fn new(file: &str, at: usize, offset: Option<usize>, touch: Touch) -> Self {
        Self {
            at,
            stride: STRIDE,
            blocks: BLOCKS,
            touch,
            file: file.into(),
            offset,
            faults: AtomicUsize::new(0),
            first: AtomicUsize::new(usize::MAX),
            last: AtomicUsize::new(0),
        }
    }

    fn of(file: &str, fd: i32, offset: usize, private: bool, touch: Touch) -> Self {
        let flags = if private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
        let at = map(LEN, flags, fd, offset, matches!(touch, Touch::Read));
        Self::new(file, at, Some(offset), touch)
    }

    /// Touches every third block, or all, and remembers which of them faulted, by the kernel's own counters: around one
    /// fault it may map more than we know.
    fn touch(&self, first: usize, step: usize) {
        // What this takes is there from now on, so that each further fault is the block's.
        let mut warm = 0;
        for touch in [Touch::Read, Touch::Write, Touch::ReadThenWrite, Touch::Call].repeat(2) {
            measured(&raw mut warm, touch);
        }
        for block in (first..self.blocks).step_by(step) {
            let at = ptr::with_exposed_provenance_mut::<u8>(self.at + block * self.stride);
            let faults = measured(at, self.touch);
            if faults > 0 {
                self.faults.fetch_add(faults, Relaxed);
                self.first.fetch_min(block, Relaxed);
                self.last.fetch_max(block, Relaxed);
            }
        }
    }

    fn tell(&self) {
        let faults = self.faults.load(Relaxed);
        assert!(faults > 0, "no fault on {}", self.file);
        let offset = |block: usize| self.offset.map(|offset| offset + block * self.stride);
        let truth = serde_json::json!({
            "type": "truth", "what": "touched", "pid": std::process::id(), "file": self.file, "faults": faults,
            "start": self.at, "end": self.at + self.blocks * self.stride, "stride": self.stride,
            "offset": self.offset, "first": offset(self.first.load(Relaxed)), "last": offset(self.last.load(Relaxed)),
        });
        println!("{truth}");
    }
}

/// How many faults this takes. The byte is in memory that allows it.
fn measured(at: *mut u8, touch: Touch) -> usize {
    let before = rusage(libc::RUSAGE_THREAD);
    once(at, touch);
    let after = rusage(libc::RUSAGE_THREAD);
    (after.0 + after.1 - before.0 - before.1) as usize
}

/// The byte is in memory that allows it.
fn once(at: *mut u8, touch: Touch) {
    let zero = ZERO.get().unwrap().as_raw_fd();
    // SAFETY: see above.
    unsafe {
        match touch {
            Touch::Read => drop(ptr::read_volatile(at)),
            Touch::Write => ptr::write_volatile(at, 1),
            Touch::ReadThenWrite => {
                ptr::read_volatile(at);
                ptr::write_volatile(at, 1);
            }
            Touch::Call => assert_eq!(libc::read(zero, at.cast(), 1), 1),
        }
    }
}

fn map(len: usize, flags: i32, fd: i32, offset: usize, read_only: bool) -> usize {
    let prot = if read_only { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, offset as i64) };
    assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    if fd < 0 && flags & libc::MAP_HUGETLB == 0 {
        // SAFETY: the mapping was made above.
        unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
    }
    at.expose_provenance()
}

fn file(path: &Path, len: usize) -> File {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    // Page by page: what is written at once, kernels keep and map together.
    (0..len / PAGE).for_each(|_| file.write_all(&[7; PAGE]).unwrap());
    file
}

fn mount(what: &CStr, at: &Path, kind: &CStr, flags: libc::c_ulong, data: &str) {
    let (at, data) = (CString::new(at.as_os_str().as_bytes()).unwrap(), CString::new(data).unwrap());
    // SAFETY: strings that end in NUL.
    let made = unsafe { libc::mount(what.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    assert_eq!(made, 0, "mount {kind:?}: {}", std::io::Error::last_os_error());
}

fn memfd(name: &CStr, flags: libc::c_uint, len: usize) -> File {
    // SAFETY: a string that ends in NUL; the descriptor that it gives is nobody else's.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(name.as_ptr(), flags)) };
    file.set_len(len as u64).unwrap();
    file
}

/// Files on disk, of which one has no name any more, one is mapped twice and one is copied as it is written.
fn on_disk(dir: &Path, areas: &mut Vec<Area>) {
    let path = |name: &OsStr| dir.join(name);
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let plain = path("plain".as_ref());
    areas.push(Area::of(&shown(&plain), file(&plain, LEN).as_raw_fd(), 0, false, Touch::Read));
    let gone = path("gone".as_ref());
    let open = file(&gone, LEN);
    std::fs::remove_file(&gone).unwrap();
    areas.push(Area::of(&format!("{} (deleted)", shown(&gone)), open.as_raw_fd(), 0, false, Touch::Write));
    let twice = path("twice".as_ref());
    let open = file(&twice, 8 * LEN);
    areas.push(Area::of(&shown(&twice), open.as_raw_fd(), LEN, false, Touch::Write));
    areas.push(Area::of(&shown(&twice), open.as_raw_fd(), 5 * LEN + PAGE, false, Touch::Read));
    let private = path("private".as_ref());
    areas.push(Area::of(&shown(&private), file(&private, LEN).as_raw_fd(), 0, true, Touch::ReadThenWrite));
    let copied = path("copied".as_ref());
    areas.push(Area::of(&shown(&copied), file(&copied, LEN).as_raw_fd(), 0, true, Touch::Write));
    let filled = path("filled by a system call".as_ref());
    areas.push(Area::of(&shown(&filled), file(&filled, LEN).as_raw_fd(), 0, false, Touch::Call));
    let hostile = path(OsStr::from_bytes(b"\x1b[2J\n\",x\xff (deleted)"));
    areas.push(Area::of(&shown(&hostile), file(&hostile, LEN).as_raw_fd(), 0, false, Touch::Read));
}

/// File systems that only this process sees.
fn mounted(dir: &Path, areas: &mut Vec<Area>) {
    let own = dir.join("own mount");
    std::fs::create_dir(&own).unwrap();
    mount(c"none", &own, c"tmpfs", 0, "");
    let path = own.join("file");
    areas.push(Area::of(&path.to_string_lossy(), file(&path, LEN).as_raw_fd(), 0, false, Touch::Write));
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| own.join(name));
    for dir in [&lower, &upper, &work, &merged] {
        std::fs::create_dir(dir).unwrap();
    }
    file(&lower.join("below"), LEN);
    let layers =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(c"overlay", &merged, c"overlay", 0, &layers);
    let path = merged.join("below");
    let open = File::open(&path).unwrap();
    areas.push(Area::of(&path.to_string_lossy(), open.as_raw_fd(), 0, false, Touch::Read));
    let path = merged.join("above");
    areas.push(Area::of(&path.to_string_lossy(), file(&path, LEN).as_raw_fd(), 0, false, Touch::Write));
}

/// Memory without a file, or whose file has no name in any directory.
fn memory(areas: &mut Vec<Area>) {
    let mut add = |file: &str, at, offset, touch| {
        areas.push(Area::new(file, at, offset, touch));
    };
    let anonymous = libc::MAP_ANONYMOUS;
    add("[anon]", map(LEN, libc::MAP_PRIVATE | anonymous, -1, 0, false), None, Touch::Write);
    add("[anon]", map(LEN, libc::MAP_PRIVATE | anonymous, -1, 0, false), None, Touch::Call);
    add("[shmem]", map(LEN, libc::MAP_SHARED | anonymous, -1, 0, false), None, Touch::Write);
    // SAFETY: nobody else moves the break: the allocator has what it needs, or moves on from there.
    let heap = unsafe { libc::sbrk(LEN as isize) };
    // SAFETY: memory that sbrk has given, from the next page on.
    unsafe {
        libc::madvise(heap.map_addr(|at| at.next_multiple_of(PAGE)), LEN - PAGE, libc::MADV_NOHUGEPAGE)
    };
    // Its first page may be there already.
    let at = heap.expose_provenance().next_multiple_of(PAGE) + STRIDE;
    areas.push(Area { blocks: BLOCKS - 2, ..Area::new("[heap]", at, None, Touch::Write) });
    let named = memfd(c"a name\x1b[2J", 0, 2 * LEN);
    areas.push(Area::of("[shmem] memfd:a name\x1b[2J", named.as_raw_fd(), PAGE, false, Touch::Write));
    // SAFETY: numbers; the segment goes with its last user.
    let at = unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, LEN, libc::IPC_CREAT | 0o600);
        let at = libc::shmat(id, ptr::null(), 0);
        libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
        at.expose_provenance()
    };
    areas.push(Area::new("[shmem] SYSV00000000", at, Some(0), Touch::Write));
}

/// Huge pages: only in a virtual machine of our own, where they can be asked for.
fn huge(areas: &mut Vec<Area>) {
    const PAGES: usize = 3;
    if place() != Place::Vm || std::fs::write("/proc/sys/vm/nr_hugepages", "8").is_err() {
        return;
    }
    let mut add = |file: &str, flags, fd, offset| {
        let at = map(PAGES * HUGE, flags | libc::MAP_HUGETLB, fd, 0, false);
        areas.push(Area { stride: HUGE, blocks: PAGES, ..Area::new(file, at, offset, Touch::Write) });
    };
    add("[hugetlb]", libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, None);
    let named = memfd(c"large", libc::MFD_HUGETLB, PAGES * HUGE);
    add("[hugetlb] memfd:large", libc::MAP_SHARED, named.as_raw_fd(), Some(0));
}

static AREAS: OnceLock<Vec<Area>> = OnceLock::new();
static ZERO: OnceLock<File> = OnceLock::new();

/// Touches everything there is, in several threads, and a file in a child whose root is another.
pub fn files() {
    let dir = scratch().join(format!("files-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("root")).unwrap();
    let began_ns =
        std::time::Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap())
            .as_nanos() as u64;
    ZERO.set(File::open("/dev/zero").unwrap()).unwrap();
    // SAFETY: this process has one thread; from here on it has mounts of its own.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", std::io::Error::last_os_error());
    mount(c"none", Path::new("/"), c"none", libc::MS_REC | libc::MS_PRIVATE, "");
    file(&dir.join("root/inside"), LEN);
    in_child(|| {
        std::os::unix::fs::chroot(dir.join("root")).unwrap();
        std::env::set_current_dir("/").unwrap();
        let open = File::open("/inside").unwrap();
        let area = Area::of("/inside", open.as_raw_fd(), 0, false, Touch::Read);
        area.touch(0, 1);
        area.tell();
    });
    let mut areas = Vec::new();
    on_disk(&dir, &mut areas);
    mounted(&dir, &mut areas);
    memory(&mut areas);
    huge(&mut areas);
    let areas = AREAS.get_or_init(|| areas);
    in_threads(THREADS, |first| {
        AREAS.get().unwrap().iter().for_each(|area| area.touch(first, THREADS));
    });
    areas.iter().for_each(Area::tell);
    maps(began_ns);
    std::io::stdout().flush().unwrap();
    let _ = std::fs::remove_dir_all(dir.join("root"));
    // What is left of the directory is the place of the mount, which ends with this process.
    for entry in std::fs::read_dir(&dir).unwrap() {
        let _ = std::fs::remove_file(entry.unwrap().path());
    }
}

/// What the kernel itself says is mapped where.
fn maps(began_ns: u64) {
    let text = std::fs::read("/proc/self/maps").unwrap();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut words = line.splitn(6, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (range, _, offset) = (next(), next(), next());
        let (start, end) = range.split_once('-').unwrap();
        let number = |hex| u64::from_str_radix(hex, 16).unwrap();
        let name = line.splitn(6, ' ').nth(5).unwrap_or_default().trim_start().replace("\\012", "\n");
        let truth = serde_json::json!({
            "type": "truth", "what": "map", "pid": std::process::id(), "name": name, "began_ns": began_ns,
            "start": number(start), "end": number(end), "offset": number(offset),
        });
        println!("{truth}");
    }
}

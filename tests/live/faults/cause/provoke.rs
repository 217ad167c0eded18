//! Programs each of which makes faults of one cause, in memory that it names, and knows how many: the fixture
//! `cause NAME`.
//!
//! Everything happens twice: once so that all that is not meant is warm, and once to be watched. A line on standard
//! input starts each. What the kernel counted meanwhile, and where the faults were meant to be, is the answer.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_int, c_void};

use crate::fixture::{Memory, PAGE, cold_file, map, map_of, read_all, rusage, touch};
use crate::run::scratch;

/// The smallest huge page, and the table of which one entry is one.
pub const HUGE: usize = 512 * PAGE;

/// Memory in which faults are to happen, and what makes them happen.
pub struct Provoked {
    /// Addresses; how many faults there will be, if that is certain.
    at: Vec<(Range<usize>, Option<usize>)>,
    /// Makes the faults.
    go: Box<dyn FnMut()>,
    /// What lives as long.
    _keep: Vec<Box<dyn std::any::Any>>,
}

fn range(memory: &Memory) -> Range<usize> {
    memory.0 as usize..memory.0 as usize + memory.1
}

/// The names that the command line knows.
pub fn provoke(name: &str) {
    let prepare: fn() -> Provoked = match name {
        "zero-fill" => zero_fill,
        "copy-on-write" => copy_on_write,
        "file-map" => file_map,
        "file-read" => file_read,
        "swap-in" => swap_in,
        "huge-page" => huge_page,
        "numa-hint" => numa_hint,
        "userfaultfd" => crate::faults::cause::uffd::userfaultfd,
        "shmem" => shmem,
        "hugetlb" => hugetlb,
        "device" => device,
        "bad-address" => bad_address,
        "write-notify" => write_notify,
        _ => panic!("no way to make faults for {name}"),
    };
    let mut stdin = std::io::stdin().lock();
    let mut line = String::with_capacity(PAGE);
    let mut answer = Vec::with_capacity(16 * PAGE);
    touch(&Memory(answer.as_mut_ptr(), 0));
    for _ in 0..2 {
        let mut provoked = prepare();
        println!("ready");
        line.clear();
        assert!(stdin.read_line(&mut line).unwrap() > 0);
        let before = rusage(libc::RUSAGE_SELF);
        (provoked.go)();
        let after = rusage(libc::RUSAGE_SELF);
        answer.clear();
        write!(answer, r#"{{"major":{},"minor":{},"at":["#, after.0 - before.0, after.1 - before.1).unwrap();
        for (i, (at, faults)) in provoked.at.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let faults = faults.map_or("null".to_owned(), |faults| faults.to_string());
            write!(answer, r"{comma}[{},{},{faults}]", at.start, at.end).unwrap();
        }
        answer.extend(b"]}\n");
        std::io::stdout().write_all(&answer).unwrap();
        // It is watched until here: nothing is unmapped before.
        line.clear();
        stdin.read_line(&mut line).unwrap();
    }
}

/// What makes a fault in each page of a mapping.
pub type Means = fn(&Memory);

/// Faults in several mappings, each made by its own means, one a page.
pub fn each_page(memories: Vec<(Memory, Means)>) -> Provoked {
    let at = memories.iter().map(|(memory, _)| (range(memory), Some(memory.1 / PAGE))).collect();
    Provoked { at, go: Box::new(move || memories.iter().for_each(|(memory, go)| go(memory))), _keep: vec![] }
}

fn zero_fill() -> Provoked {
    each_page(vec![(map(40 * PAGE, 0), touch), (map(20 * PAGE, 0), read_all)])
}

fn warm_file(pages: usize) -> File {
    let path = scratch().join("cause-warm");
    if !path.metadata().is_ok_and(|meta| meta.len() >= (pages * PAGE) as u64) {
        std::fs::write(&path, vec![7u8; pages * PAGE]).unwrap();
    }
    std::fs::read(&path).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// A child that waits until it is killed, with all that was mapped when it was born.
struct Child(c_int);

impl Child {
    fn born() -> Self {
        // SAFETY: this process has one thread, and the child only waits.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: numbers. It ends with its parent, and does not keep the parent's output open.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                // SAFETY: nothing in this process writes any more.
                unsafe { libc::close(1) };
                loop {
                    // SAFETY: no arguments.
                    unsafe { libc::pause() };
                }
            }
            child => {
                assert!(child > 0);
                Self(child)
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of ours that has not been waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), 0);
        }
    }
}

/// Memory shared with a child, the page of zeroes, a page of a file that was read, and one that was not.
fn copy_on_write() -> Provoked {
    let file = warm_file(64);
    let forked = map(30 * PAGE, 0);
    let zeroes = map(20 * PAGE, 0);
    let private = |pages| map_of(pages * PAGE, libc::MAP_PRIVATE, file.as_raw_fd(), READ_WRITE);
    let (read, unread) = (private(10), private(10));
    touch(&forked);
    read_all(&zeroes);
    read_all(&read);
    let mut provoked = each_page(vec![(forked, touch), (zeroes, touch), (read, touch), (unread, touch)]);
    provoked._keep.push(Box::new(Child::born()));
    provoked
}

/// Pages of a file that is in the page cache; several are mapped at once.
fn file_map() -> Provoked {
    let file = warm_file(64);
    let shared = map_of(64 * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
    let private = map_of(64 * PAGE, libc::MAP_PRIVATE, file.as_raw_fd(), libc::PROT_READ);
    let at = vec![(range(&shared), None), (range(&private), None)];
    Provoked {
        at,
        go: Box::new(move || {
            read_all(&shared);
            read_all(&private);
        }),
        _keep: vec![],
    }
}

/// Pages of a file that is not, each read for itself.
fn file_read() -> Provoked {
    let file = cold_file("cause-cold", 16);
    let cold = map_of(16 * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
    // SAFETY: the mapping is ours.
    unsafe { libc::madvise(cold.0.cast(), cold.1, libc::MADV_RANDOM) };
    each_page(vec![(cold, read_all)])
}

/// Writes to a shared file's pages that were read before: the file system is told of each.
fn write_notify() -> Provoked {
    let file = warm_file(64);
    let shared = map_of(16 * PAGE, libc::MAP_SHARED, file.as_raw_fd(), READ_WRITE);
    // What was written in the first round must be clean again.
    file.sync_all().unwrap();
    read_all(&shared);
    each_page(vec![(shared, touch)])
}

fn shmem() -> Provoked {
    // SAFETY: a string that ends in NUL; the descriptor is new.
    let memfd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"cause".as_ptr(), 0)) };
    let named = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open("/dev/shm/trapline-cause")
        .unwrap();
    std::fs::remove_file("/dev/shm/trapline-cause").unwrap();
    let file = File::from(memfd);
    file.set_len(16 * PAGE as u64).unwrap();
    named.set_len(16 * PAGE as u64).unwrap();
    let of = |file: &File| map_of(16 * PAGE, libc::MAP_SHARED, file.as_raw_fd(), READ_WRITE);
    let memories = vec![
        (of(&file), touch as Means),
        (of(&named), touch),
        (map_of(16 * PAGE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, READ_WRITE), touch),
    ];
    each_page(memories)
}

/// Reads a word per page; a huge page needs one.
fn hugetlb() -> Provoked {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    let memory = map_of(3 * HUGE, flags, -1, READ_WRITE);
    let at = vec![(range(&memory), Some(3))];
    Provoked { at, go: Box::new(move || touch(&memory)), _keep: vec![] }
}

/// Aligned memory that may have transparent huge pages.
fn huge_page() -> Provoked {
    let memory = map(5 * HUGE, 0);
    let aligned = (memory.0 as usize).next_multiple_of(HUGE);
    let whole = Memory(aligned as *mut u8, 4 * HUGE);
    // SAFETY: within the mapping.
    assert_eq!(unsafe { libc::madvise(whole.0.cast(), whole.1, libc::MADV_HUGEPAGE) }, 0);
    let at = vec![(range(&whole), Some(4))];
    let go = Box::new(move || touch(&whole));
    Provoked { at, go, _keep: vec![Box::new(memory)] }
}

/// Pages that were pushed out to a swap device; the test has seen to it that there is one.
fn swap_in() -> Provoked {
    let memory = map(32 * PAGE, 0);
    touch(&memory);
    // A page that was looked at lately is not pushed out at the first try.
    for _ in 0..100 {
        // SAFETY: the mapping is ours.
        unsafe { libc::madvise(memory.0.cast(), memory.1, libc::MADV_PAGEOUT) };
        if swapped(&memory) == 32 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(swapped(&memory), 32, "the kernel does not push the pages out");
    each_page(vec![(memory, read_all)])
}

/// How many pages are on a swap device: bit 62 of their entries in /proc/self/pagemap.
fn swapped(memory: &Memory) -> usize {
    use std::os::unix::fs::FileExt;
    let mut entries = vec![0u8; memory.1 / PAGE * 8];
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    pagemap.read_exact_at(&mut entries, memory.0 as u64 / PAGE as u64 * 8).unwrap();
    entries.chunks_exact(8).filter(|e| u64::from_ne_bytes((*e).try_into().unwrap()) >> 62 & 1 == 1).count()
}

/// So many are as good as more, and take the kernel a scan.
const ENOUGH_HINTS: i64 = 64;

/// The scheduler hides pages from busy threads, to see who uses them; the test has made it hasten. It leaves private
/// memory of a process with one thread alone that is on its node, so there is another.
fn numa_hint() -> Provoked {
    std::thread::spawn(|| {
        loop {
            std::thread::park();
        }
    });
    let memory = map(1024 * PAGE, 0);
    touch(&memory);
    let at = vec![(range(&memory), None)];
    let go = move || {
        let minor = || rusage(libc::RUSAGE_SELF).1;
        let (before, began) = (minor(), std::time::Instant::now());
        while minor() < before + ENOUGH_HINTS && began.elapsed() < std::time::Duration::from_secs(20) {
            read_all(&memory);
        }
    };
    Provoked { at, go: Box::new(go), _keep: vec![] }
}

/// The kernel's own code that every process has: its pages can be taken out and come back.
fn device() -> Provoked {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).expect("a process has a [vdso]");
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let [start, end] = [start, end].map(|number| usize::from_str_radix(number, 16).unwrap());
    let first = start..start + PAGE;
    // SAFETY: its pages are put in again when they are used.
    assert_eq!(unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) }, 0);
    Provoked {
        at: vec![(first, None)],
        go: Box::new(move || {
            // SAFETY: readable memory.
            unsafe { ptr::read_volatile(start as *const u8) };
        }),
        _keep: vec![],
    }
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Goes on after the instruction of `read_badly`, which is two bytes long.
extern "C" fn go_on(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel passes the context of the interrupted thread, which it restores.
    unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] += 2 };
}

fn read_badly(memory: &Memory) {
    for offset in (0..memory.1).step_by(PAGE) {
        // SAFETY: `mov al, [rdi]`; if that cannot be, the signal's handler goes on behind it.
        unsafe {
            std::arch::asm!(".byte 0x8a, 0x07", in("rdi") memory.0.add(offset), out("al") _,
                options(nostack, readonly));
        }
    }
}

/// Memory that allows no access, no memory at all, and pages of a file behind its end.
fn bad_address() -> Provoked {
    // SAFETY: a handler that only changes its context; all-zero is a valid sigaction.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = go_on as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            assert_eq!(libc::sigaction(signal, &raw const action, ptr::null_mut()), 0);
        }
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let closed = map_of(10 * PAGE, flags, -1, libc::PROT_NONE);
    let gone = map_of(10 * PAGE, flags, -1, libc::PROT_NONE);
    // SAFETY: nothing refers to it; it is unmapped a second time when it is dropped, which does nothing.
    unsafe { libc::munmap(gone.0.cast(), gone.1) };
    let file = File::create(scratch().join("cause-short")).unwrap();
    file.set_len(1).unwrap();
    let file = File::open(scratch().join("cause-short")).unwrap();
    let short = map_of(4 * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
    let behind = Memory(short.0.wrapping_add(PAGE), 3 * PAGE);
    each_page(vec![(closed, read_badly), (gone, read_badly), (behind, read_badly)])
}

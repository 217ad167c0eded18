//! Programs that fault on purpose and tell, exactly, how often: what the tests compare with.
//!
//! A thread reads its own rusage as the last thing it does, into memory that is there already, and ends by the bare
//! system call, so that nothing can fault in between. Processes are measured from outside, by wait4.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::ptr;

use libc::{c_int, c_void};

use crate::run::{TRUTH, scratch};

pub const PAGE: usize = 4096;

/// If this process was started as a fixture: does it and gives the status.
pub fn run_if_asked() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == "--fixture")?;
    if let Some(file) = std::env::var_os(TRUTH) {
        let file = File::options().append(true).open(file).unwrap();
        // SAFETY: numbers, of which the second is that of standard output.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 1) }, 1);
    }
    let number = |i: usize| words.get(at + i).map_or(0, |word| word.parse::<usize>().unwrap());
    match words[at + 1].as_str() {
        "programs" => compile(Path::new(&words[at + 2])),
        "kinds" => kinds(number(2)),
        "wait4" => wait4(|| kinds(3), &words[at + 2..]),
        "exec-in-thread" => wait4(|| exec_in_thread(&words[0]), &[]),
        "cold" => wait4(|| cold_by_many(number(2)), &[]),
        "processes" => processes(number(2), number(3)),
        "storm" => storm(number(2), number(3)),
        "company" => company(),
        "on-demand" => on_demand(),
        "titled" => crate::faults::titles::titled(),
        "cause" => crate::faults::cause::provoke::provoke(&words[at + 2]),
        "chains" => crate::faults::stack::chains::once(),
        "chains-on-demand" => crate::faults::stack::chains::on_demand(),
        "flood" => crate::faults::fair::flood(&words[at + 2], number(3), number(4)),
        "rename" => rename(),
        "users" => crate::faults::filters::users(),
        "family" => crate::faults::filters::family(),
        "span" => crate::faults::span::work(),
        "files" => crate::faults::file::fixture::files(),
        "sgx" => crate::sgx::driver::enclave(&words[at + 2..]),
        "explain" => crate::explain::program(&words[at + 2]),
        "touch" => touch(&map(number(2) * PAGE, 0)),
        "births" => crate::faults::threads::births(),
        "births-of-threads" => crate::faults::threads::births_of_threads(),
        "beside-forks" => crate::faults::time::beside_forks(number(2)),
        "for-somebody" => crate::faults::time::for_somebody(),
        "last-wait" => crate::faults::time::last_wait(&words[at + 2] == "ends"),
        "for-a-device" => crate::faults::time::for_a_device(),
        "for-readahead" => crate::faults::time::for_readahead(),
        "preempted" => crate::faults::time::preempted(),
        "io-uring" => crate::faults::threads::io_uring(),
        "remote" => crate::faults::threads::remote(),
        "turmoil" => crate::access::turmoil::turmoil(number(2)),
        "divided" => crate::access::turmoil::divided(number(2) as i32),
        "sandboxed" => crate::access::reach::sandboxed(number(2)),
        "own-uffd" => crate::faults::cause::uffd::own(number(2) == 1),
        "changes-code" => crate::access::hostile::changes_code(&words[at + 2]),
        "no-vdso" => crate::access::hostile::no_vdso(),
        "vast" => crate::access::reach::vast(number(2)),
        "steady" => crate::access::turmoil::steady(number(2)),
        name => panic!("no fixture {name}"),
    }
    Some(ExitCode::SUCCESS)
}

/// Compiles what the tests run beside themselves.
fn compile(into: &Path) {
    for source in [
        crate::faults::span::PROGRAM,
        crate::faults::span::BLOCK,
        crate::faults::stack::NARROW,
        crate::command::PROGRAM,
        crate::faults::stack::underfoot::PROGRAM,
        crate::faults::neighbours::PROGRAM,
        crate::faults::unwind::CHAINS,
        crate::kvm::stacks::VMM,
    ] {
        source.compile(into);
    }
}

/// A private anonymous mapping without huge pages.
pub struct Memory(pub *mut u8, pub usize);

impl Memory {
    pub fn len(&self) -> usize {
        self.1
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: map() made exactly this mapping, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}

pub fn map(len: usize, flags: c_int) -> Memory {
    map_of(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags, -1, libc::PROT_READ | libc::PROT_WRITE)
}

pub fn map_of(len: usize, flags: c_int, fd: c_int, prot: c_int) -> Memory {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    if fd < 0 {
        // SAFETY: the mapping was made above.
        unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
    }
    Memory(at.cast(), len)
}

pub fn touch(memory: &Memory) {
    for offset in (0..memory.1).step_by(PAGE) {
        // SAFETY: within the mapping, which is writable.
        unsafe { ptr::write_volatile(memory.0.add(offset), 1) };
    }
}

/// Touches so many pages of new memory.
pub fn touch_fresh(pages: usize) {
    if pages > 0 {
        touch(&map(pages * PAGE, 0));
    }
}

/// Brings all that is mapped into memory, so that it does not fault by itself any more.
pub fn stay_resident() {
    // SAFETY: a number. It may be refused by a limit; then the test fails.
    unsafe { libc::mlockall(libc::MCL_CURRENT) };
    thread_faults();
}

/// This thread's major and minor faults so far.
pub fn thread_faults() -> (i64, i64) {
    rusage(libc::RUSAGE_THREAD)
}

pub fn look(memory: &Memory, offset: usize) -> u8 {
    assert!(offset < memory.1);
    // SAFETY: within the mapping, which is readable.
    unsafe { ptr::read_volatile(memory.0.add(offset)) }
}

pub fn read_all(memory: &Memory) {
    (0..memory.1).step_by(PAGE).for_each(|offset| {
        look(memory, offset);
    });
}

pub fn rusage(who: c_int) -> (i64, i64) {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: usage is a rusage to be filled; all-zero is a valid one.
    let usage = unsafe {
        libc::getrusage(who, usage.as_mut_ptr());
        usage.assume_init()
    };
    (usage.ru_majflt, usage.ru_minflt)
}

pub fn gettid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() as u32 }
}

/// From here on the kernel does this at that system call.
pub fn filter(call: libc::c_long, action: u32) -> std::io::Result<()> {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, action),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let allowed = |n: c_int| if n == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: numbers, and a program that outlives the call.
    unsafe {
        allowed(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        allowed(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program))
    }
}

/// A file of which nothing is in the page cache.
pub fn cold_file(name: &str, pages: usize) -> File {
    let path = scratch().join(name);
    if !path.metadata().is_ok_and(|meta| meta.len() == (pages * PAGE) as u64) {
        std::fs::write(&path, vec![7u8; pages * PAGE]).unwrap();
    }
    let file = File::open(&path).unwrap();
    // SAFETY: an open descriptor and numbers.
    unsafe {
        libc::fsync(file.as_raw_fd());
        assert_eq!(libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED), 0);
    }
    file
}

/// Every sort of fault there is, in this thread.
fn every_kind(seed: usize) {
    // Anonymous memory.
    touch(&map((40 + seed) * PAGE, 0));
    // Inside a system call: read() into memory that is not there yet.
    let zero = File::open("/dev/zero").unwrap();
    let memory = map(16 * PAGE, 0);
    // SAFETY: the buffer is the whole mapping.
    assert_eq!(unsafe { libc::read(zero.as_raw_fd(), memory.0.cast(), memory.1) }, memory.1 as isize);
    // On the thread's behalf, without a trap: GUP.
    drop(map(24 * PAGE, libc::MAP_POPULATE));
    let locked = map(8 * PAGE, 0);
    // SAFETY: the mapping is ours. It may be refused by a limit; then there are fewer faults, for everybody.
    unsafe { libc::mlock(locked.0.cast::<c_void>(), locked.1) };
    // A cold file, page by page, each one waiting for the disk.
    let file = cold_file(&format!("kinds-{seed}"), 8);
    let cold = map_of(8 * PAGE, libc::MAP_PRIVATE, file.as_raw_fd(), libc::PROT_READ);
    // SAFETY: the mapping is ours.
    unsafe { libc::madvise(cold.0.cast(), cold.1, libc::MADV_RANDOM) };
    (0..8).for_each(|page| assert_eq!(look(&cold, page * PAGE), 7));
}

struct Job {
    work: fn(usize),
    seed: usize,
    tid: u32,
    faults: (i64, i64),
}

extern "C" fn thread_main(job: *mut c_void) -> *mut c_void {
    // SAFETY: in_threads() passes a job that it keeps until the thread has ended, and does not touch meanwhile.
    let job = unsafe { &mut *job.cast::<Job>() };
    (job.work)(job.seed);
    job.tid = gettid();
    job.faults = (0, 0);
    job.faults = rusage(libc::RUSAGE_THREAD);
    // SAFETY: ends this thread only; nothing on its stack needs dropping.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!()
}

/// Does the work in so many threads at once and gives what each of them did, from its birth to its end.
pub fn in_threads(n: usize, work: fn(usize)) -> Vec<(u32, i64, i64)> {
    let mut jobs: Vec<Job> = (0..n).map(|seed| Job { work, seed, tid: 0, faults: (0, 0) }).collect();
    let threads: Vec<libc::pthread_t> = jobs
        .iter_mut()
        .map(|job| {
            let mut thread = MaybeUninit::uninit();
            // SAFETY: the job outlives the thread, which is joined below.
            let made = unsafe {
                libc::pthread_create(thread.as_mut_ptr(), ptr::null(), thread_main, ptr::from_mut(job).cast())
            };
            assert_eq!(made, 0);
            // SAFETY: pthread_create has filled it.
            unsafe { thread.assume_init() }
        })
        .collect();
    for thread in threads {
        // SAFETY: a thread made above, joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
    }
    jobs.iter().map(|job| (job.tid, job.faults.0, job.faults.1)).collect()
}

/// Threads with every kind of fault, twice over (the second ones begin when the first have ended), then a fork whose
/// child writes to memory that it shares with its parent until then.
fn kinds(n: usize) {
    let shared = map(50 * PAGE, 0);
    touch(&shared);
    let mut done = in_threads(n, every_kind);
    done.extend(in_threads(n, every_kind));
    let (child, faults) = in_child(|| touch(&shared));
    touch(&shared);
    for (tid, major, minor) in done {
        println!(r#"{{"type":"truth","what":"thread","tid":{tid},"major":{major},"minor":{minor}}}"#);
    }
    let (major, minor) = faults;
    println!(r#"{{"type":"truth","what":"process","pid":{child},"major":{major},"minor":{minor}}}"#);
}

/// Runs something in a child and gives what wait4 says of it.
pub fn in_child(work: impl FnOnce()) -> (i32, (i64, i64)) {
    std::io::stdout().flush().unwrap();
    // SAFETY: this process has one thread at this point, so the child may do what it likes.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        work();
        std::io::stdout().flush().unwrap();
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) };
    }
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both are to be filled; all-zero is a valid rusage.
    let usage = unsafe {
        assert_eq!(libc::wait4(child, &raw mut status, 0, usage.as_mut_ptr()), child);
        usage.assume_init()
    };
    assert_eq!(status, 0);
    (child, (usage.ru_majflt, usage.ru_minflt))
}

/// The work or a command as a child, and what wait4 says of it: all its threads and all its own children.
fn wait4(work: impl FnOnce(), command: &[String]) {
    let (child, (major, minor)) = in_child(|| match command.split_first() {
        None => work(),
        Some((program, arguments)) => {
            let error =
                std::os::unix::process::CommandExt::exec(std::process::Command::new(program).args(arguments));
            panic!("{error}");
        }
    });
    println!(r#"{{"type":"truth","what":"wait4","pid":{child},"major":{major},"minor":{minor}}}"#);
}

/// A thread that is not the leader calls exec: it goes on under the leader's id.
fn exec_in_thread(own: &str) {
    let own = own.to_owned();
    touch(&map(30 * PAGE, 0));
    let _ = std::thread::spawn(move || {
        touch(&map(20 * PAGE, 0));
        let error = std::os::unix::process::CommandExt::exec(std::process::Command::new(own).args([
            "--fixture",
            "touch",
            "25",
        ]));
        panic!("{error}");
    })
    .join();
}

/// Threads that read the same cold pages in the same order, so that they wait for each other's reads.
fn cold_by_many(n: usize) {
    fn read_all(_: usize) {
        let file = File::open(scratch().join("cold-by-many")).unwrap();
        let memory = map_of(256 * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
        // SAFETY: the mapping is ours.
        unsafe { libc::madvise(memory.0.cast(), memory.1, libc::MADV_RANDOM) };
        (0..256).for_each(|page| assert_eq!(look(&memory, page * PAGE), 7));
    }
    cold_file("cold-by-many", 256);
    for (tid, major, minor) in in_threads(n, read_all) {
        println!(r#"{{"type":"truth","what":"thread","tid":{tid},"major":{major},"minor":{minor}}}"#);
    }
}

/// So many processes, each of which touches so many pages; at most 64 at a time.
fn processes(n: usize, pages: usize) {
    let (mut major, mut minor, mut alive) = (0, 0, 0);
    let mut reap = |alive: &mut usize| {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: usage is to be filled; all-zero is a valid rusage.
        let usage = unsafe {
            assert!(libc::wait4(-1, ptr::null_mut(), 0, usage.as_mut_ptr()) > 0);
            usage.assume_init()
        };
        major += usage.ru_majflt;
        minor += usage.ru_minflt;
        *alive -= 1;
    };
    for _ in 0..n {
        if alive == 64 {
            reap(&mut alive);
        }
        // SAFETY: this process has one thread, and the child only touches memory of its own and ends.
        match unsafe { libc::fork() } {
            0 => {
                touch(&map(pages * PAGE, 0));
                // SAFETY: ends this process.
                unsafe { libc::_exit(0) };
            }
            child => assert!(child > 0),
        }
        alive += 1;
    }
    while alive > 0 {
        reap(&mut alive);
    }
    println!(r#"{{"type":"truth","what":"children","processes":{n},"major":{major},"minor":{minor}}}"#);
}

/// Threads that do nothing but fault, for so many milliseconds.
fn storm(threads: usize, ms: usize) {
    static UNTIL: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    fn fault_on(_: usize) {
        let memory = map(512 * PAGE, 0);
        while std::time::Instant::now() < UNTIL.get().copied().unwrap() {
            touch(&memory);
            // SAFETY: the mapping is ours; its pages are given back and fault anew.
            unsafe { libc::madvise(memory.0.cast(), memory.1, libc::MADV_DONTNEED) };
        }
    }
    let how_long = std::time::Duration::from_millis(ms as u64);
    UNTIL.set(std::time::Instant::now() + how_long).unwrap();
    for (tid, major, minor) in in_threads(threads, fault_on) {
        println!(r#"{{"type":"truth","what":"thread","tid":{tid},"major":{major},"minor":{minor}}}"#);
    }
}

/// Its process passes a multiple of 1000 faults twice: once by a thread that joins the first one, once by the first one,
/// alone again, to which the other thread left little to do. Tells by when it had passed them.
fn company() {
    let did = || {
        let (major, minor) = rusage(libc::RUSAGE_SELF);
        (major + minor) as usize
    };
    let passed = || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
        (did() / 1000 * 1000, std::time::Duration::from(now).as_nanos())
    };
    touch_fresh((1700 - did() % 1000) % 1000);
    in_threads(1, |_| touch_fresh(400));
    let by_the_other = passed();
    touch_fresh(50);
    in_threads(1, |_| touch_fresh(750));
    touch_fresh(200);
    for (count, now_ns) in [by_the_other, passed()] {
        println!(r#"{{"type":"truth","what":"passed","count":{count},"now_ns":{now_ns}}}"#);
    }
}

/// At each line `N` it touches N fresh pages, then answers with its rusage so far; what the answer takes is warm.
pub fn on_demand() {
    let mut stdin = std::io::stdin().lock();
    let mut stdout = std::io::stdout().lock();
    let mut line = String::with_capacity(PAGE);
    let mut answer = Vec::with_capacity(PAGE);
    loop {
        line.clear();
        if stdin.read_line(&mut line).unwrap() == 0 {
            return;
        }
        touch(&map(line.trim().parse::<usize>().unwrap() * PAGE, 0));
        answer.clear();
        let (major, minor) = rusage(libc::RUSAGE_THREAD);
        writeln!(answer, "{major} {minor}").unwrap();
        stdout.write_all(&answer).unwrap();
        stdout.flush().unwrap();
    }
}

/// Touches 100 pages under its own name, 200 as `wanted`, 400 as `other`, 800 as `wanted` again, 1600 as what is not UTF-8.
fn rename() {
    let warm = |name: &std::ffi::CStr| {
        // SAFETY: a string that ends in NUL.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    };
    warm(c"fixture");
    let names = [c"fixture", c"wanted", c"other", c"wanted", c"w\xffx", c"fixture"];
    let memory = [100, 200, 400, 800, 1600, 0].map(|pages| map(pages * PAGE + 1, 0));
    for (name, memory) in names.iter().zip(&memory) {
        warm(name);
        for offset in (0..memory.1 - 1).step_by(PAGE) {
            // SAFETY: within the mapping, which is writable.
            unsafe { ptr::write_volatile(memory.0.add(offset), 1) };
        }
    }
}

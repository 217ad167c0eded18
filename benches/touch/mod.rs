//! A workload that faults once on each page: this executable run again, pinned to one processor, which touches fresh
//! pages in batches and prints the time per fault of its best and of its median batch.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;

/// Nanoseconds per fault.
#[derive(Clone, Copy)]
pub struct Turn {
    pub best: f64,
    pub median: f64,
}

impl Turn {
    /// What this one took more.
    pub fn over(self, bare: Self) -> Self {
        Self { best: self.best - bare.best, median: self.median - bare.median }
    }
}

/// Runs this executable with those arguments, which must come to [`touch`].
pub fn turn(arguments: &[&str]) -> Turn {
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap());
    Turn { best: numbers.next().unwrap(), median: numbers.next().unwrap() }
}

/// Touches so many fresh pages so many times, with a pause before each: of private memory, or of the device.
pub fn touch(device: Option<BorrowedFd<'_>>, pages: usize, batches: usize, pause: Duration) {
    pin();
    let batch = |_| {
        std::thread::sleep(pause);
        batch(device, pages)
    };
    print((0..batches).map(batch).collect());
}

/// From here on, this thread and those that it starts run on one processor.
pub fn pin() {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::this(), &cpus).unwrap();
}

/// Prints the best and the median of the batches' times.
pub fn print(mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    println!("{} {}", times[0], times[times.len() / 2]);
}

fn batch(device: Option<BorrowedFd<'_>>, pages: usize) -> f64 {
    let (len, prot) = (pages * PAGE, libc::PROT_READ | libc::PROT_WRITE);
    let (flags, fd) = device
        .map_or((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1), |file| (libc::MAP_SHARED, file.as_raw_fd()));
    // SAFETY: a fresh mapping, written to within its bounds and unmapped once.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0);
        assert_ne!(at, libc::MAP_FAILED);
        if device.is_none() {
            libc::madvise(at, len, libc::MADV_NOHUGEPAGE);
        }
        let began = Instant::now();
        for page in 0..pages {
            std::ptr::write_volatile(at.cast::<u8>().add(page * PAGE), 1);
        }
        let time = began.elapsed();
        libc::munmap(at, len);
        time.as_nanos() as f64 / pages as f64
    }
}

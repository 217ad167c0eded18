//! Workloads whose threads leave their processor: they print nanoseconds, of their best and of their median batch.

use std::io::{Read, Write, pipe};
use std::thread;
use std::time::Instant;

const PAGE: usize = 4096;

/// Two threads that wake each other in turn; gives what a switch between them takes.
pub fn switch(times: usize, batches: usize) {
    let (mut told, mut teller) = pipe().unwrap();
    let (mut answered, mut answerer) = pipe().unwrap();
    let mut byte = [0];
    // It ends with the pipe.
    thread::spawn(move || {
        let mut byte = [0];
        while told.read(&mut byte).unwrap() == 1 {
            answerer.write_all(&byte).unwrap();
        }
    });
    let batch = |_| {
        let began = Instant::now();
        for _ in 0..times {
            teller.write_all(&byte).unwrap();
            answered.read_exact(&mut byte).unwrap();
        }
        began.elapsed().as_nanos() as f64 / (2 * times) as f64
    };
    super::touch::print((0..batches).map(batch).collect());
}

/// include/uapi/linux/userfaultfd.h
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;

/// Faults on pages that another thread puts in: each sleeps until then.
pub fn wait(pages: usize, batches: usize) {
    let (len, prot) = (pages * PAGE, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a file descriptor of our own; each call is given a structure of its own, as the kernel has it; the mapping is
    // new, written to within its bounds, and stays.
    let (fd, at) = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as i32;
        assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        let at = libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        let mut api = [0xaa_u64, 0, 0];
        let mut register = [at as u64, len as u64, 1, 0];
        assert_eq!(libc::ioctl(fd, UFFDIO_API, api.as_mut_ptr()), 0);
        assert_eq!(libc::ioctl(fd, UFFDIO_REGISTER, register.as_mut_ptr()), 0);
        (fd, at)
    };
    thread::spawn(move || {
        let mut message = [0_u64; 4];
        // SAFETY: as above.
        while unsafe { libc::read(fd, message.as_mut_ptr().cast(), size_of_val(&message)) } > 0 {
            let mut page = [message[2] & !(PAGE as u64 - 1), PAGE as u64, 0, 0];
            // SAFETY: as above.
            assert_eq!(unsafe { libc::ioctl(fd, UFFDIO_ZEROPAGE, page.as_mut_ptr()) }, 0);
        }
    });
    let batch = |_| {
        let began = Instant::now();
        for page in 0..pages {
            // SAFETY: as above.
            unsafe { std::ptr::write_volatile(at.cast::<u8>().add(page * PAGE), 1) };
        }
        let time = began.elapsed();
        // SAFETY: as above; nobody has a reference into it.
        unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) };
        time.as_nanos() as f64 / pages as f64
    };
    super::touch::print((0..batches).map(batch).collect());
}

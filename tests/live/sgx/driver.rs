//! The stand-in for an SGX driver: loading it, its counts, and enclaves of it.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::run::{fixture, version};

pub const PAGE: usize = 4096;
const COUNTS: &str = "/sys/kernel/debug/sgx_double";

/// The module, loaded afresh: nothing is counted yet.
pub struct Double;

impl Double {
    /// With a pool of so many pages, for tests on that variant.
    pub fn load(variant: &str, pages: usize) -> Self {
        unload();
        let module = std::env::var_os("TRAPLINE_SGX_DOUBLE").unwrap();
        let mut insmod = Command::new("insmod");
        insmod.arg(module).arg(format!("epc_pages={pages}"));
        if makes_a_detour(variant) {
            insmod.arg("detour=1");
        }
        assert!(insmod.status().unwrap().success());
        Self
    }

    /// What happened since then, in all.
    pub fn counts(&self) -> Counts {
        parse(fs::read_to_string(format!("{COUNTS}/counts")).unwrap().trim())
    }

    /// Evicts so many batches of 16 pages, from this task.
    pub fn evict(&self, batches: usize) {
        fs::write("/dev/sgx_double", batches.to_string()).unwrap();
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        unload();
    }
}

/// Whether the driver's functions are called by way of the kernel's own: those are what `fentry` can be attached to where
/// it cannot be attached to a module's functions of the same names. `sgx_frame::fentry_on_a_module` shows where.
pub fn makes_a_detour(variant: &str) -> bool {
    variant == "fentry" && version() < (6, 4)
}

pub fn unload() {
    let _ = Command::new("rmmod").arg("sgx_double").stderr(Stdio::null()).status();
}

pub type Counts = BTreeMap<String, u64>;

/// `pid=1 base=2 faults=3`; words that are no such pairs are left out.
fn parse(line: &str) -> Counts {
    let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, n)| (name.to_owned(), n.parse().unwrap())).collect()
}

/// The words of a fixture that makes an enclave and touches it; see [`enclave`].
pub fn touching(variant: &str, how: &[(&str, usize)]) -> Vec<String> {
    let mut words = fixture("sgx");
    words.push(device(variant).into());
    words.extend(how.iter().map(|(name, n)| format!("{name}={n}")));
    words
}

pub fn device(variant: &str) -> &'static str {
    if variant == "legacy" { "/dev/sgx_double_legacy" } else { "/dev/sgx_double" }
}

/// The fixture: maps `pages`, `at` an address, in a device; then `threads` of it write and check one word of a page each
/// `stride` pages, `rounds` times. With `asked`, only what its input says: `FIRST COUNT STRIDE`, each answered by a line.
pub fn enclave(words: &[String]) {
    let how: Counts = words[1..].iter().flat_map(|word| parse(word)).collect();
    let get = |name: &str, default: usize| how.get(name).map_or(default, |&n| n as usize);
    let (pages, stride) = (get("pages", 1), get("stride", 1));
    let file = File::options().read(true).write(true).open(&words[0]).unwrap();
    let fixed = if how.contains_key("at") { libc::MAP_FIXED_NOREPLACE } else { 0 };
    // SAFETY: a new mapping, at an address of the kernel's choice or where nothing else is.
    let memory = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(get("at", 0)),
            pages * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | fixed,
            file.as_raw_fd(),
            (get("grows", 0) * PAGE) as i64,
        )
    };
    assert_ne!(memory, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    let base = memory.expose_provenance();
    let touch = |page: usize, before: u64, value: u64| {
        let word = ptr::with_exposed_provenance_mut::<u64>(base + page * PAGE);
        // SAFETY: the page is within the mapping, the word aligned, and only ever used like this.
        let word = unsafe { AtomicU64::from_ptr(word) };
        // One instruction: a page evicted between a read and a write would be loaded twice.
        assert_eq!(word.swap(value, Ordering::Relaxed), before, "page {page} came back changed");
    };
    if how.contains_key("asked") {
        let mut times = BTreeMap::new();
        for line in std::io::stdin().lock().lines() {
            let numbers: Vec<usize> = line.unwrap().split(' ').map(|word| word.parse().unwrap()).collect();
            let [first, count, stride] = numbers[..] else { panic!("asked for {numbers:?}") };
            for page in (first..first + count).step_by(stride) {
                let time: &mut u64 = times.entry(page).or_default();
                touch(page, *time, *time + 1);
                *time += 1;
            }
            println!("done");
        }
        return;
    }
    let (threads, rounds) = (get("threads", 1), get("rounds", 1) as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let touch = &touch;
            scope.spawn(move || {
                for round in 0..rounds {
                    for page in (0..pages).step_by(stride).skip(thread).step_by(threads) {
                        touch(page, round, round + 1);
                    }
                }
            });
        }
    });
    report(base as u64);
}

/// Tells what the module counted of this enclave, when nothing happens to it any more.
fn report(base: u64) {
    let read = || {
        let all = fs::read_to_string(format!("{COUNTS}/enclaves")).unwrap();
        let own = |counts: &Counts| counts["base"] == base && counts["pid"] == u64::from(std::process::id());
        all.lines().map(parse).find(own).unwrap_or_default()
    };
    let mut counts = read();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let again = read();
        if again == counts {
            break;
        }
        counts = again;
    }
    let members: String = counts.iter().map(|(name, n)| format!(",\"{name}\":{n}")).collect();
    // One write, so that the lines of several processes stay whole.
    std::io::stdout().write_all(format!("{{\"type\":\"truth\"{members}}}\n").as_bytes()).unwrap();
}

//! Stacks by unwind tables, beside those of the C compiler's own unwinder.

#![allow(unsafe_code)]

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags};
use trapline_model::faults::Process;
use trapline_symbols::unwind::{Made, Row, Table};
use trapline_symbols::{Image, Symbols};

use super::super::recipe::ROWS;
use super::super::unwind::Tables;
use super::load;
use crate::abi::maps::{MapName, faults as maps, unwind};
use crate::abi::{self, FaultsChain, FaultsConfig, UnwindFile, UnwindTable};
use crate::prog_run::resize;
use crate::stacks::{Chain, End};
use crate::variant::Attached;

const OUT: MapName<'static> = MapName(".bss.test_out");

/// The kernel half with its tables.
struct Half {
    attached: Attached,
    tables: Tables,
    symbols: Symbols,
}

// SAFETY: a test has one at a time, behind a lock: in a signal's handler that is the thread that holds it.
unsafe impl Send for Half {}

static HALF: Mutex<Option<Half>> = Mutex::new(None);
/// What the two saw: where calls return to, innermost first; and the reason of the kernel half's end.
static SEEN: Mutex<Vec<Seen>> = Mutex::new(vec![]);
type Seen = (Vec<u64>, Vec<u64>, u32);

unsafe extern "C" {
    fn _Unwind_Backtrace(each: extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut c_void, before: *mut c_int) -> usize;
}

/// As the kernel half has them: behind the call, and so behind what was interrupted, and behind where a handler returns to.
extern "C" fn each(context: *mut c_void, data: *mut c_void) -> c_int {
    let mut before = 0;
    // SAFETY: the unwinder passes its own context, and what it was given for the data.
    let (ip, seen) = unsafe { (_Unwind_GetIPInfo(context, &raw mut before), &mut *data.cast::<Vec<u64>>()) };
    if before != 0
        && let Some(trampoline) = seen.last_mut()
    {
        *trampoline += 1;
    }
    seen.push(ip as u64 + u64::from(before != 0));
    0
}

impl Half {
    /// So many bytes of a stack are copied where a table is missing.
    fn new(stack_copied: u32) -> Self {
        let config = FaultsConfig {
            group: abi::GROUP_STACK,
            stack_every: 1,
            stack_deepest: 127,
            groups: 64,
            chains: 64,
            unwinds: 1,
            stack_copied,
            ..FaultsConfig::zeroed()
        };
        let attached = load(config, |object| {
            resize(object, maps::CHAINS, 64);
            resize(object, unwind::ROWS, ROWS);
            resize(object, unwind::TABLES, 64);
            resize(object, unwind::MISSES, 1 << 18);
        });
        let mut symbols = Symbols::new();
        symbols.want_tables();
        let tables = Tables::open(&attached).unwrap();
        Self { attached, tables, symbols }
    }

    fn turn(&mut self, turn: u64) {
        self.tables.turn(turn, &mut self.symbols).unwrap();
    }

    fn chain(&self) -> FaultsChain {
        let out: [u64; 8] = self.attached.read(OUT).unwrap();
        let chains = self.attached.handle(maps::CHAINS).unwrap();
        let chain = chains.lookup(&out[2].to_ne_bytes(), MapFlags::ANY).unwrap();
        pod_read_unaligned(&chain.unwrap())
    }

    /// Walks once, with that frame pointer.
    fn walk_from(&self, frame: *const u64) -> FaultsChain {
        let program = self.attached.object.progs_mut().find(|it| it.name() == "test_group_key").unwrap();
        let context = [0_u64; 12];
        // union bpf_attr, of BPF_PROG_TEST_RUN: the program, the size of its context, and that.
        let mut attr = [0_u64; 10];
        attr[0] = program.as_fd().as_raw_fd() as u64;
        attr[5] = size_of_val(&context) as u64;
        attr[6] = context.as_ptr() as u64;
        let mut result = libc::SYS_bpf;
        // SAFETY: the kernel reads what the arguments point to, and writes to `attr`; the frame pointer is put back.
        unsafe {
            asm!(
                "push rbp", "mov rbp, {frame}", "syscall", "pop rbp",
                frame = in(reg) frame, inlateout("rax") result, in("rdi") 10, in("rsi") attr.as_mut_ptr(),
                in("rdx") size_of_val(&attr), lateout("rcx") _, lateout("r11") _
            );
        }
        assert_eq!((result, attr[0] >> 32), (0, 1));
        self.chain()
    }

    /// Walks until no table is missing any more.
    fn walk(&mut self) -> (Vec<u64>, u32) {
        loop {
            assert_eq!(self.attached.run("test_group_key", &[]), 1);
            let chain = self.chain();
            if ![abi::END_LATE, abi::END_LATE_FRAMES].contains(&chain.end) {
                return (chain.ip[..chain.count as usize].to_vec(), chain.end);
            }
            self.tables.follow(&mut self.symbols).unwrap();
            assert!(self.symbols.has_tables_to_make(), "the file is known");
            self.tables.load(&mut self.symbols, Instant::now() + Duration::from_secs(60));
        }
    }

    /// Walks a stack that is copied when no table is there, when they are.
    fn walk_later(&mut self) -> Chain {
        assert_eq!(self.attached.run("test_group_key", &[]), 1);
        let out: [u64; 8] = self.attached.read(OUT).unwrap();
        assert!(self.tables.has_copy(out[2]));
        let copied = self.tables.take_copy(out[2]).unwrap();
        let image = Image::from(Process { pid: std::process::id(), start_ns: 0 });
        loop {
            self.tables.follow(&mut self.symbols).unwrap();
            if let Some(chain) = self.tables.walk(&copied, image, 127, false, &mut self.symbols) {
                return chain;
            }
            assert!(self.symbols.has_tables_to_make());
            self.tables.load_one(&mut self.symbols, Instant::now() + Duration::from_secs(60));
        }
    }
}

/// Where the calls of whoever calls this return to, by the compiler's own unwinder.
#[inline(always)]
fn callers() -> Vec<u64> {
    let mut ips: Vec<u64> = vec![];
    // SAFETY: the function is what is called so, and the data outlives the call.
    unsafe { _Unwind_Backtrace(each, (&raw mut ips).cast()) };
    // The first is the function itself, which is at another place by now; the last may be the caller that the outermost has not.
    ips.remove(0);
    ips.retain(|ip| *ip != 0);
    ips
}

#[inline(never)]
fn look() {
    let expected = callers();
    let mut half = HALF.lock().unwrap();
    let (walked, end) = half.get_or_insert_with(|| Half::new(0)).walk();
    SEEN.lock().unwrap().push((walked, expected, end));
}

/// Calls itself with frames of different sizes.
#[inline(never)]
fn recurse(left: u32) -> u64 {
    let space = std::hint::black_box([u64::from(left); 13]);
    if left == 0 {
        look();
        return space[3];
    }
    if left.is_multiple_of(3) {
        std::hint::black_box(recurse(left - 1)) + 1
    } else {
        recurse(left - 1) + space[5]
    }
}

extern "C" fn handler(_: c_int) {
    look();
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_chain_by_tables_is_that_of_the_compilers_own_unwinder() {
    recurse(1);
    recurse(90);
    // Deeper than is walked.
    recurse(200);
    // SAFETY: the handler takes no lock that this thread holds.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
        libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2);
    }
    let seen = SEEN.lock().unwrap();
    for (n, (walked, expected, end)) in seen.iter().enumerate() {
        if n == 2 {
            assert_eq!((*end, walked.len()), (abi::END_DEEPEST, 127));
            let first = walked.iter().position(|ip| ip == &expected[0]).expect("who called is in it");
            assert_eq!(walked[first..], expected[..walked.len() - first]);
            continue;
        }
        assert_eq!(*end, abi::END_START, "{n}: {walked:x?} is not {expected:x?}");
        assert!(walked.ends_with(expected), "{n}: {walked:x?} does not end with {expected:x?}");
    }
    assert!(seen[1].1.len() > 90);
    *HALF.lock().unwrap() = None;
}

#[inline(never)]
fn look_later() {
    let expected = callers();
    let walked = Half::new(abi::UNWIND_COPY).walk_later();
    let Chain::Taken { ips, end } = &walked else { panic!("{walked:?}") };
    assert_eq!(*end, End::Outermost, "{ips:x?} is not {expected:x?}");
    // They are in the calls, not behind.
    let expected: Vec<u64> = expected.iter().map(|ip| ip - 1).collect();
    assert!(ips.ends_with(&expected), "{ips:x?} does not end with {expected:x?}");
}

#[inline(never)]
fn descend(left: u32) -> u64 {
    let space = std::hint::black_box([u64::from(left); 11]);
    if left == 0 {
        look_later();
        return space[3];
    }
    descend(left - 1) + space[5]
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_stack_that_was_copied_before_its_tables_has_the_same_chain() {
    descend(60);
}

/// The frames lie as no stack does: the second below the first.
#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_chain_goes_on_by_frame_pointers_where_a_table_is_missing() {
    let half = Half::new(0);
    let [caller, outermost] = [look as *const () as u64 + 1, handler as *const () as u64 + 1];
    let mut frames = [0, outermost, 0, caller];
    frames[2] = frames.as_ptr() as u64;
    let chain = half.walk_from(&raw const frames[2]);
    assert_eq!(chain.ip[1..chain.count as usize], [caller, outermost]);
    assert_eq!(chain.end, abi::END_LATE_FRAMES);
    frames[0] = 0x1008;
    let chain = half.walk_from(&raw const frames[2]);
    assert_eq!(chain.ip[1..chain.count as usize], [caller, outermost]);
    assert_eq!(chain.end, abi::END_LATE, "nothing is mapped there");
}

/// A table of one program, which one file has.
fn table(number: u32, owner: u32, rows: u32) -> Table {
    let rows = (0..rows).map(|at| Row { at, rule: 0 }).collect();
    Table { file: (1, number.into()), program: number, owner, rows: Made::Rows(rows) }
}

/// How many are there.
fn ready(half: &Half, numbers: std::ops::Range<u32>) -> Vec<u32> {
    let tables = half.attached.handle(unwind::TABLES).unwrap();
    let is_ready = |number: &u32| {
        let key = UnwindFile { inode: u64::from(*number), device: 1, pad: 0 };
        let found = tables.lookup(bytes_of(&key), MapFlags::ANY).unwrap();
        found.is_some_and(|found| pod_read_unaligned::<UnwindTable>(&found).state == abi::UNWIND_READY)
    };
    numbers.filter(is_ready).collect()
}

/// What is used stays; a user's files take no more than that user's share, and get the space of that user's.
#[test]
#[ignore = "needs root: `make test` runs it"]
fn tables_that_nobody_uses_make_space_for_others() {
    let mut half = Half::new(0);
    half.turn(1);
    let part = ROWS / 8;
    let put =
        |half: &mut Half, number, owner| half.tables.store(&table(number, owner, part), &mut half.symbols);
    (0..5).for_each(|number| put(&mut half, number, 0));
    (5..8).for_each(|number| put(&mut half, number, 1000));
    half.turn(2);
    assert_eq!(ready(&half, 0..8), [0, 1, 2, 3, 4, 5, 6], "all were used of late");
    half.tables.all_is_idle();
    half.turn(3);
    half.turn(4);
    assert_eq!(half.tables.evicted(), 1);
    put(&mut half, 7, 1000);
    assert_eq!(ready(&half, 0..8), [0, 1, 2, 3, 4, 6, 7], "the user's own");
    // Those that are used again stay; there is one place left.
    half.tables.all_is_idle();
    half.turn(5);
    for number in [0, 1, 3, 4] {
        half.tables.store(&Table { rows: Made::Before, ..table(number, 0, 0) }, &mut half.symbols);
    }
    put(&mut half, 8, 0);
    put(&mut half, 9, 0);
    half.turn(6);
    half.turn(7);
    assert!(!half.tables.want_space());
    put(&mut half, 9, 0);
    assert_eq!(ready(&half, 0..10), [0, 1, 3, 4, 6, 7, 8, 9]);
    assert_eq!(half.tables.evicted(), 2);
}

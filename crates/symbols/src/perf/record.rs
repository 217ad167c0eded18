//! Records of perf events: stable ABI (include/uapi/linux/perf_event.h).

use crate::maps::{Kind, Mapping};
use crate::unwind::Copy;

/// Of a record's head, bytes.
pub(super) const HEADER: usize = 8;

const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const SAMPLE: u32 = 9;
const MMAP2: u32 = 10;

/// Which of a record's `misc` bits tell where the processor was, and what they are in user mode.
const MISC_MODE: u16 = 7;
const MISC_USER: u16 = 2;

/// The same bit means one thing of a name, and another of a mapping.
const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_MMAP_DATA: u16 = 1 << 13;

const SAMPLE_IP: u64 = 1;
const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_ADDR: u64 = 1 << 3;
pub(super) const SAMPLE_CALLCHAIN: u64 = 1 << 5;
pub(super) const SAMPLE_REGS_USER: u64 = 1 << 12;
pub(super) const SAMPLE_STACK_USER: u64 = 1 << 13;
const SAMPLE_IDENTIFIER: u64 = 1 << 16;

/// The registers that are recorded with a stack, in the order in which they come: `PERF_REG_X86_BP`, `_SP`, `_IP`
/// (arch/x86/include/uapi/asm/perf_regs.h).
pub(super) const REGISTERS: u64 = 1 << 6 | 1 << 7 | 1 << 8;
/// `PERF_SAMPLE_REGS_ABI_64`: the thread's code was of 64 bits. 0 has no registers.
const ABI_64: u64 = 2;

/// Between the addresses of a chain of calls: the next ones are the kernel's, or the process's. All marks are from the
/// least on; those that came later than these two lead what we have not asked for.
const CONTEXT_KERNEL: u64 = -128i64 as u64;
const CONTEXT_USER: u64 = -512i64 as u64;
const CONTEXT_LEAST: u64 = -4095i64 as u64;

/// What stands behind every record: thread, time, and the event's own number.
pub(super) const SAMPLE_TYPE: u64 = SAMPLE_TID | SAMPLE_TIME | SAMPLE_IDENTIFIER;

/// What an event that is sampled tells beside that: the instruction, and the address that it was about.
pub(super) const SAMPLE_OF_FAULT: u64 = SAMPLE_TYPE | SAMPLE_IP | SAMPLE_ADDR;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The process has something mapped: to execute, or to read and write.
    Mapped(Mapping),
    /// The thread has this name; it has become another program, if `exec`.
    Named {
        /// Its name.
        comm: String,
        /// Whether it has become another program.
        exec: bool,
    },
    /// The process, or the thread, was born.
    Forked {
        /// The process that it was born of.
        parent: u32,
    },
    /// The thread has ended.
    Ended,
    /// The thread took a fault.
    Faulted {
        /// The number of the event that was sampled.
        event: u64,
        /// The address that was accessed.
        addr: u64,
        /// The instruction, if it was in user mode.
        ip: Option<u64>,
        /// How it was called, if that was asked for.
        calls: Option<Calls>,
        /// Its registers and its stack, if they were asked for and its code is of 64 bits.
        stack: Option<Copy>,
    },
    /// So many records had no room.
    Lost(u64),
}

/// A chain of calls, innermost first: where the processor was, and then where each call returns to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Calls {
    /// In the kernel.
    pub kernel: Vec<u64>,
    /// In the program.
    pub user: Vec<u64>,
}

impl Calls {
    /// How many there are.
    pub fn depth(&self) -> usize {
        self.kernel.len() + self.user.len()
    }

    /// From what stands at the end of a record: how many words there are, and those.
    fn parse(words: &mut Words<'_>) -> Option<Self> {
        let mut calls = Self::default();
        let mut context = None;
        for _ in 0..words.u64()? {
            match (words.u64()?, context) {
                (mark @ CONTEXT_LEAST.., _) => context = Some(mark),
                (ip, Some(CONTEXT_KERNEL)) => calls.kernel.push(ip),
                (ip, Some(CONTEXT_USER)) => calls.user.push(ip),
                (_, _) => {}
            }
        }
        Some(calls)
    }
}

/// Reads numbers off the front.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A text that ends in NUL, and then in as many more as fill a word.
    fn text(&self) -> String {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(self.0.get(..end).unwrap_or_default()).into_owned()
    }
}

/// From what stands behind a chain of calls: registers, and from the stack pointer on as much as was copied.
fn stack(words: &mut Words<'_>) -> Option<Copy> {
    let abi = words.u64()?;
    let (bp, sp, ip) = if abi == 0 { (0, 0, 0) } else { (words.u64()?, words.u64()?, words.u64()?) };
    let size = usize::try_from(words.u64()?).ok()?;
    if size == 0 || abi != ABI_64 {
        return None;
    }
    let bytes = words.take(size)?;
    let copied = usize::try_from(words.u64()?).ok()?;
    Some(Copy { ip, sp, bp, stack: bytes.get(..copied)?.to_vec() })
}

/// Understands one record; nothing if it says nothing to us.
pub(crate) fn parse(bytes: &[u8]) -> Option<Record> {
    let mut words = Words(bytes);
    let kind = words.u32()?;
    let misc = words.u32()? as u16;
    if kind == SAMPLE {
        let (event, ip) = (words.u64()?, words.u64()?);
        let (pid, tid, time_ns, addr) = (words.u32()?, words.u32()?, words.u64()?, words.u64()?);
        let ip = Some(ip).filter(|_| misc & MISC_MODE == MISC_USER);
        let calls = Calls::parse(&mut words);
        let stack = calls.as_ref().and_then(|_| stack(&mut words));
        return Some(Record { time_ns, pid, tid, what: What::Faulted { event, addr, ip, calls, stack } });
    }
    let (body, id) = words.0.split_at_checked(words.0.len().checked_sub(24)?)?;
    let mut id = Words(id);
    let (pid, tid, time_ns) = (id.u32()?, id.u32()?, id.u64()?);
    let mut words = Words(body);
    let of = |pid, tid, what| Some(Record { time_ns, pid, tid, what });
    match kind {
        MMAP2 => {
            let (pid, tid) = (words.u32()?, words.u32()?);
            let (start, len, offset) = (words.u64()?, words.u64()?, words.u64()?);
            let device = (words.u32()?, words.u32()?);
            let inode = words.u64()?;
            let (generation, prot, flags) = (words.u64()?, words.u32()? as i32, words.u32()? as i32);
            let mapping = Mapping {
                start,
                end: start.saturating_add(len),
                readable: prot & libc::PROT_READ != 0,
                writable: prot & libc::PROT_WRITE != 0,
                executable: misc & MISC_MMAP_DATA == 0,
                shared: flags & libc::MAP_SHARED != 0,
                offset,
                device,
                inode,
                generation: Some(generation),
                kind: Kind::Anon,
                name: "".into(),
            };
            of(pid, tid, What::Mapped(mapping.called(&words.text())))
        }
        COMM => {
            let (pid, tid) = (words.u32()?, words.u32()?);
            of(pid, tid, What::Named { comm: words.text(), exec: misc & MISC_COMM_EXEC != 0 })
        }
        FORK | EXIT => {
            let (pid, parent, tid) = (words.u32()?, words.u32()?, words.u32()?);
            of(pid, tid, if kind == FORK { What::Forked { parent } } else { What::Ended })
        }
        LOST => {
            let _event = words.u64()?;
            of(pid, tid, What::Lost(words.u64()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, body: &[u64]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(misc.to_ne_bytes());
        bytes.extend((8 + body.len() as u16 * 8).to_ne_bytes());
        bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    const THREAD: u64 = 8 << 32 | 7;

    #[test]
    fn what_processes_do() {
        let name = u64::from_ne_bytes(*b"a name\0\0");
        let comm = record(COMM, MISC_COMM_EXEC, &[THREAD, name, THREAD, 99, 5]);
        let what = What::Named { comm: "a name".into(), exec: true };
        assert_eq!(parse(&comm), Some(Record { time_ns: 99, pid: 7, tid: 8, what }));

        let path = u64::from_ne_bytes(*b"/a (b)\0\0");
        let words = [THREAD, 0x1000, 0x2000, 0x3000, 1 << 32 | 8, 44, 0, 1 << 32 | 5, path, THREAD, 98, 5];
        let map = record(MMAP2, 2, &words);
        let mapped = |executable| {
            What::Mapped(Mapping {
                start: 0x1000,
                end: 0x3000,
                readable: true,
                writable: false,
                executable,
                shared: true,
                offset: 0x3000,
                device: (8, 1),
                inode: 44,
                generation: Some(0),
                kind: Kind::File,
                name: "/a (b)".into(),
            })
        };
        assert_eq!(parse(&map), Some(Record { time_ns: 98, pid: 7, tid: 8, what: mapped(true) }));
        let data = record(MMAP2, 2 | MISC_MMAP_DATA, &words);
        assert_eq!(parse(&data).map(|r| r.what), Some(mapped(false)));

        let fork = record(FORK, 0, &[6 << 32 | 7, 6 << 32 | 8, 97, 6 << 32 | 6, 97, 5]);
        let what = What::Forked { parent: 6 };
        assert_eq!(parse(&fork), Some(Record { time_ns: 97, pid: 7, tid: 8, what }));

        let lost = record(LOST, 0, &[5, 12, THREAD, 96, 5]);
        assert_eq!(parse(&lost).map(|r| r.what), Some(What::Lost(12)));
        let fault = |misc| parse(&record(SAMPLE, misc, &[5, 0x400, THREAD, 95, 0x1234])).unwrap();
        let what = |ip| What::Faulted { event: 5, addr: 0x1234, ip, calls: None, stack: None };
        assert_eq!(fault(MISC_USER), Record { time_ns: 95, pid: 7, tid: 8, what: what(Some(0x400)) });
        assert_eq!(fault(1).what, what(None), "that one was in the kernel");
        assert_eq!(parse(&record(77, 0, &[0, 0, 0, 0])), None);
        assert_eq!(parse(&record(COMM, 0, &[1])), None);
    }
    #[test]
    fn chains_of_calls() {
        let chain = |words: &[u64]| {
            let head = [5, 0x400, THREAD, 95, 0x1234, words.len() as u64];
            match parse(&record(SAMPLE, MISC_USER, &[&head, words].concat()))?.what {
                What::Faulted { calls, .. } => calls,
                _ => None,
            }
        };
        let calls = |kernel: &[u64], user: &[u64]| Calls { kernel: kernel.to_vec(), user: user.to_vec() };
        assert_eq!(chain(&[CONTEXT_USER, 0x400, 0x500]), Some(calls(&[], &[0x400, 0x500])));
        let kernel = 0xffff_ffff_8100_0000;
        let both = chain(&[CONTEXT_KERNEL, kernel, kernel + 8, CONTEXT_USER, 0x400]).unwrap();
        assert_eq!((&both, both.depth()), (&calls(&[kernel, kernel + 8], &[0x400]), 3));
        // The kernel had no memory for it; what came later is not ours; a thread of the kernel's has only those.
        assert_eq!(chain(&[]), Some(Calls::default()));
        assert_eq!(chain(&[CONTEXT_USER, 0x400, -640i64 as u64, 7]), Some(calls(&[], &[0x400])));
        assert_eq!(chain(&[CONTEXT_KERNEL, kernel]), Some(calls(&[kernel], &[])));
        // A record that is cut short has no chain.
        let short = record(SAMPLE, MISC_USER, &[5, 0x400, THREAD, 95, 0x1234, 3, CONTEXT_USER, 0x400]);
        assert!(matches!(parse(&short).unwrap().what, What::Faulted { calls: None, .. }));
    }

    #[test]
    fn stacks_with_their_registers() {
        let taken = |behind: &[u64]| {
            let head = [5, 0x400, THREAD, 95, 0x1234, 2, CONTEXT_USER, 0x400];
            match parse(&record(SAMPLE, MISC_USER, &[&head, behind].concat()))?.what {
                What::Faulted { calls, stack, .. } => Some((calls?.user, stack)),
                _ => None,
            }
        };
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let copy = |words: &[u64]| Some(Copy { ip: 0x400, sp: 0x7000, bp: 6, stack: bytes(words) });
        let registers = [ABI_64, 6, 0x7000, 0x400];
        let whole = [&registers[..], &[24, 1, 2, 3, 16]].concat();
        assert_eq!(taken(&whole), Some((vec![0x400], copy(&[1, 2]))), "the third word was not copied");
        // Code of 32 bits; a thread of the kernel's; nothing copied; more than there is; cut short.
        let narrow = [&[1], &whole[1..]].concat();
        assert_eq!(taken(&narrow), Some((vec![0x400], None)));
        assert_eq!(taken(&[0, 0]), Some((vec![0x400], None)));
        assert_eq!(taken(&[&registers[..], &[0]].concat()), Some((vec![0x400], None)));
        assert_eq!(taken(&[&registers[..], &[8, 1, 0]].concat()), Some((vec![0x400], copy(&[]))));
        assert_eq!(taken(&[&registers[..], &[8, 1, 16]].concat()), Some((vec![0x400], None)));
        assert_eq!(taken(&whole[..6]), Some((vec![0x400], None)));
    }
}

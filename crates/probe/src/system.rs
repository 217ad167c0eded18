//! Facts about the machine that headers, `doctor` and error messages need.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use libbpf_rs::libbpf_sys::{self, bpf_obj_get_info_by_fd, bpf_prog_info};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use trapline_model::{Header, Record, SCOPE, Schema, Scope};
pub(crate) use trapline_symbols::clock::{ahead as clocks, monotonic_ns};
pub(crate) use trapline_symbols::machine::{KERNEL_BTF, is_mounted, lockdown};
use trapline_symbols::privilege;
pub(crate) use trapline_symbols::task::pidfd;

use crate::namespaces::Kind;

const CAP_SETUID_SETGID: u64 = 1 << 6 | 1 << 7;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Whether the kernel describes its types: the file begins as BTF does (include/uapi/linux/btf.h, BTF_MAGIC).
pub(crate) fn has_kernel_types() -> bool {
    let mut magic = [0; 2];
    fs::File::open(KERNEL_BTF).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && u16::from_ne_bytes(magic) == 0xeb9f
}

/// Processor time of this process and its symbolizer so far, user and system, nanoseconds.
pub(crate) fn own_cpu_ns() -> u64 {
    let own = getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |u| (u.user_time().num_nanoseconds() + u.system_time().num_nanoseconds()) as u64);
    own + trapline_symbols::worked_ns()
}

/// While it is open, the kernel measures what BPF programs cost.
static STATISTICS: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Has the kernel measure what BPF programs cost, or no longer: it stops by itself when this process ends, and leaves
/// `kernel.bpf_stats_enabled` as it is. Whether it does now.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`, or before Linux 5.8.
#[allow(unsafe_code)]
pub fn toggle_bpf_statistics() -> io::Result<bool> {
    let mut statistics = STATISTICS.lock().unwrap_or_else(PoisonError::into_inner);
    if statistics.take().is_some() {
        return Ok(false);
    }
    // SAFETY: the call takes a number alone.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    *statistics = Some(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(true)
}

/// Nanoseconds that the kernel spent in the BPF programs that we hold; nothing where it does not measure that.
#[must_use]
pub fn bpf_cost() -> Option<u64> {
    let has_own = STATISTICS.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let enabled = || fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled");
    let is_measured = has_own || enabled().is_ok_and(|enabled| enabled.trim() != "0");
    // A program may have several descriptors.
    let mut programs: HashMap<u64, u64> = HashMap::new();
    for fd in fs::read_dir("/proc/self/fdinfo").ok().filter(|_| is_measured)?.flatten() {
        let text = fs::read_to_string(fd.path()).unwrap_or_default();
        let number =
            |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok());
        if let (Some(id), Some(ns)) = (number("prog_id:"), number("run_time_ns:")) {
            programs.insert(id, ns);
        }
    }
    Some(programs.values().sum())
}

/// The effective capabilities, as a bit mask.
pub(crate) fn capabilities() -> u64 {
    privilege::effective(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Those of the effective capabilities that matter to us, by name.
pub(crate) fn named_capabilities() -> Vec<&'static str> {
    let all = [(21, "CAP_SYS_ADMIN"), (24, "CAP_SYS_RESOURCE"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
    let caps = capabilities();
    all.into_iter().filter(|&(bit, _)| caps & (1 << bit) != 0).map(|(_, name)| name).collect()
}

/// Whether the kernel lets us know where its functions are: it decides by kernel.kptr_restrict, the level of perf events and
/// CAP_SYSLOG, and shows zeros in their place.
pub(crate) fn shows_kernel_addresses() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let mut first = [0; 16 << 10];
        let mut list = fs::File::open("/proc/kallsyms").ok();
        let len = list.as_mut().and_then(|list| list.read(&mut first).ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(&first[..len]);
        text.lines().any(|line| line.split(' ').next().is_some_and(|address| address.contains(|c| c != '0')))
    })
}

/// Whether programs may be loaded and attached at all. In a user namespace capabilities are over nothing but that.
pub(crate) fn has_bpf_privilege() -> bool {
    let caps = if Kind::User.is_initial() { capabilities() } else { 0 };
    let has = |cap: u32| caps & (1 << cap) != 0;
    has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON))
}

/// Whether a child of ours may run as another user.
pub(crate) fn may_become_others() -> bool {
    capabilities() & CAP_SETUID_SETGID == CAP_SETUID_SETGID
}

/// What to do where programs may not be loaded.
pub(crate) fn privilege_remedy() -> &'static str {
    if !Kind::User.is_initial() {
        "root in a user namespace has no privilege over the machine: run trapline outside of it, as root; in a container, one with the machine's users (--userns=host, not rootless)"
    } else if nix::unistd::geteuid().is_root() {
        "root lacks capabilities here: add CAP_BPF and CAP_PERFMON; in a container, --privileged, or --cap-add for both"
    } else {
        "run as root, or with CAP_BPF and CAP_PERFMON"
    }
}

/// Takes as many descriptors as may be had. A command that was forked before keeps its own limit.
pub(crate) fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With fewer it may work as well.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// How many descriptors may be open.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(now, _)| now)
}

/// The process that a thread belongs to.
pub(crate) fn process_of(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// What the kernel says of a program that we have: to list all, as `libbpf_rs::query` does, takes CAP_SYS_ADMIN.
#[allow(unsafe_code)]
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    let mut info = bpf_prog_info::default();
    let mut len = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the structure is as long as it says, and asks for nothing to be written elsewhere: its addresses are 0.
    let error = unsafe { bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &raw mut len) };
    if error < 0 { Err(io::Error::from_raw_os_error(-error)) } else { Ok(info) }
}

/// Takes one page fault: touches memory that is there for the first time, and gives it back. Tells where it was.
#[allow(unsafe_code)]
pub(crate) fn fault_once() -> Result<u64, Errno> {
    let page = NonZeroUsize::MIN;
    // SAFETY: a new mapping at an address of the kernel's choice; it is written to within its first byte, and nobody
    // else knows of it when it is unmapped.
    unsafe {
        let at =
            mmap_anonymous(None, page, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)?;
        at.cast::<u8>().write_volatile(1);
        munmap(at, page.get())?;
        Ok(at.as_ptr() as u64)
    }
}

/// The running kernel's version: its first two numbers, each 0 if it does not say.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The first item of a stream that starts now.
pub(crate) fn header(
    tool: &'static str,
    variant: &'static str,
    (tables, events): (Vec<&'static Schema>, Option<&'static Schema>),
    settings: Vec<Record>,
) -> Header {
    let uts = nix::sys::utsname::uname();
    let part = |f: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uts.as_ref().map_or_else(|_| String::new(), |u| f(u).to_string_lossy().into_owned())
    };
    Header {
        tool: tool.into(),
        variant: variant.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        host: part(|u| u.nodename()),
        kernel: part(|u| u.release()),
        start_unix_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64),
        start_ns: monotonic_ns(),
        tables,
        events,
        settings,
    }
}

/// Whose events are meant: those of a filter, in words, among those that we see at all.
pub(crate) fn scope(filter: Option<&str>) -> Record {
    let processes = (!Kind::Pid.is_initial()).then_some("of this PID namespace");
    SCOPE.record(&Scope { filter: filter.map(str::to_owned), processes })
}

/// Does something that no ordinary thread of this processor may interrupt, if we are allowed to ask for that.
///
/// While a system call works on a map, the kernel runs no program of a kprobe, a perf event or a classic tracepoint on
/// that processor. On a kernel that preempts itself, whoever takes the processor away from us in such a call would go
/// unseen.
#[allow(unsafe_code)]
pub(crate) fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let schedule = |policy, priority| {
        let how = libc::sched_param { sched_priority: priority };
        // SAFETY: our own thread, and a valid parameter that outlives the call.
        unsafe { libc::sched_setscheduler(0, policy, &raw const how) == 0 }
    };
    // SAFETY: no pointer is passed, 0 is our own thread.
    let before = unsafe { libc::sched_getscheduler(0) };
    let is_ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE].contains(&before);
    // What is started meanwhile is not to run so.
    let raised = is_ordinary && schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1);
    let done = work();
    if raised {
        schedule(before, 0);
    }
    done
}

/// From now on this thread runs before ordinary ones, if we are allowed to ask for that: whoever uses the processors should
/// not keep us from ending.
#[allow(unsafe_code)]
pub(crate) fn before_ordinary() {
    let how = libc::sched_param { sched_priority: 1 };
    // SAFETY: our own thread, and a valid parameter that outlives the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const how) };
}

/// Whether threads are preempted inside the kernel: `full`, or `lazy` at the latest with the next tick. Nothing if that
/// is not to be seen: a kernel that can be told so at its boot, without debugfs.
pub(crate) fn preempts_itself() -> Option<bool> {
    static ANSWER: OnceLock<Option<bool>> = OnceLock::new();
    // What is loaded and how it is configured must not go by different answers.
    *ANSWER.get_or_init(read_preemption)
}

fn read_preemption() -> Option<bool> {
    let mode = fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    if mode.contains('(') {
        return Some(mode.contains("(full)") || mode.contains("(lazy)"));
    }
    // The kernel's version line tells how it was built.
    let version = nix::sys::utsname::uname().ok()?.version().to_string_lossy().into_owned();
    (!version.contains("PREEMPT_DYNAMIC")).then(|| version.contains("PREEMPT"))
}

/// A number that nobody can guess, if the kernel gives one.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    // Without /dev: at least another one in each run.
    if read.is_ok() { u64::from_ne_bytes(bytes) } else { monotonic_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// Waits until every BPF program that runs now has ended: they run in RCU read-side critical sections.
#[allow(unsafe_code)]
pub(crate) fn wait_for_programs() {
    /// include/uapi/linux/membarrier.h: the kernel waits for an RCU grace period, also since 4.16, when it got this name.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three numbers and touches no memory of ours.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Not there with nohz_full: no program takes as long as this.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

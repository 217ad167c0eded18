//! The rules of findings: one visible list, each rule with what it takes to apply, and what to do about what it finds.

/// A rule: what it looks for, and from what figures on it is worth a word.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it says if it applies, for the list of rules.
    pub says: &'static str,
    /// The least share that it must have, in per cent.
    pub least_percent: u64,
    /// What the share is of.
    pub of: Whole,
    /// The least number of faults, exits, accesses or pages.
    pub least_count: u64,
    /// What to do about it.
    pub advice: &'static str,
}

/// What the cost of a finding is a share of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// The cost is a time.
    Duration,
    /// The cost is pages, of those that fit into the memory of the machine or the cgroup.
    Memory,
    /// The cost is writes, of all writes of the process.
    Writes,
}

impl Whole {
    /// As the list of rules has it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Duration => "the duration",
            Self::Memory => "the memory",
            Self::Writes => "the writes",
        }
    }
}

/// No finding is about less time than this, nanoseconds: it is not worth the reader's.
pub const LEAST_NS: u64 = 10_000_000;

impl Rule {
    /// Whether it is worth a word that so much was met, of a whole of so much: times are in nanoseconds.
    #[must_use]
    pub fn is_met(&self, count: u64, cost: u64, whole: u64) -> bool {
        count >= self.least_count
            && (self.of != Whole::Duration || cost >= LEAST_NS)
            && u128::from(cost) * 100 >= u128::from(whole) * u128::from(self.least_percent)
    }

    const fn of(self, of: Whole) -> Self {
        Self { of, ..self }
    }
}

const fn rule(
    name: &'static str,
    (least_percent, least_count): (u64, u64),
    says: &'static str,
    advice: &'static str,
) -> Rule {
    Rule { name, says, least_percent, of: Whole::Duration, least_count, advice }
}

pub(super) static RANDOM_READS: Rule = rule(
    "random-reads",
    // Where readahead is megabytes, a second of waiting is a few dozen reads.
    (5, 10),
    "A process reads a mapped file at scattered offsets, and waits for the disk at most of them.",
    "give the process more memory, so that the file stays in the page cache; read what is needed ahead (`trapline prefetch`, \
     MADV_WILLNEED); if the file is larger than memory, set MADV_RANDOM, so that each fault does not read pages that nobody asks for",
);
pub(super) static SEQUENTIAL_READS: Rule = rule(
    "sequential-reads",
    (10, 10),
    "A process reads a mapped file in order, faster than readahead reads it.",
    "set MADV_SEQUENTIAL or a larger readahead (`blockdev --setra`), read the file ahead (`trapline prefetch`, MADV_WILLNEED), \
     or read it with large read() calls; if the disk is at its limit, nothing but less data helps",
);
pub(super) static COLD_FILES: Rule = rule(
    "cold-files",
    (10, 10),
    "A process waits for the disk at pages of several mapped files, as a program does that starts cold.",
    "read ahead what it needs before it starts (`trapline replay --prefetch` makes a list of a recording, `trapline prefetch` reads \
     it), start it less often, or keep its files in the page cache: more memory, or vmtouch",
);
pub(super) static SLOW_FILE_SYSTEM: Rule = rule(
    "slow-file-system",
    (5, 10),
    "A process waits for a mapped file that a program or another machine serves (FUSE, NFS, SMB, 9p, Ceph).",
    "copy the file to a local disk or into memory; let the file system read more at once (rsize of NFS, max_read and max_readahead of \
     FUSE) and keep what it has read (fscache, kernel_cache of FUSE); read what is needed ahead (`trapline prefetch`, MADV_WILLNEED)",
);
pub(super) static THRASH: Rule = rule(
    "thrash",
    (5, 100),
    "Pages of a file are read again and again: they do not stay in memory.",
    "raise the memory limit of the cgroup or add memory; make the part of the file that is in use smaller; lock what must stay \
     (mlock)",
);
pub(super) static SWAP_IN: Rule = rule(
    "swap-in",
    (2, 20),
    "Memory of a process comes back from swap.",
    "give the process or its cgroup more memory, or lower memory.swap.max of the others; zswap makes it cheaper",
);
pub(super) static FIRST_TOUCH: Rule = rule(
    "first-touch",
    (10, 1000),
    "The first use of fresh memory, page by page, takes much of the time.",
    "use huge pages (MADV_HUGEPAGE, transparent_hugepage=always, glibc.malloc.hugetlb=1, -XX:+UseTransparentHugePages), keep memory \
     instead of returning it (M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc, dirty_decay_ms of jemalloc), or fault it in before it \
     matters (MAP_POPULATE, MADV_POPULATE_WRITE, -XX:+AlwaysPreTouch)",
);
pub(super) static HUGE_PAGES: Rule = rule(
    "huge-page-clearing",
    (10, 20),
    "The first use of fresh memory, huge page by huge page, takes much of the time: each is cleared.",
    "keep memory instead of returning it (M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc, dirty_decay_ms of jemalloc), fault it in \
     before it matters (MAP_POPULATE, MADV_POPULATE_WRITE, -XX:+AlwaysPreTouch), or do without huge pages where few of their bytes are \
     used (MADV_NOHUGEPAGE)",
);
pub(super) static SHARED_MEMORY: Rule = rule(
    "shared-memory",
    (10, 1000),
    "The first use of shared memory, page by page and in each process anew, takes much of the time.",
    "use huge pages (huge_pages=on of PostgreSQL, SHM_HUGETLB, MFD_HUGETLB, huge= of tmpfs, shmem_enabled), fault it in before it matters \
     (MAP_POPULATE, MADV_POPULATE_WRITE), or let one process with threads or a pool of processes do the work, so that fewer map it",
);
pub(super) static COPY_ON_WRITE: Rule = rule(
    "copy-on-write",
    (5, 500),
    "Writes to memory that is shared since a fork copy it, page by page.",
    "fork less often or from a smaller process; use vfork or posix_spawn to start programs; mark memory that the child does not \
     need with MADV_DONTFORK; write less while a snapshot is made; huge pages make the fork itself shorter, but are copied in small \
     ones from Linux 5.8 on, and as a whole, 512 times as much, before",
);
pub(super) static LOCK_WAITS: Rule = rule(
    "lock-waits",
    (2, 1),
    "Faults wait for the lock of the address space, which another thread holds.",
    "avoid fork, mmap, munmap and mprotect in a process with many threads while the others work: start programs with posix_spawn, \
     reuse memory instead of mapping and unmapping it, use a smaller address space",
);
pub(super) static RECLAIM: Rule = rule(
    "reclaim",
    (2, 1),
    "Faults free memory themselves before they get a page.",
    "raise the memory limit of the cgroup (memory.max, memory.high) or vm.min_free_kbytes and vm.watermark_scale_factor, so that \
     kswapd frees memory in time; look who fills the memory (`trapline faults --by cgroup`)",
);
pub(super) static THROTTLED: Rule = rule(
    "throttled",
    (2, 1),
    "The cgroup is above its memory.high, and the kernel slows its threads down.",
    "raise memory.high of the cgroup, or make the program use less; compare memory.pressure of the cgroup",
);
pub(super) static NUMA_HINTS: Rule = rule(
    "numa-hints",
    (2, 100),
    "The scheduler hides pages to see which NUMA node uses them.",
    "bind the process and its memory to one node (numactl), or switch NUMA balancing off (kernel.numa_balancing=0)",
);
pub(super) static USERFAULTFD: Rule = rule(
    "userfaultfd",
    (5, 20),
    "Faults wait for a program that serves them through userfaultfd.",
    "look at the program that serves the faults: fetch pages ahead, serve them with several threads, copy larger ranges at once",
);
pub(super) static WRITE_NOTIFY: Rule = rule(
    "write-notify",
    (5, 500),
    "First writes to clean pages of a shared file mapping are reported to the file system.",
    "write back less often (msync, vm.dirty_expire_centisecs), so that pages stay dirty; use huge pages or write() where the \
     file system is slow with them",
);

pub(super) static SLOW_VMM: Rule = rule(
    "slow-vmm",
    (5, 100),
    "Exits wait for the program that runs the guest.",
    "give the guest virtio devices in the kernel (vhost) in place of emulated ones, let an I/O thread serve them, or look at what the \
     program does there (`trapline kvm slower`, perf)",
);
pub(super) static HALT_POLLING: Rule = rule(
    "halt-polling",
    (10, 100),
    "KVM polls while a vCPU is halted, and uses the processor for it.",
    "set kvm.halt_poll_ns lower, or to 0; in the guest, cpuidle-haltpoll with guest_halt_poll_ns does the same more cheaply",
);
pub(super) static HOST_FAULTS: Rule = rule(
    "host-faults",
    (2, 100),
    "The host handles page faults on the guest's behalf.",
    "fill the guest's memory before it starts (prealloc of QEMU, hugetlbfs), do not let the host swap it, use huge pages",
);
pub(super) static MSR_STORM: Rule = rule(
    "msr-storm",
    (5, 10_000),
    "The guest exits for accesses to model-specific registers.",
    "look which register it is (`trapline kvm time --by msr`): timers (0x6e0, 0x838) become cheaper with a TSC deadline timer that is \
     passed through or with fewer ticks in the guest (nohz_full), interrupts (0x830) with posted interrupts or AVIC",
);
pub(super) static NESTED: Rule = rule(
    "nested",
    (10, 100),
    "A guest inside the guest costs most of the time of exits: its own, and those of L1 to run it.",
    "avoid nesting for what matters; give L1 what makes L2 exit less: shadow VMCS or virtual VMLOAD/VMSAVE, APICv or AVIC, virtio",
);
pub(super) static SGX_THRASH: Rule = rule(
    "epc-thrash",
    (5, 1000),
    "Enclaves load pages back that were evicted just before: they need more EPC than there is.",
    "make enclaves smaller, run fewer of them on the machine, limit each with the misc controller of cgroups, or reserve more EPC in the \
     firmware",
);

pub(super) static WORKING_SET: Rule = rule(
    "working-set",
    (80, 1000),
    "A program accesses most of the memory of the machine or its cgroup within a second.",
    "give it more memory; access less of it at a time, or in an order that comes back to a page sooner; see how much less memory would \
     do (`trapline access --read FILE --summary missratio`)",
)
.of(Whole::Memory);
pub(super) static FALSE_SHARING: Rule = rule(
    "false-sharing",
    (10, 100),
    "Threads write to the same pages, each to other cache lines of them.",
    "give each thread pages of its own: align what it writes to the size of a page, allocate it in the thread that uses it, or use an \
     allocator with arenas by thread; on a machine with several nodes, such a page is far from one of its threads",
)
.of(Whole::Writes);

/// All rules, by what they need.
pub static RULES: &[&Rule] = &[
    &RANDOM_READS,
    &SEQUENTIAL_READS,
    &COLD_FILES,
    &SLOW_FILE_SYSTEM,
    &THRASH,
    &SWAP_IN,
    &FIRST_TOUCH,
    &HUGE_PAGES,
    &SHARED_MEMORY,
    &COPY_ON_WRITE,
    &LOCK_WAITS,
    &RECLAIM,
    &THROTTLED,
    &NUMA_HINTS,
    &USERFAULTFD,
    &WRITE_NOTIFY,
    &SLOW_VMM,
    &HALT_POLLING,
    &HOST_FAULTS,
    &MSR_STORM,
    &NESTED,
    &SGX_THRASH,
    &WORKING_SET,
    &FALSE_SHARING,
];

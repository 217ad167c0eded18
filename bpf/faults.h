/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Page faults: what the kernel half reports to user space. Mirrored in crates/probe/src/abi/faults.rs, compared by a
 * test.
 */
#ifndef TRAPLINE_FAULTS_H
#define TRAPLINE_FAULTS_H

#include "trap.h"

enum faults_mark {
	FAULTS_NONE = ~0ULL, /* a minimum of nothing; an address that is not known */
	/* In the first word of a key: it stands for the group whose key it is otherwise, see struct faults_control. */
	FAULTS_SECOND = 1ULL << 63,
	/* In a stack's key, instead of a process: faults whose stack was not asked for. */
	FAULTS_STACK_UNTAKEN = ~0ULL >> 1,
	/* An odd number of which a stack's number is made, see stack_id(). */
	FAULTS_STACK_FACTOR = 0x9e3779b97f4a7c15ULL,
};

enum faults_size {
	FAULTS_NAME_LEN = 4096,
	FAULTS_CHAIN_LEN = 128, /* the kernel walks 127, unless kernel.perf_event_max_stack was changed */
	FAULTS_TICKS = 16,      /* a power of two */
};

struct faults_config {
	__u64 seed;          /* of the hash of chains: nobody can know which of them have the same */
	__u64 slower;        /* only faults that took at least this long go to the ring, nanoseconds */
	__u64 step;          /* a message each time a process has this many more */
	__u64 tick_ns;       /* FAULTS_STEP_WITHIN: the window is FAULTS_TICKS of these */
	__u32 ring;          /* faults_all.bpf.c: its RING */
	__u32 group;         /* faults_all.bpf.c: its GROUP */
	__u32 minor_weight;  /* one timed minor fault stands for this many */
	__u32 step_of;       /* FAULTS_STEP_* */
	__u32 stack_every;   /* FAULTS_GROUP_STACK: of one fault in this many; 0: of major ones */
	__u32 stack_deepest; /* kernel.perf_event_max_stack: no chain has more frames */
	__u32 may_miss;      /* the programs that follow the lives of threads may be skipped */
	__u32 groups;        /* capacity of the map */
	__u32 chains;        /* the same */
	__u32 ring_share;    /* one process fills 1 / (ring_share + 1) of it at most; 0: all of it */
	__u32 minor_unseen;  /* not every minor fault's completion is seen */
	__u32 share;         /* of the table of groups one process takes 1 / (share + 1) at most; 0: all of it */
	__u32 unwinds;       /* stacks are walked by unwind tables, not by frame pointers alone */
	__u32 stack_copied;  /* bytes of a stack that are copied where a table is being made; 0: none */
};

/* What goes to the ring. */
enum faults_ring {
	FAULTS_RING_NONE = 0,
	FAULTS_RING_FAULTS = 1, /* each fault, and what is mapped there; with steps: reported with the message */
	FAULTS_RING_CAUSES = 2, /* what each was for, too */
	FAULTS_RING_STEPS = 4,  /* a message each time a process's count passes a multiple of a step */
};

/* What completed faults are grouped by: one of these, or several of them, of which one says whose they are. */
enum faults_group_by {
	FAULTS_GROUP_NONE = 0,
	FAULTS_GROUP_FILE = 1,
	FAULTS_GROUP_CAUSE = 2,
	FAULTS_GROUP_STACK = 4,
	FAULTS_GROUP_THREAD = 8, /* only beside what they are of, as the next two */
	FAULTS_GROUP_PROCESS = 16,
	FAULTS_GROUP_CGROUP = 32,
};

/* What a step counts. */
enum faults_step_of {
	FAULTS_STEP_ALL = 0,
	FAULTS_STEP_MAJOR = 1,  /* major faults */
	FAULTS_STEP_STALL = 2,  /* nanoseconds in faults */
	FAULTS_STEP_WAITS = 3,  /* faults in which the thread slept */
	FAULTS_STEP_WITHIN = 4, /* nothing: the step is of nanoseconds asleep in faults, within a window */
};

/* A process went past one or several multiples of the step; or it slept for so long within the window. */
struct faults_step {
	__u64 time_ns;
	__u64 start_ns; /* of the process */
	__u64 first;    /* the least multiple of the step that it passed, in steps; or the nanoseconds that it slept */
	__u64 last;     /* the greatest; or the same */
	__u32 pid;
	__u32 pad;
	char comm[TRAP_COMM_LEN];
};

/*
 * What user space changes while programs run.
 *
 * An entry of a table is taken out in two steps, so that no figure is lost. Each has the turn in which it was last
 * used. User space first says which turns are stale: programs leave such entries alone from then on, and what they
 * would have put there goes into another entry, under the second key. When no program runs that has not seen that, user
 * space reads the stale entries once more and deletes them.
 */
struct faults_control {
	__u64 epoch; /* the number of the running interval */
	__u64 last;  /* the pass over all threads that comes now is the last: behind it nothing is counted */
	/*
	 * CLOCK_MONOTONIC; 0: not yet. Threads that started later are counted from their start, the others from that
	 * moment on. For all processes, the pass that adopts the threads sets it.
	 */
	__u64 began_ns;
	__u64 adopted;      /* that pass is over: each thread that started before is known */
	__u64 turn;         /* from 1: how often user space has read the tables, and one */
	__u64 stale;        /* groups and names of earlier turns are stale */
	__u64 stale_chains; /* the same of chains */
	__u64 taken_groups; /* were taken out by user space */
	__u64 taken_chains;
};

/* Entries that programs have made; those that user space empties are counted when they are whole. */
struct faults_made {
	__u64 groups;
	__u64 chains;
	__u64 names;
	__u64 retired;
};

/* What the time of a fault is spent on, beside the kernel's work, which is the rest. */
enum faults_part {
	FAULTS_PART_LOCK =
	    0,              /* asleep before its handling, or between two turns of it: the lock of the address space */
	FAULTS_PART_IO = 1, /* asleep for I/O */
	FAULTS_PART_RECLAIM = 2,   /* in direct reclaim and compaction, whatever was done there */
	FAULTS_PART_THROTTLED = 3, /* asleep because the cgroup is above its memory.high */
	FAULTS_PART_PREEMPTED = 4, /* it could have run, but something else did */
	FAULTS_PART_SLEEP = 5,     /* asleep for something else */
	FAULTS_PARTS = 6,
};

/* Faults and their times. All of it grows, but for the extremes. */
struct faults_stats {
	__u64 major; /* completed faults, by the kernel's own accounting */
	__u64 minor;
	__u64 timed_major; /* how many of them were timed */
	__u64 timed_minor;
	__u64 major_ns; /* time of the timed ones */
	__u64 minor_ns;
	__u64 waits;   /* faults in which the thread slept */
	__u64 wait_ns; /* how long */
	/* Of them the minor ones, where not each minor fault is timed: they stand for no others, and are not above. */
	__u64 slept_minor;
	__u64 slept_minor_ns;
	__u64 part_ns[FAULTS_PARTS];        /* of major_ns, minor_ns and slept_minor_ns */
	__u64 hist[TRAP_BUCKETS];           /* time of each, see hist_bucket(); a minor one counts minor_weight times */
	__u64 major_hist[TRAP_BUCKETS / 4]; /* the same of major ones, by octave */
	__u64 major_over;                   /* those of them that would be in the last bucket */
	struct trap_extremes all;           /* under interval 0: since the trace began */
	struct trap_extremes recent;
};

/* One thread since the trace began (or since it was last retired, see retire()). */
struct faults_thread {
	__u64 start_ns; /* its start, CLOCK_MONOTONIC */
	__u32 pid;
	__u32 tid;
	__u64 cgroup;
	char comm[TRAP_COMM_LEN];
	__u64 process_start_ns; /* of its process: of the first thread */
	char process_comm[TRAP_COMM_LEN];
	__u32 forks;     /* processes that it forked, since this row begins */
	__u32 forked_by; /* of a process that was forked during the trace: by which; 0 if that is not known */
	struct faults_stats stats;
};

/* A file, a kind of memory or a stack: words whose meaning is the kind's. */
struct faults_group_key {
	__u64 word[4];
};

/* What faults are grouped by; what they are not grouped by is 0. */
struct faults_row_key {
	struct faults_group_key of;
	/* PID and TID, in the upper half, and the start time of the thread or process (TID is 0); or the cgroup. */
	__u64 whose[2];
	__u64 facts; /* FAULTS_FACTS() */
};

/* A process: whose steps are counted, or who made a group. */
struct faults_process {
	__u64 start_ns;
	__u32 pid;
	__u32 pad;
};

/* The faults of one key. */
struct faults_group {
	struct faults_stats stats;
	__u64 not_low; /* of what the kind ranges over (offsets in a file) the least, inverted: 0 if there is nothing */
	__u64 high;
	__u64 failed; /* faults that ended in a signal: the kernel's accounting, and so the rest, leaves them out */
	__u64 turn;   /* in which it was last used; 0: it is being made */
	struct faults_process owner; /* who made it */
	__u32 uid;                   /* whose process that is */
	__u32 pad;
};

/* What is mapped somewhere: the upper half of a key's first word; the lower half is the file system's device number. */
enum faults_area {
	FAULTS_AREA_UNKNOWN = 0,
	FAULTS_AREA_FILE = 1,
	FAULTS_AREA_ANON = 2,
	FAULTS_AREA_HEAP = 3,
	FAULTS_AREA_STACK = 4,
	FAULTS_AREA_SHMEM = 5,   /* on the kernel's own tmpfs: shared anonymous memory, memfd, System V */
	FAULTS_AREA_HUGETLB = 6, /* on the kernel's own hugetlbfs */
	FAULTS_AREA_OBJECT = 7,  /* on another file system that is mounted nowhere: anon_inode:[perf_event] */
	FAULTS_AREA_SPECIAL = 8, /* pages of the kernel's, such as the vDSO */
	FAULTS_AREA_OTHER = 9,   /* files of a process that has used up its share; words: its id, its start */
	FAULTS_AREA_OTHERS = 10, /* the same of a user's processes; word: the user */
};

/* faults_name.flags */
enum faults_name_flag {
	FAULTS_NAME_DELETED = 1,
	FAULTS_NAME_CUT = 2, /* truncated: what is nearest to the root is missing */
	FAULTS_NAME_READY = 4,
};

/* What a mapped file was called where it was first touched, by the process that did. */
struct faults_name {
	__u32 flags;
	__u32 length;               /* of the text */
	char text[FAULTS_NAME_LEN]; /* the names from the file up to the process's root, each with its NUL */
};

/* A stack's key: process, a moment at which it had this memory, the chain in user mode, the chain in the kernel. */
enum faults_chain_key {
	FAULTS_CHAIN_NONE = 0,  /* there is no call chain of this kind */
	FAULTS_CHAIN_LOST = 1,  /* there was no space for it */
	FAULTS_CHAIN_OTHER = 2, /* the process has used up its share */
	/* The same where the process's place in the key is 0, and behind it is its user. */
	FAULTS_CHAIN_OTHER_OF_USER = 3, /* the user's processes have used up their share */
	FAULTS_CHAIN_OTHER_FULL = 4,    /* the table is full */
};

#define FAULTS_CHAIN_COPIED (1ULL << 63) /* the stack was copied, under that key; hashes have 0 there */

/* Where calls return to, innermost first; the first is where the fault was. */
struct faults_chain {
	__u32 count;
	__u32 end;   /* UNWIND_END_* */
	__u64 check; /* another hash than its key */
	__u64 turn;  /* in which it was last used */
	__u64 ip[FAULTS_CHAIN_LEN];
};

/* rw of an event */
enum faults_rw {
	FAULTS_READ = 0,
	FAULTS_WRITE = 1,
	FAULTS_EXEC = 2,
	FAULTS_RW_UNKNOWN = 3,
};

/* page of an event: what the page table held before */
enum faults_page {
	FAULTS_PAGE_ABSENT = 0,  /* nothing the processor could use */
	FAULTS_PAGE_PRESENT = 1, /* a page that did not allow the access */
	FAULTS_PAGE_UNKNOWN = 2,
};

/* outcome of an event */
enum faults_outcome {
	FAULTS_MINOR = 0,
	FAULTS_MAJOR = 1,
	FAULTS_FAILED = 2, /* neither: it ended in a signal, and the kernel's accounting leaves it out */
};

/* What is known of a fault beside its time, in a word. What it means is decided by crates/model/src/faults/cause.rs. */
#define FAULTS_FACTS(memory, before, also) ((memory) | (before) << 8 | (also) << 16)

/* What the memory at the address is. */
enum faults_memory {
	FAULTS_MEMORY_UNKNOWN = 0,
	FAULTS_MEMORY_ANON = 1,
	FAULTS_MEMORY_FILE = 2,
	FAULTS_MEMORY_SHMEM = 3,
	FAULTS_MEMORY_HUGETLB = 4,
	FAULTS_MEMORY_DEVICE = 5,
};

/* What the page table held when the fault began. */
enum faults_before {
	FAULTS_BEFORE_UNKNOWN = 0,
	FAULTS_BEFORE_ABSENT = 1,
	FAULTS_BEFORE_SWAPPED = 2,
	FAULTS_BEFORE_MOVING = 3,
	FAULTS_BEFORE_HIDDEN = 4, /* a page that no access is allowed to */
	FAULTS_BEFORE_READ_ONLY = 5,
	FAULTS_BEFORE_THERE = 6,
};

/* What else holds. */
enum faults_also {
	FAULTS_ALSO_WRITE = 1,
	FAULTS_ALSO_SHARED = 2,
	FAULTS_ALSO_MISSING = 4,  /* a userfaultfd is asked for missing pages */
	FAULTS_ALSO_WATCHED = 8,  /* the memory is registered with a userfaultfd */
	FAULTS_ALSO_GUARDED = 16, /* the page table's entry says that a userfaultfd protects the page */
	FAULTS_ALSO_SLEPT = 32,
	FAULTS_ALSO_HUGE = 64, /* a huge page was put in */
	FAULTS_ALSO_MAJOR = 128,
	FAULTS_ALSO_SIGNAL = 256, /* it ended in a signal */
	FAULTS_ALSO_IO = 512,     /* the thread slept for I/O */
};

/* How to walk through page tables. */
struct faults_walk {
	__u64 base;   /* where the kernel maps physical memory */
	__u64 mask;   /* the physical address in an entry */
	__u64 levels; /* of tables: 4 or 5; 0: not known */
};

/* What is to be found out about that: a page of our own. */
struct faults_walk_ask {
	__u64 addr;
	__u64 frame; /* its physical address, in pages */
	__u64 mask;
	__u64 places; /* where physical memory may be mapped, 1 GiB apart */
};

/* One fault; or, with count > 1 or addr == FAULTS_NONE, faults that the variant could count but not see. */
struct faults_event {
	__u64 time_ns; /* of completion */
	__u64 start_ns;
	__u64 addr;
	__u64 ip;
	__u64 user_ip; /* where the thread was in user mode: the system call that faulted, if one did */
	__u64 latency_ns;
	__u64 process_start_ns; /* of its process */
	__u64 count;
	struct faults_group_key file; /* what is mapped there, 0 if that is not known */
	__u64 offset;                 /* in it */
	__u64 wait_ns;                /* asleep, of latency_ns */
	__u64 part_ns[FAULTS_PARTS];  /* of latency_ns */
	__u32 pid;
	__u32 tid;
	__u32 outcome;
	__u32 rw;
	__u32 cpu;
	__u32 page;
	__u32 facts; /* FAULTS_FACTS(), if causes are to be known */
	__u32 pad;
	char comm[TRAP_COMM_LEN];
	/* With FAULTS_RING_CAUSES, else 0: */
	char process_comm[TRAP_COMM_LEN];
	__u64 cgroup;
	__u64 stack; /* the number of its stack, see stack_id(); 0: there is none */
};

/* Whether the programs have run at all: some attach and are never called (function tracer or kprobes off). */
struct faults_alive {
	__u32 begins;
	__u32 ends;
};

/* Losses, each of which reaches the end record. */
struct faults_losses {
	__u64 events;             /* faults whose event the ring could not hold */
	__u64 unattributed_major; /* faults of threads that ended when `retired` was full */
	__u64 unattributed_minor;
	__u64 untracked;    /* threads for which there was no memory when they started */
	__u64 uncounted;    /* faults of processes for which there was no space to count steps */
	__u64 unpaired;     /* completions without an entry: counted, not timed */
	__u64 unattributed; /* faults for whose group there was no space */
	__u64 unexplained;  /* faults that are in no message of steps: the ring was full */
	__u64 over_quota; /* faults in the rows of others: their process or user had used up its share, or the table was
			     full */
};

#endif

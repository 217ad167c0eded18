/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* VM exits: what the kernel half reports to user space. Mirrored in crates/probe/src/abi/kvm.rs, compared by a test. */
#ifndef TRAPLINE_KVM_H
#define TRAPLINE_KVM_H

#include "trap.h"

enum kvm_none {
	KVM_ANY_VCPU = ~0u,
	KVM_NO_FIELD = ~0u, /* a field that the tracepoint does not have */
};

enum kvm_size {
	KVM_MAX_EXITS = 65536,
	KVM_MAX_THREADS = 8192, /* at a time */
	KVM_PHASES = 5,
	KVM_STACK_PAGES = 5,
	KVM_STACK = 5 * 4096, /* bytes of a stack that are copied, at most */
	KVM_STACKS = 1024,    /* two of each thread */
};

/* The tracepoints' own numbers, arch/x86/kvm/trace.h. */
enum kvm_isa {
	KVM_ISA_VMX = 1,
	KVM_ISA_SVM = 2,
};

/* kvm_config.sub: what an exit is counted under beside its reason. */
enum kvm_sub {
	KVM_SUB_NONE = 0,
	KVM_SUB_MSR = 1,
	KVM_SUB_PORT = 2,
	KVM_SUB_MMIO = 3,
	KVM_SUB_RIP = 4,
	KVM_SUB_RETURN = 5, /* why KVM returned to its VMM */
};

/* kvm_key.sub where KVM could not run the guest: with the error's number below this bit. */
enum kvm_return {
	KVM_RETURN_ERROR = 0x10000,
};

/* kvm_key.write */
enum kvm_write {
	KVM_READS = 0,
	KVM_WRITES = 1,
	KVM_NO_SUBJECT =
	    2, /* an exit that has no MSR, port or guest address: there is no such event of it, or not yet */
};

/* kvm_exits.undecided */
enum kvm_undecided {
	KVM_DECIDED = 0,
	KVM_UNDECIDED = 1, /* of L1 so far */
	KVM_UNDECIDED_L2 = 2,
};

/* kvm_config.choice: what the map `reasons` holds. */
enum kvm_choice {
	KVM_ALL_REASONS = 0,
	KVM_ONLY_THESE = 1,
	KVM_ALL_BUT_THESE = 2,
};

/* Where the tracepoints have their fields, bytes, as their `format` files say. */
struct kvm_offsets {
	__u32 reason;
	__u32 isa;
	__u32 vcpu;
	__u32 rip;
	__u32 sub;           /* of the tracepoint that `config.sub` is about: the MSR, the port, the guest address */
	__u32 write;         /* whether it is written; 4 bytes */
	__u32 fast;          /* of kvm_fast_mmio: the guest address */
	__u32 injected;      /* of kvm_nested_vmexit_inject: the exit that L1 gets */
	__u32 injected_info; /* and its interrupt information */
	__u32 returned;      /* of kvm_userspace_exit: why KVM returned to its VMM, and the error */
	__u32 returned_errno;
	__u32 pad;
};

struct kvm_config {
	__u64 slow_ns; /* exits that take at least this go to the ring; 0: none do */
	__u32 timed;   /* handling is timed: kvm_entry is attached */
	__u32 split;   /* and divided into phases */
	__u32 vcpu;    /* only this one, or KVM_ANY_VCPU */
	__u32 sub;
	__u32 choice;
	__u32 pad;
	struct kvm_offsets at;
};

/* The phases of an exit's handling; each moment belongs to one. */
enum kvm_phase {
	KVM_PHASE_KVM = 0,       /* KVM itself, on a processor */
	KVM_PHASE_VMM = 1,       /* the program that runs the guest, after KVM_RUN returned to it */
	KVM_PHASE_BLOCKED = 2,   /* asleep in KVM: halted, or waiting for something */
	KVM_PHASE_PREEMPTED = 3, /* could run, but something else did */
	KVM_PHASE_FAULT = 4,     /* a page fault of the host on the guest's behalf */
};

/* What exits are counted under. */
struct kvm_key {
	__u64 sub;    /* the MSR, port, guest address or instruction */
	__u32 thread; /* the serial number of the thread */
	__u32 vcpu;
	__u32 reason;
	__u32 write;
};

/* Exits of one level. */
struct kvm_level {
	__u64 timed; /* how many had their handling timed */
	__u64 ns;
	__u64 max_ns;
	__u64 min_inverted; /* all bits of the shortest time, inverted: 0 if none was timed */
	__u64 guest_ns;     /* from the last entry to the exit */
	__u64 reflected;    /* exits of L2 that were passed on to L1 */
	__u64 to_vmm;       /* exits that KVM could not handle by itself */
	__u64 phase_ns[KVM_PHASES];
	__u64 faults_major; /* of the host, on the guest's behalf */
	__u64 faults_minor;
	__u64 hist[TRAP_BUCKETS];
	struct trap_extremes recent;
};

/*
 * Exits of one key. Only their own thread writes them. They are written and read in such an order that a reader who
 * comes between never takes an exit of L2 for one of L1, nor counts one twice: those of L1 are count - l2_count -
 * moved, less one while the last is undecided, or for a moment fewer.
 */
struct kvm_exits {
	__u64 count;
	__u64 undecided; /* the last one may turn out to be of L2, or to have a subject */
	__u64 l2_count;
	__u64 moved;               /* exits that turned out to have a subject: they are counted under it */
	struct kvm_level level[2]; /* L1, L2 */
};

/* A thread that runs a vCPU. */
struct kvm_thread {
	__u64 start_ns; /* start times, CLOCK_MONOTONIC */
	__u64 process_start_ns;
	__u32 pid;
	__u32 tid;
	__u32 isa;
	__u32 ended;
};

/* One slow exit. */
struct kvm_event {
	__u64 time_ns; /* of the next entry */
	__u64 latency_ns;
	__u64 rip;
	__u32 pid;
	__u32 tid;
	__u32 vcpu;
	__u32 isa;
	__u32 reason;
	__u32 level;
	__u32 stack; /* enum kvm_stack_at */
	__u32 pad;
};

/* Of which moment a stack is. */
enum kvm_stack_at {
	KVM_STACK_NONE = 0, /* KVM handled the exit itself */
	KVM_STACK_LOST = 1, /* there was no space */
	KVM_STACK_RUN = 2,  /* the call of KVM_RUN after the exit */
	KVM_STACK_ASLEEP = 3,
	KVM_STACK_PREEMPTED = 4,
};

/* The same with a stack, told from the other by its length: behind it is the stack from the stack pointer on. */
struct kvm_stacked {
	struct kvm_event event;
	__u64 away_ns; /* the thread was off its processor there */
	__u64 ip;
	__u64 sp;
	__u64 bp;
};

/* Losses, each of which reaches the end record. */
struct kvm_losses {
	__u64 events;    /* slow exits that the ring could not hold */
	__u64 uncounted; /* exits for whose key there was no room */
	__u64 untracked; /* exits of threads, and processes, for which there was no memory */
	__u64 unseen;    /* returns of KVM to its VMM on threads that have shown no exit */
	__u64 stacks;    /* slow exits for whose stack there was no space */
};

#endif

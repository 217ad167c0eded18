/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel half of kvm keeps: the open exit of each thread, and what was counted. */
#ifndef TRAPLINE_KVM_SLOT_BPF_H
#define TRAPLINE_KVM_SLOT_BPF_H

#include "trap.bpf.h"
#include "recent.bpf.h"
#include "kvm.h"

/* Whether an object takes the stacks of slow exits. */
#ifndef STACKS
#define STACKS 0
#endif

const volatile struct kvm_config config SEC(".rodata.config") = {};
struct kvm_losses losses SEC(".bss.losses") = {};
volatile struct trap_control control SEC(".data.control") = {};
/* The first value of a key. */
const struct kvm_exits nothing SEC(".rodata.nothing") = {};

/* What programs of classic tracepoints return: after 0 the kernel keeps the event from perf. */
#define LET_OTHERS_SEE 1

/* Where the order matters to a reader; see struct kvm_exits. */
#define WRITE(to, value) (*(volatile typeof(to) *)&(to) = (value))

/* A field of a tracepoint's record. */
static __always_inline u64 tracepoint_field(void *ctx, u32 at, u32 size)
{
	u64 value = 0;

	if (at != KVM_NO_FIELD)
		bpf_probe_read_kernel(&value, size, ctx + at);
	return value;
}

/* The exit that a thread is handling. */
struct slot {
	struct kvm_key key; /* key.thread stays; the rest is of the last exit */
	u64 exit_ns;
	u64 enter_ns; /* 0: not in the guest, or not known since when */
	u64 guest_ns; /* the time in the guest before the exit */
	u64 rip;
	u32 isa;
	u32 open;    /* between kvm_exit and kvm_entry */
	u32 level;   /* 1: of L2 */
	u32 counted; /* under `key` */
	u32 awaits;  /* counted as an exit without subject: one may follow */
	u32 to_vmm;
	u32 reflected;
	u32 phase;       /* what is going on since mark_ns */
	u32 interrupted; /* what was going on before the thread left its processor */
	u32 pad;
	u64 mark_ns;
	u64 phase_ns[KVM_PHASES];
	u64 major; /* task->maj_flt at the exit; from the return to the VMM on, faults since then */
	u64 minor;
#if STACKS
	u64 left_ns; /* since then the thread is off its processor; 0: it is not */
	u64 away_ns; /* the longest such time of the exit */
	u32 half;    /* which of the thread's two stacks is of that time */
	u32 stack;   /* what it is: enum kvm_stack_at */
	u32 leaving; /* what the other will be */
	u32 pad2;
#endif
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct slot);
} slots SEC(".maps");

/* By key; user space removes those of threads that ended. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KVM_MAX_EXITS);
	__type(key, struct kvm_key);
	__type(value, struct kvm_exits);
} exits SEC(".maps");

/* By serial number; user space removes those that ended. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KVM_MAX_THREADS);
	__type(key, u32);
	__type(value, struct kvm_thread);
} vcpu_threads SEC(".maps");

/* The reasons that are chosen or left out: isa in the upper half, reason in the lower. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u8);
} reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* user space sets the real size */
} events SEC(".maps");

SHARED(struct kvm_event);
SHARED(enum kvm_none);
SHARED(enum kvm_size);
SHARED(enum kvm_isa);
SHARED(enum kvm_sub);
SHARED(enum kvm_return);
SHARED(enum kvm_write);
SHARED(enum kvm_undecided);
SHARED(enum kvm_choice);
SHARED(enum kvm_phase);

static u32 thread_serial;

static __always_inline struct slot *slot_of(struct task_struct *task)
{
	return bpf_task_storage_get(&slots, task, 0, 0);
}

/* The slot of a thread that is seen for the first time, if the filter wants it. */
static __always_inline struct slot *adopt(struct task_struct *task, u32 isa)
{
	struct kvm_thread thread = {};
	struct slot *slot;
	u32 serial;

	if (!fixed_filter_wants(task))
		return NULL;
	slot = bpf_task_storage_get(&slots, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!slot)
		goto lost;
	serial = __sync_fetch_and_add(&thread_serial, 1);
	thread.start_ns = task->start_time;
	thread.process_start_ns = BPF_CORE_READ(task, group_leader, start_time);
	thread.pid = pid_of(task);
	thread.tid = tid_of(task);
	thread.isa = isa;
	slot->key.thread = serial;
	if (bpf_map_update_elem(&vcpu_threads, &serial, &thread, BPF_NOEXIST)) {
		bpf_task_storage_delete(&slots, task);
		goto lost;
	}
	return slot;
lost:
	add(&losses.untracked, 1);
	return NULL;
}

static __always_inline bool reason_is_wanted(u32 isa, u32 reason)
{
	u64 key = (u64)isa << 32 | (isa == KVM_ISA_VMX ? reason & 0xffff : reason);

	if (config.choice == KVM_ALL_REASONS)
		return true;
	return !bpf_map_lookup_elem(&reasons, &key) == (config.choice == KVM_ALL_BUT_THESE);
}

/* `level_is_known`: kvm_nested_vmexit has come, or will not. */
static __always_inline void count(struct slot *slot, bool level_is_known)
{
	struct kvm_exits *of = lookup_or_init(&exits, &slot->key, &nothing);

	if (!of) {
		add(&losses.uncounted, 1);
		return;
	}
	slot->counted = 1;
	if (slot->level) {
		WRITE(of->l2_count, of->l2_count + 1);
		WRITE(of->count, of->count + 1);
		return;
	}
	if (!level_is_known)
		WRITE(of->undecided, KVM_UNDECIDED);
	WRITE(of->count, of->count + 1);
}

/* The open exit is of L2. */
static __always_inline void belongs_to_l2(struct slot *slot)
{
	struct kvm_exits *of;

	slot->level = 1;
	if (!slot->counted)
		return;
	of = bpf_map_lookup_elem(&exits, &slot->key);
	if (!of)
		return;
	if (slot->awaits) {
		WRITE(of->undecided, KVM_UNDECIDED_L2);
		return;
	}
	WRITE(of->l2_count, of->l2_count + 1);
	WRITE(of->undecided, KVM_DECIDED);
}

/* Nothing more is to be learned of the open exit. */
static __always_inline struct kvm_exits *decide(struct slot *slot)
{
	struct kvm_exits *of;

	if (!slot->counted)
		return NULL;
	of = bpf_map_lookup_elem(&exits, &slot->key);
	if (!of)
		return NULL;
	if (of->undecided == KVM_UNDECIDED_L2)
		WRITE(of->l2_count, of->l2_count + 1);
	WRITE(of->undecided, KVM_DECIDED);
	of->level[slot->level & 1].guest_ns += slot->guest_ns;
	return of;
}

/* The open exit turns out to have a subject: what it was counted under is not its key. */
static __always_inline void withdraw(struct slot *slot)
{
	struct kvm_exits *of = bpf_map_lookup_elem(&exits, &slot->key);

	if (of) {
		WRITE(of->moved, of->moved + 1);
		WRITE(of->undecided, KVM_DECIDED);
	}
	slot->counted = slot->awaits = 0;
}

#endif

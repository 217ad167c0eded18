// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * VM exits. On the thread of a vCPU the kernel's tracepoints come in this order:
 *
 *   kvm_exit, [kvm_nested_vmexit, [kvm_nested_vmexit_inject]], ..., [kvm_userspace_exit], ..., kvm_entry
 *
 * An exit is counted at kvm_exit, so that the last one before a vCPU ends is not lost, and belongs to L2 when
 * kvm_nested_vmexit follows. It is timed at the next kvm_entry, which closes it: an entry without an exit times
 * nothing, and an exit without an entry is counted and not timed. The variants differ in how the fields of kvm_exit
 * are found: by the kernel's types (core), or by the tracepoint's own description of its format (format).
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "compat.bpf.h"
#include "trap.bpf.h"
#include "kvm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct kvm_config config SEC(".rodata.config") = {};
struct kvm_losses losses SEC(".bss.losses") = {};
/* The first value of a key. */
const struct kvm_exits nothing SEC(".rodata.nothing") = {};

/* What programs of classic tracepoints return: after 0 the kernel keeps the event from perf. */
#define LET_OTHERS_SEE 1

/* Where the order matters to a reader; see struct kvm_exits. */
#define WRITE(to, value) (*(volatile typeof(to) *)&(to) = (value))

/* The exit that a thread is handling. */
struct slot {
	struct kvm_key key; /* key.thread stays; the rest is of the last exit */
	u64 exit_ns;
	u64 rip;
	u32 isa;
	u32 open;    /* between kvm_exit and kvm_entry */
	u32 level;   /* 1: of L2 */
	u32 counted; /* under `key` */
	u32 to_vmm;
	u32 reflected;
	u32 phase;       /* what is going on since mark_ns */
	u32 interrupted; /* what was going on before the thread left its processor */
	u64 mark_ns;
	u64 phase_ns[KVM_PHASES];
	u64 major; /* task->maj_flt at the exit; from the return to the VMM on, faults since then */
	u64 minor;
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

/* Names the type, so that the object's BTF holds it. */
const struct kvm_event *event_type __attribute__((unused));

static u32 thread_serial;
static volatile u64 epoch; /* the number of the running interval */

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

	if (filter.by && !fixed_filter_wants(task))
		return NULL;
	slot = bpf_task_storage_get(&slots, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!slot)
		goto lost;
	serial = __sync_fetch_and_add(&thread_serial, 1);
	thread.start_ns = task->start_time;
	thread.process_start_ns = task->group_leader->start_time;
	thread.pid = task->tgid;
	thread.tid = task->pid;
	thread.isa = isa;
	slot->key.thread = serial;
	if (bpf_map_update_elem(&vcpu_threads, &serial, &thread, BPF_NOEXIST)) {
		bpf_task_storage_delete(&slots, task);
		goto lost;
	}
	return slot;
lost:
	__sync_fetch_and_add(&losses.untracked, 1);
	return NULL;
}

static __always_inline bool reason_is_wanted(u32 isa, u32 reason)
{
	u64 key = (u64)isa << 32 | (isa == KVM_ISA_VMX ? reason & 0xffff : reason);

	if (config.choice == KVM_ALL_REASONS)
		return true;
	return !bpf_map_lookup_elem(&reasons, &key) == (config.choice == KVM_ALL_BUT_THESE);
}

static __always_inline void count(struct slot *slot)
{
	struct kvm_exits *of = bpf_map_lookup_elem(&exits, &slot->key);

	if (!of) {
		bpf_map_update_elem(&exits, &slot->key, &nothing, BPF_NOEXIST);
		of = bpf_map_lookup_elem(&exits, &slot->key);
	}
	if (!of) {
		__sync_fetch_and_add(&losses.uncounted, 1);
		return;
	}
	slot->counted = 1;
	if (slot->level) {
		WRITE(of->l2_count, of->l2_count + 1);
		WRITE(of->count, of->count + 1);
		return;
	}
	WRITE(of->undecided, 1);
	WRITE(of->count, of->count + 1);
}

/* ---- the phases of an exit's handling ---- */

static __always_inline void phase_ends(struct slot *slot, u64 now)
{
	u32 phase = slot->phase;

	/* A program may be preempted between reading the clock and coming here, and `switched` have come first. */
	if (now <= slot->mark_ns)
		return;
	if (phase < KVM_PHASES)
		slot->phase_ns[phase] += now - slot->mark_ns;
	slot->mark_ns = now;
}

static __always_inline void enter_phase(struct slot *slot, u32 phase)
{
	phase_ends(slot, bpf_ktime_get_ns());
	slot->phase = phase;
}

static __always_inline void first_phase(struct slot *slot, struct task_struct *task)
{
	slot->phase = KVM_PHASE_KVM;
	slot->mark_ns = slot->exit_ns;
	__builtin_memset(slot->phase_ns, 0, sizeof(slot->phase_ns));
	slot->major = task->maj_flt;
	slot->minor = task->min_flt;
}

/* The kernel's own account of the faults since the exit. */
static __always_inline void settle_faults(struct slot *slot, struct task_struct *task)
{
	slot->major = task->maj_flt - slot->major;
	slot->minor = task->min_flt - slot->minor;
}

static __always_inline void last_phase(struct slot *slot, struct kvm_level *level, u64 now)
{
	phase_ends(slot, now);
	if (!slot->to_vmm)
		settle_faults(slot, bpf_get_current_task_btf());
	for (int i = 0; i < KVM_PHASES; i++)
		level->phase_ns[i] += slot->phase_ns[i];
	level->faults_major += slot->major;
	level->faults_minor += slot->minor;
	level->to_vmm += slot->to_vmm;
	level->reflected += slot->reflected;
}

SEC("?tp/kvm/kvm_userspace_exit")
int returned_to_vmm(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct slot *slot = slot_of(task);

	if (slot && slot->open && !slot->to_vmm) {
		enter_phase(slot, KVM_PHASE_VMM);
		settle_faults(slot, task);
		slot->to_vmm = 1;
	}
	return LET_OTHERS_SEE;
}

SEC("?tp_btf/sched_switch")
int BPF_PROG(switched, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct slot *slot = slot_of(prev);

	if (slot && slot->open) {
		slot->interrupted = slot->phase;
		if (task_is_runnable(prev))
			enter_phase(slot, KVM_PHASE_PREEMPTED);
		else if (slot->phase == KVM_PHASE_KVM)
			enter_phase(slot, KVM_PHASE_BLOCKED);
	}
	slot = slot_of(next);
	if (slot && slot->open)
		enter_phase(slot, slot->interrupted);
	return 0;
}

static __always_inline int fault(u32 from, u32 to)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());

	if (slot && slot->open && slot->phase == from)
		enter_phase(slot, to);
	return 0;
}

SEC("?fentry/handle_mm_fault")
int BPF_PROG(fault_fentry_begin)
{
	return fault(KVM_PHASE_KVM, KVM_PHASE_FAULT);
}

SEC("?fexit/handle_mm_fault")
int BPF_PROG(fault_fentry_end)
{
	return fault(KVM_PHASE_FAULT, KVM_PHASE_KVM);
}

SEC("?kprobe/handle_mm_fault")
int fault_kprobe_begin(void *ctx)
{
	return fault(KVM_PHASE_KVM, KVM_PHASE_FAULT);
}

SEC("?kretprobe/handle_mm_fault")
int fault_kprobe_end(void *ctx)
{
	return fault(KVM_PHASE_FAULT, KVM_PHASE_KVM);
}

/* ---- the life of an exit ---- */

static __always_inline int exit_begins(u32 reason, u32 isa, u32 vcpu, u64 rip)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct slot *slot = slot_of(task);

	if (!slot) {
		slot = adopt(task, isa);
		if (!slot)
			return LET_OTHERS_SEE;
	}
	slot->open = 0;
	if (config.vcpu != KVM_ANY_VCPU && config.vcpu != vcpu)
		return LET_OTHERS_SEE;
	if (!reason_is_wanted(isa, reason))
		return LET_OTHERS_SEE;
	if ((filter.by & (TRAP_BY_COMM | TRAP_BY_CGROUP)) && !moving_filter_wants(task, task->comm))
		return LET_OTHERS_SEE;
	slot->key.reason = reason;
	slot->key.vcpu = vcpu;
	slot->isa = isa;
	slot->rip = rip;
	slot->level = slot->counted = slot->to_vmm = slot->reflected = 0;
	if (config.sub == KVM_SUB_RIP)
		slot->key.sub = rip;
	if (config.sub == KVM_SUB_NONE || config.sub == KVM_SUB_RIP)
		count(slot);
	if (config.timed)
		slot->exit_ns = bpf_ktime_get_ns();
	if (config.split)
		first_phase(slot, task);
	slot->open = 1;
	return LET_OTHERS_SEE;
}

SEC("?tp/kvm/kvm_exit")
int core_exit(struct trace_event_raw_kvm_exit *ctx)
{
	return exit_begins(ctx->exit_reason, ctx->isa, ctx->vcpu_id, ctx->guest_rip);
}

static __always_inline u64 field(void *ctx, u32 at, u32 size)
{
	u64 value = 0;

	if (at != KVM_NO_FIELD)
		bpf_probe_read_kernel(&value, size, ctx + at);
	return value;
}

SEC("?tp/kvm/kvm_exit")
int format_exit(void *ctx)
{
	return exit_begins(field(ctx, config.at.reason, 4), field(ctx, config.at.isa, 4), field(ctx, config.at.vcpu, 4),
			   field(ctx, config.at.rip, 8));
}

SEC("?tp/kvm/kvm_nested_vmexit")
int nested(void *ctx)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());
	struct kvm_exits *of;

	if (!slot || !slot->open || slot->level)
		return LET_OTHERS_SEE;
	slot->level = 1;
	if (!slot->counted)
		return LET_OTHERS_SEE;
	of = bpf_map_lookup_elem(&exits, &slot->key);
	if (of) {
		WRITE(of->l2_count, of->l2_count + 1);
		WRITE(of->undecided, 0);
	}
	return LET_OTHERS_SEE;
}

SEC("?tp/kvm/kvm_nested_vmexit_inject")
int reflected(void *ctx)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());

	if (slot && slot->open && slot->level)
		slot->reflected = 1;
	return LET_OTHERS_SEE;
}

/* What the exit was about: an exit is counted under the first MSR, port or guest address that it touches. */
static __always_inline int subject(void *ctx, u32 size)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());
	u32 write = field(ctx, config.at.write, 4);

	if (!slot || !slot->open || slot->counted)
		return LET_OTHERS_SEE;
	slot->key.sub = field(ctx, config.at.sub, size);
	/* kvm_mmio: 0 and 1 are two sorts of reads, 2 is a write. */
	slot->key.write = config.sub == KVM_SUB_MMIO ? write == 2 : write != 0;
	count(slot);
	return LET_OTHERS_SEE;
}

SEC("?tp/kvm/kvm_msr")
int subject_msr(void *ctx)
{
	return subject(ctx, 4);
}

SEC("?tp/kvm/kvm_pio")
int subject_port(void *ctx)
{
	return subject(ctx, 4);
}

SEC("?tp/kvm/kvm_mmio")
int subject_mmio(void *ctx)
{
	return subject(ctx, 8);
}

static __always_inline void send(struct slot *slot, u64 now, u64 ns)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct kvm_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		__sync_fetch_and_add(&losses.events, 1);
		return;
	}
	e->time_ns = now;
	e->latency_ns = ns;
	e->rip = slot->rip;
	e->pid = task->tgid;
	e->tid = task->pid;
	e->vcpu = slot->key.vcpu;
	e->isa = slot->isa;
	e->reason = slot->key.reason;
	e->level = slot->level;
	bpf_ringbuf_submit(e, 0);
}

SEC("?tp/kvm/kvm_entry")
int entry(void *ctx)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());
	struct kvm_exits *of;
	struct kvm_level *level;
	u64 now, ns, running = epoch;
	u32 recent = running & 1;

	if (!slot || !slot->open)
		return LET_OTHERS_SEE;
	slot->open = 0;
	now = bpf_ktime_get_ns();
	if (!slot->counted)
		return LET_OTHERS_SEE;
	of = bpf_map_lookup_elem(&exits, &slot->key);
	if (!of)
		return LET_OTHERS_SEE;
	WRITE(of->undecided, 0);
	ns = now - slot->exit_ns;
	level = &of->level[slot->level & 1];
	level->timed++;
	level->ns += ns;
	level->hist[hist_bucket(ns) & (TRAP_BUCKETS - 1)]++;
	if (ns > level->max_ns)
		level->max_ns = ns;
	if (level->epoch[recent] != running || ns > level->recent[recent]) {
		level->epoch[recent] = running;
		level->recent[recent] = ns;
	}
	if (config.split)
		last_phase(slot, level, now);
	if (config.slow_ns && ns >= config.slow_ns)
		send(slot, now, ns);
	return LET_OTHERS_SEE;
}

/* ---- threads and processes ---- */

/* With a command: its descendants are meant too. */
SEC("?tp_btf/sched_process_fork")
int BPF_PROG(process_born, struct task_struct *parent, struct task_struct *child)
{
	u32 of = parent->tgid, pid = child->tgid;
	u8 wanted = 1;

	if (of != pid && bpf_map_lookup_elem(&pids, &of))
		bpf_map_update_elem(&pids, &pid, &wanted, BPF_ANY);
	return 0;
}

SEC("?tp_btf/sched_process_free")
int BPF_PROG(process_freed, struct task_struct *task)
{
	u32 pid = task->tgid;

	if (task->pid == task->tgid)
		bpf_map_delete_elem(&pids, &pid);
	return 0;
}

/* Its last exit, if it is open, was counted; nothing more comes under its keys. */
SEC("?tp_btf/sched_process_exit")
int BPF_PROG(thread_ends, struct task_struct *task)
{
	struct slot *slot = slot_of(task);
	struct kvm_thread *thread;
	u32 serial;

	if (!slot)
		return 0;
	slot->open = 0;
	serial = slot->key.thread;
	thread = bpf_map_lookup_elem(&vcpu_threads, &serial);
	if (thread)
		thread->ended = 1;
	return 0;
}

/*
 * ---- reading ----
 *
 * By iterators: while a system call reads a map, no program of a classic tracepoint runs on its processor, and on a
 * kernel that preempts such a call a vCPU's exits would be missed there.
 */

static __always_inline int show(struct bpf_iter__bpf_map_elem *ctx, u32 key_size, u32 value_size, bool next)
{
	struct bpf_iter_meta *meta = ctx->meta;
	void *key = ctx->key, *value = ctx->value;

	if (!key || !value)
		return 0;
	if (next && meta->seq_num == 0)
		epoch++;
	bpf_seq_write(meta->seq, key, key_size);
	bpf_seq_write(meta->seq, value, value_size);
	return 0;
}

SEC("?iter/bpf_map_elem")
int threads_read(struct bpf_iter__bpf_map_elem *ctx)
{
	return show(ctx, sizeof(u32), sizeof(struct kvm_thread), false);
}

SEC("?iter/bpf_map_elem")
int exits_read(struct bpf_iter__bpf_map_elem *ctx)
{
	return show(ctx, sizeof(struct kvm_key), sizeof(struct kvm_exits), false);
}

/* The same, and the next interval begins. */
SEC("?iter/bpf_map_elem")
int exits_interval(struct bpf_iter__bpf_map_elem *ctx)
{
	return show(ctx, sizeof(struct kvm_key), sizeof(struct kvm_exits), true);
}

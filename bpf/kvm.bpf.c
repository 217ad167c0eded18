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
#include "kvm_phase.bpf.h"
#include "kvm_read.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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
	u64 now, ns, interval = epoch;

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
	raise_recent(level->recent, interval, ns, false);
	if (ns > level->max_ns)
		level->max_ns = ns;
	barrier();
	level->timed++;
	level->ns += ns;
	level->hist[hist_bucket(ns) & (TRAP_BUCKETS - 1)]++;
	barrier();
	if (epoch != interval)
		raise_recent(level->recent, epoch, ns, false);
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

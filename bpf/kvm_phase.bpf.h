/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The phases of an exit's handling, for --split. */
#ifndef TRAPLINE_KVM_PHASE_BPF_H
#define TRAPLINE_KVM_PHASE_BPF_H

#include "kvm_slot.bpf.h"

static __always_inline void phase_ends(struct slot *slot, u64 now)
{
	u32 phase = slot->phase;

	/* A program may be preempted between reading the clock and coming here, and `on_sched_switch` have come first.
	 */
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

/* KVM_EXIT_INTR, include/uapi/linux/kvm.h: a signal came. */
#define RETURNED_FOR_A_SIGNAL 10

/*
 * On a thread that has shown no exit: KVM ran the guest by means that fire no kvm_exit (PVM), or an exit has been open
 * since before the trace. Where nothing is counted, this tells that something ran all the same.
 */
static __always_inline void ran_unseen(void *ctx, struct task_struct *task)
{
	if (tracepoint_field(ctx, config.at.returned_errno, 4) ||
	    tracepoint_field(ctx, config.at.returned, 4) == RETURNED_FOR_A_SIGNAL)
		return;
	if (filter.by && !fixed_filter_wants(task))
		return;
	if ((filter.by & TRAP_BY_MOVING) && !moving_filter_wants(task, task->comm))
		return;
	add(&losses.unseen, 1);
}

SEC("?tp/kvm/kvm_userspace_exit")
int on_vmm_return(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct slot *slot = slot_of(task);

	if (!slot) {
		ran_unseen(ctx, task);
		return LET_OTHERS_SEE;
	}
	if ((config.split || STACKS) && slot->open && !slot->to_vmm) {
		if (config.split) {
			enter_phase(slot, KVM_PHASE_VMM);
			settle_faults(slot, task);
		}
		slot->to_vmm = 1;
	}
	return LET_OTHERS_SEE;
}

SEC("?tp_btf/sched_switch")
int BPF_PROG(on_sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
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

static __always_inline int on_host_fault(u32 from, u32 to)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());

	if (slot && slot->open && slot->phase == from)
		enter_phase(slot, to);
	return 0;
}

SEC("?fentry/handle_mm_fault")
int BPF_PROG(fault_fentry_begin)
{
	return on_host_fault(KVM_PHASE_KVM, KVM_PHASE_FAULT);
}

SEC("?fexit/handle_mm_fault")
int BPF_PROG(fault_fentry_end)
{
	return on_host_fault(KVM_PHASE_FAULT, KVM_PHASE_KVM);
}

SEC("?kprobe/handle_mm_fault")
int fault_kprobe_begin(void *ctx)
{
	return on_host_fault(KVM_PHASE_KVM, KVM_PHASE_FAULT);
}

SEC("?kretprobe/handle_mm_fault")
int fault_kprobe_end(void *ctx)
{
	return on_host_fault(KVM_PHASE_FAULT, KVM_PHASE_KVM);
}

#endif

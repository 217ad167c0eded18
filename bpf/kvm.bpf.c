// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * VM exits. On the thread of a vCPU the kernel's tracepoints come in this order:
 *
 *   kvm_exit, [kvm_nested_vmexit, [kvm_nested_vmexit_inject]], ..., [kvm_userspace_exit], ..., kvm_entry
 *
 * An exit is counted at kvm_exit, so that the last one before a vCPU ends is not lost, and belongs to L2 when
 * kvm_nested_vmexit follows. Where exits are counted by MSR, port or guest address, it is one without, until an event
 * tells that it has one. It is timed at the next kvm_entry, which closes it: an entry without an exit times
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
#include "kvm_stack.bpf.h"
#include "descendants.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Exits that are the host's whatever L1 wants: see Intel's manual, volume 3, appendix C, and AMD's, volume 2, appendix
 * C.
 */
#define VMX_BASIC              0xffffu
#define VMX_EXCEPTION_NMI      0u
#define VMX_EXTERNAL_INTERRUPT 1u
#define VMX_INTERRUPT_TYPE     0x700u
#define VMX_INTERRUPT_IS_NMI   0x200u
#define SVM_INTERRUPT          0x60u
#define SVM_NMI                0x61u

static __always_inline int on_exit_to_host(u32 reason, u32 isa, u32 vcpu, u64 rip)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct slot *slot = slot_of(task);

	if (!slot) {
		slot = adopt(task, isa);
		if (!slot)
			return LET_OTHERS_SEE;
	}
	/* No entry followed: none is looked at, or KVM went back into the guest by itself (VMX, 5.10). */
	if (slot->open && (slot->awaits || config.timed))
		decide(slot);
	slot->open = 0;
	if (config.timed) {
		slot->exit_ns = bpf_ktime_get_ns();
		slot->guest_ns = slot->enter_ns ? slot->exit_ns - slot->enter_ns : 0;
		slot->enter_ns = 0;
	}
	if (config.vcpu != KVM_ANY_VCPU && config.vcpu != vcpu)
		return LET_OTHERS_SEE;
	if (!reason_is_wanted(isa, reason))
		return LET_OTHERS_SEE;
	if ((filter.by & TRAP_BY_MOVING) && !moving_filter_wants(task, task->comm))
		return LET_OTHERS_SEE;
	slot->key.reason = reason;
	slot->key.vcpu = vcpu;
	slot->isa = isa;
	slot->rip = rip;
	slot->level = slot->counted = slot->to_vmm = slot->reflected = 0;
	slot->awaits = config.sub != KVM_SUB_NONE && config.sub != KVM_SUB_RIP;
	slot->key.sub = config.sub == KVM_SUB_RIP ? rip : 0;
	slot->key.write = slot->awaits ? KVM_NO_SUBJECT : 0;
	count(slot, false);
	if (config.split)
		first_phase(slot, task);
#if STACKS
	no_stack_yet(slot);
#endif
	slot->open = 1;
	return LET_OTHERS_SEE;
}

SEC("?tp/kvm/kvm_exit")
int core_exit(struct trace_event_raw_kvm_exit *ctx)
{
	return on_exit_to_host(ctx->exit_reason, ctx->isa, ctx->vcpu_id, ctx->guest_rip);
}

SEC("?tp/kvm/kvm_exit")
int format_exit(void *ctx)
{
	return on_exit_to_host(tracepoint_field(ctx, config.at.reason, 4), tracepoint_field(ctx, config.at.isa, 4),
			       tracepoint_field(ctx, config.at.vcpu, 4), tracepoint_field(ctx, config.at.rip, 8));
}

static __always_inline int on_nested_exit(void)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());

	if (slot && slot->open && !slot->level)
		belongs_to_l2(slot);
	return LET_OTHERS_SEE;
}

SEC("?tp/kvm/kvm_nested_vmexit")
int nested_exit(void *ctx)
{
	return on_nested_exit();
}

/*
 * Whether an exit of L2 is the host's own whatever L1 wants: interrupts and NMIs of the host's devices. What L1 gets
 * under the same code later is another interrupt, that the host made for it.
 */
static __always_inline bool is_for_the_host(struct slot *slot, u32 info)
{
	if (slot->isa != KVM_ISA_VMX)
		return slot->key.reason == SVM_INTERRUPT || slot->key.reason == SVM_NMI;
	switch (slot->key.reason & VMX_BASIC) {
	case VMX_EXTERNAL_INTERRUPT:
		return true;
	case VMX_EXCEPTION_NMI:
		return (info & VMX_INTERRUPT_TYPE) == VMX_INTERRUPT_IS_NMI;
	}
	return false;
}

/*
 * L1 gets an exit of L2. It may be the open one, or another that the host made while it handled the open one: to leave
 * L2 for an SMI (nested_svm_simple_vmexit() in arch/x86/kvm/svm/svm.c), an interrupt, a triple fault.
 */
SEC("?tp/kvm/kvm_nested_vmexit_inject")
int on_reflected(void *ctx)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());
	u32 code = tracepoint_field(ctx, config.at.injected, 4);

	if (!slot || !slot->open || !slot->level)
		return LET_OTHERS_SEE;
	code ^= slot->key.reason;
	if (slot->isa == KVM_ISA_VMX)
		code &= VMX_BASIC;
	if (!code && !is_for_the_host(slot, tracepoint_field(ctx, config.at.injected_info, 4)))
		slot->reflected = 1;
	return LET_OTHERS_SEE;
}

/* What the exit was about: an exit is counted under the first MSR, port or guest address that it touches. */
static __always_inline int on_subject(u64 what, bool write)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());

	if (!slot || !slot->open || !slot->counted || !slot->awaits)
		return LET_OTHERS_SEE;
	withdraw(slot);
	slot->key.sub = what;
	slot->key.write = write;
	count(slot, true);
	return LET_OTHERS_SEE;
}

SEC("?tp/kvm/kvm_msr")
int subject_msr(void *ctx)
{
	return on_subject(tracepoint_field(ctx, config.at.sub, 4), tracepoint_field(ctx, config.at.write, 4));
}

SEC("?tp/kvm/kvm_pio")
int subject_port(void *ctx)
{
	return on_subject(tracepoint_field(ctx, config.at.sub, 4), tracepoint_field(ctx, config.at.write, 4));
}

SEC("?tp/kvm/kvm_mmio")
int subject_mmio(void *ctx)
{
	/* 0 and 1 are two kinds of reads, 2 is a write. */
	return on_subject(tracepoint_field(ctx, config.at.sub, 8), tracepoint_field(ctx, config.at.write, 4) == 2);
}

/* A write to a device that KVM hands on as an event (ioeventfd) without a look at the instruction: VMX. */
SEC("?tp/kvm/kvm_fast_mmio")
int subject_fast_mmio(void *ctx)
{
	return on_subject(tracepoint_field(ctx, config.at.fast, 8), true);
}

SEC("?tp/kvm/kvm_userspace_exit")
int subject_return(void *ctx)
{
	int error = tracepoint_field(ctx, config.at.write, 4);

	return on_subject(error < 0 ? KVM_RETURN_ERROR - error : tracepoint_field(ctx, config.at.sub, 4), false);
}

static __always_inline void describe_slow(struct slot *slot, struct task_struct *task, u64 now, u64 ns,
					  struct kvm_event *e)
{
	e->time_ns = now;
	e->latency_ns = ns;
	e->rip = slot->rip;
	e->pid = pid_of(task);
	e->tid = tid_of(task);
	e->vcpu = slot->key.vcpu;
	e->isa = slot->isa;
	e->reason = slot->key.reason;
	e->level = slot->level;
	e->stack = KVM_STACK_NONE;
	e->pad = 0;
}

static __always_inline void send_slow(struct slot *slot, u64 now, u64 ns)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct kvm_event *e;

#if STACKS
	struct kvm_stack *stack = stack_of_exit(slot, task);

	if (stack) {
		describe_slow(slot, task, now, ns, &stack->head.event);
		send_stack(slot, stack);
		return;
	}
#endif
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		add(&losses.events, 1);
		return;
	}
	describe_slow(slot, task, now, ns, e);
#if STACKS
	e->stack = slot->stack;
#endif
	bpf_ringbuf_submit(e, 0);
}

static __always_inline int on_guest_enter(void)
{
	struct slot *slot = slot_of(bpf_get_current_task_btf());
	struct kvm_exits *of;
	struct kvm_level *level;
	u64 now, ns, interval = control.epoch;

	if (!slot)
		return LET_OTHERS_SEE;
	now = slot->enter_ns = bpf_ktime_get_ns();
	if (!slot->open)
		return LET_OTHERS_SEE;
	slot->open = 0;
	of = decide(slot);
	if (!of)
		return LET_OTHERS_SEE;
	ns = now - slot->exit_ns;
	level = &of->level[slot->level & 1];
	raise_extremes(&level->recent, interval, ns, false);
	if (ns > level->max_ns)
		level->max_ns = ns;
	if (~ns > level->min_inverted)
		level->min_inverted = ~ns;
	barrier();
	level->timed++;
	level->ns += ns;
	level->hist[hist_bucket(ns) & (TRAP_BUCKETS - 1)]++;
	barrier();
	if (control.epoch != interval)
		raise_extremes(&level->recent, control.epoch, ns, false);
	if (config.split)
		last_phase(slot, level, now);
	if (config.slow_ns && ns >= config.slow_ns)
		send_slow(slot, now, ns);
	return LET_OTHERS_SEE;
}

SEC("?tp/kvm/kvm_entry")
int guest_entry(void *ctx)
{
	return on_guest_enter();
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
#if STACKS
	drop_stacks(serial);
#endif
	thread = bpf_map_lookup_elem(&vcpu_threads, &serial);
	if (thread)
		thread->ended = 1;
	return 0;
}

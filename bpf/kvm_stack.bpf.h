/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where the VMM was while it handled a slow exit. When the exit is over, its thread is back in KVM_RUN: so the stack is
 * copied each time that the thread leaves its processor after KVM has returned to it, and the copy of the longest such
 * time is kept. Of a handler that never leaves its processor there is none: then it is that of the call of KVM_RUN.
 */
#ifndef TRAPLINE_KVM_STACK_BPF_H
#define TRAPLINE_KVM_STACK_BPF_H

#include "kvm_slot.bpf.h"

#if STACKS

SHARED(struct kvm_stacked);
SHARED(enum kvm_stack_at);

struct kvm_stack_key {
	u32 thread;
	u32 half;
};

struct kvm_stack {
	u64 bytes;
	struct kvm_stacked head;
	u8 of[KVM_STACK];
};

/* Two of each thread: the best so far, and one that may become it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, struct kvm_stack_key);
	__type(value, struct kvm_stack);
} stacks SEC(".maps");

const struct kvm_stack empty_stack SEC(".rodata.empty_stack") = {};

#define STACK_PAGE 4096UL

/* As much as is there: page by page, as some may be swapped out, and what follows the stack may not be mapped. */
static __always_inline u64 copy_pages(struct kvm_stack *to, u64 sp)
{
	u64 bytes = STACK_PAGE - (sp & (STACK_PAGE - 1));

	if (bpf_probe_read_user(to->of, bytes, (void *)sp))
		return 0;
	for (int page = 1; page < KVM_STACK_PAGES; page++) {
		if (bpf_probe_read_user(to->of + bytes, STACK_PAGE, (void *)sp + bytes))
			break;
		bytes += STACK_PAGE;
	}
	return bytes;
}

/* Copies the stack of the current thread, into one of its two. */
static __always_inline struct kvm_stack *copy_stack(struct slot *slot, struct task_struct *task, u32 half)
{
	struct kvm_stack_key key = {.thread = slot->key.thread, .half = half & 1};
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct kvm_stack *to = lookup_or_init(&stacks, &key, &empty_stack);
	u64 first;

	if (!to)
		return NULL;
	to->head.ip = regs->ip;
	to->head.sp = regs->sp;
	to->head.bp = regs->bp;
	to->bytes = copy_pages(to, regs->sp);
	/* Behind where the program began are its arguments and its environment. */
	first = BPF_CORE_READ(task, mm, start_stack) - regs->sp;
	if (first < to->bytes)
		to->bytes = first;
	return to;
}

static __always_inline void no_stack_yet(struct slot *slot)
{
	slot->left_ns = slot->away_ns = 0;
	slot->stack = KVM_STACK_NONE;
}

static __always_inline void vmm_leaves_processor(struct slot *slot, struct task_struct *task)
{
	if (!copy_stack(slot, task, slot->half ^ 1)) {
		if (!slot->stack)
			slot->stack = KVM_STACK_LOST;
		return;
	}
	slot->leaving = task_is_runnable(task) ? KVM_STACK_PREEMPTED : KVM_STACK_ASLEEP;
	slot->left_ns = bpf_ktime_get_ns();
}

static __always_inline void vmm_comes_back(struct slot *slot)
{
	u64 ns = bpf_ktime_get_ns() - slot->left_ns;

	slot->left_ns = 0;
	if (ns <= slot->away_ns)
		return;
	slot->away_ns = ns;
	slot->half ^= 1;
	slot->stack = slot->leaving;
}

SEC("?tp_btf/sched_switch")
int BPF_PROG(vmm_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct slot *slot = slot_of(prev);

	if (slot && slot->open && slot->to_vmm)
		vmm_leaves_processor(slot, prev);
	slot = slot_of(next);
	if (slot && slot->open && slot->left_ns)
		vmm_comes_back(slot);
	return 0;
}

/* At the entry that ends a slow exit. */
static __always_inline struct kvm_stack *stack_of_exit(struct slot *slot, struct task_struct *task)
{
	struct kvm_stack_key key = {.thread = slot->key.thread, .half = slot->half & 1};
	struct kvm_stack *stack;

	if (!slot->to_vmm)
		return NULL;
	if (slot->away_ns)
		return bpf_map_lookup_elem(&stacks, &key);
	stack = copy_stack(slot, task, slot->half);
	slot->stack = stack ? KVM_STACK_RUN : KVM_STACK_LOST;
	if (!stack)
		add(&losses.stacks, 1);
	return stack;
}

static __always_inline void send_stack(struct slot *slot, struct kvm_stack *stack)
{
	u64 bytes = stack->bytes;

	stack->head.event.stack = slot->stack;
	stack->head.away_ns = slot->away_ns;
	if (bytes > KVM_STACK)
		bytes = KVM_STACK;
	if (bpf_ringbuf_output(&events, &stack->head, sizeof(stack->head) + bytes, 0))
		add(&losses.events, 1);
}

/* Of a thread that has ended. */
static __always_inline void drop_stacks(u32 thread)
{
	struct kvm_stack_key key = {.thread = thread};

	bpf_map_delete_elem(&stacks, &key);
	key.half = 1;
	bpf_map_delete_elem(&stacks, &key);
}

#endif

#endif

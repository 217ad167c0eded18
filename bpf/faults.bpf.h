/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Page faults. Counts are never our own: a thread's row is task->maj_flt/min_flt less their values at the start, so
 * it equals what getrusage says on every variant, faults on a thread's behalf (GUP) included. A fault's time runs from
 * the exception to its completion: waiting for the lock of the address space comes before handle_mm_fault, and is in
 * it. The variants differ in what they see of that: the exception, and handle_mm_fault's return (fentry, kprobe), which
 * alone there is for a fault without an exception; the exception, and the software event of the accounting
 * (tracepoint); or nothing (counters).
 *
 * Every object has this. Programs are loaded in the order in which they stand: an object includes what a variant may be
 * refused for first, and then what follows threads (faults_life.bpf.h).
 */
#ifndef TRAPLINE_FAULTS_BPF_H
#define TRAPLINE_FAULTS_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "compat.bpf.h"
#include "faults_thread.bpf.h"
#include "faults_group.bpf.h"
#include "faults_step.bpf.h"
#include "faults_parts.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* ---- the life of a fault ---- */

/* Written once, so that the line stays clean. */
static __always_inline void mark_alive(u32 *flag)
{
	if (!*flag)
		*flag = 1;
}

static __always_inline void fault_begins(struct tracked *t, struct task_struct *task, u64 addr, u64 ns)
{
	t->open_addr = addr;
	t->retrying = 0;
	t->began_ns = ns;
	t->open_ns = ns;
	mark_faulting(task);
}

/* What only verbose events have. */
static __always_inline void describe_fault(struct tracked *t, u64 ip, u32 rw, u32 page)
{
	t->open_ip = ip;
	t->open_rw = rw;
	t->open_page = page;
}

static __always_inline void fault_ends(void *ctx, struct tracked *t, struct task_struct *task, bool major)
{
	u64 ns;
	u32 facts;

	/* First, so that whoever takes the processor from here on adds nothing to its parts. */
	t->open_ns = 0;
	barrier();
	ns = bpf_ktime_get_ns() - t->began_ns;
	facts = KNOWS_CAUSES ? cause_facts(t, task, major) : 0;
	t->owes = exceeds_high(task) ? OWES_ONE | (major ? OWES_MAJOR : 0) : 0;
	if (!GROUPED)
		time_fault(t, major, ns);
	if (each_matters() && unseen(t, task, major, !major)) {
		/* First: what is shown of it has the number of its stack. */
		group_fault(ctx, t, task, major, ns, facts);
		if (SENDS_FAULTS)
			show_fault(t, task, major ? FAULTS_MAJOR : FAULTS_MINOR, ns, facts);
	}
	count_steps(t, task);
	count_time(t, task, ns, has_slept(t) ? t->parts.wait_ns : 0, has_slept(t), false);
	if (t->owes) {
		t->owes_ns = ns;
		expects_more(t);
	}
}

/*
 * A fault is over whose thread has no slot: if it was under way when counting began, the kernel counted it after that
 * moment, and so do we. Nobody saw its beginning. With `adopted` such a thread is not wanted.
 */
static __always_inline struct tracked *adopt_late(struct task_struct *task, bool major)
{
	struct tracked *t = control.adopted ? NULL : wanted_thread(task);

	if (!t || task->start_time >= control.began_ns)
		return t;
	/* A pass that came to the thread before the kernel counted the fault has not counted it in. */
	if (major && t->base_major == task->maj_flt) {
		t->base_major--;
		t->seen_major--;
	} else if (!major && t->base_minor == task->min_flt) {
		t->base_minor--;
		t->seen_minor--;
	}
	return t;
}

#define PF_PROT  (1u << 0) /* arch/x86/include/asm/trap_pf.h */
#define PF_WRITE (1u << 1)
#define PF_INSTR (1u << 4)

/* How an exception's error code says that the memory was touched. */
static __always_inline u32 error_rw(unsigned long error)
{
	return error & PF_INSTR ? FAULTS_EXEC : error & PF_WRITE ? FAULTS_WRITE : FAULTS_READ;
}

/* ---- variant tracepoint: exception to accounting ---- */

static __always_inline int on_exception(unsigned long addr, struct pt_regs *regs, unsigned long error, bool in_kernel)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t;

	mark_alive(&alive.begins);
	if ((s64)addr < 0) /* the kernel's own memory: no page fault in the sense of the accounting */
		return 0;
	t = wanted_thread(task);
	if (!t)
		return 0;
	end_unseen(t, task);
	show_late(t, task);
	t->open_faults = faults_of(task);
	if (KNOWS_CAUSES)
		cause_begins(t, task, FIELD(task, mm), addr, error & PF_WRITE);
	if (SENDS_FAULTS)
		describe_fault(t, regs->ip, error_rw(error),
			       error & PF_PROT ? FAULTS_PAGE_PRESENT : FAULTS_PAGE_ABSENT);
	t->open_in_kernel = in_kernel;
	t->handled = 1;
	fault_begins(t, task, addr, bpf_ktime_get_ns());
	return 0;
}

SEC("?tp_btf/page_fault_user")
int BPF_PROG(tracepoint_user, unsigned long addr, struct pt_regs *regs, unsigned long error)
{
	return on_exception(addr, regs, error, false);
}

/*
 * Where the kernel does without (page faults are disabled: it walks a stack, or copies with a lock held) the exception
 * is not handled as a fault, and is none. It may come in the middle of one: of another program that walks stacks.
 */
SEC("?tp_btf/page_fault_kernel")
int BPF_PROG(tracepoint_kernel, unsigned long addr, struct pt_regs *regs, unsigned long error)
{
	if (bpf_get_current_task_btf()->pagefault_disabled)
		return 0;
	return on_exception(addr, regs, error, true);
}

static __always_inline int on_accounting(struct bpf_perf_event_data *ctx, bool major)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t;

	t = bpf_task_storage_get(&threads, task, 0, 0);
	mark_alive(&alive.ends);
	if (!t)
		t = adopt_late(task, major);
	if (!t || t->unwanted)
		return 0;
	if (t->open_ns && t->open_addr == ctx->addr) {
		/* It is still locked, and the pages' area is what it was when the fault was handled. */
		if (KNOWS_CAUSES || KNOWS_FILES)
			group_sees(t, task, FIELD(task, mm), NULL, ctx->addr);
		fault_ends(ctx, t, task, major);
	} else {
		add(&losses.unpaired, 1);
	}
	return 0;
}

SEC("?perf_event")
int tracepoint_major(struct bpf_perf_event_data *ctx)
{
	return on_accounting(ctx, true);
}

SEC("?perf_event")
int tracepoint_minor(struct bpf_perf_event_data *ctx)
{
	return on_accounting(ctx, false);
}

/* ---- variants fentry and kprobe: handle_mm_fault, and before it the exception ---- */

/* When the fault began that is to be handled. Without registers it is for somebody else (GUP), and has no exception. */
static __always_inline u64 began_ns(struct tracked *t, unsigned long addr, struct pt_regs *regs)
{
	u64 ns = t->exception_ns;

	if (!regs || !ns || t->exception_addr != addr)
		return bpf_ktime_get_ns();
	t->exception_ns = 0;
	return ns;
}

#define FAULT_FLAG_WRITE       0x1 /* include/linux/mm_types.h: values never moved */
#define FAULT_FLAG_INSTRUCTION 0x100
#define FAULT_FLAG_UNSHARE     0x400 /* 6.0+: a reader that needs a copy of its own */

static __always_inline int on_fault_enter(struct vm_area_struct *vma, unsigned long addr, u32 flags,
					  struct pt_regs *regs)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = wanted_thread(task);
	struct mm_struct *mm;

	mark_alive(&alive.begins);
	if (!t)
		return 0;
	t->handled = 1;
	if (t->retrying && t->open_addr == addr) {
		t->retrying = 0;
		return 0;
	}
	show_late(t, task);
	if (each_matters())
		unseen(t, task, 0, 0);
	else
		catch_up(t, task);
	if (SENDS_FAULTS)
		describe_fault(t, regs ? BPF_PROBE_READ(regs, ip) : FAULTS_NONE,
			       flags & FAULT_FLAG_INSTRUCTION ? FAULTS_EXEC
			       : flags & FAULT_FLAG_WRITE     ? FAULTS_WRITE
							      : FAULTS_READ,
			       FAULTS_PAGE_UNKNOWN);
	if (KNOWS_CAUSES || KNOWS_FILES) {
		mm = FIELD(vma, vm_mm);
		if (KNOWS_CAUSES)
			cause_begins(t, task, mm, addr, flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE));
		group_sees(t, task, mm, vma, addr);
	}
	if (GROUPED_BY(STACK))
		t->open_in_kernel = !regs || !(BPF_PROBE_READ(regs, cs) & 3);
	fault_begins(t, task, addr, began_ns(t, addr, regs));
	return 0;
}

/* What the kernel counts: neither to be taken up again, nor failed. */
static __always_inline bool is_complete(u32 ret)
{
	return !(ret & (VM_FAULT_RETRY | VM_FAULT_ERROR));
}

static __always_inline int on_fault_return(void *ctx, u32 ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t;

	t = bpf_task_storage_get(&threads, task, 0, 0);
	mark_alive(&alive.ends);
	if (!t && is_complete(ret) && adopt_late(task, ret & VM_FAULT_MAJOR))
		add(&losses.unpaired, 1);
	if (!t)
		return 0;
	t->handled = 0;
	if (t->unwanted || !t->open_ns)
		return 0;
	if (ret & VM_FAULT_RETRY) {
		t->retrying = 1;
		return 0;
	}
	/* The kernel has done its accounting by now: the counter that moved says what the fault was. */
	if (task->maj_flt != t->seen_major)
		fault_ends(ctx, t, task, true);
	else if (task->min_flt != t->seen_minor)
		fault_ends(ctx, t, task, false);
	t->open_ns = 0;
	return 0;
}

SEC("?fentry/handle_mm_fault")
int BPF_PROG(fentry_begin, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs)
{
	return on_fault_enter(vma, addr, flags, regs);
}

SEC("?fexit/handle_mm_fault")
int BPF_PROG(fentry_end, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs,
	     u32 ret)
{
	return on_fault_return(ctx, ret);
}

SEC("?kprobe/handle_mm_fault")
int BPF_KPROBE(kprobe_begin, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs)
{
	return on_fault_enter(vma, addr, flags, regs);
}

SEC("?kretprobe/handle_mm_fault")
int BPF_KRETPROBE(kprobe_end, u32 ret)
{
	return on_fault_return(ctx, ret);
}

/* One program for both ends, where the kernel has sessions (6.10). */
SEC("?kprobe.session/handle_mm_fault")
int kprobe_session(struct pt_regs *ctx)
{
	if (session_returns(ctx))
		return on_fault_return(ctx, PT_REGS_RC(ctx));
	return on_fault_enter((struct vm_area_struct *)PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx),
			      (struct pt_regs *)PT_REGS_PARM4(ctx));
}

#endif

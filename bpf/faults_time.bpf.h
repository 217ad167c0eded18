/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a fault's time is made of beside its handling. On x86 there is a tracepoint for the exception, which comes
 * before the lock of the address space is waited for.
 */
#ifndef TRAPLINE_FAULTS_TIME_BPF_H
#define TRAPLINE_FAULTS_TIME_BPF_H

#include "faults_parts.bpf.h"
#include "faults_group.bpf.h"
#include "faults_step.bpf.h"

/*
 * It may never become a fault: it ends in a signal, or the kernel has a way around it. Then the thread's next exception
 * takes its place.
 */
static __always_inline int on_exception_before(unsigned long addr)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t;

	if ((s64)addr < 0)
		return 0;
	t = bpf_task_storage_get(&threads, task, 0, 0);
	if (!t)
		return 0;
	show_late(t, task);
	t->open_ns = 0; /* one that is to be taken up again was left for a signal */
	t->retrying = 0;
	t->handled = 0;
	t->exception_addr = addr;
	t->exception_ns = bpf_ktime_get_ns();
	mark_faulting(task);
	return 0;
}

SEC("?tp_btf/page_fault_user")
int BPF_PROG(exception_user, unsigned long addr)
{
	return on_exception_before(addr);
}

SEC("?tp_btf/page_fault_kernel")
int BPF_PROG(exception_kernel, unsigned long addr)
{
	if (bpf_get_current_task_btf()->pagefault_disabled)
		return 0;
	return on_exception_before(addr);
}

/* ---- the thread leaves its processor, and comes back ---- */

#define AWAY 512

/* How many threads are off their processors in a fault, or were when they were last seen: never less. By their ids. */
static u64 away[AWAY];

static __always_inline u64 *away_like(struct task_struct *task)
{
	return &away[task->pid & (AWAY - 1)];
}

/* The parts of the fault that began then. */
static __always_inline struct fault_parts *parts_of_fault(struct tracked *t, u64 began_ns)
{
	if (t->parts.of != began_ns) {
		__builtin_memset(&t->parts, 0, sizeof(t->parts));
		t->parts.of = began_ns;
	}
	return &t->parts;
}

/* The parts of the fault that the thread is in, NULL if it is in none. */
static __always_inline struct fault_parts *parts_of(struct tracked *t)
{
	u64 of = t->open_ns ?: t->exception_ns;

	return of ? parts_of_fault(t, of) : NULL;
}

static __always_inline u32 part_of(struct tracked *t, struct task_struct *task, bool could_run)
{
	if (could_run)
		return FAULTS_PART_PREEMPTED;
	if (BPF_CORE_READ_BITFIELD(task, in_iowait))
		return FAULTS_PART_IO;
	if (!t->handled)
		return FAULTS_PART_LOCK;
	if (is_throttled(task))
		return FAULTS_PART_THROTTLED;
	return FAULTS_PART_SLEEP;
}

/*
 * A fault is over, and before the thread is back in user mode it may wait for what that took beyond memory.high. Any
 * other sleep shows that it was let go.
 */
static __always_inline struct fault_parts *still_owes(struct tracked *t, struct task_struct *task)
{
	if (!is_throttled(task)) {
		t->owes = 0;
		show_late(t, task);
	}
	if (!t->owes || BPF_CORE_READ_BITFIELD(task, in_iowait)) /* it reclaims memory there, too */
		return NULL;
	if (has_slept(t))
		t->owes |= OWES_SLEPT;
	return &t->parts;
}

/* The thread has waited for memory.high after its last fault. */
static __always_inline void pay_to(struct tracked *t, struct faults_stats *stats, u64 ns, bool shared)
{
	u64 *total = t->owes & OWES_MAJOR  ? &stats->major_ns
		     : config.minor_unseen ? &stats->slept_minor_ns
					   : &stats->minor_ns;

	stats_longer(stats, t->owes_ns, &control.epoch, shared);
	grow(total, ns, shared);
	grow(&stats->part_ns[FAULTS_PART_THROTTLED], ns, shared);
	grow(&stats->wait_ns, ns, shared);
	if (!(t->owes & OWES_SLEPT))
		grow(&stats->waits, 1, shared);
}

static __always_inline void pay(struct tracked *t, struct task_struct *task, u64 ns)
{
	struct faults_group *group = NULL;

	t->owes_ns += ns;
	if (GROUPED) {
		struct faults_row_key key = t->owing;

		group = group_there(&key);
		pay_to(t, group ? &group->stats : rest_of(t), ns, true);
	} else {
		pay_to(t, &t->row.stats, ns, false);
	}
	count_time(t, task, ns, ns, !(t->owes & OWES_SLEPT), true);
	if (SENDS_FAULTS && t->late_ns) {
		struct fault_parts *parts = parts_of_fault(t, t->began_ns);

		parts->slept = 1;
		parts->wait_ns += ns;
		parts->part_ns[FAULTS_PART_THROTTLED] += ns;
		t->late_ns += ns;
		show_late(t, task);
	}
	t->owes |= OWES_SLEPT;
}

static __always_inline void leaves_processor(struct task_struct *task, bool preempted)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);
	struct fault_parts *parts;
	bool could_run;

	if (!t)
		return;
	end_unseen(t, task);
	could_run = preempted || task_is_runnable(task);
	parts = parts_of(t);
	if (parts)
		t->owes = 0;
	else if (t->owes && !could_run)
		parts = still_owes(t, task);
	if (!parts && !t->owes)
		return;
	t->is_away = 1;
	add(away_like(task), 1);
	if (!parts)
		return;
	parts->off_ns = bpf_ktime_get_ns();
	parts->off_part = part_of(t, task, could_run);
}

static __always_inline void returns_to_processor(struct task_struct *task, pid_t *here)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);
	struct fault_parts *parts;
	u64 now, ns;
	u32 part;

	if (!t || !t->is_away)
		return;
	t->is_away = 0;
	add(away_like(task), -1);
	*here = task->pid;
	parts = &t->parts;
	if (!parts->off_ns)
		return;
	now = bpf_ktime_get_ns();
	ns = now - parts->off_ns;
	part = parts->off_part;
	parts->off_ns = 0;
	parts->back_ns = now;
	if (t->owes) {
		pay(t, task, ns);
		return;
	}
	if (part != FAULTS_PART_PREEMPTED) {
		parts->slept = 1;
		parts->wait_ns += ns;
	}
	if (!parts->reclaiming && part < FAULTS_PARTS)
		parts->part_ns[part] += ns;
}

SEC("?tp_btf/sched_switch")
int BPF_PROG(processor_switches, bool preempted, struct task_struct *prev, struct task_struct *next)
{
	pid_t *here = faulting_here();

	if (!here)
		return 0;
	/* Idle processors have tasks, too, whose id is 0. */
	if (*here == prev->pid && prev->pid) {
		*here = 0;
		leaves_processor(prev, preempted);
	}
	if (*away_like(next) && next->pid)
		returns_to_processor(next, here);
	return 0;
}

/* ---- memory is reclaimed: with --split ---- */

static __always_inline int reclaim_begins(void)
{
	struct tracked *t = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
	struct fault_parts *parts = t ? parts_of(t) : NULL;

	if (parts && !parts->reclaiming++)
		parts->reclaim_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int reclaim_ends(void)
{
	struct tracked *t = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
	struct fault_parts *parts = t ? parts_of(t) : NULL;

	if (parts && parts->reclaiming && !--parts->reclaiming)
		parts->part_ns[FAULTS_PART_RECLAIM] += bpf_ktime_get_ns() - parts->reclaim_ns;
	return 0;
}

SEC("?tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(reclaim_direct_begin)
{
	return reclaim_begins();
}

SEC("?tp_btf/mm_vmscan_direct_reclaim_end")
int BPF_PROG(reclaim_direct_end)
{
	return reclaim_ends();
}

SEC("?tp_btf/mm_vmscan_memcg_reclaim_begin")
int BPF_PROG(reclaim_cgroup_begin)
{
	return reclaim_begins();
}

SEC("?tp_btf/mm_vmscan_memcg_reclaim_end")
int BPF_PROG(reclaim_cgroup_end)
{
	return reclaim_ends();
}

SEC("?tp_btf/mm_compaction_begin")
int BPF_PROG(reclaim_compaction_begin)
{
	return reclaim_begins();
}

SEC("?tp_btf/mm_compaction_end")
int BPF_PROG(reclaim_compaction_end)
{
	return reclaim_ends();
}

/* ---- the lock of the address space, where handle_mm_fault is not seen: with --split ---- */

static __always_inline int sets_handled(u32 handled)
{
	struct tracked *t = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);

	if (t && t->open_ns)
		t->handled = handled;
	return 0;
}

SEC("?tp_btf/mmap_lock_start_locking")
int BPF_PROG(lock_begin)
{
	return sets_handled(0);
}

SEC("?tp_btf/mmap_lock_acquire_returned")
int BPF_PROG(lock_end)
{
	return sets_handled(1);
}

#endif

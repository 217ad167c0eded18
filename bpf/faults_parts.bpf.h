/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a fault's time is spent on beside the kernel's work: the thread is off its processor, or reclaims memory. Most
 * faults have none of it, and pay for one comparison.
 */
#ifndef TRAPLINE_FAULTS_PARTS_BPF_H
#define TRAPLINE_FAULTS_PARTS_BPF_H

#include "faults_thread.bpf.h"

enum owes {
	OWES_ONE = 1,
	OWES_MAJOR = 2,
	OWES_SLEPT = 4, /* the fault is among those in which the thread slept */
};

/*
 * The thread that has begun a fault on a processor since it came there, or came there in one: who leaves a processor
 * and is not that thread is in none. Written last when a fault begins, and so before the thread can sleep in it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, pid_t);
} faulting SEC(".maps");

static __always_inline pid_t *faulting_here(void)
{
	u32 only = 0;

	return bpf_map_lookup_elem(&faulting, &only);
}

static __always_inline void mark_faulting(struct task_struct *task)
{
	pid_t *who = faulting_here();

	barrier();
	if (who)
		*who = task->pid;
}

static __always_inline u64 faults_of(struct task_struct *task)
{
	return task->maj_flt + task->min_flt;
}

/* A thread's own fault, complete. */
static __always_inline void time_fault(struct tracked *t, bool major, u64 ns)
{
	struct faults_stats *stats = &t->row.stats;
	bool alone = !major && config.minor_unseen && has_slept(t);

	stats_time(stats, major, ns, config.minor_weight, alone, &control.epoch, false);
	if (has_parts(t))
		stats_parts(stats, &t->parts, false);
}

/*
 * Where not every minor fault's completion is seen, one in which the thread slept is timed all the same: until it came
 * back to its processor, as nothing tells of the microsecond or two from there on. Not only the thread does that: the
 * last pass may be first.
 */
static __always_inline void end_unseen(struct tracked *t, struct task_struct *task)
{
	u64 open = t->open_ns, ns;
	bool slept;

	if (!config.minor_unseen || !open || t->open_faults == faults_of(task))
		return;
	slept = has_slept(t);
	ns = t->parts.back_ns - open;
	if (__sync_val_compare_and_swap(&t->open_ns, open, 0) == open && slept)
		time_fault(t, false, ns);
}

#endif

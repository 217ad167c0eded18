/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a fault's time enters the figures: a thread's, which only it changes, or a group's, which many change at once. */
#ifndef TRAPLINE_FAULTS_STATS_BPF_H
#define TRAPLINE_FAULTS_STATS_BPF_H

#include "trap.bpf.h"
#include "recent.bpf.h"
#include "faults.h"

/* In pieces: of one as large the compiler makes a call, and there is nobody to answer it. */
static __always_inline void clear_stats(struct faults_stats *stats)
{
	__builtin_memset(stats->hist, 0, sizeof(stats->hist));
	barrier();
	__builtin_memset(stats, 0, __builtin_offsetof(struct faults_stats, hist));
	__builtin_memset(stats->major_hist, 0, sizeof(stats->major_hist));
	stats->major_over = 0;
	__builtin_memset(&stats->all, 0, sizeof(stats->all));
	__builtin_memset(&stats->recent, 0, sizeof(stats->recent));
}

static __always_inline void grow(u64 *counter, u64 n, bool shared)
{
	if (shared)
		add(counter, n);
	else
		*counter += n;
}

/* The shortest time stands there as what it lacks to the longest that there is, so that 0 is nothing in both. */
/* A fault that is timed for itself alone stands for no other; see slept_minor. */
static __always_inline void stats_time(struct faults_stats *stats, bool major, u64 ns, u32 minor_weight, bool alone,
				       const volatile u64 *running, bool shared)
{
	u32 bucket = hist_bucket(ns) & (TRAP_BUCKETS - 1);
	u64 interval = *running;

	raise_extremes(&stats->recent, interval, ns, shared);
	raise_extremes(&stats->all, 0, ns, shared);
	barrier();
	if (major) {
		grow(&stats->timed_major, 1, shared);
		grow(&stats->major_ns, ns, shared);
		grow(bucket == TRAP_BUCKETS - 1 ? &stats->major_over : &stats->major_hist[bucket / 4], 1, shared);
	} else if (alone) {
		grow(&stats->slept_minor, 1, shared);
		grow(&stats->slept_minor_ns, ns, shared);
	} else {
		grow(&stats->timed_minor, 1, shared);
		grow(&stats->minor_ns, ns, shared);
	}
	grow(&stats->hist[bucket], major || alone ? 1 : minor_weight, shared);
	barrier();
	if (*running != interval)
		raise_extremes(&stats->recent, *running, ns, shared);
}

/* A fault that has been counted took longer than was known then. */
static __always_inline void stats_longer(struct faults_stats *stats, u64 ns, const volatile u64 *running, bool shared)
{
	raise_recent(stats->recent.max, *running, ns, shared);
	raise_recent(stats->all.max, 0, ns, shared);
}

/* What of a fault's time the thread was not at work, if it was so at all. */
struct fault_parts {
	u64 of; /* the fault: when it began. What stands here of another one is not valid */
	u64 wait_ns;
	u64 part_ns[FAULTS_PARTS];
	u64 off_ns;     /* since when it is off the processor; 0: it is not */
	u32 off_part;   /* FAULTS_PART_* */
	u32 reclaiming; /* how many functions that reclaim memory it is in */
	u64 reclaim_ns; /* since when */
	u64 back_ns;    /* when it last came back to the processor */
	u32 slept;
	u32 pad;
};

static __always_inline void stats_parts(struct faults_stats *stats, const struct fault_parts *parts, bool shared)
{
	if (parts->slept)
		grow(&stats->waits, 1, shared);
	grow(&stats->wait_ns, parts->wait_ns, shared);
	for (u32 i = 0; i < FAULTS_PARTS; i++)
		if (parts->part_ns[i])
			grow(&stats->part_ns[i], parts->part_ns[i], shared);
}

#endif

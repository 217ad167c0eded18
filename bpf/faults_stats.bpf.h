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
static __always_inline void stats_extremes(struct faults_extremes *of, u64 interval, u64 ns, bool shared)
{
	raise_recent(of->max, interval, ns, shared);
	raise_recent(of->min, interval, ns < LONGEST_TIME ? LONGEST_TIME - ns : 0, shared);
}

static __always_inline void stats_time(struct faults_stats *stats, bool major, u64 ns, u32 minor_weight,
				       const volatile u64 *running, bool shared)
{
	u32 bucket = hist_bucket(ns) & (TRAP_BUCKETS - 1);
	u64 interval = *running;

	stats_extremes(&stats->recent, interval, ns, shared);
	stats_extremes(&stats->all, 0, ns, shared);
	barrier();
	if (major) {
		grow(&stats->timed_major, 1, shared);
		grow(&stats->major_ns, ns, shared);
		grow(&stats->hist[bucket], 1, shared);
	} else {
		grow(&stats->timed_minor, 1, shared);
		grow(&stats->minor_ns, ns, shared);
		grow(&stats->hist[bucket], minor_weight, shared);
	}
	barrier();
	if (*running != interval)
		stats_extremes(&stats->recent, *running, ns, shared);
}

#endif

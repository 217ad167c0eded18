/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a fault's time enters the figures: a thread's, which only it changes, or a group's, which many change at once. */
#ifndef TRAPLINE_FAULTS_STATS_BPF_H
#define TRAPLINE_FAULTS_STATS_BPF_H

#include "trap.bpf.h"
#include "recent.bpf.h"
#include "faults.h"

static __always_inline void add(u64 *counter, u64 n)
{
	__sync_fetch_and_add(counter, n);
}

static __always_inline void clear_stats(struct faults_stats *stats)
{
	stats->major = stats->minor = 0;
	stats->timed_major = stats->timed_minor = 0;
	stats->major_ns = stats->minor_ns = 0;
	stats->max_ns = 0;
	stats->min_ns = FAULTS_NONE;
	__builtin_memset(&stats->recent, 0, sizeof(stats->recent));
	__builtin_memset(stats->hist, 0, sizeof(stats->hist));
}

static __always_inline void grow(u64 *counter, u64 n, bool shared)
{
	if (shared)
		add(counter, n);
	else
		*counter += n;
}

static __always_inline void lower(u64 *least, u64 value, bool shared)
{
	if (!shared) {
		if (value < *least)
			*least = value;
		return;
	}
	for (int i = 0; i < RAISE_TRIES; i++) {
		u64 now = *(volatile u64 *)least;

		if (value >= now || __sync_val_compare_and_swap(least, now, value) == now)
			return;
	}
}

/* The shortest time stands there as what it lacks to the longest that there is, so that 0 is nothing in both. */
static __always_inline u64 short_of_longest(u64 ns)
{
	return ns < LONGEST_TIME ? LONGEST_TIME - ns : 0;
}

static __always_inline void stats_recent(struct faults_extremes *recent, u64 interval, u64 ns, bool shared)
{
	raise_recent(recent->max, interval, ns, shared);
	raise_recent(recent->min, interval, short_of_longest(ns), shared);
}

static __always_inline void stats_time(struct faults_stats *stats, bool major, u64 ns, u32 minor_weight,
				       const volatile u64 *running, bool shared)
{
	u32 bucket = hist_bucket(ns) & (TRAP_BUCKETS - 1);
	u64 interval = *running;

	stats_recent(&stats->recent, interval, ns, shared);
	raise(&stats->max_ns, ns, shared);
	lower(&stats->min_ns, ns, shared);
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
		stats_recent(&stats->recent, *running, ns, shared);
}

#endif

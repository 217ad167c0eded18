/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a fault's time enters the figures: a thread's, which only it changes, or a group's, which many change at once. */
#ifndef TRAPLINE_FAULTS_STATS_BPF_H
#define TRAPLINE_FAULTS_STATS_BPF_H

#include "trap.bpf.h"
#include "faults.h"

/* Whose writes go on while others write the same figures: each gives up after so many others came first. */
#define STATS_TRIES 16

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
	__builtin_memset(stats->recent, 0, sizeof(stats->recent));
	__builtin_memset(stats->hist, 0, sizeof(stats->hist));
}

static __always_inline void grow(u64 *counter, u64 n, bool shared)
{
	if (shared)
		add(counter, n);
	else
		*counter += n;
}

static __always_inline void raise(u64 *most, u64 value, bool shared)
{
	if (!shared) {
		if (value > *most)
			*most = value;
		return;
	}
	for (int i = 0; i < STATS_TRIES; i++) {
		u64 now = *(volatile u64 *)most;

		if (value <= now || __sync_val_compare_and_swap(most, now, value) == now)
			return;
	}
}

static __always_inline void lower(u64 *least, u64 value, bool shared)
{
	if (!shared) {
		if (value < *least)
			*least = value;
		return;
	}
	for (int i = 0; i < STATS_TRIES; i++) {
		u64 now = *(volatile u64 *)least;

		if (value >= now || __sync_val_compare_and_swap(least, now, value) == now)
			return;
	}
}

/* The word is a time under the number of its interval; that of another interval is replaced. */
static __always_inline void raise_recent(u64 *most, u64 value, bool shared)
{
	for (int i = 0; i < (shared ? STATS_TRIES : 1); i++) {
		u64 now = *(volatile u64 *)most;

		if (value <= now && !((value ^ now) >> FAULTS_TIME_BITS))
			return;
		if (!shared)
			*most = value;
		else if (__sync_val_compare_and_swap(most, now, value) == now)
			return;
	}
}

/* The shortest time stands there as what it lacks to the longest that there is, so that 0 is nothing in both. */
static __always_inline void stats_recent(struct faults_extremes *recent, u64 epoch, u64 ns, bool shared)
{
	u64 longest = (1ULL << FAULTS_TIME_BITS) - 1;

	if (ns > longest)
		ns = longest;
	epoch <<= FAULTS_TIME_BITS;
	raise_recent(&recent->max, epoch | ns, shared);
	raise_recent(&recent->min, epoch | (longest - ns), shared);
}

static __always_inline void stats_time(struct faults_stats *stats, bool major, u64 ns, u32 minor_weight, u64 epoch,
				       bool shared)
{
	u32 bucket = hist_bucket(ns) & (TRAP_BUCKETS - 1);

	if (major) {
		grow(&stats->timed_major, 1, shared);
		grow(&stats->major_ns, ns, shared);
		grow(&stats->hist[bucket], 1, shared);
	} else {
		grow(&stats->timed_minor, 1, shared);
		grow(&stats->minor_ns, ns, shared);
		grow(&stats->hist[bucket], minor_weight, shared);
	}
	raise(&stats->max_ns, ns, shared);
	lower(&stats->min_ns, ns, shared);
	stats_recent(&stats->recent[epoch & 1], epoch, ns, shared);
}

#endif

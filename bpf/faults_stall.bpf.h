/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A process is stalled: its threads slept in faults for so long within a window. crates/model/src/faults/stall.rs has
 * the same rule for recorded faults.
 *
 * A window is made of ticks, and begins with one. At the beginning of each it is noted what the process had slept, in
 * one word, so that threads on several processors need no lock: who comes first into a tick notes it, before that tick
 * is the process's.
 */
#ifndef TRAPLINE_FAULTS_STALL_BPF_H
#define TRAPLINE_FAULTS_STALL_BPF_H

#include "faults_thread.bpf.h"

/* What a process slept in faults. */
struct stalls {
	u64 total_ns;
	u64 before_ns[FAULTS_TICKS]; /* the same at the beginning of each of the last ticks */
	u64 tick;                    /* the last of them */
	u64 quiet_until_ns;          /* until then it has been reported */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, struct faults_process);
	__type(value, struct stalls);
} stalls SEC(".maps");

const struct stalls no_stalls = {};

static __always_inline bool counts_stalls(void)
{
	return SENDS_STEPS && config.step_of == FAULTS_STEP_WITHIN;
}

static __always_inline u64 *before_tick(struct stalls *of, u64 tick)
{
	return &of->before_ns[tick & (FAULTS_TICKS - 1)];
}

/* The process has come to this tick; gives the one that it is in, as another thread may be further. */
static __always_inline u64 tick_begins(struct stalls *of, u64 tick)
{
	/* Read first: what others add from here on is in this tick or a later one. */
	u64 total = *(volatile u64 *)&of->total_ns;
	u64 last = *(volatile u64 *)&of->tick;

	if (tick <= last)
		return last;
	for (u32 i = 0; i < FAULTS_TICKS && tick - i > last; i++) {
		u64 *before = before_tick(of, tick - i), noted = *(volatile u64 *)before;

		/* Another thread may do the same, and has gone on from there. */
		if (*(volatile u64 *)&of->tick != last)
			break;
		__sync_val_compare_and_swap(before, noted, total);
	}
	__sync_val_compare_and_swap(&of->tick, last, tick);
	return tick;
}

/* A thread has slept that long until now. Gives what its process slept in the window, if that is to be reported; else
 * 0. */
static __always_inline u64 slept_until(struct stalls *of, u64 now, u64 ns)
{
	u64 tick = tick_begins(of, now / config.tick_ns), quiet = of->quiet_until_ns;
	u64 total, before;

	for (u32 i = 0; i < FAULTS_TICKS; i++) {
		u64 begins = (tick - i) * config.tick_ns, since = now > begins ? now - begins : 0;

		if (since >= ns)
			break;
		add(before_tick(of, tick - i), ns - since);
	}
	total = __sync_fetch_and_add(&of->total_ns, ns) + ns;
	before = *before_tick(of, tick + 1);
	if (total < before || total - before < config.step || now < quiet)
		return 0;
	if (__sync_val_compare_and_swap(&of->quiet_until_ns, quiet, now + config.tick_ns * FAULTS_TICKS) != quiet)
		return 0;
	return total - before;
}

#endif

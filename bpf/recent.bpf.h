/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The longest time of an interval. That of interval n is in word[n % 2], n above TRAP_TIME_BITS, so that it can be read
 * while the next interval runs. crates/probe/src/abi.rs is the other half.
 */
#ifndef TRAPLINE_RECENT_BPF_H
#define TRAPLINE_RECENT_BPF_H

#include "trap.h"

#define LONGEST_TIME ((1ULL << TRAP_TIME_BITS) - 1)

/* Whose writes go on while others write the same word: each gives up after so many others came first. */
#define RAISE_TRIES 16

static __always_inline void raise(u64 *most, u64 value, bool shared)
{
	if (!shared) {
		if (value > *most)
			*most = value;
		return;
	}
	for (int i = 0; i < RAISE_TRIES; i++) {
		u64 now = *(volatile u64 *)most;

		if (value <= now || __sync_val_compare_and_swap(most, now, value) == now)
			return;
	}
}

/*
 * Raises the longest time of an interval; the word of another one is replaced.
 *
 * An interval is read once, as soon as the next one runs. So the time is told before it is counted, and told to the
 * next interval, too, if that runs when it is counted: it may not be in what was read. Both in this order, and a reader
 * reads figures first: then what is in them is no longer than what is here. (A reader makes system calls between the
 * begin of an interval and its reading: by then a processor's writes are out.)
 */
static __always_inline void raise_recent(u64 word[2], u64 interval, u64 time, bool shared)
{
	u64 *most = &word[interval & 1];
	u64 value = interval << TRAP_TIME_BITS | (time < LONGEST_TIME ? time : LONGEST_TIME);

	for (int i = 0; i < (shared ? RAISE_TRIES : 1); i++) {
		u64 now = *(volatile u64 *)most;

		if (value <= now && !((value ^ now) >> TRAP_TIME_BITS))
			return;
		if (!shared)
			*(volatile u64 *)most = value;
		else if (__sync_val_compare_and_swap(most, now, value) == now)
			return;
	}
}

#endif

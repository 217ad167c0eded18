/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The longest time of an interval. That of interval n is in word[n % 2], n above TRAP_TIME_BITS, so that it can be read
 * while the next interval runs. crates/probe/src/abi.rs is the other half.
 */
#ifndef TRAPLINE_RECENT_BPF_H
#define TRAPLINE_RECENT_BPF_H

#include "trap.h"

#define LONGEST_TIME ((1ULL << TRAP_TIME_BITS) - 1)

/* How often a processor tries again when another one was first. */
#define RAISE_TRIES 1024

struct raising {
	u64 *word;
	u64 value;
	u64 apart; /* a word that differs in these bits is replaced, be it greater or less */
};

static __always_inline bool is_raised(struct raising *to)
{
	u64 now = *(volatile u64 *)to->word;

	return (to->value <= now && !((to->value ^ now) & to->apart)) ||
	       __sync_val_compare_and_swap(to->word, now, to->value) == now;
}

static long raise_again(u32 turn, struct raising *to)
{
	return is_raised(to);
}

/* Others may write the same word meanwhile. Global, so that the verifier goes through it once and not at each call. */
__noinline int raise_shared(u64 *word, u64 value, u64 apart)
{
	struct raising to = {.word = word, .value = value, .apart = apart};

	if (word && !is_raised(&to))
		bpf_loop(RAISE_TRIES, raise_again, &to, 0);
	return 0;
}

/*
 * Raises the longest time of an interval; the word of another one is replaced.
 *
 * An interval is read once, as soon as the next one runs. So the time is noted before it is counted, and noted for the
 * next interval, too, if that runs when it is counted: it may not be in what was read. Both in this order, and a reader
 * reads figures first: then what is in them is no longer than what is here. (A reader makes system calls between the
 * begin of an interval and its reading: by then a processor's writes are out.)
 */
static __always_inline void raise_recent(u64 word[2], u64 interval, u64 time, bool shared)
{
	u64 *most = &word[interval & 1];
	u64 value = interval << TRAP_TIME_BITS | (time < LONGEST_TIME ? time : LONGEST_TIME);
	u64 now = *(volatile u64 *)most;

	if (value <= now && !((value ^ now) & ~LONGEST_TIME))
		return;
	if (shared)
		raise_shared(most, value, ~LONGEST_TIME);
	else
		*(volatile u64 *)most = value;
}

static __always_inline void raise_extremes(struct trap_extremes *of, u64 interval, u64 ns, bool shared)
{
	raise_recent(of->max, interval, ns, shared);
	raise_recent(of->min, interval, ns < LONGEST_TIME ? LONGEST_TIME - ns : 0, shared);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Spans: what the kernel half reports of them. Mirrored in crates/probe/src/abi/faults.rs, compared by a test. */
#ifndef TRAPLINE_FAULTS_SPAN_H
#define TRAPLINE_FAULTS_SPAN_H

#include "faults.h"

enum faults_span_size {
	SPANS_MAX = 64,
	SPANS_DEPTH = 64, /* open spans of a thread; the kernel waits for as many returns (MAX_URETPROBE_DEPTH) */
};

/* Times of single calls. */
struct faults_call_times {
	__u64 hist[TRAP_BUCKETS];
	struct trap_extremes all; /* under interval 0: since the trace began */
	struct trap_extremes recent;
};

/* One span. In the sums, a call within a call of the same span is in the outer one only. */
struct faults_span {
	__u64 calls; /* finished ones */
	__u64 unfinished;
	__u64 major; /* faults, by the kernel's own accounting */
	__u64 minor;
	__u64 timed;
	__u64 stall_ns; /* time of the timed ones */
	__u64 major_ns;
	__u64 span_ns;
	struct faults_call_times stall;
	struct faults_call_times span;
};

/* Losses. */
struct faults_span_losses {
	__u64 unmatched; /* returns of calls that began before tracing, or in the parent before a fork */
	__u64 too_deep;  /* calls in a thread with SPANS_DEPTH open ones */
	__u64 untracked; /* calls for which the kernel had no memory */
	__u64 open;      /* calls that had not returned when tracing ended */
};

#endif

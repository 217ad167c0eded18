/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Page accesses: the lives of the programs that are followed. Mirrored in crates/probe/src/abi/access.rs, compared by a
 * test.
 */
#ifndef TRAPLINE_ACCESS_H
#define TRAPLINE_ACCESS_H

#include "trap.h"

enum access_size {
	ACCESS_MAX_NAMES = 256,
};

struct access_config {
	__u32 follow; /* children of followed processes are followed */
	__u32 named;  /* so is whoever executes a program that is in `targets` */
};

/* what of a life */
enum access_what {
	ACCESS_EXEC = 1,
	ACCESS_FORK = 2,
	ACCESS_EXIT = 3,
};

struct access_life {
	__u64 time_ns;
	__u32 what;
	__u32 pid;
	__u32 tid;
	__u32 cpu;
	__u32 borrows; /* a new process that runs in its parent's memory (vfork) */
	__u32 parent;  /* the process that made it, or itself */
	char comm[TRAP_COMM_LEN];
};

#endif

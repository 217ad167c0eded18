/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where we are among namespaces. Mirrored in crates/probe/src/abi.rs, compared by a test. */
#ifndef TRAPLINE_NAMESPACES_H
#define TRAPLINE_NAMESPACES_H

#include "trap.h"

struct namespaces {
	__u64 cgroup_root;  /* the id of the cgroup that is our cgroup namespace's root */
	__u64 cgroup;       /* the id of the cgroup that was asked about; 0: it is none */
	__u32 cgroup_level; /* its depth in the whole hierarchy */
	__u32 pid_level;    /* the depth of our PID namespace */
	struct trap_numbers numbers;
};

#endif

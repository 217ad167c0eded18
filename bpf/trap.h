/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Shared with user space by all tools. Mirrored in crates/probe/src/abi/trap.rs and compared with this by a test. */
#ifndef TRAPLINE_TRAP_H
#define TRAPLINE_TRAP_H

enum trap_size {
	TRAP_COMM_LEN = 16,
	TRAP_BUCKETS = 128,
	TRAP_MAX_PIDS = 4096,
	TRAP_MAX_NAMES = 64,
	TRAP_MAX_USERS = 64,
	/* Nanoseconds of an interval's longest time, 4.8 hours at the most; the interval's number is above them. */
	TRAP_TIME_BITS = 44,
};

/* trap_filter.by: conditions that must all hold. */
enum trap_by {
	TRAP_BY_PID = 1,    /* its process is in `pids` */
	TRAP_BY_TID = 2,    /* its id is `tid` */
	TRAP_BY_COMM = 4,   /* its name is in `names` */
	TRAP_BY_CGROUP = 8, /* its cgroup is `cgroup` or below it */
	TRAP_BY_TREE = 16,  /* it is a process in `pids`, or a descendant that started during the trace */
	TRAP_BY_USER = 32,  /* its real user ID is in `users` */
};
#define TRAP_BY_ID     (TRAP_BY_PID | TRAP_BY_TID | TRAP_BY_TREE)
#define TRAP_BY_MOVING (TRAP_BY_COMM | TRAP_BY_CGROUP | TRAP_BY_USER)
#define TRAP_BY_ANY    (TRAP_BY_ID | TRAP_BY_MOVING)

/* Where the numbers of a task are, by PID namespace: offsets in the kernel's types, set where ours is not the initial
 * one. */
struct trap_numbers {
	__u32 thread_pid; /* in a task: of the thread */
	__u32 signal;     /* in a task */
	__u32 tgid;       /* in that: of the process */
	__u32 level;      /* in a pid: how many namespaces it has numbers in, beside the initial one */
	__u32 numbers;    /* in a pid: the first of its numbers, that of the initial namespace */
	__u32 inum;       /* in a PID namespace: its inode number */
};

/* What user space changes while programs run; faults has more of it. */
struct trap_control {
	__u64 epoch; /* the number of the running interval */
};

/* The longest and the shortest time of an interval: see raise_recent() and raise_extremes(). */
struct trap_extremes {
	__u64 max[2];
	__u64 min[2]; /* what it lacks to the greatest time that there is */
};

struct trap_filter {
	__u64 cgroup;        /* the id of a cgroup */
	__u32 cgroup_level;  /* depth of that cgroup; the root is 0 */
	__u32 cgroup_subsys; /* 0: it is in the v2 hierarchy; else 1 + the number of a controller of its v1 hierarchy */
	__u32 tid;
	__u32 by;
	__u32 pid_level; /* depth of our PID namespace; in the initial one, 0, tasks have the kernel's own ids */
	__u32 pid_inum;  /* its inode number */
	struct trap_numbers numbers;
};

#endif

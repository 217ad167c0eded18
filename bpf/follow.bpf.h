/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The descendants of the command, or of who is followed: a process that one of `pids` makes is one of them until it
 * ends. (Faults follows threads, not processes: each has a slot there, which its children inherit from, so that the
 * descent is known even where the start of a thread was missed. See faults_life.bpf.h.)
 */
#ifndef TRAPLINE_FOLLOW_BPF_H
#define TRAPLINE_FOLLOW_BPF_H

#include "trap.bpf.h"

static __always_inline bool is_followed(struct task_struct *task)
{
	u32 pid = pid_of(task);

	return bpf_map_lookup_elem(&pids, &pid);
}

/* False if there is no space for it. */
static __always_inline bool follow(struct task_struct *task)
{
	u32 pid = pid_of(task);
	u8 yes = 1;

	/* One that our PID namespace does not show is nobody. */
	return !pid || !bpf_map_update_elem(&pids, &pid, &yes, BPF_ANY);
}

/* Whether a new task is a process that belongs to those that are followed, and is to be followed. */
static __always_inline bool is_descendant(struct task_struct *parent, struct task_struct *child)
{
	return child->tgid != parent->tgid && is_followed(parent);
}

/*
 * A thread ends: whether it was the last one of a process that was followed, and is not any more. The process has its
 * number until it is reaped, which is later.
 */
static __always_inline bool unfollow(struct task_struct *task)
{
	u32 pid = pid_of(task);

	return !BPF_CORE_READ(task, signal, live.counter) && !bpf_map_delete_elem(&pids, &pid);
}

#endif

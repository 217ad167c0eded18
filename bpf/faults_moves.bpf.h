/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Threads are renamed and moved: in objects whose filters go by names and cgroups. */
#ifndef TRAPLINE_FAULTS_MOVES_BPF_H
#define TRAPLINE_FAULTS_MOVES_BPF_H

#include "faults_thread.bpf.h"

/* The thread's name or cgroup changes: what it does from here on is wanted, or not. */
static __always_inline void on_filter_change(struct task_struct *task, bool wanted)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	if (t) {
		now_wanted(t, task, wanted);
		return;
	}
	if (!wanted || !fixed_filter_wants(task))
		return;
	t = track(task, false);
	if (t)
		count_from_here(t, task);
}

/* Fires before the name changes. */
SEC("?tp_btf/task_rename")
int BPF_PROG(thread_renamed, struct task_struct *task, const char *name)
{
	on_filter_change(task, moving_filter_wants(task, name));
	return 0;
}

/* Fires after the move, once for a whole process; its other threads are noticed at their next event. */
SEC("?tp_btf/cgroup_attach_task")
int BPF_PROG(thread_moved, struct cgroup *cgrp, const char *path, struct task_struct *task)
{
	on_filter_change(task, moving_filter_wants(task, task->comm));
	return 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* With a command its descendants are traced, too: in objects whose `losses` say how many could not be. */
#ifndef TRAPLINE_DESCENDANTS_BPF_H
#define TRAPLINE_DESCENDANTS_BPF_H

#include "follow.bpf.h"

SEC("?tp_btf/sched_process_fork")
int BPF_PROG(process_born, struct task_struct *parent, struct task_struct *child)
{
	if (is_descendant(parent, child) && !follow(child))
		add(&losses.untracked, 1);
	return 0;
}

SEC("?tp_btf/sched_process_exit")
int BPF_PROG(process_ended, struct task_struct *task)
{
	unfollow(task);
	return 0;
}

#endif

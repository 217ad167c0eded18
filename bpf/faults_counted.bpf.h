/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The variants where of a fault nothing is to be known but that it was: its completion is seen, and nothing timed. */
#ifndef TRAPLINE_FAULTS_COUNTED_BPF_H
#define TRAPLINE_FAULTS_COUNTED_BPF_H

#include "faults.bpf.h"

static __always_inline int on_fault_counted(bool complete, bool major)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	if (!t && complete && !control.adopted)
		t = adopt_late(task, major);
	else
		t = wanted_thread(task);
	mark_alive(&alive.ends);
	if (t)
		count_steps(t, task);
	return 0;
}

SEC("?fexit/handle_mm_fault")
int BPF_PROG(fentry_counts, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs,
	     u32 ret)
{
	return on_fault_counted(is_complete(ret), ret & VM_FAULT_MAJOR);
}

SEC("?kretprobe/handle_mm_fault")
int BPF_KRETPROBE(kprobe_counts, u32 ret)
{
	return on_fault_counted(is_complete(ret), ret & VM_FAULT_MAJOR);
}

SEC("?perf_event")
int tracepoint_counts_major(struct bpf_perf_event_data *ctx)
{
	return on_fault_counted(true, true);
}

SEC("?perf_event")
int tracepoint_counts_minor(struct bpf_perf_event_data *ctx)
{
	return on_fault_counted(true, false);
}

#endif

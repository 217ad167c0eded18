/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a fault's time is made of beside its handling. On x86 there is a tracepoint for the exception, which comes
 * before the lock of the address space is waited for.
 */
#ifndef TRAPLINE_FAULTS_TIME_BPF_H
#define TRAPLINE_FAULTS_TIME_BPF_H

#include "faults_thread.bpf.h"

/*
 * It may never become a fault: it ends in a signal, or the kernel has a way around it. Then the thread's next exception
 * takes its place.
 */
static __always_inline int on_exception_before(unsigned long addr)
{
	struct tracked *t;

	if ((s64)addr < 0)
		return 0;
	t = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
	if (!t)
		return 0;
	t->retrying = 0; /* it was left for a signal: this is another fault */
	t->exception_addr = addr;
	t->exception_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("?tp_btf/page_fault_user")
int BPF_PROG(exception_user, unsigned long addr)
{
	return on_exception_before(addr);
}

SEC("?tp_btf/page_fault_kernel")
int BPF_PROG(exception_kernel, unsigned long addr)
{
	if (bpf_get_current_task_btf()->pagefault_disabled)
		return 0;
	return on_exception_before(addr);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Variant counters: while it begins, so that each thread is known before its next fault, and all are counted from one
 * moment on (see threads_adopt()).
 */
#ifndef TRAPLINE_FAULTS_COUNTERS_BPF_H
#define TRAPLINE_FAULTS_COUNTERS_BPF_H

#include "faults_thread.bpf.h"

SEC("?tp_btf/page_fault_user")
int BPF_PROG(counters_user)
{
	wanted_thread(bpf_get_current_task_btf());
	return 0;
}

SEC("?tp_btf/page_fault_kernel")
int BPF_PROG(counters_kernel)
{
	wanted_thread(bpf_get_current_task_btf());
	return 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Faults that end in a signal: on every variant, in objects that know what faults were for. */
#ifndef TRAPLINE_FAULTS_FAILED_BPF_H
#define TRAPLINE_FAULTS_FAILED_BPF_H

#include "faults.bpf.h"

#define SIGBUS      7
#define SIGSEGV     11
#define SI_KERNEL   0x80 /* include/uapi/asm-generic/siginfo.h: not of a page fault */
#define X86_TRAP_PF 14

/* A signal is made in the thread that it is for: of a fault, if the last exception of that thread was one. */
SEC("?tp_btf/signal_generate")
int BPF_PROG(fault_failed, int sig, struct kernel_siginfo *info, struct task_struct *to, int group, int result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t;
	u32 facts;
	int code;

	/* Two small numbers stand for signals without a siginfo. */
	if ((sig != SIGSEGV && sig != SIGBUS) || (u64)info <= 1 || to->pid != task->pid)
		return 0;
	code = BPF_CORE_READ(info, si_code);
	if (code <= 0 || code >= SI_KERNEL || task->thread.trap_nr != X86_TRAP_PF)
		return 0;
	t = wanted_thread(task);
	if (!t)
		return 0;
	if (SENDS_FAULTS && !unseen(t, task, 0, 0))
		return 0;
	show_late(t, task);
	t->open_ns = t->began_ns = 0;
	t->open_addr = task->thread.cr2;
	describe_fault(t, user_ip(task), error_rw(task->thread.error_code),
		       task->thread.error_code & PF_PROT ? FAULTS_PAGE_PRESENT : FAULTS_PAGE_ABSENT);
	facts = FAULTS_FACTS(0, 0, FAULTS_ALSO_SIGNAL);
	if (SENDS_FAULTS && !config.slower)
		send_fault(t, task, 1, FAULTS_FAILED, FAULTS_NONE, facts, true);
	group_failed(t, task, facts);
	return 0;
}

#endif

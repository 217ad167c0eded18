// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* For unit tests: what the tracepoints of a vCPU's thread do, one after the other. See test_faults.bpf.c. */
#include "kvm.bpf.c"

SEC("?raw_tp")
int BPF_PROG(test_exit, u64 reason, u64 isa, u64 vcpu, u64 rip)
{
	return on_exit_to_host(reason, isa, vcpu, rip);
}

SEC("?raw_tp")
int BPF_PROG(test_nested)
{
	return on_nested_exit();
}

SEC("?raw_tp")
int BPF_PROG(test_subject, u64 what, u64 write)
{
	return on_subject(what, write);
}

SEC("?raw_tp")
int BPF_PROG(test_enter)
{
	return on_guest_enter();
}

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* For unit tests: which pages of an enclave an interval has seen. See test_faults.bpf.c. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "sgx_enclave.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("?raw_tp")
int BPF_PROG(test_mark, u64 serial, u64 page, u64 kind)
{
	struct sgx_enclave enclave = {.serial = serial};

	return mark_page(&enclave, page, kind);
}

SEC("?raw_tp")
int BPF_PROG(test_is_marked, u64 serial, u64 page, u64 kind)
{
	struct sgx_enclave enclave = {.serial = serial};

	return is_marked(&enclave, page, kind);
}

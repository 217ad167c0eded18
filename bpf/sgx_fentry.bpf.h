/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Variant fentry: the functions of the driver in the kernel, 5.11 and later. */
#ifndef TRAPLINE_SGX_FENTRY_BPF_H
#define TRAPLINE_SGX_FENTRY_BPF_H

SEC("?fentry/sgx_vma_fault")
int BPF_PROG(fentry_fault, struct vm_fault *vmf)
{
	return on_vma_fault(vmf, false);
}

SEC("?fexit/sgx_vma_fault")
int BPF_PROG(fentry_faulted, struct vm_fault *vmf, u32 ret)
{
	return on_fault_return(ret & VM_FAULT_ERROR);
}

SEC("?fexit/sgx_encl_eldu")
int BPF_PROG(fentry_eldu, u64 encl_page, u64 secs_page, u64 ret)
{
	return on_eldu_return(encl_page, secs_page, ret);
}

SEC("?fentry/sgx_encl_ewb")
int BPF_PROG(fentry_ewb, u64 epc_page)
{
	return on_ewb_enter(epc_page);
}

SEC("?fexit/__sgx_encl_load_page")
int BPF_PROG(fentry_load_page, u64 encl, u64 entry, u64 ret)
{
	return on_load_page_return(ret);
}

SEC("?fexit/sgx_encl_page_alloc")
int BPF_PROG(fentry_page_alloc, u64 encl, u64 offset, u64 flags, u64 ret)
{
	return on_page_alloc_return(ret);
}

SEC("?fexit/sgx_alloc_epc_page")
int BPF_PROG(fentry_alloc_epc, u64 owner, u32 reclaim, u64 ret)
{
	return on_epc_return(owner, ret);
}

SEC("?fentry/sgx_vepc_fault")
int BPF_PROG(fentry_vepc, struct vm_fault *vmf)
{
	return on_vma_fault(vmf, true);
}

SEC("?fexit/sgx_vepc_fault")
int BPF_PROG(fentry_vepced, struct vm_fault *vmf, u32 ret)
{
	return on_fault_return(ret & VM_FAULT_ERROR);
}

SEC("?fentry/sgx_encl_release")
int BPF_PROG(fentry_release, u64 refcount)
{
	return on_release(refcount);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Variant kprobe: the same functions, by probes at their entry and their return. */
#ifndef TRAPLINE_SGX_KPROBE_BPF_H
#define TRAPLINE_SGX_KPROBE_BPF_H

SEC("?kprobe")
int BPF_KPROBE(kprobe_fault, struct vm_fault *vmf)
{
	return on_vma_fault(vmf, false);
}

SEC("?kretprobe")
int BPF_KRETPROBE(kprobe_faulted, u32 ret)
{
	return on_fault_return(ret & VM_FAULT_ERROR);
}

SEC("?kprobe")
int BPF_KPROBE(kprobe_eldu, u64 encl_page, u64 secs_page)
{
	return on_eldu_enter(encl_page, 0, secs_page);
}

SEC("?kretprobe")
int BPF_KRETPROBE(kprobe_loaded, u64 ret)
{
	u64 encl_page;
	struct driver_call *h = load_under_way(&encl_page);

	return h ? on_eldu_return(encl_page, h->loading_for, ret) : 0;
}

SEC("?kprobe")
int BPF_KPROBE(kprobe_ewb, u64 epc_page)
{
	return on_ewb_enter(epc_page);
}

SEC("?kretprobe")
int BPF_KRETPROBE(kprobe_load_page, u64 ret)
{
	return on_load_page_return(ret);
}

SEC("?kretprobe")
int BPF_KRETPROBE(kprobe_page_alloc, u64 ret)
{
	return on_page_alloc_return(ret);
}

SEC("?kprobe")
int BPF_KPROBE(kprobe_alloc_epc, u64 owner)
{
	struct driver_call *h = this_fault();

	if (h)
		h->owner = owner;
	return 0;
}

SEC("?kretprobe")
int BPF_KRETPROBE(kprobe_alloced_epc, u64 ret)
{
	struct driver_call *h = this_fault();

	return h ? on_epc_return(h->owner, ret) : 0;
}

SEC("?kprobe")
int BPF_KPROBE(kprobe_vepc, struct vm_fault *vmf)
{
	return on_vma_fault(vmf, true);
}

SEC("?kretprobe")
int BPF_KRETPROBE(kprobe_vepced, u32 ret)
{
	return on_fault_return(ret & VM_FAULT_ERROR);
}

SEC("?kprobe")
int BPF_KPROBE(kprobe_release, u64 refcount)
{
	return on_release(refcount);
}

#endif

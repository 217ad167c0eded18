/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Variant legacy: the out-of-tree driver (isgx), whose module usually has no type information. */
#ifndef TRAPLINE_SGX_LEGACY_BPF_H
#define TRAPLINE_SGX_LEGACY_BPF_H

/* Up to its version 2.1 it had no fourth argument; the first three never changed. */
SEC("?kprobe")
int BPF_KPROBE(legacy_fault, struct vm_area_struct *vma, u64 addr, u32 flags)
{
	return flags & SGX_FAULT_RESERVE ? 0 : on_fault_enter(vma, addr, false);
}

/* It returns the page or an error, and the processor tries again after EBUSY. */
SEC("?kretprobe")
int BPF_KRETPROBE(legacy_faulted, u64 ret)
{
	if (ret == (u64)-EBUSY)
		on_load_page_return(ret);
	return on_fault_return(is_error(ret) && ret != (u64)-EBUSY);
}

SEC("?kprobe")
int BPF_KPROBE(legacy_eldu, u64 encl, u64 encl_page, u64 epc_page, u64 is_secs)
{
	return on_eldu_enter(encl, encl_page, is_secs & 0xff);
}

SEC("?kretprobe")
int BPF_KRETPROBE(legacy_loaded, int ret)
{
	u64 encl;
	struct driver_call *h = load_under_way(&encl);

	return h ? page_loaded(encl, h->owner, h->loading_for, ret < 0 ? -ret : ret) : 0;
}

SEC("?kprobe")
int BPF_KPROBE(legacy_ewb, u64 encl, u64 epc_page)
{
	u64 encl_page = read_field(epc_page, layout.epc_owner);

	return page_evicted(encl, encl_page == SGX_UNKNOWN ? 0 : encl_page);
}

SEC("?kprobe")
int BPF_KPROBE(legacy_release, u64 refcount)
{
	return on_release(refcount);
}

#endif

// SPDX-License-Identifier: GPL-2.0-only
/* Faults as the out-of-tree driver has them: the functions that the first tool of this kind hooked. */
#include <linux/sched.h>

#include "sgx_double.h"

DRIVER_FUNCTION int sgx_eldu(struct sgx_encl *encl, struct sgx_encl_page *encl_page, struct sgx_epc_page *epc_page,
			     bool is_secs)
{
	sgx_page_in(encl_page, epc_page);
	encl_page->epc_page = epc_page;
	sgx_count(&encl->counts, is_secs ? COUNT_SECS_LOADS : COUNT_LOADS);
	return 0;
}

DRIVER_FUNCTION bool sgx_ewb(struct sgx_encl *encl, struct sgx_epc_page *entry)
{
	sgx_page_out(entry->owner);
	sgx_count(&encl->counts, COUNT_EVICTIONS);
	return true;
}

static struct sgx_encl_page *do_fault(struct sgx_encl *encl, struct vm_area_struct *vma, unsigned long addr)
{
	struct sgx_encl_page *entry = sgx_encl_find_or_make(encl, addr);
	struct sgx_epc_page *epc;
	int err;

	if (IS_ERR(entry))
		return entry;
	if (entry->epc_page) {
		if (entry->desc & SGX_ENCL_PAGE_BEING_RECLAIMED)
			return ERR_PTR(-EBUSY);
		sgx_count(&encl->counts, COUNT_MAPPED);
	} else {
		epc = sgx_calls.alloc_epc(entry, false);
		if (IS_ERR(epc))
			return ERR_CAST(epc);
		err = sgx_eldu(encl, entry, epc, false);
		if (err) {
			sgx_free_epc_page(epc);
			return ERR_PTR(err);
		}
		encl->secs_child_cnt++;
		sgx_mark_page_reclaimable(epc);
	}
	if (vmf_insert_pfn(vma, addr, page_to_pfn(entry->epc_page->memory)) != VM_FAULT_NOPAGE)
		return ERR_PTR(-EFAULT);
	return entry;
}

DRIVER_FUNCTION struct sgx_encl_page *sgx_fault_page(struct vm_area_struct *vma, unsigned long addr, unsigned int flags,
						     struct vm_fault *vmf)
{
	struct sgx_encl *encl = vma->vm_private_data;
	struct sgx_encl_page *entry;

	sgx_count_fault(&encl->counts, addr);
	mutex_lock(&encl->lock);
	entry = do_fault(encl, vma, addr);
	if (entry == ERR_PTR(-EBUSY))
		sgx_count(&encl->counts, COUNT_BUSY);
	mutex_unlock(&encl->lock);
	return entry;
}

static vm_fault_t legacy_vma_fault(struct vm_fault *vmf)
{
	struct sgx_encl_page *entry = sgx_fault_page(vmf->vma, vmf->address & PAGE_MASK, 0, vmf);

	if (!IS_ERR(entry))
		return VM_FAULT_NOPAGE;
	if (PTR_ERR(entry) != -EBUSY)
		return VM_FAULT_SIGBUS;
	sgx_let_others_run();
	return VM_FAULT_NOPAGE;
}

static void legacy_vma_open(struct vm_area_struct *vma)
{
	sgx_vm_ops.open(vma);
}

static void legacy_vma_close(struct vm_area_struct *vma)
{
	sgx_vm_ops.close(vma);
}

const struct vm_operations_struct sgx_legacy_vm_ops = {
    .open = legacy_vma_open,
    .close = legacy_vma_close,
    .fault = legacy_vma_fault,
};

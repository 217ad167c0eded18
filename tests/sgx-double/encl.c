// SPDX-License-Identifier: GPL-2.0-only
/* Enclaves and their faults, as the driver in the kernel has them. */
#include <linux/highmem.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "sgx_double.h"

LIST_HEAD(sgx_encl_list);
DEFINE_MUTEX(sgx_list_lock);

/* Each enclave's part of the device's file: far more than any address space is large. */
#define PGOFF_SHIFT 36

void sgx_page_in(struct sgx_encl_page *entry, struct sgx_epc_page *epc)
{
	u64 *at = kmap_local_page(epc->memory);

	*at = entry->word;
	kunmap_local(at);
}

void sgx_page_out(struct sgx_encl_page *entry)
{
	u64 *at = kmap_local_page(entry->epc_page->memory);

	entry->word = *at;
	kunmap_local(at);
}

/* Brings a page back into the pool. Without secs_page it is the enclave's control page itself. */
DRIVER_FUNCTION struct sgx_epc_page *sgx_encl_eldu(struct sgx_encl_page *encl_page, struct sgx_epc_page *secs_page)
{
	struct sgx_encl *encl = encl_page->encl;
	struct sgx_epc_page *epc = sgx_calls.alloc_epc(encl_page, false);

	if (IS_ERR(epc))
		return epc;
	sgx_page_in(encl_page, epc);
	encl_page->epc_page = epc;
	sgx_count(&encl->counts, secs_page ? COUNT_LOADS : COUNT_SECS_LOADS);
	return epc;
}

DRIVER_FUNCTION void sgx_encl_ewb(struct sgx_epc_page *epc_page, struct sgx_backing *backing)
{
	struct sgx_encl_page *entry = epc_page->owner;
	struct sgx_encl *encl = entry->encl;

	sgx_page_out(entry);
	sgx_count(&encl->counts, entry == &encl->secs ? COUNT_SECS_EVICTIONS : COUNT_EVICTIONS);
}

DRIVER_FUNCTION struct sgx_encl_page *sgx_encl_page_alloc(struct sgx_encl *encl, unsigned long offset,
							  u64 secinfo_flags)
{
	struct sgx_encl_page *entry = kzalloc(sizeof(*entry), GFP_KERNEL);

	if (!entry)
		return ERR_PTR(-ENOMEM);
	entry->desc = encl->base + offset;
	entry->encl = encl;
	return entry;
}

static struct sgx_epc_page *load_secs(struct sgx_encl *encl)
{
	if (encl->secs.epc_page)
		return encl->secs.epc_page;
	return sgx_calls.eldu(&encl->secs, NULL);
}

/* Makes the page resident. The enclave's lock is held. */
DRIVER_FUNCTION struct sgx_encl_page *__sgx_encl_load_page(struct sgx_encl *encl, struct sgx_encl_page *entry)
{
	struct sgx_epc_page *epc;

	if (entry->epc_page) {
		if (entry->desc & SGX_ENCL_PAGE_BEING_RECLAIMED)
			return ERR_PTR(-EBUSY);
		sgx_count(&encl->counts, COUNT_MAPPED);
		return entry;
	}
	epc = load_secs(encl);
	if (IS_ERR(epc))
		return ERR_CAST(epc);
	epc = sgx_calls.eldu(entry, epc);
	if (IS_ERR(epc))
		return ERR_CAST(epc);
	encl->secs_child_cnt++;
	sgx_mark_page_reclaimable(epc);
	return entry;
}

/* A page that was never touched is like one that was evicted after it had been added. The lock is held. */
struct sgx_encl_page *sgx_encl_find_or_make(struct sgx_encl *encl, unsigned long addr)
{
	struct sgx_encl_page *entry = xa_load(&encl->page_array, PFN_DOWN(addr));
	int err;

	if (entry)
		return entry;
	entry = kzalloc(sizeof(*entry), GFP_KERNEL);
	if (!entry)
		return ERR_PTR(-ENOMEM);
	entry->desc = addr;
	entry->encl = encl;
	err = xa_err(xa_store(&encl->page_array, PFN_DOWN(addr), entry, GFP_KERNEL));
	if (!err)
		return entry;
	kfree(entry);
	return ERR_PTR(err);
}

static vm_fault_t insert(struct vm_area_struct *vma, unsigned long addr, struct sgx_encl_page *entry)
{
	return vmf_insert_pfn(vma, addr, page_to_pfn(entry->epc_page->memory));
}

/* Adds a page where there is none yet. */
static vm_fault_t sgx_encl_eaug_page(struct vm_area_struct *vma, struct sgx_encl *encl, unsigned long addr)
{
	struct sgx_encl_page *entry = sgx_calls.page_alloc(encl, addr - encl->base, 0);
	struct sgx_epc_page *epc;
	vm_fault_t ret = VM_FAULT_NOPAGE;

	if (IS_ERR(entry))
		return VM_FAULT_OOM;
	mutex_lock(&encl->lock);
	epc = load_secs(encl);
	if (!IS_ERR(epc))
		epc = sgx_calls.alloc_epc(entry, false);
	if (IS_ERR(epc)) {
		sgx_count(&encl->counts, COUNT_BUSY);
		goto drop;
	}
	if (xa_insert(&encl->page_array, PFN_DOWN(addr), entry, GFP_KERNEL)) {
		/* Another thread was faster. */
		sgx_free_epc_page(epc);
		ret = VM_FAULT_SIGBUS;
		goto drop;
	}
	entry->epc_page = epc;
	sgx_page_in(entry, epc);
	encl->secs_child_cnt++;
	ret = insert(vma, addr, entry);
	sgx_count(&encl->counts, COUNT_ADDS);
	sgx_mark_page_reclaimable(epc);
	mutex_unlock(&encl->lock);
	return ret;
drop:
	mutex_unlock(&encl->lock);
	kfree(entry);
	if (ret == VM_FAULT_NOPAGE)
		sgx_let_others_run();
	return ret;
}

DRIVER_FUNCTION vm_fault_t sgx_vma_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct sgx_encl *encl = vma->vm_private_data;
	unsigned long addr = vmf->address & PAGE_MASK;
	struct sgx_encl_page *entry;
	vm_fault_t ret = VM_FAULT_SIGBUS;

	sgx_count_fault(&encl->counts, addr);
	if (encl->dynamic && !xa_load(&encl->page_array, PFN_DOWN(addr)))
		return sgx_encl_eaug_page(vma, encl, addr);
	mutex_lock(&encl->lock);
	entry = sgx_encl_find_or_make(encl, addr);
	if (!IS_ERR(entry))
		entry = sgx_calls.load_page(encl, entry);
	if (entry == ERR_PTR(-EBUSY)) {
		sgx_count(&encl->counts, COUNT_BUSY);
		ret = VM_FAULT_NOPAGE;
	} else if (!IS_ERR(entry)) {
		ret = insert(vma, addr, entry);
	}
	mutex_unlock(&encl->lock);
	if (entry == ERR_PTR(-EBUSY))
		sgx_let_others_run();
	return ret;
}

static void sgx_vma_open(struct vm_area_struct *vma)
{
	struct sgx_encl *encl = vma->vm_private_data;

	kref_get(&encl->refcount);
}

static void sgx_vma_close(struct vm_area_struct *vma)
{
	struct sgx_encl *encl = vma->vm_private_data;

	kref_put(&encl->refcount, sgx_calls.release);
}

struct vm_operations_struct sgx_vm_ops = {
    .open = sgx_vma_open,
    .close = sgx_vma_close,
    .fault = sgx_vma_fault,
};

struct sgx_encl *sgx_encl_create(struct vm_area_struct *vma, struct address_space *mapping, bool legacy, bool dynamic)
{
	static atomic_long_t number;
	struct sgx_encl *encl = kzalloc(sizeof(*encl), GFP_KERNEL);
	struct sgx_epc_page *epc;

	if (!encl)
		return ERR_PTR(-ENOMEM);
	mutex_init(&encl->lock);
	xa_init(&encl->page_array);
	kref_init(&encl->refcount);
	sgx_counts_init(&encl->counts);
	encl->base = vma->vm_start;
	encl->size = vma->vm_end - vma->vm_start;
	encl->pgoff = (unsigned long)atomic_long_inc_return(&number) << PGOFF_SHIFT;
	encl->mapping = mapping;
	encl->legacy = legacy;
	encl->dynamic = dynamic;
	encl->pid = current->tgid;
	encl->secs.encl = encl;
	encl->secs.desc = encl->base;
	for (;;) {
		epc = sgx_calls.alloc_epc(&encl->secs, true);
		if (!IS_ERR(epc))
			break;
		sgx_reclaim_pages();
		cond_resched();
	}
	encl->secs.epc_page = epc;
	mutex_lock(&sgx_list_lock);
	list_add_tail(&encl->list, &sgx_encl_list);
	mutex_unlock(&sgx_list_lock);
	return encl;
}

static void drop_page(struct sgx_encl_page *entry)
{
	/* Off the list first: the pool takes only pages that are on none. */
	if (entry->epc_page) {
		sgx_unmark_page_reclaimable(entry->epc_page);
		sgx_free_epc_page(entry->epc_page);
	}
}

DRIVER_FUNCTION void sgx_encl_release(struct kref *ref)
{
	struct sgx_encl *encl = container_of(ref, struct sgx_encl, refcount);
	struct sgx_encl_page *entry;
	unsigned long index;

	mutex_lock(&sgx_list_lock);
	list_del(&encl->list);
	mutex_unlock(&sgx_list_lock);
	xa_for_each(&encl->page_array, index, entry)
	{
		drop_page(entry);
		kfree(entry);
		cond_resched();
	}
	if (encl->secs.epc_page)
		sgx_free_epc_page(encl->secs.epc_page);
	xa_destroy(&encl->page_array);
	sgx_counts_destroy(&encl->counts);
	kfree(encl);
}

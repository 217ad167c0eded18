// SPDX-License-Identifier: GPL-2.0-only
/* EPC for guests: pages are given out at their first touch and never taken back. */
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "sgx_double.h"

static int sgx_vepc_page(struct sgx_vepc *vepc, struct vm_area_struct *vma, unsigned long addr)
{
	struct sgx_epc_page *epc = xa_load(&vepc->page_array, PFN_DOWN(addr));
	int err;

	/* A page that is there already: another thread's fault gave it out and mapped it. */
	if (epc)
		return 0;
	epc = sgx_calls.alloc_epc(vepc, false);
	if (IS_ERR(epc))
		return PTR_ERR(epc);
	err = xa_err(xa_store(&vepc->page_array, PFN_DOWN(addr), epc, GFP_KERNEL));
	if (!err && vmf_insert_pfn(vma, addr, page_to_pfn(epc->memory)) != VM_FAULT_NOPAGE) {
		xa_erase(&vepc->page_array, PFN_DOWN(addr));
		err = -EFAULT;
	}
	if (err)
		sgx_free_epc_page(epc);
	else
		sgx_count(&vepc->counts, COUNT_ADDS);
	return err;
}

DRIVER_FUNCTION vm_fault_t sgx_vepc_fault(struct vm_fault *vmf)
{
	struct sgx_vepc *vepc = vmf->vma->vm_private_data;
	unsigned long addr = vmf->address & PAGE_MASK;
	int err;

	sgx_count_fault(&vepc->counts, addr);
	mutex_lock(&vepc->lock);
	err = sgx_vepc_page(vepc, vmf->vma, addr);
	mutex_unlock(&vepc->lock);
	if (err == -EBUSY) {
		sgx_count(&vepc->counts, COUNT_BUSY);
		sgx_let_others_run();
	}
	return err && err != -EBUSY ? VM_FAULT_SIGBUS : VM_FAULT_NOPAGE;
}

struct vm_operations_struct sgx_vepc_vm_ops = {
    .fault = sgx_vepc_fault,
};

static int sgx_vepc_open(struct inode *inode, struct file *file)
{
	struct sgx_vepc *vepc = kzalloc(sizeof(*vepc), GFP_KERNEL);

	if (!vepc)
		return -ENOMEM;
	mutex_init(&vepc->lock);
	xa_init(&vepc->page_array);
	sgx_counts_init(&vepc->counts);
	file->private_data = vepc;
	return 0;
}

DRIVER_FUNCTION static int sgx_vepc_release(struct inode *inode, struct file *file)
{
	struct sgx_vepc *vepc = file->private_data;
	struct sgx_epc_page *epc;
	unsigned long index;

	xa_for_each(&vepc->page_array, index, epc) sgx_free_epc_page(epc);
	xa_destroy(&vepc->page_array);
	sgx_counts_destroy(&vepc->counts);
	kfree(vepc);
	return 0;
}

static int sgx_vepc_mmap(struct file *file, struct vm_area_struct *vma)
{
	sgx_vm_flags_set(vma, VM_PFNMAP | VM_IO | VM_DONTDUMP | VM_DONTCOPY);
	vma->vm_ops = &sgx_vepc_vm_ops;
	vma->vm_private_data = file->private_data;
	return 0;
}

const struct file_operations sgx_vepc_fops = {
    .owner = THIS_MODULE,
    .open = sgx_vepc_open,
    .release = sgx_vepc_release,
    .mmap = sgx_vepc_mmap,
};

// SPDX-License-Identifier: GPL-2.0-only
/* The devices: a mapping is an enclave, and a written number is a wish. */
#include <linux/fs.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/sched.h>

#include "sgx_double.h"

/* A mapping of the device is an enclave, as large as the mapping. At an offset of one page it grows by faults. */
static int map(struct file *file, struct vm_area_struct *vma, bool legacy)
{
	struct sgx_encl *encl;

	if (!(vma->vm_flags & VM_SHARED) || vma->vm_pgoff > 1)
		return -EINVAL;
	encl = sgx_encl_create(vma, file->f_mapping, legacy, vma->vm_pgoff == 1);
	if (IS_ERR(encl))
		return PTR_ERR(encl);
	sgx_vm_flags_set(vma, VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP | (legacy ? VM_DONTCOPY : 0));
	vma->vm_pgoff = encl->pgoff;
	vma->vm_ops = legacy ? &sgx_legacy_vm_ops : &sgx_vm_ops;
	vma->vm_private_data = encl;
	return 0;
}

static int sgx_mmap(struct file *file, struct vm_area_struct *vma)
{
	return map(file, vma, false);
}

static int legacy_mmap(struct file *file, struct vm_area_struct *vma)
{
	return map(file, vma, true);
}

/* A number written: so many batches are evicted, by the one who writes. */
static ssize_t reclaim_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	unsigned int batches;
	int err = kstrtouint_from_user(text, len, 10, &batches);

	if (err)
		return err;
	while (batches-- && !signal_pending(current))
		sgx_reclaim_pages();
	return len;
}

const struct file_operations sgx_encl_fops = {
    .owner = THIS_MODULE,
    .mmap = sgx_mmap,
    .write = reclaim_write,
};

const struct file_operations sgx_legacy_fops = {
    .owner = THIS_MODULE,
    .mmap = legacy_mmap,
    .write = reclaim_write,
};

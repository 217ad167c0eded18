/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What memory an area is: two questions to the same facts. Its area is what it is called in /proc/PID/maps, where a
 * file on a mounted tmpfs is a file. Its memory is where its pages come from, where that file is shared memory.
 */
#ifndef TRAPLINE_FAULTS_MEMORY_BPF_H
#define TRAPLINE_FAULTS_MEMORY_BPF_H

#include "trap.bpf.h"
#include "faults.h"

#define VM_SHARED       0x00000008 /* include/linux/mm.h: the same from 5.4 to 7.3 */
#define VM_UFFD_MISSING 0x00000200
#define VM_PFNMAP       0x00000400
#define VM_IO           0x00004000
#define VM_HUGETLB      0x00400000

#define MODE_TYPE       0170000
#define MODE_REGULAR    0100000
#define MODE_BLOCK      0060000
#define TMPFS_MAGIC     0x01021994 /* include/uapi/linux/magic.h */
#define HUGETLBFS_MAGIC 0x958458f6
#define SB_KERNMOUNT    (1u << 22) /* include/linux/fs.h: never moved */

SHARED(enum faults_area);
SHARED(enum faults_memory);

/* A file system that the kernel mounted for itself, in no namespace. */
static __always_inline bool is_internal(struct dentry *dentry)
{
	return (FIELD(FIELD(dentry, d_sb), s_flags) & SB_KERNMOUNT) != 0;
}

static __always_inline u32 area_without_file(struct vm_area_struct *vma)
{
	unsigned long start = FIELD(vma, vm_start), end = FIELD(vma, vm_end);
	struct mm_struct *mm = FIELD(vma, vm_mm);
	unsigned long stack = FIELD(mm, start_stack);

	if (FIELD(vma, vm_ops))
		return FAULTS_AREA_SPECIAL;
	/* While exec prepares the arguments of a program, they are all that its memory has, and it has no stack yet. */
	if (!stack || (start <= stack && stack <= end))
		return FAULTS_AREA_STACK;
	/* As /proc/PID/maps has it. */
	if (start < FIELD(mm, brk) && end > FIELD(mm, start_brk))
		return FAULTS_AREA_HEAP;
	return FAULTS_AREA_ANON;
}

/* Memory that is on a file system of the kernel's own. */
static __always_inline u32 internal_area(u64 magic)
{
	if (magic == TMPFS_MAGIC)
		return FAULTS_AREA_SHMEM;
	return magic == HUGETLBFS_MAGIC ? FAULTS_AREA_HUGETLB : FAULTS_AREA_OBJECT;
}

static __always_inline u32 memory_of(struct vm_area_struct *vma, u64 flags)
{
	struct file *file = FIELD(vma, vm_file);
	struct inode *inode;
	u32 type;

	if (flags & VM_HUGETLB)
		return FAULTS_MEMORY_HUGETLB;
	if (flags & (VM_PFNMAP | VM_IO))
		return FAULTS_MEMORY_DEVICE;
	if (!FIELD(vma, vm_ops))
		return FAULTS_MEMORY_ANON;
	inode = FIELD(file, f_inode);
	if (!inode) /* the kernel's own: [vdso] */
		return FAULTS_MEMORY_DEVICE;
	type = FIELD(inode, i_mode) & MODE_TYPE;
	if (type != MODE_REGULAR && type != MODE_BLOCK)
		return FAULTS_MEMORY_DEVICE;
	return FIELD(FIELD(inode, i_sb), s_magic) == TMPFS_MAGIC ? FAULTS_MEMORY_SHMEM : FAULTS_MEMORY_FILE;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A stand-in for an SGX driver, for tests on machines without SGX: enclaves are mappings of a device, and their pages
 * live in a small pool of ordinary memory. Faults, loads and evictions really happen, in functions that have the names
 * and signatures of the drivers'. What happened is counted in debugfs.
 *
 * The types have the drivers' names, and their fields the drivers' names, in another order: whoever reads them must
 * take the offsets from this module's own type information. Up to 6.3 the order is that of Linux 6.1's own driver, for
 * there faults may be led through it: see detour.c.
 */
#ifndef SGX_DOUBLE_H
#define SGX_DOUBLE_H

#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/version.h>
#include <linux/xarray.h>

/* Kept as a function of its own, with all its arguments, as it is in the drivers. */
#define DRIVER_FUNCTION __attribute__((noipa))

#define SGX_RECLAIM_BATCH             16
#define SGX_ENCL_PAGE_BEING_RECLAIMED BIT(3)

enum sgx_count {
	COUNT_FAULTS,     /* faults on an enclave's pages, of every outcome */
	COUNT_PAGES,      /* distinct pages among them */
	COUNT_LOADS,      /* pages brought back into the pool */
	COUNT_SECS_LOADS, /* the same of the enclave's control page */
	COUNT_ADDS,       /* pages added by a fault, as SGX2 does */
	COUNT_MAPPED,     /* the page was in the pool and only had to be mapped */
	COUNT_BUSY,       /* no progress: the pool was full, or the page on its way out */
	COUNT_EVICTIONS,  /* pages written out of the pool */
	COUNT_SECS_EVICTIONS,
	COUNT_BY_DAEMON, /* evictions of pages by the reclaiming thread */
	COUNTS,
};

struct sgx_counts {
	atomic64_t of[COUNTS];
	struct xarray touched; /* page number: the number of the period in which it last faulted */
};

struct sgx_backing;
struct sgx_encl;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)

struct sgx_epc_page {
	struct list_head list;
	struct page *memory;
	void *owner; /* a struct sgx_encl_page, or a struct sgx_vepc */
	u16 flags;
};

struct sgx_encl_page {
	struct sgx_encl *encl;
	struct sgx_epc_page *epc_page;
	unsigned long desc; /* the address, and flags below the page size */
	u64 word;           /* of the page's content, the first word is kept while it is out of the pool */
};

struct sgx_encl {
	struct mutex lock;
	struct xarray page_array;
	struct kref refcount;
	unsigned int secs_child_cnt;
	unsigned long pgoff; /* its place in the device's file */
	bool legacy;         /* it belongs to the out-of-tree driver's device */
	bool dynamic;        /* its pages are added by faults */
	pid_t pid;
	struct list_head list;
	struct address_space *mapping;
	struct sgx_encl_page secs;
	struct sgx_counts counts;
	unsigned long size;
	unsigned long base;
};

#else

struct sgx_epc_page {
	unsigned int section;
	u16 flags;
	u16 poison;
	void *owner;
	struct list_head list;
	struct page *memory;
};

struct sgx_encl_page {
	unsigned long desc;
	unsigned long type;
	struct sgx_epc_page *epc_page;
	struct sgx_encl *encl;
	u64 word;
};

struct sgx_encl {
	unsigned long base;
	unsigned long size;
	unsigned long flags;
	unsigned int page_cnt;
	unsigned int secs_child_cnt;
	struct mutex lock;
	struct xarray page_array;
	struct sgx_encl_page secs;
	unsigned long attributes;
	unsigned long attributes_mask;
	cpumask_t cpumask;
	struct file *backing;
	struct kref refcount;
	unsigned long pgoff;
	bool legacy;
	bool dynamic;
	pid_t pid;
	struct list_head list;
	struct address_space *mapping;
	struct sgx_counts counts;
};

#endif

struct sgx_vepc {
	struct mutex lock;
	struct xarray page_array;
	pid_t pid;
	struct list_head list;
	unsigned long base;
	unsigned long size;
	struct sgx_counts counts;
};

/* counts.c */
extern struct sgx_counts sgx_total;
void sgx_counts_init(struct sgx_counts *counts);
void sgx_counts_destroy(struct sgx_counts *counts);
void sgx_count(struct sgx_counts *counts, enum sgx_count what);
void sgx_count_fault(struct sgx_counts *counts, unsigned long addr);
int sgx_debugfs_init(void);
void sgx_debugfs_exit(void);

/* epc.c: the pool */
int sgx_epc_init(unsigned int pages);
void sgx_epc_exit(void);
struct sgx_epc_page *sgx_alloc_epc_page(void *owner, bool reclaim);
void sgx_free_epc_page(struct sgx_epc_page *page);
void sgx_mark_page_reclaimable(struct sgx_epc_page *page);
int sgx_unmark_page_reclaimable(struct sgx_epc_page *page);
void sgx_reclaim_pages(void);

/* encl.c: the driver in the kernel */
extern struct vm_operations_struct sgx_vm_ops;
extern struct list_head sgx_encl_list;
extern struct mutex sgx_list_lock;
struct sgx_encl *sgx_encl_create(struct vm_area_struct *vma, struct address_space *mapping, bool legacy, bool dynamic);
void sgx_encl_release(struct kref *ref);
struct sgx_encl_page *sgx_encl_find_or_make(struct sgx_encl *encl, unsigned long addr);
vm_fault_t sgx_vma_fault(struct vm_fault *vmf);
struct sgx_epc_page *sgx_encl_eldu(struct sgx_encl_page *encl_page, struct sgx_epc_page *secs_page);
void sgx_encl_ewb(struct sgx_epc_page *epc_page, struct sgx_backing *backing);
void sgx_page_in(struct sgx_encl_page *entry, struct sgx_epc_page *epc);
void sgx_page_out(struct sgx_encl_page *entry);

struct sgx_encl_page *sgx_encl_page_alloc(struct sgx_encl *encl, unsigned long offset, u64 secinfo_flags);
struct sgx_encl_page *__sgx_encl_load_page(struct sgx_encl *encl, struct sgx_encl_page *entry);

/* legacy.c: the driver outside the kernel */
extern const struct vm_operations_struct sgx_legacy_vm_ops;
struct sgx_encl_page *sgx_fault_page(struct vm_area_struct *vma, unsigned long addr, unsigned int flags,
				     struct vm_fault *vmf);
int sgx_eldu(struct sgx_encl *encl, struct sgx_encl_page *encl_page, struct sgx_epc_page *epc_page, bool is_secs);
bool sgx_ewb(struct sgx_encl *encl, struct sgx_epc_page *entry);

/* vepc.c: memory for guests */
extern struct vm_operations_struct sgx_vepc_vm_ops;
extern const struct file_operations sgx_vepc_fops;
vm_fault_t sgx_vepc_fault(struct vm_fault *vmf);

/* detour.c: by which address the functions that probes are attached to are called */
struct sgx_calls {
	vm_fault_t (*vma_fault)(struct vm_fault *vmf);
	vm_fault_t (*vepc_fault)(struct vm_fault *vmf);
	struct sgx_epc_page *(*eldu)(struct sgx_encl_page *encl_page, struct sgx_epc_page *secs_page);
	void (*ewb)(struct sgx_epc_page *epc_page, struct sgx_backing *backing);
	struct sgx_encl_page *(*load_page)(struct sgx_encl *encl, struct sgx_encl_page *entry);
	struct sgx_encl_page *(*page_alloc)(struct sgx_encl *encl, unsigned long offset, u64 secinfo_flags);
	struct sgx_epc_page *(*alloc_epc)(void *owner, bool reclaim);
	void (*release)(struct kref *ref);
};
extern struct sgx_calls sgx_calls;
int sgx_detour_begin(void);
void sgx_detour_end(void);

/* ioctl.c: what a program can ask for */
extern const struct file_operations sgx_encl_fops;
extern const struct file_operations sgx_legacy_fops;

/* The access will fault again. Where an emulator runs processors in turns, the one that makes room is next. */
static inline void sgx_let_others_run(void)
{
	cpu_relax();
	cond_resched();
}

static inline void sgx_vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_set(vma, flags);
#else
	vma->vm_flags |= flags;
#endif
}

#endif

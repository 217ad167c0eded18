// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * SGX. A fault on an enclave is counted when it is handed to the driver, and told apart by what the driver does until
 * it returns: it loads the page from memory, adds a new one, finds it resident, or gets nowhere. Evictions come from
 * the driver's thread or from a thread that needed the space. No type of the driver's is known here: offsets come from
 * user space, which reads them in the type information of the driver in use, in the kernel or in a module.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "compat.bpf.h"
#include "sgx_enclave.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PF_KTHREAD        0x00200000
#define EBUSY             16
#define SOME_ENCLAVE      1 /* where nothing tells whose page it is */
#define SGX_FAULT_RESERVE 1 /* out-of-tree driver: for a debugger or an ioctl, not for the processor */

/* A thread, while the driver handles its fault. */
struct driver_call {
	u64 encl; /* 0: it is in no fault */
	u64 page; /* its number */
	u64 begin_ns;
	u64 new_page; /* the driver's structure of a page that may be added */
	u64 loading;  /* arguments of a function that has not returned yet */
	u64 loading_for;
	u64 owner;
	u64 stuck; /* the page at which its last fault got nowhere */
	u8 seen;   /* the page had faulted before in this interval, so that a load means that it was evicted */
	u8 stuck_seen;
	u8 loaded;
	u8 added;
	u8 busy;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct driver_call);
} threads SEC(".maps");

static __always_inline struct driver_call *this_thread(void)
{
	return bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
}

static __always_inline struct driver_call *this_thread_or_new(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __always_inline struct driver_call *this_fault(void)
{
	struct driver_call *h = this_thread();

	return h && h->encl ? h : NULL;
}

static __always_inline bool is_wanted(struct task_struct *task)
{
	return fixed_filter_wants(task) && moving_filter_wants(task, task->comm);
}

static __always_inline bool is_error(u64 pointer)
{
	return pointer >= (u64)-4095;
}

/* ---- a fault ---- */

static __always_inline int on_fault_enter(struct vm_area_struct *vma, u64 addr, bool guest)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 encl = (u64)BPF_CORE_READ(vma, vm_private_data), page = addr >> PAGE_SHIFT;
	struct sgx_enclave *enclave;
	struct driver_call *h;
	enum mark mark;

	if (!encl || !is_wanted(task))
		return 0;
	enclave = enclave_of(encl, task, guest);
	if (!enclave)
		return 0;
	if (guest && enclave->base == SGX_UNKNOWN) {
		enclave->base = BPF_CORE_READ(vma, vm_start);
		enclave->size = BPF_CORE_READ(vma, vm_end) - enclave->base;
	}
	mark = mark_page(enclave, page, 0);
	add(&enclave->faults, 1);
	if (mark == MARKED_NOW)
		add(&enclave->pages, 1);
	else if (mark == NO_MEMORY)
		add(&enclave->unaccounted, 1);
	h = this_thread_or_new();
	if (!h) {
		add(&losses.untracked, 1);
		return 0;
	}
	if (h->encl)
		add(&losses.unpaired, 1);
	/* A fault that got nowhere is taken up again at once: what held then holds still. */
	h->seen = h->stuck == (page | 1ULL << 63) ? h->stuck_seen : mark == MARKED_BEFORE;
	h->stuck = 0;
	h->loaded = h->added = h->busy = 0;
	h->new_page = guest ? encl : 0;
	h->page = page;
	h->encl = encl;
	h->begin_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int on_fault_return(bool failed)
{
	struct driver_call *h = this_fault();
	struct sgx_enclave *enclave;
	u64 ns, interval;

	if (!h)
		return 0;
	enclave = known_enclave(h->encl);
	h->encl = 0;
	if (!enclave)
		return 0;
	if (failed) {
		add(&enclave->failed, 1);
	} else if (h->loaded) {
		ns = bpf_ktime_get_ns() - h->begin_ns;
		interval = control.epoch;
		raise_recent(enclave->recent, interval, ns, true);
		add(&enclave->load_ns, ns);
		add(&enclave->hist[hist_bucket(ns) & (TRAP_BUCKETS - 1)], 1);
		if (control.epoch != interval)
			raise_recent(enclave->recent, control.epoch, ns, true);
	} else if (h->added) {
		add(&enclave->added, 1);
	} else if (h->busy) {
		add(&enclave->busy, 1);
		h->stuck = h->page | 1ULL << 63;
		h->stuck_seen = h->seen;
	} else {
		add(&enclave->mapped, 1);
	}
	return 0;
}

static __always_inline int on_vma_fault(struct vm_fault *vmf, bool guest)
{
	return on_fault_enter(BPF_CORE_READ(vmf, vma), BPF_CORE_READ(vmf, address), guest);
}

/* ---- what the driver does meanwhile ---- */

/* An enclave whose owner is not known. In a PID namespace it may be one that is not visible there. */
static __always_inline bool may_enter(void)
{
	return !filter.by && !filter.pid_level;
}

/* The enclave that a page of the driver's belongs to: as its structure says, or as the fault that it is for says. */
static __always_inline u64 encl_of(u64 encl_page)
{
	u64 encl = encl_page ? read_field(encl_page, layout.page_encl) : SGX_UNKNOWN;
	struct driver_call *h;

	if (encl != SGX_UNKNOWN)
		return encl;
	h = this_fault();
	return h ? h->encl : SOME_ENCLAVE;
}

static __always_inline struct sgx_enclave *enclave_without_task(u64 encl)
{
	struct sgx_enclave *enclave = known_enclave(encl);

	if (enclave || !encl || !may_enter())
		return enclave;
	return enclave_of(encl, NULL, false);
}

static __always_inline int page_loaded(u64 encl, u64 encl_page, bool is_secs, u64 error)
{
	struct driver_call *h = this_fault();
	struct sgx_enclave *enclave;
	bool evicted;
	u64 page;

	if (error) {
		if (h && error == EBUSY)
			h->busy = 1;
		return 0;
	}
	enclave = enclave_without_task(encl);
	if (!enclave)
		return 0;
	if (is_secs) {
		add(&enclave->secs_loads, 1);
		return 0;
	}
	add(&enclave->loads, 1);
	if (h) {
		h->loaded = 1;
		page = h->page;
	} else {
		page = read_field(encl_page, layout.page_desc) >> PAGE_SHIFT;
	}
	evicted = (h && h->seen) || is_marked(enclave, page, SGX_CHUNK_EVICTED);
	if (evicted)
		add(&enclave->refaults, 1);
	return 0;
}

static __always_inline int page_evicted(u64 encl, u64 encl_page)
{
	struct sgx_enclave *enclave = enclave_without_task(encl);
	struct task_struct *task = bpf_get_current_task_btf();
	struct driver_call *h = this_fault();
	u64 desc;

	if (!enclave)
		return 0;
	if (encl_page && layout.encl_secs != SGX_NOWHERE && encl_page == encl + layout.encl_secs) {
		add(&enclave->secs_evictions, 1);
		return 0;
	}
	add(&enclave->evictions, 1);
	if (task->flags & PF_KTHREAD)
		add(&enclave->by_daemon, 1);
	desc = encl_page ? read_field(encl_page, layout.page_desc) : SGX_UNKNOWN;
	/* A page that faulted in this interval is marked already; one that was here before needs a mark of its own. */
	if (desc != SGX_UNKNOWN && !is_marked(enclave, desc >> PAGE_SHIFT, 0) &&
	    mark_page(enclave, desc >> PAGE_SHIFT, SGX_CHUNK_EVICTED) == NO_MEMORY)
		add(&losses.unmarked, 1);
	enclave = h ? known_enclave(h->encl) : NULL;
	if (enclave)
		add(&enclave->caused, 1);
	return 0;
}

static __always_inline int on_eldu_return(u64 encl_page, u64 secs_page, u64 ret)
{
	return page_loaded(encl_of(encl_page), encl_page, !secs_page, is_error(ret) ? -ret : 0);
}

/* Where a return does not tell the arguments, they are kept from the entry. */
static __always_inline int on_eldu_enter(u64 loading, u64 owner, u64 loading_for)
{
	struct driver_call *h = this_thread_or_new();

	if (!h) {
		add(&losses.untracked, 1);
		return 0;
	}
	h->loading = loading;
	h->owner = owner;
	h->loading_for = loading_for;
	return 0;
}

/* The thread whose load returns, unless the entry was not seen; `loading` is what it was given then. */
static __always_inline struct driver_call *load_under_way(u64 *loading)
{
	struct driver_call *h = this_thread();

	if (!h || !h->loading)
		return NULL;
	*loading = h->loading;
	h->loading = 0;
	return h;
}

static __always_inline int on_ewb_enter(u64 epc_page)
{
	u64 encl_page = read_field(epc_page, layout.epc_owner);

	/* A thread in a fault may evict another enclave's page: only the page's own structure tells. */
	if (encl_page == SGX_UNKNOWN || layout.page_encl == SGX_NOWHERE)
		return page_evicted(SOME_ENCLAVE, 0);
	return page_evicted(encl_of(encl_page), encl_page);
}

static __always_inline int on_load_page_return(u64 ret)
{
	struct driver_call *h = this_fault();

	if (h && ret == (u64)-EBUSY)
		h->busy = 1;
	return 0;
}

static __always_inline int on_page_alloc_return(u64 ret)
{
	struct driver_call *h = this_fault();

	if (h && !is_error(ret))
		h->new_page = ret;
	return 0;
}

static __always_inline int on_epc_return(u64 owner, u64 ret)
{
	struct driver_call *h = this_fault();

	if (!h)
		return 0;
	if (ret == (u64)-EBUSY)
		h->busy = 1;
	else if (!is_error(ret) && owner && owner == h->new_page)
		h->added = 1;
	return 0;
}

static __always_inline int on_release(u64 refcount)
{
	u64 encl = refcount - layout.encl_refcount;
	struct sgx_enclave *enclave = known_enclave(encl);

	if (enclave && config.release_is_seen)
		retire(encl, enclave);
	return 0;
}

#include "sgx_fentry.bpf.h"
#include "sgx_kprobe.bpf.h"
#include "sgx_legacy.bpf.h"
#include "sgx_read.bpf.h"
#include "descendants.bpf.h"

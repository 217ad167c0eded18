// SPDX-License-Identifier: GPL-2.0-only
/* The pool that stands for the EPC: a few pages, given out until none is left, taken back by a thread. */
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "sgx_double.h"

static struct sgx_epc_page *pool;
static unsigned int pool_size;
static unsigned int pool_free;
static LIST_HEAD(free_list);
static LIST_HEAD(active_list); /* pages that may be evicted, the oldest first */
static DEFINE_SPINLOCK(pool_lock);
static DECLARE_WAIT_QUEUE_HEAD(ksgxd_waitq);
static struct task_struct *ksgxd_tsk;

#define LOW_WATER  (pool_size / 8)
#define HIGH_WATER (pool_size / 4)

DRIVER_FUNCTION struct sgx_epc_page *sgx_alloc_epc_page(void *owner, bool reclaim)
{
	struct sgx_epc_page *page = NULL;

	spin_lock(&pool_lock);
	if (!list_empty(&free_list)) {
		page = list_first_entry(&free_list, struct sgx_epc_page, list);
		list_del_init(&page->list);
		page->owner = owner;
		pool_free--;
	}
	spin_unlock(&pool_lock);
	if (pool_free < LOW_WATER)
		wake_up(&ksgxd_waitq);
	return page ?: ERR_PTR(-EBUSY);
}

void sgx_free_epc_page(struct sgx_epc_page *page)
{
	spin_lock(&pool_lock);
	page->owner = NULL;
	list_add_tail(&page->list, &free_list);
	pool_free++;
	spin_unlock(&pool_lock);
}

void sgx_mark_page_reclaimable(struct sgx_epc_page *page)
{
	spin_lock(&pool_lock);
	list_add_tail(&page->list, &active_list);
	spin_unlock(&pool_lock);
}

/* Fails if the page is being reclaimed already. */
int sgx_unmark_page_reclaimable(struct sgx_epc_page *page)
{
	int busy = 0;

	spin_lock(&pool_lock);
	if (list_empty(&page->list))
		busy = -EBUSY;
	else
		list_del_init(&page->list);
	spin_unlock(&pool_lock);
	return busy;
}

static unsigned int take_oldest(struct sgx_epc_page **batch)
{
	unsigned int n = 0;

	spin_lock(&pool_lock);
	while (n < SGX_RECLAIM_BATCH && !list_empty(&active_list)) {
		struct sgx_epc_page *page = list_first_entry(&active_list, struct sgx_epc_page, list);
		struct sgx_encl_page *entry = page->owner;

		list_del_init(&page->list);
		/* Of an enclave that is on its way out, pages are freed and not evicted. */
		if (kref_get_unless_zero(&entry->encl->refcount))
			batch[n++] = page;
	}
	spin_unlock(&pool_lock);
	return n;
}

static void block(struct sgx_encl_page *entry)
{
	struct sgx_encl *encl = entry->encl;
	unsigned long addr = entry->desc & PAGE_MASK;
	loff_t at = ((loff_t)encl->pgoff << PAGE_SHIFT) + (addr - encl->base);

	mutex_lock(&encl->lock);
	entry->desc |= SGX_ENCL_PAGE_BEING_RECLAIMED;
	mutex_unlock(&encl->lock);
	unmap_mapping_range(encl->mapping, at, PAGE_SIZE, 1);
}

static void write_out(struct sgx_epc_page *page)
{
	struct sgx_encl_page *entry = page->owner;
	struct sgx_encl *encl = entry->encl;

	mutex_lock(&encl->lock);
	if (encl->legacy)
		sgx_ewb(encl, page);
	else
		sgx_calls.ewb(page, NULL);
	if (current->flags & PF_KTHREAD)
		sgx_count(&encl->counts, COUNT_BY_DAEMON);
	entry->epc_page = NULL;
	entry->desc &= ~SGX_ENCL_PAGE_BEING_RECLAIMED;
	encl->secs_child_cnt--;
	/* The control page goes after the last of the others; the out-of-tree driver's stays here. */
	if (!encl->secs_child_cnt && !encl->legacy && encl->secs.epc_page) {
		sgx_calls.ewb(encl->secs.epc_page, NULL);
		sgx_free_epc_page(encl->secs.epc_page);
		encl->secs.epc_page = NULL;
	}
	mutex_unlock(&encl->lock);
	kref_put(&encl->refcount, sgx_calls.release);
	sgx_free_epc_page(page);
}

DRIVER_FUNCTION void sgx_reclaim_pages(void)
{
	struct sgx_epc_page *batch[SGX_RECLAIM_BATCH];
	unsigned int n = take_oldest(batch);

	for (unsigned int i = 0; i < n; i++)
		block(batch[i]->owner);
	for (unsigned int i = 0; i < n; i++)
		write_out(batch[i]);
}

static bool should_reclaim(unsigned int below)
{
	return pool_free < below && !list_empty(&active_list);
}

static int ksgxd(void *unused)
{
	while (!kthread_should_stop()) {
		wait_event_interruptible(ksgxd_waitq, kthread_should_stop() || should_reclaim(LOW_WATER));
		while (!kthread_should_stop() && should_reclaim(HIGH_WATER)) {
			sgx_reclaim_pages();
			cond_resched();
		}
	}
	return 0;
}

int sgx_epc_init(unsigned int pages)
{
	pool = kvcalloc(pages, sizeof(*pool), GFP_KERNEL);
	if (!pool)
		return -ENOMEM;
	for (; pool_size < pages; pool_size++) {
		struct sgx_epc_page *page = &pool[pool_size];

		page->memory = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!page->memory)
			goto fail;
		list_add_tail(&page->list, &free_list);
	}
	pool_free = pool_size;
	ksgxd_tsk = kthread_run(ksgxd, NULL, "ksgxd");
	if (!IS_ERR(ksgxd_tsk))
		return 0;
	ksgxd_tsk = NULL;
fail:
	sgx_epc_exit();
	return -ENOMEM;
}

void sgx_epc_exit(void)
{
	if (ksgxd_tsk)
		kthread_stop(ksgxd_tsk);
	while (pool_size)
		__free_page(pool[--pool_size].memory);
	kvfree(pool);
}

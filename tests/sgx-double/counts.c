// SPDX-License-Identifier: GPL-2.0-only
/* What happened, for tests to compare with: /sys/kernel/debug/sgx_double/{counts,enclaves,reset}. */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "sgx_double.h"

static const char *const names[COUNTS] = {
    [COUNT_FAULTS] = "faults",
    [COUNT_PAGES] = "pages",
    [COUNT_LOADS] = "loads",
    [COUNT_SECS_LOADS] = "secs_loads",
    [COUNT_ADDS] = "added",
    [COUNT_MAPPED] = "mapped",
    [COUNT_BUSY] = "busy",
    [COUNT_EVICTIONS] = "evictions",
    [COUNT_SECS_EVICTIONS] = "secs_evictions",
    [COUNT_BY_DAEMON] = "by_daemon",
};

/* Of all enclaves together, those that are gone too. Its pages are those of the others added up. */
struct sgx_counts sgx_total;

/* A reset begins the next period: a page that faults again is a distinct page again. */
static atomic_long_t period = ATOMIC_LONG_INIT(1);
static struct dentry *directory;

void sgx_counts_init(struct sgx_counts *counts)
{
	xa_init(&counts->touched);
}

void sgx_counts_destroy(struct sgx_counts *counts)
{
	xa_destroy(&counts->touched);
}

void sgx_count(struct sgx_counts *counts, enum sgx_count what)
{
	atomic64_inc(&counts->of[what]);
	atomic64_inc(&sgx_total.of[what]);
}

void sgx_count_fault(struct sgx_counts *counts, unsigned long addr)
{
	unsigned long now = atomic_long_read(&period);
	void *old = xa_store(&counts->touched, PFN_DOWN(addr), xa_mk_value(now), GFP_KERNEL);

	WARN_ON_ONCE(xa_is_err(old));
	sgx_count(counts, COUNT_FAULTS);
	if (!old || xa_to_value(old) != now)
		sgx_count(counts, COUNT_PAGES);
}

static void show(struct seq_file *out, struct sgx_counts *counts)
{
	for (int i = 0; i < COUNTS; i++)
		seq_printf(out, " %s=%lld", names[i], atomic64_read(&counts->of[i]));
	seq_putc(out, '\n');
}

static int counts_show(struct seq_file *out, void *unused)
{
	seq_puts(out, "all");
	show(out, &sgx_total);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counts);

static int enclaves_show(struct seq_file *out, void *unused)
{
	struct sgx_encl *encl;

	mutex_lock(&sgx_list_lock);
	list_for_each_entry(encl, &sgx_encl_list, list)
	{
		seq_printf(out, "pid=%d base=%lu size=%lu", encl->pid, encl->base, encl->size);
		show(out, &encl->counts);
	}
	mutex_unlock(&sgx_list_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(enclaves);

static void clear(struct sgx_counts *counts)
{
	for (int i = 0; i < COUNTS; i++)
		atomic64_set(&counts->of[i], 0);
}

static ssize_t reset_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	struct sgx_encl *encl;

	atomic_long_inc(&period);
	mutex_lock(&sgx_list_lock);
	list_for_each_entry(encl, &sgx_encl_list, list) clear(&encl->counts);
	clear(&sgx_total);
	mutex_unlock(&sgx_list_lock);
	return len;
}

static const struct file_operations reset_fops = {
    .owner = THIS_MODULE,
    .write = reset_write,
};

int sgx_debugfs_init(void)
{
	sgx_counts_init(&sgx_total);
	directory = debugfs_create_dir("sgx_double", NULL);
	debugfs_create_file("counts", 0444, directory, NULL, &counts_fops);
	debugfs_create_file("enclaves", 0444, directory, NULL, &enclaves_fops);
	debugfs_create_file("reset", 0200, directory, NULL, &reset_fops);
	return PTR_ERR_OR_ZERO(directory);
}

void sgx_debugfs_exit(void)
{
	debugfs_remove_recursive(directory);
}

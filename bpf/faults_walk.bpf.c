// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Finds out how page tables are walked here: run in the process whose page is looked for. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "faults_walk.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct faults_walk_ask walk_ask SEC(".rodata.walk_ask") = {};

static __always_inline bool walk_is(u64 pgd, u64 base, u64 levels)
{
	struct walk_end end = walk_to(pgd, walk_ask.addr, base, walk_ask.mask, levels);
	u64 within;

	if (!end.level || !(end.entry & ENTRY_PRESENT))
		return false;
	within = (1ULL << TABLE_SHIFT(end.level)) - 1;
	return ((end.entry & walk_ask.mask & ~within) | (walk_ask.addr & within)) >> 12 == walk_ask.frame;
}

struct walk_search {
	u64 pgd;
	struct faults_walk found;
};

/* The map of physical memory begins at a multiple of 1 GiB (arch/x86/mm/kaslr.c), so the rest is known. */
static long walk_try(u32 gib, struct walk_search *search)
{
	u64 base = (search->pgd & ~((1ULL << 30) - 1)) - ((u64)gib << 30);
	u64 levels = 0;

	if (walk_is(search->pgd, base, 4))
		levels = 4;
	else if (walk_is(search->pgd, base, 5))
		levels = 5;
	if (!levels)
		return 0;
	search->found.base = base;
	search->found.levels = levels;
	return 1;
}

SEC("?iter/task")
int walk_find(struct bpf_iter__task *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct walk_search search = {.found.mask = walk_ask.mask};

	if (!ctx->task || ctx->meta->seq_num)
		return 0;
	search.pgd = (u64)BPF_CORE_READ(task, mm, pgd);
	/* Not a loop of C: the verifier would go through it at each of its turns. */
	bpf_loop(walk_ask.places, walk_try, &search, 0);
	if (search.found.levels)
		bpf_seq_write(ctx->meta->seq, &search.found, sizeof(search.found));
	return 0;
}

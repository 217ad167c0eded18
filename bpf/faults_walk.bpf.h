/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Page tables, read from outside. Their entries hold physical addresses; where the kernel maps physical memory
 * (page_offset_base) is random from boot to boot, and its symbol is not on every kernel. So it is tried out: that
 * place is right by which the walk to a page of our own ends at the page that /proc/self/pagemap names.
 *
 * Tables are not freed under a walk: it is made with interrupts off (at the exception; a table is freed when every
 * processor has answered an interrupt), or while the memory's area is locked (in handle_mm_fault).
 */
#ifndef TRAPLINE_FAULTS_WALK_BPF_H
#define TRAPLINE_FAULTS_WALK_BPF_H

#include "faults.h"

/* How to walk here; levels are 0 if it is not known or not needed, and then no walk is loaded. */
const volatile struct faults_walk walk SEC(".rodata.walk") = {};
/* What is to be found out. */
const volatile struct faults_walk_ask walk_ask SEC(".rodata.walk_ask") = {};

#define ENTRY_PRESENT  (1ULL << 0) /* arch/x86/include/asm/pgtable_types.h: the same from 5.4 to 7.3 */
#define ENTRY_WRITABLE (1ULL << 1)
#define ENTRY_ERRATUM  (3ULL << 5)  /* some processors set these in entries that are empty */
#define ENTRY_LEAF     (1ULL << 7)  /* a huge page, above the lowest level */
#define ENTRY_HIDDEN   (1ULL << 8)  /* if it is not present */
#define ENTRY_GUARDED  (1ULL << 10) /* by a userfaultfd, if it is present or hidden */

#define TABLE_SHIFT(level) (12 + 9 * ((level) - 1))

/* The entry at which the walk ended. */
struct walk_end {
	u64 entry;
	u32 level; /* 1 is the lowest; 0: it could not be read */
};

static __always_inline struct walk_end walk_to(u64 table, u64 addr, u64 base, u64 mask, u64 levels)
{
	struct walk_end end = {};

#pragma unroll
	for (u32 level = 5; level >= 1; level--) {
		u64 entry = 0;

		if (level > levels)
			continue;
		if (bpf_probe_read_kernel(&entry, sizeof(entry),
					  (void *)(table + (addr >> TABLE_SHIFT(level) & 511) * sizeof(entry))))
			return end;
		if (level == 1 || !(entry & ENTRY_PRESENT) || (level <= 3 && entry & ENTRY_LEAF)) {
			end.entry = entry;
			end.level = level;
			return end;
		}
		table = base + (entry & mask);
	}
	return end;
}

static __always_inline struct walk_end walk_page(u64 table, u64 addr)
{
	return walk_to(table, addr, walk.base, walk.mask, walk.levels);
}

/* ---- finding out how to walk: run in the process whose page it is ---- */

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

#endif

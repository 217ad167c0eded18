/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Page tables, read from outside. Their entries hold physical addresses; where the kernel maps physical memory
 * (page_offset_base) is random from boot to boot, and its symbol is not on every kernel. So it is tried out: that
 * place is right by which the walk to a page of our own ends at the page that /proc/self/pagemap names
 * (faults_walk.bpf.c).
 *
 * Tables are not freed under a walk: it is made with interrupts off (at the exception; a table is freed when every
 * processor has answered an interrupt), or while the memory's area is locked (in handle_mm_fault).
 */
#ifndef TRAPLINE_FAULTS_WALK_BPF_H
#define TRAPLINE_FAULTS_WALK_BPF_H

#include "compat.bpf.h"
#include "faults.h"

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
		u64 entry, at = table + (addr >> TABLE_SHIFT(level) & 511) * sizeof(entry);

		if (level > levels)
			continue;
		entry = FIELD((struct timespec64 *)at, tv_sec);
		if (level == 1 || !(entry & ENTRY_PRESENT) || (level <= 3 && entry & ENTRY_LEAF)) {
			end.entry = entry;
			end.level = level;
			return end;
		}
		table = base + (entry & mask);
	}
	return end;
}

#endif

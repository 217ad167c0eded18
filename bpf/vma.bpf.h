/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The area of memory that holds an address: a walk through the maple tree in which kernels keep them since 6.1. */
#ifndef TRAPLINE_VMA_BPF_H
#define TRAPLINE_VMA_BPF_H

#include "trap.bpf.h"

/* lib/maple_tree.c, include/linux/maple_tree.h: the same from 6.1 to 7.3 */
#define MAPLE_NODE_MASK 255UL
#define MAPLE_LEAF_64   1
#define MAPLE_ARANGE_64 3
#define MAPLE_DEEPEST   12 /* with at least five entries a node no tree is deeper */

struct maple_walk {
	unsigned long at;
	u64 next; /* the node, with its type in the low bits; at the end what was found */
	bool found;
};

static long maple_step(u64 i, struct maple_walk *walk)
{
	u32 type = walk->next >> 3 & 15;
	unsigned long node = walk->next & ~MAPLE_NODE_MASK;
	bool is_arange = type == MAPLE_ARANGE_64;
	u64 pivots = is_arange ? bpf_core_field_offset(struct maple_arange_64, pivot)
			       : bpf_core_field_offset(struct maple_range_64, pivot);
	u64 slots = is_arange ? bpf_core_field_offset(struct maple_arange_64, slot)
			      : bpf_core_field_offset(struct maple_range_64, slot);
	u32 n = is_arange ? 9 : 15, slot;
	unsigned long pivot[15];

	/* All at once: each read costs more than what is read. Of a node with fewer it is its slots that follow. */
	if (bpf_probe_read_kernel(pivot, sizeof(pivot), (void *)(node + pivots)))
		return 1;
	/* A slot holds what lies up to its pivot; the last one in use may have 0 for it, the last of all has none. */
	for (slot = 0; slot < 15; slot++) {
		if (slot >= n || pivot[slot] >= walk->at || (slot && !pivot[slot]))
			break;
	}
	if (bpf_probe_read_kernel(&walk->next, sizeof(walk->next), (void *)(node + slots + slot * sizeof(void *))))
		return 1;
	walk->found = type <= MAPLE_LEAF_64;
	return walk->found || !walk->next;
}

/* The caller's thread holds a lock on it, as it does from the beginning to the accounting of a fault. NULL if there is
 * none. */
static __always_inline struct vm_area_struct *find_vma(struct mm_struct *mm, unsigned long addr)
{
	struct maple_walk walk = {.at = addr, .next = (u64)BPF_CORE_READ(mm, mm_mt.ma_root)};
	struct vm_area_struct *vma;

	/* A tree of one entry that begins at 0 is that entry itself; nobody's memory looks like that. */
	if ((walk.next & 3) != 2)
		return NULL;
	bpf_loop(MAPLE_DEEPEST, maple_step, &walk, 0);
	vma = (struct vm_area_struct *)walk.next;
	if (!walk.found || !vma || FIELD(vma, vm_start) > addr || FIELD(vma, vm_end) <= addr)
		return NULL;
	return vma;
}

#endif

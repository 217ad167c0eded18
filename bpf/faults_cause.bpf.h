/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a fault was for: the facts. What they mean is decided in one place, by the rules in
 * crates/model/src/faults/cause.rs; here nothing is concluded.
 */
#ifndef TRAPLINE_FAULTS_CAUSE_BPF_H
#define TRAPLINE_FAULTS_CAUSE_BPF_H

#include "faults_thread.bpf.h"
#include "faults_memory.bpf.h"
#include "faults_walk.bpf.h"

/* How to walk here; levels are 0 if it is not known or not needed, and then no walk is loaded. */
const volatile struct faults_walk walk SEC(".rodata.walk") = {};

SHARED(enum faults_before);
SHARED(enum faults_also);

/*
 * Entries that are not present (arch/x86/include/asm/pgtable_64.h): the type of a swap device, or one of the types at
 * the end of their range that stand for something else: a page that is moved or with a device, a poisoned one, or a
 * marker, which is there for a userfaultfd and holds no page. How many of these types there are depends on version
 * and configuration, but there never were more than ten (6.1); no system has swap devices near that border.
 */
#define SWAP_TYPE(entry)   ((entry) >> 59)
#define SWAP_OFFSET(entry) (~(entry) << 5 >> 14)
#define SWAP_TYPES         22
#define SWAP_MARKERS       8 /* a marker is a few bits where others have the number of a page */

static __always_inline struct walk_end walk_page(u64 table, u64 addr)
{
	return walk_to(table, addr, walk.base, walk.mask, walk.levels);
}

static __always_inline u32 before_of(u64 entry, bool write, u32 *also)
{
	if (!(entry & ~ENTRY_ERRATUM))
		return FAULTS_BEFORE_ABSENT;
	if (entry & (ENTRY_PRESENT | ENTRY_HIDDEN)) {
		if (entry & ENTRY_GUARDED)
			*also |= FAULTS_ALSO_GUARDED;
		if (!(entry & ENTRY_PRESENT))
			return FAULTS_BEFORE_HIDDEN;
		return write && !(entry & ENTRY_WRITABLE) ? FAULTS_BEFORE_READ_ONLY : FAULTS_BEFORE_THERE;
	}
	if (entry & ENTRY_LEAF) /* a huge page that is being split */
		return FAULTS_BEFORE_MOVING;
	if (SWAP_TYPE(entry) < SWAP_TYPES)
		return FAULTS_BEFORE_SWAPPED;
	return SWAP_OFFSET(entry) < SWAP_MARKERS ? FAULTS_BEFORE_ABSENT : FAULTS_BEFORE_MOVING;
}

/* A fault begins: what does the page table hold? */
static __always_inline void cause_begins(struct tracked *t, struct task_struct *task, struct mm_struct *mm, u64 addr,
					 bool write)
{
	struct walk_end end;
	u32 also = 0, before = FAULTS_BEFORE_UNKNOWN;

	t->open_level = 0;
	if (write)
		also |= FAULTS_ALSO_WRITE;
	if (walk.levels) {
		t->open_table = (u64)FIELD(mm, pgd);
		end = walk_page(t->open_table, addr);
		if (end.level)
			before = before_of(end.entry, write, &also);
		if (before == FAULTS_BEFORE_ABSENT)
			t->open_level = end.level;
	}
	t->open_facts = FAULTS_FACTS(FAULTS_MEMORY_UNKNOWN, before, also);
}

/* What memory is it? */
static __always_inline u32 facts_of(struct vm_area_struct *vma)
{
	u64 flags = FIELD(vma, vm_flags);
	u32 also = 0;

	if (flags & VM_SHARED)
		also |= FAULTS_ALSO_SHARED;
	if (flags & VM_UFFD_MISSING)
		also |= FAULTS_ALSO_MISSING;
	if (vma_is_watched(vma))
		also |= FAULTS_ALSO_WATCHED;
	return FAULTS_FACTS(memory_of(vma, flags), 0, also);
}

/* It is complete: what else is known now? */
static __always_inline u32 cause_facts(struct tracked *t, struct task_struct *task, bool major)
{
	u32 also = major ? FAULTS_ALSO_MAJOR : 0;
	struct walk_end end;

	if (has_parts(t)) {
		if (t->parts.part_ns[FAULTS_PART_IO])
			also |= FAULTS_ALSO_SLEPT | FAULTS_ALSO_IO;
		if (t->parts.part_ns[FAULTS_PART_SLEEP])
			also |= FAULTS_ALSO_SLEPT;
	}
	/* Where a table was missing there may be a huge page now. */
	if (walk.levels && t->open_level > 1) {
		end = walk_page(t->open_table, t->open_addr);
		if (end.level > 1 && end.entry & ENTRY_PRESENT)
			also |= FAULTS_ALSO_HUGE;
	}
	return t->open_facts | FAULTS_FACTS(0, 0, also);
}

#endif

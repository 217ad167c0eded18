/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Completed faults by something else than their thread: a table from a key to figures that all threads add to.
 *
 * Every fault that the kernel counted is in one group, or in the rest (rest_of()): those that the variant did not see,
 * whose key could not be found, or for whose group there was no room. So the rows add up to the kernel's own number.
 *
 * A kind of key is a constant in faults.h (FAULTS_GROUP_*), a header of its own, and a line in each of the two
 * functions here that decide by GROUPED_BY(): what does not belong to the kind in use is in an object that is not
 * loaded.
 */
#ifndef TRAPLINE_FAULTS_GROUP_BPF_H
#define TRAPLINE_FAULTS_GROUP_BPF_H

#include "faults_thread.bpf.h"
#include "faults_quota.bpf.h"
#include "faults_cause.bpf.h"
#include "faults_file.bpf.h"
#include "faults_stack.bpf.h"
#include "vma.bpf.h"

/* An object that groups by one thing says which part of a key that is: the rest need not be hashed. */
#ifndef GROUP_KEY
#define GROUP_KEY struct faults_row_key
#endif
#define KEY_IN_USE(key)                                                                                                \
	_Generic((GROUP_KEY *)0, u64 *: &(key)->facts, struct faults_group_key *: &(key)->of, default: (key))

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, GROUP_KEY);
	__type(value, struct faults_group);
} groups SEC(".maps");

const struct faults_group no_faults = {};

/* No writer has changed the address space since the thread's last fault, which was in the same area. */
static __always_inline bool mapping_holds(struct tracked *t, struct task_struct *task, struct mm_struct *mm, u64 addr,
					  u64 sequence)
{
	struct mapping *in = &t->mapping;

	return sequence && in->mm == (u64)mm && in->sequence == sequence && addr - in->start < in->size &&
	       in->exec == task->self_exec_id && (!KNOWS_FILES || t->open_named == names_since());
}

/*
 * The thread faults there. Called before fault_ends(): at the entry of handle_mm_fault, which gives the area (fentry,
 * kprobe), or only at its end (tracepoint). Later the area may be unmapped; until then whoever wants to change it waits
 * for the fault, so what is found is true of the sequence that was read before.
 */
static __always_inline void group_sees(struct tracked *t, struct task_struct *task, struct mm_struct *mm,
				       struct vm_area_struct *vma, u64 addr)
{
	u64 sequence = sequence_of(mm);
	struct mapping *in = &t->mapping;

	if (!mapping_holds(t, task, mm, addr, sequence)) {
		if (!vma)
			vma = find_vma(mm, addr);
		in->mm = vma ? (u64)mm : 0;
		in->sequence = sequence;
		in->exec = task->self_exec_id;
		in->start = vma ? FIELD(vma, vm_start) : 0;
		in->size = vma ? FIELD(vma, vm_end) - in->start : 0;
		if (KNOWS_FILES)
			in->offset = file_sees_vma(t, task, vma);
		if (KNOWS_CAUSES)
			in->facts = vma ? facts_of(vma) : 0;
	}
	if (KNOWS_FILES)
		t->open_offset = in->offset == FAULTS_NONE ? FAULTS_NONE : in->offset + (addr - in->start);
	if (KNOWS_CAUSES)
		t->open_facts |= in->facts;
}

/* Whose fault it is. */
static __always_inline void whose_key(struct tracked *t, struct task_struct *task, struct faults_row_key *key)
{
	if (GROUPED_BY(CGROUP)) {
		key->whose[0] = task_cgroup_id(task);
	} else if (GROUPED_BY(THREAD)) {
		key->whose[0] = (u64)t->row.tid << 32 | t->row.pid;
		key->whose[1] = t->row.start_ns;
	} else if (GROUPED_BY(PROCESS)) {
		key->whose[0] = t->row.pid;
		key->whose[1] = t->row.process_start_ns;
	}
}

/* The key of a fault that is complete; false if it has none. `at` is where in the group it was, or FAULTS_NONE. */
static __always_inline bool group_key(void *ctx, struct tracked *t, struct task_struct *task, bool major, u32 facts,
				      struct faults_row_key *key, u64 *at)
{
	if (GROUPED_BY(STACK)) {
		stack_key(ctx, t, task, major, &key->of);
		return true;
	}
	if (GROUPED_BY(FILE)) {
		key->of = t->open_file;
		*at = t->open_offset;
		if (!key->of.word[0])
			return false;
	}
	if (GROUPED_BY(CAUSE))
		key->facts = facts;
	whose_key(t, task, key);
	return true;
}

/* The group that there is; NULL if it may be made under the key. */
static __always_inline struct faults_group *group_there(struct faults_row_key *key)
{
	GROUP_KEY *used = KEY_IN_USE(key);
	struct faults_group *group = bpf_map_lookup_elem(&groups, used);

	if (group && is_stale(group->turn)) {
		*(u64 *)used |= FAULTS_SECOND;
		group = bpf_map_lookup_elem(&groups, used);
	}
	return group;
}

static __always_inline bool is_of_others(struct faults_row_key *key)
{
	if (GROUPED_BY(FILE))
		return is_other_file(&key->of);
	return GROUPED_BY(STACK) && is_other_chain(key->of.word[2]);
}

static __always_inline struct faults_group *group_of(struct faults_row_key *key, struct tracked *t,
						     struct task_struct *task)
{
	struct faults_group *group = group_there(key);
	u64 turn = control.turn;

	if (!group) {
		struct tracked *leader = leader_of(t, task);
		enum quota quota = QUOTA_LEFT;

		if ((GROUPED_BY(FILE) || GROUPED_BY(STACK) || GROUPED_BY_WHOSE) && !is_of_others(key))
			quota = may_make_group(leader);
		if (quota != QUOTA_LEFT && GROUPED_BY_WHOSE) {
			/* The thread has a row for it. */
			add(&losses.over_quota, 1);
			return NULL;
		}
		if (quota != QUOTA_LEFT) {
			if (GROUPED_BY(FILE))
				other_files(&key->of, leader, task, quota);
			else
				other_stacks(&key->of, others_by(quota));
			group = group_there(key);
		}
		if (!group && !bpf_map_update_elem(&groups, KEY_IN_USE(key), &no_faults, BPF_NOEXIST))
			made_group(leader);
		if (!group)
			group = bpf_map_lookup_elem(&groups, KEY_IN_USE(key));
		if (group && !group->turn) {
			group->uid = (u32)bpf_get_current_uid_gid();
			group->owner = maker_of(leader);
		}
	}
	if (!group || is_stale(group->turn)) {
		add(&losses.unattributed, 1);
		return NULL;
	}
	if (group->turn != turn)
		group->turn = turn;
	if (is_of_others(key))
		add(&losses.over_quota, 1);
	return group;
}

/* A fault is complete, and `t` has not been given to another yet. */
static __always_inline void group_fault(void *ctx, struct tracked *t, struct task_struct *task, bool major, u64 ns,
					u32 facts)
{
	struct faults_stats *stats = rest_of(t);
	struct faults_row_key key = {};
	struct faults_group *group;
	u64 at = FAULTS_NONE;

	if (!GROUPED)
		return;
	if (group_key(ctx, t, task, major, facts, &key, &at)) {
		group = group_of(&key, t, task);
		if (GROUPED_BY(STACK))
			t->stack = group ? stack_id(&key.of) : 0;
		if (group) {
			stats = &group->stats;
			if (GROUPED_BY_WHOSE)
				t->grouped = 1;
			if (at != FAULTS_NONE && !is_of_others(&key)) {
				if (~at > group->not_low)
					raise_shared(&group->not_low, ~at, 0);
				if (at > group->high)
					raise_shared(&group->high, at, 0);
			}
		}
	}
	add(major ? &stats->major : &stats->minor, 1);
	stats_time(stats, major, ns, config.minor_weight, false, &control.epoch, true);
	if (has_parts(t))
		stats_parts(stats, &t->parts, true);
	if (t->owes)
		t->owing = key;
}

/* A fault ended in a signal. It has no place among files. */
static __always_inline void group_failed(struct tracked *t, struct task_struct *task, u32 facts)
{
	struct faults_row_key key = {};
	struct faults_group *group;

	if (!GROUPED_BY(CAUSE))
		return;
	key.facts = facts;
	whose_key(t, task, &key);
	group = group_of(&key, t, task);
	if (!group)
		return;
	if (GROUPED_BY_WHOSE)
		t->grouped = 1;
	add(&group->failed, 1);
}

#endif

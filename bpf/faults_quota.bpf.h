/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tables that all processes share are finite. What a process may make in them depends on what is left, so that one that
 * makes as many as it can leaves something to each of the others; an eighth is kept for the rows of those that have
 * used up their share.
 */
#ifndef TRAPLINE_FAULTS_QUOTA_BPF_H
#define TRAPLINE_FAULTS_QUOTA_BPF_H

#include "faults_thread.bpf.h"

/* Of what processes have made, so many were taken out again. User space writes it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, struct faults_process);
	__type(value, u64);
} released SEC(".maps");

/* Entries of turns that are over are being taken out, see struct faults_control. */
static __always_inline bool is_stale(u64 turn)
{
	return turn && turn < control.stale;
}

static __always_inline struct faults_process maker_of(struct tracked *leader)
{
	struct faults_process owner = {.start_ns = leader->row.process_start_ns, .pid = leader->row.pid};

	return owner;
}

/* Whether a process may make another group. */
static __always_inline bool may_make_group(struct tracked *leader)
{
	struct faults_process owner = maker_of(leader);
	u64 most = config.groups - config.groups / 8, used = made.groups - control.taken_groups;
	u64 mine = leader->made, *less;

	if (used >= most)
		return false;
	/* That of most processes is little, whatever was taken out of it. */
	if (mine * config.share <= most - used)
		return true;
	less = bpf_map_lookup_elem(&released, &owner);
	return less && (*less >= mine || (mine - *less) * config.share <= most - used);
}

#endif

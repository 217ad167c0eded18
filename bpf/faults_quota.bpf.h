/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tables that all processes share are finite. What a process may make in them depends on what is left, and so does what
 * all processes of a user may: one that makes as many as it can, or starts as many others as it can, leaves something
 * to each of the others. An eighth is kept for the rows of those that have used up their share.
 */
#ifndef TRAPLINE_FAULTS_QUOTA_BPF_H
#define TRAPLINE_FAULTS_QUOTA_BPF_H

#include "faults_thread.bpf.h"

/* How many of the groups that a process or a user has made were taken out again. User space writes it. */
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

/* How many groups the processes of each user have made. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, u32);
	__type(value, u64);
} users SEC(".maps");

/* All processes of a user may have three times as many as are left. */
#define USER_SHARE 3

/* Of what was made, this many are there. */
static __always_inline bool is_within(u64 mine, struct faults_process *who, u64 most)
{
	u64 *less;

	/* Most have little, whatever was taken out of it. */
	if (mine <= most)
		return true;
	less = bpf_map_lookup_elem(&released, who);
	return less && (*less >= mine || mine - *less <= most);
}

enum quota {
	QUOTA_LEFT,
	QUOTA_OF_PROCESS, /* it has used up its share */
	QUOTA_OF_USER,    /* its user's processes have */
	QUOTA_FULL,
};

/* Whether the process that runs may make another group. */
static __always_inline enum quota may_make_group(struct tracked *leader)
{
	struct faults_process owner = maker_of(leader);
	u64 most = config.groups - config.groups / 8, used = made.groups - control.taken_groups;
	u64 chains = made.chains - control.taken_chains, *of_user;
	struct faults_process user = {};
	u32 uid = (u32)bpf_get_current_uid_gid();

	if (used < chains)
		used = chains;
	if (used >= most)
		return QUOTA_FULL;
	if (!config.share)
		return QUOTA_LEFT;
	if (!is_within(leader->made, &owner, (most - used) / config.share))
		return QUOTA_OF_PROCESS;
	of_user = bpf_map_lookup_elem(&users, &uid);
	user.start_ns = uid;
	return !of_user || is_within(*of_user, &user, (most - used) * USER_SHARE) ? QUOTA_LEFT : QUOTA_OF_USER;
}

/* The process that runs has made another group. */
static __always_inline void made_group(struct tracked *leader)
{
	u32 uid = (u32)bpf_get_current_uid_gid();
	u64 *of_user, one = 1;

	add(&made.groups, 1);
	__sync_fetch_and_add(&leader->made, 1);
	of_user = bpf_map_lookup_elem(&users, &uid);
	if (!of_user && !bpf_map_update_elem(&users, &uid, &one, BPF_NOEXIST))
		return;
	if (!of_user)
		of_user = bpf_map_lookup_elem(&users, &uid);
	if (of_user)
		__sync_fetch_and_add(of_user, 1);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * All processes share the ring. How much of it a process may fill depends on how much is free, and so does how much all
 * processes of a user may: those that fault as often as they can leave a part of it to everybody else.
 */
#ifndef TRAPLINE_FAULTS_RING_BPF_H
#define TRAPLINE_FAULTS_RING_BPF_H

#include "trap.bpf.h"
#include "faults.h"

/* What a process or a user has in the ring, or a little more: bytes are counted until all of them have been read. */
struct ring_part {
	u64 since; /* the writers' position when the count began */
	u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* user space sets the real size */
} events SEC(".maps");

/* The parts of users. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, u32);
	__type(value, struct ring_part);
} ring_users SEC(".maps");

/* Several processors may be here at once: then the count is off by a few records. */
static __always_inline bool is_within_part(struct ring_part *part, u64 read, u64 written, u64 most)
{
	if (read >= part->since) {
		part->since = written;
		part->bytes = 0;
	}
	return part->bytes < most;
}

/* Whether a process that runs may add a record to the ring. `process`: its part. */
static __always_inline bool may_send(struct ring_part *process, u64 bytes, u32 share)
{
	u32 uid = (u32)bpf_get_current_uid_gid();
	struct ring_part none = {}, *user;
	u64 read, written, left;

	if (!share)
		return true;
	read = bpf_ringbuf_query(&events, BPF_RB_CONS_POS);
	written = bpf_ringbuf_query(&events, BPF_RB_PROD_POS);
	left = bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) - (written - read);
	if (!is_within_part(process, read, written, left / share))
		return false;
	user = lookup_or_init(&ring_users, &uid, &none);
	if (user && !is_within_part(user, read, written, left))
		return false;
	add(&process->bytes, bytes);
	if (user)
		add(&user->bytes, bytes);
	return true;
}

#endif

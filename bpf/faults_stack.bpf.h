/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Faults by where they came from: the chain of calls in user mode, and in the kernel if the fault was taken there.
 *
 * Chains are kept whole under a hash of 64 bits, each once. The kernel's own maps of stacks have one place for each of
 * a few thousand values of a hash, and give a chain up when another has its place.
 */
#ifndef TRAPLINE_FAULTS_STACK_BPF_H
#define TRAPLINE_FAULTS_STACK_BPF_H

#include "faults_thread.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, u64);
	__type(value, struct faults_chain);
} chains SEC(".maps");

/* Too large for a program's own stack. A program is not run while it runs on the same processor. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct faults_chain);
} walked SEC(".maps");

#define STACK_PRIME 0x9e3779b97f4a7c15ULL /* 2^64 over the golden ratio: odd, and its bits look like chance */

/* The key of the chain that leads here; FAULTS_CHAIN_NONE if there is none, FAULTS_CHAIN_LOST if there is no room. */
static __always_inline u64 chain_here(void *ctx, u64 flags)
{
	u32 zero = 0;
	u64 hash = flags + 1;
	long bytes;
	struct faults_chain *chain = bpf_map_lookup_elem(&walked, &zero);

	if (!chain)
		return FAULTS_CHAIN_LOST;
	bytes = bpf_get_stack(ctx, chain->ip, sizeof(chain->ip), flags);
	if (bytes <= 0)
		return FAULTS_CHAIN_NONE;
	chain->count = bytes / sizeof(u64);
	for (u32 i = 0; i < FAULTS_CHAIN_LEN; i++) {
		if (i >= chain->count)
			break;
		hash = (hash ^ chain->ip[i]) * STACK_PRIME;
		hash ^= hash >> 29;
	}
	if (hash <= FAULTS_CHAIN_LOST)
		hash += FAULTS_CHAIN_LOST + 1;
	if (bpf_map_lookup_elem(&chains, &hash))
		return hash;
	bpf_map_update_elem(&chains, &hash, chain, BPF_NOEXIST);
	/* Another processor may have been first. */
	return bpf_map_lookup_elem(&chains, &hash) ? hash : FAULTS_CHAIN_LOST;
}

/* Whether this fault's chain is to be walked: it costs more than all the rest. */
static __always_inline bool stack_is_wanted(bool major)
{
	if (config.stack_every == 1)
		return true;
	if (!config.stack_every)
		return major;
	return bpf_get_prandom_u32() % config.stack_every == 0;
}

/*
 * A moment at which the process had the memory it has now, the same for all its threads: what an address means is
 * settled by that. Told by the number of execs, for the tracepoint of an exec may be missed.
 */
static __always_inline u64 image_of(struct tracked *t, struct task_struct *task)
{
	struct tracked *leader = t;

	if (task->pid != task->tgid)
		leader = bpf_task_storage_get(&threads, task->group_leader, 0, 0) ?: t;
	if (!leader->image_ns || leader->image_exec != task->self_exec_id) {
		leader->image_exec = task->self_exec_id;
		leader->image_ns = bpf_ktime_get_ns();
	}
	return leader->image_ns;
}

static __always_inline void stack_key(void *ctx, struct tracked *t, struct task_struct *task, bool major,
				      struct faults_group_key *key)
{
	if (!stack_is_wanted(major)) {
		key->word[0] = FAULTS_STACK_UNTAKEN;
		return;
	}
	key->word[0] = t->row.pid;
	key->word[1] = image_of(t, task);
	key->word[2] = chain_here(ctx, BPF_F_USER_STACK);
	key->word[3] = t->open_in_kernel ? chain_here(ctx, 0) : FAULTS_CHAIN_NONE;
}

#endif

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

static __always_inline u64 mix(u64 hash, u64 ip)
{
	hash = (hash ^ ip) * STACK_PRIME;
	return hash ^ hash >> 29;
}

/* The key of what was walked; FAULTS_CHAIN_LOST if there is no room for it. */
static __always_inline u64 keep(struct faults_chain *chain, u64 hash)
{
	if (hash <= FAULTS_CHAIN_LOST)
		hash += FAULTS_CHAIN_LOST + 1;
	if (bpf_map_lookup_elem(&chains, &hash))
		return hash;
	bpf_map_update_elem(&chains, &hash, chain, BPF_NOEXIST);
	/* Another processor may have been first. */
	return bpf_map_lookup_elem(&chains, &hash) ? hash : FAULTS_CHAIN_LOST;
}

/* The kernel's own walk. The key, or FAULTS_CHAIN_NONE. */
static __always_inline u64 chain_asked(void *ctx, struct faults_chain *chain, u64 flags)
{
	u64 hash = flags + 1;
	long bytes = bpf_get_stack(ctx, chain->ip, sizeof(chain->ip), flags);

	if (bytes <= 0)
		return FAULTS_CHAIN_NONE;
	chain->count = bytes / sizeof(u64);
	for (u32 i = 0; i < FAULTS_CHAIN_LEN; i++) {
		if (i >= chain->count)
			break;
		hash = mix(hash, chain->ip[i]);
	}
	return keep(chain, hash);
}

#define USER_CS     0x33   /* arch/x86/include/asm/segment.h: 64-bit code */
#define LEAST_FRAME 0x1000 /* nothing is mapped in page 0 */

/*
 * The same in user mode. The kernel's walk ends where a frame cannot be read, which is, in a program whose outermost
 * function has 0 or 1 for a frame pointer, always by an exception: it costs as much as the rest of the walk. So 64-bit
 * code is walked here, by the same rules, and the end is told by looking. Where return addresses on the stack were
 * replaced by uprobes only the kernel knows them.
 */
static __always_inline u64 chain_of_user(void *ctx, struct task_struct *task, struct faults_chain *chain)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct {
		u64 next, back;
	} frame;
	u64 hash = BPF_F_USER_STACK + 1, at;
	u32 n;

	/* A thread of the kernel's own (io_uring, vhost) never was in user mode: the rest is of who made it. */
	if (!regs->ip && !regs->sp)
		return FAULTS_CHAIN_NONE;
	if (regs->cs != USER_CS || has_uprobes(task))
		return chain_asked(ctx, chain, BPF_F_USER_STACK);
	chain->ip[0] = regs->ip;
	hash = mix(hash, regs->ip);
	at = regs->bp;
	for (n = 1; n < FAULTS_CHAIN_LEN; n++) {
		if (n >= config.stack_deepest || at < LEAST_FRAME)
			break;
		if (bpf_probe_read_user(&frame, sizeof(frame), (void *)at))
			break;
		chain->ip[n] = frame.back;
		hash = mix(hash, frame.back);
		at = frame.next;
	}
	chain->count = n;
	return keep(chain, hash);
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
	/* Before a walk: one that ends in an exception is another fault of this thread to us. */
	bool in_kernel = t->open_in_kernel;
	struct faults_chain *chain;
	u32 zero = 0;

	key->word[0] = FAULTS_STACK_UNTAKEN;
	if (!stack_is_wanted(major))
		return;
	chain = bpf_map_lookup_elem(&walked, &zero);
	if (!chain)
		return;
	key->word[0] = t->row.pid;
	key->word[1] = image_of(t, task);
	key->word[2] = chain_of_user(ctx, task, chain);
	key->word[3] = in_kernel ? chain_asked(ctx, chain, 0) : FAULTS_CHAIN_NONE;
}

#endif

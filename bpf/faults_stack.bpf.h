/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Faults by where they came from: the chain of calls in user mode, and in the kernel if the fault was taken there.
 *
 * Chains are kept whole under a hash of 64 bits, each once, and compared by another hash: a process chooses what is on
 * its stack, so both have a seed that it cannot know. The kernel's own maps of stacks have one place for each of a few
 * thousand values of a hash, and give a chain up when another has its place.
 */
#ifndef TRAPLINE_FAULTS_STACK_BPF_H
#define TRAPLINE_FAULTS_STACK_BPF_H

#include "faults_quota.bpf.h"
#ifdef UNWINDS
#include "unwind.bpf.h"
#endif

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

SHARED(enum faults_chain_key);

#define STACK_PRIME 0x9e3779b97f4a7c15ULL /* 2^64 over the golden ratio: odd, and its bits look like chance */

/* By chance, of each run: two for each place in a chain. */
const volatile u32 chain_keys[2 * FAULTS_CHAIN_LEN] SEC(".rodata.chain_keys") = {};

/* A chain's two hashes. */
struct hashes {
	u64 key;
	u64 check; /* NH (Black et al., UMAC, 1999): of chains of the same length one pair in 2^32, whatever they are */
};

static __always_inline void mix(struct hashes *of, u32 n, u64 ip)
{
	u64 hash = (of->key ^ ip) * STACK_PRIME;
	u32 low = (u32)ip + chain_keys[2 * n], high = (u32)(ip >> 32) + chain_keys[2 * n + 1];

	of->key = hash ^ hash >> 29;
	of->check += (u64)low * high;
}

/* Whether it is what was walked, and may be used. */
static __always_inline bool is_kept(struct faults_chain *kept, struct faults_chain *chain)
{
	return kept->check == chain->check && kept->count == chain->count && kept->end == chain->end &&
	       kept->turn >= control.stale_chains;
}

/* Where a stack goes for which there is no space. */
static __always_inline u64 others_by(enum quota quota)
{
	if (quota == QUOTA_OF_PROCESS)
		return FAULTS_CHAIN_OTHER;
	return quota == QUOTA_OF_USER ? FAULTS_CHAIN_OTHER_OF_USER : FAULTS_CHAIN_OTHER_FULL;
}

static __always_inline bool is_other_chain(u64 key)
{
	return key >= FAULTS_CHAIN_OTHER && key <= FAULTS_CHAIN_OTHER_FULL;
}

/* A key of a hash, which is not one of those that mean something else. */
static __always_inline u64 as_key(u64 hash)
{
	hash &= ~FAULTS_CHAIN_COPIED;
	return hash <= FAULTS_CHAIN_OTHER_FULL ? hash + FAULTS_CHAIN_OTHER_FULL + 1 : hash;
}

/* The key of what was walked; FAULTS_CHAIN_OTHER… or FAULTS_CHAIN_LOST if there is no place for it. */
static __always_inline u64 keep(struct faults_chain *chain, struct hashes *of, struct tracked *leader)
{
	u64 key = as_key(of->key), turn = control.turn;
	struct faults_chain *kept;
	enum quota quota;

	chain->check = of->check;
	kept = bpf_map_lookup_elem(&chains, &key);
	if (kept && !is_kept(kept, chain)) {
		/* Another one's, or about to be taken out. */
		key = as_key(~of->key);
		kept = bpf_map_lookup_elem(&chains, &key);
		if (kept && !is_kept(kept, chain))
			return FAULTS_CHAIN_LOST;
	}
	if (kept) {
		if (kept->turn != turn)
			kept->turn = turn;
		return key;
	}
	quota = may_make_group(leader);
	if (quota != QUOTA_LEFT)
		return others_by(quota);
	chain->turn = turn;
	if (!bpf_map_update_elem(&chains, &key, chain, BPF_NOEXIST)) {
		add(&made.chains, 1);
		return key;
	}
	/* Another processor may have been first. */
	kept = bpf_map_lookup_elem(&chains, &key);
	return kept && is_kept(kept, chain) ? key : FAULTS_CHAIN_LOST;
}

/* The key of a chain of that kind. */
static __always_inline u64 keep_whole(struct faults_chain *chain, struct tracked *leader, u64 flags)
{
	struct hashes of = {.key = config.seed ^ (flags + 1 + chain->end)};

	for (u32 i = 0; i < FAULTS_CHAIN_LEN; i++) {
		if (i >= chain->count)
			break;
		mix(&of, i, chain->ip[i]);
	}
	return keep(chain, &of, leader);
}

/* The kernel's own walk. The key, or FAULTS_CHAIN_NONE. */
static __always_inline u64 chain_asked(void *ctx, struct faults_chain *chain, struct tracked *leader, u64 flags)
{
	long bytes = bpf_get_stack(ctx, chain->ip, sizeof(chain->ip), flags);

	if (bytes <= 0)
		return FAULTS_CHAIN_NONE;
	chain->count = bytes / sizeof(u64);
	chain->end = 0;
	return keep_whole(chain, leader, flags);
}

#define USER_CS 0x33 /* arch/x86/include/asm/segment.h: 64-bit code */
#ifndef LEAST_FRAME
#define LEAST_FRAME 0x1000 /* nothing is mapped in page 0 */
#endif

/*
 * The same in user mode. The kernel's walk ends where a frame cannot be read, which is, in a program whose outermost
 * function has 0 or 1 for a frame pointer, always by an exception: it costs as much as the rest of the walk. So 64-bit
 * code is walked here, by the same rules, and the last frame is recognized by its value. Where return addresses on the
 * stack were replaced by uprobes only the kernel knows them.
 */
static __always_inline u64 chain_of_user(void *ctx, struct task_struct *task, struct faults_chain *chain,
					 struct tracked *leader)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct {
		u64 next, back;
	} frame;
	struct hashes of = {.key = config.seed ^ (BPF_F_USER_STACK + 1)};
	u64 at;
	u32 n;

	/* A thread of the kernel's own (io_uring, vhost) never was in user mode: the rest is of who made it. */
	if ((!regs->ip && !regs->sp) || executes(task))
		return FAULTS_CHAIN_NONE;
	if (regs->cs != USER_CS || has_uprobes(task))
		return chain_asked(ctx, chain, leader, BPF_F_USER_STACK);
#ifdef UNWINDS
	if (UNWINDS) {
		at = unwind(task, regs, chain, leader);
		if (at)
			return at;
		return keep_whole(chain, leader, BPF_F_USER_STACK);
	}
#endif
	chain->ip[0] = regs->ip;
	mix(&of, 0, regs->ip);
	at = regs->bp;
	for (n = 1; n < FAULTS_CHAIN_LEN; n++) {
		if (n >= config.stack_deepest || at < LEAST_FRAME)
			break;
		if (bpf_probe_read_user(&frame, sizeof(frame), (void *)at))
			break;
		chain->ip[n] = frame.back;
		mix(&of, n, frame.back);
		at = frame.next;
	}
	chain->count = n;
	chain->end = 0;
	return keep(chain, &of, leader);
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
 * decided by that. Recognized by the number of execs, as the tracepoint of an exec may be missed.
 */
static __always_inline u64 image_of(struct tracked *leader, struct task_struct *task)
{
	if (!leader->image_ns || leader->image_exec != task->self_exec_id) {
		leader->image_exec = task->self_exec_id;
		leader->image_ns = bpf_ktime_get_ns();
	}
	return leader->image_ns;
}

/* The row of a process that has used up its share; or of a user, who may have any number of processes. */
static __always_inline void other_stacks(struct faults_group_key *key, u64 chain)
{
	key->word[2] = chain;
	key->word[3] = FAULTS_CHAIN_NONE;
	if (chain == FAULTS_CHAIN_OTHER)
		return;
	key->word[0] = 0;
	key->word[1] = (u32)bpf_get_current_uid_gid();
}

/*
 * The number of a stack: what tells its faults apart when they are recorded. User space makes it of the key, too. Two
 * of the words are hashes that nobody can choose, and so are the numbers.
 */
static __always_inline u64 stack_id(const struct faults_group_key *key)
{
	u64 id = key->word[0] & ~FAULTS_SECOND;

	if (id == FAULTS_STACK_UNTAKEN)
		return 0;
	id = id * FAULTS_STACK_FACTOR + key->word[1];
	id = id * FAULTS_STACK_FACTOR + key->word[2];
	id = id * FAULTS_STACK_FACTOR + key->word[3];
	return id ?: 1;
}

static __always_inline void stack_key(void *ctx, struct tracked *t, struct task_struct *task, bool major,
				      struct faults_group_key *key)
{
	/* Before a walk: one that ends in an exception is another fault of this thread to us. */
	bool in_kernel = t->open_in_kernel;
	struct tracked *leader = leader_of(t, task);
	struct faults_chain *chain;
	u32 zero = 0;

	key->word[0] = FAULTS_STACK_UNTAKEN;
	if (!stack_is_wanted(major))
		return;
	chain = bpf_map_lookup_elem(&walked, &zero);
	if (!chain)
		return;
	key->word[0] = t->row.pid;
	key->word[1] = image_of(leader, task);
	key->word[2] = chain_of_user(ctx, task, chain, leader);
	key->word[3] = in_kernel ? chain_asked(ctx, chain, leader, 0) : FAULTS_CHAIN_NONE;
	if (is_other_chain(key->word[2]))
		other_stacks(key, key->word[2]);
	else if (is_other_chain(key->word[3]))
		other_stacks(key, key->word[3]);
}

#endif

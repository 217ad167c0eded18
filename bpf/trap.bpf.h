/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What all tools share in the kernel: which tasks are meant, and how a latency becomes a bucket. */
#ifndef TRAPLINE_TRAP_BPF_H
#define TRAPLINE_TRAP_BPF_H

#include "trap.h"

/* Puts a type into the object's own description of types, where a test compares it with its mirror in user space. */
#define SHARED(type)               SHARED_AS(type, __COUNTER__)
#define SHARED_AS(type, number)    SHARED_NAMED(type, number)
#define SHARED_NAMED(type, number) const type *shared_##number __attribute__((unused))

SHARED(enum trap_size);
SHARED(enum trap_by);

const volatile struct trap_filter filter SEC(".rodata.filter") = {};

/* The processes meant by -p, or the command that trapline itself started. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRAP_MAX_PIDS);
	__type(key, u32);
	__type(value, u8);
} pids SEC(".maps");

/* The names meant by --comm; what follows a name's end is 0. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRAP_MAX_NAMES);
	__type(key, char[TRAP_COMM_LEN]);
	__type(value, u8);
} wanted_names SEC(".maps");

/* The user IDs meant by --user. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRAP_MAX_USERS);
	__type(key, u32);
	__type(value, u8);
} wanted_users SEC(".maps");

/* The conditions that an object knows: all, unless its file says less. */
#ifndef FILTERS
#define FILTERS TRAP_BY_ANY
#endif

static __always_inline void add(u64 *counter, u64 n)
{
	__sync_fetch_and_add(counter, n);
}

/* The value of a key, made of `init` if there is none yet; NULL if there is no space for it. */
static __always_inline void *lookup_or_init(void *map, const void *key, const void *init)
{
	void *value = bpf_map_lookup_elem(map, key);

	if (value)
		return value;
	/* Another processor may be first. */
	bpf_map_update_elem(map, key, init, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

static __always_inline bool filters(u32 by)
{
	return filter.by & by & FILTERS;
}

/* In the kernel, what follows a name's end is anything. */
static __always_inline bool comm_is_wanted(const char *comm)
{
	char name[TRAP_COMM_LEN] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), comm);
	return bpf_map_lookup_elem(&wanted_names, name);
}

/* By the real user ID, as /proc/PID/status has it: not what a system call acts as for a while (override_creds()). */
static __always_inline bool user_is_wanted(struct task_struct *task)
{
	u32 uid = BPF_CORE_READ(task, real_cred, uid.val);

	return bpf_map_lookup_elem(&wanted_users, &uid);
}

/* The kernel's types of ids would be gone through at each start (CO-RE), and are of use in a PID namespace alone. */
static __always_inline u64 read_at(u64 object, u32 offset, u32 size)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, size, (void *)(object + offset));
	return value;
}

/* What our PID namespace calls that struct pid; 0 if it is not visible there. */
static __always_inline u32 number_of(u64 pid)
{
	struct upid own = {};

	if (!pid || read_at(pid, filter.numbers.level, 4) < filter.pid_level)
		return 0;
	bpf_probe_read_kernel(&own, sizeof(own),
			      (void *)(pid + filter.numbers.numbers + filter.pid_level * sizeof(own)));
	return read_at((u64)own.ns, filter.numbers.inum, 4) == filter.pid_inum ? own.nr : 0;
}

/*
 * A task's ids as user space knows them: every id that is compared or reported comes from here. 0: it is not visible in
 * our PID namespace, or it was reaped there.
 */
static __always_inline u32 tid_of(struct task_struct *task)
{
	if (!filter.pid_level)
		return task->pid;
	return number_of(read_at((u64)task, filter.numbers.thread_pid, 8));
}

static __always_inline u32 pid_of(struct task_struct *task)
{
	u64 signal;

	if (!filter.pid_level)
		return task->tgid;
	signal = read_at((u64)task, filter.numbers.signal, 8);
	return signal ? number_of(read_at(signal, filter.numbers.tgid, 8)) : 0;
}

static __always_inline u64 task_cgroup_id(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

/* The task's cgroup in the hierarchy that the filter is about. */
static __always_inline struct cgroup *cgroup_of(struct task_struct *task)
{
	struct css_set *set;
	u64 state;

	if (!filter.cgroup_subsys)
		return BPF_CORE_READ(task, cgroups, dfl_cgrp);
	set = BPF_CORE_READ(task, cgroups);
	state = read_at((u64)set, bpf_core_field_offset(set->subsys) + (filter.cgroup_subsys - 1) * 8, 8);
	/* The first field of struct cgroup_subsys_state is its cgroup (include/linux/cgroup-defs.h, 5.5 to 7.3). */
	return state ? (struct cgroup *)read_at(state, 0, 8) : NULL;
}

static __always_inline bool cgroup_is_wanted(struct task_struct *task)
{
	struct cgroup *cgrp = cgroup_of(task);

	if (!cgrp || BPF_CORE_READ(cgrp, level) < (int)filter.cgroup_level)
		return false;
	return cgroup_ancestor_id(cgrp, filter.cgroup_level) == filter.cgroup;
}

/* The part of the filter that may change in a thread's life: its name, its cgroup and its user. */
static __always_inline bool moving_filter_wants(struct task_struct *task, const char *comm)
{
	if (filters(TRAP_BY_COMM) && !comm_is_wanted(comm))
		return false;
	if (filters(TRAP_BY_CGROUP) && !cgroup_is_wanted(task))
		return false;
	if (filters(TRAP_BY_USER) && !user_is_wanted(task))
		return false;
	return true;
}

/* The part that is settled when a thread starts. A task that our PID namespace does not show is nobody's. */
static __always_inline bool fixed_filter_wants(struct task_struct *task)
{
	u32 pid = pid_of(task);

	if (filters(TRAP_BY_TID) && filter.tid != tid_of(task))
		return false;
	if (filters(TRAP_BY_PID) && !bpf_map_lookup_elem(&pids, &pid))
		return false;
	return pid != 0;
}

/*
 * Four buckets an octave: bucket i < 4 holds the value i; from there bucket 4(e-1)+s holds values whose highest bit
 * is e and whose next two bits are s. The last one is open-ended (from 7.5 s). model/src/hist.rs is the other half.
 * Global, so that the verifier goes through its branches once and not at each call.
 */
__noinline u32 hist_bucket(u64 value)
{
	u32 e = 0, bucket;
	u64 v = value;

	if (value < 4)
		return value;
	if (v >> 32) {
		e += 32;
		v >>= 32;
	}
	if (v >> 16) {
		e += 16;
		v >>= 16;
	}
	if (v >> 8) {
		e += 8;
		v >>= 8;
	}
	if (v >> 4) {
		e += 4;
		v >>= 4;
	}
	if (v >> 2) {
		e += 2;
		v >>= 2;
	}
	e += v >> 1;
	bucket = (e - 1) * 4 + ((value >> (e - 2)) & 3);
	return bucket < TRAP_BUCKETS ? bucket : TRAP_BUCKETS - 1;
}

/*
 * Programs that go through a map, MAP_read, where the kernel allows such programs (crates/probe/src/elements.rs). Each
 * element's key and value is written.
 */
#define MAP_READER(map, key_type, value_type)                                                                          \
	SEC("?iter/bpf_map_elem")                                                                                      \
	int map##_read(struct bpf_iter__bpf_map_elem *ctx)                                                             \
	{                                                                                                              \
		key_type *key = ctx->key;                                                                              \
		value_type *value = ctx->value;                                                                        \
                                                                                                                       \
		if (!key || !value)                                                                                    \
			return 0;                                                                                      \
		bpf_seq_write(ctx->meta->seq, key, sizeof(*key));                                                      \
		bpf_seq_write(ctx->meta->seq, value, sizeof(*value));                                                  \
		return 0;                                                                                              \
	}

/* The same of what is ready, which is taken out of the map. */
#define MAP_TAKER(map, key_type, value_type, is_ready)                                                                 \
	SEC("?iter/bpf_map_elem")                                                                                      \
	int map##_read(struct bpf_iter__bpf_map_elem *ctx)                                                             \
	{                                                                                                              \
		key_type *key = ctx->key, copy;                                                                        \
		value_type *value = ctx->value;                                                                        \
                                                                                                                       \
		if (!key || !value || !(is_ready))                                                                     \
			return 0;                                                                                      \
		copy = *key;                                                                                           \
		if (bpf_seq_write(ctx->meta->seq, &copy, sizeof(copy)) ||                                              \
		    bpf_seq_write(ctx->meta->seq, value, sizeof(*value)))                                              \
			return 0;                                                                                      \
		bpf_map_delete_elem(&map, &copy);                                                                      \
		return 0;                                                                                              \
	}

#endif

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * For unit tests, which run these programs by BPF_PROG_RUN (crates/probe/src/prog_run/): what decides the figures of
 * faults, called with inputs that a test chooses, in the test's own thread. Of type raw_tp: its programs get numbers as
 * arguments, and may follow pointers of the kernel's as those that are attached do.
 */
#define RING    config.ring
#define GROUP   config.group
#define UNWINDS config.unwinds
#define FILTERS TRAP_BY_ANY
#include "faults.bpf.h"
#include "faults_group_read.bpf.h"
#include "faults_file_read.bpf.h"
#include "faults_life.bpf.h"
#include "faults_span.bpf.h"

#define TEST_TABLES 16
#define TEST_MAKERS 8

/* What a program found out, beside the number that it returns. */
u64 test_out[8] SEC(".bss.test_out") = {};
struct faults_stats test_stats SEC(".bss.test_stats") = {};
u64 test_tables[TEST_TABLES][512] SEC(".bss.tables") = {};
u64 test_chain[FAULTS_CHAIN_LEN] SEC(".bss.test_chain") = {};
/* Processes. */
struct tracked test_makers[TEST_MAKERS] SEC(".bss.test_makers") = {};

static __always_inline struct tracked *maker(u64 n)
{
	struct tracked *t = &test_makers[n & (TEST_MAKERS - 1)];

	t->row.pid = t->row.process_start_ns = n + 1;
	return t;
}

SEC("?raw_tp")
int BPF_PROG(test_bucket, u64 value)
{
	return hist_bucket(value);
}

SEC("?raw_tp")
int BPF_PROG(test_time, u64 major, u64 ns, u64 weight, u64 shared)
{
	if (shared)
		stats_time(&test_stats, major, ns, weight, false, &control.epoch, true);
	else
		stats_time(&test_stats, major, ns, weight, false, &control.epoch, false);
	return 0;
}

/* From the table at that index on; entries hold addresses relative to the first table. */
SEC("?raw_tp")
int BPF_PROG(test_walk, u64 first, u64 addr, u64 mask, u64 levels)
{
	volatile u64 *base = &test_out[0];
	struct walk_end end;

	/* An address of a map is a number once it comes out of memory. */
	*base = (u64)test_tables;
	end = walk_to(*base + first * sizeof(test_tables[0]), addr, *base, mask, levels);
	test_out[1] = end.entry;
	return end.level;
}

SEC("?raw_tp")
int BPF_PROG(test_before, u64 entry, u64 write)
{
	u32 also = 0;
	u32 before = before_of(entry, write, &also);

	return FAULTS_FACTS(0, before, also);
}

/* The group of a fault at that address, and the area of memory that it is in. */
SEC("?raw_tp")
int BPF_PROG(test_group_key, u64 addr, u64 major, u64 facts)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = wanted_thread(task);
	struct faults_row_key key = {};
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct vm_area_struct *vma;
	u64 at = FAULTS_NONE;

	if (!t)
		return 0;
	if (KNOWS_FILES) {
		vma = find_vma(mm, addr);
		test_out[5] = vma ? BPF_CORE_READ(vma, vm_start) : 0;
		test_out[6] = vma ? BPF_CORE_READ(vma, vm_end) : 0;
		test_out[7] = vma ? memory_of(vma, BPF_CORE_READ(vma, vm_flags)) : FAULTS_MEMORY_UNKNOWN;
		group_sees(t, task, mm, vma, addr);
	}
	t->open_in_kernel = 0;
	if (!group_key(ctx, t, task, major, facts, &key, &at))
		return 0;
	__builtin_memcpy(test_out, &key.of, sizeof(key.of));
	test_out[4] = at;
	return 1;
}

/* The kernel's own walk through the thread's frames in user mode. */
SEC("?raw_tp")
int BPF_PROG(test_kernels_chain)
{
	return bpf_get_stack(ctx, test_chain, sizeof(test_chain), BPF_F_USER_STACK);
}

/* A fault of a process, in a group of that name; whether it has gone to the others. */
SEC("?raw_tp")
int BPF_PROG(test_group, u64 process, u64 name)
{
	struct faults_row_key key = {.of = {.word = {(u64)FAULTS_AREA_FILE << 32, name}}};
	struct faults_group *group = group_of(&key, maker(process), bpf_get_current_task_btf());

	if (!group)
		return -1;
	add(&group->stats.minor, 1);
	return is_of_others(&key);
}

/* A process has done so much more. */
SEC("?raw_tp")
int BPF_PROG(test_process_did, u64 process, u64 more)
{
	process_did(maker(process), bpf_get_current_task_btf(), more, false);
	return 0;
}

/* At a moment, a thread of a process comes back from a sleep. */
SEC("?raw_tp")
int BPF_PROG(test_slept, u64 pid, u64 now, u64 ns)
{
	struct faults_process process = {.pid = pid};
	struct stalls *of = lookup_or_init(&stalls, &process, &no_stalls);

	test_out[0] = of ? slept_until(of, now, ns) : FAULTS_NONE;
	return 0;
}

/* The thread has taken that many faults by now. */
SEC("?raw_tp")
int BPF_PROG(test_count_steps, u64 faults)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = wanted_thread(task);

	if (!t)
		return -1;
	t->base_major = task->maj_flt;
	t->base_minor = task->min_flt - faults;
	count_steps(t, task);
	return 0;
}

/* `mark`: the instruction of one; 0: a function. */
SEC("?raw_tp")
int BPF_PROG(test_span_enter, u64 span, u64 sp, u64 mark)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = wanted_thread(task);

	return mark ? on_span_enter(t, task, span, sp, true, mark) : on_span_enter(t, task, span, sp, false, 0);
}

SEC("?raw_tp")
int BPF_PROG(test_span_return, u64 span, u64 sp, u64 mark)
{
	return mark ? on_span_return(span, sp, true) : on_span_return(span, sp, false);
}

/* The thread ends, as far as its spans go. How many were open. */
SEC("?raw_tp")
int BPF_PROG(test_spans_left)
{
	struct span_walk w = {.s = bpf_task_storage_get(&span_stacks, bpf_get_current_task_btf(), 0, 0)};

	span_losses.open = 0;
	if (!w.s)
		return 0;
	w.depth = w.s->depth;
	bpf_loop(w.depth, count_one, &w, 0);
	leave_all(bpf_get_current_task_btf());
	return span_losses.open;
}

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A message each time a process's count passes a multiple of a step. Counted and decided here, so that nobody wakes
 * up in between: one number per process, to which its threads add; whose addition passes a multiple sends the message.
 */
#ifndef TRAPLINE_FAULTS_STEP_BPF_H
#define TRAPLINE_FAULTS_STEP_BPF_H

#include "faults_thread.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct faults_process);
	__type(value, u64);
} processes SEC(".maps");

/* Names the type, so that the object's BTF holds it. */
const struct faults_step *step_type __attribute__((unused));

static __always_inline struct faults_process process_of(struct tracked *t, struct task_struct *task)
{
	struct faults_process process = {.start_ns = BPF_CORE_READ(task, group_leader, start_time), .pid = t->row.pid};

	return process;
}

static __always_inline void send_step(struct faults_process *process, struct task_struct *task, u64 first, u64 last)
{
	struct faults_step *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		add(&losses.events, last - first + 1);
		return;
	}
	e->time_ns = bpf_ktime_get_ns();
	e->start_ns = process->start_ns;
	e->first = first;
	e->last = last;
	e->pid = process->pid;
	e->pad = 0;
	BPF_CORE_READ_INTO(&e->comm, task, group_leader, comm);
	/* The ring wakes its reader if nothing older waits in it; of what waits, faults have not woken anybody. */
	bpf_ringbuf_submit(e, config.verbose ? BPF_RB_FORCE_WAKEUP : 0);
}

static __always_inline void process_did(struct tracked *t, struct task_struct *task, u64 more)
{
	struct faults_process process = process_of(t, task);
	u64 *count, before, none = 0;

	count = bpf_map_lookup_elem(&processes, &process);
	if (!count) {
		bpf_map_update_elem(&processes, &process, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&processes, &process);
	}
	if (!count) {
		add(&losses.uncounted, more);
		return;
	}
	before = __sync_fetch_and_add(count, more);
	if ((before + more) / config.step > before / config.step)
		send_step(&process, task, before / config.step + 1, (before + more) / config.step);
}

/* Adds what the thread did since it was last asked. Its own events and a pass over all threads may ask at once. */
static __always_inline void count_steps(struct tracked *t, struct task_struct *task)
{
	u64 before = t->stepped, now;

	if (!config.step || config.step_of == FAULTS_STEP_STALL || t->unwanted)
		return;
	now = task->maj_flt - t->base_major;
	if (config.step_of == FAULTS_STEP_ALL)
		now += task->min_flt - t->base_minor;
	if (now > before && __sync_val_compare_and_swap(&t->stepped, before, now) == before)
		process_did(t, task, now - before);
}

static __always_inline void count_stall(struct tracked *t, struct task_struct *task, u64 ns)
{
	if (config.step && config.step_of == FAULTS_STEP_STALL)
		process_did(t, task, ns);
}

/* The process is gone for good. */
static __always_inline void forget_process(struct tracked *t, struct task_struct *task)
{
	struct faults_process process = process_of(t, task);

	if (config.step)
		bpf_map_delete_elem(&processes, &process);
}

#endif

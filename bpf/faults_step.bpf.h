/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A message each time a process's count passes a multiple of a step. Counted and decided here, so that nobody wakes
 * up in between: one number per process, to which its threads add; whose addition passes a multiple sends the message.
 * A thread that is the only one of its process knows how far that is, and until then keeps what it did to itself.
 */
#ifndef TRAPLINE_FAULTS_STEP_BPF_H
#define TRAPLINE_FAULTS_STEP_BPF_H

#include "faults_thread.bpf.h"
#include "faults_stall.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct faults_process);
	__type(value, u64);
} processes SEC(".maps");

SHARED(struct faults_step);
SHARED(enum faults_step_of);

static __always_inline struct faults_process process_of(struct tracked *t)
{
	struct faults_process process = {.start_ns = t->row.process_start_ns, .pid = t->row.pid};

	return process;
}

static __always_inline void send_step(struct tracked *t, struct faults_process *process, struct task_struct *task,
				      u64 now, u64 first, u64 last)
{
	/* A pass over all threads comes to each only now and then. */
	bool runs = task == bpf_get_current_task_btf();
	struct faults_step *e = NULL;

	if (!runs || may_send(&leader_of(t, task)->sent, sizeof(*e), config.ring_share))
		e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		add(&losses.events, last - first + 1);
		return;
	}
	e->time_ns = now;
	e->start_ns = process->start_ns;
	e->first = first;
	e->last = last;
	e->pid = process->pid;
	e->pad = 0;
	BPF_CORE_READ_INTO(&e->comm, task, group_leader, comm);
	/* The ring wakes its reader if nothing older waits in it; of what waits, faults have not woken anybody. */
	bpf_ringbuf_submit(e, SENDS_FAULTS ? BPF_RB_FORCE_WAKEUP : 0);
}

/*
 * Gives what the process has done by then; 0 if that is not known. In the scheduler no memory can be had for a process
 * that is new: it is there by then, see expects_more().
 */
static __always_inline u64 process_did(struct tracked *t, struct task_struct *task, u64 more, bool scheduling)
{
	struct faults_process process = process_of(t);
	u64 *count, before, last, none = 0;

	count = scheduling ? bpf_map_lookup_elem(&processes, &process) : lookup_or_init(&processes, &process, &none);
	if (!count) {
		add(&losses.uncounted, more);
		return 0;
	}
	before = __sync_fetch_and_add(count, more);
	last = (before + more) / config.step;
	if (last > before / config.step)
		send_step(t, &process, task, bpf_ktime_get_ns(), before / config.step + 1, last);
	return before + more;
}

static __always_inline u64 thread_did(struct tracked *t, struct task_struct *task)
{
	u64 major = own_major(t, task);

	return config.step_of == FAULTS_STEP_ALL ? major + own_minor(t, task) : major;
}

/* Adds what the thread did since that was last done. Its own events and a pass over all threads may do it at once. */
static __always_inline u64 add_steps(struct tracked *t, struct task_struct *task)
{
	u64 before = t->stepped, now = thread_did(t, task);

	if (now <= before || __sync_val_compare_and_swap(&t->stepped, before, now) != before)
		return 0;
	return process_did(t, task, now - before, false);
}

static __always_inline bool is_alone(struct task_struct *task)
{
	return task->signal->nr_threads == 1;
}

static __always_inline bool counts_steps(void)
{
	return SENDS_STEPS && config.step_of < FAULTS_STEP_STALL;
}

/* Whether there may be something to add. */
static __always_inline bool steps_are_due(struct tracked *t, struct task_struct *task)
{
	return counts_steps() && (thread_did(t, task) >= t->quiet_until || !is_alone(task));
}

/* A pass over all threads has come to this one. */
static __always_inline void catch_up_steps(struct tracked *t, struct task_struct *task)
{
	if (steps_are_due(t, task))
		add_steps(t, task);
}

/* The current thread has faulted. */
static __always_inline void count_steps(struct tracked *t, struct task_struct *task)
{
	u64 count;

	if (!steps_are_due(t, task))
		return;
	count = add_steps(t, task);
	t->quiet_until = count && is_alone(task) ? t->stepped + config.step - count % config.step : 0;
}

/* The thread ends, or is no longer the only one: what it kept to itself is added. */
static __always_inline void settle_steps(struct tracked *t, struct task_struct *task)
{
	if (counts_steps())
		add_steps(t, task);
	t->quiet_until = 0;
}

static __always_inline void process_slept(struct tracked *t, struct task_struct *task, u64 ns, bool scheduling)
{
	struct faults_process process = process_of(t);
	struct stalls *of;
	u64 now, stalled;

	of = scheduling ? bpf_map_lookup_elem(&stalls, &process) : lookup_or_init(&stalls, &process, &no_stalls);
	if (!of) {
		add(&losses.uncounted, 1);
		return;
	}
	/* Of the message, too: the next one comes no sooner than a window after it. */
	now = bpf_ktime_get_ns();
	stalled = slept_until(of, now, ns);
	if (stalled)
		send_step(t, &process, task, now, stalled, stalled);
}

/* A fault took that long, and in it the thread slept that long; `first`: the fault had not been counted as one of
 * these. */
static __always_inline void count_time(struct tracked *t, struct task_struct *task, u64 ns, u64 wait_ns, bool first,
				       bool scheduling)
{
	if (SENDS_STEPS && config.step_of == FAULTS_STEP_STALL)
		process_did(t, task, ns, scheduling);
	if (SENDS_STEPS && config.step_of == FAULTS_STEP_WAITS && first)
		process_did(t, task, 1, scheduling);
	if (counts_stalls() && wait_ns)
		process_slept(t, task, wait_ns, scheduling);
}

/* The thread may have to wait for its last fault yet: in the scheduler its process is to be found. */
static __always_inline void expects_more(struct tracked *t)
{
	struct faults_process process = process_of(t);
	u64 none = 0;

	if (counts_stalls())
		lookup_or_init(&stalls, &process, &no_stalls);
	else if (SENDS_STEPS && !counts_steps())
		lookup_or_init(&processes, &process, &none);
}

/* The process was reaped. */
static __always_inline void forget_process(struct tracked *t)
{
	struct faults_process process = process_of(t);

	if (counts_stalls())
		bpf_map_delete_elem(&stalls, &process);
	else if (SENDS_STEPS)
		bpf_map_delete_elem(&processes, &process);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Threads start, execute another program, and exit; meanwhile they are read. */
#ifndef TRAPLINE_FAULTS_LIFE_BPF_H
#define TRAPLINE_FAULTS_LIFE_BPF_H

#include "faults_thread.bpf.h"
#include "faults_step.bpf.h"
#include "faults_parts.bpf.h"

/* The slot of a descendant, which is wanted whenever its name and its cgroup are. */
static __always_inline struct tracked *track_descendant(struct task_struct *task, bool passing)
{
	struct tracked *t = track(task, passing);

	if (t)
		now_wanted(t, task, moving_filter_wants(task, task->comm));
	return t;
}

/*
 * The slot of a thread, also of one whose start was missed: a program is skipped where it interrupts itself, and from
 * 7.0 tracepoints can be preempted. Its leader or its parent then shows that it is a descendant, if it started during
 * the trace: of the children that were there before, none is. Where that cannot happen it is left out: for each pointer
 * that is followed the verifier goes through all the kernel's types (6.12, 6.18).
 */
static __always_inline struct tracked *tracked_or_descendant(struct task_struct *task, bool passing)
{
	struct tracked *t = tracked_or_new(task, passing), *of;

	if (t || !config.may_miss || !filters(TRAP_BY_TREE) || task->start_time < control.began_ns)
		return t;
	of = bpf_task_storage_get(&threads, task->group_leader, 0, 0);
	if (!of || !of->follow)
		of = bpf_task_storage_get(&threads, task->real_parent, 0, 0);
	if (!of || !of->follow)
		return NULL;
	return track_descendant(task, passing);
}

/* From here on another thread adds to the process's count, too. */
static __always_inline void on_new_thread(struct task_struct *parent, struct task_struct *child)
{
	struct tracked *t;

	if (!SENDS_STEPS || child->tgid != parent->tgid)
		return;
	t = bpf_task_storage_get(&threads, parent, 0, 0);
	if (t)
		settle_steps(t, parent);
}

/* What is made is a process with a copy of the memory: no thread, no kernel thread, and not what vfork makes. */
static __always_inline bool has_copy(struct task_struct *parent, struct task_struct *child)
{
	struct mm_struct *mm;

	if (child->tgid == parent->tgid)
		return false;
	mm = BPF_CORE_READ(child, mm);
	return mm && mm != BPF_CORE_READ(parent, mm);
}

static __always_inline void on_fork(struct task_struct *parent, struct tracked *by, struct tracked *of)
{
	if (by && !by->unwanted)
		by->row.forks++;
	if (of)
		of->row.forked_by = pid_of(parent);
}

/*
 * In the thread that makes it, before it runs. Not sched_process_fork: that is not for threads which the kernel makes
 * in a process by itself (create_io_thread(), vhost_task_create(); 5.12 and later).
 */
SEC("?tp_btf/task_newtask")
int BPF_PROG(thread_born, struct task_struct *child)
{
	struct task_struct *parent = bpf_get_current_task_btf();
	struct tracked *by = NULL, *of = NULL;

	on_new_thread(parent, child);
	if (filters(TRAP_BY_TREE)) {
		by = tracked_or_descendant(parent, false);
		if (by && by->follow)
			of = track_descendant(child, false);
	} else {
		of = tracked_or_new(child, false);
	}
	if (has_copy(parent, child))
		on_fork(parent, by ?: tracked_or_new(parent, false), of);
	return 0;
}

/*
 * A bucket may be locked by what this program interrupts, or by a processor that stands still (from 6.15 on it is
 * waited for 250 ms at most, kernel/bpf/rqspinlock.c): the next number is in another one.
 */
static __always_inline bool keep_retired(struct faults_thread *row)
{
	for (int tries = 0; tries < 3; tries++) {
		u64 serial = __sync_fetch_and_add(&retired_serial, 1);

		if (!bpf_map_update_elem(&retired, &serial, row, BPF_NOEXIST))
			return true;
	}
	return false;
}

static __always_inline void retire(struct tracked *t, struct task_struct *task)
{
	if (!t)
		return;
	end_unseen(t, task);
	show_late(t, task);
	if (each_matters() && !t->unwanted)
		unseen(t, task, 0, 0);
	settle_steps(t, task);
	if (GROUPED && !GROUPED_BY_WHOSE) /* its faults are in their groups already */
		return;
	fill_row(t, task);
	/* The row of a thread with groups has the name that goes with them. */
	if (!t->row.stats.major && !t->row.stats.minor && !t->grouped)
		return;
	if (!keep_retired(&t->row)) {
		add(&losses.unattributed_major, t->row.stats.major);
		add(&losses.unattributed_minor, t->row.stats.minor);
	}
	add(&made.retired, 1);
	/* What it does after this (exit_mm may fault) is retired by a later hook, as a row of its own. */
	clear_stats(&t->row.stats);
	t->row.forks = 0;
	t->stepped = 0;
	t->grouped = 0;
	if (!t->unwanted) {
		t->base_major = task->maj_flt;
		t->base_minor = task->min_flt;
	}
}

/* A thread that is not the leader takes over the leader's id when it calls exec: another row begins. */
SEC("?tp_btf/sched_process_exec")
int BPF_PROG(thread_execed, struct task_struct *task, pid_t old_pid)
{
	struct tracked *t;

	if (old_pid == task->pid)
		return 0;
	t = tracked_or_descendant(task, false);
	retire(t, task);
	if (t)
		identify(t, task);
	return 0;
}

SEC("?tp_btf/sched_process_exit")
int BPF_PROG(thread_ends, struct task_struct *task)
{
	retire(tracked_or_descendant(task, false), task);
	return 0;
}

/*
 * Once more, as a program of its own: one that interrupts itself is skipped (see tracked_or_descendant()), and of a
 * thread whose end was skipped nothing is heard before it is freed, which may be after the trace.
 */
SEC("?tp_btf/sched_process_exit")
int BPF_PROG(thread_ends_too, struct task_struct *task)
{
	retire(tracked_or_descendant(task, false), task);
	return 0;
}

/* See compat.bpf.h: later than thread_ends, where the kernel has it and the thread passes it. */
SEC("?tp_btf/x86_fpu_dropped")
int BPF_PROG(thread_ended)
{
	struct task_struct *task = bpf_get_current_task_btf();

	retire(bpf_task_storage_get(&threads, task, 0, 0), task);
	return 0;
}

/* The last event of a thread, some milliseconds after it was reaped: its parent may have been freed by now. */
SEC("?tp_btf/sched_process_free")
int BPF_PROG(thread_freed, struct task_struct *task)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	retire(t, task);
	if (t && task->pid == task->tgid)
		forget_process(t);
	return 0;
}

/* ---- reading: one pass over all threads ---- */

/*
 * Counting begins: at one moment for all threads. One that faults before this pass comes to it is met by that fault's
 * beginning, so it is counted from then; the others did nothing in between.
 */
SEC("?iter/task")
int threads_adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!control.began_ns)
		control.began_ns = bpf_ktime_get_ns();
	if (task)
		tracked_or_new(task, true);
	else /* after the last one */
		control.adopted = 1;
	return 0;
}

SEC("?iter/task")
int threads_read(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct tracked *t;

	if (!task)
		return 0;
	t = tracked_or_descendant(task, true);
	if (!t || !t->known)
		return 0;
	if (filters(TRAP_BY_CGROUP | TRAP_BY_USER))
		now_wanted(t, task, moving_filter_wants(task, task->comm));
	catch_up_steps(t, task);
	fill_row(t, task);
	if (control.last) {
		end_unseen(t, task);
		show_late(t, task);
	}
	if (GROUPED && !GROUPED_BY_WHOSE)
		return 0;
	if (t->row.stats.major || t->row.stats.minor || t->grouped)
		bpf_seq_write(ctx->meta->seq, &t->row, sizeof(t->row));
	return 0;
}

/* The rows of threads that ended. */
MAP_TAKER(retired, u64, struct faults_thread, true)

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Spans: what a thread's figures are at the entry of a function (or at a mark) and at its return, as a difference.
 * A fault costs nothing more for that. Calls that never return (longjmp, an exception, the end of the thread) are found
 * by the stack: what lies deeper than the stack is now was left.
 */
#ifndef TRAPLINE_FAULTS_SPAN_BPF_H
#define TRAPLINE_FAULTS_SPAN_BPF_H

#include "faults_thread.bpf.h"
#include "faults_span.h"

/* A function has taken its return address off the stack when it has returned. */
#if defined(__TARGET_ARCH_x86)
#define SPAN_ENTRY_SP(ctx) (PT_REGS_SP(ctx) - 8)
#else
#define SPAN_ENTRY_SP(ctx) PT_REGS_SP(ctx)
#endif

#define SPAN_GONE (~0u) /* a frame in the middle that is no longer one */

/* An open span. */
struct span_frame {
	u64 sp;    /* at a function's entry, where its return address is; at a mark, the end of the stack */
	u64 place; /* of a mark: its instruction; 0: a function's */
	u64 time_ns;
	u64 major; /* the thread's figures then */
	u64 minor;
	u64 timed;
	u64 stall_ns;
	u64 major_ns;
	u32 span;
	u32 pad;
};

/* The open spans of a thread, innermost last. */
struct span_stack {
	u32 depth;
	u32 pad;
	u8 open[SPANS_MAX]; /* how many of each span */
	struct span_frame frames[SPANS_DEPTH];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct span_stack);
} span_stacks SEC(".maps");

/* By span. A program may be preempted by another one on its processor, so even these are changed atomically. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1); /* user space sets how many */
	__type(key, u32);
	__type(value, struct faults_span);
} span_cells SEC(".maps");

SHARED(enum faults_span_size);

struct faults_span_losses span_losses SEC(".bss.spans") = {};

/* Keeps an index within an array in a way that the compiler cannot find needless: the verifier wants to see it. */
#define SPAN_WITHIN(index, size)                                                                                       \
	({                                                                                                             \
		u64 _index = (index);                                                                                  \
		asm volatile("%0 &= %1" : "+r"(_index) : "i"((size) - 1));                                             \
		_index;                                                                                                \
	})

static __always_inline struct span_frame *frame_at(struct span_stack *s, u32 at)
{
	return &s->frames[SPAN_WITHIN(at, SPANS_DEPTH)];
}

static __always_inline u8 *open_of(struct span_stack *s, u32 span)
{
	return &s->open[SPAN_WITHIN(span, SPANS_MAX)];
}

/* Forgets a frame, wherever it is. */
static __always_inline void close_frame(struct span_stack *s, struct span_frame *f)
{
	(*open_of(s, f->span))--;
	f->span = SPAN_GONE;
}

static __always_inline void leave(struct span_stack *s, struct span_frame *f)
{
	u32 span = f->span;
	struct faults_span *cell = bpf_map_lookup_elem(&span_cells, &span);

	if (cell)
		add(&cell->unfinished, 1);
	close_frame(s, f);
}

/*
 * A way through a thread's open spans, innermost first. The ways are bpf_loop()s: the verifier goes into one once, but
 * into a loop of C at each of its SPANS_DEPTH turns.
 */
struct span_walk {
	struct span_stack *s;
	u64 sp;
	u64 place;
	u32 span;
	u32 depth; /* where it began */
	u32 found; /* a frame's place, from 1 */
	bool mark;
	bool jumped; /* at a function's entry: by a tail call */
};

static __always_inline struct span_frame *frame_of(struct span_walk *w, u32 turn)
{
	return frame_at(w->s, w->depth - 1 - turn);
}

static long trim_one(u32 turn, struct span_walk *w)
{
	struct span_stack *s = w->s;

	if (!s->depth || frame_at(s, s->depth - 1)->span != SPAN_GONE)
		return 1;
	s->depth--;
	return 0;
}

/* Takes away what is no longer a frame from the end. */
static __always_inline void trim(struct span_walk *w)
{
	bpf_loop(w->s->depth, trim_one, w, 0);
}

static long leave_one(u32 turn, struct span_walk *w)
{
	struct span_frame *f = frame_of(w, turn);

	if (f->span != SPAN_GONE)
		leave(w->s, f);
	return 0;
}

static __always_inline void leave_all(struct task_struct *task)
{
	struct span_walk w = {.s = bpf_task_storage_get(&span_stacks, task, 0, 0)};

	if (!w.s)
		return;
	w.depth = w.s->depth;
	bpf_loop(w.depth, leave_one, &w, 0);
	w.s->depth = 0;
}

static long leave_deeper_one(u32 turn, struct span_walk *w)
{
	struct span_frame *f = frame_of(w, turn);

	if (f->span == SPAN_GONE || f->place)
		return 0;
	if (f->sp > w->sp || (f->sp == w->sp && w->jumped))
		return 1;
	leave(w->s, f);
	return 0;
}

/*
 * At a function's entry: calls whose return address lies deeper than the stack is now were left. One that lies where
 * ours does was left too, unless it has jumped here (a tail call): then our return address is already the kernel's
 * trampoline, which stands in for the one before.
 */
static __always_inline void leave_deeper(struct span_walk *w, struct task_struct *task)
{
	u64 trampoline = 0, back = 0;

	if (!w->depth)
		return;
	trampoline = BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr);
	if (trampoline && !bpf_probe_read_user(&back, sizeof(back), (void *)w->sp))
		w->jumped = back == trampoline;
	bpf_loop(w->depth, leave_deeper_one, w, 0);
	trim(w);
}

static long leave_marked_one(u32 turn, struct span_walk *w)
{
	struct span_frame *f = frame_of(w, turn);

	if (f->span == w->span && f->place == w->place && f->sp <= w->sp)
		leave(w->s, f);
	return 0;
}

/* At a mark: the same span that began here, no less deep in the stack, was left. */
static __always_inline void leave_marked(struct span_walk *w)
{
	if (!*open_of(w->s, w->span))
		return;
	bpf_loop(w->depth, leave_marked_one, w, 0);
	trim(w);
}

/* `place`: the instruction of a mark. */
static __always_inline int on_span_enter(struct tracked *t, struct task_struct *task, u32 span, u64 sp, bool mark,
					 u64 place)
{
	struct span_walk w = {.span = span, .sp = sp, .place = mark ? place : 0};
	struct faults_stats *stats;
	struct span_stack *s;
	struct span_frame *f;

	if (!t || w.span >= SPANS_MAX)
		return 0;
	s = bpf_task_storage_get(&span_stacks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!s) {
		add(&span_losses.untracked, 1);
		return 0;
	}
	w.s = s;
	w.depth = s->depth;
	if (mark)
		leave_marked(&w);
	else
		leave_deeper(&w, task);
	if (s->depth >= SPANS_DEPTH) {
		add(&span_losses.too_deep, 1);
		return 0;
	}
	f = frame_at(s, s->depth);
	s->depth++;
	(*open_of(s, w.span))++;
	stats = &t->row.stats;
	f->sp = w.sp;
	f->place = w.place;
	f->major = task->maj_flt;
	f->minor = task->min_flt;
	f->timed = stats->timed_major + stats->timed_minor;
	f->stall_ns = stats->major_ns + stats->minor_ns;
	f->major_ns = stats->major_ns;
	f->span = w.span;
	f->pad = 0;
	f->time_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void call_extremes(struct faults_span *cell, u64 interval, u64 stall, u64 ns)
{
	raise_extremes(&cell->stall.recent, interval, stall, true);
	raise_extremes(&cell->span.recent, interval, ns, true);
}

static __always_inline void call_time(struct faults_call_times *times, u64 ns)
{
	raise_extremes(&times->all, 0, ns, true);
	add(&times->hist[hist_bucket(ns) & (TRAP_BUCKETS - 1)], 1);
}

static __always_inline void call_returns(struct span_stack *s, struct span_frame *f, struct tracked *t,
					 struct task_struct *task, u64 now)
{
	struct faults_stats *stats = &t->row.stats;
	u64 ns = now - f->time_ns, stall = stats->major_ns + stats->minor_ns - f->stall_ns, interval = control.epoch;
	u32 span = f->span;
	struct faults_span *cell = bpf_map_lookup_elem(&span_cells, &span);

	close_frame(s, f);
	if (!cell)
		return;
	call_extremes(cell, interval, stall, ns);
	call_time(&cell->stall, stall);
	call_time(&cell->span, ns);
	add(&cell->calls, 1);
	if (control.epoch != interval)
		call_extremes(cell, control.epoch, stall, ns);
	if (*open_of(s, span))
		return;
	add(&cell->major, task->maj_flt - f->major);
	add(&cell->minor, task->min_flt - f->minor);
	add(&cell->timed, stats->timed_major + stats->timed_minor - f->timed);
	add(&cell->stall_ns, stall);
	add(&cell->major_ns, stats->major_ns - f->major_ns);
	add(&cell->span_ns, ns);
}

static long find_one(u32 turn, struct span_walk *w)
{
	struct span_frame *f = frame_of(w, turn);

	if (f->span == SPAN_GONE || w->mark != !!f->place)
		return 0;
	if (!w->mark && f->sp > w->sp)
		return 1;
	if (f->span == w->span && (w->mark || f->sp == w->sp)) {
		w->found = w->depth - turn;
		return 1;
	}
	if (!w->mark)
		leave(w->s, f);
	return 0;
}

/* `sp`: where the return address of a function was. */
static __always_inline int on_span_return(u32 span, u64 sp, bool mark)
{
	u64 now = bpf_ktime_get_ns();
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);
	struct span_walk w = {
	    .s = bpf_task_storage_get(&span_stacks, task, 0, 0),
	    .span = span,
	    .sp = sp,
	    .mark = mark,
	};

	if (!t)
		return 0;
	if (w.s) {
		w.depth = w.s->depth;
		bpf_loop(w.depth, find_one, &w, 0);
		if (w.found) {
			struct span_frame *f = frame_at(w.s, w.found - 1);

			/* What it did since it left the filter is not known. */
			if (t->unwanted)
				leave(w.s, f);
			else
				call_returns(w.s, f, t, task, now);
			trim(&w);
			return 0;
		}
	}
	if (!t->unwanted)
		add(&span_losses.unmatched, 1);
	return 0;
}

/* Empty. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} nowhere SEC(".maps");

/*
 * From 6.13 on the kernel gives a program of this type a stack of the processor's, and trusts that the program cannot
 * run there twice at once. That does not hold for uprobes on kernels that preempt them (seen on 7.3: figures of another
 * thread, and a crash). A program that has a tail call anywhere keeps the thread's own stack; this one never happens.
 */
#define SPAN_OWN_STACK(ctx)                                                                                            \
	do {                                                                                                           \
		if (config.groups == ~0u)                                                                              \
			bpf_tail_call(ctx, &nowhere, 0);                                                               \
	} while (0)

static __always_inline int span_begins(struct pt_regs *ctx, bool mark)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = wanted_thread(task);

	SPAN_OWN_STACK(ctx);
	return on_span_enter(t, task, bpf_get_attach_cookie(ctx), PT_REGS_SP(ctx), mark, PT_REGS_IP(ctx));
}

static __always_inline int span_ends(struct pt_regs *ctx, bool mark)
{
	SPAN_OWN_STACK(ctx);
	return on_span_return(bpf_get_attach_cookie(ctx), SPAN_ENTRY_SP(ctx), mark);
}

SEC("?uprobe")
int span_enters(struct pt_regs *ctx)
{
	return span_begins(ctx, false);
}

SEC("?uretprobe")
int span_returns(struct pt_regs *ctx)
{
	return span_ends(ctx, false);
}

SEC("?uprobe")
int span_starts(struct pt_regs *ctx)
{
	return span_begins(ctx, true);
}

SEC("?uprobe")
int span_is_done(struct pt_regs *ctx)
{
	return span_ends(ctx, true);
}

SEC("?tp_btf/sched_process_exit")
int BPF_PROG(span_thread_ends, struct task_struct *task)
{
	leave_all(task);
	return 0;
}

/* Nothing of the program that it was returns any more. */
SEC("?tp_btf/sched_process_exec")
int BPF_PROG(span_thread_execs, struct task_struct *task)
{
	leave_all(task);
	return 0;
}

static long count_one(u32 turn, struct span_walk *w)
{
	if (frame_of(w, turn)->span != SPAN_GONE)
		add(&span_losses.open, 1);
	return 0;
}

/* At the end: what is still open. */
SEC("?iter/task")
int span_remains(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct span_walk w = {};

	if (!task)
		return 0;
	w.s = bpf_task_storage_get(&span_stacks, task, 0, 0);
	if (!w.s)
		return 0;
	w.depth = w.s->depth;
	bpf_loop(w.depth, count_one, &w, 0);
	return 0;
}

#endif

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Page faults. Counts are never our own: a thread's row is task->maj_flt/min_flt less their values at the start, so
 * it equals what getrusage says on every variant, faults on a thread's behalf (GUP) included. The variants differ in
 * how a fault's time is taken: from entry to completion of handle_mm_fault (fentry, kprobe), from the exception to
 * the software event of its accounting (tracepoint), or not at all (counters).
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "compat.bpf.h"
#include "trap.bpf.h"
#include "faults.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define VM_FAULT_RETRY 0x400 /* include/linux/mm_types.h: the same from 5.4 to 7.3 */

const volatile struct faults_config config SEC(".rodata.config") = {};
volatile struct faults_control control SEC(".data.control") = {};
struct faults_losses losses SEC(".bss.losses") = {};

struct tracked {
	struct faults_thread row;
	u64 base_major; /* task->maj_flt when counting began */
	u64 base_minor;
	u64 seen_major; /* task->maj_flt at the last event */
	u64 seen_minor;
	u64 open_ns; /* the fault that is being handled: 0 if none */
	u64 open_addr;
	u64 open_ip;
	u32 open_rw;
	u32 open_page;
	u32 retrying; /* its handling returned VM_FAULT_RETRY and will be taken up again */
	u32 unwanted; /* the filter does not want it at the moment; row.major/minor hold what it did while wanted */
	u32 follow;   /* its children are traced too */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tracked);
} threads SEC(".maps");

/* Rows of threads that ended; user space empties it several times a second. Keys are serial numbers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct faults_thread);
} retired SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* user space sets the real size */
} events SEC(".maps");

/* Names the type, so that the object's BTF holds it. */
const struct faults_event *event_type __attribute__((unused));

static u64 retired_serial;

static __always_inline void add(u64 *counter, u64 n)
{
	__sync_fetch_and_add(counter, n);
}

static __always_inline void clear_stats(struct faults_thread *row)
{
	row->major = row->minor = 0;
	row->timed_major = row->timed_minor = 0;
	row->major_ns = row->minor_ns = 0;
	row->max_ns = 0;
	row->min_ns = FAULTS_NONE;
	__builtin_memset(row->hist, 0, sizeof(row->hist));
	for (int i = 0; i < 2; i++) {
		row->recent[i].epoch = FAULTS_NONE;
		row->recent[i].max_ns = 0;
		row->recent[i].min_ns = FAULTS_NONE;
	}
}

static __always_inline void count_from_here(struct tracked *t, struct task_struct *task)
{
	t->base_major = t->seen_major = task->maj_flt;
	t->base_minor = t->seen_minor = task->min_flt;
}

static __always_inline void identify(struct tracked *t, struct task_struct *task)
{
	t->row.start_ns = task->start_time;
	t->row.pid = task->tgid;
	t->row.tid = task->pid;
}

static __always_inline struct tracked *track(struct task_struct *task)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!t) {
		add(&losses.untracked, 1);
		return NULL;
	}
	clear_stats(&t->row);
	identify(t, task);
	/* A thread born during the trace is counted from its birth, whenever we come across it. */
	if (task->start_time < filter.began_ns)
		count_from_here(t, task);
	t->follow = (filter.by & TRAP_BY_TREE) != 0;
	return t;
}

/* The thread's slot; made now if the filter wants the thread and it has none. */
static __always_inline struct tracked *tracked_or_new(struct task_struct *task)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	if (t)
		return t;
	if (filter.by) {
		if (!fixed_filter_wants(task))
			return NULL;
		if ((filter.by & (TRAP_BY_COMM | TRAP_BY_CGROUP)) && !moving_filter_wants(task, task->comm))
			return NULL;
	} else if (!task->tgid) {
		return NULL;
	}
	return track(task);
}

static __always_inline void now_wanted(struct tracked *t, struct task_struct *task, bool wanted)
{
	if (wanted && t->unwanted) {
		t->base_major = task->maj_flt - t->row.major;
		t->base_minor = task->min_flt - t->row.minor;
		t->seen_major = task->maj_flt;
		t->seen_minor = task->min_flt;
		t->unwanted = 0;
	} else if (!wanted && !t->unwanted) {
		t->row.major = task->maj_flt - t->base_major;
		t->row.minor = task->min_flt - t->base_minor;
		t->unwanted = 1;
	}
}

/* The slot of a thread whose faults are to be timed now, or NULL. */
static __always_inline struct tracked *wanted_thread(struct task_struct *task)
{
	struct tracked *t = tracked_or_new(task);

	if (!t)
		return NULL;
	if (filter.by & TRAP_BY_CGROUP)
		now_wanted(t, task, moving_filter_wants(task, task->comm));
	return t->unwanted ? NULL : t;
}

static __always_inline void fill_row(struct tracked *t, struct task_struct *task)
{
	if (!t->unwanted) {
		t->row.major = task->maj_flt - t->base_major;
		t->row.minor = task->min_flt - t->base_minor;
	}
	t->row.cgroup = task_cgroup_id(task);
	__builtin_memcpy(t->row.comm, task->comm, TRAP_COMM_LEN);
}

/* ---- verbose: one event a fault ---- */

static __always_inline u64 user_ip(struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	return BPF_CORE_READ(regs, ip);
}

static __always_inline void send(struct tracked *t, struct task_struct *task, u64 count, u32 major, u64 latency)
{
	struct faults_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	bool seen = latency != FAULTS_NONE;

	if (!e) {
		add(&losses.events, count);
		return;
	}
	e->time_ns = bpf_ktime_get_ns();
	e->start_ns = t->row.start_ns;
	e->addr = seen ? t->open_addr : FAULTS_NONE;
	e->ip = seen ? t->open_ip : FAULTS_NONE;
	e->user_ip = seen ? user_ip(task) : FAULTS_NONE;
	e->rw = seen ? t->open_rw : FAULTS_RW_UNKNOWN;
	e->page = seen ? t->open_page : FAULTS_PAGE_UNKNOWN;
	e->cpu = bpf_get_smp_processor_id();
	e->latency_ns = latency;
	e->count = count;
	e->pid = t->row.pid;
	e->tid = t->row.tid;
	e->major = major;
	__builtin_memcpy(e->comm, task->comm, TRAP_COMM_LEN);
	bpf_ringbuf_submit(e, 0);
}

/* Reports what the kernel counted since the last event and no event showed, so that events and losses add up. */
static __always_inline void send_unseen(struct tracked *t, struct task_struct *task, u32 major, u32 minor)
{
	u64 unseen_major = task->maj_flt - t->seen_major - major;
	u64 unseen_minor = task->min_flt - t->seen_minor - minor;

	if ((s64)unseen_major > 0)
		send(t, task, unseen_major, 1, FAULTS_NONE);
	if ((s64)unseen_minor > 0)
		send(t, task, unseen_minor, 0, FAULTS_NONE);
}

static __always_inline void catch_up(struct tracked *t, struct task_struct *task)
{
	t->seen_major = task->maj_flt;
	t->seen_minor = task->min_flt;
}

/* ---- the life of a fault ---- */

static __always_inline void fault_begins(struct tracked *t, u64 addr, u64 ip, u32 rw, u32 page)
{
	t->open_addr = addr;
	t->open_ip = ip;
	t->open_rw = rw;
	t->open_page = page;
	t->retrying = 0;
	t->open_ns = bpf_ktime_get_ns();
}

static __always_inline void fault_ends(struct tracked *t, struct task_struct *task, bool major)
{
	struct faults_thread *row = &t->row;
	u64 ns = bpf_ktime_get_ns() - t->open_ns;
	u64 epoch = control.epoch;
	struct faults_extremes *recent = &row->recent[epoch & 1];
	u32 bucket = hist_bucket(ns);

	t->open_ns = 0;
	if (major) {
		row->timed_major++;
		row->major_ns += ns;
		row->hist[bucket & (TRAP_BUCKETS - 1)]++;
	} else {
		row->timed_minor++;
		row->minor_ns += ns;
		row->hist[bucket & (TRAP_BUCKETS - 1)] += config.minor_weight;
	}
	if (ns > row->max_ns)
		row->max_ns = ns;
	if (ns < row->min_ns)
		row->min_ns = ns;
	if (recent->epoch != epoch) {
		recent->epoch = epoch;
		recent->max_ns = 0;
		recent->min_ns = FAULTS_NONE;
	}
	if (ns > recent->max_ns)
		recent->max_ns = ns;
	if (ns < recent->min_ns)
		recent->min_ns = ns;
	if (config.verbose) {
		send_unseen(t, task, major, !major);
		send(t, task, 1, major, ns);
		catch_up(t, task);
	}
}

/* ---- variant tracepoint: exception to accounting ---- */

#define PF_PROT  (1u << 0) /* arch/x86/include/asm/trap_pf.h */
#define PF_WRITE (1u << 1)
#define PF_INSTR (1u << 4)

static __always_inline int exception(unsigned long addr, struct pt_regs *regs, unsigned long error)
{
	struct tracked *t;

	if ((s64)addr < 0) /* the kernel's own memory: no page fault in the sense of the accounting */
		return 0;
	t = wanted_thread(bpf_get_current_task_btf());
	if (t)
		fault_begins(t, addr, regs->ip,
			     error & PF_INSTR   ? FAULTS_EXEC
			     : error & PF_WRITE ? FAULTS_WRITE
						: FAULTS_READ,
			     error & PF_PROT ? FAULTS_PAGE_PRESENT : FAULTS_PAGE_ABSENT);
	return 0;
}

SEC("?tp_btf/page_fault_user")
int BPF_PROG(tracepoint_user, unsigned long addr, struct pt_regs *regs, unsigned long error)
{
	return exception(addr, regs, error);
}

SEC("?tp_btf/page_fault_kernel")
int BPF_PROG(tracepoint_kernel, unsigned long addr, struct pt_regs *regs, unsigned long error)
{
	return exception(addr, regs, error);
}

static __always_inline int accounted(struct bpf_perf_event_data *ctx, bool major)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	if (!t || t->unwanted)
		return 0;
	if (t->open_ns && t->open_addr == ctx->addr)
		fault_ends(t, task, major);
	else
		add(&losses.unpaired, 1);
	return 0;
}

SEC("?perf_event")
int tracepoint_major(struct bpf_perf_event_data *ctx)
{
	return accounted(ctx, true);
}

SEC("?perf_event")
int tracepoint_minor(struct bpf_perf_event_data *ctx)
{
	return accounted(ctx, false);
}

/* ---- variants fentry and kprobe: handle_mm_fault ---- */

#define FAULT_FLAG_WRITE       0x1 /* include/linux/mm_types.h: values never moved */
#define FAULT_FLAG_INSTRUCTION 0x100

static __always_inline int handling(unsigned long addr, u32 flags, struct pt_regs *regs)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = wanted_thread(task);
	u64 ip = FAULTS_NONE;

	if (!t)
		return 0;
	if (t->retrying && t->open_addr == addr) {
		t->retrying = 0;
		return 0;
	}
	if (config.verbose) {
		send_unseen(t, task, 0, 0);
		if (regs)
			ip = BPF_CORE_READ(regs, ip);
	}
	catch_up(t, task);
	fault_begins(t, addr, ip,
		     flags & FAULT_FLAG_INSTRUCTION ? FAULTS_EXEC
		     : flags & FAULT_FLAG_WRITE     ? FAULTS_WRITE
						    : FAULTS_READ,
		     FAULTS_PAGE_UNKNOWN);
	return 0;
}

static __always_inline int handled(u32 ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	if (!t || t->unwanted || !t->open_ns)
		return 0;
	if (ret & VM_FAULT_RETRY) {
		t->retrying = 1;
		return 0;
	}
	/* The kernel has done its accounting by now: the counter that moved says what the fault was. */
	if (task->maj_flt != t->seen_major)
		fault_ends(t, task, true);
	else if (task->min_flt != t->seen_minor)
		fault_ends(t, task, false);
	t->open_ns = 0;
	return 0;
}

SEC("?fentry/handle_mm_fault")
int BPF_PROG(fentry_begin, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs)
{
	return handling(addr, flags, regs);
}

SEC("?fexit/handle_mm_fault")
int BPF_PROG(fentry_end, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs,
	     u32 ret)
{
	return handled(ret);
}

SEC("?kprobe/handle_mm_fault")
int BPF_KPROBE(kprobe_begin, struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs)
{
	return handling(addr, flags, regs);
}

SEC("?kretprobe/handle_mm_fault")
int BPF_KRETPROBE(kprobe_end, u32 ret)
{
	return handled(ret);
}

/* One program for both ends, where the kernel has sessions (6.10). */
extern bool bpf_session_is_return(void) __ksym __weak;

SEC("?kprobe.session/handle_mm_fault")
int kprobe_session(struct pt_regs *ctx)
{
	if (bpf_session_is_return())
		return handled(PT_REGS_RC(ctx));
	return handling(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx), (struct pt_regs *)PT_REGS_PARM4(ctx));
}

/* ---- threads: born, renamed, turned into another program, ended ---- */

SEC("?tp_btf/sched_process_fork")
int BPF_PROG(thread_born, struct task_struct *parent, struct task_struct *child)
{
	if (filter.by & TRAP_BY_TREE) {
		struct tracked *t = bpf_task_storage_get(&threads, parent, 0, 0);

		if (!t || !t->follow)
			return 0;
		t = track(child);
		if (t)
			now_wanted(t, child, moving_filter_wants(child, child->comm));
	} else {
		tracked_or_new(child);
	}
	return 0;
}

/* The thread's name or cgroup changes: what it does from here on is wanted, or not. */
static __always_inline void filter_moves(struct task_struct *task, bool wanted)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	if (t) {
		now_wanted(t, task, wanted);
		return;
	}
	if (!wanted || !fixed_filter_wants(task))
		return;
	t = track(task);
	if (t)
		count_from_here(t, task);
}

/* Fires before the name changes. */
SEC("?tp_btf/task_rename")
int BPF_PROG(thread_renamed, struct task_struct *task, const char *name)
{
	char comm[TRAP_COMM_LEN] = {};

	bpf_probe_read_kernel_str(comm, sizeof(comm), name);
	filter_moves(task, moving_filter_wants(task, comm));
	return 0;
}

/* Fires after the move, once for a whole process; its other threads are noticed at their next event. */
SEC("?tp_btf/cgroup_attach_task")
int BPF_PROG(thread_moved, struct cgroup *cgrp, const char *path, struct task_struct *task)
{
	filter_moves(task, moving_filter_wants(task, task->comm));
	return 0;
}

static __always_inline void retire(struct task_struct *task)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);
	u64 serial;

	if (!t)
		return;
	if (config.verbose && !t->unwanted) {
		send_unseen(t, task, 0, 0);
		catch_up(t, task);
	}
	fill_row(t, task);
	if (!t->row.major && !t->row.minor)
		return;
	serial = __sync_fetch_and_add(&retired_serial, 1);
	if (bpf_map_update_elem(&retired, &serial, &t->row, BPF_NOEXIST)) {
		add(&losses.unattributed_major, t->row.major);
		add(&losses.unattributed_minor, t->row.minor);
	}
	/* What it does after this (a few faults may come in exit_mm) is retired by a later hook, as a row of its own.
	 */
	clear_stats(&t->row);
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
	retire(task);
	t = bpf_task_storage_get(&threads, task, 0, 0);
	if (t)
		identify(t, task);
	return 0;
}

SEC("?tp_btf/sched_process_exit")
int BPF_PROG(thread_ends, struct task_struct *task)
{
	retire(task);
	return 0;
}

/* See compat.bpf.h: later than thread_ends, where the kernel has it and the thread passes it. */
SEC("?tp_btf/x86_fpu_dropped")
int BPF_PROG(thread_ended)
{
	retire(bpf_get_current_task_btf());
	return 0;
}

/* The last that is heard of a thread, some milliseconds after it was reaped. */
SEC("?tp_btf/sched_process_free")
int BPF_PROG(thread_freed, struct task_struct *task)
{
	retire(task);
	return 0;
}

/* ---- reading: one pass over all threads ---- */

SEC("?iter/task")
int threads_adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task)
		tracked_or_new(task);
	return 0;
}

SEC("?iter/task")
int threads_read(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct tracked *t;

	if (!task)
		return 0;
	t = tracked_or_new(task);
	if (!t)
		return 0;
	if (filter.by & TRAP_BY_CGROUP)
		now_wanted(t, task, moving_filter_wants(task, task->comm));
	fill_row(t, task);
	if (config.verbose && control.last && !t->unwanted) {
		send_unseen(t, task, 0, 0);
		catch_up(t, task);
	}
	if (t->row.major || t->row.minor)
		bpf_seq_write(ctx->meta->seq, &t->row, sizeof(t->row));
	return 0;
}

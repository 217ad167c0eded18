/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is kept of a thread: what it is counted from, the fault that it is in, and what is sent of each (verbose). */
#ifndef TRAPLINE_FAULTS_THREAD_BPF_H
#define TRAPLINE_FAULTS_THREAD_BPF_H

#include "trap.bpf.h"
#include "faults.h"
#include "faults_stats.bpf.h"
#include "faults_ring.bpf.h"

const volatile struct faults_config config SEC(".rodata.config") = {};

/*
 * An object is a file (faults_*.bpf.c) that says what it does, by three constants, and includes what it is made of:
 *
 *   RING     what goes to the ring, FAULTS_RING_*
 *   GROUP    what completed faults are grouped by, FAULTS_GROUP_*; NONE: by their thread alone
 *   FILTERS  the conditions of a filter that it knows: TRAP_BY_*
 *
 * What it does not do is not in it. For each type that an object needs, libbpf goes through all the kernel's types, and
 * the verifier through each instruction (7.3, also through those that are never reached): most of a start.
 */
#define SENDS_FAULTS     ((RING & FAULTS_RING_FAULTS) != 0)
#define SENDS_STEPS      ((RING & FAULTS_RING_STEPS) != 0)
#define GROUPED          (GROUP != FAULTS_GROUP_NONE)
#define GROUPED_BY(KIND) ((GROUP & FAULTS_GROUP_##KIND) != 0)
/* Each group is of one thread, process or cgroup. */
#define GROUPED_BY_WHOSE (GROUPED_BY(THREAD) || GROUPED_BY(PROCESS) || GROUPED_BY(CGROUP))
/* What is mapped where a thread faults, and what each fault was for, is to be known. */
#define KNOWS_FILES  (SENDS_FAULTS || GROUPED_BY(FILE))
#define KNOWS_CAUSES ((RING & FAULTS_RING_CAUSES) || GROUPED_BY(CAUSE))

volatile struct faults_control control SEC(".data.control") = {};
struct faults_losses losses SEC(".bss.losses") = {};
struct faults_stats unattributed SEC(".data.unattributed") = {}; /* grouped: what belongs to no group, see rest_of() */
struct faults_made made SEC(".bss.made") = {};
struct faults_alive alive SEC(".bss.alive") = {};

/* The area of memory in which a thread faulted last, and what is known of it. */
struct mapping {
	u64 mm; /* 0: none */
	u64 sequence, exec;
	u64 start, size;
	u64 offset; /* of its first byte, in the file; FAULTS_NONE: it has none */
	u64 facts;
};

struct tracked {
	/* What every fault touches is together: a fault that clears a page leaves little in the nearest cache. */
	u64 open_ns; /* the fault that is being handled: 0 if none */
	u64 open_addr;
	u64 began_ns;     /* the last fault, be it open or not */
	u64 exception_ns; /* the last exception: 0 once a fault has begun with it */
	u64 exception_addr;
	u64 seen_major; /* task->maj_flt at the last event */
	u64 seen_minor;
	u32 retrying; /* its handling returned VM_FAULT_RETRY and will be taken up again */
	u32 unwanted; /* the filter does not want it at the moment; row.stats.major/minor hold what it did while wanted
		       */
	u32 follow;   /* its children are traced too */
	u32 open_rw;
	u64 base_major; /* task->maj_flt when counting began */
	u64 base_minor;
	u64 quiet_until; /* how much of the row there is before its process passes the next multiple; 0: not known */
	u64 stepped;     /* how much of the row its process's steps contain */
	struct faults_thread row;
	u64 open_ip;
	u32 open_page;
	u32 open_named;  /* by which turn names were stale when this one was found; 0: it was not */
	u32 open_facts;  /* see faults_cause.bpf.h */
	u32 open_level;  /* of the table that had no entry for the page; 0 if it had one */
	u64 open_table;  /* the topmost of the page tables */
	u64 open_faults; /* task->maj_flt and min_flt when it began, where its completion may not be seen */
	struct mapping mapping;
	struct fault_parts parts;
	struct faults_row_key owing;       /* the group of that fault */
	struct faults_group_key open_file; /* what is mapped where it faults, see faults_file.bpf.h */
	u64 open_offset;
	u64 image_ns;       /* of a leader: a moment after its last exec, before any fault with a stack since then */
	u64 image_exec;     /* how many execs there had been then */
	u32 open_in_kernel; /* the fault is not one of user mode */
	u32 owes;           /* OWES_*: what its last fault has reserved beyond memory.high may be waited for yet */
	u32 handled;        /* it is in handle_mm_fault, or that is not known */
	u32 known;          /* the thread itself, or a pass, has written down who it is and what it is counted from */
	u32 is_away;        /* it is counted in `away` */
	u32 made;           /* of a leader: groups that its process has made */
	u32 grouped;        /* it has faults in groups since it was last retired: GROUPED_BY_WHOSE */
	u64 owes_ns;        /* the time of that fault */
	u64 late_ns;        /* the same, if it is not shown yet; see show_fault() */
	u32 late_facts;
	u32 late_outcome;
	u64 stack;             /* of its last fault: see stack_id() */
	struct ring_part sent; /* of a leader: by its process */
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

SHARED(struct faults_event);
SHARED(enum faults_mark);
SHARED(enum faults_size);
SHARED(enum faults_ring);
SHARED(enum faults_group_by);
SHARED(enum faults_rw);
SHARED(enum faults_page);
SHARED(enum faults_outcome);
SHARED(enum faults_part);

static u64 retired_serial;

static __always_inline void count_from_here(struct tracked *t, struct task_struct *task)
{
	t->base_major = t->seen_major = task->maj_flt;
	t->base_minor = t->seen_minor = task->min_flt;
}

static __always_inline void identify(struct tracked *t, struct task_struct *task)
{
	t->row.start_ns = task->start_time;
	t->row.pid = pid_of(task);
	t->row.tid = tid_of(task);
	/* Followed directly, the verifier would go through all types of the kernel at each visit (6.12, 6.18). */
	t->row.process_start_ns = BPF_CORE_READ(task, group_leader, start_time);
}

/* The slot of the process's first thread, or the thread's own if that is not followed. */
static __always_inline struct tracked *leader_of(struct tracked *t, struct task_struct *task)
{
	if (task->pid == task->tgid)
		return t;
	return bpf_task_storage_get(&threads, task->group_leader, 0, 0) ?: t;
}

static __always_inline void begin_slot(struct tracked *t, struct task_struct *task)
{
	t->base_major = t->seen_major = t->base_minor = t->seen_minor = 0;
	/*
	 * A thread that started during the trace is counted from its start, whenever we come across it; but nothing
	 * tells when a thread's user changes, and one that we come across later may have been another user's before.
	 */
	if (task->start_time < control.began_ns || filters(TRAP_BY_USER))
		count_from_here(t, task);
	identify(t, task);
	t->follow = filters(TRAP_BY_TREE);
	t->known = 1;
}

/* A slot as a pass over the threads makes it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct tracked);
} draft SEC(".maps");

/*
 * The thread's slot, made by the thread itself, or before it runs (`passing` is false), or by a pass while it runs.
 * Either may come first: what a pass makes appears whole, or the thread would count on from a slot that is not yet
 * written. What the thread has not finished is none for the pass.
 */
static __always_inline struct tracked *track(struct task_struct *task, bool passing)
{
	struct tracked *t, *whole = NULL;
	u32 only = 0;

	if (!control.began_ns || control.last)
		return NULL;
	if (passing) {
		whole = bpf_map_lookup_elem(&draft, &only);
		if (!whole)
			return NULL;
		begin_slot(whole, task);
	}
	t = bpf_task_storage_get(&threads, task, whole, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t) {
		add(&losses.untracked, 1);
		return NULL;
	}
	if (!passing && !t->known)
		begin_slot(t, task);
	return t;
}

/* The thread's slot; made now if the filter wants the thread and it has none. */
static __always_inline struct tracked *tracked_or_new(struct task_struct *task, bool passing)
{
	struct tracked *t = bpf_task_storage_get(&threads, task, 0, 0);

	if (t)
		return t;
	if (!fixed_filter_wants(task))
		return NULL;
	if (filters(TRAP_BY_MOVING) && !moving_filter_wants(task, task->comm))
		return NULL;
	return track(task, passing);
}

/* ---- verbose: one event a fault ---- */

/* The thread was not at work all the time of its last fault. */
static __always_inline bool has_parts(struct tracked *t)
{
	return t->parts.of && t->parts.of == t->began_ns;
}

static __always_inline bool has_slept(struct tracked *t)
{
	return has_parts(t) && t->parts.slept;
}

/* Threads of the kernel's own never were in user mode: they have 0. */
static __always_inline u64 user_ip(struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	return BPF_PROBE_READ(regs, ip) ?: FAULTS_NONE;
}

/* The process and the cgroup of a fault's thread: all that it can be grouped by later. */
static __always_inline void say_whose(struct faults_event *e, struct task_struct *task)
{
	e->cgroup = 0;
	__builtin_memset(e->process_comm, 0, TRAP_COMM_LEN);
	if (!(RING & FAULTS_RING_CAUSES))
		return;
	e->cgroup = task_cgroup_id(task);
	if (task->pid == task->tgid)
		__builtin_memcpy(e->process_comm, task->comm, TRAP_COMM_LEN);
	else
		BPF_CORE_READ_INTO(&e->process_comm, task, group_leader, comm);
}

/* Of faults that were not seen, only the number is known: latency and facts are FAULTS_NONE and 0. */
static __always_inline void send_fault(struct tracked *t, struct task_struct *task, u64 count, u32 outcome, u64 latency,
				       u32 facts, bool seen)
{
	/* The scheduler runs for the thread that leaves: that is not whose ring it is. */
	bool runs = task == bpf_get_current_task_btf();
	struct faults_event *e = NULL;

	if (!runs || may_send(&leader_of(t, task)->sent, sizeof(*e), config.ring_share))
		e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		add(SENDS_STEPS ? &losses.unexplained : &losses.events, count);
		return;
	}
	e->time_ns = seen && latency != FAULTS_NONE ? t->began_ns + latency : bpf_ktime_get_ns();
	e->start_ns = t->row.start_ns;
	e->process_start_ns = t->row.process_start_ns;
	e->addr = seen ? t->open_addr : FAULTS_NONE;
	e->ip = seen ? t->open_ip : FAULTS_NONE;
	e->user_ip = seen ? user_ip(task) : FAULTS_NONE;
	e->rw = seen ? t->open_rw : FAULTS_RW_UNKNOWN;
	e->page = seen ? t->open_page : FAULTS_PAGE_UNKNOWN;
	if (seen && KNOWS_FILES)
		e->file = t->open_file;
	else
		__builtin_memset(&e->file, 0, sizeof(e->file));
	e->offset = seen && KNOWS_FILES ? t->open_offset : FAULTS_NONE;
	e->wait_ns = 0;
	__builtin_memset(e->part_ns, 0, sizeof(e->part_ns));
	if (seen && has_parts(t)) {
		e->wait_ns = t->parts.wait_ns;
		__builtin_memcpy(e->part_ns, t->parts.part_ns, sizeof(e->part_ns));
	}
	e->cpu = bpf_get_smp_processor_id();
	e->latency_ns = latency;
	e->count = count;
	e->pid = t->row.pid;
	e->tid = t->row.tid;
	e->outcome = outcome;
	e->facts = facts;
	e->pad = 0;
	__builtin_memcpy(e->comm, task->comm, TRAP_COMM_LEN);
	say_whose(e, task);
	e->stack = seen && outcome != FAULTS_FAILED && GROUPED_BY(STACK) ? t->stack : 0;
	/* Nobody wakes up between messages of steps. */
	bpf_ringbuf_submit(e, SENDS_STEPS ? BPF_RB_NO_WAKEUP : 0);
}

/* Not inlined: it is called in many places, and seldom has something to do. */
static __noinline void send_late(struct tracked *t, struct task_struct *task, u64 ns)
{
	if (__sync_val_compare_and_swap(&t->late_ns, ns, 0) == ns && ns >= config.slower)
		send_fault(t, task, 1, t->late_outcome, ns, t->late_facts, true);
}

/* A fault is shown that was kept back: before the next one takes its place, or as its thread ends. */
static __always_inline void show_late(struct tracked *t, struct task_struct *task)
{
	if (SENDS_FAULTS && t->late_ns)
		send_late(t, task, t->late_ns);
}

/* A fault is complete. One that its thread may wait for yet, on its way to user mode, is kept back for that time. */
static __always_inline void show_fault(struct tracked *t, struct task_struct *task, u32 outcome, u64 ns, u32 facts)
{
	if (t->owes) {
		t->late_outcome = outcome;
		t->late_facts = facts;
		t->late_ns = ns;
	} else if (ns >= config.slower) {
		send_fault(t, task, 1, outcome, ns, facts, true);
	}
}

/* Where what belongs to no group goes. If groups say whose they are, the thread's row has no more than that. */
static __always_inline struct faults_stats *rest_of(struct tracked *t)
{
	return GROUPED_BY_WHOSE ? &t->row.stats : &unattributed;
}

/* Whether every fault has to be accounted for, not only their number. */
static __always_inline bool each_matters(void)
{
	return SENDS_FAULTS || GROUPED;
}

static __always_inline void catch_up(struct tracked *t, struct task_struct *task)
{
	t->seen_major = task->maj_flt;
	t->seen_minor = task->min_flt;
}

static __always_inline u64 claim(u64 *seen, u64 now)
{
	u64 before = *seen;

	return now != before && __sync_val_compare_and_swap(seen, before, now) == before ? now - before : 0;
}

/*
 * Accounts for what the kernel counted since the last event and no event showed, so that what is shown, grouped and
 * lost adds up. Of that, `major` and `minor` are the event's own: false if it has been accounted for already, by
 * a pass over all threads.
 */
static __always_inline bool unseen(struct tracked *t, struct task_struct *task, u64 major, u64 minor)
{
	u64 more_major = claim(&t->seen_major, task->maj_flt);
	u64 more_minor = claim(&t->seen_minor, task->min_flt);
	bool own = more_major >= major && more_minor >= minor;

	if (own) {
		more_major -= major;
		more_minor -= minor;
	}
	if (SENDS_FAULTS && !config.slower && more_major)
		send_fault(t, task, more_major, FAULTS_MAJOR, FAULTS_NONE, 0, false);
	if (SENDS_FAULTS && !config.slower && more_minor)
		send_fault(t, task, more_minor, FAULTS_MINOR, FAULTS_NONE, 0, false);
	if (GROUPED && more_major)
		add(&rest_of(t)->major, more_major);
	if (GROUPED && more_minor)
		add(&rest_of(t)->minor, more_minor);
	return own;
}

static __always_inline u64 own_major(struct tracked *t, struct task_struct *task)
{
	return t->unwanted ? t->row.stats.major : task->maj_flt - t->base_major;
}

static __always_inline u64 own_minor(struct tracked *t, struct task_struct *task)
{
	return t->unwanted ? t->row.stats.minor : task->min_flt - t->base_minor;
}

static __always_inline void now_wanted(struct tracked *t, struct task_struct *task, bool wanted)
{
	if (wanted && t->unwanted && !control.last) {
		if (!GROUPED_BY_WHOSE) {
			t->base_major = task->maj_flt - t->row.stats.major;
			t->base_minor = task->min_flt - t->row.stats.minor;
		}
		catch_up(t, task);
		t->unwanted = 0;
	} else if (!wanted && !t->unwanted) {
		if (each_matters())
			unseen(t, task, 0, 0);
		if (!GROUPED_BY_WHOSE) {
			t->row.stats.major = own_major(t, task);
			t->row.stats.minor = own_minor(t, task);
		}
		t->unwanted = 1;
	}
}

/* The slot of a thread whose faults are to be timed now, or NULL. */
static __always_inline struct tracked *wanted_thread(struct task_struct *task)
{
	struct tracked *t = tracked_or_new(task, false);

	if (!t)
		return NULL;
	if (filters(TRAP_BY_CGROUP | TRAP_BY_USER))
		now_wanted(t, task, moving_filter_wants(task, task->comm));
	return t->unwanted ? NULL : t;
}

static __always_inline void fill_row(struct tracked *t, struct task_struct *task)
{
	/* By name it is wanted under the name that it had. */
	if (!t->unwanted)
		__builtin_memcpy(t->row.comm, task->comm, TRAP_COMM_LEN);
	/* What it does from here on is not counted, nor timed: each fault is both, or neither. */
	if (control.last)
		now_wanted(t, task, false);
	if (!GROUPED_BY_WHOSE) {
		t->row.stats.major = own_major(t, task);
		t->row.stats.minor = own_minor(t, task);
	}
	if (FILTERS & TRAP_BY_CGROUP)
		t->row.cgroup = task_cgroup_id(task);
	BPF_CORE_READ_INTO(&t->row.process_comm, task, group_leader, comm);
}

#endif

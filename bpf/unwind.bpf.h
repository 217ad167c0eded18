/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Chains of calls in user mode by unwind tables, and by frame pointers where code has none (made at run time, or
 * written by hand) or its table is not there yet. User space makes the tables of .eh_frame, one a file, and puts them
 * into one array of rows. Which file an address is in the kernel knows best: so nothing is kept of processes, and no
 * mapping comes too late.
 */
#ifndef TRAPLINE_UNWIND_BPF_H
#define TRAPLINE_UNWIND_BPF_H

#include "vma.bpf.h"
#include "unwind.h"

SHARED(enum unwind_kind);
SHARED(enum unwind_size);
SHARED(enum unwind_state);
SHARED(enum unwind_end);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, u32);
	__type(value, struct unwind_row);
} unwind_rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* user space sets the real size */
	__type(key, struct unwind_file);
	__type(value, struct unwind_table);
} unwind_tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024); /* user space sets the real size */
} unwind_misses SEC(".maps");
SHARED(struct unwind_miss);
SHARED(struct unwind_copy);

struct copied {
	struct unwind_copy of;
	u8 stack[UNWIND_COPY];
};

/* Too large for a program's own stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct copied);
} copied SEC(".maps");

/* How the callers of code in a mapping are found. */
enum unwind_by {
	BY_NOTHING = 0, /* it is no code */
	BY_TABLE,
	BY_FRAME,
	BY_LATE_TABLE,    /* it will be there */
	BY_REFUSED_TABLE, /* it will not */
};

struct unwind_mapping {
	u64 start;
	u64 bytes;
	u64 bias; /* what an address lacks to the offset in the file */
	u32 first;
	u32 rows;
	enum unwind_by by;
	u32 pad;
};

#define UNWIND_MAPPINGS 4 /* a power of two: a chain mostly goes to and fro between a program and some libraries */

/* The outcome of a search. Most frames of a stack were in an earlier one, too. */
struct unwind_found {
	u64 at; /* the file's first row and the offset in it */
	u32 rule;
	u32 turn; /* it is that of this turn: then other rows may be there */
};

#define UNWIND_FOUND_BITS 9
#define UNWIND_PRIME      0x9e3779b97f4a7c15ULL /* 2^64 over the golden ratio: odd, and its bits look like chance */

/* A piece of the stack: a read takes as long for many words as for two. */
#define UNWIND_WINDOW 256

struct unwind_window {
	u64 start;
	u64 bytes;
	u8 of[UNWIND_WINDOW];
};

/* Too large for a program's own stack. A program is not run while it runs on the same processor. */
struct unwinding {
	struct unwind_mapping mappings[UNWIND_MAPPINGS];
	/* They are what this address space has, until somebody changes it. */
	u64 mm;
	u64 sequence;
	u64 image_ns;
	u64 turn;
	u64 ip;
	u64 sp;
	u64 bp;
	u32 n;     /* frames so far */
	u32 exact; /* ip is of an instruction that was interrupted, not of one behind a call */
	u32 newest;
	u32 by_frame; /* the last step was by frame pointer, and so a guess */
	u32 pid;
	u32 late;   /* some step was by frame pointer for want of a table */
	u32 waits;  /* the walk stands still where a table is being made */
	u32 copies; /* a walk may do that */
	struct unwind_window window;
	struct unwind_found found[1 << UNWIND_FOUND_BITS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct unwinding);
} unwinding SEC(".maps");

struct unwind_walk {
	struct unwinding *u;
	struct faults_chain *chain;
	struct task_struct *task;
};

#define VM_EXEC 0x4

/* Has user space make the table of a file. */
static __always_inline bool tell_miss(struct unwinding *u, struct unwind_file *file, u64 addr)
{
	struct unwind_miss *miss = bpf_ringbuf_reserve(&unwind_misses, sizeof(*miss), 0);

	if (!miss)
		return false;
	miss->file = *file;
	miss->addr = addr;
	miss->pid = u->pid;
	miss->pad = 0;
	bpf_ringbuf_submit(miss, 0);
	return true;
}

/* The same, for whoever is first. What the file has in it now is remembered: the table has to be of that. */
static __always_inline void want_table(struct unwinding *u, struct unwind_file *file, u64 addr, u32 generation)
{
	struct unwind_table wanted = {.generation = generation};

	if (!bpf_map_update_elem(&unwind_tables, file, &wanted, BPF_NOEXIST) && !tell_miss(u, file, addr))
		bpf_map_delete_elem(&unwind_tables, file);
}

static __always_inline void find_table(struct unwinding *u, struct unwind_mapping *m, struct vm_area_struct *vma,
				       u64 addr)
{
	struct file *mapped = FIELD(vma, vm_file);
	struct unwind_file file = {};
	struct unwind_table *table;
	struct inode *inode;
	u32 generation = 0;

	m->bias = m->start - (FIELD(vma, vm_pgoff) << PAGE_SHIFT);
	if (mapped) {
		inode = FIELD(mapped, f_inode);
		file.inode = FIELD(inode, i_ino);
		file.device = FIELD(FIELD(inode, i_sb), s_dev);
		generation = content_of(inode);
	} else if (m->start == (u64)FIELD(FIELD(vma, vm_mm), context.vdso)) {
		m->bias = m->start;
	} else {
		m->by = BY_FRAME;
		return;
	}
	table = bpf_map_lookup_elem(&unwind_tables, &file);
	m->by = BY_LATE_TABLE;
	if (!table) {
		want_table(u, &file, addr, generation);
		return;
	}
	if (table->state == UNWIND_REFUSED || table->copies >= UNWIND_COPIES)
		m->by = BY_REFUSED_TABLE;
	if (table->state == UNWIND_WANTED && u->copies)
		table->copies++; /* of another processor's some may be lost */
	if (table->state != UNWIND_READY)
		return;
	if (table->turn && table->generation != generation) {
		/* First: user space looks at it as soon as it is told. */
		table->state = UNWIND_WANTED;
		if (tell_miss(u, &file, addr))
			table->generation = generation;
		else
			table->state = UNWIND_READY;
		return;
	}
	table->generation = generation;
	if (table->turn != (u32)u->turn)
		table->turn = u->turn;
	m->first = table->first;
	m->rows = table->rows;
	m->by = m->rows ? BY_TABLE : BY_FRAME;
}

static __always_inline struct unwind_mapping *mapping_of(struct unwinding *u, struct task_struct *task, u64 addr)
{
	struct vm_area_struct *vma;
	struct unwind_mapping *m;

	for (u32 i = 0; i < UNWIND_MAPPINGS; i++) {
		m = &u->mappings[i];
		if (addr - m->start < m->bytes)
			return m;
	}
	u->newest = (u->newest + 1) & (UNWIND_MAPPINGS - 1);
	m = &u->mappings[u->newest & (UNWIND_MAPPINGS - 1)];
	m->bytes = 0;
	m->by = BY_NOTHING;
	vma = find_vma(FIELD(task, mm), addr);
	if (!vma || !(FIELD(vma, vm_flags) & VM_EXEC))
		return m;
	m->start = FIELD(vma, vm_start);
	m->bytes = FIELD(vma, vm_end) - m->start;
	find_table(u, m, vma, addr);
	return m;
}

/* Forgets mappings that may not be there any more, or may have a table by now. */
static __always_inline void begin_mappings(struct unwinding *u, struct task_struct *task, struct tracked *leader)
{
	struct mm_struct *mm = FIELD(task, mm);
	/* First: what is found later is true of these numbers, or of such as follow. */
	u64 sequence = sequence_of(mm), turn = control.turn;
	bool same = sequence && u->mm == (u64)mm && u->sequence == sequence && u->image_ns == leader->image_ns &&
		    u->pid == leader->row.pid && u->turn == turn;

	for (u32 i = 0; i < UNWIND_MAPPINGS; i++) {
		if (!same || u->mappings[i].by == BY_LATE_TABLE || u->mappings[i].by == BY_REFUSED_TABLE)
			u->mappings[i].bytes = 0;
	}
	u->mm = (u64)mm;
	u->sequence = sequence;
	u->image_ns = leader->image_ns;
	u->turn = turn;
	u->pid = leader->row.pid;
}

/* The rule of the last row at or before an offset. */
static __always_inline u32 search_rule(struct unwind_mapping *m, u64 at)
{
	u32 low = m->first, high = low + m->rows, rule = UNWIND_UNKNOWN;
	struct unwind_row *row;

	for (u32 turn = 0; turn < UNWIND_SEARCH; turn++) {
		u32 middle = low + (high - low) / 2;

		if (low >= high)
			break;
		row = bpf_map_lookup_elem(&unwind_rows, &middle);
		if (!row)
			break;
		if (row->at <= at) {
			rule = row->rule;
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return rule;
}

static __always_inline u32 rule_at(struct unwinding *u, struct unwind_mapping *m, u64 at)
{
	u64 key = (u64)m->first << 32 | (u32)at;
	struct unwind_found *found = &u->found[key * UNWIND_PRIME >> (64 - UNWIND_FOUND_BITS)];

	/* Rows have 32 bits for it, and no file begins with a return address. */
	if (at >> 32 || !(u32)at)
		return search_rule(m, at);
	if (found->at != key || found->turn != (u32)u->turn) {
		found->rule = search_rule(m, at);
		found->at = key;
		found->turn = u->turn;
	}
	return found->rule;
}

static __always_inline long unwind_ends(struct unwind_walk *w, u32 end)
{
	if (w->u->late && end == UNWIND_END_START)
		end = UNWIND_END_LATE_FRAMES;
	else if (w->u->late && end != UNWIND_END_DEEPEST)
		end = UNWIND_END_LATE;
	w->chain->end = end;
	return 1;
}

struct unwind_pair {
	u64 bp, back;
};

/* Two words of the stack. A piece is read up to the end of the page at most: the next may not be there. */
static __always_inline long read_pair(struct unwinding *u, u64 at, struct unwind_pair *pair)
{
	struct unwind_window *window = &u->window;
	u64 from = at - window->start, bytes;

	if (from > UNWIND_WINDOW - sizeof(*pair) || from + sizeof(*pair) > window->bytes) {
		bytes = (1UL << PAGE_SHIFT) - (at & ((1UL << PAGE_SHIFT) - 1));
		if (bytes > UNWIND_WINDOW)
			bytes = UNWIND_WINDOW;
		if (bytes < sizeof(*pair))
			return bpf_probe_read_user(pair, sizeof(*pair), (void *)at);
		window->bytes = 0;
		if (bpf_probe_read_user(window->of, bytes, (void *)at))
			return 1;
		window->start = at;
		window->bytes = bytes;
		from = 0;
	}
	*pair = *(struct unwind_pair *)&window->of[from];
	return 0;
}

#define LEAST_FRAME 0x1000 /* nothing is mapped in page 0 */

/*
 * By the frame pointer, if it looks like one: whether it is one the next step shows. Where there is no table, it is
 * followed to wherever it leads, as to another stack: no less is found than by frame pointers alone.
 */
static __always_inline long by_frame(struct unwind_walk *w, struct unwinding *u, bool has_table, u64 *back)
{
	struct unwind_pair frame;
	u64 at = u->bp;

	/* Below a program's outermost function there is 0, or 1. */
	if (at < LEAST_FRAME)
		return unwind_ends(w, has_table || at > 1 ? UNWIND_END_UNDESCRIBED : UNWIND_END_START);
	if (has_table && (at < u->sp || at & 7))
		return unwind_ends(w, UNWIND_END_UNDESCRIBED);
	if (read_pair(u, at, &frame))
		return unwind_ends(w, UNWIND_END_UNDESCRIBED);
	u->sp = at + sizeof(frame);
	u->bp = frame.bp;
	u->by_frame = 1;
	*back = frame.back;
	return 0;
}

/* struct rt_sigframe, from the stack pointer in the function that handlers return to. */
#define SIGNAL_RBP 120
#define SIGNAL_RSP 160
#define SIGNAL_RIP 168

static __always_inline long by_signal(struct unwind_walk *w, struct unwinding *u, u64 *back)
{
	u64 at = u->sp;

	/* One by one: the stack of a program is short. */
	if (bpf_probe_read_user(&u->bp, sizeof(u->bp), (void *)at + SIGNAL_RBP) ||
	    bpf_probe_read_user(&u->sp, sizeof(u->sp), (void *)at + SIGNAL_RSP) ||
	    bpf_probe_read_user(back, sizeof(*back), (void *)at + SIGNAL_RIP))
		return unwind_ends(w, UNWIND_END_CORRUPT);
	u->exact = 1;
	return 0;
}

static __always_inline long by_rule(struct unwind_walk *w, struct unwinding *u, u32 rule, u64 *back)
{
	s64 offset = (s64)(__s16)(rule >> 16) * 8, frame = (__s32)(rule << 16) >> 20;
	u32 kind = rule & 15;
	u64 cfa = u->sp + offset, at;
	struct unwind_pair pair;

	if (kind == UNWIND_PLT)
		cfa = u->sp + 8 + ((s64)(u->ip & 15) * 8 >= offset ? 8 : 0);
	else if (kind == UNWIND_RBP || kind == UNWIND_AT_RBP)
		cfa = u->bp + offset;
	if (kind == UNWIND_AT_RSP || kind == UNWIND_AT_RSP_ABOVE || kind == UNWIND_AT_RBP) {
		if (bpf_probe_read_user(&cfa, sizeof(cfa), (void *)cfa))
			return unwind_ends(w, UNWIND_END_CORRUPT);
		if (kind == UNWIND_AT_RSP_ABOVE)
			cfa += 8;
	}
	/* Stacks grow down, and this way never goes back. */
	if (cfa <= u->sp)
		return unwind_ends(w, UNWIND_END_CORRUPT);
	if (read_pair(u, cfa - sizeof(pair), &pair))
		return unwind_ends(w, UNWIND_END_CORRUPT);
	if (frame == -2) {
		u->bp = pair.bp;
	} else if (frame) {
		at = (rule >> 4 & 0xfff) == UNWIND_AT_FRAME ? u->bp : cfa + frame * 8;
		if (bpf_probe_read_user(&u->bp, sizeof(u->bp), (void *)at))
			return unwind_ends(w, UNWIND_END_CORRUPT);
	}
	u->sp = cfa;
	*back = pair.back;
	return 0;
}

/* From a function to its caller. */
static long unwind_step(u64 turn, struct unwind_walk *w)
{
	struct unwinding *u = w->u;
	struct unwind_mapping *m;
	u64 addr = u->ip - !u->exact, back = 0;
	u32 rule = UNWIND_UNKNOWN, kind;
	long ended;

	m = mapping_of(u, w->task, addr);
	if (m->by == BY_NOTHING) {
		/* The last return address was none. */
		u->n -= !!u->n;
		return unwind_ends(w, u->by_frame ? UNWIND_END_UNDESCRIBED : UNWIND_END_CORRUPT);
	}
	if (m->by == BY_TABLE)
		rule = rule_at(u, m, addr - m->bias);
	kind = rule & 15;
	if (m->by == BY_LATE_TABLE && u->copies) {
		u->waits = 1;
		return 1;
	}
	if (kind == UNWIND_START)
		return unwind_ends(w, UNWIND_END_START);
	if (kind == UNWIND_SIGNAL && u->n > 1)
		/* Handlers return to its first instruction: there was no call before that. */
		w->chain->ip[(u->n - 1) & (FAULTS_CHAIN_LEN - 1)] = u->ip + 1;
	if (u->n >= config.stack_deepest || u->n >= FAULTS_CHAIN_LEN)
		return unwind_ends(w, UNWIND_END_DEEPEST);
	u->exact = 0;
	u->by_frame = 0;
	u->late |= m->by == BY_LATE_TABLE || m->by == BY_REFUSED_TABLE;
	if (kind == UNWIND_UNKNOWN)
		ended = by_frame(w, u, m->by == BY_TABLE, &back);
	else if (kind == UNWIND_SIGNAL)
		ended = by_signal(w, u, &back);
	else
		ended = by_rule(w, u, rule, &back);
	if (ended)
		return 1;
	if (!back)
		return unwind_ends(w, UNWIND_END_START);
	u->ip = back;
	/* One is taken from each return address later, to be in the call. */
	w->chain->ip[u->n & (FAULTS_CHAIN_LEN - 1)] = back + u->exact;
	u->n++;
	return 0;
}

/*
 * Sends the stack as it is now, with a key for its chain: 0 if it cannot be copied. Two numbers by chance tell it from
 * all others, and a bit from hashes.
 */
static __always_inline u64 copy_stack(struct task_struct *task, struct pt_regs *regs, struct tracked *leader)
{
	struct vm_area_struct *vma = find_vma(FIELD(task, mm), regs->sp);
	u64 first, bytes;
	struct copied *to;
	u32 zero = 0;

	to = bpf_map_lookup_elem(&copied, &zero);
	if (!to || !vma || made.groups - control.taken_groups > config.groups / 2 ||
	    may_make_group(leader) != QUOTA_LEFT)
		return 0;
	bytes = BPF_CORE_READ(vma, vm_end) - regs->sp;
	/* Behind where the program began are its arguments. */
	first = BPF_CORE_READ(task, mm, start_stack) - regs->sp;
	if (first < bytes)
		bytes = first;
	if (bytes > config.stack_copied)
		bytes = config.stack_copied;
	if (bytes > UNWIND_COPY)
		bytes = UNWIND_COPY;
	if (!bytes)
		return 0;
	if (bpf_probe_read_user(to->stack, bytes, (void *)regs->sp)) {
		/* Pages of it may be swapped out. */
		bytes = (1UL << PAGE_SHIFT) - (regs->sp & ((1UL << PAGE_SHIFT) - 1));
		if (bpf_probe_read_user(to->stack, bytes, (void *)regs->sp))
			return 0;
	}
	to->of.key = FAULTS_CHAIN_COPIED | (u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
	to->of.ip = regs->ip;
	to->of.sp = regs->sp;
	to->of.bp = regs->bp;
	if (bpf_ringbuf_output(&unwind_misses, to, sizeof(to->of) + bytes, 0))
		return 0;
	return to->of.key;
}

/*
 * Walks from where the thread left user mode. Where a table is being made the stack is copied, for user space to walk
 * it: then the key of that is given, else 0.
 */
static __always_inline u64 unwind(struct task_struct *task, struct pt_regs *regs, struct faults_chain *chain,
				  struct tracked *leader)
{
	struct unwind_walk walk = {.chain = chain, .task = task};
	u32 zero = 0;
	u64 key = 0;

	chain->count = 0;
	chain->end = UNWIND_END_CORRUPT;
	walk.u = bpf_map_lookup_elem(&unwinding, &zero);
	if (!walk.u)
		return 0;
	begin_mappings(walk.u, task, leader);
	walk.u->ip = regs->ip;
	walk.u->sp = regs->sp;
	walk.u->bp = regs->bp;
	walk.u->exact = 1;
	walk.u->by_frame = 0;
	walk.u->late = 0;
	walk.u->waits = 0;
	walk.u->copies = config.stack_copied != 0;
	walk.u->n = 1;
	walk.u->window.bytes = 0;
	chain->ip[0] = regs->ip;
	bpf_loop(FAULTS_CHAIN_LEN + 1, unwind_step, &walk, 0);
	if (walk.u->waits) {
		key = copy_stack(task, regs, leader);
		if (key)
			return key;
		walk.u->copies = 0;
		bpf_loop(FAULTS_CHAIN_LEN + 1, unwind_step, &walk, 0);
	}
	/* The innermost is there in any case. */
	chain->count = walk.u->n ?: 1;
	return 0;
}

#endif

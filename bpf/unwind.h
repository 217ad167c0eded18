/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Unwind tables, which user space makes. Mirrored in crates/probe/src/abi/unwind.rs, compared by a test. */
#ifndef TRAPLINE_UNWIND_H
#define TRAPLINE_UNWIND_H

/*
 * Where the canonical frame address (CFA) of a function is at an instruction: the stack pointer before it was called.
 * The return address is below it.
 */
enum unwind_kind {
	UNWIND_UNKNOWN = 0,
	UNWIND_RSP = 1,          /* rsp + offset */
	UNWIND_RBP = 2,          /* rbp + offset */
	UNWIND_PLT = 3,          /* rsp + 8, or + 16 from an offset in each entry on */
	UNWIND_AT_RSP = 4,       /* *(rsp + offset) */
	UNWIND_AT_RSP_ABOVE = 5, /* *(rsp + offset) + 8 */
	UNWIND_AT_RBP = 6,       /* *(rbp + offset) */
	UNWIND_SIGNAL = 7,       /* all registers are where the kernel put them for a signal's handler */
	UNWIND_START = 8,        /* nobody called it: a thread begins here */
};

enum unwind_size {
	UNWIND_SEARCH = 23,      /* turns of a search: for 2^22 rows */
	UNWIND_AT_FRAME = 0x800, /* instead of where rbp is saved: where it points to */
	UNWIND_COPY = 32 * 1024 -
		      64, /* bytes of a stack that are copied, at most: a place in a map of each processor has 32 KiB */
	UNWIND_COPIES = 8 * 1024, /* stacks that are copied because of one file, at most */
};

/* From an offset in a file on: 4 bits for the kind, 12 for where rbp is saved (from the CFA, in words; 0: it is not),
 * 16 for the offset, in words, but for the PLT. */
struct unwind_row {
	__u32 at;
	__u32 rule;
};

/* A file: 0 for the vDSO. */
struct unwind_file {
	__u64 inode;
	__u32 device;
	__u32 pad;
};

enum unwind_state {
	UNWIND_WANTED = 0,  /* it is being made */
	UNWIND_READY = 1,   /* it is there */
	UNWIND_REFUSED = 2, /* it will never be there: no memory for it, or the file cannot be read */
};

/* Its rows; none if it has no .eh_frame. */
struct unwind_table {
	__u32 first;
	__u32 rows;
	__u32 state;
	__u32 copies;     /* stacks that were copied while it was wanted */
	__u32 turn;       /* in which it was last used, see struct faults_control; 0: it was not yet */
	__u32 generation; /* content_of() the inode, when the table was missed or used first: inodes are used again */
};

/* In the ring: a file that has no table yet was met. There a process has it mapped. */
struct unwind_miss {
	struct unwind_file file;
	__u64 addr;
	__u32 pid;
	__u32 pad;
};

/*
 * In the ring, told from the other by its length: what user space walks when the tables are there. Behind it is the
 * stack from the stack pointer on.
 */
struct unwind_copy {
	__u64 key; /* instead of the chain's */
	__u64 ip;
	__u64 sp;
	__u64 bp;
};

/* Why a chain of calls ends. */
enum unwind_end {
	UNWIND_END_FRAMES = 0,      /* it was walked by frame pointers: not known */
	UNWIND_END_START = 1,       /* the thread began there */
	UNWIND_END_DEEPEST = 2,     /* it is longer than what is walked */
	UNWIND_END_UNDESCRIBED = 3, /* there is no unwind information of that function */
	UNWIND_END_LATE = 4,        /* a table was not there yet, and frame pointers led nowhere */
	UNWIND_END_CORRUPT = 5,     /* the stack cannot be read, or is no stack */
	UNWIND_END_LATE_FRAMES = 6, /* a table was not there yet, and frame pointers led to an end: not known */
};

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* SGX: what the kernel half reports to user space. Mirrored in crates/probe/src/abi/sgx.rs, compared by a test. */
#ifndef TRAPLINE_SGX_H
#define TRAPLINE_SGX_H

#include "trap.h"

enum sgx_none {
	SGX_NOWHERE = ~0U, /* an offset that is not known */
};

enum sgx_mark {
	SGX_UNKNOWN = ~0ULL, /* a figure that is not known */
	/* In the index of a chunk: of pages that were evicted before they faulted. */
	SGX_CHUNK_EVICTED = 1ULL << 63,
};

/*
 * Pages are marked in chunks. With the map's own 64 bytes and the allocator's 8, one of 118 words is just below a
 * kilobyte: 64 GB touched in full are 2222 chunks.
 */
enum sgx_size {
	SGX_MAX_ENCLAVES = 4096,
	SGX_CHUNK_WORDS = 118,
	SGX_CHUNK_PAGES = SGX_CHUNK_WORDS * 64,
};

/* Where the driver's own types have their fields: taken from the driver's type information when it is attached. */
struct sgx_layout {
	__u32 encl_base;
	__u32 encl_size;
	__u32 encl_refcount;
	__u32 encl_secs;
	__u32 page_encl;
	__u32 page_desc;
	__u32 epc_owner;
	__u32 pad;
};

struct sgx_config {
	__u32 release_is_seen; /* the end of an enclave is hooked */
	__u32 pad;
};

/* Pages of one enclave that faulted in one interval; with SGX_CHUNK_EVICTED, that were evicted before they did. */
struct sgx_chunk_key {
	__u64 index;
	__u32 serial;
	__u32 epoch;
};

struct sgx_chunk {
	__u64 bits[SGX_CHUNK_WORDS];
};

/* One enclave, or one area of EPC for a guest. All figures since it was first seen. */
struct sgx_enclave {
	__u64 serial;   /* our own number for it: its address may be used again */
	__u64 start_ns; /* start of the process that faulted on it first, CLOCK_MONOTONIC; 0: none did yet */
	__u64 cgroup;   /* of that process, then */
	__u64 base;     /* or SGX_UNKNOWN */
	__u64 size;
	__u32 pid;
	__u32 guest;       /* it is EPC of a guest */
	__u64 pages;       /* distinct in their interval */
	__u64 unaccounted; /* faults whose page there was no memory to mark */
	__u64 faults;
	__u64 loads;  /* pages brought back into the EPC, in faults or else */
	__u64 added;  /* by faults */
	__u64 mapped; /* faults that found the page in the EPC */
	__u64 busy;   /* faults that got nowhere: the EPC was full, or the page on its way out */
	__u64 failed; /* faults that ended in a signal */
	__u64 evictions;
	__u64 by_daemon; /* evictions by the driver's own thread */
	__u64 caused;    /* evictions, of any enclave's pages, by threads in a fault on this one */
	__u64 refaults;  /* loads of pages that had been evicted in the same interval */
	__u64 secs_loads;
	__u64 secs_evictions;
	__u64 load_ns;            /* time of the faults that loaded */
	__u64 hist[TRAP_BUCKETS]; /* time of each, see hist_bucket() */
	__u64 recent[2];          /* the longest of an interval: see raise_recent() */
	char comm[TRAP_COMM_LEN];
};

/* Losses, each of which reaches the end record. */
struct sgx_losses {
	__u64 untracked; /* threads for which there was no memory: their faults are counted, not told apart */
	__u64 unpaired;  /* faults whose end was not seen: the same */
	__u64 events;    /* faults and evictions of enclaves beyond SGX_MAX_ENCLAVES: in no row */
	__u64 unmarked;  /* evictions whose page there was no memory to mark: a refault may be missing */
	__u64 unread;    /* enclaves whose last figures there was no room for */
};

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Enclaves and the pages of theirs that were touched. */
#ifndef TRAPLINE_SGX_ENCLAVE_BPF_H
#define TRAPLINE_SGX_ENCLAVE_BPF_H

#include "compat.bpf.h"
#include "trap.bpf.h"
#include "recent.bpf.h"
#include "sgx.h"

const volatile struct sgx_layout layout SEC(".rodata.layout") = {};
const volatile struct sgx_config config SEC(".rodata.config") = {};
volatile struct trap_control control SEC(".data.control") = {}; /* from 1 */
struct sgx_losses losses SEC(".bss.losses") = {};

SHARED(enum sgx_none);
SHARED(enum sgx_mark);
SHARED(enum sgx_size);

/* By the address of the driver's structure. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SGX_MAX_ENCLAVES);
	__type(key, u64);
	__type(value, struct sgx_enclave);
} enclaves SEC(".maps");

/* Enclaves that have ended, by serial number; user space empties it several times a second. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SGX_MAX_ENCLAVES);
	__type(key, u64);
	__type(value, struct sgx_enclave);
} ended SEC(".maps");

/* An interval has chunks of its own: none is ever cleared, user space removes those of past intervals. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024); /* user space sets what the memory budget allows */
	__type(key, struct sgx_chunk_key);
	__type(value, struct sgx_chunk);
} chunks SEC(".maps");

static struct sgx_enclave blank_enclave;
static struct sgx_chunk blank_chunk;
static u64 serials;

static __always_inline u64 read_field(u64 object, u32 offset)
{
	u64 value = SGX_UNKNOWN;

	if (offset != SGX_NOWHERE)
		bpf_probe_read_kernel(&value, sizeof(value), (void *)(object + offset));
	return value;
}

static __always_inline void belongs_to(struct sgx_enclave *enclave, struct task_struct *task)
{
	enclave->start_ns = BPF_CORE_READ(task, group_leader, start_time);
	BPF_CORE_READ_INTO(&enclave->comm, task, group_leader, comm);
	enclave->cgroup = task_cgroup_id(task);
	enclave->pid = pid_of(task);
}

static __always_inline void retire(u64 encl, struct sgx_enclave *enclave)
{
	if (bpf_map_update_elem(&ended, &enclave->serial, enclave, BPF_NOEXIST))
		add(&losses.unread, 1);
	bpf_map_delete_elem(&enclaves, &encl);
}

static __always_inline struct sgx_enclave *known_enclave(u64 encl)
{
	return bpf_map_lookup_elem(&enclaves, &encl);
}

/* The enclave, entered now if it is new. `task` faults on it; without one, nothing is known of whose it is. */
static __always_inline struct sgx_enclave *enclave_of(u64 encl, struct task_struct *task, bool guest)
{
	struct sgx_enclave *enclave = known_enclave(encl);
	u64 serial;

	/* Where the end of enclaves is not seen, another process at the same address means another enclave. */
	if (enclave && task && (guest || !config.release_is_seen) && enclave->pid && enclave->pid != pid_of(task)) {
		retire(encl, enclave);
		enclave = NULL;
	}
	if (!enclave) {
		enclave = lookup_or_init(&enclaves, &encl, &blank_enclave);
		if (!enclave) {
			add(&losses.events, 1);
			return NULL;
		}
	}
	if (!enclave->serial) {
		serial = __sync_fetch_and_add(&serials, 1) + 1;
		if (!__sync_val_compare_and_swap(&enclave->serial, 0, serial)) {
			enclave->guest = guest;
			enclave->base = guest ? SGX_UNKNOWN : read_field(encl, layout.encl_base);
			enclave->size = guest ? SGX_UNKNOWN : read_field(encl, layout.encl_size);
		}
	}
	if (task && !enclave->start_ns)
		belongs_to(enclave, task);
	return enclave;
}

static __always_inline struct sgx_chunk *chunk_of(struct sgx_enclave *enclave, u64 page, u64 kind, u32 epoch, bool make)
{
	struct sgx_chunk_key key = {
	    .index = (page / SGX_CHUNK_PAGES) | kind,
	    .serial = enclave->serial,
	    .epoch = epoch,
	};

	return make ? lookup_or_init(&chunks, &key, &blank_chunk) : bpf_map_lookup_elem(&chunks, &key);
}

/* The word that holds the page's bit. The compiler knows that it is within the chunk; the verifier wants to see it. */
static __always_inline u64 *word_of(struct sgx_chunk *chunk, u32 bit)
{
	u32 word = bit / 64;

	asm volatile("" : "+r"(word));
	return chunk && word < SGX_CHUNK_WORDS ? &chunk->bits[word] : NULL;
}

static __always_inline bool is_marked(struct sgx_enclave *enclave, u64 page, u64 kind)
{
	struct sgx_chunk *chunk = chunk_of(enclave, page, kind, control.epoch, false);
	u32 bit = page % SGX_CHUNK_PAGES;
	u64 *word = word_of(chunk, bit);

	return word && (*word & (1ULL << (bit & 63)));
}

enum mark { MARKED_NOW, MARKED_BEFORE, NO_MEMORY };

static __always_inline enum mark mark_page(struct sgx_enclave *enclave, u64 page, u64 kind)
{
	struct sgx_chunk *chunk = chunk_of(enclave, page, kind, control.epoch, true);
	u32 bit = page % SGX_CHUNK_PAGES;
	u64 *word = word_of(chunk, bit), mask = 1ULL << (bit & 63);

	if (!word)
		return NO_MEMORY;
	if (*word & mask)
		return MARKED_BEFORE;
	return __sync_fetch_and_or(word, mask) & mask ? MARKED_BEFORE : MARKED_NOW;
}

#endif

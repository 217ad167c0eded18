/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading what kvm counted, where the kernel allows programs that go through maps: crates/probe/src/elements.rs. */
#ifndef TRAPLINE_KVM_READ_BPF_H
#define TRAPLINE_KVM_READ_BPF_H

#include "kvm_slot.bpf.h"

static __always_inline int show(struct bpf_iter__bpf_map_elem *ctx, u32 key_size, u32 value_size)
{
	struct bpf_iter_meta *meta = ctx->meta;
	void *key = ctx->key, *value = ctx->value;

	if (!key || !value)
		return 0;
	bpf_seq_write(meta->seq, key, key_size);
	bpf_seq_write(meta->seq, value, value_size);
	return 0;
}

SEC("?iter/bpf_map_elem")
int threads_read(struct bpf_iter__bpf_map_elem *ctx)
{
	return show(ctx, sizeof(u32), sizeof(struct kvm_thread));
}

SEC("?iter/bpf_map_elem")
int exits_read(struct bpf_iter__bpf_map_elem *ctx)
{
	return show(ctx, sizeof(struct kvm_key), sizeof(struct kvm_exits));
}

#endif

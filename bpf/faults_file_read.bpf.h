/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading the names of files, in objects that leave some. */
#ifndef TRAPLINE_FAULTS_FILE_READ_BPF_H
#define TRAPLINE_FAULTS_FILE_READ_BPF_H

#include "faults_file.bpf.h"

SEC("?iter/bpf_map_elem")
int names_read(struct bpf_iter__bpf_map_elem *ctx)
{
	struct faults_group_key *key = ctx->key, copy;
	struct faults_name *name = ctx->value;

	if (!key || !name || !(name->flags & FAULTS_NAME_READY))
		return 0;
	copy = *key;
	if (bpf_seq_write(ctx->meta->seq, &copy, sizeof(copy)) || bpf_seq_write(ctx->meta->seq, name, sizeof(*name)))
		return 0;
	bpf_map_delete_elem(&names, &copy);
	return 0;
}

#endif

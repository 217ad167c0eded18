// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What a process in namespaces cannot learn from the files that it sees: how deep its PID namespace is, and how deep a
 * cgroup. Read once, in the reader's own context, where not all namespaces are the initial ones.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "namespaces.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A descriptor of ours for the directory of a cgroup of the v2 hierarchy; -1: none is asked about. */
const volatile int directory SEC(".rodata.directory") = -1;

/* Names the type, so that the object's BTF holds it. */
const struct namespaces *namespaces_type __attribute__((unused));

static __always_inline struct file *open_file(struct task_struct *task, u32 fd)
{
	struct file **files = BPF_CORE_READ(task, files, fdt, fd), *file = NULL;

	bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

SEC("iter/task")
int own_namespaces(struct bpf_iter__task *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct namespaces own = {};
	struct kernfs_node *node;
	struct cgroup *cgrp;

	if (!ctx->task || ctx->meta->seq_num)
		return 0;
	own.pid_level = BPF_CORE_READ(task, thread_pid, level);
	own.numbers.thread_pid = bpf_core_field_offset(task->thread_pid);
	own.numbers.signal = bpf_core_field_offset(task->signal);
	own.numbers.tgid = bpf_core_field_offset(((struct signal_struct *)0)->pids[PIDTYPE_TGID]);
	own.numbers.level = bpf_core_field_offset(((struct pid *)0)->level);
	own.numbers.numbers = bpf_core_field_offset(((struct pid *)0)->numbers);
	own.numbers.inum = bpf_core_field_offset(((struct pid_namespace *)0)->ns.inum);
	own.cgroup_root = BPF_CORE_READ(task, nsproxy, cgroup_ns, root_cset, dfl_cgrp, kn, id);
	if (directory >= 0) {
		/* The caller has seen that it is a directory of that file system, whose private data is its node. */
		node = BPF_CORE_READ(open_file(task, directory), f_inode, i_private);
		cgrp = BPF_CORE_READ(node, priv);
		own.cgroup = BPF_CORE_READ(cgrp, kn, id);
		own.cgroup_level = BPF_CORE_READ(cgrp, level);
	}
	bpf_seq_write(ctx->meta->seq, &own, sizeof(own));
	return 0;
}

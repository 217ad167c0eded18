// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Page accesses: which processes are followed, and when each gets memory of its own, by fork or exec, and ends. The
 * accesses themselves are faults, seen by faults_access.bpf.c; its map of wanted processes is the one that is kept
 * here.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "compat.bpf.h"
#include "follow.bpf.h"
#include "access.h"
#include "access_own.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct access_config config SEC(".rodata.config") = {};
u64 lost SEC(".bss.lost") = 0;

/* Names of programs to follow when they are executed; pinned, so that another trapline can change it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ACCESS_MAX_NAMES);
	__type(key, char[TRAP_COMM_LEN]);
	__type(value, u8);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} lives SEC(".maps");

SHARED(struct access_life);
SHARED(enum access_size);
SHARED(enum access_what);

static __always_inline void send(u32 what, struct task_struct *task, bool borrows)
{
	struct access_life *life = bpf_ringbuf_reserve(&lives, sizeof(*life), 0);

	if (!life) {
		add(&lost, 1);
		return;
	}
	life->time_ns = bpf_ktime_get_ns();
	life->what = what;
	life->pid = pid_of(task);
	life->tid = tid_of(task);
	life->cpu = bpf_get_smp_processor_id();
	life->borrows = borrows;
	life->parent = pid_of(bpf_get_current_task_btf());
	__builtin_memcpy(life->comm, task->comm, TRAP_COMM_LEN);
	bpf_ringbuf_submit(life, 0);
}

SEC("?tp_btf/sched_process_fork")
int BPF_PROG(process_born, struct task_struct *parent, struct task_struct *child)
{
	if (!config.follow || !is_descendant(parent, child))
		return 0;
	if (!follow(child))
		add(&lost, 1);
	send(ACCESS_FORK, child, BPF_CORE_READ(child, mm) == BPF_CORE_READ(parent, mm));
	return 0;
}

/* Fires when the new program's memory and name are in place. */
SEC("?tp_btf/sched_process_exec")
int BPF_PROG(process_execed, struct task_struct *task)
{
	char comm[TRAP_COMM_LEN] = {};

	if (!is_followed(task)) {
		if (!config.named)
			return 0;
		bpf_probe_read_kernel_str(comm, sizeof(comm), task->comm);
		if (!bpf_map_lookup_elem(&targets, comm))
			return 0;
		if (!follow(task))
			add(&lost, 1);
	}
	send(ACCESS_EXEC, task, false);
	return 0;
}

SEC("?tp_btf/sched_process_exit")
int BPF_PROG(process_ends, struct task_struct *task)
{
	if (unfollow(task))
		send(ACCESS_EXIT, task, false);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs with a userfaultfd of their own. Memory that is under ours cannot be registered with another one (EBUSY), so
 * ours must be gone before a program that makes one can use it.
 *
 * On each processor a thread of ours waits that preempts every ordinary one. The record of `asks` wakes it up, so that
 * it runs before the program that made the call is back in user mode, on machines with one processor, too. Should the
 * program have come to another processor meanwhile, it waits where it registers memory.
 */
#ifndef TRAPLINE_ACCESS_OWN_BPF_H
#define TRAPLINE_ACCESS_OWN_BPF_H

#define NR_IOCTL       16 /* arch/x86/entry/syscalls/syscall_64.tbl */
#define NR_USERFAULTFD 323
/* include/uapi/linux/userfaultfd.h; the first is of /dev/userfaultfd (6.1) */
#define USERFAULTFD_IOC_NEW 0xaa00u
#define UFFDIO_REGISTER     0xc020aa00u

#define WAITS_NS    20000000ull
#define WAITS_TIMES (1u << 22)

/* The processes of which memory is under a userfaultfd of ours. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRAP_MAX_PIDS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u8);
} held SEC(".maps");

/* A buffer for each processor: the process that is to be let go. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, u32);
	__type(value, u32);
} asks SEC(".maps");

/* How many registrations did not find the memory let go in time. */
u64 late SEC(".bss.late") = 0;

struct waiting {
	u32 pid;
	u64 until_ns;
};

static long wait_on(u32 turn, struct waiting *w)
{
	return !bpf_map_lookup_elem(&held, &w->pid) || bpf_ktime_get_ns() > w->until_ns;
}

static __always_inline void give_way(void *ctx, bool registers)
{
	struct waiting w = {.pid = bpf_get_current_pid_tgid() >> 32};

	if (!bpf_map_lookup_elem(&held, &w.pid))
		return;
	bpf_perf_event_output(ctx, &asks, BPF_F_CURRENT_CPU, &w.pid, sizeof(w.pid));
	if (!registers)
		return;
	w.until_ns = bpf_ktime_get_ns() + WAITS_NS;
	bpf_loop(WAITS_TIMES, wait_on, &w, 0);
	if (bpf_map_lookup_elem(&held, &w.pid))
		add(&late, 1);
}

static __always_inline void own_ioctl(void *ctx, u32 command)
{
	if (command == USERFAULTFD_IOC_NEW || command == UFFDIO_REGISTER)
		give_way(ctx, command == UFFDIO_REGISTER);
}

SEC("?fentry/__x64_sys_userfaultfd")
int BPF_PROG(own_made)
{
	give_way(ctx, false);
	return 0;
}

SEC("?fentry/userfaultfd_dev_ioctl")
int BPF_PROG(own_made_by_device, struct file *file, unsigned int command)
{
	own_ioctl(ctx, command);
	return 0;
}

SEC("?fentry/userfaultfd_ioctl")
int BPF_PROG(own_registers, struct file *file, unsigned int command)
{
	own_ioctl(ctx, command);
	return 0;
}

/* Where functions cannot be watched; every system call of the machine then takes longer. */
SEC("?tp_btf/sys_enter")
int BPF_PROG(own_called, struct pt_regs *regs, long number)
{
	if (number == NR_USERFAULTFD)
		give_way(ctx, false);
	else if (number == NR_IOCTL)
		own_ioctl(ctx, regs->si);
	return 0;
}

#endif

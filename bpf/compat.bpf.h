/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every difference between kernels, each with what made it. */
#ifndef TRAPLINE_COMPAT_BPF_H
#define TRAPLINE_COMPAT_BPF_H

/*
 * A field of one of the kernel's structures, wherever its address comes from: without a call, where a pointer may be
 * given a type (a35b9af4ec2c, 6.2). 0 if nothing is there.
 */
#define FIELD(ptr, field)                                                                                              \
	({                                                                                                             \
		typeof(ptr) _at = (ptr);                                                                               \
		bpf_ksym_exists(bpf_rdonly_cast) ? bpf_core_cast(_at, typeof(*_at))->field                             \
						 : BPF_CORE_READ(_at, field);                                          \
	})

/*
 * The id of the ancestor of `cgrp` at `level`; the caller has checked that cgrp is at least that deep. Up to 5.19 a
 * cgroup held its ancestors' ids; 7f203bc89eb6 (6.0) made that an array of pointers.
 */
static __always_inline u64 cgroup_ancestor_id(struct cgroup *cgrp, u32 level)
{
	struct cgroup *ancestor = NULL;

	if (bpf_core_field_exists(cgrp->ancestors)) {
		bpf_probe_read_kernel(&ancestor, sizeof(ancestor), &cgrp->ancestors[level]);
		return ancestor ? BPF_CORE_READ(ancestor, kn, id) : 0;
	}
	u64 id = 0;
	bpf_probe_read_kernel(&id, sizeof(id), &cgrp->ancestor_ids[level]);
	return id;
}

/* Up to 5.13 a task's state was called `state`, and was longer; 2f064a59a11f (5.14) renamed it. */
struct task_struct___pre514 {
	volatile long state;
} __attribute__((preserve_access_index));

/* At sched_switch, of the task that leaves: it could go on, but something else is to run. */
static __always_inline bool task_is_runnable(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return BPF_CORE_READ(task, __state) == 0;
	return BPF_CORE_READ((struct task_struct___pre514 *)task, state) == 0;
}

/* It has taken memory beyond its cgroup's memory.high, and may have to wait for that on its way to user mode. */
static __always_inline bool exceeds_high(struct task_struct *task)
{
	return bpf_core_field_exists(task->memcg_nr_pages_over_high) && task->memcg_nr_pages_over_high;
}

/* It waits for that, if it sleeps and neither reclaims memory nor waits for I/O: known by PSI, a kernel option. */
static __always_inline bool is_throttled(struct task_struct *task)
{
	return bpf_core_field_exists(task->in_memstall) && BPF_CORE_READ_BITFIELD(task, in_memstall);
}

/* The thread has met a uprobe: its return addresses may have been replaced. A kernel option. */
static __always_inline bool has_uprobes(struct task_struct *task)
{
	return bpf_core_field_exists(task->utask) && BPF_CORE_READ(task, utask);
}

/* The thread is on its way from one program to another: what its registers were in user mode is of the old one. */
static __always_inline bool executes(struct task_struct *task)
{
	return bpf_core_field_exists(task->in_execve) && BPF_CORE_READ_BITFIELD(task, in_execve);
}

/* When a file was last written was i_mtime up to 6.6, and is two fields from 6.11 on (3aa63a569c64). */
struct inode___pre67 {
	struct timespec64 i_mtime;
} __attribute__((preserve_access_index));

/* A number that changes when the inode gets another file, or the file another content, as far as that can be told. */
static __always_inline u32 content_of(struct inode *inode)
{
	struct inode___pre67 *old = (void *)inode;
	u64 written = 0;

	if (bpf_core_field_exists(inode->i_mtime_nsec))
		written = (u64)FIELD(inode, i_mtime_sec) * 1000000000 + FIELD(inode, i_mtime_nsec);
	else if (bpf_core_field_exists(old->i_mtime))
		written = (u64)BPF_CORE_READ(old, i_mtime.tv_sec) * 1000000000 + BPF_CORE_READ(old, i_mtime.tv_nsec);
	written = (written ^ (u64)FIELD(inode, i_size)) * 0x9e3779b97f4a7c15ULL;
	return FIELD(inode, i_generation) ^ written >> 32;
}

#define FMODE_BACKING (1u << 24 | 1u << 25) /* include/linux/fs.h: bit 25 from 6.5, bit 24 from 6.12 */

/*
 * The path by which a process knows a file that it mapped. overlayfs maps the file beneath it. That one's f_path is the
 * path that was opened up to 6.6; def3ae83da02 (6.7) made it the path beneath, and put the other into user_path. As the
 * bit that says so has moved (each means something else elsewhere), what is there must look like a path, too.
 */
static __always_inline struct path *path_as_opened(struct file *file)
{
	struct path *path = &((struct backing_file *)file)->user_path;
	struct super_block *of_mount;

	if (!bpf_core_field_exists(struct backing_file, user_path) || !(FIELD(file, f_mode) & FMODE_BACKING))
		return &file->f_path;
	of_mount = BPF_CORE_READ(path, mnt, mnt_sb);
	return of_mount && of_mount == BPF_CORE_READ(path, dentry, d_sb) ? path : &file->f_path;
}

/* In a program at both ends of a function: this is the return. On 6.12 the function has no argument, on 7.3 one. */
extern bool bpf_session_is_return(void) __ksym __weak;
extern bool bpf_session_is_return___with_ctx(void *ctx) __ksym __weak;

static __always_inline bool session_returns(void *ctx)
{
	if (bpf_ksym_exists(bpf_session_is_return___with_ctx))
		return bpf_session_is_return___with_ctx(ctx);
	return bpf_session_is_return();
}

/* The memory is registered with a userfaultfd: a kernel option, without which there is no such field. */
static __always_inline bool vma_is_watched(struct vm_area_struct *vma)
{
	return bpf_core_field_exists(vma->vm_userfaultfd_ctx.ctx) && FIELD(vma, vm_userfaultfd_ctx.ctx);
}

/*
 * A number that each writer to an address space's areas changes before it unlocks them; 0: there is none. 5e31275cc997
 * (6.4) brought it with the locks of single areas, a kernel option; 03a001b156d2 (6.14) made it a seqcount.
 */
typedef struct {
	unsigned int sequence;
} seqcount_t;

struct mm_struct___seqcount {
	seqcount_t mm_lock_seq;
} __attribute__((preserve_access_index));

static __always_inline u64 sequence_of(struct mm_struct *mm)
{
	struct mm_struct___seqcount *counted = (void *)mm;

	if (bpf_core_field_exists(counted->mm_lock_seq))
		return (u64)FIELD(counted, mm_lock_seq.sequence) << 1 | 1;
	if (bpf_core_field_exists(mm->mm_lock_seq))
		return (u64)(u32)FIELD(mm, mm_lock_seq) << 1 | 1;
	return 0;
}

/* A thread of the process whose memory it is, as far as the kernel keeps that (CONFIG_MEMCG), or else this one. */
static __always_inline struct task_struct *owner_of(struct mm_struct *mm, struct task_struct *task)
{
	struct task_struct *owner;

	if (BPF_CORE_READ(task, mm) == mm || !bpf_core_field_exists(mm->owner))
		return task;
	owner = BPF_CORE_READ(mm, owner);
	return owner ?: task;
}

/*
 * From 6.16 sched_process_exit fires before exit_mm, so a thread's last faults (the kernel clears its tid in user
 * memory there) come after it; 5.x to 6.15 fire it after exit_mm. x86_fpu_dropped comes later still on every x86
 * kernel, but not for a thread whose registers are already saved. See retire() in faults_life.bpf.h for what follows.
 */

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types that trapline touches, and no others: this header is the list of kernel facts we rely on.
 * Only the fields used are declared; their offsets are relocated by name when a program is loaded (CO-RE).
 * The guard's name matters: it makes bpf_tracing.h use the kernel's register names.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;
typedef int pid_t;
typedef _Bool bool;
enum { false = 0, true = 1 };

/* Stable ABI (include/uapi/linux/bpf.h): numbers never change. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_EXIST = 2,
};
enum { BPF_RB_RING_SIZE = 1, BPF_RB_CONS_POS = 2, BPF_RB_PROD_POS = 3 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1024 };
enum { BPF_F_CURRENT_CPU = 0xffffffff };
enum { BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_F_USER_STACK = 256 };

enum { VM_FAULT_MAJOR = 0x4, VM_FAULT_RETRY = 0x400, VM_FAULT_ERROR = 0x873 }; /* mm_types.h: the same 5.4 to 7.3 */
enum { PAGE_SHIFT = 12 };

enum { PIDTYPE_TGID = 1 }; /* include/linux/pid_types.h: 4.19+ */

/* A number in one PID namespace: laid out so since 4.15. */
struct upid {
	int nr;
	struct pid_namespace *ns;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct timespec64 {
	s64 tv_sec; /* a number of 64 bits: for FIELD() */
	long tv_nsec;
};

struct kernfs_node {
	u64 id;
	void *priv; /* of a cgroup's directory, the cgroup */
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	u64 ancestor_ids[0];         /* up to 5.19, see compat.bpf.h */
	struct cgroup *ancestors[0]; /* 6.0+ */
};

struct cgroup_subsys_state;

struct css_set {
	struct cgroup_subsys_state *subsys[0]; /* by controller */
	struct cgroup *dfl_cgrp;
};

typedef struct {
	u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct cgroup_namespace {
	struct css_set *root_cset;
};

struct nsproxy {
	struct cgroup_namespace *cgroup_ns;
};

typedef struct {
	int counter;
} atomic_t;

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

/* An id: a number in its PID namespace and in each of those around it, down to the initial one, which is the first. */
struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct signal_struct {
	atomic_t live;  /* threads that have not ended */
	int nr_threads; /* those that have not been reaped */
	struct pid *pids[PIDTYPE_TGID + 1];
};

struct maple_tree {
	void *ma_root;
};

/* A tree's nodes, 6.1 and later: see vma.bpf.h. */
struct maple_range_64 {
	unsigned long pivot[15];
	void *slot[16];
};

struct maple_arange_64 {
	unsigned long pivot[9];
	void *slot[10];
};

/* The page from which a process runs what probes stand in for, and that functions with probes return to. */
struct xol_area {
	unsigned long vaddr;
};

struct uprobes_state {
	struct xol_area *xol_area;
};

typedef struct {
	unsigned long pgd;
} pgd_t;

typedef struct {
	void *vdso;
} mm_context_t;

struct mm_struct {
	mm_context_t context;
	pgd_t *pgd;
	struct maple_tree mm_mt;
	unsigned long start_brk;
	unsigned long brk;
	unsigned long start_stack;
	struct task_struct *owner; /* a kernel option */
	int mm_lock_seq;           /* 6.4 to 6.13, see compat.bpf.h */
	struct uprobes_state uprobes_state;
};

struct file_system_type {
	const char *name;
};

struct super_block {
	u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
	struct file_system_type *s_type;
};

struct inode {
	u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	u32 i_generation;
	long long i_size;
	long long i_mtime_sec; /* from 6.11 on */
	u32 i_mtime_nsec;
	void *i_private;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

/* Open files, by descriptor. */
struct fdtable {
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path root;
};

struct file {
	struct inode *f_inode;
	struct path f_path;
	unsigned int f_mode;
};

/* A file of a file system that keeps its files in another one: see compat.bpf.h. */
struct backing_file {
	struct path user_path;
};

#if defined(__TARGET_ARCH_x86)
struct thread_struct {
	unsigned long cr2; /* of the last exception that a signal was made of */
	unsigned long trap_nr;
	unsigned long error_code;
};
#endif

struct kernel_siginfo {
	int si_code;
};

struct uprobe_task;

struct task_struct {
	pid_t pid;
	pid_t tgid;
	u64 start_time;
	unsigned long min_flt;
	unsigned long maj_flt;
	char comm[16];
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct css_set *cgroups;
	const struct cred *real_cred;
	unsigned int flags;
	unsigned int __state; /* 5.14+, see compat.bpf.h */
	struct mm_struct *mm;
	struct signal_struct *signal;
	struct pid *thread_pid; /* 4.19+; NULL once the task has been reaped */
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	unsigned in_iowait : 1;
	unsigned int memcg_nr_pages_over_high; /* if the kernel has memory cgroups */
	unsigned in_execve : 1;                /* another program is being loaded */
	unsigned in_memstall : 1;              /* waits for memory: if the kernel has PSI */
	int pagefault_disabled;
	struct thread_struct thread;
	u64 self_exec_id;
	struct uprobe_task *utask; /* if the kernel has uprobes */
};

struct vm_operations_struct;
struct userfaultfd_ctx;

struct vm_userfaultfd_ctx {
	struct userfaultfd_ctx *ctx; /* if the kernel has userfaultfd */
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	struct mm_struct *vm_mm;
	const struct vm_operations_struct *vm_ops;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
	struct vm_userfaultfd_ctx vm_userfaultfd_ctx;
	void *vm_private_data;
};

struct vm_fault {
	struct vm_area_struct *vma;
	unsigned long address;
};

struct seq_file;
struct bpf_map;
struct linux_binprm;

/* What a program of the tracepoint kvm:kvm_exit is given; the type is in kvm.ko's own BTF. */
struct trace_event_raw_kvm_exit {
	unsigned int exit_reason;
	unsigned long guest_rip;
	u32 isa;
	unsigned int vcpu_id;
};

#pragma clang attribute pop

/* What follows is laid out the same everywhere and not relocated: libbpf goes through all types of the kernel for each
 * type that is. */

#if defined(__TARGET_ARCH_x86)
struct pt_regs { /* arch/x86/include/asm/ptrace.h, as user space knows it */
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#else
#error "trapline's kernel half is written for x86_64 so far"
#endif

/* What a perf_event program is given (include/uapi/linux/bpf_perf_event.h). */
struct bpf_perf_event_data {
	struct pt_regs regs;
	__u64 sample_period;
	__u64 addr;
};

/* What iterators are given (kernel/bpf/task_iter.c, map_iter.c): from 5.8 to 7.3. */
struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
};

#endif

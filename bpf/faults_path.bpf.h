/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Paths, read at the fault itself, so that no process can have ended and no file system have been unmounted before
 * somebody asks: up from the file, through the mounts, to the root of the process, as the kernel's d_path() does.
 */
#ifndef TRAPLINE_FAULTS_PATH_BPF_H
#define TRAPLINE_FAULTS_PATH_BPF_H

#include "trap.bpf.h"
#include "faults.h"

#define PATH_DEEPEST 2048 /* names of one letter */

struct path_walk {
	struct faults_name *name;
	struct dentry *dentry, *root_dentry;
	struct mount *mount;
	struct vfsmount *root_mnt;
	bool done;
};

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (struct mount *)((void *)mnt - bpf_core_field_offset(struct mount, mnt));
}

static __always_inline struct vfsmount *vfsmount_of(struct mount *mount)
{
	return (struct vfsmount *)((void *)mount + bpf_core_field_offset(struct mount, mnt));
}

static __always_inline void path_append(struct faults_name *name, const void *text)
{
	u32 at = name->length;
	long len;

	if (at > FAULTS_NAME_LEN - 256) {
		name->flags |= FAULTS_NAME_CUT;
		return;
	}
	len = bpf_probe_read_kernel_str(&name->text[at], 256, text);
	if (len > 0)
		name->length = at + len;
}

static long path_step(u64 i, struct path_walk *walk)
{
	struct dentry *dentry = walk->dentry, *parent;
	struct mount *mount = walk->mount, *up;

	if (dentry == walk->root_dentry && vfsmount_of(mount) == walk->root_mnt) {
		walk->done = true;
		return 1;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root) || dentry == parent) {
		up = BPF_CORE_READ(mount, mnt_parent);
		if (up == mount || !up || dentry != BPF_CORE_READ(mount, mnt.mnt_root)) {
			walk->done = true; /* the root of all */
			return 1;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = up;
		return 0;
	}
	path_append(walk->name, BPF_CORE_READ(dentry, d_name.name));
	walk->dentry = parent;
	return (walk->name->flags & FAULTS_NAME_CUT) != 0;
}

/* Nobody else knows of `name` yet that would change it. */
static __always_inline void read_path(struct faults_name *name, struct path *path, struct task_struct *task)
{
	struct dentry *dentry = BPF_CORE_READ(path, dentry);
	struct path_walk walk = {
	    .name = name,
	    .dentry = dentry,
	    .mount = mount_of(BPF_CORE_READ(path, mnt)),
	    .root_dentry = BPF_CORE_READ(task, fs, root.dentry),
	    .root_mnt = BPF_CORE_READ(task, fs, root.mnt),
	};

	if (!BPF_CORE_READ(dentry, d_hash.pprev) && BPF_CORE_READ(dentry, d_parent) != dentry)
		name->flags |= FAULTS_NAME_DELETED;
	bpf_loop(PATH_DEEPEST, path_step, &walk, 0);
	if (!walk.done)
		name->flags |= FAULTS_NAME_CUT;
}

#endif

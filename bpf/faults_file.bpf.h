/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Groups by file: what is mapped where a thread faults, and what it is called. */
#ifndef TRAPLINE_FAULTS_FILE_BPF_H
#define TRAPLINE_FAULTS_FILE_BPF_H

#include "faults_quota.bpf.h"
#include "faults_memory.bpf.h"
#include "faults_path.bpf.h"

/* What files are called; user space takes the names out several times a second. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct faults_group_key);
	__type(value, struct faults_name);
} names SEC(".maps");

/* Of these user space has, or can have, the name; in which turn that was last looked up. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct faults_group_key);
	__type(value, u64);
} named SEC(".maps");

SHARED(enum faults_name_flag);

const struct faults_name no_name = {};

/* The beginning of a name, padded with NULs. */
struct file_prefix {
	u64 word[2];
};

/* Shared memory that was given no name: the kernel's own name for it says nothing. */
static __always_inline bool is_nameless(u32 area, struct file_prefix *name)
{
	return (area == FAULTS_AREA_SHMEM && name->word[0] == 0x6f72657a2f766564) || /* dev/zero */
	       (area == FAULTS_AREA_HUGETLB && name->word[0] == 0x6775685f6e6f6e61); /* anon_hugepage */
}

/*
 * A file is its inode. Numbers of inodes are reused, so there is the generation; on some file systems several inodes
 * have the same number (btrfs snapshots), so there is the address. The name that is shown is that of the file as it
 * was opened, so its inode is meant: with overlayfs the overlay's. Gives the path, if it has a name.
 */
static __always_inline struct path *file_key(struct vm_area_struct *vma, struct faults_group_key *key)
{
	struct file *file = FIELD(vma, vm_file);
	struct file_prefix name = {};
	struct dentry *dentry;
	struct inode *inode;
	struct path *path;
	u32 area = FAULTS_AREA_FILE;

	if (!file) {
		key->word[0] = (u64)area_without_file(vma) << 32;
		return NULL;
	}
	path = path_as_opened(file);
	dentry = FIELD(path, dentry);
	inode = FIELD(dentry, d_inode);
	if (!inode)
		inode = FIELD(file, f_inode);
	if (is_internal(dentry)) {
		area = internal_area(FIELD(FIELD(inode, i_sb), s_magic));
		bpf_probe_read_kernel_str(&name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
		if (is_nameless(area, &name)) {
			key->word[0] = (u64)area << 32;
			return NULL;
		}
	}
	key->word[0] = (u64)area << 32 | FIELD(FIELD(inode, i_sb), s_dev);
	key->word[1] = FIELD(inode, i_ino);
	key->word[2] = FIELD(inode, i_generation);
	/* Such objects come and go with one inode for all: those whose names begin alike are one. */
	key->word[3] = area == FAULTS_AREA_OBJECT ? name.word[0] : (u64)inode;
	return path;
}

/* The name of a key that is in `named` by now; NULL if there is no space for it, and the next fault on it tries again.
 */
static __always_inline struct faults_name *new_name(struct faults_group_key *key)
{
	struct faults_name *name;

	if (!bpf_map_update_elem(&names, key, &no_name, BPF_ANY)) {
		name = bpf_map_lookup_elem(&names, key);
		if (name)
			return name;
	}
	bpf_map_delete_elem(&named, key);
	return NULL;
}

/* Leaves the name for user space, once. */
static __always_inline bool file_is_named(struct tracked *t, struct faults_group_key *key, struct path *path,
					  struct vm_area_struct *vma, struct task_struct *task)
{
	u64 turn = control.turn, *last = bpf_map_lookup_elem(&named, key);
	struct faults_name *name;
	struct dentry *dentry;

	if (last) {
		bool stale = is_stale(*last);

		if (*last != turn)
			*last = turn;
		/* One that is about to be forgotten is left once more. */
		if (!stale)
			return true;
	} else if (GROUPED_BY(FILE) && may_make_group(leader_of(t, task)) != QUOTA_LEFT) {
		/* It will be among the others. */
		return false;
	} else if (bpf_map_update_elem(&named, key, &turn, BPF_NOEXIST)) {
		return false;
	}
	name = new_name(key);
	if (!name)
		return false;
	if (key->word[0] >> 32 == FAULTS_AREA_FILE) {
		read_path(name, path, owner_of(FIELD(vma, vm_mm), task));
	} else {
		dentry = FIELD(path, dentry);
		path_append(name, BPF_CORE_READ(dentry, d_name.name));
		path_append(name, BPF_CORE_READ(dentry, d_inode, i_sb, s_type, name));
	}
	name->flags |= FAULTS_NAME_READY;
	add(&made.names, 1);
	return true;
}

/* The row of a process that has used up its share; its name is the process's. */
static __always_inline bool is_other_file(struct faults_group_key *key)
{
	u32 area = key->word[0] >> 32;

	return area == FAULTS_AREA_OTHER || area == FAULTS_AREA_OTHERS;
}

static __always_inline void other_files(struct faults_group_key *key, struct tracked *leader, struct task_struct *task,
					enum quota quota)
{
	struct faults_name *name;
	u64 turn = control.turn;

	if (quota != QUOTA_OF_PROCESS) {
		/* A row for all processes of the user, of which there may be any number. */
		key->word[0] = (u64)FAULTS_AREA_OTHERS << 32;
		key->word[1] = (u32)bpf_get_current_uid_gid();
		key->word[2] = key->word[3] = 0;
		return;
	}
	key->word[0] = (u64)FAULTS_AREA_OTHER << 32;
	key->word[1] = leader->row.pid;
	key->word[2] = leader->row.process_start_ns;
	key->word[3] = 0;
	if (bpf_map_lookup_elem(&named, key) || bpf_map_update_elem(&named, key, &turn, BPF_NOEXIST))
		return;
	name = new_name(key);
	if (!name)
		return;
	name->length = TRAP_COMM_LEN;
	BPF_CORE_READ_INTO(&name->text, task, group_leader, comm);
	name->flags |= FAULTS_NAME_READY;
	add(&made.names, 1);
}

/* What user space knows of names is not older than this. */
static __always_inline u32 names_since(void)
{
	return (u32)control.stale | 1u << 31;
}

/* The thread faults in this area, NULL if that is not known. Where in the file it begins, or FAULTS_NONE. */
static __always_inline u64 file_sees_vma(struct tracked *t, struct task_struct *task, struct vm_area_struct *vma)
{
	struct faults_group_key key = {};
	struct path *path = vma ? file_key(vma, &key) : NULL;
	struct faults_group_key *last = &t->open_file;
	u32 found = names_since();

	if (t->open_named != found || last->word[0] != key.word[0] || last->word[1] != key.word[1] ||
	    last->word[2] != key.word[2] || last->word[3] != key.word[3]) {
		*last = key;
		t->open_named = !path || file_is_named(t, &key, path, vma, task) ? found : 0;
	}
	return path ? FIELD(vma, vm_pgoff) << PAGE_SHIFT : FAULTS_NONE;
}

#endif

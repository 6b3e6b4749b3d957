/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What rules go by, told to user space: names, paths and cgroups of tasks, and when they may have
 * changed. An object of its own, loaded where there are rules; it shares the states of tasks with
 * the scheduler's. What tasks make of their rule: follow.h.
 *
 * Paths are read without locks: of a file that is renamed meanwhile it may be neither the old
 * one nor the new one, and the next event tells.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "intf.h"
#include "task.h"

char _license[] SEC("license") = "GPL";

struct task_struct *bpf_task_from_pid(s32 pid) __ksym;
void bpf_task_release(struct task_struct *p) __ksym;
void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;

/* The answer of `rule_describe`; user space asks in one thread. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct described);
	__uint(max_entries, 1);
} described SEC(".maps");

/* Whether paths of programs are asked for: user space sets it before a scan. */
u32 wants_exe;

/* Names of a path. Deeper ones are not told. */
#define DEPTH_MAX 64

/* As kernels before 6.15 have it. */
struct kernfs_node___before_6_15 {
	struct kernfs_node *parent;
};

/* Appends a name with its NUL at `at`; the length after it, 0 if there is no room. */
static __always_inline u32 append(char *path, u32 at, const void *name)
{
	long n;

	if (at >= PATH_CHARS)
		return 0;
	n = bpf_probe_read_kernel_str(path + (at & (PATH_CHARS - 1)), NAME_CHARS, name);
	return n > 0 ? at + n : 0;
}

/* The names above the root of a cgroup, from the last to the first. */
static __always_inline u32 cgroup_path(char *path, struct task_struct *p)
{
	struct kernfs_node *kn = BPF_CORE_READ(p, cgroups, dfl_cgrp, kn), *parent;
	u32 len = 0;
	int i;

	bpf_for(i, 0, DEPTH_MAX) {
		struct kernfs_node___before_6_15 *old = (void *)kn;

		if (!kn)
			return 0;
		parent = bpf_core_field_exists(old->parent) ? BPF_CORE_READ(old, parent)
							    : BPF_CORE_READ(kn, __parent);
		if (!parent) {
			/* The root itself: one empty name. */
			if (!len)
				path[len++] = 0;
			return len;
		}
		len = append(path, len, BPF_CORE_READ(kn, name));
		if (!len)
			return 0;
		kn = parent;
	}
	return 0;
}

/* The names of the path of a task's program, likewise: up to the root of its file systems. */
static __always_inline u32 exe_path(char *path, struct task_struct *p)
{
	struct file *file = BPF_CORE_READ(p, mm, exe_file);
	struct dentry *dentry, *parent, *root;
	struct vfsmount *vfsmount;
	struct mount *mount, *above;
	u32 len = 0;
	int i;

	if (!file)
		return 0;
	dentry = BPF_CORE_READ(file, f_path.dentry);
	vfsmount = BPF_CORE_READ(file, f_path.mnt);
	mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
	bpf_for(i, 0, DEPTH_MAX) {
		root = BPF_CORE_READ(mount, mnt.mnt_root);
		parent = BPF_CORE_READ(dentry, d_parent);
		if (dentry == root || dentry == parent) {
			above = BPF_CORE_READ(mount, mnt_parent);
			if (above == mount || dentry != root)
				return len;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = above;
			continue;
		}
		len = append(path, len, BPF_CORE_READ(dentry, d_name.name));
		if (!len)
			return 0;
		dentry = parent;
	}
	return 0;
}

/* With linkage: the verifier walks it once for each program. */
__attribute__((noinline)) int describe(struct task_struct *p __arg_trusted,
				       struct task_ctx *tctx __arg_nonnull)
{
	u32 zero = 0;
	struct described *d = bpf_map_lookup_elem(&described, &zero);
	struct task_key *k;

	if (!d)
		return 0;
	k = &d->key;
	/* First: what changes from here on is told of again. */
	__sync_lock_test_and_set(&tctx->told, 0);
	k->asked = tctx->asked;
	k->rule = rule_index(tctx->rule);
	k->born_at = p->start_boottime;
	k->pid = p->pid;
	k->tgid = p->tgid;
	k->uid = BPF_CORE_READ(p, cred, euid.val);
	k->nice = p->static_prio - 120;
	bpf_probe_read_kernel_str(k->comm, sizeof(k->comm), p->comm);
	if (tctx->named && tctx->named == rules_in_force())
		__builtin_memcpy(k->comm, tctx->name, sizeof(k->comm));
	k->cgroup_len = cgroup_path(d->cgroup, p);
	k->exe_len = wants_exe ? exe_path(d->exe, p) : 0;
	return 1;
}

/* The key of the task of that number, into `described`. */
SEC("syscall")
int rule_describe(struct rule_call *call)
{
	struct task_struct *p = bpf_task_from_pid(call->pid);
	struct task_ctx *tctx;

	if (!p)
		return 0;
	bpf_rcu_read_lock();
	tctx = task_ctx_of(p);
	if (tctx)
		call->done = describe(p, tctx);
	bpf_rcu_read_unlock();
	bpf_task_release(p);
	return 0;
}

/* Gives a task its rule, of the generation in force. */
SEC("syscall")
int rule_apply(struct rule_call *call)
{
	struct task_struct *p = bpf_task_from_pid(call->pid);
	struct task_ctx *tctx;

	if (!p)
		return 0;
	bpf_rcu_read_lock();
	tctx = task_ctx_of(p);
	if (tctx && p->start_boottime == call->born_at) {
		tctx->rule = call->rule;
		tctx->answered = call->asked;
		call->done = 1;
		call->waits = BPF_CORE_READ(p, scx.dsq) != NULL;
	}
	bpf_rcu_read_unlock();
	bpf_task_release(p);
	return 0;
}

/* The keys of all tasks, each with its paths behind it. */
SEC("iter/task")
int rule_scan(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct task_ctx *tctx;
	struct seq_file *seq = ctx->meta->seq;
	struct described *d;
	u32 zero = 0, exe_len, cgroup_len;

	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	if (!tctx || !describe(p, tctx))
		return 0;
	d = bpf_map_lookup_elem(&described, &zero);
	if (!d)
		return 0;
	exe_len = d->key.exe_len;
	cgroup_len = d->key.cgroup_len;
	if (exe_len > sizeof(d->exe) || cgroup_len > sizeof(d->cgroup))
		return 0;
	/* Where there is no room for all of it, the kernel calls again for this task. */
	bpf_seq_write(seq, &d->key, sizeof(d->key));
	bpf_seq_write(seq, d->exe, exe_len);
	bpf_seq_write(seq, d->cgroup, cgroup_len);
	return 0;
}

static __always_inline int changed(struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (tctx)
		tell_rules(p, tctx);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(rule_exec, struct task_struct *p)
{
	return changed(p);
}

/* The kernel tells of it before it does it: user space may look in between. */
SEC("tp_btf/task_rename")
int BPF_PROG(rule_rename, struct task_struct *p, const char *name)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return 0;
	bpf_probe_read_kernel_str(tctx->name, sizeof(tctx->name), name);
	tctx->named = rules_in_force();
	tell_rules(p, tctx);
	return 0;
}

static __always_inline bool same_key(struct task_struct *a, struct task_struct *b)
{
	return a->static_prio == b->static_prio &&
	       BPF_CORE_READ(a, cred, euid.val) == BPF_CORE_READ(b, cred, euid.val) &&
	       BPF_CORE_READ(a, cgroups, dfl_cgrp) == BPF_CORE_READ(b, cgroups, dfl_cgrp);
}

/*
 * A child is as its parent, mostly: then it has its rule at once, and nobody is told. It shares
 * what is left of the parent's budget, so that a chain of children has no more than one.
 */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(rule_fork, struct task_struct *parent, struct task_struct *child)
{
	struct task_ctx *from = task_ctx_of(parent), *to = task_ctx_of(child);
	u64 half_ns;

	if (!to)
		return 0;
	if (from) {
		if (from->boost.used_ns < from->boost.budget_ns) {
			half_ns = (from->boost.budget_ns - from->boost.used_ns) / 2;
			from->boost.used_ns += half_ns;
		}
		to->boost = from->boost;
		to->boost.budget_ns = 0;
	}
	if (!from || from->asked != from->answered ||
	    from->rule >> RULE_INDEX_BITS != rules_in_force() || !same_key(parent, child)) {
		tell_rules(child, to);
		return 0;
	}
	to->rule = from->rule;
	return 0;
}

/* All threads of a process move together, and are told of by the first. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(rule_cgroup, struct cgroup *to, const char *path, struct task_struct *p,
	     bool threadgroup)
{
	struct task_struct *thread;

	if (!threadgroup)
		return changed(p);
	bpf_for_each(task, thread, p, BPF_TASK_ITER_PROC_THREADS)
		changed(thread);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The observer of `scheduler compare`: how long runnable tasks wait for a CPU, under
 * whatever scheduler. It sees the kernel's tracepoints only and knows nothing of
 * ours, so that both are measured by the same rule.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "intf.h"
#include "policy.h"

char _license[] SEC("license") = "GPL";

/* The process that compares: what it starts is the command. */
const volatile s32 starter_tgid;

/* Of each task, from its first wakeup on. */
struct observed {
	u64 runnable_at; /* since when it waits for a CPU; 0: it does not */
	bool of_command;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct observed);
} tasks SEC(".maps");

/* One element an enum waiters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct waits);
	__uint(max_entries, NR_WAITERS);
} waits SEC(".maps");

static __always_inline struct observed *observed(struct task_struct *p)
{
	return bpf_task_storage_get(&tasks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __always_inline void starts_to_wait(struct task_struct *p)
{
	struct observed *o = observed(p);

	if (o)
		o->runnable_at = bpf_ktime_get_ns();
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(observe_wakeup, struct task_struct *p)
{
	starts_to_wait(p);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(observe_wakeup_new, struct task_struct *p)
{
	starts_to_wait(p);
	return 0;
}

/* The command's processes, their children and their threads. Not our own threads. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(observe_fork, struct task_struct *parent, struct task_struct *child)
{
	struct observed *from = bpf_task_storage_get(&tasks, parent, 0, 0), *o;

	if (child->tgid == starter_tgid)
		return 0;
	if (parent->tgid != starter_tgid && !(from && from->of_command))
		return 0;
	o = observed(child);
	if (o)
		o->of_command = true;
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(observe_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct observed *o;
	struct waits *w;
	u64 waited_ns;
	u32 who;

	/* It goes on waiting. The idle tasks have pid 0. */
	if (prev->pid && (preempt || !prev->__state))
		starts_to_wait(prev);
	if (!next->pid || next->tgid == starter_tgid)
		return 0;
	o = bpf_task_storage_get(&tasks, next, 0, 0);
	if (!o || !o->runnable_at)
		return 0;
	waited_ns = bpf_ktime_get_ns() - o->runnable_at;
	o->runnable_at = 0;
	who = o->of_command ? WAITERS_COMMAND : WAITERS_OTHERS;
	w = bpf_map_lookup_elem(&waits, &who);
	if (!w || (s64)waited_ns < 0)
		return 0;
	w->hist[hist_slot(waited_ns) & (HIST_SLOTS - 1)]++;
	return 0;
}

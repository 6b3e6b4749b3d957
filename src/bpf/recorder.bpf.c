/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The recorder of `scheduler record`: every switch, wakeup and migration of the machine, by the
 * kernel's tracepoints, under whatever scheduler. Where ours runs it looks at what that keeps of
 * tasks and CPUs, which costs the scheduler nothing, and nothing at all while nobody records.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "intf.h"
#include "maps.h"
#include "task.h"

char _license[] SEC("license") = "GPL";

/* The maps that are shared are those of the scheduler that runs. */
const volatile bool with_reasons;

/* Written by user space: to attach and to detach take long on a loaded machine, and one by one. */
bool recording;

#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_NOLOAD 0x400
/* States as sched_switch tells them. */
#define REPORTED 0x7f
#define REPORTED_IDLE 0x80

/* Sized by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/* Events that the ring had no room for. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, u64);
	__uint(max_entries, 1);
} lost SEC(".maps");

static __always_inline struct traced *begin(u32 kind, struct task_struct *p)
{
	struct traced *t;
	u32 zero = 0;
	u64 *n;

	if (!recording)
		return NULL;
	t = bpf_ringbuf_reserve(&ring, sizeof(*t), 0);
	if (!t) {
		n = bpf_map_lookup_elem(&lost, &zero);
		if (n)
			*n += 1;
		return NULL;
	}
	__builtin_memset(t, 0, sizeof(*t));
	t->traced_at = bpf_ktime_get_boot_ns();
	t->kind = kind;
	t->cpu = bpf_get_smp_processor_id();
	t->pid = p->pid;
	t->tgid = p->tgid;
	t->prio = p->prio;
	bpf_probe_read_kernel_str(t->comm, sizeof(t->comm), p->comm);
	return t;
}

/* User space looks by itself: nobody is woken, and no wakeup recorded for that. */
static __always_inline int end(struct traced *t)
{
	bpf_ringbuf_submit(t, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline u32 reported(u32 state)
{
	if ((state & (TASK_UNINTERRUPTIBLE | TASK_NOLOAD)) == (TASK_UNINTERRUPTIBLE | TASK_NOLOAD))
		return REPORTED_IDLE;
	return state & REPORTED ?: TASK_UNINTERRUPTIBLE;
}

/* The scheduler has just said that it runs, and what it is owed by then. */
static __always_inline void add_reasons(struct traced *t, struct task_struct *next)
{
	struct task_ctx *tctx = task_ctx_of(next);
	struct cpu_ctx *cctx = cpu_ctx_of(t->cpu);
	struct llc_ctx *lctx = llc_ctx_of(llc_of(t->cpu));

	if (!tctx || !cctx || !lctx || cctx->running_pid != next->pid)
		return;
	t->lag_vns = lctx->clock.now_vns - cctx->vruntime_vns;
	t->due_vns = cctx->deadline_vns - lctx->clock.now_vns;
	t->weight = cctx->weight;
	t->placed = tctx->placed;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(record_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct traced *t = begin(TRACED_SWITCH, prev);

	if (!t)
		return 0;
	if (!preempt && prev->__state)
		t->state = reported(prev->__state);
	t->next_pid = next->pid;
	t->next_tgid = next->tgid;
	t->next_prio = next->prio;
	bpf_probe_read_kernel_str(t->next_comm, sizeof(t->next_comm), next->comm);
	if (with_reasons && next->pid)
		add_reasons(t, next);
	return end(t);
}

static __always_inline int woken(struct task_struct *p)
{
	struct traced *t = begin(TRACED_WAKING, p);

	if (!t)
		return 0;
	t->next_pid = (u32)bpf_get_current_pid_tgid();
	t->to = p->wake_cpu;
	return end(t);
}

SEC("tp_btf/sched_waking")
int BPF_PROG(record_waking, struct task_struct *p)
{
	return woken(p);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(record_wakeup_new, struct task_struct *p)
{
	return woken(p);
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(record_migrate, struct task_struct *p, int dest_cpu)
{
	struct traced *t = begin(TRACED_MIGRATE, p);

	if (!t)
		return 0;
	t->cpu = p->wake_cpu;
	t->to = dest_cpu;
	return end(t);
}

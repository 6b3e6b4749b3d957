/* SPDX-License-Identifier: GPL-2.0-only */
#include <scx/common.bpf.h>
#include "intf.h"
#include "policy.h"

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

/* Set before load. */
const volatile u32 nr_cpu_ids = 1;
const volatile u32 nr_llcs = 1;
const volatile u32 nr_nodes = 1;
const volatile bool smt_enabled;
const volatile bool task_stats; /* keep the per-task figures of --tasks */

/* Rewritten while attached. */
struct knobs knobs SEC(".data");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct cpu_stats);
	__uint(max_entries, 1);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct cpu_ctx);
	__uint(max_entries, 1); /* nr_cpu_ids, set before load */
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct llc_ctx);
	__uint(max_entries, 1); /* nr_llcs, set before load */
} llcs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct cpu_topo);
	__uint(max_entries, 1); /* nr_cpu_ids, set before load */
} topo SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct llc_topo);
	__uint(max_entries, 1); /* nr_llcs, set before load */
} llc_topo SEC(".maps");

SEC("syscall")
int snapshot(void *ctx)
{
	return 0;
}

SEC("syscall")
int refresh_topology(void *ctx)
{
	return 0;
}

SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_sample s = {};
	struct task_struct *p = ctx->task;
	if (!p)
		return 0;
	s.pid = p->pid;
	bpf_seq_write(ctx->meta->seq, &s, sizeof(s));
	return 0;
}

void BPF_STRUCT_OPS(sched_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(scheduler_ops,
	       .exit = (void *)sched_exit,
	       .timeout_ms = 5000,
	       .name = "scheduler");

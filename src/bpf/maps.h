/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the scheduler's object and that of the recorder share of CPUs and LLCs. The state of tasks
 * is in task.h.
 */
#ifndef SCHEDULER_MAPS_H
#define SCHEDULER_MAPS_H

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct cpu_topo);
	__uint(max_entries, 1);
} topo SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* a policy in user space looks at it */
	__type(key, u32);
	__type(value, struct cpu_ctx);
	__uint(max_entries, 1);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct llc_ctx);
	__uint(max_entries, 1);
} llcs SEC(".maps");

static __always_inline struct cpu_ctx *cpu_ctx_of(s32 cpu)
{
	u32 key = cpu;

	return bpf_map_lookup_elem(&cpus, &key);
}

static __always_inline struct llc_ctx *llc_ctx_of(u32 llc)
{
	return bpf_map_lookup_elem(&llcs, &llc);
}

static __always_inline u32 llc_of(s32 cpu)
{
	u32 key = cpu;
	struct cpu_topo *t = bpf_map_lookup_elem(&topo, &key);

	return t ? t->llc : 0;
}

#endif /* SCHEDULER_MAPS_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's half for the simulator: src/bpf/main.bpf.c as it is, and the table by
 * which a simulated machine finds its way about in it.
 */
#include "main.bpf.c"

#define MAP(map)                                            \
	{.name = #map,                                      \
	 .value_bytes = sizeof(*map.value),                 \
	 .type = sim_map_type(&map),                        \
	 .entries = sizeof(*map.max_entries) / sizeof(int), \
	 .values = (void **)&map.value,                     \
	 .max_entries = (void **)&map.max_entries}

static const struct sim_map maps[] = {
	MAP(stats),         MAP(topo),          MAP(llc_topo),     MAP(cpus),
	MAP(llcs),          MAP(parts),         MAP(llc_masks),    MAP(node_masks),
	MAP(scratch_masks), MAP(decisions),     MAP(relay_timers), MAP(effects),
	MAP(cpu_sets),      MAP(cpu_set_masks), MAP(ruling),       MAP(leaving_timers),
};

__attribute__((visibility("default"))) const struct sim_object sim_object = {
	.world = &sim,
	.ops = &scheduler_ops,
	.rodata = {.nr_cpu_ids = (u32 *)&nr_cpu_ids,
		   .nr_llcs = (u32 *)&nr_llcs,
		   .nr_nodes = (u32 *)&nr_nodes,
		   .smt_enabled = (bool *)&smt_enabled,
		   .relayed = (bool *)&relayed,
		   .event_bytes = (u32 *)&event_bytes,
		   .event_mask_bytes = (u32 *)&event_mask_bytes},
	.knobs = &knobs,
	.relay = &relay,
	.relay_apply = relay_apply,
	.relay_idle_cpu = relay_idle_cpu,
	.maps = maps,
	.nr_maps = sizeof(maps) / sizeof(maps[0]),
	.world_bytes = sizeof(struct sim_world),
};

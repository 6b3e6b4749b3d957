/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where: idle CPUs near a task, the least loaded LLC for a new one, and the CPU
 * whose task a waking one should preempt.
 */
#ifndef SCHEDULER_PLACE_H
#define SCHEDULER_PLACE_H

/* CPUs of each LLC and of each node. Written by rebuild_masks() only. */
struct mask_slot {
	struct bpf_cpumask __kptr *mask;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct mask_slot);
	__uint(max_entries, MAX_LLCS);
} llc_masks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct mask_slot);
	__uint(max_entries, MAX_NODES);
} node_masks SEC(".maps");

/* Room for one intersection. Used with interrupts off, so a CPU needs but one. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct mask_slot);
	__uint(max_entries, 1);
} scratch_masks SEC(".maps");

/* LLCs that a new task looks at. */
#define FORK_LLCS_MAX 16

/*
 * May the task run on the CPU? With linkage, because the verifier of a kernel before
 * 7.0 searches all the kernel's types by name whenever it walks over `p->cpus_ptr`:
 * inlined into dispatch, that took four fifths of a start.
 */
__attribute__((noinline)) bool may_run(struct task_struct *p __arg_trusted, s32 cpu)
{
	return cpu >= 0 && bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
}

/* The idle CPU is marked busy by this, so that nobody else takes it. */
static __always_inline bool claim(s32 cpu)
{
	return scx_bpf_test_and_clear_cpu_idle(cpu);
}

static __always_inline bool any_idle(void)
{
	const struct cpumask *idle = scx_bpf_get_idle_cpumask();
	bool any = !bpf_cpumask_empty(idle);

	scx_bpf_put_idle_cpumask(idle);
	return any;
}

static __always_inline bool core_idle(s32 cpu)
{
	const struct cpumask *idle = scx_bpf_get_idle_smtmask();
	bool whole = bpf_cpumask_test_cpu(cpu, idle);

	scx_bpf_put_idle_cpumask(idle);
	return whole;
}

/*
 * Does a kick from here arrive? It is carried by interrupt work of the CPU that asks: on
 * its way out of the machine that would stay pending for ever, and the scheduler could not
 * be detached (seen on 7.3).
 */
static __always_inline bool may_kick(void)
{
	struct cpu_ctx *here = cpu_ctx_of(bpf_get_smp_processor_id());

	return here && here->online;
}

/* Has a CPU look at its queues. */
static __always_inline void kick(s32 cpu, u64 flags)
{
	if (may_kick())
		scx_bpf_kick_cpu(cpu, flags);
}

static __always_inline void kick_idle(s32 cpu)
{
	kick(cpu, SCX_KICK_IDLE);
}

/*
 * A CPU that went idle before the task was queued would sleep on. True: one is woken. As
 * kick() does, but asked first: a CPU that is picked and not kicked is marked as busy.
 */
static __always_inline bool wake_idle_for(const struct task_struct *p)
{
	s32 cpu;

	if (!may_kick())
		return false;
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu < 0)
		return false;
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	return true;
}

/* The CPUs of `mask` that the task may use, in the scratch mask; NULL: there are none. */
static __always_inline struct bpf_cpumask *usable_of(const struct task_struct *p,
						     struct bpf_cpumask *mask)
{
	struct bpf_cpumask *both;
	struct mask_slot *scratch;
	u32 zero = 0;

	scratch = bpf_map_lookup_elem(&scratch_masks, &zero);
	if (!scratch || !(both = scratch->mask))
		return NULL;
	return bpf_cpumask_and(both, cast_mask(mask), p->cpus_ptr) ? both : NULL;
}

/* An idle CPU of `p` within `slot`, claimed; negative: there is none. */
static __always_inline s32 claim_within(const struct task_struct *p, struct mask_slot *slot,
					bool whole, u64 flags)
{
	struct bpf_cpumask *mask, *both;

	if (!slot || !(mask = slot->mask))
		return -ENOENT;
	if (whole)
		return scx_bpf_pick_idle_cpu(cast_mask(mask), flags);
	both = usable_of(p, mask);
	return both ? scx_bpf_pick_idle_cpu(cast_mask(both), flags) : -ENOENT;
}

/*
 * An idle CPU for a waking task, claimed: the previous CPU if its whole core is
 * idle, a whole idle core of the LLC, the previous CPU, any idle one of the LLC,
 * of the node, anywhere. Negative: there is none.
 */
static __always_inline s32 claim_idle(struct task_struct *p, s32 prev)
{
	bool whole = p->nr_cpus_allowed >= nr_cpu_ids;
	struct mask_slot *slot;
	u32 llc, key = prev;
	struct cpu_topo *t;
	s32 cpu;

	if (may_run(p, prev) && (!smt_enabled || core_idle(prev)) && claim(prev))
		return prev;
	if (!any_idle())
		return -ENOENT;
	t = bpf_map_lookup_elem(&topo, &key);
	if (!t)
		return -ENOENT;
	llc = t->llc;
	slot = bpf_map_lookup_elem(&llc_masks, &llc);
	if (smt_enabled) {
		cpu = claim_within(p, slot, whole, SCX_PICK_IDLE_CORE);
		if (cpu >= 0)
			return cpu;
		if (may_run(p, prev) && claim(prev))
			return prev;
	}
	cpu = claim_within(p, slot, whole, 0);
	if (cpu >= 0 || nr_llcs == 1)
		return cpu;
	if (nr_nodes > 1) {
		u32 node = t->node;

		slot = bpf_map_lookup_elem(&node_masks, &node);
		if (smt_enabled) {
			cpu = claim_within(p, slot, whole, SCX_PICK_IDLE_CORE);
			if (cpu >= 0)
				return cpu;
		}
		cpu = claim_within(p, slot, whole, 0);
		if (cpu >= 0)
			return cpu;
	}
	if (smt_enabled) {
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, SCX_PICK_IDLE_CORE);
		if (cpu >= 0)
			return cpu;
	}
	return scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
}

/*
 * As wake_idle_for(), for a task that is put into the global queue: the kernel has one for
 * each node, which the CPUs of other nodes do not look at.
 */
static __always_inline void wake_idle_of_node(const struct task_struct *p, s32 cpu)
{
	u32 key = cpu, node;
	struct cpu_topo *t = bpf_map_lookup_elem(&topo, &key);

	if (!t || !may_kick())
		return;
	node = t->node;
	cpu = claim_within(p, bpf_map_lookup_elem(&node_masks, &node), false, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

/* A whole idle core for a task that runs on `cpu` now, claimed, near before far. */
static __always_inline s32 claim_core(struct task_struct *p, s32 cpu)
{
	bool whole = p->nr_cpus_allowed >= nr_cpu_ids;
	u32 llc = llc_of(cpu);
	s32 core;

	if (!is_movable_current(p))
		return -ENOENT;
	core = claim_within(p, bpf_map_lookup_elem(&llc_masks, &llc), whole, SCX_PICK_IDLE_CORE);
	return core >= 0 ? core : scx_bpf_pick_idle_cpu(p->cpus_ptr, SCX_PICK_IDLE_CORE);
}

/*
 * Ticks in a row, 16 ms at 250 Hz, before a running task leaves a shared core for an
 * idle one: a worker that runs with the tick for an instant is no reason to move.
 */
#define CROWDED_TICKS 4

/* Threads of a core that are looked at: POWER has eight. */
#define SIBLINGS_MAX 8

/*
 * Does the running task share its core with another while a whole core that it may
 * use is idle? It got there when that was busy, and nothing but its next wakeup would
 * move it; two hogs never wake. True after CROWDED_TICKS.
 */
static __always_inline bool is_crowded(struct task_struct *p, struct cpu_ctx *cctx, s32 cpu)
{
	const struct cpumask *idle;
	bool shared = false, room;
	u32 sibling = cpu;
	s32 i;

	bpf_for(i, 1, SIBLINGS_MAX) {
		struct cpu_topo *t = bpf_map_lookup_elem(&topo, &sibling);
		struct cpu_ctx *other;

		if (!t || t->sibling == (u32)cpu)
			break;
		sibling = t->sibling;
		other = cpu_ctx_of(sibling);
		if (other && other->running_pid) {
			shared = true;
			break;
		}
	}
	idle = scx_bpf_get_idle_smtmask();
	room = shared && bpf_cpumask_intersects(idle, p->cpus_ptr);
	scx_bpf_put_idle_cpumask(idle);
	cctx->crowded = room && is_movable_current(p) ? cctx->crowded + 1 : 0;
	return cctx->crowded >= CROWDED_TICKS;
}

/* How much an LLC has to do: its tasks without a CPU, less its idle CPUs. */
struct llc_load {
	s64 waiting;
	u32 nr_cpus; /* 0: no CPU is online */
};

static __always_inline struct llc_load llc_load(u32 llc, const struct cpumask *idle,
						struct bpf_cpumask *both)
{
	struct mask_slot *slot = bpf_map_lookup_elem(&llc_masks, &llc);
	struct llc_ctx *lctx = llc_ctx_of(llc);
	struct llc_load load = {};
	struct bpf_cpumask *mask;

	if (!slot || !lctx || !(mask = slot->mask))
		return load;
	bpf_cpumask_and(both, cast_mask(mask), idle);
	load.waiting = nr_in_llc(llc);
	load.waiting -= bpf_cpumask_weight(cast_mask(both));
	load.nr_cpus = lctx->nr_cpus;
	return load;
}

/* Is `a` less loaded than `b`, by what waits for each CPU? */
static __always_inline bool less_loaded(const struct llc_load *a, const struct llc_load *b)
{
	if (!a->nr_cpus || !b->nr_cpus)
		return a->nr_cpus > b->nr_cpus;
	return a->waiting * b->nr_cpus < b->waiting * a->nr_cpus;
}

/*
 * A CPU for a new task: in the least loaded LLC that its affinity allows, the
 * parent's where that is as good. Looks at no more than FORK_LLCS_MAX.
 */
static __always_inline s32 least_loaded(struct task_struct *p, s32 prev)
{
	const struct cpumask *idle;
	struct mask_slot *scratch, *slot;
	struct bpf_cpumask *both, *mask;
	u32 zero = 0, home = llc_of(prev), best = home;
	struct llc_topo *lt;
	struct llc_load load, best_load;
	s32 cpu = prev, i;

	scratch = bpf_map_lookup_elem(&scratch_masks, &zero);
	lt = bpf_map_lookup_elem(&llc_topo, &home);
	if (nr_llcs == 1 || !lt || !scratch || !(both = scratch->mask))
		return prev;

	idle = scx_bpf_get_idle_cpumask();
	best_load = llc_load(home, idle, both);
	bpf_for(i, 0, FORK_LLCS_MAX) {
		u32 llc;

		if (i >= lt->nr_nearest)
			break;
		llc = nearest_llc(lt, i);
		slot = bpf_map_lookup_elem(&llc_masks, &llc);
		if (!slot || !(mask = slot->mask) ||
		    !bpf_cpumask_intersects(cast_mask(mask), p->cpus_ptr))
			continue;
		load = llc_load(llc, idle, both);
		if (less_loaded(&load, &best_load)) {
			best_load = load;
			best = llc;
		}
	}
	scx_bpf_put_idle_cpumask(idle);

	if (best != home) {
		slot = bpf_map_lookup_elem(&llc_masks, &best);
		if (slot && (mask = slot->mask))
			cpu = bpf_cpumask_any_and_distribute(cast_mask(mask), p->cpus_ptr);
	}
	return cpu >= 0 && (u32)cpu < nr_cpu_ids ? cpu : prev;
}

/*
 * By how much the running task of `cpu` is due later than one that wakes, due at
 * `deadline_vns`; 0: it may not be preempted by that. Tasks of SCHED_IDLE give way
 * to all others.
 */
__attribute__((noinline)) u64 preemptible_by(s32 cpu, u64 deadline_vns, u64 now)
{
	struct cpu_ctx *v = cpu_ctx_of(cpu);
	u64 due_vns;

	if (!v || !v->running_pid || !v->online)
		return 0;
	if (v->weight == WEIGHT_IDLE)
		return VIRTUAL_MAX;
	due_vns = running_due(v->deadline_vns, v->vruntime_vns, elapsed_ns(v->running_at, now),
			      v->weight);
	if (!preempts(deadline_vns, due_vns, knobs.preempt_gran_vns))
		return 0;
	if (now - v->preempted_at < knobs.preempt_gap_ns) {
		count(CNT_REFUSED);
		return 0;
	}
	return due_vns - deadline_vns;
}

/*
 * The CPU whose running task a waking one preempts: the previous CPU, where its
 * cache and mostly the interrupt that woke it are; else of two others of its LLC
 * the one with the latest deadline. Negative: none.
 */
static __always_inline s32 find_victim(struct task_struct *p, s32 prev, u64 deadline_vns, u64 now)
{
	u64 best_gain, gain;
	struct bpf_cpumask *mask;
	struct mask_slot *slot;
	u32 llc = llc_of(prev);
	s32 best, cpu;

	if (preemptible_by(prev, deadline_vns, now))
		return prev;
	slot = bpf_map_lookup_elem(&llc_masks, &llc);
	if (is_bound(p) || !slot || !(mask = slot->mask))
		return -ENOENT;
	best = bpf_cpumask_any_and_distribute(cast_mask(mask), p->cpus_ptr);
	best_gain = preemptible_by(best, deadline_vns, now);
	cpu = bpf_cpumask_any_and_distribute(cast_mask(mask), p->cpus_ptr);
	gain = preemptible_by(cpu, deadline_vns, now);
	if (gain > best_gain)
		return cpu;
	return best_gain ? best : -ENOENT;
}

/* What `mask` lets a task do that may run on several CPUs. */
static __always_inline u32 affinity_of(const struct task_struct *p, const struct cpumask *mask)
{
	struct bpf_cpumask *cpus_of_llc;
	struct mask_slot *slot;
	u32 affinity = AFF_WHOLE, i;

	if (p->nr_cpus_allowed >= nr_cpu_ids)
		return AFF_WHOLE;
	bpf_for(i, 0, nr_llcs) {
		slot = bpf_map_lookup_elem(&llc_masks, &i);
		if (!slot || !(cpus_of_llc = slot->mask))
			continue;
		if (bpf_cpumask_intersects(cast_mask(cpus_of_llc), mask) &&
		    !bpf_cpumask_subset(cast_mask(cpus_of_llc), mask)) {
			affinity = AFF_PART;
			break;
		}
	}
	return affinity;
}

/*
 * Which part of an LLC a confined task is of, among all LLCs' parts: that of the first CPU
 * there that it may use. All CPUs of the LLC that may run it learn that they serve it.
 * Asked when its affinity has changed or it comes from another LLC. With linkage: the
 * verifier walks it once.
 */
__attribute__((noinline)) u32 join_part(struct task_struct *p __arg_trusted, u32 llc)
{
	struct llc_topo *lt = bpf_map_lookup_elem(&llc_topo, &llc);
	u32 part = ABSENT, cpu;
	s32 i;

	if (!lt)
		return llc * LLC_PARTS;
	cpu = lt->first;
	bpf_for(i, 0, nr_cpu_ids) {
		struct cpu_topo *t = bpf_map_lookup_elem(&topo, &cpu);
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (!t || !cctx)
			break;
		if (may_run(p, cpu)) {
			if (part == ABSENT)
				part = llc * LLC_PARTS + t->part % LLC_PARTS;
			set_part(&cctx->parts, part);
		}
		cpu = t->in_llc;
		if (cpu == lt->first)
			break;
	}
	return part == ABSENT ? llc * LLC_PARTS : part;
}

static __always_inline int store_mask(struct mask_slot *slot, struct bpf_cpumask *mask)
{
	struct bpf_cpumask *old;

	if (!slot) {
		bpf_cpumask_release(mask);
		return -ENOENT;
	}
	old = bpf_kptr_xchg(&slot->mask, mask);
	if (old)
		bpf_cpumask_release(old);
	return 0;
}

/* The mask of LLC (or of node) `index`, built anew from `topo`. Sleepable. */
static int rebuild_mask(u32 index, bool node)
{
	struct bpf_cpumask *mask = bpf_cpumask_create();
	struct mask_slot *slot;
	s32 cpu;

	if (!mask)
		return -ENOMEM;
	bpf_for(cpu, 0, nr_cpu_ids) {
		u32 key = cpu;
		struct cpu_topo *t = bpf_map_lookup_elem(&topo, &key);

		if (t && t->present && (node ? t->node : t->llc) == index)
			bpf_cpumask_set_cpu(cpu, mask);
	}
	slot = node ? bpf_map_lookup_elem(&node_masks, &index)
		    : bpf_map_lookup_elem(&llc_masks, &index);
	return store_mask(slot, mask);
}

static int rebuild_masks(void)
{
	u32 i;
	int err;

	bpf_for(i, 0, nr_llcs) {
		err = rebuild_mask(i, false);
		if (err)
			return err;
	}
	bpf_for(i, 0, nr_nodes) {
		err = rebuild_mask(i, true);
		if (err)
			return err;
	}
	return 0;
}

static int create_scratch_masks(void)
{
	struct bpf_cpumask *mask;
	u32 zero = 0;
	s32 cpu;
	int err;

	bpf_for(cpu, 0, nr_cpu_ids) {
		struct mask_slot *slot = bpf_map_lookup_percpu_elem(&scratch_masks, &zero, cpu);

		if (!slot)
			continue;
		mask = bpf_cpumask_create();
		if (!mask)
			return -ENOMEM;
		err = store_mask(slot, mask);
		if (err)
			return err;
	}
	return 0;
}

#endif /* SCHEDULER_PLACE_H */

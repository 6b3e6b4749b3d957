/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What rules of user space make of tasks. User space (crate::rules) finds the rule of a task
 * and writes it into the task's state; here the task follows it from its next wakeup or slice
 * on, and its boost comes and goes with the budget. Without rules all of this is one
 * comparison: see has_news().
 */
#ifndef SCHEDULER_FOLLOW_H
#define SCHEDULER_FOLLOW_H

/* Two generations: user space fills one while tasks still have rules of the other. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct effect);
	__uint(max_entries, 2 * RULES_MAX);
} effects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct cpu_set);
	__uint(max_entries, 2 * CPU_SETS_MAX);
} cpu_sets SEC(".maps");

/* `cpu_sets` as masks. Written by refresh_cpu_sets() only. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct mask_slot);
	__uint(max_entries, 2 * CPU_SETS_MAX);
} cpu_set_masks SEC(".maps");

/* The weight of the task, with all that changes it. */
static __always_inline u32 weight_for(const struct task_struct *p, const struct task_ctx *tctx)
{
	u32 weight;

	if (relayed && (u32)p->tgid == relay.tgid)
		return RELAY_WEIGHT;
	weight = weight_of(p->static_prio - 120, class_policy(tctx->class, p->policy));
	return tctx->factor ? ruled_weight(weight, tctx->factor, tctx->boosted) : weight;
}

/*
 * Gives the task the weight that it has to have; it keeps the service that it is owed or owes.
 * 0: it had it. These four with linkage: the verifier walks each once.
 */
__attribute__((noinline)) int update_weight(struct task_struct *p __arg_trusted,
					    struct task_ctx *tctx __arg_nonnull)
{
	u32 before = tctx->weight, after = weight_for(p, tctx);

	if (before == after)
		return 0;
	tctx->weight = after;
	if (tctx->clock != ABSENT)
		tctx->vruntime_vns = reweigh(tctx->vruntime_vns, clock_now(tctx), before, after);
	return 1;
}

/* Takes over the rule that user space gave the task. */
__attribute__((noinline)) int adopt_rule(struct task_ctx *tctx __arg_nonnull, u32 rule, u64 now)
{
	u32 index = rule_index(rule) - 1;
	struct effect *e = bpf_map_lookup_elem(&effects, &index);

	tctx->ruled = rule;
	tctx->restless = true;
	if (!e) {
		tctx->class = CLASS_OWN;
		tctx->factor = 0;
		tctx->cpu_set = 0;
		tctx->rule_slice_ns = 0;
		tctx->boost.budget_ns = 0;
		return 0;
	}
	tctx->class = e->class;
	tctx->factor = e->factor;
	tctx->cpu_set = e->cpu_set;
	tctx->rule_slice_ns = e->slice_ns;
	tctx->boost = boost_adopted(tctx->boost, e->budget_ns, e->period_ns, e->expires_ns, now);
	return 0;
}

__attribute__((noinline)) int renew_boost(struct task_ctx *tctx __arg_nonnull, u64 now)
{
	tctx->boost = boost_renewed(tctx->boost, now);
	tctx->boosted = boost_is_on(tctx->boost, now);
	return 0;
}

__attribute__((noinline)) int follow_rule(struct task_struct *p __arg_trusted,
					  struct task_ctx *tctx __arg_nonnull, u64 now)
{
	u64 early_vns = tctx->early_vns, vruntime_vns = tctx->vruntime_vns;
	u32 rule = tctx->rule;
	bool boosted = tctx->boosted;
	int is_new;

	if (rule != tctx->ruled)
		adopt_rule(tctx, rule, now);
	tctx->restless = tctx->boost.budget_ns > 0;
	renew_boost(tctx, now);
	is_new = update_weight(p, tctx);
	/* What it was owed by the weight of a boost ends with that. */
	if (is_new && boosted && !tctx->boosted)
		tctx->vruntime_vns =
			vtime_max(tctx->vruntime_vns, vtime_min(vruntime_vns, clock_now(tctx)));
	tctx->early_vns =
		head_start(tctx->class, tctx->boosted, tctx->boost.budget_ns, tctx->weight);
	/* By the weight before it might be due much later. Else the request under way stays. */
	if (is_new && tctx->clock != ABSENT)
		ask(tctx, slice_from(tctx, knobs.slice_min_ns));
	else
		tctx->deadline_vns += early_vns - tctx->early_vns;
	return 0;
}

/* Is there anything about the task's rule to be done before it is given a deadline? */
static __always_inline bool has_news(const struct task_ctx *tctx)
{
	return ((tctx->rule ^ tctx->ruled) | tctx->restless) != 0;
}

static __always_inline void follow(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	if (has_news(tctx))
		follow_rule(p, tctx, now);
}

/* When a task that waits by another rule would be due, in the time of its queue's clock. */
static __always_inline u64 due_by_rule(const struct task_struct *p, const struct task_ctx *tctx,
				       u64 clock_vns)
{
	u32 index = rule_index(tctx->rule) - 1, class = CLASS_OWN, weight;
	struct effect *e = bpf_map_lookup_elem(&effects, &index);
	u64 vruntime_vns;

	if (e)
		class = e->class;
	weight = weight_of(p->static_prio - 120, class_policy(class, p->policy));
	if (e)
		weight = ruled_weight(weight, e->factor, e->budget_ns > 0);
	vruntime_vns = reweigh(tctx->vruntime_vns, clock_vns, tctx->weight, weight);
	return deadline(vruntime_vns, knobs.slice_min_ns, weight);
}

/*
 * Moves a waiting task to another queue that its CPU serves, where it is due by its rule, if
 * that is sooner; it takes the rule over when it has run. A task cannot be moved within a queue.
 */
static __always_inline void hurry(struct task_struct *p, struct task_ctx *tctx,
				  struct bpf_iter_scx_dsq *it, u64 from)
{
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 key = cpu, part;
	struct cpu_topo *t = bpf_map_lookup_elem(&topo, &key);
	u64 due_vns;

	if (!cctx || !cctx->online || !t || tctx->clock == ABSENT || !allows(p, cpu))
		return;
	due_vns = due_by_rule(p, tctx, clock_now(tctx));
	if (!vtime_before(due_vns, tctx->deadline_vns))
		return;
	due_vns -= ahead_of_llc(tctx);
	/* Light as it was, its vruntime may be far ahead: nobody else is to follow it there. */
	if (from == cpu_dsq(cpu)) {
		part = t->llc * LLC_PARTS + t->part % LLC_PARTS;
		tctx->rescued = true;
		/* Once it waits there, it is put off as the clock of the part is put right. */
		catch_up_empty(part_dsq(part), cpu, scx_bpf_now());
		announce_confined(part, scx_bpf_now());
		set_part(&cctx->parts, part);
		scx_bpf_dsq_move_set_vtime(it, due_vns + ahead_by(part_dsq(part)));
		scx_bpf_dsq_move_vtime(it, p, part_dsq(part), 0);
	} else if (from == tctx->clock) {
		tctx->rescued = true;
		scx_bpf_dsq_move_set_vtime(it, due_vns + cctx->side.ahead_vns);
		/* Behind the move, for whoever counts meanwhile: see count_bound(). */
		if (scx_bpf_dsq_move_vtime(it, p, cpu_dsq(cpu), 0))
			cctx->pinned = 1;
	}
	/* It may have looked before the move, and gone idle. */
	kick_idle(cpu);
}

/* As apply_to() in decide.h: the iterator is made first. */
__attribute__((noinline)) int hurry_in(struct task_struct *p __arg_trusted, u64 from)
{
	struct bpf_iter_scx_dsq it;
	struct task_ctx *tctx;

	bpf_rcu_read_lock();
	if (!bpf_iter_scx_dsq_new(&it, from, 0)) {
		tctx = task_ctx_of(p);
		if (tctx)
			hurry(p, tctx, &it, from);
	}
	bpf_iter_scx_dsq_destroy(&it);
	bpf_rcu_read_unlock();
	return 0;
}

/*
 * A waiting task was given another rule: by the one before it may be due in many seconds. Run
 * by user space.
 */
SEC("syscall")
int rule_hurry(struct rule_call *call)
{
	struct task_struct *p = bpf_task_from_pid(call->pid);
	struct scx_dispatch_q *at;
	struct cpu_ctx *cctx;
	u64 from;
	s32 cpu;

	if (!p)
		return 0;
	bpf_rcu_read_lock();
	at = p->scx.dsq;
	from = at ? at->id : SCX_DSQ_INVALID;
	bpf_rcu_read_unlock();
	if (!(from & SCX_DSQ_FLAG_BUILTIN))
		hurry_in(p, from);
	cpu = scx_bpf_task_cpu(p);
	bpf_task_release(p);
	/* It may have gone offline, and its queues been emptied, just before the move. */
	cctx = cpu_ctx_of(cpu);
	if (cctx && !cctx->online)
		leave_cpu(cpu);
	return 0;
}

/* ---- CPUs that a rule prefers ---- */

static __always_inline struct mask_slot *preferred_cpus(const struct task_ctx *tctx)
{
	u32 index = tctx->cpu_set - 1;

	return bpf_map_lookup_elem(&cpu_set_masks, &index);
}

/* An idle CPU of those that the task prefers, claimed; negative: there is none. */
__attribute__((noinline)) s32 claim_preferred(struct task_struct *p __arg_trusted,
					      struct task_ctx *tctx __arg_nonnull, s32 prev)
{
	struct mask_slot *slot = preferred_cpus(tctx);
	struct bpf_cpumask *mask, *usable;
	s32 cpu;

	if (!slot || !(mask = slot->mask) || !(usable = usable_of(p, mask)))
		return -ENOENT;
	if (bpf_cpumask_test_cpu(prev, cast_mask(usable)) && (!smt_enabled || core_idle(prev)) &&
	    claim(prev))
		return prev;
	if (smt_enabled) {
		cpu = scx_bpf_pick_idle_cpu(cast_mask(usable), SCX_PICK_IDLE_CORE);
		if (cpu >= 0)
			return cpu;
	}
	return scx_bpf_pick_idle_cpu(cast_mask(usable), 0);
}

/* Of a rule that the task has yet to take over, a task that wakes needs this before the rest. */
static __always_inline void adopt_cpu_set(struct task_ctx *tctx)
{
	u32 index = rule_index(tctx->rule) - 1;
	struct effect *e = bpf_map_lookup_elem(&effects, &index);

	tctx->cpu_set = e ? e->cpu_set : 0;
}

/*
 * An idle CPU for a waking task, of those that its rule prefers if it can, claimed; negative:
 * there is none.
 * With linkage: the verifier walks it once, and its caller's rest once for all its ends.
 */
__attribute__((noinline)) s32 claim_for(struct task_struct *p __arg_trusted,
					struct task_ctx *tctx __arg_nonnull, s32 prev)
{
	s32 cpu;

	if (tctx->rule != tctx->ruled)
		adopt_cpu_set(tctx);
	if (tctx->cpu_set) {
		cpu = claim_preferred(p, tctx, prev);
		if (cpu >= 0) {
			tctx->placed = PLACED_PREFERRED;
			return cpu;
		}
	}
	tctx->placed = PLACED_IDLE;
	return claim_idle(p, prev);
}

/* The CPU where the task waits: of those that it prefers, and where it was, if it may. */
__attribute__((noinline)) s32 preferred_of(struct task_struct *p __arg_trusted,
					   struct task_ctx *tctx __arg_nonnull, s32 prev)
{
	struct mask_slot *slot = preferred_cpus(tctx);
	struct bpf_cpumask *mask;
	s32 cpu;

	if (slot && (mask = slot->mask) && !bpf_cpumask_test_cpu(prev, cast_mask(mask))) {
		cpu = bpf_cpumask_any_and_distribute(cast_mask(mask), p->cpus_ptr);
		if ((u32)cpu < nr_cpu_ids)
			return cpu;
	}
	return may_run(p, prev) ? prev : (s32)bpf_cpumask_any_distribute(p->cpus_ptr);
}

/* Takes over the sets that user space has written into `cpu_sets`. */
SEC("syscall")
int refresh_cpu_sets(void *ctx)
{
	u32 i;

	bpf_for(i, 0, 2 * CPU_SETS_MAX) {
		struct cpu_set *set = bpf_map_lookup_elem(&cpu_sets, &i);
		struct bpf_cpumask *mask = bpf_cpumask_create();
		s32 cpu, err;

		if (!mask)
			return -ENOMEM;
		bpf_for(cpu, 0, nr_cpu_ids) {
			u32 word = (u32)cpu / 64;

			if (set && word < MAX_CPUS / 64 && (set->cpus[word] >> (cpu % 64) & 1))
				bpf_cpumask_set_cpu(cpu, mask);
		}
		err = store_mask(bpf_map_lookup_elem(&cpu_set_masks, &i), mask);
		if (err)
			return err;
	}
	return 0;
}

#endif /* SCHEDULER_FOLLOW_H */

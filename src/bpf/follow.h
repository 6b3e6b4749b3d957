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
 * 0: it had it. These three with linkage: the verifier walks each once.
 */
__attribute__((noinline)) int update_weight(struct task_struct *p __arg_trusted,
					    struct task_ctx *tctx __arg_nonnull)
{
	u32 before = tctx->weight, after = weight_for(p, tctx);
	struct vclock *c;

	if (before == after)
		return 0;
	tctx->weight = after;
	if (tctx->clock == ABSENT)
		return 1;
	c = clock_by_id(tctx->clock);
	if (c)
		tctx->vruntime_vns = reweigh(tctx->vruntime_vns, c->now_vns, before, after);
	return 1;
}

/* Takes over the rule that user space gave the task. */
__attribute__((noinline)) int adopt_rule(struct task_ctx *tctx __arg_nonnull, u32 rule, u64 now)
{
	u32 index = rule_index(rule) - 1;
	struct effect *e = bpf_map_lookup_elem(&effects, &index);
	u64 period_ns = tctx->boost.period_ns;

	tctx->ruled = rule;
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
	tctx->boost.budget_ns = e->budget_ns;
	tctx->boost.period_ns = e->period_ns;
	/* What a child has of its parent, and what was used under a rule before, counts. */
	if (period_ns == e->period_ns)
		return 0;
	tctx->boost.used_ns = 0;
	tctx->boost.period_at = now;
	tctx->boost.expires_at = e->expires_ns ? now + e->expires_ns : 0;
	return 0;
}

__attribute__((noinline)) int follow_rule(struct task_struct *p __arg_trusted,
					  struct task_ctx *tctx __arg_nonnull, u64 now)
{
	u64 early_vns = tctx->early_vns;
	u32 rule = tctx->rule;

	if (rule != tctx->ruled)
		adopt_rule(tctx, rule, now);
	tctx->boost = boost_renewed(tctx->boost, now);
	tctx->boosted = boost_is_on(tctx->boost, now);
	update_weight(p, tctx);
	tctx->early_vns = head_start(tctx->class, tctx->boosted, knobs.lag_max_ns, tctx->weight);
	/* The request under way stays what it is. */
	tctx->deadline_vns += early_vns - tctx->early_vns;
	return 0;
}

/* Is there anything about the task's rule to be done before it is given a deadline? */
static __always_inline bool has_news(const struct task_ctx *tctx)
{
	return tctx->rule != tctx->ruled || tctx->boost.budget_ns;
}

static __always_inline void follow(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	if (has_news(tctx))
		follow_rule(p, tctx, now);
}

/* ---- CPUs that a rule prefers ---- */

static __always_inline struct mask_slot *preferred_cpus(const struct task_ctx *tctx)
{
	u32 index = tctx->cpu_set - 1;

	return bpf_map_lookup_elem(&cpu_set_masks, &index);
}

/* An idle CPU of those that the task prefers, claimed; negative: there is none. */
static __always_inline s32 claim_preferred(struct task_struct *p, struct task_ctx *tctx, s32 prev)
{
	struct mask_slot *slot = preferred_cpus(tctx);
	struct bpf_cpumask *mask;
	s32 cpu;

	if (!slot || !(mask = slot->mask))
		return -ENOENT;
	if (bpf_cpumask_test_cpu(prev, cast_mask(mask)) && may_run(p, prev) &&
	    (!smt_enabled || core_idle(prev)) && claim(prev))
		return prev;
	if (!any_idle())
		return -ENOENT;
	if (smt_enabled) {
		cpu = claim_within(p, slot, false, SCX_PICK_IDLE_CORE);
		if (cpu >= 0)
			return cpu;
	}
	return claim_within(p, slot, false, 0);
}

/* Of the CPUs that the task prefers the one to wait for: where it was, if that is one. */
static __always_inline s32 preferred_of(struct task_struct *p, struct task_ctx *tctx, s32 prev)
{
	struct mask_slot *slot = preferred_cpus(tctx);
	struct bpf_cpumask *mask;
	s32 cpu;

	if (!slot || !(mask = slot->mask) || bpf_cpumask_test_cpu(prev, cast_mask(mask)))
		return prev;
	cpu = bpf_cpumask_any_and_distribute(cast_mask(mask), p->cpus_ptr);
	return (u32)cpu < nr_cpu_ids ? cpu : prev;
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

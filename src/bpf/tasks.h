/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The callbacks for tasks that come and change: what they start with, and what a new
 * affinity or weight does to them. (They leave nothing behind: their storage goes
 * with them.)
 */
#ifndef SCHEDULER_TASKS_H
#define SCHEDULER_TASKS_H

void BPF_STRUCT_OPS(sched_set_cpumask, struct task_struct *p, const struct cpumask *mask)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return;
	if (p->nr_cpus_allowed == 1) {
		tctx->affinity = AFF_ONE;
	} else {
		/* Told of a task, too, that may not migrate for a while: nothing changes by that.
		 */
		if (bpf_cpumask_weight(mask) == 1)
			return;
		tctx->affinity = affinity_of(p, mask);
	}
	tctx->part = ABSENT;
	if (tctx->clock != ABSENT)
		settle(p, tctx, scx_bpf_task_cpu(p));
	tell_of_change(p, tctx);
}

void BPF_STRUCT_OPS(sched_set_weight, struct task_struct *p, u32 weight)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return;
	if (rules_in_force())
		tell_rules(p, tctx);
	/* Finer than `weight`, which rounds nice 19 down by a third. */
	if (!update_weight(p, tctx))
		return;
	tell_of_change(p, tctx);
	if (tctx->clock != ABSENT)
		ask(tctx, slice_on(tctx, scx_bpf_task_cpu(p)));
}

s32 BPF_STRUCT_OPS_SLEEPABLE(sched_init_task, struct task_struct *p,
			     struct scx_init_task_args *args)
{
	struct task_ctx *tctx;

	tctx = bpf_task_storage_get(&task_ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!tctx)
		return -ENOMEM;
	tctx->clock = ABSENT;
	tctx->cpu = -1;
	tctx->weight = weight_of(p->static_prio - 120, p->policy);
	/* Most are short: the first request is, and whoever outruns it asks for more. */
	tctx->burst_avg_ns = knobs.slice_min_ns;
	return 0;
}

void BPF_STRUCT_OPS(sched_enable, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return;
	/* It may have left for another class while it waited here. */
	tctx->runnable_at = 0;
	tctx->queued_at = 0;
	tctx->charged_ns = p->se.sum_exec_runtime;
	tctx->weight = weight_for(p, tctx);
	tctx->affinity = p->nr_cpus_allowed == 1 ? AFF_ONE : affinity_of(p, p->cpus_ptr);
	tctx->part = ABSENT;
}

#endif /* SCHEDULER_TASKS_H */

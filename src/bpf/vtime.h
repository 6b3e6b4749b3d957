/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtual time of tasks and queues: the only places that write vruntime, deadline
 * and clocks, but for the carrying over in sched_set_cpumask and sched_set_weight.
 */
#ifndef SCHEDULER_VTIME_H
#define SCHEDULER_VTIME_H

/* This far before a clock is earlier than any deadline after place_requeue(). */
#define FIRST_VNS (VIRTUAL_MAX / 1024)

/*
 * The clock that stands for lag 0 of a task: that of its LLC, unless it can run on
 * a part of it only. Those may progress more slowly than the rest of the LLC for
 * ever, and whoever joins them must join at their pace.
 */
static __always_inline struct vclock *clock_of(const struct task_ctx *tctx, s32 cpu)
{
	struct cpu_ctx *cctx;
	struct llc_ctx *lctx;

	if (tctx->affinity == AFF_WHOLE) {
		lctx = llc_ctx_of(llc_of(cpu));
		return lctx ? &lctx->clock : NULL;
	}
	cctx = cpu_ctx_of(cpu);
	return cctx ? &cctx->clock : NULL;
}

static __always_inline u64 clock_now(const struct task_ctx *tctx, s32 cpu)
{
	struct vclock *c = clock_of(tctx, cpu);

	return c ? c->now_vns : tctx->vruntime_vns;
}

/* Lets a clock follow the vruntime of a task that starts or goes on. */
static __always_inline void drive_clock(struct vclock *c, u64 vruntime_vns, u64 now)
{
	struct vclock next = clock_advance(*c, vruntime_vns, now);

	if (next.now_vns != c->now_vns)
		*c = next;
}

/*
 * The clock of a CPU that serves tasks of the whole LLC is where the LLC's is: it
 * may have stayed behind with tasks of its own that are gone.
 */
static __always_inline void catch_up(struct vclock *c, u64 vruntime_vns, u64 llc_vns, u64 now)
{
	u64 to_vns = vtime_min(vruntime_vns, llc_vns);

	if ((s64)(to_vns - c->now_vns) < (s64)CLOCK_STEP_VNS)
		return;
	c->now_vns = to_vns;
	c->set_at = now;
}

/* Puts the vruntime into the virtual time of the LLC of `cpu`; lag is kept. */
static __always_inline void settle(struct task_ctx *tctx, s32 cpu)
{
	u32 llc = llc_of(cpu);
	struct llc_ctx *from, *to;

	if (tctx->llc == llc)
		return;
	to = llc_ctx_of(llc);
	if (!to)
		return;
	if (tctx->llc == ABSENT) {
		tctx->vruntime_vns = clock_now(tctx, cpu);
		tctx->deadline_vns = tctx->vruntime_vns;
	} else if ((from = llc_ctx_of(tctx->llc))) {
		u64 lag_free_vns = from->clock.now_vns;

		tctx->vruntime_vns = carry_lag(tctx->vruntime_vns, lag_free_vns, to->clock.now_vns);
		tctx->deadline_vns = carry_lag(tctx->deadline_vns, lag_free_vns, to->clock.now_vns);
	}
	tctx->llc = llc;
}

/* Charges what the task has run since it was charged last. */
static __always_inline void charge_task(struct task_struct *p, struct task_ctx *tctx)
{
	u64 ran_ns = p->se.sum_exec_runtime - tctx->charged_ns;

	tctx->charged_ns += ran_ns;
	tctx->burst_ns += ran_ns;
	tctx->vruntime_vns = charge(tctx->vruntime_vns, ran_ns, tctx->weight);
	count_add(CNT_RUN_NS, ran_ns);
	if (task_stats)
		tctx->run_ns += ran_ns;
}

static __always_inline u64 slice_of(const struct task_ctx *tctx, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 base_ns = cctx && cctx->slice_ns ? cctx->slice_ns : knobs.slice_max_ns;

	return task_slice(base_ns, knobs.slice_min_ns, tctx->weight);
}

/* Makes the next request: the deadline from the vruntime of now. */
static __always_inline void ask(struct task_ctx *tctx, u64 slice_ns)
{
	u64 request_ns = request(tctx->burst_avg_ns, tctx->spent, knobs.request_min_ns, slice_ns);

	tctx->deadline_vns = deadline(tctx->vruntime_vns, request_ns, tctx->weight);
}

/* The deadline of a task that stays runnable: a new request if it used up the last. */
static __always_inline void ask_again(struct task_ctx *tctx, u64 slice_ns)
{
	if (vtime_before(tctx->vruntime_vns, tctx->deadline_vns))
		return;
	tctx->spent = true;
	ask(tctx, slice_ns);
}

/* The task became runnable, and somebody else has the CPU that it wants. */
static __always_inline void wake_contended(struct task_ctx *tctx, s32 cpu, u64 slice_ns)
{
	settle(tctx, cpu);
	tctx->vruntime_vns = place_wakeup(tctx->vruntime_vns, clock_now(tctx, cpu),
					  knobs.lag_max_ns, tctx->weight);
	ask(tctx, slice_ns);
}

/* The task gets a CPU that nobody else wants. */
static __always_inline void wake_uncontended(struct task_ctx *tctx, s32 cpu, u64 slice_ns)
{
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));

	settle(tctx, cpu);
	if (lctx)
		tctx->vruntime_vns = place_uncontended(tctx->vruntime_vns, lctx->clock.now_vns,
						       knobs.lag_max_ns, tctx->weight);
	ask(tctx, slice_ns);
}

static __always_inline void mark_runnable(struct task_ctx *tctx, u64 now)
{
	tctx->runnable_at = now;
	count(CNT_WAKEUPS);
	if (task_stats)
		tctx->wakeups++;
}

/* What the others see of the task that runs on a CPU. */
static __always_inline void publish(struct cpu_ctx *cctx, const struct task_struct *p,
				    const struct task_ctx *tctx, u64 now)
{
	cctx->weight = tctx->weight;
	cctx->vruntime_vns = tctx->vruntime_vns;
	cctx->deadline_vns = tctx->deadline_vns;
	cctx->running_at = now;
	cctx->running_pid = p->pid;
}

#endif /* SCHEDULER_VTIME_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtual time of tasks and queues: what moves vruntimes, deadlines and clocks. (A
 * renice and a yield do so where they are told of, in main.bpf.c.)
 */
#ifndef SCHEDULER_VTIME_H
#define SCHEDULER_VTIME_H

/* This far before a clock is earlier than any deadline after place_requeue(). */
#define FIRST_VNS (VIRTUAL_MAX / 1024)

/* The clock of a queue: an id below CPU_DSQ_BASE is an LLC's, the rest are CPUs'. */
static __always_inline struct vclock *clock_by_id(u32 id)
{
	struct cpu_ctx *cctx;
	struct llc_ctx *lctx;

	if (id < CPU_DSQ_BASE) {
		lctx = llc_ctx_of(id);
		return lctx ? &lctx->clock : NULL;
	}
	cctx = cpu_ctx_of(id - CPU_DSQ_BASE);
	return cctx ? &cctx->clock : NULL;
}

/*
 * The clock that stands for lag 0 of a task: that of its LLC, unless it can run on
 * a part of it only. Those may progress more slowly than the rest of the LLC for
 * ever, and whoever joins them must join at their pace.
 */
static __always_inline u32 clock_id_of(const struct task_ctx *tctx, s32 cpu)
{
	return tctx->affinity == AFF_WHOLE ? llc_of(cpu) : (u32)cpu_dsq(cpu);
}

static __always_inline u64 clock_now(const struct task_ctx *tctx, s32 cpu)
{
	struct vclock *c = clock_by_id(clock_id_of(tctx, cpu));

	return c ? c->now_vns : tctx->vruntime_vns;
}

/* Lets a clock follow the vruntime of a task that starts or goes on. */
static __always_inline void drive_clock(struct vclock *c, u64 vruntime_vns, u64 now, u32 weight)
{
	struct vclock next = clock_advance(*c, vruntime_vns, now, weight);

	if (next.now_vns != c->now_vns)
		*c = next;
}

/*
 * The same for a task that does not compete by this clock: it has a CPU of the LLC that
 * none of those who do wanted, so they are not owed what it ran. At the pace of nice 0,
 * and beside what they drive it by themselves.
 */
static __always_inline void push_clock(struct llc_ctx *lctx, u64 vruntime_vns, u64 now)
{
	struct vclock by = {.now_vns = lctx->clock.now_vns, .set_at = lctx->pushed_at};
	struct vclock next = clock_advance(by, vruntime_vns, now, WEIGHT_NICE0);

	if (next.now_vns == by.now_vns)
		return;
	/* Not over what others made of it meanwhile: this has no credit to make up for that. */
	__sync_val_compare_and_swap(&lctx->clock.now_vns, by.now_vns, next.now_vns);
	lctx->pushed_at = next.set_at;
}

/*
 * The clock of a CPU that serves tasks of the whole LLC is where the LLC's is: it
 * may have stayed behind with tasks of its own that are gone.
 */
static __always_inline void catch_up(struct cpu_ctx *cctx, u64 llc_vns, u64 now)
{
	u64 to_vns = llc_vns + cctx->ahead_vns;

	if ((s64)(to_vns - cctx->clock.now_vns) < (s64)CLOCK_STEP_VNS)
		return;
	cctx->clock.now_vns = to_vns;
	cctx->clock.set_at = now;
}

/*
 * How far the clock that a task on `cpu` goes by is ahead of the LLC's: to be taken off
 * whatever is compared with what goes by that.
 */
static __always_inline u64 ahead_of_llc(const struct task_ctx *tctx, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx && tctx->clock == (u32)cpu_dsq(cpu) ? cctx->ahead_vns : 0;
}

/*
 * The clocks of an LLC and of a CPU are together while tasks of both compete: whoever
 * starts moves the other. Where one gets ahead by more than lags can be, light tasks had
 * it to themselves, and nobody is to wait until the other gets there.
 */
static __always_inline void part_clocks(struct cpu_ctx *cctx, const struct llc_ctx *lctx)
{
	s64 apart_vns = cctx->clock.now_vns - cctx->ahead_vns - lctx->clock.now_vns;
	s64 most_vns = knobs.lag_runnable_ns;

	if (apart_vns > most_vns)
		cctx->ahead_vns += apart_vns;
	else if (apart_vns < -most_vns)
		cctx->ahead_vns += apart_vns + most_vns;
}

/*
 * Puts the vruntime by the clock that is the task's on `cpu`; lag is kept. Tasks
 * that share a part of an LLC wait in one queue, so among its CPUs they keep what they
 * are by the LLC's clock: the CPUs' own are milliseconds apart, and to carry those would
 * make a random walk of everybody's share, in which whoever falls behind falls further.
 * With linkage, so that the verifier walks it once.
 */
__attribute__((noinline)) int settle(struct task_ctx *tctx __arg_nonnull, s32 cpu)
{
	u32 id = clock_id_of(tctx, cpu);
	struct cpu_ctx *there, *here;
	struct vclock *from, *to;
	u64 from_vns, to_vns;

	if (tctx->clock == id)
		return 0;
	to = clock_by_id(id);
	if (!to)
		return 0;
	if (tctx->clock == ABSENT) {
		tctx->vruntime_vns = to->now_vns;
		tctx->deadline_vns = tctx->vruntime_vns;
		tctx->clock = id;
		return 0;
	}
	from = clock_by_id(tctx->clock);
	if (!from)
		return 0;
	from_vns = from->now_vns;
	to_vns = to->now_vns;
	if (tctx->affinity == AFF_PART && tctx->clock >= CPU_DSQ_BASE &&
	    llc_of(tctx->clock - CPU_DSQ_BASE) == llc_of(cpu)) {
		there = cpu_ctx_of(tctx->clock - CPU_DSQ_BASE);
		here = cpu_ctx_of(cpu);
		if (there && here) {
			from_vns = there->ahead_vns;
			to_vns = here->ahead_vns;
		}
	}
	tctx->vruntime_vns = carry_lag(tctx->vruntime_vns, from_vns, to_vns);
	tctx->deadline_vns = carry_lag(tctx->deadline_vns, from_vns, to_vns);
	tctx->clock = id;
	return 0;
}

/* Charges what the task has run since it was charged last. */
static __always_inline void charge_task(struct task_struct *p, struct task_ctx *tctx)
{
	u64 ran_ns = p->se.sum_exec_runtime - tctx->charged_ns;

	tctx->charged_ns += ran_ns;
	tctx->burst_ns += ran_ns;
	tctx->boost.used_ns += ran_ns;
	tctx->vruntime_vns = charge(tctx->vruntime_vns, ran_ns, tctx->weight);
	count_add(CNT_RUN_NS, ran_ns);
	if (knobs.task_stats)
		tctx->run_ns += ran_ns;
}

/* The slice of the task where that of all is `base_ns`. */
static __always_inline u64 slice_from(const struct task_ctx *tctx, u64 base_ns)
{
	return ruled_slice(tctx->rule_slice_ns, base_ns, knobs.slice_min_ns, tctx->weight);
}

static __always_inline u64 slice_of(const struct task_ctx *tctx, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 base_ns = cctx && cctx->slice_ns ? cctx->slice_ns : knobs.slice_max_ns;

	return slice_from(tctx, base_ns);
}

/* What the task's place among others goes by: its vruntime, but for a head start. */
static __always_inline u64 order_of(const struct task_ctx *tctx)
{
	return tctx->vruntime_vns - tctx->early_vns;
}

/* Makes the next request: the deadline from the vruntime of now. */
static __always_inline void ask(struct task_ctx *tctx, u64 slice_ns)
{
	u64 request_ns = request(tctx->burst_avg_ns, tctx->spent, knobs.request_min_ns, slice_ns);

	if (tctx->early_vns)
		request_ns = knobs.request_min_ns;
	tctx->deadline_vns = deadline(order_of(tctx), request_ns, tctx->weight);
}

/* The deadline of a task that stays runnable: a new request if it used up the last. */
static __always_inline void ask_again(struct task_ctx *tctx, u64 slice_ns)
{
	if (vtime_before(order_of(tctx), tctx->deadline_vns))
		return;
	tctx->spent = true;
	ask(tctx, slice_ns);
}

/*
 * The task became runnable, and somebody else has the CPU that it wants. A new task
 * pays the shortest slice in advance: its parent, which waits for it meanwhile, is owed
 * that time on top, and the two together would have two shares.
 */
static __always_inline void wake_contended(struct task_ctx *tctx, s32 cpu, u64 slice_ns)
{
	bool fresh = tctx->clock == ABSENT;

	settle(tctx, cpu);
	if (fresh)
		tctx->vruntime_vns = charge(tctx->vruntime_vns, knobs.slice_min_ns, tctx->weight);
	else
		tctx->vruntime_vns = place_wakeup(tctx->vruntime_vns, clock_now(tctx, cpu),
						  knobs.lag_max_ns, tctx->weight);
	ask(tctx, slice_ns);
}

/* The task gets or has a CPU that nobody else wants: its clocks are one again. */
static __always_inline void place_alone(struct task_ctx *tctx, s32 cpu, u64 now)
{
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	settle(tctx, cpu);
	if (!lctx || !cctx)
		return;
	catch_up(cctx, lctx->clock.now_vns, now);
	tctx->vruntime_vns = place_uncontended(tctx->vruntime_vns, clock_now(tctx, cpu),
					       knobs.lag_max_ns, tctx->weight);
}

static __always_inline void wake_uncontended(struct task_ctx *tctx, s32 cpu, u64 slice_ns, u64 now)
{
	place_alone(tctx, cpu, now);
	ask(tctx, slice_ns);
}

/*
 * The debts of a task die with it. So whoever is born next starts where it ended, or a
 * chain of short-lived children would have the CPU to itself. Those of a light task
 * count as the service that they are: its virtual time would carry the clock away from
 * all others.
 */
static __always_inline void leave_for_good(const struct task_ctx *tctx, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));
	u64 now = scx_bpf_now(), clock_vns = clock_now(tctx, cpu), end_vns = tctx->vruntime_vns;

	if (tctx->weight < WEIGHT_NICE0)
		end_vns = reweigh(end_vns, clock_vns, tctx->weight, WEIGHT_NICE0);
	if (tctx->affinity == AFF_WHOLE && lctx)
		push_clock(lctx, end_vns, now);
	else if (cctx)
		drive_clock(&cctx->clock, end_vns, now, WEIGHT_NICE0);
}

static __always_inline void mark_runnable(struct task_ctx *tctx, u64 now)
{
	tctx->runnable_at = now;
	tctx->queued_at = 0;
	count(CNT_WAKEUPS);
	if (knobs.task_stats)
		tctx->wakeups++;
}

/* What the others see of the task that runs on a CPU. */
static __always_inline void publish(struct cpu_ctx *cctx, const struct task_struct *p,
				    const struct task_ctx *tctx, s32 cpu, u64 now)
{
	u64 ahead_vns = ahead_of_llc(tctx, cpu);

	cctx->weight = tctx->weight;
	cctx->vruntime_vns = order_of(tctx) - ahead_vns;
	cctx->deadline_vns = tctx->deadline_vns - ahead_vns;
	cctx->running_at = now;
	cctx->running_pid = p->pid;
}

#endif /* SCHEDULER_VTIME_H */

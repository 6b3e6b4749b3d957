/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtual time of tasks and queues: what moves vruntimes, deadlines and clocks. (A
 * renice and a yield do so where they are told of, in main.bpf.c.)
 */
#ifndef SCHEDULER_VTIME_H
#define SCHEDULER_VTIME_H

/* This far before a clock is earlier than any deadline after place_requeue(). */
#define FIRST_VNS (VIRTUAL_MAX / 1024)

/* The clock of a queue, if that is a CPU's or a part's; NULL: it is an LLC's. */
static __always_inline struct side_clock *side_by_id(u32 id)
{
	struct cpu_ctx *cctx;
	struct part_ctx *part;

	if (id < CPU_DSQ_BASE)
		return NULL;
	if (id < PART_DSQ_BASE) {
		cctx = cpu_ctx_of(id - CPU_DSQ_BASE);
		return cctx ? &cctx->side : NULL;
	}
	part = part_ctx_of(id - PART_DSQ_BASE);
	return part ? &part->side : NULL;
}

/* The clock of any queue. */
static __always_inline struct vclock *clock_by_id(u32 id)
{
	struct side_clock *side;
	struct llc_ctx *lctx;

	if (id < CPU_DSQ_BASE) {
		lctx = llc_ctx_of(id);
		return lctx ? &lctx->clock : NULL;
	}
	side = side_by_id(id);
	return side ? &side->clock : NULL;
}

/*
 * The clock that stands for lag 0 of a task: that of its LLC, unless it can run on
 * a part of it only. Those may progress more slowly than the rest of the LLC for
 * ever, and whoever joins them must join at their pace.
 */
static __always_inline u32 clock_id_of(struct task_struct *p, struct task_ctx *tctx, s32 cpu)
{
	u32 llc = llc_of(cpu);

	if (tctx->affinity == AFF_WHOLE)
		return llc;
	if (tctx->affinity == AFF_ONE)
		return cpu_dsq(cpu);
	if (tctx->part / LLC_PARTS != llc)
		tctx->part = join_part(p, llc);
	return part_dsq(tctx->part);
}

/* What the clock of a queue shows. With linkage, as all of the next: the verifier walks it once. */
__attribute__((noinline)) u64 shown_by(u32 id)
{
	struct vclock *c = clock_by_id(id);

	return c ? c->now_vns : 0;
}

/* The clock that the task goes by. */
static __always_inline u64 clock_now(const struct task_ctx *tctx)
{
	return shown_by(tctx->clock);
}

/* Lets a clock follow the vruntime of a task that starts or goes on. */
static __always_inline void drive_clock(struct vclock *c, u64 vruntime_vns, u64 now, u32 weight)
{
	struct vclock next = clock_advance(*c, vruntime_vns, now, weight);

	if (next.now_vns != c->now_vns)
		*c = next;
}

/*
 * The same for a task that does not compete by the clock of the LLC: it has a CPU there that
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

/* The same with linkage, for where it is rare: the verifier walks it once. */
__attribute__((noinline)) int push_llc(u32 llc, u64 vruntime_vns, u64 now)
{
	struct llc_ctx *lctx = llc_ctx_of(llc);

	if (lctx)
		push_clock(lctx, vruntime_vns, now);
	return 0;
}

__attribute__((noinline)) u64 ahead_by(u32 id)
{
	struct side_clock *side = side_by_id(id);

	return side ? side->ahead_vns : 0;
}

/*
 * How far the clock that a task goes by is ahead of the LLC's: to be taken off whatever is
 * compared with what goes by that.
 */
static __always_inline u64 ahead_of_llc(const struct task_ctx *tctx)
{
	return ahead_by(tctx->clock);
}

/*
 * The clock of an LLC and one beside it are together while tasks of both compete: whoever
 * starts moves the other. Where one gets ahead by more than lags can be, tasks had it to
 * themselves, and nobody is to wait until the other gets there.
 */
static __always_inline void part_clocks(struct side_clock *side, u64 clock_vns)
{
	s64 apart_vns = side->clock.now_vns - side->ahead_vns - clock_vns;
	s64 most_vns = knobs.lag_runnable_ns;

	if (apart_vns > most_vns)
		side->ahead_vns += apart_vns;
	else if (apart_vns < -most_vns)
		side->ahead_vns += apart_vns + most_vns;
}

/*
 * The clock of a CPU that serves others is where theirs is, `here_vns` by the LLC's clock, which
 * shows `clock_vns`: it may have stayed behind with tasks of its own that are gone. What it
 * drifted for longer than that is no debt of those who wait. With linkage: the verifier walks
 * it once.
 */
__attribute__((noinline)) int catch_up(struct side_clock *side __arg_nonnull, u64 clock_vns,
				       u64 here_vns, u64 now)
{
	u64 to_vns;

	part_clocks(side, clock_vns);
	to_vns = vtime_min(here_vns, clock_vns) + side->ahead_vns;
	if ((s64)(to_vns - side->clock.now_vns) < (s64)CLOCK_STEP_VNS)
		return 0;
	side->clock.now_vns = to_vns;
	side->clock.set_at = now;
	return 0;
}

/* The same for several parts of an LLC. With linkage: as above. */
__attribute__((noinline)) int catch_up_parts(u32 llc, u32 parts, u64 here_vns, u64 now)
{
	struct llc_ctx *lctx = llc_ctx_of(llc);
	u32 i;

	if (!lctx)
		return 0;
	bpf_for(i, 0, LLC_PARTS) {
		struct part_ctx *part = part_ctx_of(llc * LLC_PARTS + i);

		if (part && (parts & (1U << i)))
			catch_up(&part->side, lctx->clock.now_vns, here_vns, now);
	}
	return 0;
}

/*
 * The same for all queues beside the LLC's that a CPU serves, where a task of that begins or goes
 * on at `vruntime_vns`: who waits there and is light is due much later, and loses nothing until
 * then.
 */
static __always_inline void catch_up_served(struct cpu_ctx *cctx, const struct llc_ctx *lctx,
					    u32 llc, u64 vruntime_vns, u64 now)
{
	u64 clock_vns = lctx->clock.now_vns, here_vns = vtime_min(vruntime_vns, clock_vns);

	catch_up(&cctx->side, clock_vns, here_vns, now);
	if (cctx->parts_wait)
		catch_up_parts(llc, cctx->parts, here_vns, now);
}

/*
 * A clock by which nobody waits stood still while others were served: that is not owed to
 * whoever comes. So it is where the LLC's is, or that of the CPU that serves the part. While
 * some wait it is owed to them.
 */
__attribute__((noinline)) int catch_up_empty(u32 id, s32 cpu, u64 now)
{
	struct part_ctx *part = NULL;
	struct side_clock *side;
	struct cpu_ctx *cctx;
	struct llc_ctx *lctx;
	u64 here_vns;
	u32 llc;

	if (id < CPU_DSQ_BASE || nr_in(id))
		return 0;
	if (id < PART_DSQ_BASE)
		cpu = id - CPU_DSQ_BASE;
	else
		part = part_ctx_of(id - PART_DSQ_BASE);
	llc = llc_of(cpu);
	lctx = llc_ctx_of(llc);
	cctx = cpu_ctx_of(cpu);
	if (!lctx || !cctx)
		return 0;
	here_vns = lctx->clock.now_vns;
	side = &cctx->side;
	if (part) {
		if ((id - PART_DSQ_BASE) / LLC_PARTS != llc)
			return 0;
		here_vns = side->clock.now_vns - side->ahead_vns;
		side = &part->side;
	}
	catch_up(side, lctx->clock.now_vns, here_vns, now);
	return 0;
}

/*
 * Puts the vruntime by the clock that is the task's on `cpu`; lag is kept. With linkage, so
 * that the verifier walks it once.
 */
__attribute__((noinline)) int settle(struct task_struct *p __arg_trusted,
				     struct task_ctx *tctx __arg_nonnull, s32 cpu)
{
	u32 id = clock_id_of(p, tctx, cpu);
	u64 from_vns, to_vns;

	if (tctx->clock == id)
		return 0;
	catch_up_empty(id, cpu, scx_bpf_now());
	to_vns = shown_by(id);
	if (tctx->clock == ABSENT) {
		tctx->vruntime_vns = to_vns;
		tctx->deadline_vns = to_vns;
	} else {
		from_vns = shown_by(tctx->clock);
		tctx->vruntime_vns = carry_lag(tctx->vruntime_vns, from_vns, to_vns);
		tctx->deadline_vns = carry_lag(tctx->deadline_vns, from_vns, to_vns);
	}
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

/* The same with linkage, for where it is rare: the verifier walks it once. */
__attribute__((noinline)) u64 slice_on(const struct task_ctx *tctx __arg_nonnull, s32 cpu)
{
	return slice_of(tctx, cpu);
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
static __always_inline void wake_contended(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
					   u64 slice_ns, u64 now)
{
	bool fresh = tctx->clock == ABSENT;

	settle(p, tctx, cpu);
	if (tctx->affinity == AFF_PART)
		catch_up_empty(tctx->clock, cpu, now);
	if (fresh)
		tctx->vruntime_vns = charge(clock_now(tctx), knobs.slice_min_ns, tctx->weight);
	else
		tctx->vruntime_vns = place_wakeup(tctx->vruntime_vns, clock_now(tctx),
						  knobs.lag_max_ns, tctx->weight);
	ask(tctx, slice_ns);
}

/* The clocks of a CPU that nobody else wants, and of a task's part, are the LLC's again. */
__attribute__((noinline)) int catch_up_alone(u32 id, s32 cpu, u64 now)
{
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (lctx && cctx)
		catch_up(&cctx->side, lctx->clock.now_vns, lctx->clock.now_vns, now);
	if (id >= PART_DSQ_BASE)
		catch_up_empty(id, cpu, now);
	return 0;
}

/* The task gets or has a CPU that nobody else wants: its clocks are one again. */
static __always_inline void place_alone(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
					u64 now)
{
	settle(p, tctx, cpu);
	catch_up_alone(tctx->clock, cpu, now);
	tctx->vruntime_vns = place_uncontended(tctx->vruntime_vns, clock_now(tctx),
					       knobs.lag_max_ns, tctx->weight);
}

/* With linkage: the verifier walks it once. */
__attribute__((noinline)) int wake_uncontended(struct task_struct *p __arg_trusted,
					       struct task_ctx *tctx __arg_nonnull, s32 cpu,
					       u64 slice_ns, u64 now)
{
	place_alone(p, tctx, cpu, now);
	ask(tctx, slice_ns);
	return 0;
}

/*
 * The debts of a task die with it. So whoever is born next starts where it ended, or a
 * chain of short-lived children would have the CPU to itself. Those of a light task
 * count as the service that they are: its virtual time would carry the clock away from
 * all others.
 */
__attribute__((noinline)) int leave_for_good(const struct task_ctx *tctx __arg_nonnull, s32 cpu)
{
	struct side_clock *side = side_by_id(tctx->clock);
	u64 now = scx_bpf_now(), end_vns = tctx->vruntime_vns;

	if (tctx->weight < WEIGHT_NICE0)
		end_vns = reweigh(end_vns, clock_now(tctx), tctx->weight, WEIGHT_NICE0);
	if (side)
		drive_clock(&side->clock, end_vns, now, WEIGHT_NICE0);
	else
		push_llc(llc_of(cpu), end_vns, now);
	return 0;
}

/* Who starts to run moves its clock along, and that the LLC's. */
static __always_inline void drive_side(struct side_clock *side, struct llc_ctx *lctx,
				       const struct task_ctx *tctx, u64 now)
{
	drive_clock(&side->clock, tctx->vruntime_vns, now, tctx->weight);
	push_clock(lctx, tctx->vruntime_vns - side->ahead_vns, now);
	part_clocks(side, lctx->clock.now_vns);
}

/* The same for a confined task. Those that are bound to its CPU see whom that serves instead. */
__attribute__((noinline)) int drive_part(const struct task_ctx *tctx __arg_nonnull, s32 cpu,
					 u64 now)
{
	struct side_clock *side = side_by_id(tctx->clock);
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 here_vns;

	if (!side || !lctx || !cctx)
		return 0;
	drive_side(side, lctx, tctx, now);
	here_vns = tctx->vruntime_vns - side->ahead_vns;
	catch_up(&cctx->side, lctx->clock.now_vns, here_vns, now);
	return 0;
}

/* All clocks of an LLC begin at the same instant. */
__attribute__((noinline)) int start_clocks(u32 llc, u64 now)
{
	struct llc_ctx *lctx = llc_ctx_of(llc);
	u32 i;

	if (!lctx)
		return 0;
	lctx->clock.set_at = lctx->pushed_at = now;
	bpf_for(i, 0, LLC_PARTS) {
		struct part_ctx *part = part_ctx_of(llc * LLC_PARTS + i);

		if (part)
			part->side.clock.set_at = now;
	}
	return 0;
}

static __always_inline void mark_runnable(struct task_ctx *tctx, u64 now)
{
	tctx->runnable_at = now;
	tctx->queued_at = 0;
	tctx->went_first = false;
	count(CNT_WAKEUPS);
	if (knobs.task_stats)
		tctx->wakeups++;
}

/* What the others see of the task that runs on a CPU. */
static __always_inline void publish(struct cpu_ctx *cctx, const struct task_struct *p,
				    const struct task_ctx *tctx, u64 now)
{
	u64 ahead_vns = ahead_of_llc(tctx);

	cctx->weight = tctx->weight;
	cctx->vruntime_vns = order_of(tctx) - ahead_vns;
	cctx->deadline_vns = tctx->deadline_vns - ahead_vns;
	cctx->running_at = now;
	cctx->running_pid = p->pid;
	cctx->asked = 0;
}

#endif /* SCHEDULER_VTIME_H */

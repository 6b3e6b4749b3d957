/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The decision core: pure functions over explicit values. No helper, no map, no
 * kfunc, no clock, so the same lines run in the kernel as BPF, in tests as
 * native code, and in a simulator.
 *
 * The theory is EEVDF (Stoica and Abdel-Wahab, TR-95-22): every task owns a
 * virtual run time that grows by its run time over its weight; it asks for a
 * request of run time and is due (deadline) when a fair machine would have
 * given it that; the earliest deadline runs. Lag is what a task is owed:
 * the queue's virtual clock less its vruntime.
 *
 * Virtual time is in nanoseconds of a nice 0 task and wraps: compare it with
 * vtime_before() only.
 */
#ifndef SCHEDULER_POLICY_H
#define SCHEDULER_POLICY_H

#include "intf.h"

/*
 * The native build defines POLICY_FN as nothing, to call the functions from Rust.
 * POLICY_CALL is for those with branches that many callers share: as functions
 * with linkage the verifier walks them once, not once a caller and path.
 */
#ifndef POLICY_FN
#define POLICY_FN static inline __attribute__((always_inline))
#define POLICY_CALL __attribute__((noinline))
#else
#define POLICY_CALL
#endif

/* Load weights as in kernel/sched/core.c: nice 0 is 1024, a step is 1.25. */
#define WEIGHT_NICE0 1024
#define WEIGHT_IDLE 3 /* SCHED_IDLE, WEIGHT_IDLEPRIO there */
#define POLICY_SCHED_BATCH 3
#define POLICY_SCHED_IDLE 5

/*
 * Ceiling of one conversion to virtual time, 36 years of a nice 0 task: sums of
 * two stay far from the sign bit that vtime_before() looks at.
 */
#define VIRTUAL_MAX (1ULL << 60)

/* Clocks move in steps of this at least, to spare the cache line they share. */
#define CLOCK_STEP_VNS 32000ULL

POLICY_FN bool vtime_before(u64 a_vns, u64 b_vns)
{
	return (s64)(a_vns - b_vns) < 0;
}

POLICY_FN u64 vtime_max(u64 a_vns, u64 b_vns)
{
	return vtime_before(a_vns, b_vns) ? b_vns : a_vns;
}

POLICY_FN u64 vtime_min(u64 a_vns, u64 b_vns)
{
	return vtime_before(a_vns, b_vns) ? a_vns : b_vns;
}

POLICY_FN u64 clamp_u64(u64 v, u64 low, u64 high)
{
	return v < low ? low : v > high ? high : v;
}

/* Weight of a nice value (-20..19, clamped) under a scheduling policy. */
POLICY_FN u32 weight_of(s32 nice, u32 policy)
{
	/* clang-format off */
	static const u32 weights[40] = {
		/* -20 */ 88761, 71755, 56483, 46273, 36291,
		/* -15 */ 29154, 23254, 18705, 14949, 11916,
		/* -10 */ 9548, 7620, 6100, 4904, 3906,
		/*  -5 */ 3121, 2501, 1991, 1586, 1277,
		/*   0 */ 1024, 820, 655, 526, 423,
		/*   5 */ 335, 272, 215, 172, 137,
		/*  10 */ 110, 87, 70, 56, 45,
		/*  15 */ 36, 29, 23, 18, 15,
	};
	/* clang-format on */
	u32 i = nice < -20 ? 0 : nice > 19 ? 39 : (u32)(nice + 20);

	if (policy == POLICY_SCHED_IDLE || i >= 40)
		return WEIGHT_IDLE;
	return weights[i];
}

/* Run time of a task as virtual time: time * 1024 / weight, at most VIRTUAL_MAX. */
POLICY_CALL u64 to_virtual(u64 time_ns, u32 weight)
{
	u64 whole, rest;

	if (weight == WEIGHT_NICE0)
		return time_ns < VIRTUAL_MAX ? time_ns : VIRTUAL_MAX;
	if (!weight)
		weight = 1;
	whole = time_ns / weight;
	rest = time_ns % weight;
	if (whole >= VIRTUAL_MAX / WEIGHT_NICE0)
		return VIRTUAL_MAX;
	return whole * WEIGHT_NICE0 + rest * WEIGHT_NICE0 / weight;
}

/* Charge: the vruntime of a task after it has run. */
POLICY_FN u64 charge(u64 vruntime_vns, u64 ran_ns, u32 weight)
{
	return vruntime_vns + to_virtual(ran_ns, weight);
}

/* Above every nice value there is by a factor of twelve. */
#define WEIGHT_MAX (1U << 20)

/* The scheduling policy that a task of this class goes by, whose own is `policy`. */
POLICY_FN u32 class_policy(u32 class, u32 policy)
{
	switch (class) {
	case CLASS_OWN:
		return policy;
	case CLASS_BATCH:
		return POLICY_SCHED_BATCH;
	case CLASS_IDLE:
		return POLICY_SCHED_IDLE;
	default:
		return 0;
	}
}

/* Is it a task that never preempts, but waits for its turn? */
POLICY_FN bool is_patient(u32 class, u32 policy)
{
	if (class == CLASS_OWN)
		return policy == POLICY_SCHED_BATCH || policy == POLICY_SCHED_IDLE;
	return class == CLASS_BATCH || class == CLASS_IDLE;
}

/*
 * The weight with the factor of a rule; a factor above one is a boost. WEIGHT_IDLE stays what
 * it is, and nobody else gets it: who has it gives way to all others.
 */
POLICY_FN u32 ruled_weight(u32 weight, u32 factor, bool boosted)
{
	if (weight == WEIGHT_IDLE || (factor > FACTOR_ONE && !boosted))
		return weight;
	return (u32)clamp_u64((u64)weight * factor / FACTOR_ONE, WEIGHT_IDLE + 1, WEIGHT_MAX);
}

/*
 * The boost as of now. A period gives a budget; what was used beyond it, boosted or not, is
 * taken from the next one's, but for more than that: so whoever takes its budget by its weight
 * alone is not boosted, and nobody waits for longer than a period.
 */
POLICY_FN struct boost boost_renewed(struct boost b, u64 now)
{
	u64 passed = now - b.period_at, periods, paid_ns;

	/* Without a budget a debt stays: it is paid from the next. */
	if (!b.budget_ns || !b.period_ns || (s64)passed < (s64)b.period_ns)
		return b;
	periods = passed / b.period_ns;
	b.period_at += periods * b.period_ns;
	paid_ns = periods * b.budget_ns;
	b.used_ns = b.used_ns > paid_ns ? b.used_ns - paid_ns : 0;
	if (b.used_ns > b.budget_ns)
		b.used_ns = b.budget_ns;
	return b;
}

/*
 * The boost by another rule. The period under way ends when it would have, and what was used of
 * it counts, or a task that comes and goes between rules had a budget each time. A rule of the
 * same period and end is that of before in new words: the end stays.
 */
POLICY_FN struct boost boost_adopted(struct boost b, u64 budget_ns, u64 period_ns, u64 expires_ns,
				     u64 now)
{
	bool begins = !b.period_ns;

	b.budget_ns = budget_ns;
	if (!budget_ns)
		return b;
	if (begins) {
		b.used_ns = 0;
		b.period_at = now;
	} else {
		b.period_at += b.period_ns - period_ns;
	}
	if (begins || b.period_ns != period_ns || b.expires_ns != expires_ns)
		b.expires_at = expires_ns ? now + expires_ns : 0;
	b.period_ns = period_ns;
	b.expires_ns = expires_ns;
	return b;
}

/* Is there any of the budget left, and the boost not over for good? */
POLICY_FN bool boost_is_on(struct boost b, u64 now)
{
	return b.used_ns < b.budget_ns && (!b.expires_at || (s64)(b.expires_at - now) > 0);
}

/*
 * How much earlier than by its vruntime a task of CLASS_LATENCY has its place in queues, while its
 * boost is on: by its budget, so that it can have that at once where others have waited for
 * theirs. It is charged as all others, so this is time that it has sooner, not more of it.
 */
POLICY_FN u64 head_start(u32 class, bool boosted, u64 budget_ns, u32 weight)
{
	return class == CLASS_LATENCY && boosted ? to_virtual(budget_ns, weight) : 0;
}

/*
 * How early, in virtual time, a task that waited for long may be served: `early_vns` among tasks
 * of nice 0. Less where it or who runs is heavier: virtual time is the more service the more one
 * weighs. Less for a light one, whose turns are so far apart that it waits for long before each.
 */
POLICY_FN u64 early_by(u64 early_vns, u32 weight, u32 running_weight)
{
	u32 heavier = weight > running_weight ? weight : running_weight;

	return early_vns * (weight < WEIGHT_NICE0 ? weight : WEIGHT_NICE0) /
	       (heavier > WEIGHT_NICE0 ? heavier : WEIGHT_NICE0);
}

/* Time that a clock was not driven for is kept for it, up to this: some turns of a queue. */
#define CLOCK_CREDIT_NS (100ULL * 1000 * 1000)

/*
 * The clock of a queue follows the vruntime of the tasks it starts. It does not go
 * back, nor faster than a task of that weight can be served (`weight`: of the task
 * that drives it), nice 0 for all that are heavier. Where only light tasks compete it
 * must follow them, or whoever joins would find them as far ahead as they have run for;
 * so a step uses up no more time than it takes at that pace, or a heavy task that wakes
 * often would leave the light ones none to drive the clock with. The words of a clock are
 * stored plainly by any CPU of the LLC, so one that is late by an instant can set it
 * back by that instant, until the next task starts.
 */
POLICY_FN struct vclock clock_advance(struct vclock c, u64 vruntime_vns, u64 now, u32 weight)
{
	u64 ahead = vruntime_vns - c.now_vns;
	u64 passed = now - c.set_at, used = ahead, most;

	if ((s64)passed <= 0 || (s64)ahead < (s64)CLOCK_STEP_VNS)
		return c;
	if (passed > CLOCK_CREDIT_NS)
		passed = CLOCK_CREDIT_NS;
	most = passed;
	if (weight < WEIGHT_NICE0) {
		most = to_virtual(passed, weight);
		used = ahead < most ? ahead * weight / WEIGHT_NICE0 : passed;
	}
	c.now_vns += ahead < most ? ahead : most;
	c.set_at = ahead < most ? now - passed + used : now;
	return c;
}

/*
 * A task that wakes is owed its lag, but not more than lag_max_ns of service:
 * hours of sleep must not buy the CPU for seconds.
 */
POLICY_FN u64 place_wakeup(u64 vruntime_vns, u64 clock_vns, u64 lag_max_ns, u32 weight)
{
	return vtime_max(vruntime_vns, clock_vns - to_virtual(lag_max_ns, weight));
}

/*
 * A task that gets a CPU that nobody else wants takes nothing from anyone, so
 * what it ran ahead is forgiven too: its lag ends between 0 and the maximum.
 */
POLICY_FN u64 place_uncontended(u64 vruntime_vns, u64 clock_vns, u64 lag_max_ns, u32 weight)
{
	u64 floor_vns = clock_vns - to_virtual(lag_max_ns, weight);

	return vtime_min(vtime_max(vruntime_vns, floor_vns), clock_vns);
}

/*
 * A task that stays runnable keeps its lag. Under contention on one queue that is
 * at most one request and the tick that enforces it (EEVDF, theorem 1); much more
 * means that its weight is more than a whole CPU can serve, or that the tasks it
 * competed with are gone, and is cut.
 */
POLICY_FN u64 place_requeue(u64 vruntime_vns, u64 clock_vns, u64 lag_runnable_ns, u32 weight)
{
	return vtime_max(vruntime_vns, clock_vns - to_virtual(lag_runnable_ns, weight));
}

/* A task that changes its clock (LLC, or CPU if bound) carries its lag along. */
POLICY_FN u64 carry_lag(u64 vruntime_vns, u64 from_vns, u64 to_vns)
{
	return vruntime_vns - from_vns + to_vns;
}

/* A task that changes its weight keeps the service that it is owed or owes. */
POLICY_FN u64 reweigh(u64 vruntime_vns, u64 clock_vns, u32 before, u32 after)
{
	s64 lag_vns = (s64)(clock_vns - vruntime_vns);
	u64 size = lag_vns < 0 ? -(u64)lag_vns : (u64)lag_vns;
	u64 service_ns, scaled;

	/* A lag beyond this is not from contention; see place_requeue(). */
	if (size > VIRTUAL_MAX >> 20)
		size = VIRTUAL_MAX >> 20;
	service_ns = size * before / WEIGHT_NICE0;
	scaled = to_virtual(service_ns, after);
	return lag_vns < 0 ? clock_vns + scaled : clock_vns - scaled;
}

/*
 * Base slice of a CPU: the longest one shared by those who wait, so that a turn of
 * the queue stays about as long however many they are.
 */
POLICY_FN u64 base_slice(u64 slice_max_ns, u64 slice_min_ns, u32 waiting, u32 nr_cpus)
{
	u64 slice_ns;

	if (!nr_cpus)
		nr_cpus = 1;
	slice_ns = slice_max_ns * nr_cpus / (nr_cpus + (u64)waiting);
	return clamp_u64(slice_ns, slice_min_ns, slice_max_ns);
}

/*
 * Slice of a task: a lighter one runs as often, for less, because one long slice
 * of a nice 19 task is what the others feel.
 */
POLICY_FN u64 task_slice(u64 base_ns, u64 slice_min_ns, u32 weight)
{
	u64 slice_ns = base_ns;

	if (weight < WEIGHT_NICE0)
		slice_ns = base_ns * weight / WEIGHT_NICE0;
	return slice_ns < slice_min_ns ? slice_min_ns : slice_ns;
}

/* The slice of a task whose rule says one (0: none does), where that of all is `base_ns`. */
POLICY_FN u64 ruled_slice(u64 rule_slice_ns, u64 base_ns, u64 slice_min_ns, u32 weight)
{
	return task_slice(rule_slice_ns ?: base_ns, slice_min_ns, weight);
}

/*
 * Average run time from wakeup to sleep, a moving one over about four bursts.
 */
POLICY_FN u64 burst_average(u64 average_ns, u64 burst_ns)
{
	return average_ns - average_ns / 4 + burst_ns / 4;
}

/*
 * The request: how much run time a task asks for at once. A task whose bursts are
 * short asks for little, so it is due soon: that is what puts latency-sensitive
 * tasks first. Whoever asks for little and runs on is due later with every
 * request, at the very vruntime of one that asked for all at once, so nothing
 * is won by it. `spent`: the task used up its last request without sleeping.
 */
POLICY_FN u64 request(u64 burst_avg_ns, bool spent, u64 request_min_ns, u64 slice_ns)
{
	u64 request_ns = spent ? slice_ns : burst_avg_ns;

	if (request_ns < request_min_ns)
		request_ns = request_min_ns;
	return request_ns < slice_ns ? request_ns : slice_ns;
}

POLICY_FN u64 deadline(u64 vruntime_vns, u64 request_ns, u32 weight)
{
	return vruntime_vns + to_virtual(request_ns, weight);
}

/*
 * When a running task is due, as seen by one that wakes: its deadline, or its
 * vruntime charged up to now where it has outrun that.
 */
POLICY_FN u64 running_due(u64 deadline_vns, u64 vruntime_vns, u64 ran_ns, u32 weight)
{
	return vtime_max(deadline_vns, charge(vruntime_vns, ran_ns, weight));
}

/* May a waking task due at `deadline_vns` preempt one that is due at `due_vns`? */
POLICY_FN bool preempts(u64 deadline_vns, u64 due_vns, u64 gran_vns)
{
	return vtime_before(deadline_vns + gran_vns, due_vns);
}

/* Index of the highest bit set; 0 for 0. Without a builtin, for BPF's sake. */
POLICY_FN u32 log2_floor(u64 v)
{
	u32 bits = 0, step;

	for (step = 32; step; step /= 2) {
		if (v >> step) {
			v >>= step;
			bits += step;
		}
	}
	return bits;
}

/* Slot of a duration in a histogram of HIST_SLOTS; see intf.h for the shape. */
POLICY_FN u32 hist_slot(u64 time_ns)
{
	u64 units = time_ns >> 10;
	u32 bits, slot;

	if (units < (1u << HIST_SUB_BITS))
		return (u32)units;
	bits = log2_floor(units);
	slot = ((bits - HIST_SUB_BITS + 1) << HIST_SUB_BITS) +
	       (u32)((units >> (bits - HIST_SUB_BITS)) & ((1u << HIST_SUB_BITS) - 1));
	return slot < HIST_SLOTS ? slot : HIST_SLOTS - 1;
}

/* Slot of a duration in a task's own histogram: one a power of two of 1024 ns. */
POLICY_FN u32 task_hist_slot(u64 time_ns)
{
	u64 units = time_ns >> 10;
	u32 slot = units ? log2_floor(units) + 1 : 0;

	return slot < TASK_HIST_SLOTS ? slot : TASK_HIST_SLOTS - 1;
}

#endif /* SCHEDULER_POLICY_H */

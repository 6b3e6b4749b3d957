/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's half of a policy in user space. A runnable task is put into the queue
 * OFFERED_DSQ and told of in the ring `events`; the policy answers through the array
 * `decisions` and the program relay_apply, which moves the task into the queue of a CPU
 * or into that of all. The base, which is the rest of the kernel's half, stays beneath:
 *
 * - It keeps vruntimes, deadlines and clocks of all tasks, whoever decides.
 * - A CPU that has nothing but offers to run waits for the policy for knobs.grace_ns, and
 *   then takes the oldest of them.
 * - If CPUs have wanted a decision for LATE_NS and none came, nothing is offered any more,
 *   and the base schedules alone, until the policy shows up and its time of waiting is over.
 * - Whoever waits for too long by the base's own measure, decided or not, is moved to
 *   the base's queue: see overdue_ns().
 * - Kernel threads, the policy's own threads, and what does not fit into the ring are never
 *   offered.
 *
 * So there is no state of the policy's process that stops the machine. All of this is left
 * out by the verifier where `relayed` is false.
 */
#ifndef SCHEDULER_RELAY_H
#define SCHEDULER_RELAY_H

/* Queues: of what is offered, by arrival, and of what is decided, by the policy's vtime. */
#define OFFERED_DSQ (1ULL << 17)
#define ANY_DSQ ((1ULL << 17) + 1)
#define DECIDED_DSQ_BASE (1ULL << 18)

/* How an offer stands: the last bits of task_ctx.offer. */
enum offer_state {
	OFFER_NONE,
	OFFER_OPEN,
	OFFER_DECIDED,
};
#define OFFER_SHIFT 2

/* The offer of that number in that state, as task_ctx.offer holds it. */
static __always_inline u64 offer_in(u64 number, enum offer_state state)
{
	return number << OFFER_SHIFT | state;
}

static __always_inline u64 number_of(u64 offer)
{
	return offer >> OFFER_SHIFT;
}

static __always_inline enum offer_state state_of(u64 offer)
{
	return offer & ((1 << OFFER_SHIFT) - 1);
}

/*
 * No decision for this long while CPUs want one: the policy does not work. Several times
 * what a process needs that has to be woken on a busy machine at the ticks of 250 Hz.
 */
#define LATE_NS (50ULL * 1000 * 1000)
/* For how long the base schedules alone, at first, and where each try ends like the first. */
#define BACKOFF_MIN_NS (100ULL * 1000 * 1000)
#define BACKOFF_MAX_NS (5ULL * 1000 * 1000 * 1000)

/* The policy's threads: nice -10. Nine tenths of a CPU where others want it, too. */
#define RELAY_WEIGHT 9548
/* Slices that a policy may give; --slice-us may allow longer ones. */
#define DECIDED_SLICE_MIN_NS (DECIDED_SLICE_MIN_US * 1000ULL)
#define DECIDED_SLICE_MAX_NS (DECIDED_SLICE_MAX_US * 1000ULL)

/* Size of an event with the words for the CPUs of this machine. Set before load. */
const volatile u32 event_bytes = sizeof(struct event) + sizeof(u64);
const volatile u32 event_mask_bytes = sizeof(u64);

struct relay relay SEC(".data");

/* Sized by user space before load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct decision);
	__uint(max_entries, DECISIONS_MAX);
} decisions SEC(".maps");

struct relay_timer {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct relay_timer);
	__uint(max_entries, 1);
} relay_timers SEC(".maps");

static __always_inline u64 decided_dsq(s32 cpu)
{
	return DECIDED_DSQ_BASE + (u32)cpu;
}

/* Counts from where interrupts may be on. */
static __always_inline void count_anywhere(enum counter counter, u64 n)
{
	u32 zero = 0;
	struct cpu_stats *s = bpf_map_lookup_elem(&stats, &zero);

	if (s)
		__sync_fetch_and_add(&s->counters[counter], n);
}

/* ---- events ---- */

/* Tells the policy of a task. False: there is no room in the ring. */
__attribute__((noinline)) bool tell(u32 kind, struct task_struct *p __arg_trusted,
				    struct task_ctx *tctx __arg_nonnull, s32 cpu, u64 enq_flags)
{
	struct event *e = bpf_ringbuf_reserve(&events, event_bytes, 0);
	const void *mask = NULL;

	if (!e)
		return false;
	e->told_at = scx_bpf_now();
	e->kind = kind;
	e->enq_flags = enq_flags;
	e->cgroup = BPF_CORE_READ(p, cgroups, dfl_cgrp, kn, id);
	e->started_at = tctx->started_at;
	e->stopped_at = tctx->stopped_at;
	e->burst_ns = tctx->burst_ns;
	e->nvcsw = p->nvcsw;
	e->nivcsw = p->nivcsw;
	/* By one clock, whichever it goes by. */
	e->vruntime_vns = carry_lag(tctx->vruntime_vns, clock_now(tctx), shown_by(0));
	e->pid = p->pid;
	e->tgid = p->tgid;
	e->cpu = cpu;
	e->offer = number_of(tctx->offer);
	e->weight = tctx->weight;
	e->nice = p->static_prio - 120;
	e->policy = p->policy;
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), p->comm);
	bpf_core_read(&mask, sizeof(mask), &p->cpus_ptr);
	bpf_probe_read_kernel(e + 1, event_mask_bytes, mask);
	bpf_ringbuf_submit(e, 0);
	return true;
}

static __always_inline void tell_of_cpu(s32 cpu, u64 now)
{
	struct event *e = bpf_ringbuf_reserve(&events, event_bytes, 0);

	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	e->told_at = now;
	e->kind = EV_CPU;
	e->cpu = cpu;
	bpf_ringbuf_submit(e, 0);
}

/* ---- who waits for too long ---- */

/*
 * A task may wait this long before the base looks whether that is fair: what a turn of
 * all takes, at a tick of 250 Hz each, and a fifth of the tenth of a second that a policy may
 * cost more than the base alone. The rest is for finding it and for its way to a CPU.
 */
static __always_inline u64 overdue_ns(u32 nr_waiting, u32 nr_cpus)
{
	return (20 + 4ULL * (1 + nr_waiting / (nr_cpus ?: 1))) * 1000 * 1000;
}

/* Tasks of a queue that are looked at for those that are overdue, from either end by turns. */
#define OVERDUE_MAX 512
#define OVERDUE_GAP_NS (10ULL * 1000 * 1000)

/*
 * A clock follows those who start, and a policy may let each CPU run one task for as long as
 * half a turn of the base: what they have run by now beyond a slice of the base's is service
 * that the others did not get. At the pace of nice 0 at most: a light one is soon far ahead.
 */
static __always_inline void note_progress(struct llc_ctx *lctx, const struct cpu_ctx *cctx, u64 now)
{
	u64 ran_ns = elapsed_ns(cctx->running_at + knobs.slice_max_ns, now);
	u64 at_vns = cctx->vruntime_vns + vtime_min(to_virtual(ran_ns, cctx->weight), ran_ns);

	at_vns = vtime_min(at_vns, lctx->clock.now_vns + DECIDED_SLICE_MAX_NS);
	if (ran_ns && vtime_before(lctx->reached_vns, at_vns))
		lctx->reached_vns = at_vns;
}

/* How far those who run may be ahead of the clock of their LLC. */
static __always_inline u64 progress_of(const struct llc_ctx *lctx)
{
	s64 ahead_vns = lctx->reached_vns - lctx->clock.now_vns;

	return ahead_vns > 0 ? vtime_min(ahead_vns, DECIDED_SLICE_MAX_NS) : 0;
}

/* So early is a task of nice 0 owed service, not just waiting: what others got, and a slice. */
static __always_inline u64 early_vns(const struct llc_ctx *lctx)
{
	return progress_of(lctx) + knobs.slice_max_ns;
}

/* Is a task that is due at `deadline_vns` owed service by this clock? */
static __always_inline bool is_owed(u64 deadline_vns, u64 clock_vns, const struct llc_ctx *lctx)
{
	return vtime_before(deadline_vns, clock_vns + early_vns(lctx));
}

/* The same of one that waits for longer than a turn, beside what runs where it ran last. */
static __always_inline bool is_overdue(const struct task_ctx *tctx, u64 clock_vns,
				       const struct llc_ctx *lctx, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 running_weight = cctx ? cctx->weight : WEIGHT_NICE0;

	return vtime_before(tctx->deadline_vns,
			    clock_vns + early_by(early_vns(lctx), tctx->weight, running_weight));
}

/*
 * Moves tasks that are overdue from a queue of the policy's to one of the base's; a bound
 * one to the global queue, which its CPU looks at first.
 */
__attribute__((noinline)) int retake(u64 from, u64 iter_flags, u64 limit_ns, u64 now)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	int moved = 0, i;

	/* Told to the verifier: it takes a timer for as sleepable as who set it up. */
	bpf_rcu_read_lock();
	if (!bpf_iter_scx_dsq_new(&it, from, iter_flags & SCX_DSQ_ITER_REV)) {
		bpf_for(i, 0, OVERDUE_MAX) {
			struct task_ctx *tctx;
			struct llc_ctx *lctx;
			u64 number, due_vns, clock_vns, dsq;
			s64 waited_ns;
			s32 cpu;

			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			tctx = task_ctx_of(p);
			if (!tctx || !tctx->queued_at)
				continue;
			waited_ns = now - tctx->queued_at;
			if (waited_ns < (s64)limit_ns)
				continue;
			clock_vns = clock_now(tctx);
			cpu = scx_bpf_task_cpu(p);
			lctx = llc_ctx_of(llc_of(cpu));
			if (!lctx)
				continue;
			due_vns = tctx->deadline_vns;
			if (waited_ns >= (s64)wait_max_ns(p)) {
				/* Owed or not. */
				save(p, tctx);
				due_vns = clock_vns - FIRST_VNS;
			} else if (limit_ns && !is_overdue(tctx, clock_vns, lctx, cpu)) {
				continue;
			}
			/* What it was decided for no longer counts. */
			number = number_of(tctx->offer);
			__sync_val_compare_and_swap(&tctx->offer, offer_in(number, OFFER_DECIDED),
						    offer_in(number, OFFER_OPEN));
			if (is_bound(p)) {
				moved += scx_bpf_dsq_move(&it, p, SCX_DSQ_GLOBAL, 0);
				kick_idle(cpu);
			} else {
				scx_bpf_dsq_move_set_vtime(&it, due_vns);
				dsq = announce(tctx, lctx, now);
				moved += scx_bpf_dsq_move_vtime(&it, p, dsq, 0);
				wake_idle_for(p);
			}
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	bpf_rcu_read_unlock();
	if (moved)
		count_anywhere(CNT_RESCUES, moved);
	return moved;
}

/* ---- the timer, and lateness ---- */

/* The timer's period is the grace, within these: finer costs, coarser is felt. */
#define TICK_MIN_NS (1000ULL * 1000)
#define TICK_MAX_NS (10ULL * 1000 * 1000)
#define TIMER_LOST_NS (20ULL * 1000 * 1000)
/* Nothing of it for so long: the timer is started anew, even where it is just for idleness. */
#define TIMER_DEAD_NS (500ULL * 1000 * 1000)
/*
 * Where nothing waits, it looks this often: a task is inserted some time after it was offered,
 * on a machine that is a guest itself any time after, and what nobody looks at waits for ever.
 */
#define TICK_IDLE_NS (50ULL * 1000 * 1000)

/* The policy itself, as long as it works: all others wait for it. */
static __always_inline bool is_urgent(const struct task_struct *p)
{
	return relayed && (u32)p->tgid == relay.tgid && !relay.late_at;
}

static void start_timer(u64 period_ns)
{
	struct relay_timer *t;
	u32 zero = 0;

	t = bpf_map_lookup_elem(&relay_timers, &zero);
	if (!t || bpf_timer_start(&t->timer, period_ns, 0))
		relay.armed = 0;
}

static __always_inline u64 tick_ns(void)
{
	return clamp_u64(knobs.grace_ns, TICK_MIN_NS, TICK_MAX_NS);
}

/*
 * Has the timer look soon. What was started longer ago than it ever takes is lost: it is
 * carried by interrupt work on some kernels, which a CPU on its way out never does.
 */
static void arm(u64 now)
{
	if (relay.armed && (s64)(now - relay.armed_at) < (s64)(tick_ns() + TIMER_LOST_NS))
		return;
	relay.armed_at = now;
	__sync_lock_test_and_set(&relay.armed, 1);
	start_timer(tick_ns());
}

/* A CPU wants a decision. */
static __always_inline void note_want(u64 now)
{
	if (!relay.asked_at)
		relay.asked_at = now;
}

static __always_inline void take_over_if_late(u64 now)
{
	u64 asked_at = relay.asked_at;

	if (relay.late_at || !asked_at || (s64)(now - asked_at) < (s64)LATE_NS)
		return;
	if (__sync_val_compare_and_swap(&relay.late_at, 0, now))
		return;
	relay.backoff_ns = clamp_u64(relay.backoff_ns * 2, BACKOFF_MIN_NS, BACKOFF_MAX_NS);
	relay.retry_at = now + relay.backoff_ns;
	count_anywhere(CNT_LATE, 1);
}

/* ---- preemption by the policy's order ---- */

/* Ends the slice of what runs on a CPU, and nobody is asked whether that should go on. */
static __always_inline void preempt(u32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	/* Whoever just began may do something first: the timer looks again. */
	if (!cctx || !cctx->online ||
	    (cctx->running_pid &&
	     elapsed_ns(cctx->running_at, scx_bpf_now()) < DECIDED_SLICE_MIN_NS))
		return;
	cctx->give_way = 1;
	kick(cpu, SCX_KICK_PREEMPT);
}

/*
 * Does what runs on a CPU come later than `vtime` by now: by its own decision, and what it has
 * run since? What nobody decided about gives way.
 */
static __always_inline bool runs_later(u32 cpu, u64 vtime, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!cctx || !cctx->running_pid)
		return false;
	if (!cctx->has_vtime)
		return true;
	return vtime_before(
		vtime + knobs.preempt_gran_vns,
		charge(cctx->run_vtime, elapsed_ns(cctx->running_at, now), cctx->weight));
}

/* As may_run(), inline: a program that may sleep has to be seen to hold the RCU lock. */
static __always_inline bool allows(const struct task_struct *p, s32 cpu)
{
	return cpu >= 0 && bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
}

/*
 * Preempts what runs on a CPU if the first of a queue comes earlier by now: slices end at
 * ticks, and this is more often. Linkage and RCU lock: for the verifier.
 */
__attribute__((noinline)) bool preempt_for_first(u64 dsq, s32 cpu, u64 now)
{
	struct task_struct *p;
	bool earlier = false;

	bpf_rcu_read_lock();
	bpf_for_each(scx_dsq, p, dsq, 0) {
		earlier = allows(p, cpu) && runs_later(cpu, p->scx.dsq_vtime, now);
		break;
	}
	bpf_rcu_read_unlock();
	if (earlier)
		preempt(cpu);
	return earlier;
}

/*
 * Looks at a CPU: wakes it if it is idle, and its patience at its end or a kick missed. What
 * is summed up goes to memory, and the function has linkage, because the verifier would
 * follow every sum.
 */
__attribute__((noinline)) int look_at_cpu(s32 cpu, u32 nr_offered, u32 nr_any, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 nr_own = nr_in(decided_dsq(cpu));
	bool wants;

	if (!cctx)
		return 0;
	relay.looking.nr_for_cpus += nr_own;
	if (!cctx->online)
		return 0;
	relay.looking.nr_online++;
	if (cctx->running_pid) {
		if (!cctx->has_vtime)
			return 0;
		/* One CPU for the first of those that any may take. */
		if (nr_any && !relay.looking.preempted && preempt_for_first(ANY_DSQ, cpu, now))
			relay.looking.preempted = 1;
		else if (nr_own)
			preempt_for_first(decided_dsq(cpu), cpu, now);
		return 0;
	}
	wants = nr_offered &&
		(!cctx->wants_at || (s64)(now - cctx->wants_at) >= (s64)knobs.grace_ns);
	/* Not kick(): where a timer runs interrupts are on, and its interrupt work is done. */
	if (nr_own || nr_any || wants)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	return 0;
}

static __always_inline void retake_overdue(u32 nr_offered, u32 nr_any, u64 now)
{
	u64 limit_ns =
		overdue_ns(nr_offered + nr_any + relay.seen.nr_for_cpus, relay.seen.nr_online);
	u64 iter_flags = relay.rescued_turn++ % 2 ? SCX_DSQ_ITER_REV : 0;
	s32 cpu;

	relay.rescued_at = now;
	if (nr_offered)
		retake(OFFERED_DSQ, iter_flags, limit_ns, now);
	if (nr_any)
		retake(ANY_DSQ, iter_flags, limit_ns, now);
	if (!relay.seen.nr_for_cpus)
		return;
	bpf_for(cpu, 0, nr_cpu_ids) {
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		/* Nobody serves that of a CPU that is gone. */
		if (cctx)
			retake(decided_dsq(cpu), iter_flags, cctx->online ? limit_ns : 0, now);
	}
}

/*
 * Soon after an offer, and then again as long as anything waits for the policy or,
 * decided, for a CPU; else now and then.
 */
static int relay_tick(void *map, u32 *key, struct relay_timer *t)
{
	u32 nr_offered, nr_any;
	u64 now = scx_bpf_now();
	s32 cpu;

	/* Before it looks: whoever offers after this look arms it again. */
	relay.ticking = 1;
	relay.armed_at = now;
	__sync_lock_test_and_set(&relay.armed, 0);
	nr_offered = nr_in(OFFERED_DSQ);
	nr_any = nr_in(ANY_DSQ);
	take_over_if_late(now);
	relay.looking.nr_for_cpus = 0;
	relay.looking.nr_online = 0;
	relay.looking.preempted = 0;
	bpf_for(cpu, 0, nr_cpu_ids)
		look_at_cpu(cpu, nr_offered, nr_any, now);
	relay.seen = relay.looking;
	if ((s64)(now - relay.rescued_at) >= (s64)OVERDUE_GAP_NS)
		retake_overdue(nr_offered, nr_any, now);
	/* An offer is in its queue only some time after it armed this. */
	if (nr_offered || nr_any || relay.seen.nr_for_cpus ||
	    (s64)(now - relay.offered_at) < (s64)knobs.grace_ns)
		arm(now);
	else if (!relay.armed)
		start_timer(TICK_IDLE_NS);
	relay.ticking = 0;
	return 0;
}

static int start_relay(void)
{
	struct relay_timer *t;
	u32 zero = 0;
	int err;

	err = create_dsqs(OFFERED_DSQ, 1) ?: create_dsqs(ANY_DSQ, 1);
	err = err ?: create_dsqs(DECIDED_DSQ_BASE, nr_cpu_ids);
	if (err)
		return err;
	t = bpf_map_lookup_elem(&relay_timers, &zero);
	if (!t)
		return -ENOENT;
	err = bpf_timer_init(&t->timer, &relay_timers, CLOCK_MONOTONIC);
	err = err ?: bpf_timer_set_callback(&t->timer, relay_tick);
	return err ?: bpf_timer_start(&t->timer, TICK_IDLE_NS, 0);
}

#endif /* SCHEDULER_RELAY_H */

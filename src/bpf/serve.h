/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a policy in user space decides: what is offered to it and when an offer is over, what a
 * CPU runs next, and what the policy hears of tasks that change and go. See relay.h.
 */
#ifndef SCHEDULER_SERVE_H
#define SCHEDULER_SERVE_H

/* ---- offers ---- */

/* An offer that nobody ended and that is over: the task left its queue some other way. */
static __always_inline void end_offer(struct task_ctx *tctx)
{
	if (state_of(tctx->offer) == OFFER_NONE)
		return;
	tctx->offer = offer_in(number_of(tctx->offer), OFFER_NONE);
	count(CNT_GONE);
}

static __always_inline bool is_offerable(const struct task_struct *p)
{
	return relayed && !(p->flags & PF_KTHREAD) && (u32)p->tgid != relay.tgid && !relay.late_at;
}

/* Does a wakeup take an idle CPU by itself? A policy may want to be asked about these, too. */
static __always_inline bool goes_direct(const struct task_struct *p)
{
	return !relayed || knobs.idle_direct || !is_offerable(p);
}

/* Is the CPU idle only because what it could run waits for the policy? */
static __always_inline bool waits_for_policy(s32 cpu)
{
	struct cpu_ctx *cctx = relayed ? cpu_ctx_of(cpu) : NULL;

	return cctx && cctx->wants_at;
}

/*
 * What a policy let a task run beyond its share is no debt of that, but for DEBT_MAX_NS, and
 * what it kept from it is made up for to CREDIT_MAX_NS, each in service. While the
 * one is paid off and the other caught up with, the base takes a task for served: four hogs
 * a CPU need four times as long for it, and a tenth of a second is what a policy may cost more
 * than the base alone. The base by itself needs no more: a slice and a tick at 100 Hz.
 */
#define DEBT_MAX_NS (6ULL * 1000 * 1000)
#define CREDIT_MAX_NS (20ULL * 1000 * 1000)

static __always_inline u64 lag_runnable_ns(void)
{
	return relayed ? CREDIT_MAX_NS : knobs.lag_runnable_ns;
}

static __always_inline void forgive(struct task_ctx *tctx)
{
	u64 most_vns = clock_now(tctx) + to_virtual(DEBT_MAX_NS, tctx->weight);

	if (!vtime_before(most_vns, tctx->vruntime_vns))
		return;
	/* What is forgiven of the one is forgiven of the other, or it would be due when it was. */
	tctx->deadline_vns = carry_lag(tctx->deadline_vns, tctx->vruntime_vns, most_vns);
	tctx->vruntime_vns = most_vns;
}

/* A quarter of the ring is for those that cannot be told of later: they are gone. */
static __always_inline bool has_room(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) * 4 <
	       bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) * 3;
}

/*
 * Offers a task that is about to be put into OFFERED_DSQ, or that runs and is to be told
 * whether to go on. False: the base is to say.
 */
static __always_inline bool offer(struct task_struct *p, struct task_ctx *tctx, u64 enq_flags,
				  bool renewal, u64 now)
{
	u64 number;

	end_offer(tctx);
	if (!has_room()) {
		count(CNT_OVERFLOW);
		return false;
	}
	number = (u32)(number_of(tctx->offer) + 1);
	tctx->renewal = renewal;
	tctx->offered_at = now;
	tctx->offer = offer_in(number, OFFER_OPEN);
	if (!tell(EV_RUNNABLE, p, tctx, tctx->cpu, enq_flags)) {
		tctx->offer = offer_in(number, OFFER_NONE);
		count(CNT_OVERFLOW);
		return false;
	}
	count(CNT_OFFERED);
	/* In this order, with a barrier between: see relay_tick(). */
	__sync_lock_test_and_set(&relay.offered_at, now);
	arm(now);
	return true;
}

/*
 * Is it decided where a task goes that ran until now? Its affinity may have changed since: a
 * task of another queue than that of all is offered anew.
 */
static __always_inline bool is_renewed(struct task_ctx *tctx, u64 enq_flags)
{
	bool renewal = relayed && tctx->renewal;

	if (!renewal)
		return false;
	tctx->renewal = false;
	return !(enq_flags & SCX_ENQ_WAKEUP) && tctx->next_dsq == ANY_DSQ && !relay.late_at &&
	       state_of(tctx->offer) == OFFER_DECIDED;
}

/* A task starts to run: whatever was offered of it is over. */
static __always_inline void settle_offer(struct task_ctx *tctx, struct cpu_ctx *cctx,
					 struct cpu_stats *st, u64 now)
{
	u64 over = offer_in(number_of(tctx->offer), OFFER_NONE);
	u64 waited_ns = elapsed_ns(tctx->offered_at, now);

	tctx->started_at = now;
	cctx->has_vtime = 0;
	if (tctx->offer == over)
		return;
	/* Beside relay_apply, which may just be deciding. */
	if (state_of(__sync_lock_test_and_set(&tctx->offer, over)) == OFFER_OPEN) {
		st->counters[CNT_TAKEN]++;
		return;
	}
	st->counters[CNT_DECIDED]++;
	cctx->run_vtime = tctx->next_vtime;
	cctx->has_vtime = 1;
	st->served_hist[hist_slot(waited_ns) & (HIST_SLOTS - 1)]++;
}

/* ---- what next ---- */

/* The first of what was decided for a CPU and for any. */
struct decided {
	struct head own;
	struct head any;
	bool own_first;
};

static __always_inline struct decided decided_for(s32 cpu)
{
	struct decided d = {};

	if (nr_in(decided_dsq(cpu)))
		d.own = head_of(decided_dsq(cpu), cpu);
	if (nr_in(ANY_DSQ))
		d.any = head_of(ANY_DSQ, cpu);
	d.own_first = d.own.waits &&
		      (!d.any.waits || vtime_before(d.own.deadline_vns, d.any.deadline_vns));
	return d;
}

static __always_inline bool take_decided(const struct decided *d, s32 cpu)
{
	if (d->own_first && scx_bpf_dsq_move_to_local(decided_dsq(cpu), 0))
		return true;
	if (has_task(&d->any) && scx_bpf_dsq_move_to_local(ANY_DSQ, 0))
		return true;
	return has_task(&d->own) && scx_bpf_dsq_move_to_local(decided_dsq(cpu), 0);
}

/*
 * The slice of the running task is over, and others wait. Who is first is for the policy to
 * say, and that takes a while, in which the task goes on; the policy's answer preempts
 * it if somebody else comes first. False: it goes now. It has a slice of the base's for an answer.
 */
static __always_inline bool goes_on(struct task_struct *p, struct task_ctx *tctx,
				    struct cpu_ctx *cctx, const struct decided *d, s32 cpu, u64 now)
{
	enum offer_state state = state_of(tctx->offer);
	u64 slice_ns = knobs.slice_max_ns;

	if (cctx->give_way || !is_offerable(p))
		return false;
	charge_task(p, tctx);
	if (state == OFFER_DECIDED && tctx->renewal) {
		if (tctx->next_dsq != ANY_DSQ && tctx->next_dsq != decided_dsq(cpu))
			return false;
		if (gives_way(&d->own, tctx->next_vtime) || gives_way(&d->any, tctx->next_vtime))
			return false;
		tctx->offer = offer_in(number_of(tctx->offer), OFFER_NONE);
		tctx->renewal = false;
		cctx->run_vtime = tctx->next_vtime;
		cctx->has_vtime = 1;
		slice_ns = tctx->next_slice_ns;
		count(CNT_DECIDED);
	} else if (state != OFFER_NONE || !offer(p, tctx, 0, true, now)) {
		return false;
	}
	keep(p, tctx, cctx, cpu, false, now);
	scx_bpf_task_set_slice(p, slice_ns);
	return true;
}

/* Nobody in a queue of the base waits behind all that is decided: one goes this often. */
#define BASE_GAP_NS (100ULL * 1000 * 1000)

/* Is the first of the base's queues owed service, by its own measure, or has none been served? */
static __always_inline bool base_first(struct cpu_ctx *cctx, const struct llc_ctx *lctx, s32 cpu,
				       u32 llc, u64 now)
{
	struct head h, parts = {};

	if ((s64)(now - relay.base_at) > (s64)BASE_GAP_NS)
		return true;
	if (cctx->pinned) {
		h = head_of(cpu_dsq(cpu), cpu);
		if (h.waits && is_owed(h.deadline_vns, cctx->side.clock.now_vns, lctx))
			return true;
	}
	if (cctx->parts && look_at_parts(cpu, llc, &parts) && parts.waits &&
	    is_owed(parts.deadline_vns, lctx->clock.now_vns, lctx))
		return true;
	if (!nr_in(llc))
		return false;
	h = head_of(llc, cpu);
	return h.waits && is_owed(h.deadline_vns, lctx->clock.now_vns, lctx);
}

static __always_inline bool take_base(struct cpu_ctx *cctx, s32 cpu, u32 llc)
{
	u64 now = scx_bpf_now(), coin = (now >> 10) % 4, first = NO_DSQ;
	struct waiting w = {.nr_llc = 1, .nr_part = cctx->parts, .nr_cpu = cctx->pinned};

	relay.base_at = now;
	/* A coin: no queue may starve another. */
	if (w.nr_cpu && coin % 2)
		first = cpu_dsq(cpu);
	else if (w.nr_part && coin / 2)
		first = ANY_PART;
	if (take_next(cctx, &w, cpu, llc, first))
		return true;
	count_bound(cctx, cpu);
	return false;
}

/*
 * What a CPU runs next where a policy decides. False: the base is to say, and so it is
 * while that is late, but for what it had been offered by then.
 */
static __always_inline bool relay_dispatch(struct cpu_ctx *cctx, const struct llc_ctx *lctx,
					   s32 cpu, u32 llc, struct task_struct *prev, u64 now)
{
	struct head offered = {};
	struct task_ctx *tctx;
	struct decided d;

	/* The timer runs as long as anything is offered, or decided and waits. */
	if (!relay.armed && !relay.ticking) {
		cctx->wants_at = 0;
		return false;
	}
	take_over_if_late(now);
	if (base_first(cctx, lctx, cpu, llc, now) && take_base(cctx, cpu, llc))
		goto found;
	d = decided_for(cpu);
	if (nr_in(OFFERED_DSQ))
		offered = head_of(OFFERED_DSQ, cpu);
	tctx = still_runnable(prev, cpu);
	if (tctx && (has_task(&d.own) || has_task(&d.any) || has_task(&offered)) &&
	    goes_on(prev, tctx, cctx, &d, cpu, now))
		goto found;
	if (take_decided(&d, cpu))
		goto found;
	if (relay.late_at) {
		cctx->wants_at = 0;
		return has_task(&offered) && scx_bpf_dsq_move_to_local(OFFERED_DSQ, 0);
	}
	if (take_base(cctx, cpu, llc))
		goto found;
	if (!has_task(&offered)) {
		cctx->wants_at = 0;
		return false;
	}
	note_want(now);
	if (!cctx->wants_at) {
		cctx->wants_at = now;
		tell_of_cpu(cpu, now);
		arm(now);
		return true;
	}
	if ((s64)(now - cctx->wants_at) < (s64)knobs.grace_ns)
		return true;
	if (!scx_bpf_dsq_move_to_local(OFFERED_DSQ, 0)) {
		cctx->wants_at = 0;
		return false;
	}
found:
	cctx->wants_at = 0;
	cctx->give_way = 0;
	return true;
}

/* ---- tasks come, change and go ---- */

void BPF_STRUCT_OPS(sched_exit_task, struct task_struct *p, struct scx_exit_task_args *args)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx || !tctx->offer)
		return;
	end_offer(tctx);
	tell(EV_EXITED, p, tctx, tctx->cpu, 0);
}

/*
 * A task that was offered before has another weight or affinity. With linkage: the verifier
 * walks it once.
 */
__attribute__((noinline)) int tell_of_change(struct task_struct *p __arg_trusted,
					     struct task_ctx *tctx __arg_nonnull)
{
	if (relayed && tctx->offer && has_room())
		tell(EV_CHANGED, p, tctx, tctx->cpu, 0);
	return 0;
}

#endif /* SCHEDULER_SERVE_H */

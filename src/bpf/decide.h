/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The programs that a policy in user space calls: one that applies its decisions, and one
 * that finds an idle CPU. No lock is held there, and interrupts may be on.
 */
#ifndef SCHEDULER_DECIDE_H
#define SCHEDULER_DECIDE_H

static __always_inline void note_answer(const struct task_ctx *tctx, u64 now)
{
	u32 zero = 0, slot = hist_slot(elapsed_ns(tctx->offered_at, now)) & (HIST_SLOTS - 1);
	struct cpu_stats *st = bpf_map_lookup_elem(&stats, &zero);

	if (st)
		__sync_fetch_and_add(&st->answer_hist[slot], 1);
}

/* Does a task wait in a queue that comes before `vtime`? */
static __always_inline bool waits_before(u64 dsq, u64 vtime)
{
	struct task_struct *p;
	bool before = false;

	bpf_for_each(scx_dsq, p, dsq, 0) {
		before = vtime_before(p->scx.dsq_vtime, vtime);
		break;
	}
	return before;
}

static __always_inline bool has_cpu(u32 cpu)
{
	struct cpu_ctx *cctx = cpu < nr_cpu_ids ? cpu_ctx_of(cpu) : NULL;

	return cctx && cctx->online;
}

/* Moves the task of a decision to where it was decided to be. */
static __always_inline int move_decided(struct task_struct *p, struct bpf_iter_scx_dsq *it,
					const struct decision *d, u64 now)
{
	struct task_ctx *tctx = task_ctx_of(p);
	u64 open, decided, dsq = ANY_DSQ, slice_ns = d->slice_ns ?: knobs.slice_max_ns;
	struct scx_dispatch_q *at;
	u32 cpu = d->cpu;

	if (!tctx)
		return VERDICT_STALE;
	open = offer_in(d->offer, OFFER_OPEN);
	decided = offer_in(d->offer, OFFER_DECIDED);
	if (tctx->offer != open)
		return VERDICT_STALE;
	if (cpu != ABSENT && (!has_cpu(cpu) || !allows(p, cpu)))
		return VERDICT_MALFORMED;
	/* No other CPU could take it. */
	if (is_bound(p))
		cpu = scx_bpf_task_cpu(p);
	if (cpu != ABSENT)
		dsq = decided_dsq(cpu);
	slice_ns = clamp_u64(slice_ns, DECIDED_SLICE_MIN_NS,
			     vtime_max(DECIDED_SLICE_MAX_NS, knobs.slice_max_ns));
	tctx->next_vtime = d->vtime;
	tctx->next_slice_ns = slice_ns;
	tctx->next_dsq = dsq;
	if (__sync_val_compare_and_swap(&tctx->offer, open, decided) != open)
		return VERDICT_STALE;
	if (tctx->renewal) {
		cpu = scx_bpf_task_cpu(p);
		note_answer(tctx, now);
		/* Its CPU compares it with what waits: see goes_on(). */
		if (dsq != ANY_DSQ || waits_before(ANY_DSQ, d->vtime) ||
		    waits_before(decided_dsq(cpu), d->vtime))
			kick(cpu, SCX_KICK_PREEMPT);
		return VERDICT_APPLIED;
	}
	scx_bpf_dsq_move_set_slice(it, slice_ns);
	scx_bpf_dsq_move_set_vtime(it, d->vtime);
	if (!scx_bpf_dsq_move_vtime(it, p, dsq, 0)) {
		if (__sync_val_compare_and_swap(&tctx->offer, decided, open) != decided)
			return VERDICT_STALE;
		/* Told of before it is inserted, and that may have happened since. */
		at = p->scx.dsq;
		return at && at->id != OFFERED_DSQ ? VERDICT_STALE : VERDICT_EARLY;
	}
	note_answer(tctx, now);
	if (cpu == ABSENT) {
		wake_idle_for(p);
		cpu = scx_bpf_task_cpu(p);
	} else {
		kick_idle(cpu);
	}
	if ((d->flags & DECISION_PREEMPT) ||
	    ((d->flags & DECISION_PREEMPT_LATER) && runs_later(cpu, d->vtime, now)))
		preempt(cpu);
	return VERDICT_APPLIED;
}

/*
 * The iterator is made first: whoever leaves the queue after that and comes back is not the
 * one that the decision is about, and the kernel moves nobody who came later.
 */
__attribute__((noinline)) int apply_to(struct task_struct *p __arg_trusted,
				       struct decision *d __arg_nonnull, u64 now)
{
	int verdict = VERDICT_STALE;
	struct bpf_iter_scx_dsq it;

	bpf_rcu_read_lock();
	if (!bpf_iter_scx_dsq_new(&it, OFFERED_DSQ, 0))
		verdict = move_decided(p, &it, d, now);
	bpf_iter_scx_dsq_destroy(&it);
	bpf_rcu_read_unlock();
	return verdict;
}

/*
 * Applies the decision at an index: 1 if it took effect. With linkage, like apply_to(), so
 * that the verifier need not follow what becomes of each of a thousand.
 */
__attribute__((noinline)) int apply_at(u32 index, u64 now)
{
	struct decision *at = bpf_map_lookup_elem(&decisions, &index), d;
	struct task_struct *p;
	u32 verdict = VERDICT_STALE;

	if (!at)
		return 0;
	/* User space may write to it meanwhile. */
	d = *at;
	if (!d.pid) {
		verdict = has_cpu(d.cpu) ? VERDICT_APPLIED : VERDICT_MALFORMED;
		if (verdict == VERDICT_APPLIED && (d.flags & DECISION_PREEMPT))
			preempt(d.cpu);
		else if (verdict == VERDICT_APPLIED)
			kick_idle(d.cpu);
	} else {
		p = bpf_task_from_pid(d.pid);
		if (p) {
			verdict = apply_to(p, &d, now);
			bpf_task_release(p);
		}
	}
	at->verdict = verdict;
	if (verdict == VERDICT_STALE)
		count_anywhere(CNT_STALE, 1);
	if (verdict == VERDICT_MALFORMED)
		count_anywhere(CNT_MALFORMED, 1);
	return d.pid && verdict == VERDICT_APPLIED;
}

/* Wakes the CPUs that wait for the policy. */
static __always_inline void wake_wanting(void)
{
	s32 cpu;

	bpf_for(cpu, 0, nr_cpu_ids) {
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (cctx && cctx->wants_at)
			kick_idle(cpu);
	}
}

/*
 * The policy's answer: applies the first `nr` of `decisions`. With none it says that the
 * policy is there. Run by the policy's process.
 */
SEC("syscall")
int relay_apply(struct relay_call *call)
{
	u64 now = scx_bpf_now();
	u32 nr = call->nr, i;
	bool any = false;

	relay.tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_for(i, 0, DECISIONS_MAX) {
		if (i >= nr)
			break;
		if (apply_at(i, now))
			any = true;
	}
	call->nr_offered = nr_in(OFFERED_DSQ);
	if (any || !call->nr_offered)
		relay.asked_at = 0;
	if (any) {
		wake_wanting();
		/* Good for longer than it was ever told to wait: forgiven. */
		if (!relay.late_at && now - relay.retry_at > BACKOFF_MAX_NS)
			relay.backoff_ns = 0;
	}
	if (relay.late_at && (s64)(now - relay.retry_at) >= 0) {
		relay.late_ns += now - relay.late_at;
		relay.asked_at = 0;
		relay.late_at = 0;
	}
	call->late = relay.late_at != 0;
	call->now_at = now;
	call->nr_decided = nr_in(ANY_DSQ) + relay.seen.nr_for_cpus;
	return 0;
}

/* An idle CPU for a task, near where it ran last, or ABSENT. The answer is in `nr`. */
SEC("syscall")
int relay_idle_cpu(struct relay_call *call)
{
	struct task_struct *p = bpf_task_from_pid((s32)call->nr);
	s32 cpu;

	call->nr = ABSENT;
	if (!p)
		return 0;
	bpf_rcu_read_lock();
	cpu = scx_bpf_task_cpu(p);
	if (!allows(p, cpu) || !scx_bpf_test_and_clear_cpu_idle(cpu))
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	bpf_rcu_read_unlock();
	bpf_task_release(p);
	if (cpu >= 0)
		call->nr = cpu;
	return 0;
}

#endif /* SCHEDULER_DECIDE_H */

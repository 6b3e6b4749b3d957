/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's half: the sched_ext callbacks. Each reads top to bottom as: look up
 * the state, ask policy.h, tell the kernel.
 *
 * A wakeup goes select_cpu (where) → enqueue (when: deadline, queue, preempt or
 * not) → dispatch (what next) → running → stopping (charge).
 *
 * All callbacks but init, init_task, cpu_online and cpu_offline run with interrupts
 * off and with the lock of the task's runqueue held; select_cpu of a wakeup
 * instead with the task's pi_lock, which keeps others from waking it.
 */
#include <scx/common.bpf.h>
#include "intf.h"
#include "policy.h"

char _license[] SEC("license") = "GPL";

UEI_DEFINE(uei);

#include "state.h"
#include "place.h"
#include "vtime.h"
#include "queue.h"
#include "rescue.h"
#include "relay.h"
#include "hotplug.h"
#include "follow.h"
#include "serve.h"
#include "decide.h"
#include "tasks.h"
#include "report.h"

/* ---- where ---- */

s32 BPF_STRUCT_OPS(sched_select_cpu, struct task_struct *p, s32 prev, u64 wake_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu;

	if (!tctx) {
		count(CNT_BAD_CONTEXT);
		return prev;
	}
	if (wake_flags & SCX_WAKE_FORK)
		prev = least_loaded(p, prev);

	cpu = goes_direct(p) ? claim_for(p, tctx, prev) : -ENOENT;
	if (cpu >= 0 && !waits_for_policy(cpu)) {
		u64 now = scx_bpf_now(), slice_ns;

		slice_ns = slice_from(tctx, knobs.slice_max_ns);
		mark_runnable(tctx, now);
		wake_uncontended(p, tctx, cpu, slice_ns, now);
		count(CNT_IDLE_DIRECT);
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		return cpu;
	}
	/* Its mark of idleness is gone; it has to look again. */
	if (cpu >= 0)
		kick_idle(cpu);
	tctx->sync = wake_flags & SCX_WAKE_SYNC;
	if (tctx->cpu_set)
		return preferred_of(p, tctx, prev);
	return may_run(p, prev) ? prev : (s32)bpf_cpumask_any_distribute(p->cpus_ptr);
}

/* ---- when ---- */

/*
 * Bounded wakeup preemption: the CPU whose running task the waking one goes in
 * front of, because it is due later by more than a granularity. Negative: none.
 * Not for a task whose waker is about to sleep and leave it the CPU, and never for
 * SCHED_BATCH and SCHED_IDLE.
 */
static __always_inline s32 preempt_for(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
				       u64 now)
{
	struct cpu_ctx *cctx;
	s32 victim;

	if (tctx->sync || is_patient(tctx->class, p->policy))
		return -ENOENT;
	victim = find_victim(p, cpu, tctx->deadline_vns - ahead_of_llc(tctx), now);
	if (victim < 0 && is_urgent(p) && may_run(p, cpu))
		victim = cpu;
	cctx = victim >= 0 ? cpu_ctx_of(victim) : NULL;
	if (!cctx)
		return -ENOENT;
	cctx->preempted_at = now;
	tctx->placed = PLACED_PREEMPTS;
	count_on(victim, CNT_PREEMPTIONS);
	return victim;
}

/* Enqueue's answer: a queue by deadline, or one that is served in order of arrival. */
struct target {
	u64 dsq;
	u64 slice_ns;
	u64 enq_flags;
	u64 due_vns;
	bool by_deadline;
	bool only_cpu_busy; /* nobody else can take it, and update_idle will see it */
};

/* Where a task that just became runnable goes at once; false: to be queued. */
static __always_inline bool wake_at_once(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
					 bool bound, u64 now, struct target *to)
{
	s32 victim = -ENOENT;

	mark_runnable(tctx, now);
	to->dsq = SCX_DSQ_LOCAL;
	if (bound && goes_direct(p) && !waits_for_policy(cpu) && claim(cpu)) {
		to->slice_ns = slice_from(tctx, knobs.slice_max_ns);
		tctx->placed = PLACED_IDLE;
		wake_uncontended(p, tctx, cpu, to->slice_ns, now);
		count(CNT_IDLE_DIRECT);
		return true;
	}
	to->only_cpu_busy = bound;
	wake_contended(p, tctx, cpu, to->slice_ns, now);
	if ((to->enq_flags & SCX_ENQ_WAKEUP) && !is_offerable(p))
		victim = preempt_for(p, tctx, cpu, now);
	if (victim >= 0) {
		to->dsq = SCX_DSQ_LOCAL_ON | (u32)victim;
		to->enq_flags |= SCX_ENQ_PREEMPT;
		return true;
	}
	if (is_percpu_kthread(p)) {
		tctx->placed = PLACED_KTHREAD;
		count(CNT_KTHREADS);
		return true;
	}
	return false;
}

/* From the end of a slice to the tick that enforces it, at 100 Hz. */
#define LAST_TICK_NS (10ULL * 1000 * 1000)

/*
 * Does a reader under RCU go on before all others? Once in a row, and near its clock: the slice
 * it had, and the tick that ended it. A reader is done long before; who is not waits like others.
 * At the end of its slice it keeps its CPU: would it go to the global queue, which any CPU serves
 * before it asks us, some CPUs would fill that, and others never ask. One that was rescued goes
 * on until it has run for a slice, or the first that wakes would take all that away.
 */
static __always_inline bool goes_first(const struct task_struct *p, const struct task_ctx *tctx)
{
	u64 near_vns =
		clock_now(tctx) + to_virtual(knobs.slice_max_ns + LAST_TICK_NS, tctx->weight);

	if (!is_rcu_reader(p))
		return false;
	return tctx->charged_ns < tctx->saved_until_ns ||
	       (!tctx->went_first && !vtime_before(near_vns, tctx->vruntime_vns));
}

static __always_inline void choose_target(struct task_struct *p, s32 cpu, struct target *to)
{
	struct task_ctx *tctx = task_ctx_of(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));
	bool bound = is_bound(p), first = false;
	u64 now = scx_bpf_now();

	to->dsq = SCX_DSQ_GLOBAL;
	to->slice_ns = knobs.slice_min_ns;
	if (!tctx || !cctx || !lctx) {
		count(CNT_BAD_CONTEXT);
		return;
	}
	follow(p, tctx, now);
	to->slice_ns = slice_of(tctx, cpu);
	if ((to->enq_flags & SCX_ENQ_LAST) && !is_offerable(p)) {
		s32 core = claim_core(p, cpu);

		/* If somebody was faster it is queued, and its CPU goes idle and finds it there. */
		if (core >= 0) {
			tctx->placed = PLACED_SPREAD;
			count(CNT_SPREADS);
			to->dsq = SCX_DSQ_LOCAL_ON | (u32)core;
			wake_uncontended(p, tctx, core, to->slice_ns, now);
			return;
		}
	}
	if ((to->enq_flags & SCX_ENQ_WAKEUP) || tctx->clock == ABSENT) {
		if (wake_at_once(p, tctx, cpu, bound, now, to))
			return;
	} else {
		settle(p, tctx, cpu);
		tctx->vruntime_vns = place_requeue(tctx->vruntime_vns, clock_now(tctx),
						   lag_runnable_ns(), tctx->weight);
		if (relayed)
			forgive(tctx);
		ask_again(tctx, to->slice_ns);
		/*
		 * Not whom a higher class displaced: its CPU does not look at the global queue, an
		 * idle one of another node has another, and entered from cpu_release everybody
		 * counts as a reader.
		 */
		first = !(to->enq_flags & (SCX_ENQ_REENQ | SCX_ENQ_LAST)) && goes_first(p, tctx);
	}
	tctx->went_first = first;
	if (!tctx->queued_at)
		tctx->queued_at = now;
	if (to->enq_flags & SCX_ENQ_REENQ)
		count(CNT_REENQUEUED);
	/* Served by the kernel before it asks us, and where it no longer does. */
	if (first) {
		tctx->placed = PLACED_READER;
		tctx->rescued = true;
		to->dsq = SCX_DSQ_GLOBAL;
		return;
	}
	if (is_renewed(tctx, to->enq_flags)) {
		to->dsq = tctx->next_dsq;
		to->slice_ns = tctx->next_slice_ns;
		to->due_vns = tctx->next_vtime;
		to->by_deadline = true;
		arm(now);
		return;
	}
	if (is_offerable(p) && offer(p, tctx, to->enq_flags, false, now)) {
		tctx->placed = PLACED_OFFERED;
		to->dsq = OFFERED_DSQ;
		return;
	}
	to->by_deadline = true;
	to->due_vns = tctx->deadline_vns;
	/*
	 * The current task passes for movable, though nobody told of more CPUs than this yet, and
	 * one that may not migrate for a while though its new affinity leaves this one out.
	 */
	bound = bound || tctx->affinity == AFF_ONE ||
		(tctx->affinity == AFF_PART && !serves(cctx, tctx->part));
	tctx->placed = bound ? PLACED_BOUND : PLACED_QUEUED;
	if (bound) {
		to->dsq = cpu_dsq(cpu);
		/* One that may not migrate for a while goes by another clock than this queue. */
		if (tctx->clock != to->dsq)
			to->due_vns =
				carry_lag(to->due_vns, clock_now(tctx), cctx->side.clock.now_vns);
		cctx->pinned = 1;
	} else {
		to->dsq = announce(tctx, lctx, now);
	}
	count(bound ? CNT_PINNED : CNT_QUEUED);
}

void BPF_STRUCT_OPS(sched_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct target to = {.enq_flags = enq_flags};

	choose_target(p, scx_bpf_task_cpu(p), &to);
	if (to.by_deadline)
		scx_bpf_dsq_insert_vtime(p, to.dsq, to.slice_ns, to.due_vns, to.enq_flags);
	else
		scx_bpf_dsq_insert(p, to.dsq, to.slice_ns, to.enq_flags);
	if (to.by_deadline && !to.only_cpu_busy)
		wake_idle_for(p);
	else if (to.dsq == SCX_DSQ_GLOBAL)
		wake_idle_of_node(p, scx_bpf_task_cpu(p));
}

/* ---- what next ---- */

void BPF_STRUCT_OPS(sched_dispatch, s32 cpu, struct task_struct *prev)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct task_ctx *tctx = NULL;
	u64 now = scx_bpf_now(), first;
	u32 llc = llc_of(cpu), nr_waiting;
	struct llc_ctx *lctx = llc_ctx_of(llc);
	struct waiting w;
	bool rescued;

	if (!cctx || !lctx) {
		count(CNT_BAD_CONTEXT);
		return;
	}
	cctx->asked = 1;
	cctx->leaving_at = 0;
	if (cctx->steal_from) {
		u32 from = cctx->steal_from - 1;

		cctx->steal_from = 0;
		cctx->balanced_at = now;
		if (steal(from) || steal_confined(from))
			return;
	}

	if (relayed && relay_dispatch(cctx, lctx, cpu, llc, prev, now))
		return;

	/* The running task goes on unless something that is due earlier waits. */
	tctx = still_runnable(prev, cpu);
	/* An idle CPU was called for somebody: the one place that no instant says. */
	if (!tctx && !cctx->idle_at && now - cctx->looked_at < LOOK_GAP_NS &&
	    take_at_once(cctx, lctx, llc, cpu, now))
		return;
	cctx->looked_at = now;
	w = count_waiting(cctx, cpu, llc);
	nr_waiting = w.nr_llc + w.nr_part + w.nr_cpu * (lctx->nr_cpus ?: 1);
	cctx->slice_ns =
		base_slice(knobs.slice_max_ns, knobs.slice_min_ns, nr_waiting, lctx->nr_cpus);

	rescued = rescue_one(&w, cctx, lctx, cpu, llc, now);
	look_at_heads(&w, cctx, cpu, llc);
	if (tctx) {
		u64 due_vns;

		charge_task(prev, tctx);
		follow(prev, tctx, now);
		tctx->vruntime_vns = place_requeue(tctx->vruntime_vns, clock_now(tctx),
						   lag_runnable_ns(), tctx->weight);
		ask_again(tctx, slice_from(tctx, cctx->slice_ns));
		due_vns = tctx->deadline_vns - ahead_of_llc(tctx);
		if (all_later(&w, due_vns)) {
			bool alone = !w.llc.waits && !w.part.waits && !w.cpu.waits;

			/* Not kept, it is enqueued with SCX_ENQ_LAST: see choose_target(). */
			if (alone && cctx->crowded >= CROWDED_TICKS)
				return;
			keep(prev, tctx, cctx, cpu, alone, now);
			return;
		}
		/* Out of turn: it drives no clock. */
		if (goes_first(prev, tctx)) {
			tctx->went_first = true;
			renew(prev, tctx, cctx, now);
			return;
		}
	}
	first = rescued ? cpu_dsq(cpu) : first_queue(&w, cpu, llc, now);
	if (take_next(cctx, &w, cpu, llc, first))
		return;
	if (tctx) {
		keep(prev, tctx, cctx, cpu, true, now);
		return;
	}
	if (!steal_nearest(llc))
		cctx->empty_at = now;
}

/* ---- the run ---- */

_Static_assert(CNT_REQUEUE_NS == CNT_WAIT_NS + WAITED_AFTER_RUN, "one counter by the other");

/* hist_slot() has a path for each power of two. With linkage: the verifier walks them once. */
__attribute__((noinline)) u32 wait_slot(u64 waited_ns)
{
	return hist_slot(waited_ns);
}

/* A run begins: what came before it was a wait. */
static __always_inline void end_wait(struct cpu_stats *st, struct task_ctx *tctx, u64 now)
{
	u32 after = tctx->runnable_at ? WAITED_AFTER_WAKEUP : WAITED_AFTER_RUN;
	u64 since = tctx->runnable_at ?: tctx->queued_at, waited_ns;

	if (!since)
		return;
	waited_ns = elapsed_ns(since, now);
	st->wait_hists[after][wait_slot(waited_ns) & (HIST_SLOTS - 1)]++;
	st->counters[CNT_WAIT_NS + after] += waited_ns;
	if (knobs.task_stats)
		tctx->wait_hist[task_hist_slot(waited_ns) & (TASK_HIST_SLOTS - 1)]++;
	tctx->runnable_at = 0;
	tctx->queued_at = 0;
}

void BPF_STRUCT_OPS(sched_running, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 llc = llc_of(cpu), zero = 0;
	struct llc_ctx *lctx = llc_ctx_of(llc);
	struct cpu_stats *st = bpf_map_lookup_elem(&stats, &zero);
	u64 now = scx_bpf_now();

	if (!tctx || !cctx || !lctx || !st) {
		count(CNT_BAD_CONTEXT);
		return;
	}
	st->counters[CNT_SWITCHES]++;
	end_wait(st, tctx, now);
	if (tctx->cpu != cpu) {
		if (tctx->cpu >= 0) {
			if (llc_of(tctx->cpu) != llc) {
				st->counters[CNT_LLC_IN]++;
				count_on(tctx->cpu, CNT_LLC_OUT);
			} else {
				st->counters[CNT_MIGRATIONS]++;
			}
		}
		tctx->cpu = cpu;
	}

	if (relayed)
		settle_offer(tctx, cctx, st, now);
	/* What the ticks found was true of the task before. */
	cctx->crowded = 0;
	settle(p, tctx, cpu);
	if (tctx->rescued) {
		/* Its vruntime may be minutes ahead: nobody else is to follow it there. */
		tctx->rescued = false;
	} else if (tctx->affinity == AFF_WHOLE) {
		drive_clock(&lctx->clock, tctx->vruntime_vns, now, tctx->weight);
		catch_up_served(cctx, lctx, llc, tctx->vruntime_vns, now);
	} else if (tctx->affinity == AFF_ONE) {
		drive_side(&cctx->side, lctx, tctx, now);
	} else {
		drive_part(tctx, cpu, now);
	}
	tctx->charged_ns = p->se.sum_exec_runtime;
	publish(cctx, p, tctx, now);
}

void BPF_STRUCT_OPS(sched_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *tctx = task_ctx_of(p);
	struct cpu_ctx *cctx = cpu_ctx_of(scx_bpf_task_cpu(p));

	if (!tctx || !cctx) {
		count(CNT_BAD_CONTEXT);
		return;
	}
	charge_task(p, tctx);
	count(CNT_STOPS);
	cctx->running_pid = 0;
	if (relayed) {
		tctx->stopped_at = scx_bpf_now();
		/* Asleep it does not go on, whatever is decided. */
		if (!runnable) {
			end_offer(tctx);
			tctx->renewal = false;
		}
	}
	/* A renice or a new affinity stops it for an instant, too: that is no sleep. */
	if (!runnable && p->__state) {
		tctx->burst_avg_ns = burst_average(tctx->burst_avg_ns, tctx->burst_ns);
		tctx->burst_ns = 0;
		tctx->spent = false;
		tctx->sync = false;
		if (p->flags & PF_EXITING)
			leave_for_good(tctx, scx_bpf_task_cpu(p));
	}
}

/* Slices are enforced at ticks, so that is when an earlier deadline is honoured. */
void BPF_STRUCT_OPS(sched_tick, struct task_struct *p)
{
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 now = scx_bpf_now(), due_vns;
	u32 llc = llc_of(cpu);
	struct llc_ctx *lctx = llc_ctx_of(llc);
	struct waiting w = {};

	if (relayed && (s64)(now - relay.armed_at) > (s64)TIMER_DEAD_NS)
		arm(now);
	if (!cctx || !lctx || !cctx->running_pid)
		return;
	/*
	 * The kernel dispatches nothing for a CPU on its way out. A task bound to it whose
	 * slice ended would be put aside with SCX_ENQ_LAST, and nobody would fetch it.
	 */
	if (!cctx->online && scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL) <= 0) {
		scx_bpf_task_set_slice(p, knobs.slice_max_ns);
		return;
	}
	if (relayed)
		note_progress(lctx, cctx, now);
	if (nr_llcs > 1 && (!relayed || relay.late_at))
		balance(cctx, cpu, llc, now);
	due_vns = running_due(cctx->deadline_vns, cctx->vruntime_vns, now - cctx->running_at,
			      cctx->weight);
	w.nr_llc = nr_in(llc);
	if (cctx->parts)
		w.nr_part = look_at_parts(cpu, llc, &w.part);
	w.nr_cpu = cctx->pinned;
	look_at_heads(&w, cctx, cpu, llc);
	/* Who is bound here may preempt at each tick: whoever else waits may wait for long. */
	if ((w.nr_llc || lctx->parts) && any_idle()) {
		wake_idle_for_confined(llc, lctx->parts);
		wake_idle_for_heads(llc);
	}
	if (scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL) <= 0 && !cctx->steal_from &&
	    all_later(&w, due_vns)) {
		if (!w.llc.waits && smt_enabled && is_crowded(p, cctx, cpu))
			scx_bpf_task_set_slice(p, 0);
		return;
	}
	count(CNT_TICK_PREEMPTIONS);
	scx_bpf_task_set_slice(p, 0);
}

/* The rest of the request is given up: the task is due when its slice would have ended. */
bool BPF_STRUCT_OPS(sched_yield, struct task_struct *from, struct task_struct *to)
{
	struct task_ctx *tctx = task_ctx_of(from);

	if (tctx)
		tctx->deadline_vns =
			vtime_max(tctx->deadline_vns,
				  deadline(order_of(tctx), slice_on(tctx, scx_bpf_task_cpu(from)),
					   tctx->weight));
	scx_bpf_task_set_slice(from, 0);
	return false;
}

/* ---- the scheduler comes and goes ---- */

/* With linkage, as the next: the verifier walks each once. */
__attribute__((noinline)) int create_queues(void)
{
	int err = create_dsqs(0, nr_llcs) ?: create_dsqs(PART_DSQ_BASE, nr_llcs * LLC_PARTS);

	return err ?: create_dsqs(CPU_DSQ_BASE, nr_cpu_ids);
}

__attribute__((noinline)) int start_cpus(void)
{
	const struct cpumask *online;
	u64 now = scx_bpf_now();
	s32 cpu;
	u32 llc;

	bpf_for(llc, 0, nr_llcs)
		start_clocks(llc, now);
	online = scx_bpf_get_online_cpumask();
	bpf_for(cpu, 0, nr_cpu_ids) {
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (!cctx)
			continue;
		cctx->slice_ns = knobs.slice_max_ns;
		cctx->side.clock.set_at = now;
		cctx->asked = 1;
		if (bpf_cpumask_test_cpu(cpu, online))
			set_online(cpu, true);
	}
	scx_bpf_put_cpumask(online);
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(sched_init)
{
	s32 err = rebuild_masks() ?: create_scratch_masks();

	err = err ?: create_queues();
	if (err)
		return err;
	start_cpus();
	err = start_leaving();
	if (err || !relayed)
		return err;
	return start_relay();
}

void BPF_STRUCT_OPS(sched_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

/* clang-format off */
SCX_OPS_DEFINE(scheduler_ops,
	       .select_cpu = (void *)sched_select_cpu,
	       .enqueue = (void *)sched_enqueue,
	       .dispatch = (void *)sched_dispatch,
	       .running = (void *)sched_running,
	       .stopping = (void *)sched_stopping,
	       .tick = (void *)sched_tick,
	       .yield = (void *)sched_yield,
	       .update_idle = (void *)sched_update_idle,
	       .cpu_release = (void *)sched_cpu_release,
	       .cpu_acquire = (void *)sched_cpu_acquire,
	       .cpu_online = (void *)sched_cpu_online,
	       .cpu_offline = (void *)sched_cpu_offline,
	       .set_cpumask = (void *)sched_set_cpumask,
	       .set_weight = (void *)sched_set_weight,
	       .init_task = (void *)sched_init_task,
	       .exit_task = (void *)sched_exit_task,
	       .enable = (void *)sched_enable,
	       .init = (void *)sched_init,
	       .exit = (void *)sched_exit,
	       .flags = SCX_OPS_KEEP_BUILTIN_IDLE | SCX_OPS_ENQ_LAST | SCX_OPS_ENQ_EXITING,
	       /*
		* Longer than WAIT_MAX_NS and a turn of the queue together: a thousand tasks
		* a CPU, a tick of 100 Hz each, take ten seconds.
		*/
	       .timeout_ms = 20000,
	       .name = "scheduler");
/* clang-format on */

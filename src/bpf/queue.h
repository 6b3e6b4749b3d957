/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What next: the heads of the queues that a CPU serves, and how it takes from them,
 * from those of other LLCs, or lets the running task go on.
 */
#ifndef SCHEDULER_QUEUE_H
#define SCHEDULER_QUEUE_H

/*
 * Tasks of a queue that a CPU looks at for one that it may run. All may in the queue of an
 * LLC, and most in that of a part; where two parts share a queue it may be the only one behind
 * hundreds of the other.
 */
#define HEADS_MAX 512

/* What waits in a queue, or in several, for a CPU. */
struct head {
	u64 deadline_vns;
	u64 dsq;      /* of several: that with the earliest */
	bool waits;
	bool unknown; /* the first HEADS_MAX may not run here; whoever comes next may */
};

/* Queues with ids from `base` on. Sleepable. With linkage: the verifier walks it once. */
__attribute__((noinline)) int create_dsqs(u64 base, u32 nr)
{
	s32 err;
	u32 i;

	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(base + i, -1);
		if (err)
			return err;
	}
	return 0;
}

/* With linkage and bpf_for: the verifier walks it once, and need not follow every count. */
__attribute__((noinline)) int look_at(u64 dsq, s32 cpu, struct head *h)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	s32 i;

	if (!h)
		return 0;
	if (!bpf_iter_scx_dsq_new(&it, dsq, 0)) {
		h->unknown = true;
		bpf_for(i, 0, HEADS_MAX) {
			p = bpf_iter_scx_dsq_next(&it);
			h->waits = p && may_run(p, cpu);
			if (p && !h->waits)
				continue;
			h->unknown = false;
			if (p)
				h->deadline_vns = p->scx.dsq_vtime;
			break;
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return 0;
}

static __always_inline struct head head_of(u64 dsq, s32 cpu)
{
	struct head h = {};

	look_at(dsq, cpu, &h);
	return h;
}

/* The state of the task that a CPU ran until now, if that may go on there. */
static __always_inline struct task_ctx *still_runnable(struct task_struct *prev, s32 cpu)
{
	if (!prev || !(prev->scx.flags & SCX_TASK_QUEUED) || !may_run(prev, cpu))
		return NULL;
	return task_ctx_of(prev);
}

/* Is there a task in the queue that the CPU may run, as far as it was looked at? */
static __always_inline bool has_task(const struct head *h)
{
	return h->waits || h->unknown;
}

/* Must a task that is due at `due_vns` give way to what waits? */
static __always_inline bool gives_way(const struct head *h, u64 due_vns)
{
	return h->unknown || (h->waits && vtime_before(h->deadline_vns, due_vns));
}

static __always_inline void renew(struct task_struct *p, struct task_ctx *tctx,
				  struct cpu_ctx *cctx, u64 now)
{
	count(CNT_KEPT);
	scx_bpf_task_set_slice(p, slice_from(tctx, cctx->slice_ns));
	publish(cctx, p, tctx, now);
}

/* The running task goes on with a slice of its own. */
static __always_inline void keep(struct task_struct *p, struct task_ctx *tctx, struct cpu_ctx *cctx,
				 s32 cpu, bool alone, u64 now)
{
	u64 slice_ns = slice_from(tctx, cctx->slice_ns);

	tctx->went_first = false;
	if (alone) {
		/* Alone, a light task must not drag the clock from those who compete elsewhere. */
		push_llc(llc_of(cpu), tctx->vruntime_vns - ahead_of_llc(tctx), now);
		place_alone(p, tctx, cpu, now);
		ask(tctx, slice_ns);
	} else {
		struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));
		struct side_clock *side = side_by_id(tctx->clock);

		if (side && lctx) {
			drive_clock(&side->clock, tctx->vruntime_vns, now, tctx->weight);
			part_clocks(side, lctx->clock.now_vns);
		} else if (lctx && !relayed) {
			drive_clock(&lctx->clock, tctx->vruntime_vns, now, tctx->weight);
			catch_up_served(cctx, lctx, llc_of(cpu), tctx->vruntime_vns, now);
		}
	}
	renew(p, tctx, cctx, now);
}

/* Takes the next task from queue `dsq`, which belongs to another LLC. */
static __always_inline bool steal(u64 dsq)
{
	if (!scx_bpf_dsq_move_to_local(dsq, 0))
		return false;
	count(CNT_STEALS);
	return true;
}

/* Takes the next task of an LLC's parts. With linkage: the verifier walks it once. */
__attribute__((noinline)) bool steal_confined(u32 llc)
{
	struct llc_ctx *theirs = llc_ctx_of(llc);
	u32 i;

	if (!theirs || !theirs->parts)
		return false;
	bpf_for(i, 0, LLC_PARTS) {
		if ((theirs->parts & (1U << i)) && steal(part_dsq(llc * LLC_PARTS + i)))
			return true;
	}
	return false;
}

/* Takes a task from the nearest LLC where one waits. */
static __always_inline bool steal_nearest(u32 llc)
{
	struct llc_topo *lt;
	u32 i;

	if (nr_llcs == 1)
		return false;
	lt = bpf_map_lookup_elem(&llc_topo, &llc);
	if (!lt)
		return false;
	bpf_for(i, 0, lt->nr_nearest) {
		u32 other = nearest_llc(lt, i);

		if (steal(other) || steal_confined(other))
			return true;
	}
	return false;
}

/*
 * The length of a queue decides how long slices are and whether anybody has waited too
 * long. Slices are enforced at ticks, the shortest of which is 1 ms, so a CPU looks no
 * more often: each look is a search in the kernel's table of queues.
 */
#define LOOK_GAP_NS (1000ULL * 1000)

/* Of those that wait, how many a tick tries to find an idle CPU for. */
#define WAKES_MAX 8

/*
 * The first tasks of a queue may want an idle CPU that missed its kick. Several, because
 * those that may run on few CPUs gather in front. With linkage: the verifier walks it once.
 */
__attribute__((noinline)) int wake_idle_for_heads(u64 dsq)
{
	struct task_struct *p;
	u32 seen = 0;

	bpf_for_each(scx_dsq, p, dsq, 0) {
		if (wake_idle_for(p) || ++seen >= WAKES_MAX)
			break;
	}
	return 0;
}

/* The same for all parts of an LLC. With linkage: the verifier walks it once. */
__attribute__((noinline)) int wake_idle_for_confined(u32 llc, u32 parts)
{
	u32 i;

	bpf_for(i, 0, LLC_PARTS) {
		if (parts & (1U << i))
			wake_idle_for_heads(part_dsq(llc * LLC_PARTS + i));
	}
	return 0;
}

/*
 * Who is first of the confined tasks that the CPU may run, by the clock of the LLC, and how
 * many wait in the queues where it has to look. Those are compared by how far their clocks
 * are from the LLC's now. With linkage: the verifier walks it once.
 */
__attribute__((noinline)) u32 look_at_parts(s32 cpu, u32 llc, struct head *h)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 nr = 0, i;

	if (!h || !cctx)
		return 0;
	bpf_for(i, 0, LLC_PARTS) {
		u32 part = llc * LLC_PARTS + i, waiting;
		struct part_ctx *pctx = part_ctx_of(part);
		struct head one = {};

		if (!pctx || !(cctx->parts & (1U << i)))
			continue;
		waiting = nr_in(part_dsq(part));
		if (!waiting)
			continue;
		nr += waiting;
		look_at(part_dsq(part), cpu, &one);
		h->unknown |= one.unknown;
		one.deadline_vns -= pctx->side.ahead_vns;
		if (one.waits && (!h->waits || vtime_before(one.deadline_vns, h->deadline_vns))) {
			h->waits = true;
			h->deadline_vns = one.deadline_vns;
			h->dsq = part_dsq(part);
		}
	}
	return nr;
}

/* Takes a confined task that the CPU may run, whichever. With linkage: as above. */
__attribute__((noinline)) bool take_confined(s32 cpu, u32 llc)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 i;

	if (!cctx)
		return false;
	bpf_for(i, 0, LLC_PARTS) {
		if ((cctx->parts & (1U << i)) &&
		    scx_bpf_dsq_move_to_local(part_dsq(llc * LLC_PARTS + i), 0))
			return true;
	}
	return false;
}

/* What waits in the queues that a CPU serves. */
struct waiting {
	struct head llc;
	struct head part;
	struct head cpu;
	u32 nr_llc;
	u32 nr_part;
	u32 nr_cpu;
};

/* Counts what waits, and notes which queues need no look for a while. */
/*
 * How many tasks are bound to this CPU. The mark is taken back before they are counted: hurry()
 * sets it without the runqueue's lock, when its task is there.
 */
static __always_inline u32 count_bound(struct cpu_ctx *cctx, s32 cpu)
{
	u32 nr;

	__sync_lock_test_and_set(&cctx->pinned, 0);
	nr = nr_in(cpu_dsq(cpu));
	if (nr)
		cctx->pinned = 1;
	return nr;
}

static __always_inline struct waiting count_waiting(struct cpu_ctx *cctx, s32 cpu, u32 llc)
{
	struct waiting w = {.nr_llc = nr_in(llc)};

	if (cctx->parts)
		w.nr_part = look_at_parts(cpu, llc, &w.part);
	w.nr_cpu = cctx->pinned ? count_bound(cctx, cpu) : 0;
	cctx->parts_wait = w.nr_part > 0;
	cctx->alone = w.nr_llc + w.nr_part == 0;
	return w;
}

/* Looks who is first in the other two, by the clock of the LLC. */
static __always_inline void look_at_heads(struct waiting *w, const struct cpu_ctx *cctx, s32 cpu,
					  u32 llc)
{
	if (w->nr_llc)
		look_at(llc, cpu, &w->llc);
	if (w->nr_cpu) {
		look_at(cpu_dsq(cpu), cpu, &w->cpu);
		w->cpu.deadline_vns -= cctx->side.ahead_vns;
	}
}

/* Does what waits leave the CPU to a task that is due at `due_vns`? */
static __always_inline bool all_later(const struct waiting *w, u64 due_vns)
{
	return !gives_way(&w->llc, due_vns) && !gives_way(&w->part, due_vns) &&
	       !gives_way(&w->cpu, due_vns);
}

/*
 * The kernel puts a task into its queue only after ops.enqueue, which announces it, has
 * returned: longer than a callback takes.
 */
#define QUEUEING_NS 20000ULL

#define NO_DSQ (~0ULL)
#define ANY_PART (NO_DSQ - 1)

/*
 * The queue with the earliest deadline of the heads. A coin where one is unknown: no queue
 * may starve another.
 */
static __always_inline u64 first_queue(const struct waiting *w, s32 cpu, u32 llc, u64 now)
{
	u64 first = NO_DSQ;
	u64 due_vns = 0;

	if (w->part.unknown && (now >> 10) % 2)
		return ANY_PART;
	if (w->llc.waits) {
		due_vns = w->llc.deadline_vns;
		first = llc;
	}
	if (w->part.waits && (first == NO_DSQ || vtime_before(w->part.deadline_vns, due_vns))) {
		due_vns = w->part.deadline_vns;
		first = w->part.dsq;
	}
	if (w->cpu.waits && (first == NO_DSQ || vtime_before(w->cpu.deadline_vns, due_vns)))
		first = cpu_dsq(cpu);
	return first;
}

/*
 * Moves the first of queue `first` to the CPU. Each queue stands in where the other
 * fails: heads are looked at without a lock and may be gone. So may the task that a move was
 * about to take, with this runqueue's lock dropped for it, and a bound one may have come
 * meanwhile.
 */
static __always_inline bool take_next(struct cpu_ctx *cctx, const struct waiting *w, s32 cpu,
				      u32 llc, u64 first)
{
	if (first == ANY_PART) {
		if (take_confined(cpu, llc))
			return true;
	} else if (first != NO_DSQ && scx_bpf_dsq_move_to_local(first, 0)) {
		return true;
	}
	if (w->nr_llc && scx_bpf_dsq_move_to_local(llc, 0))
		return true;
	if ((w->nr_cpu || cctx->pinned) && scx_bpf_dsq_move_to_local(cpu_dsq(cpu), 0))
		return true;
	return w->nr_part && take_confined(cpu, llc);
}

/*
 * Most dispatches follow a task that went to sleep: where all queues but one are known
 * to be empty there is nothing to compare. False: somebody has to look.
 */
static __always_inline bool take_at_once(struct cpu_ctx *cctx, struct llc_ctx *lctx, u32 llc,
					 s32 cpu, u64 now)
{
	/* What was announced just before the look may have been inserted after it. */
	u64 seen_at = cctx->looked_at - QUEUEING_NS;

	if (cctx->pinned)
		return cctx->alone && vtime_before(lctx->queued_at, seen_at) &&
		       scx_bpf_dsq_move_to_local(cpu_dsq(cpu), 0);
	if (cctx->parts_wait || (cctx->parts && !vtime_before(lctx->part_at, seen_at)))
		return false;
	if (!scx_bpf_dsq_move_to_local(llc, 0) && !steal_nearest(llc) &&
	    !(cctx->pinned && scx_bpf_dsq_move_to_local(cpu_dsq(cpu), 0)))
		cctx->empty_at = now;
	return true;
}

/*
 * Who is first of another LLC's confined tasks that the CPU may run, by the clock of that LLC.
 * With linkage: the verifier walks it once.
 */
__attribute__((noinline)) int look_at_confined(u32 llc, s32 cpu, struct head *h)
{
	struct llc_ctx *lctx = llc_ctx_of(llc);
	u32 i;

	if (!h || !lctx)
		return 0;

	bpf_for(i, 0, LLC_PARTS) {
		u32 part = llc * LLC_PARTS + i;
		struct part_ctx *pctx = part_ctx_of(part);
		struct head one = {};

		if (!pctx || !(lctx->parts & (1U << i)) || !nr_in(part_dsq(part)))
			continue;
		look_at(part_dsq(part), cpu, &one);
		one.deadline_vns -= pctx->side.ahead_vns;
		if (one.waits && (!h->waits || vtime_before(one.deadline_vns, h->deadline_vns)))
			*h = one;
	}
	return 0;
}

/* The clock of an LLC is looked at so often for its pace. */
#define PACE_GAP_NS (100ULL * 1000 * 1000)
/* Of a crowded LLC it moves by a slice for each turn of all, which is a tick at 100 Hz. */
#define PACE_NOISE_VNS (10ULL * 1000 * 1000)

/*
 * How far the clock of an LLC gets in PACE_GAP_NS; 0: it was idle meanwhile. With linkage: the
 * verifier walks it once.
 */
__attribute__((noinline)) int note_pace(u32 llc, u64 now)
{
	struct llc_ctx *lctx = llc_ctx_of(llc);
	u64 at, clock_vns, pace_vns = 0;
	s64 passed_ns, ahead_vns;

	if (!lctx)
		return 0;
	at = lctx->paced_at;
	passed_ns = now - at;
	/* Ticks of all its CPUs are at one instant, and their clocks some ns apart: one of them. */
	if (passed_ns < (s64)PACE_GAP_NS ||
	    __sync_val_compare_and_swap(&lctx->paced_at, at, now) != at)
		return 0;
	clock_vns = lctx->clock.now_vns;
	ahead_vns = clock_vns - lctx->paced_vns;
	if (passed_ns < 2 * (s64)PACE_GAP_NS)
		pace_vns = (ahead_vns > 0 ? (u64)ahead_vns * PACE_GAP_NS / (u64)passed_ns : 0) ?: 1;
	lctx->pace_vns = pace_vns;
	lctx->paced_vns = clock_vns;
	return 0;
}

/*
 * Do those who compete in one LLC get less for their weight, by a third, than in another? Then
 * there is more weight for each CPU, whatever the number of tasks. Five instead of four tasks of
 * equal weight are no third, and the pace of a short while is not that exact.
 */
static __always_inline bool is_slower(const struct llc_ctx *lctx, const struct llc_ctx *than)
{
	return lctx->pace_vns && lctx->pace_vns * 3 + 2 * PACE_NOISE_VNS < than->pace_vns * 2;
}

/*
 * Another LLC with more tasks waiting for each of its CPUs, or heavier ones, to take the next one
 * from: one LLC is looked at each tick. Whoever is first there goes in front of who runs here only
 * if it is due earlier, each by the clock of its LLC: a light task would be taken to and fro, and
 * run each time.
 */
static __always_inline void balance(struct cpu_ctx *cctx, s32 cpu, u32 llc, u64 now)
{
	/* Two ticks at 100 Hz: often enough to share unequal LLCs, rare beside slices. */
	const u64 gap_ns = 20 * 1000 * 1000;
	struct llc_topo *lt = bpf_map_lookup_elem(&llc_topo, &llc);
	struct llc_ctx *mine = llc_ctx_of(llc), *theirs;
	s64 nr_mine, nr_theirs;
	u32 turn, other;
	bool more;
	u64 due_vns;
	struct head h;

	if (!lt || !mine)
		return;
	note_pace(llc, now);
	if (!lt->nr_nearest || now - cctx->balanced_at < gap_ns)
		return;
	turn = cctx->balance_turn++ % lt->nr_nearest;
	other = nearest_llc(lt, turn);
	theirs = llc_ctx_of(other);
	if (!theirs)
		return;
	nr_mine = nr_in_llc(llc);
	nr_theirs = nr_in_llc(other);
	more = nr_theirs * mine->nr_cpus > nr_mine * theirs->nr_cpus;
	if (!nr_theirs || (more ? is_slower(mine, theirs) : !is_slower(theirs, mine)))
		return;
	h = head_of(other, cpu);
	if (!h.waits && theirs->parts)
		look_at_confined(other, cpu, &h);
	due_vns = running_due(cctx->deadline_vns, cctx->vruntime_vns, now - cctx->running_at,
			      cctx->weight);
	h.deadline_vns -= theirs->clock.now_vns;
	if (!gives_way(&h, due_vns - mine->clock.now_vns))
		return;
	cctx->steal_from = other + 1;
}

#endif /* SCHEDULER_QUEUE_H */

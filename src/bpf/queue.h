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

/* The running task goes on with a slice of its own. */
static __always_inline void keep(struct task_struct *p, struct task_ctx *tctx, struct cpu_ctx *cctx,
				 s32 cpu, bool alone, u64 now)
{
	u64 slice_ns = slice_from(tctx, cctx->slice_ns);

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
			part_clocks(side, lctx);
		}
	}
	count(CNT_KEPT);
	scx_bpf_task_set_slice(p, slice_ns);
	publish(cctx, p, tctx, now);
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

/*
 * By its weight a SCHED_IDLE task beside fifty others is due once in a quarter of
 * a minute, and the kernel ejects a scheduler that leaves a task waiting for that
 * long. So whoever has waited for WAIT_MAX_NS goes first, the longest waiter before
 * the others, weight or not: a tick in five seconds is 0.08 % of a CPU at 250 Hz.
 */
#define WAIT_MAX_NS (5ULL * 1000 * 1000 * 1000)

/*
 * Sooner for an RCU reader: the whole machine waits for it, and it may need many slices.
 * khugepaged, nice 19, copies 2 MiB under RCU, twenty ticks of a slow machine; a tick in
 * five seconds made a stall of 21 s of that (seen in a guest). A tick in 250 ms is 1.6 % of
 * a CPU, and with RESCUE_GAP_NS all readers of a queue together get no more than one in 20.
 */
#define READER_WAIT_MAX_NS (250ULL * 1000 * 1000)
#define RESCUE_GAP_NS (20ULL * 1000 * 1000)
#define RESCUE_MAX 512

static __always_inline u64 wait_max_ns(const struct task_struct *p)
{
	return is_rcu_reader(p) ? READER_WAIT_MAX_NS : WAIT_MAX_NS;
}

/*
 * Looks through queue `from` for the task that has waited longest beyond what it may, and
 * puts it in front of everything, in queue `to` (a task cannot be moved within one). Both
 * are served by this CPU. From either end by turns: at the back are those with the latest
 * deadlines, but also those who were rescued just now. bpf_for counts the steps, and the
 * function has linkage, so that the verifier need not follow every count.
 */
__attribute__((noinline)) int rescue(u64 from, u64 to, s32 cpu, u64 first_vns, u64 now)
{
	s64 most_ns = 0;
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	struct task_ctx *tctx;
	/* As good as a coin: looks are at ticks, milliseconds apart. */
	u64 end = (now >> 16) % 2 ? SCX_DSQ_ITER_REV : 0;
	int moved = 0, i;
	s32 pid = 0;

	if (!bpf_iter_scx_dsq_new(&it, from, end)) {
		bpf_for(i, 0, RESCUE_MAX) {
			s64 over_ns;

			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			tctx = task_ctx_of(p);
			if (!tctx || !tctx->queued_at || !may_run(p, cpu))
				continue;
			over_ns = now - tctx->queued_at - wait_max_ns(p);
			if (over_ns > most_ns) {
				most_ns = over_ns;
				pid = p->pid;
			}
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	if (!pid)
		return 0;

	if (!bpf_iter_scx_dsq_new(&it, from, end)) {
		bpf_for(i, 0, RESCUE_MAX) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			if (p->pid != pid)
				continue;
			tctx = task_ctx_of(p);
			if (tctx)
				tctx->rescued = true;
			scx_bpf_dsq_move_set_vtime(&it, first_vns);
			moved = scx_bpf_dsq_move_vtime(&it, p, to, 0);
			break;
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	if (moved)
		count(CNT_RESCUES);
	return moved;
}

/* Of those that wait, how many a tick tries to find an idle CPU for. */
#define WAKES_MAX 8

/*
 * The first tasks of a queue may want an idle CPU that missed its kick. Several, because
 * those that may run on few CPUs gather in front.
 */
static __always_inline void wake_idle_for_heads(u64 dsq)
{
	struct task_struct *p;
	u32 seen = 0;

	bpf_for_each(scx_dsq, p, dsq, 0) {
		if (wake_idle_for(p) || ++seen >= WAKES_MAX)
			break;
	}
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
static __always_inline struct waiting count_waiting(struct cpu_ctx *cctx, s32 cpu, u32 llc)
{
	struct waiting w = {.nr_llc = nr_in(llc)};

	if (cctx->parts)
		w.nr_part = look_at_parts(cpu, llc, &w.part);
	w.nr_cpu = cctx->pinned ? nr_in(cpu_dsq(cpu)) : 0;
	cctx->pinned = w.nr_cpu > 0;
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
	if (cctx->pinned)
		return cctx->alone && vtime_before(lctx->queued_at, cctx->looked_at) &&
		       scx_bpf_dsq_move_to_local(cpu_dsq(cpu), 0);
	if (cctx->parts_wait || (cctx->parts && !vtime_before(lctx->part_at, cctx->looked_at)))
		return false;
	if (!scx_bpf_dsq_move_to_local(llc, 0) && !steal_nearest(llc) &&
	    !(cctx->pinned && scx_bpf_dsq_move_to_local(cpu_dsq(cpu), 0)))
		cctx->empty_at = now;
	return true;
}

/* As rescue(), in one of the parts that the CPU serves. With linkage: the verifier walks it once.
 */
__attribute__((noinline)) int rescue_confined(u32 llc, s32 cpu, u64 first_vns, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 i;

	if (!cctx)
		return 0;
	bpf_for(i, 0, LLC_PARTS) {
		u32 part = llc * LLC_PARTS + i;
		struct part_ctx *pctx = part_ctx_of(part);

		if (!pctx || !(cctx->parts & (1U << i)) || now - pctx->rescued_at <= RESCUE_GAP_NS)
			continue;
		pctx->rescued_at = now;
		return rescue(part_dsq(part), cpu_dsq(cpu), cpu, first_vns, now);
	}
	return 0;
}

/* The same in the CPU's own queue, whose tasks nobody else may run: to that of a part. */
static __always_inline void rescue_bound(struct waiting *w, struct cpu_ctx *cctx, s32 cpu, u32 llc,
					 u64 first_vns, u64 now)
{
	u32 key = cpu, part;
	struct cpu_topo *t = bpf_map_lookup_elem(&topo, &key);

	if (!t)
		return;
	part = llc * LLC_PARTS + t->part % LLC_PARTS;
	if (!rescue(cpu_dsq(cpu), part_dsq(part), cpu, first_vns, now))
		return;
	announce_confined(part, now);
	set_part(&cctx->parts, part);
	w->nr_part++;
	w->part.waits = true;
	w->part.dsq = part_dsq(part);
	w->part.deadline_vns = first_vns;
}

/* Finds who has waited too long, in one queue each time. True: it is first in the CPU's own. */
static __always_inline bool rescue_one(struct waiting *w, struct cpu_ctx *cctx,
				       struct llc_ctx *lctx, s32 cpu, u32 llc, u64 now)
{
	u64 first_vns = lctx->clock.now_vns - FIRST_VNS;
	int moved = 0;

	if (w->nr_llc && now - lctx->rescued_at > RESCUE_GAP_NS) {
		lctx->rescued_at = now;
		moved = rescue(llc, cpu_dsq(cpu), cpu, first_vns, now);
	} else if (w->nr_cpu && now - cctx->rescued_at > RESCUE_GAP_NS) {
		cctx->rescued_at = now;
		rescue_bound(w, cctx, cpu, llc, first_vns, now);
	} else if (w->nr_part) {
		moved = rescue_confined(llc, cpu, first_vns, now);
	}
	if (!moved)
		return false;
	cctx->pinned = true;
	w->nr_cpu++;
	return true;
}

/*
 * Another LLC with more tasks waiting for each of its CPUs, to take the next one
 * from: one LLC is looked at each tick.
 */
static __always_inline void balance(struct cpu_ctx *cctx, u32 llc, u64 now)
{
	/* Two ticks at 100 Hz: often enough to share unequal LLCs, rare beside slices. */
	const u64 gap_ns = 20 * 1000 * 1000;
	struct llc_topo *lt = bpf_map_lookup_elem(&llc_topo, &llc);
	struct llc_ctx *mine = llc_ctx_of(llc), *theirs;
	s64 nr_mine, nr_theirs;
	u32 turn, other;

	if (!lt || !mine || !lt->nr_nearest || now - cctx->balanced_at < gap_ns)
		return;
	turn = cctx->balance_turn++ % lt->nr_nearest;
	other = nearest_llc(lt, turn);
	theirs = llc_ctx_of(other);
	if (!theirs)
		return;
	nr_mine = nr_in_llc(llc);
	nr_theirs = nr_in_llc(other);
	if (nr_theirs * mine->nr_cpus > nr_mine * theirs->nr_cpus)
		cctx->steal_from = other + 1;
}

#endif /* SCHEDULER_QUEUE_H */

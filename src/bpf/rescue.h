/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who has waited for too long: searched for where a CPU looks at its queues anyway, and put in
 * front of all others.
 */
#ifndef SCHEDULER_RESCUE_H
#define SCHEDULER_RESCUE_H

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
 * a CPU, and with RESCUE_GAP_NS all readers of a queue together get a slice in 20 ms, of each
 * READER_CPUS CPUs: by one for all, 64 readers of 160 ms beside hogs on 16 CPUs are an RCU stall.
 */
#define READER_WAIT_MAX_NS (250ULL * 1000 * 1000)
#define RESCUE_GAP_NS (20ULL * 1000 * 1000)
#define READER_CPUS 4
#define RESCUE_MAX 2048

/* Whom a search found. */
enum rescued {
	RESCUED_NONE,
	RESCUED_READER,
	RESCUED_STARVING, /* it waited for WAIT_MAX_NS */
};

static __always_inline u64 wait_max_ns(const struct task_struct *p)
{
	return is_rcu_reader(p) ? READER_WAIT_MAX_NS : WAIT_MAX_NS;
}

/* It runs next, out of turn. A reader for a slice, whoever wakes meanwhile: see goes_first(). */
static __always_inline void save(const struct task_struct *p, struct task_ctx *tctx)
{
	tctx->rescued = true;
	if (is_rcu_reader(p))
		tctx->saved_until_ns = tctx->charged_ns + knobs.slice_max_ns;
}

/*
 * Looks through queue `from` for the task that has waited longest beyond what it may, and
 * puts it in front of everything, in queue `to` (a task cannot be moved within one). Both
 * are served by this CPU. From either end by turns: at the back are those with the latest
 * deadlines, but also those who were rescued just now. bpf_for counts the steps, and the
 * function has linkage, so that the verifier need not follow every count: an enum rescued.
 */
__attribute__((noinline)) int rescue(u64 from, u64 to, s32 cpu, u64 first_vns, u64 now)
{
	s64 most_ns = 0;
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	struct task_ctx *tctx;
	/* As good as a coin: looks are at ticks, milliseconds apart. */
	u64 end = (now >> 16) % 2 ? SCX_DSQ_ITER_REV : 0;
	enum rescued found = RESCUED_NONE;
	bool moved = false;
	s32 pid = 0, i;

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
				found = is_rcu_reader(p) ? RESCUED_READER : RESCUED_STARVING;
			}
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	if (!pid)
		return RESCUED_NONE;

	if (!bpf_iter_scx_dsq_new(&it, from, end)) {
		bpf_for(i, 0, RESCUE_MAX) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			if (p->pid != pid || !may_run(p, cpu))
				continue;
			tctx = task_ctx_of(p);
			if (tctx)
				save(p, tctx);
			scx_bpf_dsq_move_set_vtime(&it, first_vns);
			moved = scx_bpf_dsq_move_vtime(&it, p, to, 0);
			break;
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	if (!moved)
		return RESCUED_NONE;
	count(CNT_RESCUES);
	return found;
}

/*
 * Of the parts that the CPU serves and that somebody waits in, the one that was searched longest
 * ago; ABSENT: none is due. With linkage, too.
 */
__attribute__((noinline)) u32 part_to_search(u32 llc, s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 most_ns = RESCUE_GAP_NS;
	u32 found = ABSENT, i;
	struct part_ctx *pctx;

	if (!cctx)
		return ABSENT;
	bpf_for(i, 0, LLC_PARTS) {
		u32 part = llc * LLC_PARTS + i;

		pctx = part_ctx_of(part);
		if (!pctx || !(cctx->parts & (1U << i)) ||
		    elapsed_ns(pctx->rescued_at, now) <= most_ns || !nr_in(part_dsq(part)))
			continue;
		most_ns = elapsed_ns(pctx->rescued_at, now);
		found = part;
	}
	pctx = part_ctx_of(found);
	if (pctx)
		pctx->rescued_at = now;
	return found;
}

/* As rescue() in the CPU's own queue, whose tasks nobody else may run: to that of a part. */
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
	enum rescued found = RESCUED_NONE;
	u64 seen_at = lctx->rescued_at;

	if (w->nr_llc && elapsed_ns(seen_at, now) > RESCUE_GAP_NS &&
	    __sync_bool_compare_and_swap(&lctx->rescued_at, seen_at, now)) {
		u64 last_at = vtime_max(seen_at, now - 2 * RESCUE_GAP_NS);
		u32 nr;

		found = rescue(llc, cpu_dsq(cpu), cpu, first_vns, now);
		/* As many for each CPU, whose ticks may be at one instant, or for a few CPUs. */
		nr = found == RESCUED_STARVING ? lctx->nr_cpus ?: 1 : lctx->nr_cpus / READER_CPUS;
		if (found && nr)
			lctx->rescued_at = last_at + RESCUE_GAP_NS / nr;
	} else if (w->nr_cpu && now - cctx->rescued_at > RESCUE_GAP_NS) {
		cctx->rescued_at = now;
		rescue_bound(w, cctx, cpu, llc, first_vns, now);
	} else if (w->nr_part) {
		u32 part = part_to_search(llc, cpu, now);

		if (part != ABSENT)
			found = rescue(part_dsq(part), cpu_dsq(cpu), cpu, first_vns, now);
	}
	if (found == RESCUED_NONE)
		return false;
	cctx->pinned = 1;
	w->nr_cpu++;
	return true;
}

#endif /* SCHEDULER_RESCUE_H */

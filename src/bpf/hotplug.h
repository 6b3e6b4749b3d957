/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The callbacks for CPUs that are taken by a higher class, go idle, go offline, and come back.
 */
#ifndef SCHEDULER_HOTPLUG_H
#define SCHEDULER_HOTPLUG_H

void BPF_STRUCT_OPS(sched_cpu_release, s32 cpu, struct scx_cpu_release_args *args)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (cctx)
		cctx->released_at = scx_bpf_now();
	scx_bpf_reenqueue_local();
}

void BPF_STRUCT_OPS(sched_cpu_acquire, s32 cpu, struct scx_cpu_acquire_args *args)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!cctx || !cctx->released_at)
		return;
	count_add(CNT_RT_NS, scx_bpf_now() - cctx->released_at);
	cctx->released_at = 0;
}

/*
 * On its way out a CPU first waits until all who read under RCU have done so, and only then is
 * the scheduler told. Meanwhile the kernel asks nothing for it: it runs what is in its local
 * queue and in the global one. Who waits in another, reads, and may run nowhere else would
 * hold up the CPU, and with it everybody who waits for a grace period, for ever (seen on 6.12
 * and 6.16). It shows when the CPU goes idle unasked.
 */

struct leaving_timer {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct leaving_timer);
	__uint(max_entries, 1);
} leaving_timers SEC(".maps");

/* Some kernels tell of an idle CPU again each time that it finds nothing: no sooner than this. */
#define LEAVING_GAP_NS (1000ULL * 1000)

/*
 * A CPU went idle unasked. That happens, too, where it has something to run, and may not run that
 * beside what another thread of its core does, or had chosen to be idle when its task was put
 * there. With linkage: the verifier walks it once.
 */
__attribute__((noinline)) int note_unasked(struct cpu_ctx *cctx __arg_nonnull, s32 cpu, u64 now)
{
	struct leaving_timer *t;
	u32 zero = 0;

	if (scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL_ON | cpu) > 0) {
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
		return 0;
	}
	scx_bpf_test_and_clear_cpu_idle(cpu);
	/* Each start puts it off, and threads of the CPU may run and end all the time. */
	if (cctx->leaving_at && (s64)(now - cctx->leaving_at) < (s64)TIMER_LOST_NS)
		return 0;
	cctx->leaving_at = now;
	t = bpf_map_lookup_elem(&leaving_timers, &zero);
	if (t)
		bpf_timer_start(&t->timer, LEAVING_GAP_NS, 0);
	return 0;
}

/*
 * A CPU went idle. What was queued while it was on its way there, seen by nobody as
 * idle yet, it fetches itself: what was announced since dispatch found nothing, or
 * QUEUEING_NS before that.
 */
void BPF_STRUCT_OPS(sched_update_idle, s32 cpu, bool idle)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 now = scx_bpf_now();
	struct llc_ctx *lctx;
	bool look;
	u32 llc;

	if (!cctx)
		return;
	if (!idle) {
		if (cctx->idle_at)
			count_add(CNT_IDLE_NS, now - cctx->idle_at);
		cctx->idle_at = 0;
		return;
	}
	/* On its way out it would be taken for an idle one until it is back. */
	if (!cctx->online) {
		scx_bpf_test_and_clear_cpu_idle(cpu);
		return;
	}
	if (!cctx->asked) {
		note_unasked(cctx, cpu, now);
		return;
	}
	cctx->asked = 0;
	llc = llc_of(cpu);
	lctx = llc_ctx_of(llc);
	look = cctx->pinned || (lctx && (s64)(cctx->empty_at - lctx->queued_at) < (s64)QUEUEING_NS);
	/* Some kernels tell of it again when an idle CPU finds nothing to do. */
	if (!cctx->idle_at) {
		cctx->idle_at = now;
		look = look || nr_in_llc(llc);
	}
	if (look)
		kick_idle(cpu);
}

static void set_online(s32 cpu, bool online)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));

	if (!cctx || !lctx || cctx->online == online)
		return;
	cctx->online = online;
	cctx->asked = 1;
	cctx->leaving_at = 0;
	__sync_fetch_and_add(&lctx->nr_cpus, online ? 1 : -1);
}

void BPF_STRUCT_OPS_SLEEPABLE(sched_cpu_online, s32 cpu)
{
	set_online(cpu, true);
	count_on(cpu, CNT_HOTPLUG);
}

/* Tasks that were moved. In memory, because the verifier would follow every sum. */
u32 nr_moved;

/*
 * Moves tasks of queue `dsq` to the global queue: those whose runqueue is that of `cpu`, or
 * all. With linkage: the verifier walks it once.
 */
__attribute__((noinline)) int empty_into_global(u64 dsq, s32 cpu, bool all)
{
	struct task_struct *p;

	bpf_rcu_read_lock();
	bpf_for_each(scx_dsq, p, dsq, 0) {
		if (all || scx_bpf_task_cpu(p) == cpu)
			__sync_fetch_and_add(&nr_moved, scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p,
									 SCX_DSQ_GLOBAL, 0));
	}
	bpf_rcu_read_unlock();
	return 0;
}

/*
 * Every task whose runqueue this is must leave, or the kernel waits for it. They go
 * to the global queue, which the kernel itself drains even from a CPU on its way
 * out, to push them elsewhere: bound ones, and those of the LLC's queues, whose
 * affinity may have no other CPU left.
 */
__attribute__((noinline)) int leave_cpu(s32 cpu)
{
	u32 llc = llc_of(cpu), i;

	/* First what others may move on to those that come next. */
	if (relayed) {
		empty_into_global(OFFERED_DSQ, cpu, false);
		empty_into_global(ANY_DSQ, cpu, false);
		/* The others of its own queue are for the timer: see retake_overdue(). */
		empty_into_global(decided_dsq(cpu), cpu, false);
	}
	empty_into_global(cpu_dsq(cpu), cpu, true);
	empty_into_global(llc, cpu, false);
	bpf_for(i, 0, LLC_PARTS)
		empty_into_global(part_dsq(llc * LLC_PARTS + i), cpu, false);
	return 0;
}

void BPF_STRUCT_OPS_SLEEPABLE(sched_cpu_offline, s32 cpu)
{
	set_online(cpu, false);
	count_on(cpu, CNT_HOTPLUG);
	leave_cpu(cpu);
}

/* What waits for a CPU that went idle unasked is put where that looks, and it does. */
static int empty_leaving(void *map, u32 *key, struct leaving_timer *t)
{
	s32 cpu;

	bpf_for(cpu, 0, nr_cpu_ids) {
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (!cctx || !cctx->online || !cctx->leaving_at)
			continue;
		cctx->leaving_at = 0;
		/* Some kernels mark it after update_idle, all where it finds nothing anew. */
		scx_bpf_test_and_clear_cpu_idle(cpu);
		nr_moved = 0;
		leave_cpu(cpu);
		if (nr_moved)
			scx_bpf_kick_cpu(cpu, 0);
	}
	return 0;
}

static int start_leaving(void)
{
	struct leaving_timer *t;
	u32 zero = 0;
	int err;

	t = bpf_map_lookup_elem(&leaving_timers, &zero);
	if (!t)
		return -ENOENT;
	err = bpf_timer_init(&t->timer, &leaving_timers, CLOCK_MONOTONIC);
	return err ?: bpf_timer_set_callback(&t->timer, empty_leaving);
}

#endif /* SCHEDULER_HOTPLUG_H */

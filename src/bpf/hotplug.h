/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The callbacks for CPUs that are taken by a higher class, go offline, and come back.
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

static void set_online(s32 cpu, bool online)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct llc_ctx *lctx = llc_ctx_of(llc_of(cpu));

	if (!cctx || !lctx || cctx->online == online)
		return;
	cctx->online = online;
	__sync_fetch_and_add(&lctx->nr_cpus, online ? 1 : -1);
}

void BPF_STRUCT_OPS_SLEEPABLE(sched_cpu_online, s32 cpu)
{
	set_online(cpu, true);
	count_on(cpu, CNT_HOTPLUG);
}

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
			scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_GLOBAL, 0);
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

#endif /* SCHEDULER_HOTPLUG_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Programs that user space runs to look at the scheduler or to tell it of a new
 * topology. None is on the switch path.
 */
#ifndef SCHEDULER_REPORT_H
#define SCHEDULER_REPORT_H

/* The longest queue that is told of, of one CPU. */
#define NR_MAX 0xffff

/* Tasks that wait for this CPU and no other. Linkage: the verifier walks it once. */
__attribute__((noinline)) u32 nr_waiting_for(s32 cpu)
{
	u64 nr = nr_in(cpu_dsq(cpu));

	if (relayed)
		nr += nr_in(decided_dsq(cpu));
	return clamp_u64(nr, 0, NR_MAX);
}

/* Writes the lengths of all queues of this instant into `cpus` and `llcs`. */
SEC("syscall")
int snapshot(void *ctx)
{
	const struct cpumask *idle = scx_bpf_get_idle_cpumask();
	u64 now = scx_bpf_now();
	struct llc_ctx *first;
	s32 cpu;
	u32 llc;

	bpf_for(cpu, 0, nr_cpu_ids) {
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (!cctx)
			continue;
		cctx->nr_local = clamp_u64(nr_in(SCX_DSQ_LOCAL_ON | (u32)cpu), 0, NR_MAX);
		cctx->nr_pinned = nr_waiting_for(cpu);
		cctx->snapshot_at = now;
		/* Idle since before the attach: update_idle tells of changes only. */
		if (!cctx->idle_at && bpf_cpumask_test_cpu(cpu, idle))
			cctx->idle_at = now;
	}
	scx_bpf_put_idle_cpumask(idle);
	bpf_for(llc, 0, nr_llcs) {
		struct llc_ctx *lctx = llc_ctx_of(llc);

		if (lctx)
			lctx->nr_queued = nr_in_llc(llc);
	}
	/* Those are of no LLC. */
	first = relayed ? llc_ctx_of(0) : NULL;
	if (first)
		first->nr_queued += nr_in(OFFERED_DSQ) + nr_in(ANY_DSQ);
	return 0;
}

/*
 * The CPUs of an LLC that are online, counted. One that was not there when tasks joined a part
 * may be for these, too: each serves the parts that any other does.
 */
__attribute__((noinline)) int refresh_llc(u32 llc)
{
	struct llc_ctx *lctx = llc_ctx_of(llc);
	u32 nr_cpus = 0, parts = 0;
	struct cpu_ctx *cctx;
	s32 cpu;

	if (!lctx)
		return 0;
	bpf_for(cpu, 0, nr_cpu_ids) {
		cctx = cpu_ctx_of(cpu);
		if (!cctx || llc_of(cpu) != llc)
			continue;
		nr_cpus += cctx->online ? 1 : 0;
		parts |= cctx->parts;
	}
	lctx->nr_cpus = nr_cpus;
	bpf_for(cpu, 0, nr_cpu_ids) {
		cctx = cpu_ctx_of(cpu);
		if (cctx && llc_of(cpu) == llc)
			__sync_fetch_and_or(&cctx->parts, parts);
	}
	return 0;
}

/* Takes over a topology that user space has written into `topo`. */
SEC("syscall")
int refresh_topology(void *ctx)
{
	u32 llc;

	bpf_for(llc, 0, nr_llcs)
		refresh_llc(llc);
	return rebuild_masks();
}

/* Writes a struct task_sample for each task that has a state. */
SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct task_sample s = {};
	struct task_ctx *tctx;

	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	if (!tctx)
		return 0;
	s.pid = p->pid;
	s.tgid = p->tgid;
	s.cpu = tctx->cpu;
	s.nice = p->static_prio - 120;
	s.weight = tctx->weight;
	s.rule = rule_index(tctx->rule);
	s.policy = p->policy;
	s.vruntime_vns = tctx->vruntime_vns;
	s.run_ns = tctx->run_ns;
	s.wakeups = tctx->wakeups;
	s.nivcsw = p->nivcsw;
	__builtin_memcpy(s.wait_hist, tctx->wait_hist, sizeof(s.wait_hist));
	bpf_probe_read_kernel_str(s.comm, sizeof(s.comm), p->comm);
	bpf_seq_write(ctx->meta->seq, &s, sizeof(s));
	return 0;
}

static __always_inline void describe(struct explained *x, struct task_struct *p,
				     const struct task_ctx *tctx)
{
	u64 now = scx_bpf_now();
	u64 clock_vns = tctx->clock == ABSENT ? tctx->vruntime_vns : clock_now(tctx);
	char comm[TASK_COMM_CHARS] = {};

	x->tgid = p->tgid;
	x->cpu = tctx->cpu;
	x->nice = p->static_prio - 120;
	x->policy = p->policy;
	x->rule = rule_index(tctx->rule);
	x->weight = tctx->weight;
	x->class = tctx->class;
	x->placed = tctx->placed;
	x->boosted = tctx->boosted;
	x->lag_vns = clock_vns - tctx->vruntime_vns;
	x->due_vns = tctx->deadline_vns - clock_vns;
	x->early_vns = tctx->early_vns;
	x->slice_ns = slice_from(tctx, knobs.slice_max_ns);
	x->budget_ns = tctx->boost.budget_ns;
	x->period_ns = tctx->boost.period_ns;
	x->used_ns = tctx->boost.used_ns;
	x->left_ns = tctx->boost.expires_at ? elapsed_ns(now, tctx->boost.expires_at) : 0;
	x->burst_avg_ns = tctx->burst_avg_ns;
	x->run_ns = p->se.sum_exec_runtime;
	/* Not into the context: 6.12 does not take that. */
	bpf_probe_read_kernel_str(comm, sizeof(comm), p->comm);
	__builtin_memcpy(x->comm, comm, sizeof(comm));
	x->found = 1;
}

/* How it stands with one task. */
SEC("syscall")
int explain_task(struct explained *x)
{
	struct task_struct *p = bpf_task_from_pid(x->pid);
	struct task_ctx *tctx;

	if (!p)
		return 0;
	bpf_rcu_read_lock();
	tctx = task_ctx_of(p);
	if (tctx)
		describe(x, p, tctx);
	bpf_rcu_read_unlock();
	bpf_task_release(p);
	return 0;
}

#endif /* SCHEDULER_REPORT_H */

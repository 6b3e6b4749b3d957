/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel's half keeps: settings, maps, the state of a task, and how to
 * find each. No decision is made here.
 */
#ifndef SCHEDULER_STATE_H
#define SCHEDULER_STATE_H

#include "maps.h"
#include "task.h"

/* Set by user space before load, constant from then on. */
const volatile u32 nr_cpu_ids = 1;
const volatile u32 nr_llcs = 1;
const volatile u32 nr_nodes = 1;
const volatile bool smt_enabled;
const volatile bool relayed;    /* a policy in user space decides: see relay.h */

/* Written by user space at any time; see intf.h. */
struct knobs knobs SEC(".data");

/*
 * Queues: one an LLC with the LLC's index as id, LLC_PARTS an LLC for those that may run on
 * some of its CPUs only, one a CPU. Whoever is first in the queue of an LLC may run on each of
 * its CPUs; confined tasks would hide it from those that they may not run on. Each orders by
 * the clock of the same id: what is queued stays in order, however far that clock and others
 * drift apart meanwhile.
 */
#define CPU_DSQ_BASE (1U << 16)
#define PART_DSQ_BASE (3U << 16)

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct cpu_stats);
	__uint(max_entries, 1);
} stats SEC(".maps");

/* These, and those of maps.h, are sized by user space before load: nr_cpu_ids, nr_llcs, LLC_PARTS
 * times that. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct llc_topo);
	__uint(max_entries, 1);
} llc_topo SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct part_ctx);
	__uint(max_entries, 1);
} parts SEC(".maps");

/* The mask is the bound that the verifier sees: MAX_LLCS is a power of two. */
static __always_inline u32 nearest_llc(const struct llc_topo *t, u32 i)
{
	return t->nearest[i & (MAX_LLCS - 1)];
}

static __always_inline u64 cpu_dsq(s32 cpu)
{
	return CPU_DSQ_BASE + (u32)cpu;
}

/* `part` is the index among all LLCs' parts. */
static __always_inline u64 part_dsq(u32 part)
{
	return PART_DSQ_BASE + part;
}

static __always_inline struct part_ctx *part_ctx_of(u32 part)
{
	return bpf_map_lookup_elem(&parts, &part);
}

/* Counters are written on their own CPU, with interrupts off: no atomics. */
static __always_inline void count_add(enum counter counter, u64 n)
{
	u32 zero = 0;
	struct cpu_stats *s = bpf_map_lookup_elem(&stats, &zero);

	if (s)
		s->counters[counter] += n;
}

static __always_inline void count(enum counter counter)
{
	count_add(counter, 1);
}

/* For the rare event that belongs to another CPU. */
static __always_inline void count_on(s32 cpu, enum counter counter)
{
	u32 zero = 0;
	struct cpu_stats *s = bpf_map_lookup_percpu_elem(&stats, &zero, cpu);

	if (s)
		__sync_fetch_and_add(&s->counters[counter], 1);
}

/* The clocks of two CPUs may be apart. */
static __always_inline u64 elapsed_ns(u64 since_at, u64 now)
{
	return (s64)(now - since_at) > 0 ? now - since_at : 0;
}

/* How many tasks are in a queue; none in one that does not exist. */
static __always_inline u32 nr_in(u64 dsq)
{
	s32 nr = scx_bpf_dsq_nr_queued(dsq);

	return nr > 0 ? nr : 0;
}

/* How many tasks wait in these parts of an LLC. With linkage: the verifier walks it once. */
__attribute__((noinline)) u32 nr_in_parts(u32 llc, u32 parts)
{
	u32 nr = 0, i;

	bpf_for(i, 0, LLC_PARTS) {
		if (parts & (1U << i))
			nr += nr_in(part_dsq(llc * LLC_PARTS + i));
	}
	return nr;
}

/* How many confined tasks wait in an LLC. A search only where there ever was one. */
static __always_inline u32 nr_parts(u32 llc, const struct llc_ctx *lctx)
{
	return lctx->parts ? nr_in_parts(llc, lctx->parts) : 0;
}

/* How many tasks wait for any CPU of an LLC, or for some. With linkage, too. */
__attribute__((noinline)) u32 nr_in_llc(u32 llc)
{
	struct llc_ctx *lctx = llc_ctx_of(llc);

	return lctx ? nr_in(llc) + nr_parts(llc, lctx) : 0;
}

static __always_inline void set_part(u32 *parts, u32 part)
{
	u32 bit = 1U << (part % LLC_PARTS);

	if (!(*parts & bit))
		__sync_fetch_and_or(parts, bit);
}

/* Does the CPU look at the queue of a part of its LLC? */
static __always_inline bool serves(const struct cpu_ctx *cctx, u32 part)
{
	return cctx->parts & (1U << (part % LLC_PARTS));
}

/* With linkage: the verifier walks it once. */
__attribute__((noinline)) int announce_confined(u32 part, u64 now)
{
	struct llc_ctx *lctx = llc_ctx_of(part / LLC_PARTS);

	if (!lctx)
		return 0;
	lctx->part_at = now;
	set_part(&lctx->parts, part);
	return 0;
}

/*
 * The queue for a task that is not bound, that of its clock, told to those who take from it
 * before the task is there: see take_at_once() and sched_update_idle.
 */
static __always_inline u64 announce(const struct task_ctx *tctx, struct llc_ctx *lctx, u64 now)
{
	lctx->queued_at = now;
	if (tctx->affinity != AFF_WHOLE)
		announce_confined(tctx->part, now);
	return tctx->clock;
}

/*
 * Is the task bound to the CPU that it is on, for the moment? BPF's own entry code
 * counts migration_disabled up for the current task, twice where enqueue is
 * called from within cpu_release. So the current task passes for movable: it only
 * goes into a queue then, and the kernel lets no other CPU take it if it is not.
 */
static __always_inline bool migration_disabled(const struct task_struct *p)
{
	return p->migration_disabled && bpf_get_current_task_btf() != p;
}

static __always_inline bool is_bound(const struct task_struct *p)
{
	return p->nr_cpus_allowed == 1 || migration_disabled(p);
}

/*
 * Was the task preempted while it reads under RCU? Until it goes on, nobody in the
 * machine gets memory freed, and after 21 s the kernel ejects the scheduler. BPF's own
 * entry code counts up once, for the current task. Without CONFIG_PREEMPT_RCU nobody
 * is preempted there, and there is no such field. Some system calls do little but read
 * under RCU, so who asks for this must not get a CPU by it: see goes_first().
 */
static __always_inline bool is_rcu_reader(const struct task_struct *p)
{
	if (!bpf_core_field_exists(p->rcu_read_lock_nesting))
		return false;
	return p->rcu_read_lock_nesting > (bpf_get_current_task_btf() == p ? 1 : 0);
}

/*
 * Is it the current task, and may it go to another CPU now? Where RCU is preemptible BPF's entry
 * code has counted migration_disabled up by one. Elsewhere it depends on the kernel:
 * a count there may be the task's own, and to move such a task is an ejection.
 */
static __always_inline bool is_movable_current(const struct task_struct *p)
{
	u32 entered = bpf_core_field_exists(p->rcu_read_lock_nesting) ? 1 : 0;

	return bpf_get_current_task_btf() == p && p->nr_cpus_allowed > 1 &&
	       p->migration_disabled <= entered;
}

static __always_inline bool is_percpu_kthread(const struct task_struct *p)
{
	return (p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1;
}

#endif /* SCHEDULER_STATE_H */

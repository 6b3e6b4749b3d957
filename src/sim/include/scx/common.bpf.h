/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stands in for the header of the same name that BPF programs include: what src/bpf
 * asks of the kernel, answered by a simulated machine. The object has one machine,
 * and its globals are that machine's, so several can run at once, each with a copy of
 * its own.
 */
#ifndef SCHEDULER_SIM_COMMON_H
#define SCHEDULER_SIM_COMMON_H

#include "../kernel.h"

/* What user space sets in .rodata before load has to be writable here, too. */
#pragma clang section rodata = ".data.rodata"

static struct sim_world sim;
#define SIM(name, ...) sim.kfuncs->name(sim.machine __VA_OPT__(, ) __VA_ARGS__)

/* ---- declarations ---- */

#define SEC(name) __attribute__((used))
#define __always_inline inline __attribute__((always_inline))
#define __kptr
#define __arg_trusted
#define __arg_nonnull

#define BPF_STRUCT_OPS(name, args...) name(args)
#define BPF_STRUCT_OPS_SLEEPABLE(name, args...) name(args)
#define SCX_OPS_DEFINE(name, ...) struct sched_ext_ops name = {__VA_ARGS__}

#define UEI_DEFINE(name) struct scx_exit_info name
#define UEI_RECORD(name, info) ((name).kind = (info)->kind)

#define bpf_core_field_exists(field) ((void)sizeof(field), true)
/* As there: what is behind a pointer to nothing reads as 0. */
#define BPF_CORE_READ(p, a, b, c, d) ((p)->a ? (p)->a->b->c->d : 0)
#define bpf_core_read(to, bytes, from) bpf_probe_read_kernel(to, bytes, from)

#define bpf_for(i, from, to) for ((i) = (from); (i) < (to); (i)++)

static inline void bpf_rcu_read_lock(void)
{
}
static inline void bpf_rcu_read_unlock(void)
{
}

static inline long bpf_probe_read_kernel(void *to, u32 bytes, const void *from)
{
	__builtin_memcpy(to, from, bytes);
	return 0;
}

static inline long bpf_probe_read_kernel_str(void *to, u32 bytes, const char *from)
{
	u32 i;

	for (i = 0; i + 1 < bytes && from[i]; i++)
		((char *)to)[i] = from[i];
	((char *)to)[i] = 0;
	return i + 1;
}

/* ---- maps: the machine hangs their values into the fields of their declarations ---- */

enum {
	BPF_F_NO_PREALLOC = 1,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
	CLOCK_MONOTONIC = 1,
};

#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#define sim_map_type(map) (sizeof(*(map)->type) / sizeof(int))
#define sim_map_entries(map) ((u32)(unsigned long)(map)->max_entries)

#define bpf_map_lookup_percpu_elem(map, at, on)                                    \
	({                                                                         \
		u32 __key = *(at), __cpu = (on), __entries = sim_map_entries(map); \
		__key < __entries &&__cpu < sim.nr_cpu_ids                         \
			? (map)->value + (u64)__cpu *__entries + __key             \
			: NULL;                                                    \
	})

#define bpf_map_lookup_elem(map, at)                                                              \
	({                                                                                        \
		const typeof(*(map)->key) *__at = (const void *)(at);                             \
		u32 __index = *__at, __nr = sim_map_entries(map);                                 \
		u64 __first =                                                                     \
			sim_map_type(map) == BPF_MAP_TYPE_PERCPU_ARRAY ? (u64)sim.cpu * __nr : 0; \
		__index < __nr ? (map)->value + __first + __index : NULL;                         \
	})

#define bpf_task_storage_get(map, p, first, flags)                                      \
	({                                                                              \
		struct task_struct *__p = (p);                                          \
		if (!__p->storage && ((flags) & BPF_LOCAL_STORAGE_GET_F_CREATE))        \
			__p->storage = SIM(storage_create, __p, sizeof(*(map)->value)); \
		(typeof((map)->value))__p->storage;                                     \
	})

#define bpf_kptr_xchg(to, new) __atomic_exchange_n(to, new, __ATOMIC_SEQ_CST)

/* ---- masks of CPUs ---- */

#define cast_mask(mask) ((const struct cpumask *)(mask))

static inline u32 sim_words(void)
{
	return (sim.nr_cpu_ids + 63) / 64;
}

static inline bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *mask)
{
	return cpu < sim.nr_cpu_ids && (mask->bits[cpu / 64] >> (cpu % 64) & 1);
}

static inline void bpf_cpumask_set_cpu(u32 cpu, struct bpf_cpumask *mask)
{
	if (cpu < sim.nr_cpu_ids)
		mask->mask.bits[cpu / 64] |= 1ULL << (cpu % 64);
}

static inline bool bpf_cpumask_empty(const struct cpumask *mask)
{
	for (u32 i = 0; i < sim_words(); i++)
		if (mask->bits[i])
			return false;
	return true;
}

static inline bool bpf_cpumask_intersects(const struct cpumask *a, const struct cpumask *b)
{
	for (u32 i = 0; i < sim_words(); i++)
		if (a->bits[i] & b->bits[i])
			return true;
	return false;
}

static inline bool bpf_cpumask_subset(const struct cpumask *a, const struct cpumask *b)
{
	for (u32 i = 0; i < sim_words(); i++)
		if (a->bits[i] & ~b->bits[i])
			return false;
	return true;
}

static inline bool bpf_cpumask_and(struct bpf_cpumask *to, const struct cpumask *a,
				   const struct cpumask *b)
{
	u64 any = 0;

	for (u32 i = 0; i < sim_words(); i++)
		any |= to->mask.bits[i] = a->bits[i] & b->bits[i];
	return any;
}

static inline u32 bpf_cpumask_weight(const struct cpumask *mask)
{
	u32 weight = 0;

	for (u32 i = 0; i < sim_words(); i++)
		weight += __builtin_popcountll(mask->bits[i]);
	return weight;
}

static inline u32 bpf_cpumask_any_distribute(const struct cpumask *mask)
{
	return SIM(any_distribute, mask, mask);
}

static inline u32 bpf_cpumask_any_and_distribute(const struct cpumask *a, const struct cpumask *b)
{
	return SIM(any_distribute, a, b);
}

static inline struct bpf_cpumask *bpf_cpumask_create(void)
{
	return SIM(cpumask_create);
}

static inline void bpf_cpumask_release(struct bpf_cpumask *mask)
{
	SIM(cpumask_release, mask);
}

static inline const struct cpumask *scx_bpf_get_idle_cpumask(void)
{
	return sim.idle;
}

static inline const struct cpumask *scx_bpf_get_idle_smtmask(void)
{
	return sim.idle_smt;
}

static inline const struct cpumask *scx_bpf_get_online_cpumask(void)
{
	return sim.online;
}

static inline void scx_bpf_put_idle_cpumask(const struct cpumask *mask)
{
}
static inline void scx_bpf_put_cpumask(const struct cpumask *mask)
{
}

/* ---- time, CPUs and tasks ---- */

static inline u64 scx_bpf_now(void)
{
	return sim.now;
}

static inline s32 bpf_get_smp_processor_id(void)
{
	return sim.cpu;
}

static inline struct task_struct *bpf_get_current_task_btf(void)
{
	return sim.current;
}

static inline u64 bpf_get_current_pid_tgid(void)
{
	return (u64)sim.current->tgid << 32 | (u32)sim.current->pid;
}

static inline s32 scx_bpf_task_cpu(const struct task_struct *p)
{
	return p->cpu;
}

static inline bool scx_bpf_task_set_slice(struct task_struct *p, u64 slice_ns)
{
	p->scx.slice = slice_ns;
	return true;
}

static inline bool scx_bpf_test_and_clear_cpu_idle(s32 cpu)
{
	return SIM(test_and_clear_cpu_idle, cpu);
}

static inline s32 scx_bpf_pick_idle_cpu(const struct cpumask *allowed, u64 flags)
{
	return SIM(pick_idle_cpu, allowed, flags);
}

static inline void scx_bpf_kick_cpu(s32 cpu, u64 flags)
{
	SIM(kick_cpu, cpu, flags);
}

static inline void scx_bpf_reenqueue_local(void)
{
	SIM(reenqueue_local);
}

/* ---- queues ---- */

static inline s32 scx_bpf_create_dsq(u64 dsq, s32 node)
{
	return SIM(create_dsq, dsq);
}

static inline s32 scx_bpf_dsq_nr_queued(u64 dsq)
{
	return SIM(dsq_nr_queued, dsq);
}

static inline void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq, u64 slice_ns, u64 enq_flags)
{
	SIM(dsq_insert, p, dsq, slice_ns, 0, enq_flags, false);
}

static inline void scx_bpf_dsq_insert_vtime(struct task_struct *p, u64 dsq, u64 slice_ns, u64 vtime,
					    u64 enq_flags)
{
	SIM(dsq_insert, p, dsq, slice_ns, vtime, enq_flags, true);
}

static inline bool scx_bpf_dsq_move_to_local(u64 dsq, u64 enq_flags)
{
	return SIM(dsq_move_to_local, dsq);
}

static inline int bpf_iter_scx_dsq_new(struct bpf_iter_scx_dsq *it, u64 dsq, u64 flags)
{
	*it = (struct bpf_iter_scx_dsq){.dsq = dsq, .rev = flags & SCX_DSQ_ITER_REV};
	return SIM(iter_new, it);
}

static inline struct task_struct *bpf_iter_scx_dsq_next(struct bpf_iter_scx_dsq *it)
{
	return SIM(iter_next, it);
}

static inline void bpf_iter_scx_dsq_destroy(struct bpf_iter_scx_dsq *it)
{
	it->open = false;
}

static inline void scx_bpf_dsq_move_set_slice(struct bpf_iter_scx_dsq *it, u64 slice_ns)
{
	it->slice = slice_ns;
	it->has_slice = true;
}

static inline void scx_bpf_dsq_move_set_vtime(struct bpf_iter_scx_dsq *it, u64 vtime)
{
	it->vtime = vtime;
	it->has_vtime = true;
}

static inline bool scx_bpf_dsq_move(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 dsq,
				    u64 enq_flags)
{
	return SIM(dsq_move, it, p, dsq, enq_flags, false);
}

static inline bool scx_bpf_dsq_move_vtime(struct bpf_iter_scx_dsq *it, struct task_struct *p,
					  u64 dsq, u64 enq_flags)
{
	return SIM(dsq_move, it, p, dsq, enq_flags, true);
}

#define BPF_FOR_EACH_ITER (&sim_it)
#define bpf_for_each(kind, p, args...)                                                          \
	for (struct bpf_iter_##kind sim_it __attribute__((cleanup(bpf_iter_##kind##_destroy))), \
	     *sim_once = (bpf_iter_##kind##_new(&sim_it, args), (void *)1);                     \
	     sim_once && ((p) = bpf_iter_##kind##_next(&sim_it));)

/* ---- a policy in user space: its ring of events, and a timer ---- */

static inline void *bpf_ringbuf_reserve(void *ring, u64 bytes, u64 flags)
{
	return SIM(ringbuf_reserve, bytes);
}

static inline void bpf_ringbuf_submit(void *record, u64 flags)
{
	SIM(ringbuf_submit, record);
}

static inline u64 bpf_ringbuf_query(void *ring, u64 flags)
{
	return SIM(ringbuf_query, flags);
}

static inline long bpf_timer_init(struct bpf_timer *timer, void *map, u64 flags)
{
	timer->map = map;
	return 0;
}

#define bpf_timer_set_callback(timer, function) \
	((timer)->callback = (s32 (*)(void *, u32 *, void *))(function), 0)

static inline long bpf_timer_start(struct bpf_timer *timer, u64 delay_ns, u64 flags)
{
	return SIM(timer_start, timer, delay_ns);
}

static inline struct task_struct *bpf_task_from_pid(s32 pid)
{
	return SIM(task_from_pid, pid);
}

/* Tasks live as long as the machine. */
static inline void bpf_task_release(struct task_struct *p)
{
}

/* ---- an iterator over tasks: not simulated ---- */

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
};
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

static inline long bpf_seq_write(struct seq_file *seq, const void *data, u32 bytes)
{
	SIM(refuse, "bpf_seq_write");
	return -EINVAL;
}

#endif /* SCHEDULER_SIM_COMMON_H */

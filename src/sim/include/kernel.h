/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual kernel as the kernel's half sees it: the fields of the kernel's types
 * that src/bpf uses, the constants, and the table of functions that the simulated
 * machine answers. Rust gets all of it by bindgen (crate::sim::abi). Names and values
 * are those of the kernel (7.3); where a type is shorter than the kernel's, it has
 * what is used and no more.
 */
#ifndef SCHEDULER_SIM_KERNEL_H
#define SCHEDULER_SIM_KERNEL_H

/* Tells intf.h that the integer types are there. */
#define __VMLINUX_H__

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
#include <stdbool.h>
#include <stddef.h>

enum scx_dsq_id_flags : u64 {
	SCX_DSQ_FLAG_BUILTIN = 1ULL << 63,
	SCX_DSQ_FLAG_LOCAL_ON = 1ULL << 62,
	SCX_DSQ_INVALID = SCX_DSQ_FLAG_BUILTIN,
	SCX_DSQ_GLOBAL = SCX_DSQ_FLAG_BUILTIN | 1,
	SCX_DSQ_LOCAL = SCX_DSQ_FLAG_BUILTIN | 2,
	SCX_DSQ_LOCAL_ON = SCX_DSQ_FLAG_BUILTIN | SCX_DSQ_FLAG_LOCAL_ON,
	SCX_DSQ_LOCAL_CPU_MASK = 0xffffffffULL,
};

enum scx_enq_flags : u64 {
	SCX_ENQ_WAKEUP = 1,
	SCX_ENQ_HEAD = 1ULL << 16,
	SCX_ENQ_CPU_SELECTED = 1ULL << 20,
	SCX_ENQ_PREEMPT = 1ULL << 32,
	SCX_ENQ_REENQ = 1ULL << 40,
	SCX_ENQ_LAST = 1ULL << 41,
};

enum scx_wake_flags : u64 {
	SCX_WAKE_FORK = 4,
	SCX_WAKE_TTWU = 8,
	SCX_WAKE_SYNC = 16,
};

enum scx_kick_flags : u64 {
	SCX_KICK_IDLE = 1,
	SCX_KICK_PREEMPT = 2,
};

enum scx_ops_flags : u64 {
	SCX_OPS_KEEP_BUILTIN_IDLE = 1,
	SCX_OPS_ENQ_LAST = 2,
	SCX_OPS_ENQ_EXITING = 4,
	SCX_OPS_ENQ_MIGRATION_DISABLED = 16,
};

enum scx_slices : u64 {
	SCX_SLICE_DFL = 20000000ULL, /* what the kernel gives where nobody did */
};

enum scx_exit_kind {
	SCX_EXIT_UNREG = 64, /* user space took it out */
};

enum scx_rest {
	ENQUEUE_RESTORE = 2, /* back on its runqueue, after a change */
	SCX_PICK_IDLE_CORE = 1,
	SCX_TASK_QUEUED = 1,
	SCX_DSQ_ITER_REV = 1 << 16,
	SCX_DSP_MAX_LOOPS = 32,
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
	PF_EXITING = 0x4,
	PF_KTHREAD = 0x200000,
	TASK_RUNNING = 0,
	TASK_INTERRUPTIBLE = 1,
	TASK_DEAD = 0x80,
	/* Linux errors. */
	ENOENT = 2,
	ENOMEM = 12,
	EBUSY = 16,
	EEXIST = 17,
	EINVAL = 22,
};

/* As many words as hold sim.nr_cpu_ids bits. */
struct cpumask {
	u64 bits[1];
};
struct bpf_cpumask {
	struct cpumask mask;
};

struct kernfs_node {
	u64 id;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct css_set {
	struct cgroup *dfl_cgrp;
};
struct scx_dispatch_q {
	u64 id;
};

struct sched_ext_entity {
	struct scx_dispatch_q *dsq; /* that it is in; NULL: none */
	u64 dsq_vtime;
	u64 slice;
	u32 flags;
	u32 weight;
};

struct sched_entity {
	u64 sum_exec_runtime;
};

struct task_struct {
	u32 __state;
	u32 flags;
	s32 pid;
	s32 tgid;
	s32 static_prio;
	u32 policy;
	s32 nr_cpus_allowed;
	u16 migration_disabled;
	s32 rcu_read_lock_nesting;
	const struct cpumask *cpus_ptr;
	struct sched_entity se;
	struct sched_ext_entity scx;
	u64 nvcsw;
	u64 nivcsw;
	struct css_set *cgroups;
	char comm[16];
	/* The simulator's own. */
	u32 index;     /* in its table of tasks */
	s32 cpu;       /* whose runqueue it is on */
	void *storage; /* of the map of kind TASK_STORAGE: there is but one */
	struct scx_dispatch_q at; /* what scx.dsq points to */
};

/* The callback is called with the map, the key, and the element that the timer is the first of. */
struct bpf_timer {
	s32 (*callback)(void *, u32 *, void *);
	void *map;
};

struct scx_init_task_args {
	bool fork;
};
struct scx_exit_task_args {
	bool cancelled;
};
struct scx_cpu_acquire_args;
struct scx_cpu_release_args;
struct scx_exit_info {
	s32 kind;
};

struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *, s32, u64);
	void (*enqueue)(struct task_struct *, u64);
	void (*dispatch)(s32, struct task_struct *);
	void (*tick)(struct task_struct *);
	void (*running)(struct task_struct *);
	void (*stopping)(struct task_struct *, bool);
	bool (*yield)(struct task_struct *, struct task_struct *);
	void (*set_weight)(struct task_struct *, u32);
	void (*set_cpumask)(struct task_struct *, const struct cpumask *);
	void (*update_idle)(s32, bool);
	s32 (*init_task)(struct task_struct *, struct scx_init_task_args *);
	void (*exit_task)(struct task_struct *, struct scx_exit_task_args *);
	void (*enable)(struct task_struct *);
	void (*cpu_online)(s32);
	void (*cpu_offline)(s32);
	s32 (*init)(void);
	void (*exit)(struct scx_exit_info *);
	void (*cpu_acquire)(s32, struct scx_cpu_acquire_args *);
	void (*cpu_release)(s32, struct scx_cpu_release_args *);
	u64 flags;
	u32 timeout_ms;
	char name[128];
};

/* An iterator over a queue: where it is, and what its moves set. */
struct bpf_iter_scx_dsq {
	u64 dsq;
	u64 order; /* place in the queue of the last task given, in two words */
	u64 turn;
	u64 slice;
	u64 vtime;
	u32 seq;   /* tasks that came after this are not seen */
	bool open;
	bool rev;
	bool started;
	bool has_slice;
	bool has_vtime;
};

/* What the simulated machine answers. The first argument is sim.machine. */
struct sim_kfuncs {
	void (*dsq_insert)(void *, struct task_struct *, u64 dsq, u64 slice, u64 vtime,
			   u64 enq_flags, bool by_vtime);
	s32 (*dsq_nr_queued)(void *, u64 dsq);
	bool (*dsq_move_to_local)(void *, u64 dsq);
	s32 (*create_dsq)(void *, u64 dsq);
	s32 (*iter_new)(void *, struct bpf_iter_scx_dsq *);
	struct task_struct *(*iter_next)(void *, struct bpf_iter_scx_dsq *);
	bool (*dsq_move)(void *, struct bpf_iter_scx_dsq *, struct task_struct *, u64 dsq,
			 u64 enq_flags, bool by_vtime);
	s32 (*pick_idle_cpu)(void *, const struct cpumask *, u64 flags);
	bool (*test_and_clear_cpu_idle)(void *, s32 cpu);
	s32 (*any_distribute)(void *, const struct cpumask *, const struct cpumask *);
	void (*kick_cpu)(void *, s32 cpu, u64 flags);
	void (*reenqueue_local)(void *);
	struct bpf_cpumask *(*cpumask_create)(void *);
	void (*cpumask_release)(void *, struct bpf_cpumask *);
	void *(*storage_create)(void *, struct task_struct *, u64 bytes);
	/* There is one ring. */
	void *(*ringbuf_reserve)(void *, u64 bytes);
	void (*ringbuf_submit)(void *, void *record);
	u64 (*ringbuf_query)(void *, u64 flags);
	/* And one timer. */
	s32 (*timer_start)(void *, struct bpf_timer *, u64 delay_ns);
	struct task_struct *(*task_from_pid)(void *, s32 pid);
	/* Something is called that this machine does not have: ends the simulation. */
	void (*refuse)(void *, const char *name);
};

/* The one thing that the object imports. The machine keeps it up to date around callbacks. */
struct sim_world {
	const struct sim_kfuncs *kfuncs;
	void *machine;
	u64 now;
	struct task_struct *current;
	struct cpumask *idle;     /* CPUs */
	struct cpumask *idle_smt; /* those of cores that are idle as a whole */
	struct cpumask *online;
	u32 nr_cpu_ids;
	s32 cpu; /* that the callback runs on */
};

/* A map, as its declaration made it; the last two are for the machine to fill. */
struct sim_map {
	const char *name;
	u64 value_bytes;
	u32 type;
	u32 entries; /* as declared */
	void **values;
	void **max_entries; /* the number, kept where the declaration has a pointer */
};

/* What user space sets before load. */
struct sim_rodata {
	u32 *nr_cpu_ids;
	u32 *nr_llcs;
	u32 *nr_nodes;
	bool *smt_enabled;
	bool *relayed;
	u32 *event_bytes;
	u32 *event_mask_bytes;
};

/* Of intf.h. */
struct knobs;
struct relay;
struct relay_call;

/* All that the object gives away, as the symbol `sim_object`. */
struct sim_object {
	struct sim_world *world;
	struct sched_ext_ops *ops;
	struct sim_rodata rodata;
	struct knobs *knobs;
	struct relay *relay;
	/* Programs that a policy in user space calls. */
	s32 (*relay_apply)(struct relay_call *);
	s32 (*relay_idle_cpu)(struct relay_call *);
	const struct sim_map *maps;
	u32 nr_maps;
	u64 world_bytes; /* size of struct sim_world where this was compiled */
};

/* As in the kernel's BPF interface; only those that are used. */
enum bpf_map_type {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

#endif /* SCHEDULER_SIM_KERNEL_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The wire truth: every type and constant that the kernel's half and the Rust
 * half share. Rust gets it by bindgen at build time (crate::bpf::intf), the
 * BPF programs and the native build of policy.h include it.
 *
 * Plain integers of fixed size only, no implicit padding. Suffixes: _ns is wall
 * or run time in nanoseconds, _vns is virtual time (nanoseconds of a nice 0
 * task; see policy.h), _at is an instant of scx_bpf_now().
 */
#ifndef SCHEDULER_INTF_H
#define SCHEDULER_INTF_H

#ifndef __VMLINUX_H__
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
#ifndef __cplusplus
#include <stdbool.h>
#endif
#endif

enum limits {
	/* The kernel's own ceiling on x86 is 8192; the arrays are sized at load. */
	MAX_CPUS = 8192,
	/* 2 sockets of 16 core complexes make 32; twice that again for safety. */
	MAX_LLCS = 128,
	MAX_NODES = 64,
	TASK_COMM_CHARS = 16,
};

/*
 * Histogram of durations: eight linear slots to each power of two of
 * microseconds (1024 ns), so a slot is at most 12.5 % wide. hist_slot() in policy.h
 * fills it. Powers of two of slots, so that a mask bounds the index for the
 * verifier; they reach beyond an hour.
 */
enum hist {
	HIST_SUB_BITS = 3,
	HIST_SLOTS = 256,
	/* A task's own histogram has one slot to a power of two of microseconds. */
	TASK_HIST_SLOTS = 32,
};

/* "No CPU", "no LLC": the documented absent value of the ids below. */
#define ABSENT ((u32)-1)

/*
 * The one list of counters. Each line: enum suffix, field name, what it counts.
 * All are cumulative, per CPU, written only on that CPU by the kernel's half.
 */
/* clang-format off */
#define COUNTERS(X)                                                                  \
	X(SWITCHES, switches, "times a task started to run")                         \
	X(RUN_NS, run_ns, "nanoseconds run by tasks of this scheduler")              \
	X(IDLE_NS, idle_ns, "nanoseconds without a task of any class")                \
	X(RT_NS, rt_ns, "nanoseconds that higher classes took from a busy CPU")       \
	X(STOPS, stops, "times a task stopped running")                              \
	X(WAKEUPS, wakeups, "tasks that became runnable and asked for a place")       \
	X(IDLE_DIRECT, idle_direct, "wakeups sent straight to an idle CPU")          \
	X(QUEUED, queued, "insertions into the deadline queue of an LLC")            \
	X(PINNED, pinned, "insertions into the queue of bound tasks of a CPU")       \
	X(KTHREADS, kthreads, "per-CPU kernel threads sent straight to their CPU")   \
	X(PREEMPTIONS, preemptions, "running tasks preempted by a waking task")      \
	X(TICK_PREEMPTIONS, tick_preemptions, "slices cut short at a tick for an earlier deadline") \
	X(REFUSED, refused, "CPUs spared a wakeup preemption by the rate limit")       \
	X(KEPT, kept, "slices renewed in place, nothing with an earlier deadline waited") \
	X(MIGRATIONS, migrations, "tasks that came from another CPU of the same LLC") \
	X(LLC_IN, llc_in, "tasks that came from another LLC")                        \
	X(LLC_OUT, llc_out, "tasks that left for another LLC")                       \
	X(SPREADS, spreads, "running tasks moved from a shared core to an idle one")   \
	X(STEALS, steals, "tasks pulled from the queue of another LLC")              \
	X(RESCUES, rescues, "tasks that had waited so long that they went first")   \
	X(REENQUEUED, reenqueued, "tasks moved away because a real-time task took the CPU") \
	X(HOTPLUG, hotplug, "times this CPU went off- or online")                    \
	X(BAD_CONTEXT, bad_context, "callbacks that found no state for their task")
/* clang-format on */

enum counter {
#define X(upper, lower, text) CNT_##upper,
	COUNTERS(X)
#undef X
	NR_COUNTERS,
};

/* One element a CPU of the per-CPU map `stats`. */
struct cpu_stats {
	u64 counters[NR_COUNTERS];
	/* From becoming runnable to running, wakeups and new tasks only. */
	u64 wakeup_hist[HIST_SLOTS];
};

/*
 * Settings that may be rewritten while attached (the variable `knobs` in
 * .data). User space writes, the kernel's half only reads. Validated by
 * crate::Settings, once.
 */
struct knobs {
	u64 slice_max_ns;     /* longest slice, for a task that nothing waits for */
	u64 slice_min_ns;     /* floor of every slice */
	u64 lag_max_ns;       /* most service that a sleeper may be owed, nice 0 */
	u64 lag_runnable_ns;  /* the same of a task that stays runnable */
	u64 request_min_ns;   /* shortest request that a short burst can make */
	u64 preempt_gran_vns; /* a waking task must be due earlier by this much */
	u64 preempt_gap_ns;   /* wakeup preemptions of one CPU: not more often */
};

/* A virtual clock: the vruntime that stands for lag 0. See policy.h. */
struct vclock {
	u64 now_vns;
	u64 set_at;
};

/*
 * One element a CPU of the array map `topo`. Written by user space only: before
 * attach, and after a CPU came online whose place was not known.
 */
struct cpu_topo {
	u32 llc;     /* dense index of its last-level cache */
	u32 node;    /* NUMA node, dense index */
	u32 sibling; /* the next thread of its core, round and round; itself if alone */
	u32 present; /* 1: the topology of this CPU is known */
};

/* One element an LLC of the array map `llc_topo`. Same ownership. */
struct llc_topo {
	u32 node;
	u32 nr_nearest;
	u16 nearest[MAX_LLCS]; /* the other LLCs, nearest first */
};

/*
 * One element a CPU of the array map `cpus`: what the others need to know of it.
 * Written by the callbacks that run on that CPU under its runqueue lock, but for
 * the fields that say otherwise. Readers on other CPUs take no lock: a stale
 * value costs a worse choice, never a wrong one.
 */
struct cpu_ctx {
	/* First: a pointer to it is the pointer that was checked, for the verifier. */
	struct vclock clock; /* of the tasks that may not run on the whole LLC */
	u64 ahead_vns;     /* of its LLC's by this, and meant to stay so: see part_clocks() */
	u32 running_pid;   /* 0: idle, or a task of another class */
	u32 weight;        /* of the running task, nice 0 is 1024 */
	u64 running_at;    /* up to here its run time is in `stats` */
	u64 vruntime_vns;  /* its vruntime at running_at, by the clock of the LLC */
	u64 deadline_vns;  /* its deadline, likewise */
	u64 preempted_at;  /* last wakeup preemption. Written by any waker */
	u64 released_at;   /* when a higher class took the CPU; 0: none has it */
	u64 idle_at;       /* when it went idle; 0: it is not. Started by `snapshot`, too */
	u64 balanced_at;   /* last time it took, or tried to take, a task for balance */
	u64 rescued_at;    /* last time its own queue was searched for who waited too long */
	u64 looked_at;     /* when dispatch last asked how many tasks wait */
	u64 empty_at;      /* when dispatch last found nothing to do */
	u32 slice_ns;      /* base slice, from the queue length at looked_at */
	u16 steal_from;    /* LLC to take the next task from, plus 1; 0: none */
	u16 balance_turn;  /* which LLC its tick looks at next */
	u8 crowded;        /* ticks in a row that found a whole core idle and its own shared */
	u8 pinned;         /* 0: no task waits in its queue of bound ones */
	u8 alone;          /* 1: at looked_at no task waited in its LLC's queue */
	u8 online;         /* written by cpu_online, cpu_offline and init */
	u16 nr_local;      /* tasks in its local queue. Written by `snapshot` */
	u16 nr_pinned;     /* tasks in its queue of bound ones. Written by `snapshot` */
	u64 snapshot_at;   /* written by `snapshot` */
};

/* One element an LLC of the array map `llcs`. */
struct llc_ctx {
	struct vclock clock; /* written by any of its CPUs, without a lock: see clock_advance() */
	u32 nr_cpus;         /* online. Written by cpu_online, cpu_offline and init */
	u32 nr_queued;       /* written by `snapshot` */
	u64 queued_at;       /* when a task was last about to be queued. Written by any CPU */
	u64 rescued_at;      /* last time its queue was searched for who waited too long */
	u64 pushed_at;       /* as clock.set_at, for push_clock() */
	u64 pad[2];
};

/* What the task iterator `tasks` writes for each task, cumulative. */
struct task_sample {
	s32 pid;
	s32 tgid;
	s32 cpu;
	s32 nice;
	u32 weight;
	u32 policy;       /* SCHED_NORMAL, SCHED_BATCH, SCHED_IDLE, SCHED_EXT */
	u64 vruntime_vns;
	u64 run_ns;
	u64 wakeups;
	u32 wait_hist[TASK_HIST_SLOTS];
	char comm[TASK_COMM_CHARS];
};

/* Whose waits the observer of `scheduler compare` counts, each by itself. */
enum waiters {
	WAITERS_COMMAND, /* what the compared command runs */
	WAITERS_OTHERS,  /* everybody else */
	NR_WAITERS,
};

/* Waits for a CPU, of one kind of waiters on one CPU, cumulative. */
struct waits {
	u64 hist[HIST_SLOTS]; /* by hist_slot() */
};

#endif /* SCHEDULER_INTF_H */

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
	/* Of an LLC, a power of two, and bits of a word: one for each CPU of most. */
	LLC_PARTS = 32,
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
#define COUNTERS(X)                                                                                 \
	X(SWITCHES, switches, "times a task started to run")                                        \
	X(RUN_NS, run_ns, "nanoseconds run by tasks of this scheduler")                             \
	X(IDLE_NS, idle_ns, "nanoseconds without a task of any class")                              \
	X(RT_NS, rt_ns, "nanoseconds that higher classes took from a busy CPU")                     \
	X(STOPS, stops, "times a task stopped running")                                             \
	X(WAKEUPS, wakeups, "tasks that became runnable and asked for a place")                     \
	X(WAIT_NS, wait_ns, "nanoseconds from becoming runnable to running, all together")          \
	X(REQUEUE_NS, requeue_ns, "nanoseconds from the end of a run to the next without sleep")    \
	X(IDLE_DIRECT, idle_direct, "wakeups sent straight to an idle CPU")                         \
	X(QUEUED, queued, "insertions into the deadline queue of an LLC")                           \
	X(PINNED, pinned, "insertions into the queue of bound tasks of a CPU")                      \
	X(KTHREADS, kthreads, "per-CPU kernel threads sent straight to their CPU")                  \
	X(PREEMPTIONS, preemptions, "running tasks preempted by a waking task")                     \
	X(TICK_PREEMPTIONS, tick_preemptions, "slices cut short at a tick for an earlier deadline") \
	X(REFUSED, refused, "CPUs spared a wakeup preemption by the rate limit")                    \
	X(KEPT, kept, "slices renewed in place, nothing with an earlier deadline waited")           \
	X(MIGRATIONS, migrations, "tasks that came from another CPU of the same LLC")               \
	X(LLC_IN, llc_in, "tasks that came from another LLC")                                       \
	X(LLC_OUT, llc_out, "tasks that left for another LLC")                                      \
	X(SPREADS, spreads, "running tasks moved from a shared core to an idle one")                \
	X(STEALS, steals, "tasks pulled from the queue of another LLC")                             \
	X(RESCUES, rescues, "tasks that had waited so long that they went first")                   \
	X(REENQUEUED, reenqueued, "tasks moved away because a real-time task took the CPU")         \
	X(HOTPLUG, hotplug, "times this CPU went off- or online")                                   \
	X(OFFERED, offered, "runnable tasks offered to the policy in user space")                   \
	X(DECIDED, decided, "offers that ended as the policy decided")                              \
	X(TAKEN, taken, "offers that the base ended: the policy was late")                          \
	X(GONE, gone, "offers that ended because the task left its queue")                          \
	X(OVERFLOW, overflow, "runnable tasks not offered for want of room in the ring")            \
	X(STALE, stale, "decisions that came too late: the offer had ended")                        \
	X(MALFORMED, malformed, "decisions that cannot be: a CPU that is not allowed")              \
	X(LATE, late, "times the base took over from a policy that did not answer")                 \
	X(BAD_CONTEXT, bad_context, "callbacks that found no state for their task")
/* clang-format on */

enum counter {
#define X(upper, lower, text) CNT_##upper,
	COUNTERS(X)
#undef X
	NR_COUNTERS,
};

/* What a task did before it waited in a queue. */
enum waited {
	WAITED_AFTER_WAKEUP, /* it slept, or is new */
	WAITED_AFTER_RUN,
};

/* One element a CPU of the per-CPU map `stats`. */
struct cpu_stats {
	u64 counters[NR_COUNTERS];
	/* From becoming runnable to running, and from one run to the next, by enum waited. */
	u64 wait_hists[2][HIST_SLOTS];
	/* From an offer to the policy's decision, and to the run that follows it. */
	u64 answer_hist[HIST_SLOTS];
	u64 served_hist[HIST_SLOTS];
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
	u64 grace_ns;         /* how long a CPU waits for the policy in user space */
	u64 idle_direct;      /* 0: wakeups go through that policy even where a CPU is idle */
	u64 task_stats;       /* 1: keep figures of each task: somebody reads them */
};

/* A virtual clock: the vruntime that stands for lag 0. See policy.h. */
struct vclock {
	u64 now_vns;
	u64 set_at;
};

/* ---- rules: see follow.h and rules.bpf.c ---- */

enum {
	RULES_MAX = 1024,
	/* Different sets of CPUs that rules prefer. */
	CPU_SETS_MAX = 64,
	/* Weight factors are in parts of this. */
	FACTOR_ONE = 1024,
	/* Of a task's `rule`: 0 or an index of `effects` plus 1; the rest is its generation. */
	RULE_INDEX_BITS = 12,
	/* The longest path that is told of, and the longest name in it, with their NULs. */
	PATH_CHARS = 1024,
	NAME_CHARS = 256,
};

/* What a rule makes of a task. */
enum task_class {
	CLASS_OWN, /* as its scheduling policy says */
	CLASS_LATENCY,
	CLASS_NORMAL,
	CLASS_BATCH,
	CLASS_IDLE,
	NR_CLASSES,
};

/*
 * One element a rule of the array map `effects`, which has room for two generations of them.
 * Written by user space before a task is told of it, and then as it is until no task has it.
 */
struct effect {
	u64 slice_ns;   /* longest slice; 0: that of all */
	u64 budget_ns;  /* of a boost: the CPU time of a period that it is for; 0: this is none */
	u64 period_ns;
	u64 expires_ns; /* of a boost: from the match on; 0: never */
	u32 factor;     /* of the weight */
	u32 class;      /* enum task_class */
	u32 cpu_set;    /* index of `cpu_sets` plus 1; 0: any CPU is as good */
	u32 pad;
};

/* CPUs that a rule prefers, a bit a CPU. */
struct cpu_set {
	u64 cpus[MAX_CPUS / 64];
};

/* How it stands with the boost of a task. */
struct boost {
	u64 budget_ns; /* 0: it has none */
	u64 period_ns;
	u64 used_ns;    /* CPU time of this period, and what the last one overran */
	u64 period_at;  /* when it began */
	u64 expires_ns; /* as that of its rule: see boost_adopted() */
	u64 expires_at; /* 0: never */
};

/* Elements of the array map `ruling`. */
enum ruling_index {
	RULING_GENERATION, /* of the rules in force; 0: there are none. Written by user space */
	RULING_LOST,       /* times that the ring of events was full */
	NR_RULING,
};

/* What rules go by. The iterator `rule_scan` writes one for each task, its paths behind it. */
struct task_key {
	u64 born_at;
	s32 pid;
	s32 tgid;
	u32 uid;       /* effective, as the initial user namespace has it */
	s32 nice;
	u32 asked;     /* for rule_apply */
	u32 rule;      /* its rule as of now */
	u32 exe_len;   /* of names, from the last to the first, each with its NUL; 0: unknown */
	u32 cgroup_len;
	char comm[TASK_COMM_CHARS];
};

/* The answer of `rule_describe`. */
struct described {
	struct task_key key;
	char exe[PATH_CHARS + NAME_CHARS];
	char cgroup[PATH_CHARS + NAME_CHARS];
};

/* What `rule_describe` and `rule_apply` are called with. */
struct rule_call {
	u64 born_at; /* of another task of that number the answer is no */
	s32 pid;
	u32 asked;
	u32 rule;
	u32 done; /* answer: 1 */
	u32 waits; /* answer of `rule_apply`: 1 if it is in a queue */
	u32 pad;
};

/* Where a task went when it last became runnable, and why. */
enum placed {
	PLACED_NOWHERE,
	PLACED_IDLE, /* an idle CPU was there */
	PLACED_PREFERRED, /* an idle one of those that its rule prefers */
	PLACED_PREEMPTS, /* in front of a task that was due later */
	PLACED_KTHREAD,
	PLACED_READER, /* first of all, as an RCU reader */
	PLACED_SPREAD, /* moved to a whole idle core while it ran */
	PLACED_OFFERED, /* the policy in user space was to say */
	PLACED_BOUND, /* into the queue of its CPU, by its deadline */
	PLACED_QUEUED, /* into the queue of its LLC, by its deadline */
	NR_PLACED,
};

/* What the recorder tells of: one in its ring each time. */
enum traced_kind {
	TRACED_SWITCH, /* a CPU goes from a task to `next` */
	TRACED_WAKING, /* a task is woken, by `next`, to run on `to` perhaps */
	TRACED_MIGRATE, /* a task moves from `cpu` to `to` */
};

struct traced {
	u64 traced_at; /* since boot, suspend included */
	u32 kind;      /* enum traced_kind */
	s32 cpu;
	s32 pid;
	s32 tgid;
	s32 prio;      /* as in task_struct: 120 is nice 0 */
	u32 state; /* of a task that stops: as sched_switch tells it; 0: it is still runnable */
	s32 next_pid;
	s32 next_tgid;
	s32 next_prio;
	s32 to;
	/* Why `next` runs there, if it is a task of the scheduler. */
	s64 lag_vns; /* what it is owed, */
	s64 due_vns; /* and its deadline, by the clock of its LLC */
	u32 weight;
	u32 placed; /* enum placed; PLACED_NOWHERE: nothing is known */
	char comm[TASK_COMM_CHARS];
	char next_comm[TASK_COMM_CHARS];
};

/* What `explain_task` is called with, and answers. */
struct explained {
	s32 pid;
	u32 found; /* answer: 1 */
	s32 tgid;
	s32 cpu;
	s32 nice;
	u32 policy;
	u32 rule;
	u32 weight;
	u32 class;
	u32 pad;
	u32 placed; /* enum placed */
	u32 boosted;
	s64 lag_vns; /* what it is owed by the clock that it goes by */
	s64 due_vns; /* its deadline less that clock */
	u64 early_vns;
	u64 slice_ns;
	u64 budget_ns;
	u64 period_ns;
	u64 used_ns;
	u64 left_ns; /* until the boost expires; 0: it does not, or there is none */
	u64 burst_avg_ns;
	u64 run_ns; /* all it ever ran */
	char comm[TASK_COMM_CHARS];
};

/*
 * The clock of tasks that may not run on the whole of an LLC, beside the LLC's: they may
 * progress more slowly than the others there for as long as they live.
 */
struct side_clock {
	struct vclock clock;
	u64 ahead_vns; /* of its LLC's by this, and meant to stay so: see part_clocks() */
};

/*
 * One element a CPU of the array map `topo`. Written by user space only: before
 * attach, and after a CPU came online whose place was not known.
 */
struct cpu_topo {
	u32 llc;     /* dense index of its last-level cache */
	u32 node;    /* NUMA node, dense index */
	u32 sibling; /* the next thread of its core, round and round; itself if alone */
	u32 in_llc;  /* the next CPU of its LLC, likewise */
	u32 part;    /* of tasks that are confined in its LLC, and may use this CPU first */
	u32 present; /* 1: the topology of this CPU is known */
};

/* One element an LLC of the array map `llc_topo`. Same ownership. */
struct llc_topo {
	u32 node;
	u32 first;             /* CPU of it */
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
	struct side_clock side; /* of the tasks that are bound to it */
	u32 running_pid;  /* 0: idle, or a task of another class */
	u32 weight;       /* of the running task, nice 0 is 1024 */
	u64 running_at;   /* up to here its run time is in `stats` */
	u64 vruntime_vns; /* its vruntime at running_at, by the clock of the LLC */
	u64 deadline_vns; /* its deadline, likewise */
	u64 preempted_at; /* last wakeup preemption. Written by any waker */
	u64 released_at;  /* when a higher class took the CPU; 0: none has it */
	u64 idle_at;      /* when it went idle; 0: it is not. Started by `snapshot`, too */
	u64 balanced_at;  /* last time it took, or tried to take, a task for balance */
	u64 rescued_at;   /* last time its own queue was searched for who waited too long */
	u64 looked_at;    /* when dispatch last asked how many tasks wait */
	u64 empty_at;     /* when dispatch last found nothing to do */
	u32 slice_ns;     /* base slice, from the queue length at looked_at */
	u16 steal_from;   /* LLC to take the next task from, plus 1; 0: none */
	u16 balance_turn; /* which LLC its tick looks at next */
	u8 crowded;       /* ticks in a row that found a whole core idle and its own shared */
	u8 asked;         /* 1: dispatch was called, since a task began to run or it went idle */
	u8 alone;         /* 1: at looked_at no task waited in its LLC's queues */
	u8 online;        /* written by cpu_online, cpu_offline and init */
	u16 nr_local;     /* tasks in its local queue. Written by `snapshot` */
	u16 nr_pinned;    /* tasks in its queue of bound ones. Written by `snapshot` */
	u64 snapshot_at;  /* written by `snapshot` */
	u64 wants_at;     /* since when it waits for the policy in user space; 0: it does not */
	u64 run_vtime;    /* order that the running task was decided to have; see has_vtime */
	u32 has_vtime;    /* 0: nobody decided about the running task */
	u16 give_way;     /* 1: that policy wants what runs preempted. Written by relay_apply */
	u16 parts_wait;   /* 1: at looked_at tasks waited in the queues of its parts */
	u32 parts;        /* bits: parts of its LLC whose tasks it may run. Written by any CPU */
	u32 pinned;       /* 0: no task waits in its queue of bound ones. hurry() sets it, too */
	u64 leaving_at;   /* when it went idle, and was not asked; 0: it is asked */
};

/*
 * One element for each part of an LLC of the array map `parts`: tasks that are confined to some of
 * its CPUs, by the first of these, so all that have the same affinity are together.
 */
struct part_ctx {
	/* First, as in struct cpu_ctx. Written by any CPU of the LLC, as the clock of that. */
	struct side_clock side;
	u64 rescued_at; /* last time its queue was searched for who waited too long */
};

/* One element an LLC of the array map `llcs`. */
struct llc_ctx {
	struct vclock clock; /* written by any of its CPUs, without a lock: see clock_advance() */
	u32 nr_cpus;    /* online. Written by cpu_online, cpu_offline and init */
	u32 nr_queued;  /* written by `snapshot` */
	u64 queued_at;  /* when a task was last about to be queued. Written by any CPU */
	u64 part_at;    /* the same for the queues of its parts */
	u64 rescued_at; /* last time its queue was searched for who waited too long */
	u64 pushed_at;  /* as clock.set_at, for push_clock() */
	u64 paced_at; /* when its clock was last looked at for its pace, */
	u64 paced_vns; /* what that showed, */
	u64 pace_vns; /* and the pace before that: note_pace(). Written by any CPU */
	u64 reached_vns; /* how far who runs there is: note_progress(). Written by any CPU */
	u32 parts;      /* bits: parts that tasks ever waited in. Written by any CPU */
	u32 pad;
};

/* What the task iterator `tasks` writes for each task, cumulative. */
struct task_sample {
	s32 pid;
	s32 tgid;
	s32 cpu;
	s32 nice;
	u32 weight;
	u32 policy; /* SCHED_NORMAL, SCHED_BATCH, SCHED_IDLE, SCHED_EXT */
	u32 rule; /* 0 or its index plus 1: the word of the task without its generation */
	u32 pad;
	u64 vruntime_vns;
	u64 run_ns;
	u64 wakeups;
	u64 nivcsw; /* context switches that were not its own will */
	u32 wait_hist[TASK_HIST_SLOTS];
	char comm[TASK_COMM_CHARS];
};

/* ---- a policy in user space: see relay.h ---- */

/* What an event tells of. */
enum event_kind {
	EV_RUNNABLE, /* a task is offered */
	EV_CPU,      /* a CPU has nothing to run but what is offered */
	EV_CHANGED,  /* the weight or the affinity of a task that was offered before */
	EV_EXITED,   /* such a task is gone */
};

/*
 * An element of the ring `events`: all of a task are told of in this form. Behind it is where
 * the task may run, a bit a CPU, as many words of 64 as hold nr_cpu_ids.
 */
struct event {
	u64 told_at;
	u64 enq_flags;    /* SCX_ENQ_* */
	u64 cgroup;       /* id, as the inode of its directory; 0: unknown */
	u64 started_at;   /* of its last run; 0: it never ran */
	u64 stopped_at;
	u64 burst_ns;     /* run since it woke */
	u64 nvcsw;        /* context switches: by its own will, */
	u64 nivcsw;       /* and not */
	u64 vruntime_vns; /* by the clock of LLC 0, so that those of all tasks compare */
	u32 kind;         /* enum event_kind */
	s32 pid;
	s32 tgid;
	s32 cpu;          /* EV_CPU: that; else where the task ran last; -1: nowhere */
	u32 offer;        /* number of the offer of this task */
	u32 weight;
	s32 nice;
	u32 policy;       /* SCHED_* */
	char comm[TASK_COMM_CHARS];
};

enum {
	DECISIONS_MAX = 1024,
	/*
	 * Slices of a policy. The longest is what sched_ext gives by itself: one of 100 ms, at
	 * random, is alone as much as a policy may cost a task that waits.
	 */
	DECIDED_SLICE_MIN_US = 100,
	DECIDED_SLICE_MAX_US = 20000,
	/* Of struct decision. */
	DECISION_PREEMPT = 1,
	/* Only what comes later by its own decision and its run since. */
	DECISION_PREEMPT_LATER = 2,
};

/* What became of a decision. */
enum verdict {
	VERDICT_APPLIED,
	VERDICT_STALE,
	VERDICT_MALFORMED,
	VERDICT_EARLY, /* the task is about to be in its queue: to be tried again */
};

/* An element of the array `decisions`, which user space writes. */
struct decision {
	u64 vtime;    /* lower runs first, among those decided for the same CPU and for any */
	u64 slice_ns; /* 0: the longest of the settings */
	s32 pid;      /* 0: none, `cpu` is preempted or, without flags, looks at its queues */
	u32 offer;
	u32 cpu;      /* ABSENT: any */
	u16 flags;    /* DECISION_* */
	u16 verdict;  /* written by the kernel's half */
};

/* What `relay_apply` is called with, and answers. */
struct relay_call {
	u32 nr;         /* elements of `decisions` to apply */
	u32 nr_offered; /* answer: tasks that wait for a decision */
	u32 nr_decided; /* answer: tasks that wait for a CPU, decided */
	u32 late;       /* answer: 1 while the base has taken over */
	u64 now_at;     /* answer: the clock of events */
};

/* What waits, as the timer of the relay sees it. */
struct relay_look {
	u32 nr_for_cpus; /* tasks decided for one CPU that wait for it */
	u32 nr_online;   /* CPUs */
	u32 preempted;   /* 1: a CPU was preempted for the first of those for any */
	u32 pad;
};

/* The state of the relay. The kernel's half writes it. */
struct relay {
	u64 asked_at;     /* since when CPUs want a decision and none came; 0: they do not */
	u64 armed_at;     /* when the timer was last started */
	u64 base_at;      /* when a CPU last took from a queue of the base */
	u64 late_at;      /* since when the base has taken over; 0: it has not */
	u64 retry_at;     /* not before then does the policy get another try */
	u64 backoff_ns;   /* how long it had to wait for its last try */
	u64 late_ns;      /* all spells of lateness that are over, together */
	u64 offered_at;   /* when a task was last offered */
	u64 rescued_at;   /* when the queues were last searched for who is overdue */
	u32 tgid;         /* the policy's process */
	u32 armed;        /* 1: the timer runs */
	u32 ticking;      /* 1: it is about to be armed again, or not */
	u32 rescued_turn; /* how often they were */
	struct relay_look seen;    /* what the timer saw last */
	struct relay_look looking; /* what it is seeing */
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The state of a task, which the scheduler's object and that of the rules share, and how
 * user space hears that another rule may be a task's.
 */
#ifndef SCHEDULER_TASK_H
#define SCHEDULER_TASK_H

/* What a task's affinity lets it do; decides which clock and queue it belongs to. */
enum affinity {
	AFF_WHOLE, /* every LLC wholly or not at all: shares the clock of its LLC */
	AFF_PART,  /* some CPUs of an LLC, confined: in the queue and by the clock of a part */
	AFF_ONE,   /* one CPU: in the queue and by the clock of that CPU */
};

/*
 * State of a task. Written under the lock of the runqueue that the task is on, or
 * before it is on any; read by `tasks` without.
 */
struct task_ctx {
	u64 vruntime_vns;
	u64 deadline_vns; /* of the request under way */
	u64 charged_ns;   /* p->se.sum_exec_runtime up to which vruntime is charged */
	u64 runnable_at;  /* since when it waits for its first run; 0: it does not */
	u64 queued_at;    /* since when it waits in any queue; 0: it does not */
	u64 saved_until_ns; /* a reader that was rescued goes on until charged_ns is here */
	u64 burst_ns;     /* run since it woke */
	u64 burst_avg_ns;
	u32 weight;
	u32 clock;        /* id of the queue whose clock vruntime goes by; ABSENT: none yet */
	s32 cpu;          /* that it ran on last; -1: it never ran */
	u32 affinity;     /* enum affinity */
	u32 part;         /* of all LLCs' parts, if confined; ABSENT: to be found */
	bool spent;       /* used up its last request without sleeping */
	bool sync;        /* its waker is about to sleep */
	bool rescued;     /* runs out of turn: drives no clock */
	bool went_first;  /* it was queued before all others last time, as an RCU reader */

	/* Of its rule: see follow.h. */
	bool boosted;     /* a boost is on */
	u8 class;         /* enum task_class */
	u8 cpu_set;       /* index of `cpu_sets` plus 1 */
	u8 placed;        /* enum placed */
	bool restless;    /* its rule is new, or a boost: see follow_rule() */
	u32 rule;         /* that it has. Written by user space and at fork, without the lock */
	u32 ruled;        /* that the rest goes by */
	u64 early_vns;    /* its place among others is before its vruntime by this */
	u64 rule_slice_ns; /* 0: that of all */
	struct boost boost;
	u32 factor;
	u32 asked;        /* times that user space was told of it, */
	u32 answered;     /* and the one that `rule` answers */
	u32 told;         /* 1: it is in the ring, and user space has not looked at it since */
	u32 named;        /* the generation of rules in which it got this name */
	char name[TASK_COMM_CHARS];

	/* Only with `relayed`. */
	u64 offer;        /* its number and, in the last two bits, its enum offer_state */
	u64 offered_at;
	u64 started_at;   /* of its last run; 0: it never ran */
	u64 stopped_at;
	u64 next_vtime;   /* of a renewal that is decided: its order, */
	u64 next_slice_ns; /* its slice (also that of the last decision), */
	u64 next_dsq;     /* and its queue */
	bool renewal;     /* it was offered while it runs, to go on */

	/* Only with knobs.task_stats. */
	u64 run_ns;
	u64 wakeups;
	u32 wait_hist[TASK_HIST_SLOTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} task_ctxs SEC(".maps");

static __always_inline struct task_ctx *task_ctx_of(struct task_struct *p)
{
	return bpf_task_storage_get(&task_ctxs, p, 0, 0);
}

/* See enum ruling_index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, u64);
	__uint(max_entries, NR_RULING);
} ruling SEC(".maps");

/* Numbers of tasks that user space is to look at: see tell_rules(). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} rule_events SEC(".maps");

/* The rule without its generation: 0, or the index of its effect plus 1. */
static __always_inline u32 rule_index(u32 rule)
{
	return rule & ((1U << RULE_INDEX_BITS) - 1);
}

/* The generation of the rules in force; 0: there are none. */
static __always_inline u32 rules_in_force(void)
{
	u32 key = RULING_GENERATION;
	u64 *generation = bpf_map_lookup_elem(&ruling, &key);

	return generation ? *generation : 0;
}

/*
 * Something that rules go by has changed. User space looks at the task as it is then, so one
 * event stands for all changes until it does: however often a task renames itself, it is in the
 * ring once. Where there is no room user space looks at all tasks.
 */
static __always_inline void tell_rules(struct task_struct *p, struct task_ctx *tctx)
{
	u32 key = RULING_LOST;
	u64 *told, *lost;

	__sync_fetch_and_add(&tctx->asked, 1);
	if (__sync_lock_test_and_set(&tctx->told, 1))
		return;
	told = bpf_ringbuf_reserve(&rule_events, sizeof(*told), 0);
	if (told) {
		*told = p->pid;
		bpf_ringbuf_submit(told, 0);
		return;
	}
	tctx->told = 0;
	lost = bpf_map_lookup_elem(&ruling, &key);
	if (lost)
		__sync_fetch_and_add(lost, 1);
}

#endif /* SCHEDULER_TASK_H */

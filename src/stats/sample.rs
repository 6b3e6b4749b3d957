//! The state of the scheduler at an instant, cumulative.

use super::hist;
use crate::{
    bpf::{
        intf::{self, cpu_ctx, cpu_stats},
        wire,
    },
    units::{CpuId, Nanos},
};
use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

/// Everything at an instant.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When, for differences.
    pub at: Instant,
    /// When, for people.
    pub time: SystemTime,
    /// One for each possible CPU, ascending.
    pub cpus: Vec<CpuSample>,
    /// One for each LLC, by its dense index.
    pub llcs: Vec<LlcSample>,
    /// What the kernel had to do in the place of a sched_ext scheduler, by its own names; cumulative since the attach.
    /// None before Linux 6.15.
    pub kernel_events: BTreeMap<String, u64>,
    /// The policy in user space, if one decides.
    pub policy: Option<PolicySample>,
}

/// An LLC at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LlcSample {
    /// Dense index of its NUMA node.
    pub node: u32,
    /// Tasks in its deadline queue. LLC 0 has those in the queues of a policy in user space, too.
    pub nr_queued: u32,
}

/// A policy in user space at an instant.
#[derive(Debug, Clone)]
pub struct PolicySample {
    /// What it is called.
    pub name: String,
    /// Whether the kernel's half has taken over from it.
    pub late: bool,
    /// Figures of its own, by their names.
    pub figures: BTreeMap<String, f64>,
}

/// A CPU at an instant.
#[derive(Debug, Clone)]
pub struct CpuSample {
    /// Its number.
    pub cpu: CpuId,
    /// Dense index of its NUMA node.
    pub node: u32,
    /// Dense index of its LLC.
    pub llc: u32,
    /// The CPU that stands for its core.
    pub core: CpuId,
    /// What it has counted since the scheduler was loaded.
    pub stats: cpu_stats,
    /// What it is doing.
    pub state: cpu_ctx,
}

impl CpuSample {
    /// A CPU that is online and has done nothing.
    pub fn new(cpu: CpuId, node: u32, llc: u32, core: CpuId) -> Self {
        let state = cpu_ctx { online: 1, ..wire::zero() };
        Self { cpu, node, llc, core, stats: wire::zero(), state }
    }

    /// The histograms of all waits in a queue: those after wakeups, and those after other runs.
    pub fn queue_hists(&self) -> &[[u64; hist::SLOTS]; 2] {
        &self.stats.wait_hists
    }

    /// The histogram of those after wakeups.
    pub fn wakeup_hist(&self) -> &[u64; hist::SLOTS] {
        &self.stats.wait_hists[intf::waited_WAITED_AFTER_WAKEUP as usize]
    }

    /// The instant of the snapshot less all time without a task, in nanoseconds: what it grows by
    /// is the time taken by tasks of any class. An idle spell under way at the snapshot counts.
    pub fn busy_ns(&self) -> u64 {
        self.state.snapshot_at.saturating_sub(self.idle().0)
    }

    /// All time without a task of any class, up to the snapshot.
    pub fn idle(&self) -> Nanos {
        let now = self.state.snapshot_at;
        let idle_since = match (self.state.running_pid, self.state.idle_at) {
            (0, since) if since != 0 => since,
            _ => now,
        };
        Nanos(self.count(intf::counter_CNT_IDLE_NS) + now.saturating_sub(idle_since))
    }

    /// The value of a counter.
    pub fn count(&self, counter: intf::counter) -> u64 {
        self.stats.counters[counter as usize]
    }

    /// Tasks that are on this CPU or wait for this one and no other.
    pub fn runnable(&self) -> u64 {
        u64::from(self.state.running_pid != 0) + self.waiting()
    }

    /// Tasks that wait for this CPU and no other.
    pub fn waiting(&self) -> u64 {
        u64::from(self.state.nr_local) + u64::from(self.state.nr_pinned)
    }
}

impl Sample {
    /// Tasks in the deadline queues of all LLCs, and in those of a policy in user space.
    pub fn nr_queued(&self) -> u64 {
        self.llcs.iter().map(|llc| u64::from(llc.nr_queued)).sum()
    }

    /// The sum of a counter over all CPUs.
    pub fn count(&self, counter: intf::counter) -> u64 {
        self.cpus.iter().map(|cpu| cpu.count(counter)).sum()
    }

    /// Tasks that wait, in all queues.
    pub fn waiting(&self) -> u64 {
        self.nr_queued() + self.cpus.iter().map(CpuSample::waiting).sum::<u64>()
    }

    /// Tasks that run or wait.
    pub fn runnable(&self) -> u64 {
        self.nr_queued() + self.cpus.iter().map(CpuSample::runnable).sum::<u64>()
    }

    /// Whether the scheduler has done something since `earlier`, or has nothing to do: what a
    /// watchdog wants to know.
    pub fn shows_progress_since(&self, earlier: &Sample) -> bool {
        let switches = |sample: &Sample| sample.count(intf::counter_CNT_SWITCHES);
        self.waiting() == 0 || switches(self) != switches(earlier)
    }
}

#[cfg(test)]
pub(crate) mod made {
    //! Samples for tests.

    use super::*;
    use std::time::Duration;

    /// A CPU that has done nothing, in node and LLC 0.
    pub fn cpu(cpu: u32) -> CpuSample {
        CpuSample::new(CpuId(cpu), 0, 0, CpuId(cpu))
    }

    /// A sample `ms` after `start`.
    pub fn sample(start: Instant, ms: u64, cpus: Vec<CpuSample>) -> Sample {
        let after = Duration::from_millis(ms);
        Sample {
            at: start + after,
            time: SystemTime::UNIX_EPOCH + after,
            cpus,
            llcs: vec![LlcSample { node: 0, nr_queued: 0 }],
            kernel_events: BTreeMap::new(),
            policy: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_what_was_not_idle() {
        let mut cpu = made::cpu(0);
        cpu.stats.counters[intf::counter_CNT_IDLE_NS as usize] = 100;
        cpu.state.snapshot_at = 5_000;
        assert_eq!(cpu.busy_ns(), 4_900);
        // Idle at the snapshot, for a while.
        cpu.state.idle_at = 4_000;
        assert_eq!(cpu.busy_ns(), 3_900);
        // A task runs: whatever `idle_at` says is about to be cleared.
        cpu.state.running_pid = 7;
        assert_eq!(cpu.busy_ns(), 4_900);
        // Went idle after the snapshot.
        cpu.state.running_pid = 0;
        cpu.state.idle_at = 6_000;
        assert_eq!(cpu.busy_ns(), 4_900);
    }

    #[test]
    fn progress_is_a_switch_or_nothing_to_do() {
        let start = Instant::now();
        let idle = made::sample(start, 0, vec![made::cpu(0)]);
        assert!(idle.shows_progress_since(&idle));
        let mut stuck = idle.clone();
        stuck.llcs[0].nr_queued = 1;
        assert!(!stuck.shows_progress_since(&idle));
        stuck.cpus[0].stats.counters[intf::counter_CNT_SWITCHES as usize] = 1;
        assert!(stuck.shows_progress_since(&idle));
        assert_eq!((stuck.waiting(), stuck.runnable()), (1, 1));
        stuck.cpus[0].state.running_pid = 1;
        stuck.cpus[0].state.nr_local = 2;
        assert_eq!((stuck.waiting(), stuck.runnable()), (3, 4));
    }
}

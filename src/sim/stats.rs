//! What a simulated machine adds up.

use crate::{bpf::policy, stats::hist};
use std::collections::BTreeMap;

/// Durations.
#[derive(Debug, Clone)]
pub struct Durations {
    /// By `hist_slot()`.
    pub slots: Box<[u64; hist::SLOTS]>,
    /// The longest.
    pub max_ns: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { slots: Box::new([0; hist::SLOTS]), max_ns: 0 }
    }
}

impl Durations {
    /// Counts one.
    pub fn add(&mut self, ns: u64) {
        self.slots[policy::hist_slot(ns) as usize] += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// From the slots of a histogram that the kernel's half filled. The longest is the end of the last slot in use.
    pub fn of_slots(slots: [u64; hist::SLOTS]) -> Self {
        let last = slots.iter().rposition(|&count| count > 0);
        Self { slots: Box::new(slots), max_ns: last.map_or(0, |slot| hist::slot_end(slot).0) }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// Takes in those of another run.
    pub fn merge(&mut self, other: &Self) {
        self.slots.iter_mut().zip(other.slots.iter()).for_each(|(to, from)| *to += from);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// What a share (0 to 1) of them stays below, in microseconds; no more than the longest.
    pub fn percentile_us(&self, share: f64) -> Option<f64> {
        let below = hist::percentile(&self.slots[..], share, hist::slot_end)?;
        Some(below.0.min(self.max_ns) as f64 / 1e3)
    }
}

/// Of a group of tasks.
#[derive(Debug, Clone, Default)]
pub struct GroupStats {
    /// From waking to running.
    pub wakeup: Durations,
    /// From any time of becoming runnable, the end of a slice included, to running.
    pub wait: Durations,
    /// Run time of all of them.
    pub run_ns: u64,
    /// What they are due by weight; none where affinity makes that another question.
    pub due_ns: Option<u64>,
    /// Periods that ended in time or late.
    pub periods: u64,
    /// Those that ended late.
    pub missed: u64,
    /// Times one began to run on another CPU than the last.
    pub migrations: u64,
    /// Tasks that there ever were.
    pub tasks: u64,
}

/// Of the machine.
#[derive(Debug, Clone, Default)]
pub struct MachineStats {
    /// Time simulated.
    pub simulated_ns: u64,
    /// The same, of all CPUs together.
    pub cpu_ns: u64,
    /// Of that, with a task,
    pub run_ns: u64,
    /// with a task of a higher class,
    pub taken_ns: u64,
    /// and without the CPU.
    pub offline_ns: u64,
    /// Time that CPUs were idle beside the task that they took then.
    pub idle_beside: Durations,
    /// Time, in nanoseconds, that tasks shared their core beside an idle one that they may use; to a tick.
    pub shared_ns: u64,
    /// Times a task started to run.
    pub switches: u64,
    /// Events and callbacks.
    pub events: u64,
}

/// Of a policy in user space.
#[derive(Debug, Clone, Default)]
pub struct PolicyStats {
    /// What it is called.
    pub name: String,
    /// The counters of these names, of all CPUs: see `src/bpf/intf.h`.
    pub offered: u64,
    /// Likewise.
    pub decided: u64,
    /// Likewise.
    pub taken: u64,
    /// Likewise.
    pub gone: u64,
    /// Likewise.
    pub overflow: u64,
    /// Likewise.
    pub stale: u64,
    /// Likewise.
    pub malformed: u64,
    /// Likewise.
    pub late: u64,
    /// How long the base had taken over.
    pub late_ns: u64,
    /// From an offer to the decision.
    pub answer: Durations,
    /// From an offer to the run that follows the decision.
    pub served: Durations,
    /// Figures of its own, as it last showed them.
    pub figures: BTreeMap<String, f64>,
}

impl PolicyStats {
    /// Counts by their names.
    pub fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("offered", self.offered),
            ("decided", self.decided),
            ("taken", self.taken),
            ("gone", self.gone),
            ("overflow", self.overflow),
            ("stale", self.stale),
            ("malformed", self.malformed),
            ("late", self.late),
        ]
    }

    fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.decided += other.decided;
        self.taken += other.taken;
        self.gone += other.gone;
        self.overflow += other.overflow;
        self.stale += other.stale;
        self.malformed += other.malformed;
        self.late += other.late;
        self.late_ns += other.late_ns;
        self.answer.merge(&other.answer);
        self.served.merge(&other.served);
        self.figures.clone_from(&other.figures);
    }
}

/// What a run adds up to.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// By group.
    pub groups: Vec<GroupStats>,
    /// Of the machine.
    pub machine: MachineStats,
    /// Of the policy in user space, if one decided.
    pub policy: Option<PolicyStats>,
    /// A number that stands for everything that happened, in its order.
    pub log_hash: u64,
}

impl Stats {
    /// Takes in those of another run of the same scenario.
    pub fn merge(&mut self, other: &Self) {
        if self.groups.is_empty() {
            *self = other.clone();
            return;
        }
        for (to, from) in self.groups.iter_mut().zip(&other.groups) {
            to.wakeup.merge(&from.wakeup);
            to.wait.merge(&from.wait);
            to.run_ns += from.run_ns;
            to.due_ns = to.due_ns.zip(from.due_ns).map(|(a, b)| a + b);
            to.periods += from.periods;
            to.missed += from.missed;
            to.migrations += from.migrations;
            to.tasks += from.tasks;
        }
        let (to, from) = (&mut self.machine, &other.machine);
        to.simulated_ns += from.simulated_ns;
        to.cpu_ns += from.cpu_ns;
        to.run_ns += from.run_ns;
        to.taken_ns += from.taken_ns;
        to.offline_ns += from.offline_ns;
        to.idle_beside.merge(&from.idle_beside);
        to.shared_ns += from.shared_ns;
        to.switches += from.switches;
        to.events += from.events;
        if let (Some(to), Some(from)) = (&mut self.policy, &other.policy) {
            to.merge(from);
        }
        self.log_hash = self.log_hash.rotate_left(1) ^ other.log_hash;
    }
}

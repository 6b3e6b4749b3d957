//! What happened between two samples. Its serialized form is the JSON output.

use super::{
    hist,
    sample::{CpuSample, Sample},
    tasks::{RuleRow, TaskRow},
};
use crate::{
    bpf::{COUNTERS, intf},
    units::{CpuId, Nanos},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use std::{collections::BTreeMap, time::SystemTime};

/// An interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its end, in seconds since 1970.
    pub time: f64,
    /// Its length in seconds.
    pub interval_s: f64,
    /// One for each CPU that is online or did something, ascending.
    pub cpus: Vec<CpuRow>,
    /// One for each LLC.
    pub llcs: Vec<LlcRow>,
    /// Everything together.
    pub total: Total,
    /// What the kernel had to do in the place of a sched_ext scheduler, by its own names: how often. Empty before Linux
    /// 6.15.
    pub kernel_events: BTreeMap<String, u64>,
    /// The busiest tasks first; empty without `--tasks`.
    pub tasks: Vec<TaskRow>,
    /// The rules in the order in which they are tried; empty without `--tasks`.
    #[serde(default)]
    pub rules: Vec<RuleRow>,
    /// The policy in user space; null without `--policy`.
    pub policy: Option<PolicyRow>,
}

/// A policy in user space in an interval. What it was offered and what became of that is among the counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// What it is called.
    pub name: String,
    /// Whether the kernel's half has taken over from it, at the end of the interval.
    pub late: bool,
    /// Times from an offer to its decision.
    pub answer: Latency,
    /// Times from an offer to the run that was decided.
    pub served: Latency,
    /// Figures of its own, by their names.
    pub figures: BTreeMap<String, f64>,
}

/// A CPU in an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CpuRow {
    /// Its number.
    pub cpu: CpuId,
    /// Dense index of its NUMA node.
    pub node: u32,
    /// Dense index of its last-level cache.
    pub llc: u32,
    /// The CPU that stands for its core: the same for all threads of a core.
    pub core: CpuId,
    /// What it did.
    #[serde(flatten)]
    pub activity: Activity,
    /// Tasks on it, or waiting for it and no other CPU, at the end of the interval.
    pub runnable: u64,
}

/// An LLC at the end of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LlcRow {
    /// Its dense index.
    pub llc: u32,
    /// Dense index of its NUMA node.
    pub node: u32,
    /// Tasks in its deadline queue.
    pub queue_depth: u64,
}

/// All CPUs in an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// What they did. `busy_percent` is the average over the CPUs that are online.
    #[serde(flatten)]
    pub activity: Activity,
    /// Tasks that ran or waited at the end of the interval.
    pub runnable: u64,
    /// Those of them that waited, in any queue.
    pub queue_depth: u64,
    /// Times from wakeup to running, of the tasks that started to run in the interval.
    pub wakeup_latency: Latency,
    /// Times from entering a queue to running, of the same tasks and of those that were put back after a run.
    #[serde(default)]
    pub queue_wait: Latency,
}

/// What one or more CPUs did in an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Share of the time taken by tasks of this scheduler and of higher classes, 0 to 100.
    pub busy_percent: f64,
    /// Times a task started to run, a second.
    pub switches_per_s: f64,
    /// Average time from start to stop of a run in microseconds; 0 if none ended.
    pub slice_avg_us: f64,
    /// Every counter of `src/bpf/intf.h` by its name: how much it grew.
    pub counters: Counters,
}

/// A distribution of latencies. Values are ends of histogram slots, so at most 12.5 % too high.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Median in microseconds; null if there was none.
    pub p50_us: Option<f64>,
    /// What 99 of 100 stay below, in microseconds.
    pub p99_us: Option<f64>,
    /// The longest, in microseconds.
    pub max_us: Option<f64>,
    /// The slots of the histogram that hold anything, ascending.
    pub slots: Vec<Slot>,
}

/// A slot of a histogram of durations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Its end: what it counts is below that and above the end of the slot before; in microseconds.
    pub end_us: f64,
    /// How many.
    pub count: u64,
}

/// The growth of every counter, in the order of [`COUNTERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters(pub [u64; COUNTERS.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNTERS.len()])
    }
}

impl Counters {
    /// The growth of one, by `intf::counter_CNT_*`.
    pub fn get(&self, counter: intf::counter) -> u64 {
        self.0[counter as usize]
    }
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(COUNTERS.len()))?;
        for (counter, value) in COUNTERS.iter().zip(self.0) {
            map.serialize_entry(counter.name, &value)?;
        }
        map.end()
    }
}

/// Of another version's list, what both have.
impl<'de> Deserialize<'de> for Counters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let value = |i: usize| map.get(COUNTERS[i].name).copied().unwrap_or(0);
        Ok(Self(std::array::from_fn(value)))
    }
}

/// Sums over one or more CPUs.
#[derive(Default)]
struct Sums {
    counters: Counters,
    busy_ns: u64,
}

impl Sums {
    /// The growth from one sample of a CPU to another.
    fn between(before: &CpuSample, after: &CpuSample) -> Self {
        let mut counters = Counters::default();
        let values = after.stats.counters.iter().zip(before.stats.counters);
        for (sum, (after, before)) in counters.0.iter_mut().zip(values) {
            *sum = after.saturating_sub(before);
        }
        Self { counters, busy_ns: after.busy_ns().saturating_sub(before.busy_ns()) }
    }

    fn add(&mut self, other: &Sums) {
        for (sum, n) in self.counters.0.iter_mut().zip(other.counters.0) {
            *sum += n;
        }
        self.busy_ns += other.busy_ns;
    }

    /// Over `nr_cpus` CPUs in an interval of `seconds`.
    fn activity(&self, nr_cpus: usize, seconds: f64) -> Activity {
        let stops = self.counters.get(intf::counter_CNT_STOPS);
        let run = Nanos(self.counters.get(intf::counter_CNT_RUN_NS));
        let whole_ns = seconds * 1e9 * nr_cpus.max(1) as f64;
        Activity {
            busy_percent: (self.busy_ns as f64 / whole_ns * 100.0).clamp(0.0, 100.0),
            switches_per_s: self.counters.get(intf::counter_CNT_SWITCHES) as f64 / seconds,
            slice_avg_us: if stops == 0 { 0.0 } else { run.micros() / stops as f64 },
            counters: self.counters,
        }
    }
}

impl Interval {
    /// What happened between two samples of the same machine.
    pub fn between(before: &Sample, after: &Sample, tasks: Vec<TaskRow>) -> Self {
        let seconds = (after.at - before.at).as_secs_f64().max(1e-9);
        let mut sums = Sums::default();
        let mut latencies = [0; hist::SLOTS];
        let mut waits = [0; hist::SLOTS];
        let mut answers = [0; hist::SLOTS];
        let mut serves = [0; hist::SLOTS];
        let mut cpus = Vec::new();
        for (before, after) in before.cpus.iter().zip(&after.cpus) {
            let growth = Sums::between(before, after);
            let (a, b) = (&after.stats, &before.stats);
            add_growth(&mut latencies, after.wakeup_hist(), before.wakeup_hist());
            for (a, b) in after.queue_hists().iter().zip(before.queue_hists()) {
                add_growth(&mut waits, a, b);
            }
            add_growth(&mut answers, &a.answer_hist, &b.answer_hist);
            add_growth(&mut serves, &a.served_hist, &b.served_hist);
            sums.add(&growth);
            if after.state.online != 0 || growth.counters != Counters::default() {
                cpus.push(CpuRow {
                    cpu: after.cpu,
                    node: after.node,
                    llc: after.llc,
                    core: after.core,
                    activity: growth.activity(1, seconds),
                    runnable: after.runnable(),
                });
            }
        }
        let nr_online = after.cpus.iter().filter(|cpu| cpu.state.online != 0).count();
        let since_1970 = after.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            time: since_1970.as_secs_f64(),
            interval_s: seconds,
            cpus,
            llcs: (0..)
                .zip(&after.llcs)
                .map(|(llc, now)| LlcRow { llc, node: now.node, queue_depth: now.nr_queued.into() })
                .collect(),
            total: Total {
                activity: sums.activity(nr_online, seconds),
                runnable: after.runnable(),
                queue_depth: after.waiting(),
                wakeup_latency: Latency::of(&latencies),
                queue_wait: Latency::of(&waits),
            },
            kernel_events: after
                .kernel_events
                .iter()
                .map(|(name, n)| {
                    let before = before.kernel_events.get(name).copied().unwrap_or(0);
                    (name.clone(), n.saturating_sub(before))
                })
                .collect(),
            tasks,
            rules: Vec::new(),
            policy: after.policy.clone().map(|policy| PolicyRow {
                name: policy.name,
                late: policy.late,
                answer: Latency::of(&answers),
                served: Latency::of(&serves),
                figures: policy.figures,
            }),
        }
    }
}

/// Adds what a histogram grew by.
fn add_growth(sums: &mut [u64], after: &[u64], before: &[u64]) {
    for (sum, (after, before)) in sums.iter_mut().zip(after.iter().zip(before)) {
        *sum += after.saturating_sub(*before);
    }
}

impl Latency {
    fn of(counts: &[u64]) -> Self {
        let at = |share| hist::percentile(counts, share, hist::slot_end).map(Nanos::micros);
        let slots = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        Self {
            count: counts.iter().sum(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
            slots: slots
                .map(|(slot, &count)| Slot { end_us: hist::slot_end(slot).micros(), count })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::sample::made;
    use std::time::Instant;

    #[test]
    fn rates_shares_and_sums() {
        let start = Instant::now();
        let before = made::sample(start, 0, vec![made::cpu(0), made::cpu(1)]);
        let mut after = made::sample(start, 500, vec![made::cpu(0), made::cpu(1)]);
        for (counter, value) in [
            (intf::counter_CNT_SWITCHES, 100),
            (intf::counter_CNT_STOPS, 50),
            (intf::counter_CNT_RUN_NS, 200_000_000),
            (intf::counter_CNT_IDLE_NS, 250_000_000),
        ] {
            after.cpus[0].stats.counters[counter as usize] = value;
        }
        after.cpus[1].stats.counters[intf::counter_CNT_IDLE_NS as usize] = 500_000_000;
        for cpu in &mut after.cpus {
            cpu.state.snapshot_at = 500_000_000;
        }
        after.cpus[1].stats.wait_hists[0][2] = 3;
        after.cpus[0].stats.wait_hists[1][4] = 2;
        after.llcs[0].nr_queued = 4;
        let interval = Interval::between(&before, &after, Vec::new());
        assert_eq!(interval.interval_s, 0.5);
        let busy = &interval.cpus[0].activity;
        assert_eq!((busy.busy_percent, busy.switches_per_s, busy.slice_avg_us), (50.0, 200.0, 4e3));
        assert_eq!(interval.cpus[1].activity.busy_percent, 0.0);
        assert_eq!(interval.total.activity.busy_percent, 25.0);
        assert_eq!((interval.total.runnable, interval.total.queue_depth), (4, 4));
        assert_eq!(interval.llcs, [LlcRow { llc: 0, node: 0, queue_depth: 4 }]);
        let waits = interval.total.queue_wait;
        assert_eq!((waits.count, waits.p50_us, waits.max_us), (5, Some(3.072), Some(5.12)));
        let latency = interval.total.wakeup_latency;
        assert_eq!(latency.slots, [Slot { end_us: 3.072, count: 3 }]);
        assert_eq!((latency.count, latency.p50_us, latency.max_us), (3, Some(3.072), Some(3.072)));
    }

    #[test]
    fn offline_cpus_are_listed_only_if_they_did_something() {
        let start = Instant::now();
        let mut cpus = vec![made::cpu(0), made::cpu(1), made::cpu(2)];
        cpus[1].state.online = 0;
        cpus[2].state.online = 0;
        let before = made::sample(start, 0, cpus.clone());
        cpus[2].stats.counters[intf::counter_CNT_HOTPLUG as usize] = 1;
        let after = made::sample(start, 1000, cpus);
        let listed: Vec<_> =
            Interval::between(&before, &after, vec![]).cpus.iter().map(|row| row.cpu.0).collect();
        assert_eq!(listed, [0, 2]);
    }

    #[test]
    fn values_that_go_back_or_beyond_are_bounded() {
        let start = Instant::now();
        let mut cpus = vec![made::cpu(0)];
        cpus[0].state.snapshot_at = u64::MAX / 2;
        let more = made::sample(start, 0, cpus);
        let less = made::sample(start, 1000, vec![made::cpu(0)]);
        assert_eq!(Interval::between(&more, &less, vec![]).total.activity.busy_percent, 0.0);
        assert_eq!(Interval::between(&less, &more, vec![]).total.activity.busy_percent, 100.0);
    }
}

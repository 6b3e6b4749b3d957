//! The busiest tasks of an interval.

use super::{hist, text};
use crate::{
    bpf::intf::{self, task_sample},
    units::{Nanos, Vtime, Weight},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// A task in an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Thread id.
    pub pid: i32,
    /// Id of the process it belongs to.
    pub tgid: i32,
    /// Its name. Anybody can choose anything.
    pub comm: Comm,
    /// Where it ran last; null if it never ran.
    pub cpu: Option<i32>,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// Load weight, nice 0 is 1024.
    pub weight: Weight,
    /// The number of its rule, from 1; null if it has none.
    #[serde(default)]
    pub rule: Option<usize>,
    /// Scheduling policy.
    pub policy: Cow<'static, str>,
    /// Virtual run time in nanoseconds. Comparable among tasks of one LLC.
    pub vruntime_vns: Vtime,
    /// Share of one CPU that it took, 0 to 100.
    pub busy_percent: f64,
    /// Times it became runnable, a second.
    pub wakeups_per_s: f64,
    /// Times another task got its CPU while it could have gone on, a second: the kernel's involuntary context switches.
    #[serde(default)]
    pub preemptions_per_s: f64,
    /// Wait in the run queue, after wakeups and after runs, that 99 of 100 stay below, in microseconds, rounded up to a
    /// power of two; null if it never waited.
    pub wait_p99_us: Option<f64>,
}

/// The name of a task: up to 15 bytes of anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comm(Vec<u8>);

impl Comm {
    /// A name of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Fit for a terminal: control characters are escaped.
    pub fn printable(&self) -> String {
        text::printable(&self.0)
    }
}

impl Serialize for Comm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

impl<'de> Deserialize<'de> for Comm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.into_bytes()))
    }
}

/// Turns samples of all tasks into the rows of the busiest.
#[derive(Debug, Default)]
pub struct TaskTracker {
    before: HashMap<i32, task_sample>,
    /// Of the last interval: how many tasks each rule has, and what they ran, in nanoseconds.
    ruled: BTreeMap<usize, (u64, u64)>,
}

/// A rule in an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleRow {
    /// Its number, from 1, in the order in which rules are tried.
    pub number: usize,
    /// What it says, as in the configuration file.
    pub text: String,
    /// Tasks that have it.
    pub tasks: u64,
    /// CPU time that they took, as a share of one CPU; beyond 100 where they took more than one.
    pub busy_percent: f64,
}

impl TaskTracker {
    /// The `limit` tasks that ran most since the last call, `span` ago. Takes all tasks of now.
    pub fn busiest(&mut self, now: Vec<task_sample>, span: Duration, limit: usize) -> Vec<TaskRow> {
        let mut rows: Vec<_> = now.iter().map(|task| self.growth(task)).collect();
        self.ruled.clear();
        for (growth, task) in &rows {
            let (tasks, run_ns) = self.ruled.entry(rule_of(task)).or_default();
            *tasks += 1;
            *run_ns += growth.run_ns;
        }
        // Equally busy ones by pid, so that the order does not flicker.
        rows.sort_by_key(|(growth, task)| (std::cmp::Reverse(growth.run_ns), task.pid));
        let rows = rows
            .iter()
            .take_while(|(growth, _)| growth.run_ns > 0 || growth.wakeups > 0)
            .take(limit)
            .map(|(growth, task)| row(growth, task, span))
            .collect();
        self.before = now.into_iter().map(|task| (task.pid, task)).collect();
        rows
    }

    /// What the tasks of each of these rules did in the interval that ended with the last call, `span` long.
    pub fn rules(&self, texts: Vec<String>, span: Duration) -> Vec<RuleRow> {
        let seconds = span.as_secs_f64().max(1e-9);
        let row = |(number, text)| {
            let (tasks, run_ns) = self.ruled.get(&number).copied().unwrap_or_default();
            RuleRow { number, text, tasks, busy_percent: run_ns as f64 / seconds / 1e7 }
        };
        (1..).zip(texts).map(row).collect()
    }

    /// What a task did since the last call. One that was not there, or is another with the same
    /// pid, did all it ever did since then.
    fn growth<'a>(&self, task: &'a task_sample) -> (Growth, &'a task_sample) {
        let before = self.before.get(&task.pid).filter(|before| {
            before.tgid == task.tgid
                && before.run_ns <= task.run_ns
                && before.wakeups <= task.wakeups
        });
        let growth = match before {
            None => Growth {
                run_ns: task.run_ns,
                wakeups: task.wakeups,
                nivcsw: task.nivcsw,
                waits: task.wait_hist.map(u64::from),
            },
            Some(before) => Growth {
                run_ns: task.run_ns - before.run_ns,
                wakeups: task.wakeups - before.wakeups,
                nivcsw: task.nivcsw.saturating_sub(before.nivcsw),
                waits: std::array::from_fn(|slot| {
                    task.wait_hist[slot].wrapping_sub(before.wait_hist[slot]).into()
                }),
            },
        };
        (growth, task)
    }
}

/// What a task did in an interval.
struct Growth {
    run_ns: u64,
    wakeups: u64,
    nivcsw: u64,
    waits: [u64; hist::TASK_SLOTS],
}

fn row(growth: &Growth, task: &task_sample, span: Duration) -> TaskRow {
    let seconds = span.as_secs_f64().max(1e-9);
    let wait_p99 = hist::percentile(&growth.waits, 0.99, hist::task_slot_end);
    TaskRow {
        pid: task.pid,
        tgid: task.tgid,
        comm: Comm::new(text::until_nul(&task.comm.map(|c| c as u8))),
        cpu: (task.cpu >= 0).then_some(task.cpu),
        nice: task.nice,
        weight: Weight(task.weight),
        rule: Some(rule_of(task)).filter(|number| *number > 0),
        policy: policy_name(task.policy).into(),
        vruntime_vns: Vtime(task.vruntime_vns),
        busy_percent: (growth.run_ns as f64 / seconds / 1e7).min(100.0),
        wakeups_per_s: growth.wakeups as f64 / seconds,
        preemptions_per_s: growth.nivcsw as f64 / seconds,
        wait_p99_us: wait_p99.map(Nanos::micros),
    }
}

/// The number of the rule of a task, from 1; 0: it has none.
pub fn rule_of(task: &task_sample) -> usize {
    match task.rule {
        0 => 0,
        index => ((index - 1) % intf::RULES_MAX + 1) as usize,
    }
}

/// The name of a scheduling policy, from linux/sched.h.
pub fn policy_name(policy: u32) -> &'static str {
    match policy {
        0 => "normal",
        3 => "batch",
        5 => "idle",
        7 => "ext",
        _ => "other",
    }
}

#[cfg(test)]
pub(crate) mod made {
    //! Tasks for tests.

    use super::*;

    /// A task of nice 0 that has done `run_ns` of work in `wakeups` bursts.
    pub fn task(pid: i32, run_ns: u64, wakeups: u64, name: &[u8]) -> task_sample {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(name) {
            *to = *from as _;
        }
        let mut wait_hist = [0; hist::TASK_SLOTS];
        wait_hist[4] = wakeups as u32;
        task_sample {
            pid,
            tgid: pid,
            cpu: 1,
            nice: 0,
            weight: 1024,
            policy: 0,
            rule: 0,
            pad: 0,
            vruntime_vns: 123_456_789,
            run_ns,
            wakeups,
            nivcsw: 2 * wakeups,
            wait_hist,
            comm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn busiest_first_by_what_they_did_since() {
        let mut tracker = TaskTracker::default();
        let first = vec![
            made::task(1, 9_000_000_000, 5, b"old"),
            made::task(2, 0, 0, b"hog"),
            made::task(3, 0, 0, b"idle"),
        ];
        tracker.busiest(first, SECOND, 10);
        let second = vec![
            made::task(1, 9_100_000_000, 15, b"old"),
            made::task(2, 500_000_000, 0, b"hog"),
            made::task(3, 0, 0, b"idle"),
            made::task(4, 200_000_000, 1, b"new"),
        ];
        let rows = tracker.busiest(second, SECOND, 10);
        assert_eq!(rows.iter().map(|row| row.pid).collect::<Vec<_>>(), [2, 4, 1]);
        assert_eq!((rows[0].busy_percent, rows[0].wait_p99_us), (50.0, None));
        assert_eq!((rows[2].busy_percent, rows[2].wakeups_per_s), (10.0, 10.0));
        assert_eq!(rows[2].preemptions_per_s, 20.0);
        assert_eq!(rows[2].wait_p99_us, Some(16.384));
    }

    #[test]
    fn limit_and_reused_pids() {
        let mut tracker = TaskTracker::default();
        tracker.busiest(vec![made::task(1, 1_000, 10, b"a")], SECOND, 1);
        let rows = tracker.busiest(
            vec![made::task(1, 500, 2, b"b"), made::task(2, 1, 0, b"c")],
            SECOND,
            1,
        );
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].pid, rows[0].wakeups_per_s), (1, 2.0));
    }

    #[test]
    fn rules_have_what_their_tasks_did() {
        let ruled = |pid, run_ns, rule| task_sample { rule, ..made::task(pid, run_ns, 0, b"a") };
        let mut tracker = TaskTracker::default();
        tracker.busiest(vec![ruled(1, 5, 2), ruled(2, 5, 2), ruled(3, 5, 0)], SECOND, 10);
        // The same rule by the other half of the table.
        let now = vec![ruled(1, 500_000_005, 2), ruled(2, 700_000_005, 1026), ruled(3, 9, 0)];
        let rows = tracker.busiest(now, SECOND, 10);
        assert_eq!(rows.iter().map(|row| row.rule).collect::<Vec<_>>(), [Some(2), Some(2), None]);
        let rules = tracker.rules(vec!["one".into(), "two".into()], SECOND);
        let told: Vec<_> = rules.iter().map(|r| (r.number, r.tasks, r.busy_percent)).collect();
        assert_eq!(told, [(1, 0, 0.0), (2, 2, 120.0)]);
    }

    #[test]
    fn names_are_anything() {
        let mut tracker = TaskTracker::default();
        let rows = tracker.busiest(vec![made::task(1, 1, 0, b"\x1b[2J\xff")], SECOND, 1);
        assert_eq!(rows[0].comm.printable(), "\\x1b[2J\\xff");
        let json = serde_json::to_string(&rows[0]).expect("serializes");
        assert!(json.contains("\"\\u001b[2J\u{fffd}\""), "{json}");
    }
}

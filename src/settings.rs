//! What the user chose, validated. The command line fills it once; nothing checks it again.

use crate::{
    bpf::{intf, skel::types},
    profile::AUTO,
    units::Nanos,
};
use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

/// All settings of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The figures that the kernel's half decides by.
    pub tuning: Tuning,
    /// The policy in user space that decides instead, if any.
    pub relayed: Option<Relayed>,
    /// Schedule only tasks that chose SCHED_EXT; the others stay with the kernel's default.
    pub partial: bool,
    /// Size of the kernel's debug dump at an ejection, in bytes; 0 takes the kernel's default.
    pub exit_dump_len: u32,
    /// 0 warnings only, 1 what is done, 2 and more also libbpf's debug messages.
    pub verbosity: u8,
    /// What is printed while it runs; nothing if absent.
    pub report: Option<Report>,
    /// Where the statistics socket is made.
    pub socket: PathBuf,
    /// Where metrics are told over HTTP; nowhere if absent.
    pub metrics: Option<SocketAddr>,
}

/// The figures that the kernel's half decides by; see `struct knobs` in `src/bpf/intf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Longest slice, for a task that nothing waits for.
    pub slice_max: Nanos,
    /// Floor of every slice. Never above `slice_max`.
    pub slice_min: Nanos,
    /// Most service that a sleeper is owed when it wakes, of nice 0.
    pub lag_max: Nanos,
    /// How much virtual time a waking task must be due earlier than the running one that it preempts.
    pub preempt_gran: Nanos,
}

/// Slices that may be asked for, in microseconds. Below 100 µs the switches themselves would be the load; above 100 ms a
/// queue of 50 tasks comes near the time after which the kernel ejects a scheduler.
pub const SLICE_US: RangeInclusive<u64> = 100..=100_000;
/// What a sleeper may be owed, in microseconds. A task that stays runnable is owed no more than the longest of these.
pub const LAG_US: RangeInclusive<u64> = 100..=40_000;
/// How much earlier a waking task may have to be due, in microseconds. Beyond a slice of the default there would be no
/// preemption.
pub const PREEMPT_GRAN_US: RangeInclusive<u64> = 0..=10_000;
/// Slices that a policy in user space may give, in microseconds.
pub const DECIDED_SLICE_US: RangeInclusive<u64> =
    intf::DECIDED_SLICE_MIN_US as u64..=intf::DECIDED_SLICE_MAX_US as u64;

/// Shortest request that a task with short bursts can make.
const REQUEST_MIN: Nanos = Nanos::from_micros(100);
/// A task that stays runnable is owed this at most: two slices and two ticks of 100 Hz, rounded up. It does not follow
/// `--slice-us`, because ticks do not.
const LAG_RUNNABLE: Nanos = Nanos::from_micros(40_000);
/// Wakeup preemptions of one CPU are at least this far apart.
const PREEMPT_GAP: Nanos = Nanos::from_micros(50);

impl Tuning {
    /// As the kernel's half takes them, where the policy `relayed` decides.
    pub fn knobs(&self, relayed: Option<&Relayed>) -> types::knobs {
        types::knobs {
            slice_max_ns: self.slice_max.0,
            slice_min_ns: self.slice_min.0,
            lag_max_ns: self.lag_max.0,
            lag_runnable_ns: LAG_RUNNABLE.0.max(2 * self.slice_max.0),
            request_min_ns: REQUEST_MIN.0,
            preempt_gran_vns: self.preempt_gran.0,
            preempt_gap_ns: PREEMPT_GAP.0,
            grace_ns: relayed.map_or(0, |relayed| relayed.grace.0),
            idle_direct: relayed.is_none_or(|relayed| relayed.idle_direct).into(),
            // Until somebody asks.
            task_stats: 0,
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            slice_max: Nanos::from_micros(AUTO.slice_us),
            slice_min: Nanos::from_micros(AUTO.slice_min_us),
            lag_max: Nanos::from_micros(AUTO.lag_us),
            preempt_gran: Nanos::from_micros(AUTO.preempt_gran_us),
        }
    }
}

/// How a policy in user space is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// How long a CPU without anything else to run waits for a decision.
    pub grace: Nanos,
    /// Room for events to it, in bytes: a power of two, and at least a page.
    pub ring_bytes: u32,
    /// Whether wakeups take an idle CPU without asking the policy.
    pub idle_direct: bool,
}

/// Default of `--grace-us`. A woken process needs some tens of microseconds for an answer; on a busy machine it may wait
/// for a CPU first. Longer ones leave CPUs idle beside work when the policy fails.
pub const GRACE_US_DEFAULT: u64 = 2_000;

/// Default of `--ring-kib`: 8,000 events where there are no more than 64 CPUs.
pub const RING_KIB_DEFAULT: u32 = 1024;

/// What the program does when it is told nothing.
impl Default for Settings {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            relayed: None,
            partial: false,
            exit_dump_len: 0,
            verbosity: 0,
            report: None,
            socket: SOCKET_DEFAULT.into(),
            metrics: None,
        }
    }
}

/// Default of `--socket`: where readers of the protocol `scx_stats` look.
pub const SOCKET_DEFAULT: &str = "/var/run/scx/root/stats";

/// What is printed at each interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Time between two reports.
    pub interval: Duration,
    /// Table or JSON.
    pub format: Format,
    /// How many of the busiest tasks to list; 0 for none.
    pub tasks: usize,
    /// Whether the table ends with the totals of all counters. JSON always has them.
    pub all_counters: bool,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: a row a CPU.
    Table,
    /// For programs: one JSON object a line.
    Json,
}

//! What the host and the guest of a benchmark tell each other: the plan goes into the initramfs, the records come back over the
//! port of results, one JSON object a line.

use serde::{Deserialize, Serialize};

/// Where the guest finds its plan.
pub const PLAN: &str = "lab/plan.json";

/// The word on the kernel's command line that numbers the sample.
pub const SAMPLE: &str = "lab.sample";

/// How much later each sample begins than the one before: not a divisor of a tick, 4 ms or 1 ms.
pub const SAMPLE_OFFSET_US: u64 = 770;

/// The commands of a part: all that the guest knows of it. Each is a line for the shell, in which
/// `$CPUS` is the number of CPUs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Run from `settle_ms` before the probe to its end, and are interrupted then, as by Ctrl-C.
    #[serde(default)]
    pub load: Vec<String>,
    /// How long the load runs before the probe starts.
    #[serde(default)]
    pub settle_ms: u64,
    /// Runs to its end. It must exit with 0.
    pub probe: String,
}

/// What a guest shall do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The scheduler's program and its arguments; empty for the kernel's default.
    pub scheduler: Vec<String>,
    /// Names and commands, one after the other.
    pub parts: Vec<(String, Run)>,
}

/// A line of the guest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The guest is idle, and how much so.
    Idle(Idle),
    /// A part begins.
    Begin(String),
    /// A part has ended.
    Part(PartRecord),
    /// It cannot go on.
    Failed(String),
    /// All parts are done.
    Done,
}

/// How idle the guest was for the second before the measurement, the scheduler being attached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// The time that tasks ran, as a part of the time of all CPUs (from `/proc/schedstat`, exact).
    pub busy_percent: f64,
    /// Timer interrupts of all CPUs (`LOC` in `/proc/interrupts`).
    pub timer_interrupts: u64,
    /// Seconds waited for it.
    pub waited_s: u32,
}

/// What a program left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Its exit code; 128 + N when signal N ended it.
    pub code: i32,
    /// How long it ran.
    pub seconds: f64,
    /// What it printed, without lines that count nothing in a histogram.
    pub stdout: String,
}

/// The outputs of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartRecord {
    /// The part's name.
    pub name: String,
    /// The probe's.
    pub probe: Output,
    /// Those of the loads, in their order.
    pub loads: Vec<Output>,
}

/// All that a guest reported: one sample of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The proof that nothing else ran.
    pub idle: Idle,
    /// Parts in the order of the scenario.
    pub parts: Vec<PartRecord>,
}

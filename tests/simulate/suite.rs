//! The cases that judge a build of the kernel's half: each is a scenario, the oracles that watch all of them, and what
//! that scenario is for.

use super::{cpusets, finer, readers, upheaval};
use scheduler::{
    settings::Tuning,
    sim::{self, Durations, Scenario, Stats},
};
use std::fmt;

/// A case: its scenario, and what has to be true of the result besides what the oracles say.
pub struct Case {
    pub name: &'static str,
    pub text: &'static str,
    pub holds: fn(&Stats) -> Result<(), String>,
}

pub fn oracles_only(_: &Stats) -> Result<(), String> {
    Ok(())
}

/// What a share of durations stays below; where there was none at all, nothing is good enough.
pub fn micros(of: &Durations, share: f64) -> u64 {
    of.percentile_us(share).map_or(u64::MAX, |us| us as u64)
}

/// What a group has of all that was run, in thousandths.
pub fn permille(group: usize, stats: &Stats) -> u64 {
    stats.groups[group].run_ns * 1000 / stats.machine.run_ns
}

pub fn at_most(what: &str, value: u64, most: u64) -> Result<(), String> {
    if value <= most { Ok(()) } else { Err(format!("{what}: {value}, {most} at most")) }
}

pub fn at_least(what: &str, value: u64, least: u64) -> Result<(), String> {
    if value >= least { Ok(()) } else { Err(format!("{what}: {value}, {least} at least")) }
}

const CASES: &[Case] = &[
    Case {
        name: "half-loaded machine with all levels",
        text: r#"
            about = "short tasks on half of the CPUs"
            duration = "2s"
            topology = "2 nodes x 2 llcs x 2 cores x 2 threads"
            [[group]]
            name = "short"
            tasks = 24
            phases = [{ run = "exp 1ms" }, { sleep = "exp 2ms" }]
            [[group]]
            name = "half"
            tasks = 6
            cpus = "0-2"
            phases = [{ run = "exp 1ms" }, { sleep = "exp 5ms" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "hogs by weight",
        text: r#"
            about = "three weights on one LLC"
            duration = "12s"
            topology = "3 cores"
            [[group]]
            name = "plain"
            tasks = 6
            phases = [{ run = "1s" }]
            [[group]]
            name = "heavy"
            tasks = 2
            nice = -4
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 3
            nice = 5
            phases = [{ run = "1s" }]
            [[group]]
            name = "napping"
            tasks = 2
            phases = [{ run = "3ms" }, { sleep = "exp 20ms" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "more hogs here than there",
        text: r#"
            about = "hogs on two LLCs, some bound to a CPU, and late ones"
            duration = "3s"
            topology = "2 llcs x 2 cores"
            [[group]]
            name = "free"
            tasks = 5
            phases = [{ run = "exp 50ms" }, { sleep = "exp 2ms" }]
            [[group]]
            name = "bound"
            tasks = 2
            cpus = "1"
            phases = [{ run = "exp 5ms" }, { sleep = "exp 3ms" }]
            [[group]]
            name = "part"
            tasks = 2
            cpus = "1-2"
            phases = [{ run = "exp 20ms" }, { sleep = "exp 10ms" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "short bursts beside hogs",
        text: r#"
            about = "what a desktop feels"
            duration = "5s"
            topology = "2 cores"
            [[group]]
            name = "hogs"
            tasks = 6
            phases = [{ run = "1s" }]
            [[group]]
            name = "keys"
            tasks = 2
            phases = [{ sleep = "5ms..25ms" }, { run = "300us" }]
        "#,
        holds: |stats| {
            let p99_us = micros(&stats.groups[1].wakeup, 0.99);
            at_most("microseconds that a short burst waits, p99", p99_us, 1_500)?;
            let hogs_us = micros(&stats.groups[0].wait, 0.999);
            at_most("microseconds that a hog waits, p99.9", hogs_us, 40_000)
        },
    },
    Case {
        name: "after a long sleep",
        text: r#"
            about = "who slept for seconds does not own the CPU"
            duration = "12s"
            topology = "1 core"
            [[group]]
            name = "hogs"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "sleeper"
            tasks = 1
            phases = [{ sleep = "3s" }, { run = "500ms" }]
        "#,
        holds: |stats| {
            at_most("longest wait of a hog, ns", stats.groups[0].wait.max_ns, 60_000_000)
        },
    },
    Case {
        name: "the lightest among many",
        text: r#"
            about = "SCHED_IDLE beside forty on a CPU"
            duration = "14s"
            topology = "1 core"
            [[group]]
            name = "crowd"
            tasks = 40
            phases = [{ run = "1s" }]
            [[group]]
            name = "lightest"
            tasks = 1
            policy = "idle"
            phases = [{ run = "1s" }]
        "#,
        holds: |stats| {
            at_most("longest wait of the lightest, ns", stats.groups[1].wait.max_ns, 6_000_000_000)
        },
    },
    Case {
        name: "a chain of children",
        text: r#"
            about = "tasks that fork their successor and end have the share of one"
            duration = "6s"
            topology = "1 core"
            [[group]]
            name = "hog"
            tasks = 1
            phases = [{ run = "1s" }]
            [[group]]
            name = "chain"
            tasks = 1
            phases = [{ run = "10ms" }, { fork = "chain" }, "exit"]
        "#,
        holds: |stats| at_most("share of the chain, in thousandths", permille(1, stats), 569),
    },
    Case {
        name: "half of the machine falls asleep",
        text: r#"
            about = "who waits in one LLC moves to the other when that has nothing to do, and back"
            duration = "12s"
            topology = "2 llcs x 2 cores"
            [[group]]
            name = "right"
            tasks = 12
            cpus = "2-3"
            phases = [{ run = "300ms" }, { sleep = "3s" }]
            [[group]]
            name = "free"
            tasks = 8
            start = "50ms"
            phases = [{ run = "1s" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "hogs that are bound",
        text: r#"
            about = "hogs of one CPU beside those of two"
            duration = "3s"
            topology = "2 cores"
            [[group]]
            name = "free"
            tasks = 6
            phases = [{ run = "1s" }]
            [[group]]
            name = "bound"
            tasks = 2
            cpus = "1"
            phases = [{ run = "1s" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "nearly full",
        text: r#"
            about = "some may run on half of the CPUs only"
            duration = "5s"
            topology = "4 cores"
            [[group]]
            name = "free"
            tasks = 8
            phases = [{ run = "exp 3ms" }, { sleep = "exp 5ms" }]
            [[group]]
            name = "half"
            tasks = 2
            cpus = "0-1"
            phases = [{ run = "exp 1ms" }, { sleep = "exp 4ms" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "storms",
        text: r#"
            about = "many wake at the same instant"
            duration = "5s"
            topology = "8 cores"
            [[group]]
            name = "storm"
            tasks = 7
            phases = [{ period = { every = "40ms" } }, { run = "12ms" }]
            [[group]]
            name = "others"
            tasks = 8
            phases = [{ sleep = "exp 10ms" }, { run = "exp 3ms" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "born late",
        text: r#"
            about = "a new task joins where the others are"
            duration = "8s"
            topology = "2 cores"
            [[group]]
            name = "hogs"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "late"
            tasks = 2
            start = "4s"
            phases = [{ run = "1s" }]
        "#,
        holds: |stats| {
            at_most("longest wait of a hog, ns", stats.groups[0].wait.max_ns, 60_000_000)
        },
    },
    Case {
        name: "short bursts beside long ones",
        text: r#"
            about = "who sleeps a little after long bursts is not first"
            duration = "5s"
            topology = "2 cores"
            [[group]]
            name = "long"
            tasks = 8
            phases = [{ run = "exp 15ms" }, { sleep = "exp 1ms" }]
            [[group]]
            name = "short"
            tasks = 2
            phases = [{ sleep = "5ms..25ms" }, { run = "300us" }]
        "#,
        holds: |stats| {
            let p99_us = micros(&stats.groups[1].wakeup, 0.99);
            at_most("microseconds that a short burst waits, p99", p99_us, 1_500)
        },
    },
    Case {
        name: "another weight",
        text: r#"
            about = "hogs that become light, and heavy again"
            duration = "9s"
            topology = "1 core"
            [[group]]
            name = "steady"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "changing"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "napping"
            tasks = 1
            phases = [{ run = "2ms" }, { sleep = "exp 50ms" }]
            [[event]]
            at = "3s"
            kind = "renice"
            group = "changing"
            nice = 10
            [[event]]
            at = "6s"
            kind = "renice"
            group = "changing"
            nice = 0
        "#,
        // Half of two thirds of the time, and a tenth (110 to 1024) of the middle third.
        holds: |stats| {
            let both = stats.groups[0].run_ns + stats.groups[1].run_ns;
            let permille = stats.groups[1].run_ns * 1000 / both;
            at_most("share of those that change, in thousandths", permille, 374)?;
            at_most("the share that the steady ones have then", 1000 - permille, 642)
        },
    },
    Case {
        name: "pipes",
        text: r#"
            about = "pairs that hand over to each other, two for each CPU"
            duration = "1s"
            topology = "2 cores x 2 threads"
            [[group]]
            name = "ping"
            tasks = 4
            phases = [{ run = "50us" }, { handoff = "pong" }, "wait"]
            [[group]]
            name = "pong"
            tasks = 4
            phases = ["wait", { run = "50us" }, { handoff = "ping" }]
            [[group]]
            name = "shared core"
            tasks = 2
            phases = [{ run = "exp 30ms" }, { sleep = "exp 30ms" }]
        "#,
        holds: |stats| {
            let ping = micros(&stats.groups[0].wakeup, 0.99);
            at_most("microseconds that a handoff waits, p99", ping, 2_000)
        },
    },
];

/// A CPU that was idle beside a task that it took then: not for longer than it takes to say so. Where the machine changes, some
/// are told of in vain.
fn idle_beside(scenario: &Scenario, stats: &Stats) -> Result<(), String> {
    let most_ns = if scenario.event.is_empty() { 100_000 } else { u64::MAX };
    at_most("ns that a CPU was idle beside work", stats.machine.idle_beside.max_ns, most_ns)
}

/// What a build does wrong.
#[derive(Debug, PartialEq)]
pub struct Finding {
    /// Which case.
    pub case: &'static str,
    /// Which oracle saw it, or `a figure` of that case.
    pub by: &'static str,
    /// What it saw.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.case, self.what)
    }
}

/// The scenario where switches are cheap: what a fault does is not to be hidden by what everything takes.
pub fn on_a_fast_machine(text: &str) -> String {
    const COSTS: &str = "[costs]\nswitch = \"1.5us\"\nresched = \"0us\"\n";
    if text.contains("[costs]") {
        return text.replacen("[costs]", COSTS, 1);
    }
    format!("{text}\n{COSTS}")
}

/// All cases.
pub fn all() -> impl Iterator<Item = &'static Case> {
    CASES
        .iter()
        .chain(upheaval::CASES)
        .chain(finer::CASES)
        .chain(cpusets::CASES)
        .chain(readers::CASES)
}

/// The first case that finds something.
pub fn findings(code: &[u8]) -> Option<Finding> {
    all().find_map(|case| {
        let scenario = Scenario::parse(&on_a_fast_machine(case.text), None)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let (stats, violation) =
            sim::run(&scenario, code, Tuning::default(), 1).expect("room for a run");
        let figures = || (case.holds)(&stats).and_then(|()| idle_beside(&scenario, &stats)).err();
        let seen = violation.map(|violation| (violation.oracle, violation.to_string()));
        let (by, what) = seen.or_else(|| figures().map(|what| ("a figure", what)))?;
        Some(Finding { case: case.name, by, what })
    })
}

//! Cases in which the machine itself changes: CPUs that leave, higher classes, other affinities, sections without
//! migration, readers under RCU.

use super::suite::{Case, at_least, at_most, micros, oracles_only, permille};

pub const CASES: &[Case] = &[
    Case {
        name: "CPUs that leave and come back",
        text: r#"
            about = "each CPU but the first leaves in its turn, with hogs, sleepers and those that are bound to it"
            duration = "4s"
            topology = "2 llcs x 2 cores"
            [[group]]
            name = "hogs"
            tasks = 6
            phases = [{ run = "exp 20ms" }, { sleep = "exp 2ms" }]
            [[group]]
            name = "bound"
            tasks = 3
            cpus = "1"
            phases = [{ run = "exp 3ms" }, { sleep = "exp 1ms" }]
            [[group]]
            name = "bound later"
            tasks = 3
            cpus = "3"
            phases = [{ run = "1s" }]
            [[group]]
            name = "half"
            tasks = 4
            cpus = "2-3"
            phases = [{ run = "exp 3ms" }, { sleep = "exp 3ms" }]
            [[event]]
            at = "500ms"
            kind = "offline"
            cpus = "1"
            for = "200ms"
            every = "exp 700ms"
            [[event]]
            at = "1s"
            kind = "offline"
            cpus = "2-3"
            for = "150ms"
            every = "900ms"
        "#,
        holds: oracles_only,
    },
    Case {
        name: "CPUs that leave an idle machine",
        text: r#"
            about = "an idle CPU that is on its way out is no place for anybody"
            duration = "4s"
            topology = "2 llcs x 2 cores x 2 threads"
            [[group]]
            name = "short"
            tasks = 6
            phases = [{ run = "exp 1ms" }, { sleep = "exp 4ms" }]
            [[group]]
            name = "long"
            tasks = 2
            phases = [{ run = "exp 100ms" }, { sleep = "exp 20ms" }]
            [[event]]
            at = "300ms"
            kind = "offline"
            cpus = "1,3,5-7"
            for = "200ms"
            every = "500ms"
        "#,
        holds: |stats| {
            at_most("longest wait of a short one, ns", stats.groups[0].wait.max_ns, 25_000_000)?;
            let busy = stats.machine.run_ns * 1000 / stats.machine.cpu_ns;
            at_most("thousandths of busy time, of 350 that are asked for", 1000 - busy, 720)
        },
    },
    Case {
        name: "CPUs come back to a full machine",
        text: r#"
            about = "a CPU that is back takes its part"
            duration = "4s"
            topology = "1 llc x 4 cores"
            [[group]]
            name = "hogs"
            tasks = 9
            phases = [{ run = "1s" }]
            [[group]]
            name = "keys"
            tasks = 2
            phases = [{ sleep = "5ms..25ms" }, { run = "300us" }]
            [[event]]
            at = "500ms"
            kind = "offline"
            cpus = "1-3"
            for = "100ms"
        "#,
        holds: |stats| {
            // Three of four CPUs are away for a fortieth of the time, and some ticks.
            at_most("idle time, in thousandths", idle(stats), 5)?;
            at_most(
                "microseconds that a key waits, p99",
                micros(&stats.groups[1].wakeup, 0.99),
                1_500,
            )
        },
    },
    Case {
        name: "another affinity",
        text: r#"
            about = "where tasks may run changes while they run, wait and sleep"
            duration = "3s"
            topology = "2 llcs x 3 cores"
            [[group]]
            name = "sleepers"
            tasks = 6
            phases = [{ run = "exp 2ms" }, { sleep = "exp 3ms" }]
            [[group]]
            name = "hogs"
            tasks = 5
            phases = [{ run = "1s" }]
            [[group]]
            name = "others"
            tasks = 2
            phases = [{ run = "exp 5ms" }, { sleep = "exp 9ms" }]
            [[event]]
            at = "200ms"
            kind = "affinity"
            group = "sleepers"
            cpus = "1-3"
            every = "400ms"
            [[event]]
            at = "400ms"
            kind = "affinity"
            group = "sleepers"
            cpus = "5"
            every = "400ms"
            [[event]]
            at = "300ms"
            kind = "affinity"
            group = "hogs"
            cpus = "0-2"
            every = "500ms"
            [[event]]
            at = "550ms"
            kind = "affinity"
            group = "hogs"
            cpus = "0-5"
            every = "500ms"
        "#,
        holds: oracles_only,
    },
    Case {
        name: "bound for a while",
        text: r#"
            about = "hogs that are bound to a CPU in the middle of their lives, and then are not"
            duration = "9s"
            topology = "1 llc x 2 cores"
            [[group]]
            name = "changing"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "free"
            tasks = 6
            phases = [{ run = "1s" }]
            [[event]]
            at = "1s"
            kind = "affinity"
            group = "changing"
            cpus = "1"
            every = "2s"
            [[event]]
            at = "2s"
            kind = "affinity"
            group = "changing"
            cpus = "0-1"
            every = "2s"
        "#,
        // Two of eight equal tasks, bound or not.
        holds: |stats| {
            let changing = permille(0, stats);
            at_most("share of those that change, in thousandths", changing, 262)?;
            at_most("share of the others, in thousandths", 1000 - changing, 762)?;
            at_most(
                "longest wait of those that change, ns",
                stats.groups[0].wait.max_ns,
                60_000_000,
            )
        },
    },
    Case {
        name: "a real-time neighbour",
        text: r#"
            about = "real-time tasks take CPUs for a tenth of a second while others are idle"
            duration = "4s"
            topology = "2 nodes x 1 llc x 2 cores"
            [[group]]
            name = "workers"
            tasks = 2
            phases = [{ run = "exp 30ms" }, { sleep = "exp 3ms" }]
            [[group]]
            name = "short"
            tasks = 3
            phases = [{ run = "exp 300us" }, { sleep = "exp 5ms" }]
            [[event]]
            at = "100ms"
            kind = "realtime"
            cpus = "0"
            for = "100ms"
            every = "250ms"
            [[event]]
            at = "200ms"
            kind = "realtime"
            cpus = "1"
            for = "80ms"
            every = "250ms"
            [[event]]
            at = "90ms"
            kind = "realtime"
            cpus = "2"
            for = "10us..3ms"
            every = "exp 9ms"
        "#,
        holds: |stats| {
            // Two short waits behind a lost kick, of three milliseconds each.
            at_most("longest wait of a worker, ns", stats.groups[0].wait.max_ns, 15_000_000)
        },
    },
    Case {
        name: "a real-time neighbour on a full machine",
        text: r#"
            about = "hogs share what a real-time task leaves"
            duration = "10s"
            topology = "1 llc x 2 cores"
            [[group]]
            name = "hogs"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 2
            nice = 5
            phases = [{ run = "1s" }]
            [[event]]
            at = "50ms"
            kind = "realtime"
            cpus = "0"
            for = "3ms..9ms"
            every = "12ms"
        "#,
        holds: |stats| {
            // 2 * 335 of 4 * 1024 + 2 * 335.
            let light = permille(1, stats);
            at_most("share of the light ones, in thousandths", light, 146)?;
            at_most("share of the hogs, in thousandths", 1000 - light, 866)
        },
    },
    Case {
        name: "sections without migration",
        text: r#"
            about = "tasks that may not migrate for a while, preempted and asleep meanwhile"
            duration = "3s"
            topology = "2 llcs x 2 cores"
            [[group]]
            name = "stay"
            tasks = 5
            phases = [{ run = "exp 2ms" }, "migrate-off", { run = "exp 4ms" }, { sleep = "exp 1ms" }, { run = "exp 2ms" }, "migrate-on", { sleep = "exp 2ms" }]
            [[group]]
            name = "hogs"
            tasks = 3
            phases = [{ run = "exp 30ms" }, { sleep = "exp 4ms" }]
            [[group]]
            name = "keys"
            tasks = 2
            phases = [{ sleep = "5ms..25ms" }, { run = "300us" }]
        "#,
        holds: |stats| {
            at_most("longest wait of those that stay, ns", stats.groups[0].wait.max_ns, 60_000_000)
        },
    },
    Case {
        name: "a slow reader",
        text: r#"
            about = "the lightest task reads under RCU for twenty ticks"
            duration = "30s"
            topology = "1 core"
            [[group]]
            name = "hogs"
            tasks = 40
            phases = [{ run = "1s" }]
            [[group]]
            name = "reader"
            tasks = 1
            policy = "idle"
            phases = ["rcu-lock", { run = "80ms" }, "rcu-unlock", { sleep = "1s" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "readers on CPUs that go",
        text: r#"
            about = "CPUs wait for readers who wait for these, one by one the last that they may run on"
            duration = "10s"
            topology = "4 cores"
            [[group]]
            name = "readers"
            tasks = 8
            cpus = "1,2"
            phases = ["rcu-lock", { run = "exp 8ms" }, "rcu-unlock"]
            [[group]]
            name = "stay"
            tasks = 3
            cpus = "2"
            phases = ["migrate-off", "rcu-lock", { run = "exp 8ms" }, "rcu-unlock", { run = "exp 8ms" }, "migrate-on", { sleep = "exp 8ms" }]
            [[event]]
            at = "2s"
            kind = "offline"
            cpus = "1"
            for = "5s"
            [[event]]
            at = "3s"
            kind = "offline"
            cpus = "2"
            for = "1s"
        "#,
        holds: |stats| {
            let gone = stats.machine.offline_ns;
            at_least("ns that CPUs were gone", gone, 5_300_000_000)
        },
    },
    Case {
        name: "threads of a CPU that goes",
        text: r#"
            about = "a CPU goes, though threads of a higher class run there all the time until then"
            duration = "6s"
            topology = "4 cores"
            [[group]]
            name = "readers"
            tasks = 3
            cpus = "1"
            phases = ["rcu-lock", { run = "exp 8ms" }, "rcu-unlock"]
            [[event]]
            at = "2s"
            kind = "offline"
            cpus = "1"
            for = "1s"
            [[event]]
            at = "1s"
            every = "500us"
            kind = "realtime"
            cpus = "1"
            for = "50us"
        "#,
        holds: |stats| at_least("ns that a CPU was gone", stats.machine.offline_ns, 500_000_000),
    },
    Case {
        name: "wakeups beside readers",
        text: r#"
            about = "short tasks do not wait for ticks where all others read under RCU"
            duration = "5s"
            topology = "4 cores"
            [[group]]
            name = "readers"
            tasks = 8
            phases = ["rcu-lock", { run = "exp 8ms" }, "rcu-unlock"]
            [[group]]
            name = "short"
            tasks = 6
            phases = [{ run = "200us" }, { sleep = "3ms" }]
        "#,
        holds: |stats| at_most("p99.9, us", micros(&stats.groups[1].wakeup, 0.999), 100),
    },
    Case {
        name: "readers beside bound ones",
        text: r#"
            about = "a CPU that is never without a reader still asks for those that are bound to it"
            duration = "5s"
            topology = "4 cores"
            [[group]]
            name = "readers"
            tasks = 8
            cpus = "1,2"
            phases = ["rcu-lock", { run = "exp 8ms" }, "rcu-unlock"]
            [[group]]
            name = "bound"
            tasks = 3
            cpus = "2"
            phases = [{ run = "1s" }]
            [[group]]
            name = "short"
            tasks = 3
            cpus = "1"
            phases = [{ run = "50us" }, { sleep = "500us" }]
        "#,
        holds: |stats| at_least("thousandths, 226 are due", permille(1, stats), 220),
    },
    Case {
        name: "readers gain nothing",
        text: r#"
            about = "who always reads under RCU has the share of one"
            duration = "10s"
            topology = "2 nodes x 1 core"
            [[group]]
            name = "hogs"
            tasks = 6
            phases = [{ run = "1s" }]
            [[group]]
            name = "readers"
            tasks = 2
            phases = [{ run = "100us" }, "rcu-lock", { run = "20ms" }, "rcu-unlock"]
        "#,
        holds: |stats| at_most("share of the readers, in thousandths", permille(1, stats), 275),
    },
    Case {
        name: "readers beside idle nodes",
        text: r#"
            about = "a reader that is preempted goes on where a CPU is idle"
            duration = "4s"
            hz = 1000
            topology = "2 nodes x 2 cores"
            [[group]]
            name = "readers"
            tasks = 2
            phases = ["rcu-lock", { run = "exp 8ms" }, "rcu-unlock", { sleep = "exp 2ms" }]
            [[group]]
            name = "bound"
            tasks = 2
            cpus = "0"
            nice = -10
            phases = [{ run = "exp 3ms" }, { sleep = "exp 4ms" }]
            [[group]]
            name = "bound there"
            tasks = 2
            cpus = "2"
            nice = -10
            phases = [{ run = "exp 3ms" }, { sleep = "exp 4ms" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "readers preempted beside idle nodes",
        text: r#"
            about = "a reader that a waking task preempts goes on where a CPU of its node is idle"
            duration = "10s"
            topology = "2 nodes x 4 cores"
            [[group]]
            name = "readers"
            tasks = 3
            phases = ["rcu-lock", { run = "exp 2ms" }, "rcu-unlock", { sleep = "exp 2ms" }]
            [[group]]
            name = "bound"
            tasks = 1
            cpus = "0"
            nice = -10
            phases = [{ run = "exp 1ms" }, { sleep = "exp 2ms" }]
            [[group]]
            name = "bound there"
            tasks = 1
            cpus = "4"
            nice = -10
            phases = [{ run = "exp 1ms" }, { sleep = "exp 2ms" }]
        "#,
        holds: oracles_only,
    },
];

fn idle(stats: &scheduler::sim::Stats) -> u64 {
    let machine = &stats.machine;
    (machine.cpu_ns - machine.run_ns - machine.taken_ns - machine.offline_ns) * 1000
        / machine.cpu_ns
}

//! Cases of light tasks that read under RCU: all of the machine waits for them, and none of it is to suffer from them.

use super::suite::{Case, at_most, micros, oracles_only, permille};

pub const CASES: &[Case] = &[
    Case {
        name: "a light reader beside those who wake",
        text: r#"
            about = "a task of nice 19 that reads under RCU for 80 ms, as khugepaged does, costs those who wake nothing"
            duration = "10s"
            topology = "4 cores"
            [[group]]
            name = "hogs"
            tasks = 16
            phases = [{ run = "1s" }]
            [[group]]
            name = "short"
            tasks = 8
            phases = [{ run = "200us" }, { sleep = "2ms" }]
            [[group]]
            name = "reader"
            tasks = 1
            nice = 19
            phases = ["rcu-lock", { run = "80ms" }, "rcu-unlock", { sleep = "1s" }]
        "#,
        holds: |stats| {
            at_most("p99.9 of those who wake, in us", micros(&stats.groups[1].wakeup, 0.999), 200)
        },
    },
    Case {
        name: "light readers have little",
        text: r#"
            about = "light tasks that always read under RCU have no more than a slice in 20 ms together"
            duration = "10s"
            topology = "1 core"
            [[group]]
            name = "hogs"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "readers"
            tasks = 40
            nice = 19
            phases = ["rcu-lock", { run = "20ms" }, "rcu-unlock"]
        "#,
        holds: |stats| at_most("share of the readers, in thousandths", permille(1, stats), 250),
    },
    Case {
        name: "a light reader among wakeups",
        text: r#"
            about = "a light reader comes to its end although somebody wakes all the time"
            duration = "30s"
            topology = "1 core"
            [[group]]
            name = "hogs"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "short"
            tasks = 8
            phases = [{ run = "100us" }, { sleep = "1ms" }]
            [[group]]
            name = "reader"
            tasks = 1
            nice = 19
            phases = ["rcu-lock", { run = "80ms" }, "rcu-unlock"]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "light readers on many CPUs",
        text: r#"
            about = "many light readers on many CPUs come to their ends"
            duration = "30s"
            topology = "16 cores"
            [[group]]
            name = "hogs"
            tasks = 64
            phases = [{ run = "1s" }]
            [[group]]
            name = "readers"
            tasks = 64
            nice = 19
            phases = ["rcu-lock", { run = "160ms" }, "rcu-unlock"]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "light readers by clocks that differ",
        text: r#"
            about = "one reader is rescued at a time, though the clocks of CPUs differ"
            duration = "10s"
            topology = "4 cores"
            [costs]
            clock_skew = "2us"
            [[group]]
            name = "hogs"
            tasks = 40
            phases = [{ run = "1s" }]
            [[group]]
            name = "readers"
            tasks = 40
            nice = 19
            phases = ["rcu-lock", { run = "20ms" }, "rcu-unlock"]
        "#,
        holds: |stats| at_most("share of the readers, in thousandths", permille(1, stats), 80),
    },
];

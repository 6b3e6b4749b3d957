//! Cases of tasks that are confined to some CPUs, and of LLCs among each other: who is owed what by which clock.

use super::suite::{Case, at_most, micros, permille};

pub const CASES: &[Case] = &[
    Case {
        name: "one light task between two LLCs",
        text: r#"
            about = "a hog for each CPU and one SCHED_IDLE task that nobody takes in front of them"
            duration = "20s"
            topology = "2 llcs x 2 cores"
            [[group]]
            name = "hogs"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "idle"
            tasks = 1
            policy = "idle"
            phases = [{ run = "1s" }]
        "#,
        // Due is 0.7.
        holds: |stats| at_most("thousandths of the light one", permille(1, stats), 1),
    },
    Case {
        name: "two cpusets side by side",
        text: r#"
            about = "a crowded cpuset and one that is not, of cores beside each other"
            duration = "10s"
            topology = "8 cores x 2 threads"
            [[group]]
            name = "plain"
            tasks = 4
            cpus = "0,8"
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 4
            nice = 10
            cpus = "0,8"
            phases = [{ run = "1s" }]
            [[group]]
            name = "requests"
            tasks = 1
            cpus = "0,8"
            phases = [{ run = "500us" }, { sleep = "20ms" }]
            [[group]]
            name = "beside"
            tasks = 2
            cpus = "1,9"
            phases = [{ run = "1s" }]
        "#,
        holds: |stats| {
            at_most("p50 of a wakeup, us", micros(&stats.groups[2].wakeup, 0.5), 100)?;
            // Due are 9.7 % of what the three have.
            at_most("thousandths of the light ones", permille(1, stats), 52)
        },
    },
    Case {
        name: "a cpuset within another",
        text: r#"
            about = "tasks of all CPUs but one, and a crowded cpuset of two of those"
            duration = "10s"
            topology = "16 cores"
            [[group]]
            name = "system"
            tasks = 8
            cpus = "0-14"
            phases = [{ run = "1s" }]
            [[group]]
            name = "box"
            tasks = 8
            cpus = "0-1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "requests"
            tasks = 2
            cpus = "0-1"
            phases = [{ run = "500us" }, { sleep = "20ms" }]
        "#,
        holds: |stats| at_most("p50 of a wakeup, us", micros(&stats.groups[2].wakeup, 0.5), 100),
    },
    Case {
        name: "another cpuset every ten milliseconds",
        text: r#"
            about = "a hog that changes its affinity has its share, no less and no more"
            duration = "20s"
            topology = "4 cores"
            [[group]]
            name = "hogs"
            tasks = 12
            phases = [{ run = "1s" }]
            [[group]]
            name = "restless"
            tasks = 1
            cpus = "0-1"
            phases = [{ run = "1s" }]
            [[event]]
            at = "1ms"
            every = "30ms"
            kind = "affinity"
            group = "restless"
            cpus = "0-1"
            [[event]]
            at = "11ms"
            every = "30ms"
            kind = "affinity"
            group = "restless"
            cpus = "1-2"
            [[event]]
            at = "21ms"
            every = "30ms"
            kind = "affinity"
            group = "restless"
            cpus = "2-3"
        "#,
        // Due are 76.9.
        holds: |stats| {
            at_most("thousandths of the restless one", permille(1, stats), 79)?;
            at_most(
                "thousandths that it is short of 75",
                75u64.saturating_sub(permille(1, stats)),
                0,
            )
        },
    },
    Case {
        name: "parts that nobody waits in",
        text: r#"
            about = "who waits too long is found, though tasks of other affinities served before were first"
            duration = "12s"
            topology = "16 cores"
            hz = 100
            [[group]]
            name = "hogs"
            tasks = 4
            cpus = "14-15"
            phases = [{ run = "1s" }]
            [[group]]
            name = "idle"
            tasks = 2
            cpus = "14-15"
            policy = "idle"
            phases = [{ run = "1s" }]
            [[group]]
            name = "first"
            tasks = 1
            cpus = "0,14-15"
            phases = [{ run = "100us" }, { sleep = "1s" }]
            [[group]]
            name = "second"
            tasks = 1
            cpus = "2,14-15"
            phases = [{ run = "100us" }, { sleep = "1s" }]
            [[group]]
            name = "third"
            tasks = 1
            cpus = "4,14-15"
            phases = [{ run = "100us" }, { sleep = "1s" }]
            [[group]]
            name = "fourth"
            tasks = 1
            cpus = "6,14-15"
            phases = [{ run = "100us" }, { sleep = "1s" }]
            [[group]]
            name = "fifth"
            tasks = 1
            cpus = "8,14-15"
            phases = [{ run = "100us" }, { sleep = "1s" }]
            [[group]]
            name = "sixth"
            tasks = 1
            cpus = "10,14-15"
            phases = [{ run = "100us" }, { sleep = "1s" }]
            [[group]]
            name = "seventh"
            tasks = 1
            cpus = "12,14-15"
            phases = [{ run = "100us" }, { sleep = "1s" }]
        "#,
        holds: |stats| at_most("longest wait, ms", stats.groups[1].wait.max_ns / 1_000_000, 5_200),
    },
    Case {
        name: "more that wait too long than one CPU can rescue",
        text: r#"
            about = "many light tasks behind many hogs: the turn of each comes soon after five seconds"
            duration = "9s"
            topology = "16 cores"
            [[group]]
            name = "hogs"
            tasks = 80
            nice = -10
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 320
            nice = 19
            phases = [{ run = "1s" }]
        "#,
        // 5.4 as it is; one CPU alone would take eleven.
        holds: |stats| at_most("longest wait, ms", stats.groups[1].wait.max_ns / 1_000_000, 5_800),
    },
    Case {
        name: "out of its cpuset for a while",
        text: r#"
            about = "a task that must not migrate yet is preempted where its new affinity does not let it"
            duration = "5s"
            topology = "4 cores"
            [[group]]
            name = "moved"
            tasks = 1
            cpus = "2-3"
            phases = ["migrate-off", { run = "60ms" }, "migrate-on", { run = "1s" }]
            [[event]]
            at = "5ms"
            kind = "affinity"
            group = "moved"
            cpus = "0-1"
            [[group]]
            name = "there"
            tasks = 1
            cpus = "2"
            start = "10ms"
            phases = [{ run = "20ms" }, { sleep = "20ms" }]
        "#,
        // Two ticks; 28 ms where it waits in a queue that its CPU does not look at.
        holds: |stats| at_most("longest wait, ns", stats.groups[0].wait.max_ns, 12_000_000),
    },
    Case {
        name: "many light ones in one LLC",
        text: r#"
            about = "a hog for each CPU beside more SCHED_IDLE tasks, which are confined to one LLC"
            duration = "20s"
            topology = "2 llcs x 4 cores"
            [costs]
            clock_skew = "200ns"
            [[group]]
            name = "idle"
            tasks = 32
            policy = "idle"
            cpus = "0-3"
            phases = [{ run = "1s" }]
            [[group]]
            name = "hogs"
            tasks = 8
            start = "10ms..20ms"
            phases = [{ run = "1s" }]
        "#,
        // 12 are due, and more at first; 500 where LLCs go by the number of tasks, 90 where ticks that are some ns apart
        // take each other's measure of the pace away.
        holds: |stats| at_most("thousandths of the light ones", permille(0, stats), 30),
    },
    Case {
        name: "few heavy ones in one LLC",
        text: r#"
            about = "nobody shares an LLC with heavy tasks who has more of another"
            duration = "10s"
            topology = "2 llcs x 4 cores"
            [[group]]
            name = "heavy"
            tasks = 4
            nice = -20
            cpus = "0-3"
            phases = [{ run = "1s" }]
            [[group]]
            name = "hogs"
            tasks = 12
            phases = [{ run = "1s" }]
        "#,
        // 104 ms, until the pace of the clocks is known; 369 where LLCs go by the number of tasks.
        holds: |stats| at_most("longest wait, ns", stats.groups[1].wait.max_ns, 150_000_000),
    },
    Case {
        name: "a crowd in two LLCs",
        text: r#"
            about = "who is equal stays, however coarse the clocks of crowded LLCs move"
            duration = "5s"
            topology = "2 llcs x 4 cores"
            [[group]]
            name = "hogs"
            tasks = 160
            phases = [{ run = "1s" }]
        "#,
        holds: |stats| at_most("migrations", stats.groups[0].migrations, 50),
    },
    Case {
        name: "bound light ones, and hogs that go on",
        text: r#"
            about = "light tasks that are bound have what is due to them beside hogs that are not"
            duration = "20s"
            topology = "4 cores"
            [[group]]
            name = "light0"
            tasks = 8
            nice = 19
            cpus = "0"
            phases = [{ run = "1s" }]
            [[group]]
            name = "light1"
            tasks = 8
            nice = 19
            cpus = "1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "light2"
            tasks = 8
            nice = 19
            cpus = "2"
            phases = [{ run = "1s" }]
            [[group]]
            name = "light3"
            tasks = 8
            nice = 19
            cpus = "3"
            phases = [{ run = "1s" }]
            [[group]]
            name = "hogs"
            tasks = 4
            start = "10ms..20ms"
            phases = [{ run = "1s" }]
        "#,
        // 895 are due; 920 where the clock of a CPU stays behind that of its LLC while a hog goes on.
        holds: |stats| at_most("share of the hogs, ‰", permille(4, stats), 905),
    },
    Case {
        name: "idle beside who waits in another LLC",
        text: r#"
            about = "a CPU looks for an idle one at each tick, also where each tick preempts"
            duration = "6s"
            topology = "2 llcs x 1 cores"
            [costs]
            go_idle = "400us"
            [[group]]
            name = "bound"
            tasks = 2
            cpus = "0"
            phases = [{ run = "1s" }]
            [[group]]
            name = "sleeper"
            tasks = 1
            cpus = "1"
            phases = [{ run = "10ms" }, { sleep = "5s" }]
            [[group]]
            name = "light"
            tasks = 1
            policy = "idle"
            cpus = "0"
            phases = [{ run = "1s" }]
            [[event]]
            at = "10200us"
            kind = "affinity"
            group = "light"
            cpus = "0-1"
        "#,
        // Three ticks; 1.37 s where only a tick that does not preempt looks.
        holds: |stats| at_most("longest wait, ns", stats.groups[2].wakeup.max_ns, 30_000_000),
    },
];

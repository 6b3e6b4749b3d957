//! Cases in which a fault shows in a figure alone: where tasks are placed, what they owe, how long they wait.

use super::suite::{Case, at_least, at_most, micros, oracles_only, permille};
use scheduler::sim::Stats;

fn sharing(stats: &Stats) -> u64 {
    stats.machine.shared_ns * 1000 / stats.machine.cpu_ns
}

pub const CASES: &[Case] = &[
    Case {
        name: "an idle core each",
        text: r#"
            about = "three tasks find their cores where they left them"
            duration = "2s"
            topology = "2 llcs x 2 cores x 2 threads"
            [[group]]
            name = "tasks"
            tasks = 3
            phases = [{ run = "exp 2ms" }, { sleep = "exp 1ms" }]
        "#,
        holds: |stats| at_most("migrations", stats.groups[0].migrations, 20),
    },
    Case {
        name: "after each wave",
        text: r#"
            about = "a wave fills all threads; when it is over those that are left spread over the cores"
            duration = "4s"
            topology = "4 cores x 2 threads"
            [[group]]
            name = "steady"
            tasks = 3
            phases = [{ run = "exp 3ms" }, { sleep = "exp 300us" }]
            [[group]]
            name = "wave"
            tasks = 6
            phases = [{ period = { every = "100ms" } }, { run = "5ms..20ms" }]
        "#,
        // 9 as it is.
        holds: |stats| at_most("time on a shared core beside an idle one, ‰", sharing(stats), 30),
    },
    Case {
        name: "two hogs on a core",
        text: r#"
            about = "hogs that share a core leave it when they may"
            duration = "2s"
            topology = "3 cores x 2 threads"
            [[group]]
            name = "hogs"
            tasks = 2
            cpus = "0,3"
            phases = [{ run = "1s" }]
            [[event]]
            at = "500ms"
            kind = "affinity"
            group = "hogs"
            cpus = "0-5"
        "#,
        // 2 as it is: four ticks.
        holds: |stats| at_most("time on a shared core beside an idle one, ‰", sharing(stats), 10),
    },
    Case {
        name: "two hogs on a core, and cores that are gone",
        text: r#"
            about = "who leaves a shared core goes to one that is there"
            duration = "2s"
            topology = "4 cores x 2 threads"
            [[group]]
            name = "hogs"
            tasks = 2
            cpus = "0,4"
            phases = [{ run = "1s" }]
            [[event]]
            at = "300ms"
            kind = "offline"
            cpus = "1-2,5-6"
            for = "1s"
            [[event]]
            at = "600ms"
            kind = "affinity"
            group = "hogs"
            cpus = "0-7"
        "#,
        holds: oracles_only,
    },
    Case {
        name: "children on the second threads",
        text: r#"
            about = "a thread whose task has ended is no company"
            duration = "4s"
            topology = "4 cores x 2 threads"
            [[group]]
            name = "hogs"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "shell"
            tasks = 1
            cpus = "3"
            phases = [{ run = "50us" }, { fork = "child" }, { sleep = "exp 10ms" }]
            [[group]]
            name = "child"
            tasks = 0
            cpus = "4-5"
            phases = [{ run = "exp 1ms" }, "exit"]
        "#,
        holds: |stats| at_most("migrations of hogs", stats.groups[0].migrations, 2),
    },
    Case {
        name: "beside the confined",
        text: r#"
            about = "many tasks that may run on half of an LLC do not hide the others from each other"
            duration = "6s"
            topology = "4 cores"
            [[group]]
            name = "confined"
            tasks = 80
            cpus = "0-1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "plain"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 2
            nice = 5
            phases = [{ run = "1s" }]
        "#,
        // 335 of 1359 of two of four CPUs.
        holds: |stats| at_most("share of the light ones, ‰", permille(2, stats), 126),
    },
    Case {
        name: "confined by weight",
        text: r#"
            about = "weights hold among tasks confined to a half whose other half is less busy"
            duration = "8s"
            topology = "4 cores"
            [[group]]
            name = "normal"
            tasks = 10
            cpus = "0-1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 10
            nice = 10
            cpus = "0-1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "rest"
            tasks = 2
            cpus = "2-3"
            phases = [{ run = "1s" }]
        "#,
        // 110 of 1134 of two of four CPUs.
        holds: |stats| at_most("share of the light ones, ‰", permille(1, stats), 50),
    },
    Case {
        name: "light ones confined",
        text: r#"
            about = "tasks of a half that are due much later than hogs anywhere lose nothing until then"
            duration = "20s"
            topology = "4 cores"
            [[group]]
            name = "hogs"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 16
            nice = 19
            cpus = "0-1"
            phases = [{ run = "1s" }]
        "#,
        // 240 of 4336.
        holds: |stats| at_least("share of the light ones, ‰", permille(1, stats), 52),
    },
    Case {
        name: "beside another part",
        text: r#"
            about = "children of a half whose CPUs are busy for an instant do not wait behind those of the other half"
            duration = "12s"
            topology = "4 cores"
            [[group]]
            name = "other half"
            tasks = 24
            cpus = "0-1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "forker"
            tasks = 2
            start = "1s"
            cpus = "2-3"
            phases = [{ run = "1500us" }, { sleep = "200us" }, { run = "200us" }, { fork = "child" },
                      { fork = "child" }, { run = "300us" }, { sleep = "5s" }]
            [[group]]
            name = "child"
            tasks = 0
            cpus = "2-3"
            phases = [{ run = "200us" }, "exit"]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "parts of two LLCs",
        text: r#"
            about = "many tasks that may use parts of two LLCs leave the one for the other"
            duration = "8s"
            topology = "2 llcs x 4 cores"
            [[group]]
            name = "spanning"
            tasks = 24
            cpus = "0-2"
            phases = [{ run = "1s" }]
            [[group]]
            name = "right"
            tasks = 6
            cpus = "4-7"
            phases = [{ run = "1s" }]
            [[event]]
            at = "1s"
            kind = "affinity"
            group = "spanning"
            cpus = "0-2,4-6"
        "#,
        // With 24 of 30 tasks on seven CPUs, less a second that those had four for themselves; kept off, 571.
        holds: |stats| at_most("share of those on one LLC, ‰", permille(1, stats), 300),
    },
    Case {
        name: "flipped",
        text: r#"
            about = "who moves between a crowded CPU and a part of the others gains little"
            duration = "10s"
            topology = "4 cores"
            [[group]]
            name = "bound"
            tasks = 6
            cpus = "2"
            phases = [{ run = "1s" }]
            [[group]]
            name = "free"
            tasks = 12
            phases = [{ run = "1s" }]
            [[group]]
            name = "flipped"
            tasks = 1
            cpus = "0,3"
            phases = [{ run = "1s" }]
            [[event]]
            at = "1s"
            every = "40ms"
            kind = "affinity"
            group = "flipped"
            cpus = "2"
            [[event]]
            at = "1001ms"
            every = "40ms"
            kind = "affinity"
            group = "flipped"
            cpus = "0,3"
        "#,
        // 58 are due; by the clocks of CPUs it got 208.
        holds: |stats| at_most("share of who moves, ‰", permille(2, stats), 70),
    },
    Case {
        name: "wakes where it slept",
        text: r#"
            about = "who may not migrate waits no longer beside bound tasks where the LLC serves light ones"
            duration = "12s"
            topology = "4 cores"
            [[group]]
            name = "light"
            tasks = 6
            nice = 19
            phases = [{ run = "1s" }]
            [[group]]
            name = "bound"
            tasks = 2
            cpus = "0"
            phases = [{ run = "1s" }]
            [[group]]
            name = "others"
            tasks = 2
            cpus = "1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "more"
            tasks = 2
            cpus = "2"
            phases = [{ run = "1s" }]
            [[group]]
            name = "stays"
            tasks = 1
            cpus = "0"
            phases = ["migrate-off", { run = "50us" }, { sleep = "5ms" }, { run = "200us" }, "migrate-on"]
            [[event]]
            at = "3s"
            kind = "affinity"
            group = "stays"
            cpus = "0-3"
        "#,
        // Two turns of all on its CPU, and what the clocks of an LLC and a CPU may be apart.
        holds: |stats| {
            at_most("microseconds that it waits, p99", micros(&stats.groups[4].wait, 0.99), 80_000)
        },
    },
    Case {
        name: "late to a part",
        text: r#"
            about = "who comes to a part that was empty for long, beside others there, has a share like each"
            duration = "8s"
            topology = "8 cores"
            [[group]]
            name = "crowd"
            tasks = 8
            cpus = "0-3"
            phases = [{ run = "1s" }]
            [[group]]
            name = "rest"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "late"
            tasks = 2
            cpus = "2-3"
            start = "4s"
            phases = [{ run = "1s" }]
        "#,
        // A CPU for half of the time at most, where 0.8 of one are due then.
        holds: |stats| at_most("share of the late ones, ‰", permille(2, stats), 128),
    },
    Case {
        name: "sleeps in a part",
        text: r#"
            about = "who sleeps in a part of its own gains nothing"
            duration = "10s"
            topology = "4 cores"
            [[group]]
            name = "free"
            tasks = 8
            phases = [{ run = "1s" }]
            [[group]]
            name = "sleeper"
            tasks = 1
            cpus = "0-2"
            phases = [{ run = "19ms" }, { sleep = "1ms" }]
            [[group]]
            name = "long"
            tasks = 1
            cpus = "1-2"
            phases = [{ run = "50ms" }, { sleep = "30ms" }]
        "#,
        holds: |stats| {
            at_most("share of the sleeper, ‰", permille(1, stats), 105)?;
            at_most("share of who sleeps long, ‰", permille(2, stats), 105)
        },
    },
    Case {
        name: "children that fork first",
        text: r#"
            about = "tasks that end leave their debts behind"
            duration = "6s"
            topology = "1 core"
            [[group]]
            name = "hog"
            tasks = 3
            phases = [{ run = "1s" }]
            [[group]]
            name = "chain"
            tasks = 1
            phases = [{ fork = "chain" }, { run = "3500us" }, "exit"]
        "#,
        // 341 as it is: two of them live at a time.
        holds: |stats| at_most("share of the chain, ‰", permille(1, stats), 400),
    },
    Case {
        name: "children that fork last",
        text: r#"
            about = "a new task is no way to be first"
            duration = "6s"
            topology = "1 core"
            [[group]]
            name = "hog"
            tasks = 3
            phases = [{ run = "1s" }]
            [[group]]
            name = "chain"
            tasks = 1
            phases = [{ run = "4500us" }, { fork = "chain" }, "exit"]
        "#,
        // 234 as it is, 250 are due.
        holds: |stats| at_most("share of the chain, ‰", permille(1, stats), 260),
    },
    Case {
        name: "who yields",
        text: r#"
            about = "tasks that give way after each step"
            duration = "3s"
            topology = "1 core"
            [[group]]
            name = "hog"
            tasks = 1
            phases = [{ run = "1s" }]
            [[group]]
            name = "polite"
            tasks = 2
            phases = [{ run = "50us" }, "yield"]
        "#,
        // 39,115 as it is.
        holds: |stats| {
            let missing = 30_000u64.saturating_sub(stats.machine.switches);
            at_most("switches fewer than 30000", missing, 0)
        },
    },
    Case {
        name: "joining those that are bound",
        text: r#"
            about = "a task that comes to be bound to a CPU goes by the time of that"
            duration = "10s"
            topology = "4 cores"
            [[group]]
            name = "bound"
            tasks = 6
            cpus = "3"
            phases = [{ run = "1s" }]
            [[group]]
            name = "free"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "joining"
            tasks = 1
            phases = [{ run = "1s" }]
            [[event]]
            at = "4s"
            kind = "affinity"
            group = "joining"
            cpus = "3"
        "#,
        holds: |stats| {
            at_most("longest wait of who joins, ns", stats.groups[2].wait.max_ns, 60_000_000)
        },
    },
    Case {
        name: "from fast time to slow time",
        text: r#"
            about = "an LLC that fills up sends tasks to another, whose clock has gone more slowly"
            duration = "13s"
            topology = "2 llcs x 2 cores"
            [[group]]
            name = "left"
            tasks = 8
            cpus = "0-1"
            phases = [{ run = "1s" }]
            [[group]]
            name = "right"
            tasks = 24
            cpus = "2-3"
            start = "3s"
            phases = [{ run = "100ms" }, { sleep = "3s" }]
            [[group]]
            name = "free"
            tasks = 3
            phases = [{ run = "1s" }]
        "#,
        holds: |stats| {
            at_most("longest wait of who moves, ns", stats.groups[2].wait.max_ns, 200_000_000)
        },
    },
    Case {
        name: "slow to be idle",
        text: r#"
            about = "tasks that wake while a CPU is on its way to being idle"
            duration = "6s"
            topology = "4 cores"
            [costs]
            go_idle = "10us"
            [[group]]
            name = "short"
            tasks = 10
            phases = [{ run = "exp 100us" }, { sleep = "exp 300us" }]
        "#,
        holds: oracles_only,
    },
    Case {
        name: "many at a fine tick",
        text: r#"
            about = "the more wait the shorter are the slices"
            duration = "3s"
            hz = 1000
            topology = "1 core"
            [[group]]
            name = "hogs"
            tasks = 20
            phases = [{ run = "1s" }]
        "#,
        holds: |stats| at_most("longest wait, ns", stats.groups[0].wait.max_ns, 45_000_000),
    },
    Case {
        name: "heavy among light ones, who are heavy then",
        text: r#"
            about = "who has a CPU of its own is not owed what it could have had of others"
            duration = "12s"
            topology = "4 cores"
            [[group]]
            name = "light"
            tasks = 12
            nice = 19
            phases = [{ run = "1s" }]
            [[group]]
            name = "heavy"
            tasks = 3
            phases = [{ run = "1s" }]
            [[event]]
            at = "8s"
            kind = "renice"
            group = "light"
            nice = 0
        "#,
        // 567 are due; with what they were owed by the clock of the light ones they had 750.
        holds: |stats| at_most("share of the heavy ones, ‰", permille(1, stats), 575),
    },
    Case {
        name: "back after long",
        text: r#"
            about = "who slept for half a second has the CPU for no longer than others"
            duration = "6s"
            topology = "1 core"
            [[group]]
            name = "hogs"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "sleeper"
            tasks = 1
            phases = [{ sleep = "500ms" }, { run = "100ms" }]
        "#,
        // A turn of three at 4 ms ticks, and what the sleeper is owed.
        holds: |stats| at_most("longest wait, ns", stats.groups[0].wait.max_ns, 20_000_000),
    },
    Case {
        name: "a sleeper, hogs and light ones",
        text: r#"
            about = "who goes on in front of light tasks is owed no more than who is queued among others"
            duration = "20s"
            topology = "2 cores"
            [[group]]
            name = "hogs"
            tasks = 2
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 2
            nice = 15
            phases = [{ run = "1s" }]
            [[group]]
            name = "sleepers"
            tasks = 2
            phases = [{ run = "100ms" }, { sleep = "100ms" }]
        "#,
        // 641, as on one CPU; 524 where the clock stands while hogs go on.
        holds: |stats| at_least("share of the hogs, ‰", permille(0, stats), 620),
    },
    Case {
        name: "hogs that come late",
        text: r#"
            about = "hogs beside light ones, and after long others like them"
            duration = "10s"
            topology = "4 cores"
            [[group]]
            name = "first"
            tasks = 4
            phases = [{ run = "1s" }]
            [[group]]
            name = "light"
            tasks = 4
            nice = 19
            phases = [{ run = "1s" }]
            [[group]]
            name = "late"
            tasks = 4
            start = "5.9s"
            phases = [{ run = "1s" }]
        "#,
        // A turn of two at 4 ms ticks; 216 where the clock stands while the first go on.
        holds: |stats| at_most("longest wait, ns", stats.groups[0].wait.max_ns, 20_000_000),
    },
];

use super::*;
use crate::{
    settings::Tuning,
    sim::{self, BUILTIN, Stats},
};

fn read(tasks: &str) -> Result<Scenario> {
    let text = format!("{{ \"tasks\": {{ {tasks} }}, \"global\": {{ \"duration\": 1 }} }}");
    parse(&text, Some(topology::parse("2 cores").expect("a topology")))
}

/// A second of it, in which no rule is broken.
#[track_caller]
fn second(tasks: &str) -> Stats {
    let mut scenario = read(tasks).unwrap_or_else(|error| panic!("{error}"));
    // What a switch costs counts as run time: here it is to be about what was asked for.
    (scenario.costs.switch, scenario.costs.resched) = (1_500, 0);
    let (stats, violation) = sim::run(&scenario, BUILTIN, Tuning::default(), 1).expect("a run");
    assert_eq!(violation, None);
    stats
}

/// Milliseconds that the threads of a name ran for.
fn ran(stats: &Stats, group: usize) -> u64 {
    stats.groups[group].run_ns / 1_000_000
}

#[test]
fn run_and_sleep_and_timers() {
    let stats = second(
        r#""sleeper": { "run": 4000, "sleep": 6000 },
           "timed": { "cpus": [1], "run0": 4000, "timer": { "ref": "unique", "period": 10000 } }"#,
    );
    assert!((385..=404).contains(&ran(&stats, 0)) && (395..=404).contains(&ran(&stats, 1)));
    assert_eq!((stats.groups[1].migrations, stats.groups[1].missed), (0, 0));
    assert!((99..=100).contains(&stats.groups[1].periods), "{}", stats.groups[1].periods);
}

#[test]
fn a_relative_timer_forgets_what_it_missed() {
    let timed = |mode: &str| {
        let timer = format!("{{ \"ref\": \"uniqueA\", \"period\": 10000, \"mode\": \"{mode}\" }}");
        let stats = second(&format!(
            r#""timed": {{ "loop": 1, "phases": {{
                "late": {{ "run": 95000, "timer": {timer} }},
                "then": {{ "loop": 12, "run": 5000, "timer": {timer} }}
            }} }}"#
        ));
        (stats.groups[0].periods, stats.groups[0].missed)
    };
    assert_eq!(timed("relative"), (13, 1));
    // 95 ms, and then 5 ms a period instead of 10: 17 periods to make up, and there are 12.
    let (periods, missed) = timed("absolute");
    assert!(periods == 13 && missed > 12, "{missed} of {periods}");
}

#[test]
fn loops_within_loops_end() {
    let stats = second(
        r#""once": { "loop": 3, "phases": {
               "a": { "loop": 4, "run": 1000, "sleep": 100 },
               "b": { "run": 2000 },
               "c": { "loop": 0, "run": 500000 } } },
           "never": { "loop": 0, "run": 1000 },
           "twice": { "instance": 2, "delay": 500000, "loop": 5, "run": 1000, "sleep": 1 }"#,
    );
    // Three times four and two milliseconds, and what switches and moves cost.
    assert_eq!([0, 1, 2].map(|group| ran(&stats, group)), [18, 0, 10]);
    assert_eq!(stats.groups[2].tasks, 2);
}

#[test]
fn suspended_until_resumed_and_a_signal_without_a_waiter_is_lost() {
    let stats = second(
        r#""Main": { "loop": 10, "run": 1000, "resume": "Sub", "sleep": 9000 },
           "Sub1": { "suspend": "Sub", "run": 2000 },
           "Sub2": { "suspend": "Sub", "run": 2000 },
           "Sub": { "suspend": "", "run": 1000 },
           "early": { "loop": 1, "signal": "nobody", "run": 100 },
           "late": { "delay": 10000, "lock": "m", "wait": { "ref": "nobody", "mutex": "m" }, "unlock": "m", "run": 1000 }"#,
    );
    assert_eq!([0, 1, 2, 3, 5].map(|group| ran(&stats, group)), [10, 20, 20, 10, 0]);
}

#[test]
fn mutexes_and_conditions() {
    let stats = second(
        r#""producer": { "loop": 20, "lock": "m", "run": 1000, "signal": "c", "unlock": "m", "sleep": 9000 },
           "consumer": { "lock": "m", "wait": { "ref": "c", "mutex": "m" }, "run": 3000, "unlock": "m" },
           "ping": { "lock": "n", "sync": { "ref": "d", "mutex": "n" }, "unlock": "n", "run": 500 },
           "pong": { "sleep": 100, "sync": { "ref": "d", "mutex": "n" }, "run": 500 },
           "broad": { "delay": 990000, "loop": 1, "lock": "n", "broad": "d", "unlock": "n", "yield": "" }"#,
    );
    // Nobody waits yet when the first signal comes: the consumer is behind the mutex.
    assert_eq!([0, 1].map(|group| ran(&stats, group)), [20, 57]);
    // Each wakes the other and waits for it: neither runs twice in a row.
    let (ping, pong) = (ran(&stats, 2), ran(&stats, 3));
    assert!(ping > 50 && ping.abs_diff(pong) <= 1, "{ping} {pong}");
}

#[test]
fn what_a_phase_changes() {
    let stats = second(
        r#""moving": { "cpus": [0], "phases": {
               "there": { "cpus": [1], "run": 100000 },
               "back": { "run": 100000 } } },
           "hog": { "cpus": [0, 1], "instance": 2, "run": 1000000 },
           "light": { "loop": 1, "phases": {
               "a": { "run": 1000 }, "b": { "priority": 19, "run": 1000000 } } }"#,
    );
    assert!(stats.groups[0].migrations >= 2, "{}", stats.groups[0].migrations);
    assert!(ran(&stats, 0) > 450 && ran(&stats, 2) < 60, "{} {}", ran(&stats, 0), ran(&stats, 2));
}

#[test]
fn threads_that_are_forked() {
    let stats = second(
        r#""parent": { "loop": 10, "run": 1000, "fork": "child", "sleep": 5000 },
           "child": { "instance": 0, "policy": "SCHED_BATCH", "loop": 1, "run": 2000 }"#,
    );
    assert_eq!((stats.groups[1].tasks, ran(&stats, 1)), (10, 20));
}

#[test]
fn what_is_not_simulated_is_named() {
    for (tasks, says) in [
        (r#""a": {}"#, "tasks.a: has no event"),
        (r#""a": 3"#, "tasks.a: is a number, where an object"),
        (r#""a": { "run": "3" }"#, "tasks.a.run: must be a whole number of microseconds"),
        (r#""a": { "run": -1 }"#, "tasks.a.run: must be"),
        (r#""a": { "run": 1e3 }"#, "tasks.a.run: must be"),
        (r#""a": { "run": 99999999999999999999 }"#, "tasks.a.run: must be"),
        (r#""a": { "sleep": 86400000001 }"#, "tasks.a.sleep: must be"),
        (r#""a": { "phases": { "p": { "mem": 5 } } }"#, "tasks.a.phases.p.mem: is not simulated"),
        (r#""a": { "iorun": 5 }"#, "tasks.a.iorun: is not simulated"),
        (r#""a": { "barrier": "b" }"#, "tasks.a.barrier: is not simulated"),
        (r#""a": { "run": 1, "dl-period": 5 }"#, "tasks.a.dl-period: is not simulated"),
        (r#""a": { "run": 1, "util_min": 5 }"#, "tasks.a.util_min: is not simulated"),
        (r#""a": { "run": 1, "taskgroup": "/g" }"#, "tasks.a.taskgroup: is not simulated"),
        (r#""a": { "policy": "SCHED_FIFO", "run": 1 }"#, "tasks.a.policy: 'SCHED_FIFO' is not"),
        (
            r#""a": { "phases": { "p": { "policy": "SCHED_IDLE", "run": 1 } } }"#,
            "not simulated in a phase",
        ),
        (r#""a": { "jump": 1 }"#, "tasks.a.jump: unknown; the events are"),
        (r#""a": { "phases": {}, "run": 1 }"#, "tasks.a.run: unknown beside phases"),
        (r#""a": { "phases": {} }"#, "tasks.a: does nothing"),
        (r#""a": { "phases": [] }"#, "tasks.a.phases: is a list"),
        (r#""a": { "loop": 1, "loop": 2, "run": 1 }"#, "tasks.a.loop: is given twice"),
        (r#""a": { "loop": -2, "run": 1 }"#, "tasks.a.loop: must be a whole number from -1"),
        (r#""a": { "instance": 4294967296, "run": 1 }"#, "tasks.a.instance: must be"),
        (r#""a": { "instance": 200000, "run": 1 }, "b": { "run": 1 }"#, "200000 at most"),
        (r#""a": { "instance": 0, "run": 1 }"#, "no task that starts by itself"),
        (r#""a": { "run": 1 }, "a": { "run": 1 }"#, "two groups are named 'a'"),
        (
            r#""a": { "priority": 20, "run": 1 }"#,
            "tasks.a.priority: must be a whole number from -20",
        ),
        (r#""a": { "priority": 1, "nice": 1, "run": 1 }"#, "the same as nice"),
        (r#""a": { "cpus": [2], "run": 1 }"#, "0 to 1"),
        (r#""a": { "cpus": [], "run": 1 }"#, "tasks.a.cpus: must be a list"),
        (r#""a": { "cpus": 1, "run": 1 }"#, "tasks.a.cpus: must be a list"),
        (r#""a": { "phases": { "p": { "cpus": [9], "run": 1 } } }"#, "0 to 1"),
        (r#""a": { "timer": 5 }"#, "tasks.a.timer: is a number"),
        (r#""a": { "timer": { "ref": "unique" } }"#, "tasks.a.timer.period: is missing"),
        (r#""a": { "timer": { "period": 5 } }"#, "tasks.a.timer.ref: is missing"),
        (r#""a": { "timer": { "ref": "unique", "period": 0 } }"#, "tasks.a.timer.period: must be"),
        (
            r#""a": { "timer": { "ref": "unique", "period": 5, "mode": "odd" } }"#,
            "relative or absolute",
        ),
        (
            r#""a": { "instance": 2, "timer": { "ref": "t", "period": 5 } }"#,
            "timer 't' of several threads",
        ),
        (r#""a": { "lock": "m", "lock": "m" }"#, "'m' is locked here"),
        (r#""a": { "unlock": "m" }"#, "'m' is not locked here"),
        (r#""a": { "wait": { "ref": "c", "mutex": "m" } }"#, "'m' is not locked here"),
        (r#""a": { "lock": "m", "wait": { "ref": "c" } }"#, "tasks.a.wait.mutex: is missing"),
        (r#""a": { "resume": "" }"#, "tasks.a.resume: is empty"),
        (r#""a": { "resume": 3 }"#, "tasks.a.resume: is a number, where a string"),
        (r#""a": { "fork": "b" }"#, "tasks.a.fork: there is no thread 'b'"),
        (r#""a\n\u001b": { "odd": 1 }"#, r"tasks.a\n\u{1b}.odd: unknown"),
    ] {
        let error = read(tasks).err().unwrap_or_else(|| panic!("{tasks}"));
        assert!(error.contains(says) && !error.contains('\n'), "{tasks}: {error}");
    }
    let whole = |text: &str| parse(text, None).expect_err(text);
    let run = r#""tasks": { "a": { "run": 1 } }"#;
    for (text, says) in [
        (format!("{{ {run} }}"), "global.duration: is missing"),
        (format!("{{ {run}, \"global\": {{ \"duration\": -1 }} }}"), "global.duration: must be"),
        (
            format!("{{ {run}, \"global\": {{ \"duration\": 1, \"turbo\": 1 }} }}"),
            "global.turbo: is not",
        ),
        (format!("{{ {run}, \"global\": {{ \"pi_enabled\": true }} }}"), "global.pi_enabled: "),
        (format!("{{ {run}, \"extra\": 1 }}"), "extra: unknown"),
        ("{ \"global\": { \"duration\": 1 } }".into(), "tasks: is missing"),
        ("[]".into(), "is a list, where an object"),
        ("{ \"tasks\": ".into(), "line 1, column 11: EOF"),
    ] {
        let error = whole(&text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

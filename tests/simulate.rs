//! The simulator: the kernel's half on virtual CPUs, judged by its oracles.

#[path = "simulate/cpusets.rs"]
mod cpusets;
mod crates;
#[path = "simulate/finer.rs"]
mod finer;
#[path = "simulate/mutants.rs"]
mod mutants;
#[path = "simulate/policies.rs"]
mod policies;
#[path = "simulate/readers.rs"]
mod readers;
#[path = "simulate/repeat.rs"]
mod repeat;
#[path = "simulate/scale.rs"]
mod scale;
#[path = "simulate/suite.rs"]
mod suite;
#[path = "simulate/upheaval.rs"]
mod upheaval;

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use scheduler::{
    settings::Tuning,
    sim::{self, BUILTIN, Scenario, Stats},
};
use std::{env, fmt::Write as _, fs, path::Path, process::Command, str::FromStr, thread};

fn scenario(text: &str) -> Scenario {
    Scenario::parse(text, None).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs a scenario that must break no rule.
#[track_caller]
fn simulate(text: &str, seed: u64) -> Stats {
    let (stats, violation) =
        sim::run(&scenario(text), BUILTIN, Tuning::default(), seed).expect("room for a run");
    assert_eq!(violation.map(|v| v.to_string()), None);
    stats
}

/// Wakeups, forks, periods, yields and handoffs on a machine with all levels.
const MIXED: &str = include_str!("simulate/mixed.toml");

#[test]
fn the_same_seed_gives_the_same_log_on_any_thread() {
    let once = simulate(MIXED, 7).log_hash;
    let threads: Vec<_> = (0..2).map(|_| thread::spawn(|| simulate(MIXED, 7).log_hash)).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), once);
    }
    assert_ne!(simulate(MIXED, 8).log_hash, once);
}

#[test]
fn the_scheduler_passes_the_suite() {
    assert_eq!(suite::findings(BUILTIN), None);
}

#[test]
fn everything_happens() {
    let stats = simulate(MIXED, 1);
    for (index, group) in stats.groups.iter().enumerate() {
        assert!(group.run_ns > 0 && group.wakeup.count() > 0, "group {index}: {group:?}");
    }
    assert!(stats.groups[5].tasks > 50, "{} children", stats.groups[5].tasks);
    assert_eq!(stats.groups[6].migrations, 0, "bound to one CPU");
    let machine = &stats.machine;
    assert!(machine.taken_ns > 0 && machine.offline_ns > 0, "{machine:?}");
    let used = machine.run_ns + machine.taken_ns + machine.offline_ns;
    assert!(used < machine.cpu_ns, "{machine:?}");
    assert!(stats.groups[0].migrations > 0);
}

/// Hogs of several nice values on one CPU: (nice, tasks) each.
fn hogs(topology: &str, groups: &[(i32, u32)]) -> String {
    let mut text = format!("about = \"hogs\"\nduration = \"12s\"\ntopology = \"{topology}\"\n");
    for (number, (nice, tasks)) in groups.iter().enumerate() {
        let _ = write!(
            text,
            "[[group]]\nname = \"{number}\"\ntasks = {tasks}\nnice = {nice}\nphases = [{{ run = \"1s\" }}]\n"
        );
    }
    text
}

#[test]
fn shares_follow_weights() {
    // The oracle of shares judges these; here is that it had something to judge.
    for (topology, groups) in [
        ("1 core", &[(0, 2), (5, 1), (-5, 1)][..]),
        ("4 cores", &[(0, 8), (3, 4)]),
        ("2 cores x 2 threads", &[(0, 4), (10, 4), (-10, 2)]),
    ] {
        let stats = simulate(&suite::on_a_fast_machine(&hogs(topology, groups)), 1);
        assert!(stats.groups.iter().all(|group| group.due_ns.is_some_and(|due| due > 0)));
        assert_eq!(stats.machine.run_ns, stats.machine.cpu_ns, "work for all CPUs");
    }
}

#[test]
fn a_wakeup_takes_an_idle_core_before_an_idle_thread() {
    let stats = simulate(
        &suite::on_a_fast_machine(
            r#"
        about = "four tasks on eight threads of four cores"
        duration = "1s"
        topology = "4 cores x 2 threads"
        [[group]]
        name = "tasks"
        tasks = 4
        phases = [{ run = "exp 2ms" }, { sleep = "exp 1ms" }]
        "#,
        ),
        1,
    );
    let group = &stats.groups[0];
    assert!(group.wakeup.max_ns < 10_000, "waited for {} ns", group.wakeup.max_ns);
    assert!(group.migrations < 20, "{} migrations", group.migrations);
}

#[test]
fn tasks_stay_where_they_may_run() {
    let text = r#"
        about = "two tasks of two, on the same half of a machine"
        duration = "2s"
        topology = "2 llcs x 2 cores"
        [[group]]
        name = "half"
        tasks = 4
        cpus = "0-1"
        phases = [{ run = "1s" }]
    "#;
    let stats = simulate(&suite::on_a_fast_machine(text), 1);
    assert_eq!(stats.groups[0].run_ns, 2 * 2_000_000_000, "two CPUs of four");
}

#[test]
fn shipped_scenarios_break_no_rule() {
    let mut count = 0;
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")).expect("scenarios")
    {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("readable");
        // Shorter, for the sake of the test.
        let text = text.replace("duration = \"1s\"", "duration = \"100ms\"");
        simulate(&text, 3);
        count += 1;
    }
    assert!(count >= 12, "{count} scenarios");
}

/// A tick that finds its runqueue locked by another CPU comes when that is free, and others follow it. Where it was
/// lost, CPUs ran on without ticks, which these runs noticed.
#[test]
fn a_tick_that_is_put_off_is_not_the_last() {
    let text = include_str!("../scenarios/hotplug-storm.toml");
    for seed in [14, 16, 28, 50, 60] {
        simulate(text, seed);
    }
}

/// Two numbers, as a range of spans in microseconds.
fn span() -> impl Strategy<Value = (u64, u64)> {
    (10u64..20_000, 0u64..20_000).prop_map(|(low, more)| (low, low + more))
}

prop_compose! {
    fn group(cpus: u32)(
        tasks in 1u32..12,
        nice in -20i32..20,
        policy in prop_oneof![Just("normal"), Just("batch"), Just("idle")],
        run in span(),
        sleep in prop::option::of(span()),
        only in prop::option::weighted(0.3, (0..cpus, 0..cpus)),
        section in prop_oneof![
            3 => Just(""),
            1 => Just("migrate-off migrate-on"),
            1 => Just("rcu-lock rcu-unlock"),
        ],
    ) -> String {
        let mut text = format!("tasks = {tasks}\nnice = {nice}\npolicy = \"{policy}\"\n");
        if let Some((a, b)) = only {
            let _ = writeln!(text, "cpus = \"{}-{}\"", a.min(b), a.max(b));
        }
        let _ = write!(text, "phases = [{{ run = \"{}us..{}us\" }}", run.0, run.1);
        if let Some((begin, end)) = section.split_once(' ') {
            let _ = write!(text, ", \"{begin}\", {{ run = \"{}us\" }}, \"{end}\"", run.1);
        }
        if let Some(sleep) = sleep {
            let _ = write!(text, ", {{ sleep = \"{}us..{}us\" }}", sleep.0, sleep.1);
        }
        text + "]\n"
    }
}

prop_compose! {
    /// Something that happens to a machine.
    /// With hotplug or with a higher class: where both come together kicks get lost in ways that no scheduler can mend.
    fn event(cpus: u32, groups: usize, hotplug: bool)(
        at in 0u64..250,
        kind in 0u32..4,
        (a, b) in (0..cpus, 0..cpus),
        group in 0..groups,
        nice in -20i32..20,
        lasts_us in 1u64..40_000,
        every_ms in prop::option::of(1u64..100),
    ) -> String {
        let cpus = format!("cpus = \"{}-{}\"\n", a.min(b), a.max(b));
        let lasts = format!("for = \"{lasts_us}us\"\n");
        let what = match kind {
            0 => format!("kind = \"renice\"\ngroup = \"g{group}\"\nnice = {nice}\n"),
            1 => format!("kind = \"affinity\"\ngroup = \"g{group}\"\n{cpus}"),
            _ if hotplug => format!("kind = \"offline\"\n{cpus}{lasts}"),
            _ => format!("kind = \"realtime\"\n{cpus}{lasts}"),
        };
        let every = every_ms.map_or_else(String::new, |ms| format!("every = \"exp {ms}ms\"\n"));
        format!("[[event]]\nat = \"{at}ms\"\n{what}{every}")
    }
}

/// A machine and what runs on it.
fn machine() -> impl Strategy<Value = String> {
    let levels = (1u32..3, 1u32..4, 1u32..4, 1u32..3);
    let hz = prop_oneof![Just(100), Just(250), Just(1000)];
    (levels, hz).prop_flat_map(|((nodes, llcs, cores, threads), hz)| {
        let cpus = nodes * llcs * cores * threads;
        let groups = prop::collection::vec(group(cpus), 1..5);
        let groups = (groups, any::<bool>()).prop_flat_map(move |(groups, hotplug)| {
            let events = prop::collection::vec(event(cpus, groups.len(), hotplug), 0..5);
            (Just(groups), events)
        });
        groups.prop_map(move |(groups, events)| {
            let mut text = format!(
                "about = \"random\"\nduration = \"300ms\"\nhz = {hz}\n\
                 topology = \"{nodes} nodes x {llcs} llcs x {cores} cores x {threads} threads\"\n"
            );
            for (number, group) in groups.iter().enumerate() {
                let _ = write!(text, "[[group]]\nname = \"g{number}\"\n{group}");
            }
            text += &events.concat();
            text
        })
    })
}

proptest! {
    // The same machines each time: PROPTEST_RNG_SEED and PROPTEST_CASES in the environment draw others.
    #![proptest_config(Config {
        cases: env_or("PROPTEST_CASES", 400),
        rng_seed: RngSeed::Fixed(env_or("PROPTEST_RNG_SEED", 1)),
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn no_machine_breaks_a_rule(text in machine(), seed in 0u64..1000) {
        let (_, violation) =
            sim::run(&scenario(&text), BUILTIN, Tuning::default(), seed).expect("room for a run");
        prop_assert_eq!(violation.map(|v| v.to_string()), None, "\n{}", text);
    }
}

fn env_or<T: FromStr>(name: &str, otherwise: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Runs the program: exit code, standard output, standard error.
fn program(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_scheduler"))
        .arg("simulate")
        .args(args)
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn bad_input_is_refused_in_a_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bad.toml");
    let file = path.to_str().expect("UTF-8");
    let head = "about = \"x\"\nduration = \"1s\"\ntopology = \"2 cores\"\n";
    let group = "[[group]]\nname = \"a\"\ntasks = 1\n";
    let run = "phases = [{ run = \"1ms\" }]\n";
    let event = |what: &str| format!("{head}{group}{run}[[event]]\nat = \"1s\"\n{what}");
    let phases = |phases: &str| format!("{head}{group}phases = [{phases}]\n");
    let cases: &[(String, &str)] = &[
        (String::new(), "about"),
        ("duration = ".into(), "line 1"),
        (format!("{head}{group}{run}weight = 3\n"), "line 8, column 1"),
        (format!("{head}{group}phases = [{{ run = \"-1ms\" }}]\n"), "line 7"),
        (format!("{head}{group}phases = [{{ run = \"1\" }}]\n"), "unit"),
        (format!("{head}{group}phases = [{{ jump = \"1ms\" }}]\n"), "jump"),
        (format!("{head}{group}phases = []\n"), "none takes time"),
        (format!("{head}{group}phases = [\"yield\"]\n"), "none takes time"),
        (format!("{head}{group}phases = [{{ run = \"exp 0s\" }}]\n"), "none takes time"),
        (format!("{head}{group}phases = [{{ sleep = \"0s..0s\" }}]\n"), "none takes time"),
        (format!("{head}{group}phases = [{{ run = \"1ms\" }}, {{ wake = \"b\" }}]\n"), "'b'"),
        (format!("{head}{group}nice = 20\n{run}"), "-20 to 19"),
        (format!("{head}{group}cpus = \"2\"\n{run}"), "0 to 1"),
        (format!("{head}{group}cpus = \"0,x\"\n{run}"), "0 to 1"),
        (format!("{head}{group}{run}{group}{run}"), "two groups"),
        (head.to_owned() + "group = []\n", "no task"),
        (format!("{head}[[group]]\nname = \"a\"\ntasks = 0\n{run}"), "no task"),
        (format!("{head}[[group]]\nname = \"a\"\ntasks = 4294967296\n{run}"), "line 6"),
        (format!("{head}[[group]]\nname = \"a\"\ntasks = 4294967295\n{run}"), "at most"),
        (format!("{head}hz = 50\n{group}{run}"), "100, 250, 300 or 1000"),
        (event("kind = \"renice\"\ngroup = \"b\"\nnice = 1\n"), "'b'"),
        (event("kind = \"renice\"\ngroup = \"a\"\nnice = 99\n"), "line 12"),
        (event("kind = \"renice\"\ngroup = \"a\"\ncpus = \"0\"\n"), "a group and nice"),
        (event("kind = \"affinity\"\ngroup = \"a\"\ncpus = \"2\"\n"), "0 to 1"),
        (event("kind = \"offline\"\ncpus = \"1\"\nnice = 3\n"), "'offline' has cpus"),
        (event("kind = \"realtime\"\ncpus = \"1\"\n"), "'realtime' has cpus and for"),
        (event("kind = \"offline\"\ncpus = \"1\"\nevery = \"0s\"\n"), "longer than 0"),
        (event("kind = \"policy-stopped\"\n"), "'policy-stopped' has for"),
        (
            event("kind = \"policy-stopped\"\nfor = \"1s\"\ncpus = \"0\"\n"),
            "'policy-stopped' has for",
        ),
        (event("kind = \"flood\"\n"), "line 10"),
        (phases("\"rcu-lock\", { sleep = \"1ms\" }, \"rcu-unlock\""), "does not sleep"),
        (phases("{ run = \"1ms\" }, \"migrate-off\""), "have their end"),
        (phases("{ lock = \"a\" }, { run = \"1ms\" }, { unlock = \"b\" }"), "have their end"),
        (phases("{ lock = \"a\" }, \"exit\", { unlock = \"a\" }"), "have their end"),
        (head.replace("2 cores", "9 towers") + group + run, "topology"),
        (head.replace("1s", "0s") + group + run, "duration"),
        ("x".repeat(1 << 21), "at most"),
    ];
    for (text, says) in cases {
        fs::write(&path, text).expect("written");
        let (code, out, err) = program(&[file]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{text}\n{err}");
        assert!(err.contains(says) && err.contains("bad.toml"), "{text}\n{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    fs::write(&path, [0xff, 0xfe, 0]).expect("written");
    assert!(program(&[file]).2.contains("UTF-8"));
    let json = dir.path().join("bad.json");
    let global = r#""global": { "duration": 1 }"#;
    for (text, says) in [
        ("{\n  \"tasks\": {,} }".to_owned(), "bad.json: line 2, column"),
        (
            format!(r#"{{ "tasks": {{ "a": {{ "barrier": "b" }} }}, {global} }}"#),
            "bad.json: tasks.a.barrier",
        ),
        (format!("{}{global}", " ".repeat(1 << 20)), "at most"),
    ] {
        fs::write(&json, text).expect("written");
        let (code, out, err) = program(&[json.to_str().expect("UTF-8")]);
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
        assert!(err.contains(says), "{err}");
    }
    fs::write(&path, format!("{head}{group}{run}")).expect("written");
    for (args, says) in [
        (&["--topology", "0 cores"][..], "--topology"),
        (&["--set", "slice_us=5"], "100 to 100000"),
        (&["--set", "slice=5"], "slice_us"),
        (&["--runs", "0"], "1 to 100000"),
        (&["--seed", "-1"], "--seed"),
    ] {
        let (code, _, err) = program(&[&[file], args].concat());
        assert!(
            code == Some(2) && err.contains(says) && err.lines().count() == 1,
            "{args:?}: {err}"
        );
    }
    assert_eq!(program(&[dir.path().join("none").to_str().expect("UTF-8")]).0, Some(2));
}

/// Input that is as large, as deep or as long as a file can make it: refused as any other, or run, and in bounded memory.
#[test]
fn hostile_input_is_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("hostile.toml");
    let file = path.to_str().expect("UTF-8");
    let head = "about = \"x\"\nduration = \"1ms\"\ntopology = \"2048 cores\"\n";
    let group = "[[group]]\nname = \"a\"\ntasks = 1\nphases = [{ run = \"1ms\" }]\n";
    let deep = |open: &str, close: &str| {
        format!("{head}x = {}{}\n{group}", open.repeat(200_000), close.repeat(200_000))
    };
    let many = |part: &str| part.repeat((1_000_000 - head.len() - 200) / part.len());
    let flood = "[[event]]\nat = \"0s\"\nkind = \"realtime\"\nevery = \"1ns\"\ncpus = \"0\"\nfor = \"86400s\"\n";
    let cases: &[(String, i32, &str)] = &[
        (deep("[", "]"), 2, "line 4"),
        (deep("{a=", "}"), 2, "line 4"),
        (format!("{head}{}x = 1\n", many("[a.a.a.a.a.a]\n")), 2, "line 5"),
        (format!("{head}x{} = 1\n", many(".a")), 2, "recursion"),
        (format!("{head}{group}tasks = 4294967296\n"), 2, "line 8"),
        (head.replace("2048", "4294967296") + group, 2, "1 to 2048"),
        (head.replace("1ms", "4294967296s") + group, 2, "a day"),
        (format!("{head}{group}cpus = \"4294967295\"\n"), 2, "0 to 2047"),
        (format!("{head}{group}cpus = \"0-4294967295\"\n"), 2, "0 to 2047"),
        (format!("{head}{group}cpus = \"{}0\"\n", many("0-2047,")), 0, ""),
        (format!("{head}{group}{flood}"), 2, "real-time tasks"),
        ("\"".repeat(1 << 20), 2, "line 1"),
    ];
    for (number, (text, exit, says)) in cases.iter().enumerate() {
        fs::write(&path, text).expect("written");
        // 512 MiB of addresses, the program itself included.
        let output = Command::new("prlimit")
            .args(["--as=536870912", env!("CARGO_BIN_EXE_scheduler"), "simulate", file])
            .output()
            .expect("prlimit starts");
        let err = String::from_utf8_lossy(&output.stderr);
        let start: String = err.chars().take(300).collect();
        assert_eq!(output.status.code(), Some(*exit), "case {number}: {start}");
        assert!(err.contains(says) && err.len() < 1000, "case {number}: {start}");
        assert_eq!(err.lines().count(), usize::from(*exit != 0), "case {number}: {start}");
    }
}

#[test]
fn a_file_of_rt_app_is_simulated() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.json");
    let text = r#"{
        "tasks": { // each wakes the next
            "ui": { "run": 1000, "timer": { "ref": "unique", "period": 10000 }, "resume": "worker" },
            "worker": { "instance": 3, "suspend": "worker", "run": 2000, },
        },
        "global": { "duration": 2, "calibration": "CPU0" }
    }"#;
    fs::write(&path, text).expect("written");
    let file = path.to_str().expect("UTF-8");
    let run = |more: &[&str]| program(&[&[file, "--json", "--topology", "2 cores"], more].concat());
    for more in [&[][..], &["--policy", "fifo"]] {
        let (code, out, err) = run(more);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(json["machine"]["simulated_s"].as_f64(), Some(2.0));
        assert_eq!(json["groups"][1]["tasks"].as_u64(), Some(3));
        // One millisecond of ten, and three times two, of two CPUs.
        let [ui, worker] = [0, 1].map(|group| json["groups"][group]["cpu_percent"].as_f64());
        assert!(ui.is_some_and(|ui| (4.9..5.2).contains(&ui)), "{ui:?}");
        assert!(worker.is_some_and(|worker| (29.0..31.0).contains(&worker)), "{worker:?}");
    }
}

#[test]
fn runs_add_up_and_json_is_what_the_table_says() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/desktop-under-compile.toml");
    let args = [file, "--runs", "3", "--seed", "5", "--topology", "4", "--json"];
    let (code, out, err) = program(&args);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((json["runs"].as_u64(), json["machine"]["cpus"].as_u64()), (Some(3), Some(4)));
    assert_eq!(json["machine"]["simulated_s"].as_f64(), Some(30.0));
    assert_eq!(json["groups"].as_array().map(Vec::len), Some(5));
    assert_eq!(json["groups"][0]["tasks"].as_u64(), Some(16), "of a run, not of all");
    let again: serde_json::Value = serde_json::from_str(&program(&args).1).expect("JSON");
    assert_eq!(json["log_hash"], again["log_hash"]);
    let (code, table, _) = program(&[file, "--set", "slice_us=9000"]);
    assert_eq!(code, Some(0));
    assert!(table.contains("compositor") && table.contains("events/s"), "{table}");
}

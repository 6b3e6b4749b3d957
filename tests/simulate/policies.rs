//! Policies in user space on the simulated machine: those that come along, those that nobody should write, and what is
//! beneath them.

use super::{MIXED, env_or, machine, program, scenario, suite};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use scheduler::{
    commands,
    policy::{Context, Decision, Fifo, Own, Policy, Task, Vruntime},
    settings::Tuning,
    sim::{self, BUILTIN, Hosted, PolicyStats, Scenario, Stats},
    units::{CpuId, Nanos, Pid, Vtime},
};
use std::{collections::BTreeMap, fs, process::ExitCode, thread};

/// What a run comes to, and what an oracle saw.
fn run(text: &str, seed: u64, policy: impl Policy + 'static) -> (Stats, Option<String>) {
    let hosted = Hosted::new(Box::new(policy));
    let (stats, violation) = sim::run_policy(
        &scenario(&suite::on_a_fast_machine(text)),
        BUILTIN,
        Tuning::default(),
        seed,
        hosted,
    )
    .expect("a run");
    (stats, violation.map(|violation| violation.to_string()))
}

/// A run that must break no rule, and what became of the policy's decisions.
#[track_caller]
fn good(text: &str, policy: impl Policy + 'static) -> (Stats, PolicyStats) {
    let (stats, violation) = run(text, 1, policy);
    assert_eq!(violation, None);
    let of_policy = stats.policy.clone().expect("a policy decided");
    (stats, of_policy)
}

fn judged<P: Policy + Default + 'static>() {
    for case in suite::all() {
        let (stats, violation) = run(case.text, 1, P::default());
        assert_eq!(violation, None, "{}", case.name);
        // In a crowd the base takes most: they wait for longer than it lets any.
        let tasks: u64 = stats.groups.iter().map(|group| group.tasks).sum();
        let crowd = tasks > 16 * stats.machine.cpu_ns / stats.machine.simulated_ns;
        let policy = stats.policy.expect("a policy decided");
        let most = policy.offered < 100 || policy.decided * 4 > policy.offered;
        assert!(most || crowd, "{}: {policy:?}", case.name);
    }
}

#[test]
fn vruntime_passes_the_oracles_of_the_suite() {
    judged::<Vruntime>();
}

#[test]
fn fifo_passes_the_oracles_of_the_suite() {
    judged::<Fifo>();
}

#[test]
fn a_policy_is_as_repeatable_as_the_kernels_half() {
    let hash = |seed| run(MIXED, seed, Vruntime::default()).0.log_hash;
    let once = hash(7);
    let threads: Vec<_> = (0..2).map(|_| thread::spawn(move || hash(7))).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), once);
    }
    assert_ne!(hash(8), once);
    assert_ne!(run(MIXED, 7, Fifo::default()).0.log_hash, once);
}

/// Four hogs a CPU, and two tasks that wake.
const HOGS: &str = r#"
    about = "hogs"
    duration = "6s"
    topology = "2 cores"
    [[group]]
    name = "hogs"
    tasks = 8
    phases = [{ run = "1s" }]
    [[group]]
    name = "naps"
    tasks = 2
    phases = [{ run = "300us" }, { sleep = "exp 5ms" }]
"#;

fn longest_wait(stats: &Stats) -> u64 {
    stats.groups.iter().map(|group| group.wait.max_ns).max().unwrap_or(0)
}

/// What a policy may cost more than the base alone, in time unrun: as in the guest's cases.
const MORE_NS: u64 = 100_000_000;

#[test]
fn a_stopped_policy_is_missed_by_nobody_and_takes_over_again() {
    let base = super::simulate(HOGS, 1);
    let stop = |lasts: &str| {
        let event = "[[event]]\nat = \"2s\"\nkind = \"policy-stopped\"\n";
        good(&format!("{HOGS}\n{event}for = \"{lasts}\"\n"), Vruntime::default())
    };
    let (stats, policy) = stop("2s");
    assert!(longest_wait(&stats) < longest_wait(&base) + MORE_NS, "{}", longest_wait(&stats));
    // Until the base takes over CPUs wait for the grace period each time, and no longer.
    let idle = stats.machine.cpu_ns - stats.machine.run_ns;
    assert!((1..100_000_000).contains(&idle), "idle for {idle} ns beside hogs");
    assert_eq!(policy.late, 1, "{policy:?}");
    // It is 50 ms before the base takes over, and the policy is awake within its heartbeat.
    assert!((1_900_000_000..2_100_000_000).contains(&policy.late_ns), "{}", policy.late_ns);
    let (stats, gone) = stop("3600s");
    assert!(longest_wait(&stats) < longest_wait(&base) + MORE_NS, "{}", longest_wait(&stats));
    assert!((3_900_000_000..4_000_000_000).contains(&gone.late_ns), "{}", gone.late_ns);
    assert!(policy.decided * 10 > gone.decided * 18, "{} {}", policy.decided, gone.decided);
    // Where the kernel's half decides there is nobody to stop.
    let event = "[[event]]\nat = \"2s\"\nkind = \"policy-stopped\"\nfor = \"1s\"\n";
    let same = super::simulate(&format!("{HOGS}\n{event}"), 1);
    assert_eq!(same.log_hash, base.log_hash);
}

#[test]
fn a_policy_pays_for_its_time() {
    let with = |costs: &str| good(&format!("{HOGS}\n[costs]\n{costs}\n"), Vruntime::default());
    let (_, quick) = with("policy_wake = \"10us\"\npolicy_call = \"1us\"");
    let p50 = |policy: &PolicyStats| policy.answer.percentile_us(0.5).expect("answers");
    assert!(p50(&quick) < 20.0, "{quick:?}");
    let (_, usual) = good(HOGS, Vruntime::default());
    assert!((20.0..40.0).contains(&p50(&usual)), "{usual:?}");
    // Beyond the grace period CPUs help themselves, and nobody waits for much longer.
    let (stats, slow) = with("policy_wake = \"1ms\"\npolicy_call = \"10ms\"");
    assert!(slow.taken > slow.decided && slow.taken > 100, "{slow:?}");
    assert!(longest_wait(&stats) < longest_wait(&super::simulate(HOGS, 1)) + MORE_NS);
}

/// What a policy can do wrong.
#[derive(Debug, Clone, Copy)]
enum Bad {
    Nothing,
    Twice,
    Late,
}

/// A policy that does.
struct Mischief {
    bad: Bad,
    waiting: Vec<Task>,
}

impl Policy for Mischief {
    fn tick_period(&self) -> Nanos {
        Nanos::from_millis(30)
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        match self.bad {
            Bad::Nothing => {}
            Bad::Twice => {
                cx.decide(task, Decision::any_cpu());
                cx.decide(task, Decision::on(CpuId(0)));
            }
            Bad::Late => self.waiting.push(task.clone()),
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        if let Bad::Late = self.bad {
            for task in self.waiting.drain(..) {
                cx.decide(&task, Decision::any_cpu());
            }
        }
    }
}

#[test]
fn mischief_costs_a_tenth_of_a_second_at_most() {
    let by_base = longest_wait(&super::simulate(HOGS, 1));
    let mut seen = BTreeMap::new();
    for bad in [Bad::Nothing, Bad::Twice, Bad::Late] {
        let (stats, policy) = good(HOGS, Mischief { bad, waiting: Vec::new() });
        let longest = longest_wait(&stats);
        assert!(longest < by_base + MORE_NS, "{bad:?}: {longest} {by_base}");
        seen.insert(format!("{bad:?}"), policy);
    }
    assert!(seen["Nothing"].decided == 0 && seen["Nothing"].late > 0, "{seen:?}");
    let twice = &seen["Twice"];
    assert!(twice.stale > twice.decided * 9 / 10 && twice.late == 0, "{twice:?}");
}

/// A policy that decides of random tasks, for random CPUs, with random orders and slices, as that of the guest's case.
struct Chance(fastrand::Rng);

impl Policy for Chance {
    fn takes_idle_cpus(&self) -> bool {
        false
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        let chance = &mut self.0;
        for _ in 0..2 {
            let mut task = task.clone();
            if chance.bool() {
                task.pid = Pid(chance.i32(..));
            }
            let mut decision = Decision::any_cpu();
            if chance.bool() {
                decision = Decision::on(CpuId(chance.u32(..) >> chance.u32(..32)));
            }
            let slice = Nanos(chance.u64(..) >> chance.u32(..64));
            decision = decision.vtime(Vtime(chance.u64(..))).slice(slice);
            let decision = if chance.bool() { decision.preempt() } else { decision };
            if let (Some(cpu), true) = (cx.pick_idle_cpu(&task), chance.bool()) {
                cx.preempt(cpu);
            }
            cx.decide(&task, decision);
        }
    }
}

/// One run is a sample: of a hundred each, at any rate of ticks, the longest wait counts.
#[test]
fn chance_costs_a_tenth_of_a_second_at_most() {
    for hz in [100, 250, 1000] {
        let text = HOGS.replace("duration", &format!("hz = {hz}\n    duration"));
        let most = longest_wait(&super::simulate(&text, 1)) + MORE_NS;
        for seed in 0..100 {
            let (stats, policy) = good(&text, Chance(fastrand::Rng::with_seed(seed)));
            let longest = longest_wait(&stats);
            assert!(longest < most, "{hz} Hz, seed {seed}: {longest} of {most}");
            let [decided, stale, malformed] = [policy.decided, policy.stale, policy.malformed];
            assert!(decided > 200 && stale > 200 && malformed > 200, "{policy:?}");
        }
    }
}

/// Each has what its weight makes due, in thousandths, though the base looks after those who wait for long.
#[test]
fn weights_hold_under_a_policy() {
    const WEIGHTS: [(i32, u64); 3] = [(-5, 3121), (0, 1024), (5, 335)];
    let mut text =
        HOGS.split_inclusive("[[group]]").next().expect("a head").replace("2 cores", "1 core");
    text += "\nname = \"naps\"\ntasks = 1\nphases = [{ sleep = \"exp 30ms\" }, { run = \"exp 60us\" }]\n";
    for (nice, _) in WEIGHTS {
        text += &format!(
            "[[group]]\nname = \"hog {nice}\"\ntasks = 1\nnice = {nice}\nphases = [{{ run = \"1s\" }}]\n"
        );
    }
    for seed in 0..100 {
        let (stats, violation) = run(&text, seed, Vruntime::default());
        assert_eq!(violation, None);
        let hogs = &stats.groups[1..];
        let all: u64 = hogs.iter().map(|hog| hog.run_ns).sum();
        for (hog, (nice, weight)) in hogs.iter().zip(WEIGHTS) {
            let part = hog.run_ns * 1000 * 4480 / (all * weight);
            assert!((970..=1030).contains(&part), "seed {seed}: nice {nice} has {part} of its due");
        }
    }
}

/// Panics at the hundredth task.
#[derive(Default)]
struct Panics(u32);

impl Policy for Panics {
    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        self.0 += 1;
        assert!(self.0 < 100, "a task too many");
        cx.decide(task, Decision::any_cpu());
    }
}

#[test]
fn a_panic_is_told_of_with_exit_code_1() {
    let hosted = Hosted::new(Box::new(Panics::default()));
    let error = sim::run_policy(&scenario(HOGS), BUILTIN, Tuning::default(), 3, hosted);
    let error = error.expect_err("a panic").to_string();
    assert!(error.starts_with("the policy Panics panicked: a task too many, at "), "{error}");
    assert!(error.contains("--seed 3"), "{error}");

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("hogs.toml");
    fs::write(&path, HOGS).expect("written");
    let code = |own, more: &[&str]| {
        let args = ["mine".as_ref(), "simulate".as_ref(), path.as_os_str()];
        let more = more.iter().map(AsRef::as_ref);
        let code = commands::main(args.into_iter().chain(more).map(ToOwned::to_owned), Some(own));
        format!("{code:?}")
    };
    let is = |code: u8| format!("{:?}", ExitCode::from(code));
    let each = || Own::Each(Box::new(|| Box::new(Panics::default())));
    assert_eq!(code(each(), &[]), is(1));
    // One policy is good for one run.
    let once = || {
        let policy: Box<dyn Policy> = Box::new(Fifo::default());
        Own::Once(Some(policy).into())
    };
    assert_eq!(code(once(), &["--json"]), is(0));
    assert_eq!(code(once(), &["--runs", "2"]), is(2));
    assert_eq!(code(once(), &["--set", "policy.slice_us=1"]), is(2));
    assert_eq!(code(each(), &["--policy", "fifo"]), is(2));
}

#[test]
fn the_program_tells_of_its_policy() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/desktop-under-compile.toml");
    let json = |args: &[&str]| {
        let (code, out, err) = program(&[&[file, "--json"], args].concat());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        serde_json::from_str::<serde_json::Value>(&out).expect("JSON")
    };
    assert!(json(&[])["policy"].is_null());
    let fifo = json(&["--policy", "fifo", "--runs", "2"]);
    let counters = &fifo["policy"]["counters"];
    assert_eq!(fifo["policy"]["name"], "fifo");
    let [offered, decided] =
        ["offered", "decided"].map(|name| counters[name].as_u64().unwrap_or(0));
    assert!(offered > 1000 && decided <= offered, "{counters}");
    let short = json(&["--policy", "fifo", "--runs", "2", "--set", "policy.slice_us=500"]);
    let switches = |json: &serde_json::Value| json["machine"]["switches"].as_u64().unwrap_or(0);
    assert!(switches(&short) > switches(&fifo), "{short}\n{fifo}");
    let (_, table, _) = program(&[file, "--policy", "vruntime"]);
    assert!(table.contains("policy vruntime  offered "), "{table}");
    for (args, says) in [
        (&["--policy", "lottery"][..], "must be kernel, vruntime, fifo"),
        (&["--set", "policy.slice_us=500"], "choose one by --policy"),
        (&["--policy", "fifo", "--set", "policy.slice_us=5"], "'--set policy.slice_us=5'"),
        (&["--policy", "fifo", "--set", "policy.color=5"], "no option 'color'"),
    ] {
        let (code, _, err) = program(&[&[file], args].concat());
        assert!(code == Some(2) && err.contains(says) && err.lines().count() == 1, "{err}");
    }
}

/// A policy that is stopped now and then.
fn stopped() -> impl Strategy<Value = String> {
    prop::option::of((1u64..100, 1u64..150)).prop_map(|stop| {
        stop.map_or_else(String::new, |(every, lasts)| {
            format!(
                "[[event]]\nat = \"20ms\"\nevery = \"exp {every}ms\"\nkind = \"policy-stopped\"\n\
                 for = \"exp {lasts}ms\"\n"
            )
        })
    })
}

/// Decides everything to be for one CPU, each in its turn.
#[derive(Default)]
struct Turns(u32);

impl Policy for Turns {
    fn takes_idle_cpus(&self) -> bool {
        false
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        self.0 += 1;
        let cpus: Vec<_> = task.cpus.iter().collect();
        cx.decide(task, Decision::on(cpus[self.0 as usize % cpus.len()]).vtime(task.vruntime));
    }
}

/// Decides everything to be for any CPU, in the longest slices that it can name. It is asked about every wakeup.
#[derive(Default)]
struct Long;

impl Policy for Long {
    fn takes_idle_cpus(&self) -> bool {
        false
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        cx.decide(task, Decision::any_cpu().slice(Nanos(u64::MAX)).vtime(task.vruntime));
    }
}

/// Decides everything to be where it may not run, if there is such a CPU.
#[derive(Default)]
struct Elsewhere;

impl Policy for Elsewhere {
    fn takes_idle_cpus(&self) -> bool {
        false
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        let other = cx.cpus().into_iter().find(|cpu| !task.cpus.contains(cpu.id));
        cx.decide(task, other.map_or_else(Decision::any_cpu, |cpu| Decision::on(cpu.id)));
    }
}

/// Leaves the tasks of one group to the base.
#[derive(Default)]
struct Deaf;

impl Policy for Deaf {
    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        if task.comm != "deaf" {
            cx.decide(task, Decision::any_cpu());
        }
    }
}

/// Decides about an offer that is over: the last one of another time.
#[derive(Default)]
struct Stale(BTreeMap<i32, Task>);

impl Policy for Stale {
    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        let before = self.0.insert(task.pid.0, task.clone());
        cx.decide(before.as_ref().unwrap_or(task), Decision::any_cpu());
    }
}

/// A case for builds of the kernel's half: its machine, who decides, and what has to be true of the result.
struct Case {
    name: &'static str,
    text: String,
    policy: fn() -> Box<dyn Policy>,
    holds: fn(&Stats, &PolicyStats) -> Result<(), String>,
}

fn fine(_: &Stats, _: &PolicyStats) -> Result<(), String> {
    Ok(())
}

fn waits(stats: &Stats) -> Result<(), String> {
    // 32 ms with the base alone, and the tenth of a second.
    suite::at_most("longest wait, ns", longest_wait(stats), 132_000_000)
}

fn cases() -> Vec<Case> {
    let stopped = "[[event]]\nat = \"2s\"\nkind = \"policy-stopped\"\nfor = \"2s\"\n";
    let leaving = r#"
        [[event]]
        at = "100ms"
        every = "exp 150ms"
        kind = "offline"
        cpus = "2-3"
        for = "80ms"
    "#;
    let short = r#"
        about = "short tasks on some of the CPUs"
        duration = "3s"
        topology = "2 llcs x 2 cores"
        [[group]]
        name = "short"
        tasks = 5
        phases = [{ run = "exp 1ms" }, { sleep = "exp 2ms" }]
        [[group]]
        name = "half"
        tasks = 3
        cpus = "0-2"
        phases = [{ run = "exp 1ms" }, { sleep = "exp 3ms" }]
    "#;
    let deaf = r#"
        [[group]]
        name = "deaf"
        tasks = 2
        phases = [{ run = "1s" }]
    "#;
    vec![
        Case {
            name: "a stopped policy",
            text: HOGS.to_owned() + stopped,
            policy: || Box::new(Vruntime::default()),
            holds: |stats, policy| {
                waits(stats)?;
                suite::at_most("ns of lateness", policy.late_ns, 2_100_000_000)?;
                suite::at_most(
                    "ns of 1.9 s too few",
                    1_900_000_000u64.saturating_sub(policy.late_ns),
                    0,
                )
            },
        },
        Case {
            name: "a policy that decides nothing",
            text: HOGS.to_owned(),
            policy: || Box::new(Mischief { bad: Bad::Nothing, waiting: Vec::new() }),
            holds: |stats, _| waits(stats),
        },
        Case {
            name: "a policy that is deaf to some",
            text: HOGS.to_owned() + deaf,
            policy: || Box::new(Deaf),
            holds: |stats, _| {
                waits(stats)?;
                let deaf = suite::permille(2, stats);
                suite::at_most(
                    "thousandths that those are short of 150",
                    150u64.saturating_sub(deaf),
                    0,
                )
            },
        },
        Case {
            name: "decisions at random",
            text: MIXED.to_owned(),
            policy: || Box::new(Chance(fastrand::Rng::with_seed(1))),
            holds: fine,
        },
        Case {
            name: "decisions that are stale",
            text: HOGS.to_owned(),
            policy: || Box::new(Stale::default()),
            holds: |stats, policy| {
                waits(stats)?;
                suite::at_most("decided offers", policy.decided, 100)
            },
        },
        Case {
            name: "a CPU each in turn, and some leave",
            text: short.to_owned() + leaving,
            policy: || Box::new(Turns::default()),
            holds: fine,
        },
        Case {
            name: "where nobody may run",
            text: short.to_owned(),
            policy: || Box::new(Elsewhere),
            holds: |_, policy| {
                let few = 100u64.saturating_sub(policy.malformed);
                suite::at_most("malformed decisions fewer than 100", few, 0)
            },
        },
        Case {
            name: "an idle CPU for each",
            text: short.to_owned(),
            policy: || Box::new(Long),
            holds: |stats, _| {
                let p50 = suite::micros(&stats.groups[0].wakeup, 0.5);
                suite::at_most("microseconds that a short task waits, p50", p50, 100)
            },
        },
        Case {
            name: "hogs of the longest slices",
            text: HOGS.to_owned(),
            policy: || Box::new(Long),
            holds: |stats, _| waits(stats),
        },
    ]
}

/// The first of these that finds something in a build of the kernel's half.
pub fn findings(code: &[u8]) -> Option<suite::Finding> {
    cases().into_iter().find_map(|case| {
        let hosted = Hosted::new((case.policy)());
        let (stats, violation) = sim::run_policy(
            &scenario(&suite::on_a_fast_machine(&case.text)),
            code,
            Tuning::default(),
            1,
            hosted,
        )
        .expect("a run");
        let policy = stats.policy.as_ref().expect("a policy decided");
        let seen = violation.map(|violation| (violation.oracle, violation.to_string()));
        let figure = || Some(("a figure", (case.holds)(&stats, policy).err()?));
        let (by, what) = seen.or_else(figure)?;
        Some(suite::Finding { case: case.name, by, what })
    })
}

#[test]
fn the_relay_passes_its_cases() {
    assert_eq!(findings(BUILTIN), None);
}

proptest! {
    #![proptest_config(Config {
        cases: env_or("PROPTEST_CASES", 200),
        rng_seed: RngSeed::Fixed(env_or("PROPTEST_RNG_SEED", 1)),
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn no_policy_breaks_a_rule(
        text in machine(),
        stopped in stopped(),
        seed in 0u64..1000,
        which in 0usize..4,
    ) {
        let policy: Box<dyn Policy> = match which {
            0 => Box::new(Vruntime::default()),
            1 => Box::new(Fifo::default()),
            2 => Box::new(Chance(fastrand::Rng::with_seed(seed))),
            _ => Box::new(Mischief { bad: Bad::Late, waiting: Vec::new() }),
        };
        // A CPU that the policy picked and is stopped over passes for busy until it goes on: relay.h lets it.
        let text = if which == 2 { text } else { text + &stopped };
        let scenario = Scenario::parse(&text, None).expect("a scenario");
        let hosted = Hosted::new(policy);
        let (_, violation) =
            sim::run_policy(&scenario, BUILTIN, Tuning::default(), seed, hosted).expect("a run");
        prop_assert_eq!(violation.map(|v| v.to_string()), None, "{}\n{}", which, text);
    }
}

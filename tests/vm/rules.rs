//! Rules: what they do to latency and shares, and that tasks have theirs soon, whatever happens to them.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Hog, Running, cpu_times_over, hog, set_affinity},
    qemu::Topology,
    vm::{SCHEDULER, Scheduler, wait_for},
};
use nix::{
    sys::{prctl, signal::Signal},
    time::{ClockId, clock_gettime},
};
use std::{
    env,
    ffi::CString,
    fs,
    io::{self, Read},
    path::Path,
    process::{Command, ExitCode},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(16, "latency_of_a_class", latency_of_a_class).deterministic().on(Topology::TWO),
    Case::new(16, "boosts_are_bounded", boosts_are_bounded).deterministic().on(Topology::TWO),
    Case::new(16, "rules_follow_tasks", rules_follow_tasks).core().on(Topology::TWO),
    Case::new(16, "boosts_expire", boosts_expire).deterministic().on(Topology::TWO),
    Case::new(16, "rules_by_the_thousand", rules_by_the_thousand)
        .deterministic()
        .on(Topology::TWO)
        .limit_secs(600),
];

const CONFIG: &str = "/run/rules.toml";
const GROUPS: &str = "/run/groups";
const SOCKET: &str = "/run/rules-socket";
const LIMIT: Duration = Duration::from_secs(20);

/// A burst is so many rounds of sleep and work, after a pause: 9 % of a CPU on average.
const ROUNDS: usize = 20;
const SLEEP: Duration = Duration::from_micros(1000);
const RUN: Duration = Duration::from_micros(500);
const PAUSE: Duration = Duration::from_millis(80);

/// A process with a name of its own that works in bursts. This binary becomes one where `NAPPER` is set.
pub struct Napper;

impl Napper {
    const VARIABLE: &str = "NAPPER";

    /// The command of one that does so many bursts; with 0 it never ends.
    fn command(program: &Path, name: &str, bursts: u64) -> Command {
        let mut command = Command::new(program);
        command.env(Self::VARIABLE, format!("{name} {bursts}"));
        command
    }

    fn start(name: &str, bursts: u64) -> Result<Running> {
        Running::start(&mut Self::command(&env::current_exe()?, name, bursts))
    }

    /// Does that, if it is what this process was started for. At its end it prints the latency that a hundredth of its
    /// wakeups exceeds, in µs.
    pub fn act() -> Option<ExitCode> {
        let plan = env::var(Self::VARIABLE).ok()?;
        let mut words = plan.split(' ');
        let name = CString::new(words.next()?).ok()?;
        let bursts: usize = words.next()?.parse().ok()?;
        prctl::set_name(&name).ok()?;
        let mut late_us: Vec<u128> = Vec::new();
        for round in 0.. {
            if bursts > 0 && round == bursts * ROUNDS {
                break;
            }
            if round % ROUNDS == 0 {
                thread::sleep(PAUSE);
            }
            let due = Instant::now() + SLEEP;
            thread::sleep(SLEEP);
            if bursts > 0 {
                late_us.push(due.elapsed().as_micros());
            }
            let begin = cpu_time()?;
            while cpu_time()? - begin < RUN {}
        }
        late_us.sort_unstable();
        println!("{}", late_us[late_us.len() * 99 / 100]);
        Some(ExitCode::SUCCESS)
    }
}

/// CPU time of this thread.
fn cpu_time() -> Option<Duration> {
    Some(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?.into())
}

fn scheduler(vm: &Vm, rules: &str) -> Result<Scheduler> {
    fs::write(CONFIG, rules)?;
    vm.scheduler(&["--config", CONFIG, "--socket", SOCKET, "-v"])
}

/// What `scheduler explain` says.
fn explain(vm: &Vm, of: &str) -> Result<String> {
    let end = vm.run(&[SCHEDULER, "explain", of, "--socket", SOCKET], LIMIT)?;
    Ok(end.stdout + &end.stderr)
}

/// Tasks that sleep and wake, and hogs, all of equal weight, want twice of what there is. One that works in bursts and takes less
/// than its share is served at once if its class is latency; by its lag alone it is until that is used up.
fn latency_of_a_class(vm: &mut Vm) -> Result<()> {
    const RATIO_MIN: u64 = 5;
    let scheduler = scheduler(vm, "[[rule]]\nname = \"urgent\"\nclass = \"latency\"\n")?;
    let _hogs: Vec<Hog> = (0..2).map(|_| hog().start()).collect::<Result<_>>()?;
    let _others: Vec<Hog> =
        (0..8).map(|_| hog().sleeping(1000, 2000).start()).collect::<Result<_>>()?;
    thread::sleep(Duration::from_secs(1));
    let p99_us = |name: &str| -> Result<u64> {
        let end = Napper::start(name, 15)?.wait(Duration::from_secs(60))?;
        end.stdout.trim().parse().with_context(|| format!("{end:?}"))
    };
    let (plain_us, urgent_us) = (p99_us("plain")?, p99_us("urgent")?);
    vm.say(format!("p99: {plain_us} µs without a rule, {urgent_us} µs in the class latency"));
    let end = scheduler.finish()?;
    vm.say(end.stderr.trim());
    ensure!(plain_us >= RATIO_MIN * urgent_us, "{plain_us} µs and {urgent_us} µs");
    Ok(())
}

/// The share of a CPU that the first of these processes gets.
fn share(vm: &mut Vm, what: &str, hogs: &[Hog], window: Duration) -> Result<f64> {
    thread::sleep(Duration::from_millis(500));
    let times = cpu_times_over(hogs, window)?;
    let share = times[0].as_secs_f64() / times.iter().map(Duration::as_secs_f64).sum::<f64>();
    vm.say(format!("{what}: {:.1} % of the CPU", share * 100.0));
    Ok(share)
}

/// A span as `{:?}` of a [`Duration`] shows it.
fn span(text: &str) -> Option<Duration> {
    let units = [("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, unit) = units.iter().find_map(|(name, s)| Some((text.strip_suffix(name)?, s)))?;
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * unit))
}

/// How long each look at all tasks took: of the lines of this log that are there as a whole.
fn looks(log: &str) -> Vec<Duration> {
    let lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    lines.filter_map(|line| span(line.split_once("looked at in ")?.1)).collect()
}

/// A hog of ten on a CPU that a rule puts before the others gets its budget and no more; and what other rules say, as soon
/// as they are read.
fn boosts_are_bounded(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    // From a reload to the rule of the last task that is there.
    const LOOK_MAX: Duration = Duration::from_millis(100);
    // All hogs have the same name; a nice value tells the one apart, and is told the scheduler by a renice.
    let rule = |effect: &str| format!("[[rule]]\nnice = -1\n{effect}\n");
    let boost = "class = \"latency\"\nweight = 20\nbudget_percent = 30";
    let mut scheduler = scheduler(vm, &rule(boost))?;
    let hogs: Vec<Hog> = [-1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        .into_iter()
        .map(|nice| hog().on(&[1]).nice(nice).start())
        .collect::<Result<_>>()?;
    let boosted = share(vm, "a budget of 30 %", &hogs, WINDOW)?;
    let told = explain(vm, &hogs[0].pid().to_string())?;
    vm.say(told.trim());
    ensure!(
        told.contains("rule 1 (/run/rules.toml:1:1)") && told.contains("class latency"),
        "{told}"
    );
    let mut reload = |effect: &str| -> Result<()> {
        fs::write(CONFIG, rule(effect))?;
        let process = scheduler.process();
        let before = looks(&process.stderr()).len();
        process.signal(Signal::SIGHUP)?;
        wait_for(LIMIT, || Ok(looks(&process.stderr()).len() > before))?;
        let took = *looks(&process.stderr()).last().context("what a look took")?;
        ensure!(took < LOOK_MAX, "{took:?} until all tasks had their rule");
        Ok(())
    };
    reload("weight = 0.2")?;
    let light = share(vm, "a weight of 0.2", &hogs, WINDOW)?;
    reload("class = \"idle\"")?;
    let idle = share(vm, "the class idle", &hogs, WINDOW)?;
    fs::write(CONFIG, "")?;
    scheduler.process().signal(Signal::SIGHUP)?;
    let none = share(vm, "no rule", &hogs, WINDOW)?;
    for hog in &hogs {
        set_affinity(hog.pid(), &[0, 1])?;
    }
    fs::write(CONFIG, rule("weight = 100\nbudget_percent = 25"))?;
    scheduler.process().signal(Signal::SIGHUP)?;
    let heavy =
        2.0 * share(vm, "a weight of 100 and a budget of 25 %, of two CPUs", &hogs, WINDOW)?;
    let end = scheduler.finish()?;
    vm.say(end.stderr.trim());
    // By their weights 12.2 %; with a boost without bounds 73 %.
    ensure!((0.27..0.33).contains(&boosted), "{boosted:.3} of a CPU with a budget of 0.3");
    // By their weights 0.244; 0.36 where it is owed on what it was by the weight of its boost.
    ensure!((0.22..0.30).contains(&heavy), "{heavy:.3} of a CPU with a budget of 0.25");
    ensure!((0.020..0.035).contains(&light), "{light:.3} of a CPU with a fifth of a weight");
    ensure!(idle < 0.01, "{idle:.3} of a CPU in the class idle");
    ensure!((0.11..0.135).contains(&none), "{none:.3} of a CPU without a rule");
    Ok(())
}

/// Mounts cgroups, if no case has before.
fn mount_groups(vm: &Vm) -> Result<()> {
    if Path::new(GROUPS).join("cgroup.procs").exists() {
        return Ok(());
    }
    fs::create_dir_all(GROUPS)?;
    let mounted = vm.run(&["busybox", "mount", "-t", "cgroup2", "none", GROUPS], LIMIT)?;
    ensure!(mounted.code == 0, "{mounted:?}");
    Ok(())
}

/// A boost ends when its time is over, and what it was is told.
fn boosts_expire(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(2);
    let rule = "[[rule]]\nnice = -1\nweight = 20\nbudget_percent = 90\nexpires_s = 4\n";
    let mut scheduler = scheduler(vm, rule)?;
    let hogs: Vec<Hog> = [-1, 0, 0, 0, 0]
        .into_iter()
        .map(|nice| hog().on(&[1]).nice(nice).start())
        .collect::<Result<_>>()?;
    let boosted = share(vm, "with a boost", &hogs, WINDOW)?;
    thread::sleep(Duration::from_secs(3));
    let after = share(vm, "after it", &hogs, WINDOW)?;
    let told = explain(vm, &hogs[0].pid().to_string())?;
    vm.say(told.trim());
    scheduler.check_alive()?;
    scheduler.finish()?;
    // By weights 86 % of a CPU and, as nice -1 beside four of nice 0, 24 %.
    ensure!((0.80..0.90).contains(&boosted), "{boosted:.3} of a CPU with a boost");
    ensure!((0.22..0.26).contains(&after), "{after:.3} of a CPU when it is over");
    Ok(())
}

/// A thousand rules about ten thousand cgroups, with a task in each, are read and in force within a second.
fn rules_by_the_thousand(vm: &mut Vm) -> Result<()> {
    const RULES: usize = 1_000;
    const TASKS: usize = 10_000;
    const RELOAD_MAX: Duration = Duration::from_secs(1);
    for (file, value) in [
        ("kernel/threads-max", "50000"),
        ("kernel/pid_max", "50000"),
        ("vm/max_map_count", "100000"),
    ] {
        fs::write(Path::new("/proc/sys").join(file), value)?;
    }
    mount_groups(vm)?;
    // Threads of one process may be in cgroups of their own if these are threaded, from the first below the root on.
    let threaded = |path: &Path| -> Result<()> {
        fs::create_dir(path)?;
        fs::write(path.join("cgroup.type"), "threaded").with_context(|| format!("{path:?}"))
    };
    let top = Path::new(GROUPS).join("pods.slice");
    threaded(&top)?;
    let barrier = Barrier::new(TASKS + 1);
    let (reader, writer) = io::pipe()?;
    let (reader, barrier, top) = (&reader, &barrier, &top);
    let rules = |class: &str| -> String {
        let rule =
            |i| format!("[[rule]]\ncgroup = \"/pods.slice/pod{i}-[0-9]*\"\nclass = \"{class}\"\n");
        (0..RULES).map(rule).collect()
    };
    // The programs of rules are loaded with the first of them: 0.3 s more, once.
    let mut scheduler = scheduler(vm, &rules("normal"))?;
    thread::scope(|scope| -> Result<()> {
        for i in 0..TASKS {
            let group = top.join(format!("pod{}-{i}", i % RULES));
            threaded(&group)?;
            thread::Builder::new().stack_size(16 << 10).spawn_scoped(scope, move || {
                let moved = fs::write(group.join("cgroup.threads"), "0");
                barrier.wait();
                moved.expect("a cgroup of its own");
                // Ends when the other end is closed.
                (&mut &*reader).read_exact(&mut [0]).ok();
            })?;
        }
        barrier.wait();
        let mut reload = |class: &str| -> Result<Duration> {
            fs::write(CONFIG, rules(class))?;
            let process = scheduler.process();
            let before = looks(&process.stderr()).len();
            let begin = Instant::now();
            process.signal(Signal::SIGHUP)?;
            while looks(&process.stderr()).len() == before {
                ensure!(begin.elapsed() < LIMIT, "{}", process.stderr());
                thread::sleep(Duration::from_millis(10));
            }
            let took = begin.elapsed();
            let look = *looks(&process.stderr()).last().context("what a look took")?;
            vm.say(format!("{took:.2?} from the signal on, of which {look:.2?} at the tasks"));
            Ok(took)
        };
        let took = [reload("batch")?, reload("idle")?];
        let told = explain(vm, "--rules")?;
        drop(writer);
        vm.say(told.lines().take(8).collect::<Vec<_>>().join("\n"));
        let each = format!("  {} tasks: ", TASKS / RULES);
        let ruled = told.lines().filter(|line| line.starts_with(&each)).count();
        ensure!(ruled == RULES, "{ruled} of {RULES} rules have their tasks: {told:.2000}");
        ensure!(took.iter().all(|took| *took < RELOAD_MAX), "{took:?}");
        Ok(())
    })?;
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// A task has its rule soon after it appears, renames itself, moves to another cgroup, or executes another program; its
/// children have it, too.
fn rules_follow_tasks(vm: &mut Vm) -> Result<()> {
    const TOOL: &str = "/run/tools/precious";
    const GROUP: &str = "/run/groups/team/batch";
    fs::create_dir_all("/run/tools")?;
    fs::copy(env::current_exe()?, TOOL)?;
    mount_groups(vm)?;
    fs::create_dir_all(GROUP)?;
    let rules = [
        "cgroup = \"/team/*\"\nclass = \"batch\"",
        "exe = \"/run/tools/*\"\nclass = \"latency\"",
        "name = \"renam*\"\nweight = 0.5",
        "name = \"nobody\"\nweight = 0.5",
        "name = \"nobody\"\nuser = 0\nweight = 0.5",
        "name = \"somebody\"\ncpus = \"4000-4007\"",
    ];
    let text: Vec<_> = rules.iter().map(|rule| format!("[[rule]]\n{rule}\n")).collect();
    let early = Napper::start("renamed", 0)?;
    let mut scheduler = scheduler(vm, &text.concat())?;
    let is_ruled = |pid: i32, words: &str, what: &str| -> Result<Duration> {
        let mut said = String::new();
        let since = wait_for(LIMIT, || {
            said = explain(vm, &pid.to_string())?;
            Ok(said.contains(words))
        });
        since.with_context(|| format!("{what}: {said}"))
    };
    is_ruled(early.pid().as_raw(), "rule 3 ", "it was there before")?;
    let renamed = Napper::start("rename", 0)?;
    let mut spans = vec![is_ruled(renamed.pid().as_raw(), "rule 3 ", "renamed")?];
    fs::write(format!("{GROUP}/cgroup.procs"), renamed.pid().to_string())?;
    spans.push(is_ruled(renamed.pid().as_raw(), "rule 1 ", "moved to another cgroup")?);
    fs::write("/run/groups/cgroup.procs", renamed.pid().to_string())?;
    spans.push(is_ruled(renamed.pid().as_raw(), "rule 3 ", "moved back")?);
    let tool = Running::start(&mut Napper::command(Path::new(TOOL), "x", 0))?;
    spans.push(is_ruled(tool.pid().as_raw(), "rule 2 ", "of that path")?);
    let child = Running::start(Command::new("busybox").args([
        "sh",
        "-c",
        &format!("echo $$ > {GROUP}/cgroup.procs; busybox sleep 60 & busybox sleep 60"),
    ]))?;
    spans.push(is_ruled(child.pid().as_raw(), "rule 1 ", "a shell that moves itself")?);
    wait_for(LIMIT, || {
        let told = explain(vm, "busybox")? + &explain(vm, "sleep")?;
        Ok(told.matches("rule 1 ").count() >= 2)
    })
    .context("its children")?;
    let all = explain(vm, "--rules")?;
    let log = scheduler.process().stderr();
    scheduler.check_alive()?;
    scheduler.finish()?;
    vm.say(format!("ruled after {spans:.0?}, the question included"));
    vm.say(all.trim());
    ensure!(log.contains("rules.toml:13:1: rule 5 has no effect: rule 4"), "{log}");
    ensure!(log.contains("rules.toml:17:1: rule 6 prefers CPUs above "), "{log}");
    ensure!(
        log.contains("no task is there now that these rules match: ") && log.contains("4 (/run"),
        "{log}"
    );
    ensure!(all.contains("rule 4 (/run/rules.toml:10:1)") && all.contains("no task now"), "{all}");
    Ok(())
}

//! Start, stop, die: nothing stays behind.

use crate::{stress::MISCOUNT_OF_6_12, truth::next_intervals};
use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{First, Hog, Policy, Running, hog, set_policy},
    qemu::Topology,
    vm::{SCHEDULER, Scheduler, sched_ext},
};
use nix::sys::signal::Signal;
use std::{
    fs,
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(1, "starts_and_stops", starts_and_stops).core().deterministic().on(Topology::TWO),
    Case::new(1, "five_rounds_leave_nothing", five_rounds_leave_nothing).core(),
    Case::new(1, "twenty_rounds_leave_nothing", twenty_rounds_leave_nothing).limit_secs(600),
    Case::new(9, "kill_nine", kill_nine),
    Case::new(12, "two_capabilities", two_capabilities),
    Case::new(12, "reloads", reloads).on(Topology::TWO),
    Case::new(12, "tells_the_service_manager", tells_the_service_manager).on(Topology::TWO),
];

/// A task that runs again after this long was not lost when its scheduler went away.
const SHORT: Duration = Duration::from_millis(500);

/// In the deterministic guest, because times are judged.
fn starts_and_stops(vm: &mut Vm) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let scheduler = vm.scheduler(&["-v"])?;
        let started_in = scheduler.started_in;
        let attached_in = scheduler.attached_in.context("it does not say when it was loaded")?;
        ensure!(attached_in < Duration::from_secs(2), "enabled {attached_in:?} after the load");
        let ops = sched_ext("root/ops")?;
        ensure!(ops.starts_with("scheduler"), "root/ops is {ops}");
        let begin = Instant::now();
        let end = scheduler.stop(signal)?;
        let took = begin.elapsed();
        vm.say(format!("enabled in {started_in:.2?}, {attached_in:.2?} of it after the load; {signal}: ended in {took:.2?}"));
        ensure!(end.code == 0, "{signal}: code {}\n{}", end.code, end.stderr);
        ensure!(vm.state()? == "disabled", "{signal}: {}", vm.state()?);
        ensure!(took < Duration::from_secs(1), "{signal}: ended in {took:?}");
    }
    Ok(())
}

/// What is left, the suite looks for after each case.
fn rounds_leave_nothing(vm: &mut Vm, rounds: usize) -> Result<()> {
    // Nice, because what is tested is start and stop: what a loaded CPU takes to verify is not.
    let _hog = hog().nice(10).start()?;
    let _forks = vm.start(&["stress-ng", "--fork", "1"])?;
    for round in 0..rounds {
        let signal = if round % 2 == 0 { Signal::SIGINT } else { Signal::SIGTERM };
        let end = vm.scheduler(&[])?.stop(signal)?;
        ensure!(end.code == 0, "round {round}: {}\n{}", end.code, end.stderr);
        ensure!(vm.state()? == "disabled", "round {round}: {}", vm.state()?);
    }
    Ok(())
}

/// On every kernel: a round takes some seconds.
fn five_rounds_leave_nothing(vm: &mut Vm) -> Result<()> {
    rounds_leave_nothing(vm, 5)
}

fn twenty_rounds_leave_nothing(vm: &mut Vm) -> Result<()> {
    rounds_leave_nothing(vm, 20)
}

fn kill_nine(vm: &mut Vm) -> Result<()> {
    let hogs: Vec<_> = (0..4).map(|_| hog().nice(10).start()).collect::<Result<_>>()?;
    let scheduler = vm.scheduler(&[])?;
    // Whatever it does after the attach is done.
    thread::sleep(SHORT);
    let end = scheduler.stop(Signal::SIGKILL)?;
    ensure!(end.code == 128 + 9, "{end:?}");
    let took = vm.wait_for_state("disabled", Duration::from_secs(5))?;
    vm.say(format!("the default took over {took:.2?} after the end of the process"));

    let times = hogs.iter().map(|hog| hog.cpu_time()).collect::<Result<Vec<_>>>()?;
    thread::sleep(SHORT * 4);
    for (hog, before) in hogs.iter().zip(times) {
        ensure!(hog.cpu_time()? > before, "hog {} does not run any more", hog.pid());
    }
    vm.scheduler(&[])?.finish()?;
    Ok(())
}

/// As the unit starts it: an ordinary user who holds CAP_BPF and CAP_PERFMON, and nothing else.
fn two_capabilities(vm: &mut Vm) -> Result<()> {
    // By linux/capability.h: CAP_PERFMON is 38, CAP_BPF is 39.
    const BOTH: &str = "CapEff:\t000000c000000000";
    let user = ["--reuid=1000", "--regid=1000", "--clear-groups"];
    let sets = ["--inh-caps", "--ambient-caps", "--bounding-set"];
    let mut command = Command::new("setpriv");
    command.args(user).args(sets.map(|set| format!("{set}=-all,+bpf,+perfmon"))).arg(SCHEDULER);
    // Rules have programs of their own, on tracepoints, and look at every task.
    const CONFIG: &str = "/run/two-capabilities.toml";
    let rules = "[[rule]]\nnice = 7\nclass = \"idle\"\n\n[[rule]]\nexe = \"/**\"\nweight = 2\nbudget_percent = 50\n";
    fs::write(CONFIG, rules)?;
    let flags = ["-v", "--config", CONFIG, "--json", "--interval", "0.2", "--tasks", "20"];
    let mut scheduler = Scheduler::start(&mut command, &flags)?;
    let status = fs::read_to_string(format!("/proc/{}/status", scheduler.process().pid()))?;
    ensure!(status.contains(BOTH), "other capabilities:\n{status}");
    ensure!(status.contains("Uid:\t1000\t1000"), "another user:\n{status}");
    let [load, ruled] = [hog().start()?, hog().nice(7).start()?];
    thread::sleep(SHORT * 2);
    ensure!(!load.cpu_time()?.is_zero(), "nothing runs");
    let samples = next_intervals(&mut scheduler, 2)?;
    let tasks = samples.last().and_then(|sample| sample["tasks"].as_array()).context("no tasks")?;
    let rule_of = |hog: &Hog| {
        let row = tasks.iter().find(|task| task["pid"] == hog.pid().as_raw());
        row.and_then(|row| row["rule"].as_u64())
    };
    let rules = [rule_of(&load), rule_of(&ruled)];
    ensure!(rules == [Some(2), Some(1)], "{rules:?}: {tasks:?}");
    scheduler.check_alive()?;
    let end = scheduler.finish()?;
    ensure!(end.stdout.lines().count() > 1, "no statistics:\n{}", end.stderr);
    vm.say("attached, reported and stopped with CAP_BPF and CAP_PERFMON only");
    Ok(())
}

/// What the scheduler tells until `limit` passes without a word.
fn told(socket: &UnixDatagram, limit: Duration) -> Result<String> {
    let mut text = [0; 256];
    socket.set_read_timeout(Some(limit))?;
    match socket.recv(&mut text) {
        Ok(length) => Ok(String::from_utf8_lossy(&text[..length]).into_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(String::new()),
        Err(error) => Err(error).context("listening to the scheduler"),
    }
}

/// As systemd hears it: ready when attached, alive as long as tasks get to run and no longer, stopping.
fn tells_the_service_manager(vm: &mut Vm) -> Result<()> {
    const SOCKET: &str = "/run/notify";
    /// The scheduler looks, and says that it is alive, twice in this time.
    const WATCHDOG: Duration = Duration::from_secs(1);
    const LOOK: Duration = Duration::from_millis(500);
    fs::remove_file(SOCKET).ok();
    vm.expect_log(MISCOUNT_OF_6_12);
    let socket = UnixDatagram::bind(SOCKET).context("making the socket")?;
    let mut command = Command::new(SCHEDULER);
    command.env("NOTIFY_SOCKET", SOCKET).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let mut scheduler = Running::start(&mut command)?;

    let ready = told(&socket, Duration::from_secs(60))?;
    let state = vm.state()?;
    ensure!(ready.lines().any(|line| line == "READY=1"), "first it says {ready:?}");
    ensure!(state == "enabled", "ready, but the state is {state}");
    for _ in 0..2 {
        let alive = told(&socket, 4 * WATCHDOG)?;
        ensure!(alive == "WATCHDOG=1", "it says {alive:?}, and the machine idles");
    }

    // Real-time tasks have all CPUs, an ordinary one waits; this process and the scheduler are before them all.
    let real_time_only = RealTimeOnly::begin()?;
    set_policy(scheduler.pid(), Policy::FifoFirst)?;
    let waiting = hog().start()?;
    let real_time = [0, 1].map(|cpu| hog().on(&[cpu]).policy(Policy::Fifo).start());
    // One look may have been under way, the next still sees that tasks ran since the one before.
    for _ in 0..3 {
        told(&socket, LOOK)?;
    }
    let before = waiting.cpu_time()?;
    let silent = told(&socket, 3 * WATCHDOG)?;
    ensure!(waiting.cpu_time()? == before, "the case is wrong: the task does run");
    ensure!(silent.is_empty(), "nobody got to run, and it says {silent:?}");
    for hog in real_time {
        drop(hog?);
    }
    let alive = told(&socket, 4 * WATCHDOG)?;
    ensure!(alive == "WATCHDOG=1", "it says {alive:?}, and the task runs again");
    drop(real_time_only);

    ensure!(!scheduler.has_ended()?, "it has ended:\n{}", scheduler.stderr());
    scheduler.signal(Signal::SIGTERM)?;
    let mut last = told(&socket, WATCHDOG)?;
    while last == "WATCHDOG=1" {
        last = told(&socket, WATCHDOG)?;
    }
    ensure!(last == "STOPPING=1", "at the end it says {last:?}");
    let end = scheduler.wait(Duration::from_secs(30))?;
    ensure!(end.code == 0, "{end:?}");
    vm.say("ready when attached, silent while nobody gets to run, alive afterwards");
    Ok(())
}

/// SIGHUP gives the running scheduler other slices without detaching it; a bad file changes nothing and says why.
fn reloads(vm: &mut Vm) -> Result<()> {
    const SOCKET: &str = "/run/notify-reloads";
    const CONFIG: &str = "/run/reloads.toml";
    const LIMIT: Duration = Duration::from_secs(20);
    const SHORT_US: u64 = 3_000;
    const LONG_US: u64 = 100_000;
    let slices = |us: u64| fs::write(CONFIG, format!("slice_us = {us}\nslice_min_us = {us}\n"));
    slices(SHORT_US)?;
    let socket = UnixDatagram::bind(SOCKET).context("making the socket")?;
    let mut command = Command::new(SCHEDULER);
    command.env("NOTIFY_SOCKET", SOCKET);
    let mut scheduler = Scheduler::start(&mut command, &["-v", "--config", CONFIG])?;
    told(&socket, LIMIT)?;
    let hogs: Vec<_> = (0..2).map(|_| hog().on(&[1]).start()).collect::<Result<_>>()?;
    let switches = || -> Result<u64> {
        let count = |pid| -> Result<u64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|l| l.strip_prefix("nonvoluntary_ctxt_switches:"));
            Ok(line.context("no count of switches")?.trim().parse()?)
        };
        hogs.iter().map(|hog| count(hog.pid())).sum()
    };
    // Of the two hogs on their CPU.
    let rate = || -> Result<u64> {
        let before = switches()?;
        thread::sleep(Duration::from_secs(2));
        Ok(switches()? - before)
    };
    let attached = sched_ext("enable_seq")?;
    let reload = |scheduler: &mut Scheduler| -> Result<String> {
        scheduler.process().signal(Signal::SIGHUP)?;
        let begin = told(&socket, LIMIT)?;
        ensure!(begin.starts_with("RELOADING=1\nMONOTONIC_USEC="), "first it says {begin:?}");
        let end = told(&socket, LIMIT)?;
        ensure!(end.starts_with("READY=1\n"), "then it says {end:?}");
        scheduler.check_alive()?;
        ensure!(sched_ext("enable_seq")? == attached, "it was detached and attached again");
        Ok(end)
    };

    let short = rate()?;
    slices(LONG_US)?;
    reload(&mut scheduler)?;
    let long = rate()?;
    vm.say(format!("{short} switches in 2 s with {SHORT_US} us, {long} with {LONG_US} us"));
    ensure!(long * 2 < short && long > 0, "the slices have not changed");

    fs::write(CONFIG, "slice_us = 7\npartial = true\n")?;
    let kept = reload(&mut scheduler)?;
    ensure!(kept.contains("reloads.toml:1:12: slice_us = 7"), "it says {kept:?}");
    let still = rate()?;
    ensure!(still < 2 * long, "{still} switches after a bad file, {long} before");

    // Back, and what has to wait is named.
    fs::write(CONFIG, "slice_us = 3000\npartial = true\n")?;
    reload(&mut scheduler)?;
    let again = rate()?;
    ensure!(again * 2 > short, "{again} switches, not {short} as at first");
    // And by a request over the socket, of those that may.
    fs::write(CONFIG, "")?;
    reload(&mut scheduler)?;
    let switched = vm.run(&[SCHEDULER, "profile", "powersave"], LIMIT)?;
    ensure!(switched.code == 0 && switched.stdout.contains("slice_us = 20000"), "{switched:?}");
    let powersave = rate()?;
    vm.say(format!("{powersave} switches in 2 s by the profile powersave"));
    ensure!(powersave * 3 < again * 2, "{powersave} switches by the profile, {again} before");
    ensure!(sched_ext("enable_seq")? == attached, "it was detached and attached again");
    let other = ["setpriv", "--reuid=1000", "--clear-groups", SCHEDULER, "profile", "auto"];
    let refused = vm.run(&other, LIMIT)?;
    ensure!(refused.code == 1 && refused.stderr.contains("asking the scheduler"), "{refused:?}");
    let said = scheduler.process().stderr();
    for words in ["slice_us = 100000", "stay as they were: ", "partial = true", "next start"] {
        ensure!(said.contains(words), "not {words:?}:\n{said}");
    }
    scheduler.finish()?;

    // Without a signal, where that was asked for: written in place, and by a rename over it.
    let mut command = Command::new(SCHEDULER);
    command.env("NOTIFY_SOCKET", SOCKET);
    let scheduler = Scheduler::start(&mut command, &["--config", CONFIG, "--watch-config"])?;
    // The one before has said that it stops.
    while !told(&socket, LIMIT)?.starts_with("READY=1") {}
    const OTHER: &str = "/run/reloads.toml.new";
    for (path, us) in [(CONFIG, 7000), (OTHER, 8000)] {
        fs::write(path, format!("slice_us = {us}\n"))?;
        if path == OTHER {
            fs::rename(OTHER, CONFIG)?;
        }
        let [begin, end] = [told(&socket, LIMIT)?, told(&socket, LIMIT)?];
        ensure!(begin.starts_with("RELOADING=1\n") && end.starts_with("READY=1\n"), "{begin}{end}");
        let tells = vm.run(&[SCHEDULER, "profile"], LIMIT)?;
        ensure!(tells.stdout.contains(&format!("slice_us = {us}")), "{tells:?}");
    }
    scheduler.finish()?;
    fs::remove_file(SOCKET)?;
    Ok(())
}

/// While it lives, nothing is kept for ordinary tasks: no throttle, no server of a class on any CPU. This process
/// is before all real-time hogs.
struct RealTimeOnly {
    /// Files and what they held.
    held: Vec<(PathBuf, String)>,
    _first: First,
}

impl RealTimeOnly {
    fn begin() -> Result<Self> {
        const THROTTLE: &str = "/proc/sys/kernel/sched_rt_runtime_us";
        const SERVERS: &str = "/sys/kernel/debug/sched";
        let mut files = vec![(PathBuf::from(THROTTLE), "-1")];
        for class in ["fair_server", "ext_server"] {
            // Older kernels have no server of sched_ext, or none at all.
            let Ok(cpus) = fs::read_dir(format!("{SERVERS}/{class}")) else { continue };
            for cpu in cpus {
                files.push((cpu?.path().join("runtime"), "0"));
            }
        }
        let mut this = Self { held: Vec::new(), _first: First::begin()? };
        for (file, value) in files {
            let held = fs::read_to_string(&file)?;
            fs::write(&file, value).with_context(|| format!("writing {}", file.display()))?;
            this.held.push((file, held));
        }
        Ok(this)
    }
}

impl Drop for RealTimeOnly {
    fn drop(&mut self) {
        // The cases after this one would tell.
        for (file, held) in &self.held {
            fs::write(file, held.trim()).ok();
        }
    }
}

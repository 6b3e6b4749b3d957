//! Policies in user space, and the base beneath them that none of them can stop.

use crate::{
    mischief::Mischief,
    truth::{intervals, sums},
};
use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{First, Hog, Running, hog, last_cpu, set_affinity},
    qemu::Topology,
    vm::Scheduler,
};
use nix::{sys::signal::Signal, unistd::Pid};
use scheduler::policy::{Fifo, Policy, Vruntime, fake::Fake};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    mem,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Examples, in the guest.
pub const FIFO: &str = "/bin/example-fifo";
pub const VRUNTIME: &str = "/bin/example-vruntime";
pub const PIN_BY_NAME: &str = "/bin/example-pin-by-name";

pub const CASES: &[Case] = &[
    Case::new(14, "policy_decides", policy_decides).core(),
    // Before the others: what they leave to the kernel to tidy up is no idle machine.
    Case::new(14, "policy_idles", policy_idles),
    Case::new(14, "policy_stopped", policy_stopped).deterministic().on(Topology::TWO),
    Case::new(14, "policy_panics", policy_panics).core(),
    Case::new(14, "policy_of_another_version", policy_of_another_version),
    Case::new(14, "policy_mischief", policy_mischief)
        .deterministic()
        .on(Topology::TWO)
        .limit_secs(900),
    Case::new(14, "policy_examples", policy_examples).deterministic(),
    Case::new(14, "policy_pins_by_name", policy_pins_by_name).deterministic(),
    Case::new(14, "policy_fifo_is_fifo", policy_fifo_is_fifo).deterministic().on(Topology::TWO),
    Case::new(14, "policy_accounts", |vm| policy_accounts(vm, 50_000)).limit_secs(1100),
    Case::new(14, "policy_accounts_million", |vm| policy_accounts(vm, 1_000_000))
        .thorough()
        .limit_secs(1200),
    Case::new(14, "policy_overflow", policy_overflow).limit_secs(600),
    Case::new(14, "policy_forgets", policy_forgets).limit_secs(600),
    Case::new(14, "policy_memory_pressure", policy_memory_pressure).limit_secs(600),
    Case::new(14, "policy_round_trip", policy_round_trip).deterministic(),
    Case::new(14, "policy_cost", policy_cost).deterministic().on(Topology::TWO),
];

/// Offers are decided, mostly; hogs run, and it ends as it should.
fn policy_decides(vm: &mut Vm) -> Result<()> {
    for policy in ["vruntime", "fifo"] {
        let mut scheduler = vm.scheduler(&["--policy", policy, "--json", "--interval=0.5"])?;
        let hogs: Vec<Hog> = (0..12).map(|_| hog().start()).collect::<Result<_>>()?;
        thread::sleep(Duration::from_secs(4));
        for hog in &hogs {
            ensure!(!hog.cpu_time()?.is_zero(), "a hog does not run under {policy}");
        }
        scheduler.check_alive()?;
        drop(hogs);
        let intervals = intervals(&mut scheduler)?;
        scheduler.finish()?;
        let sum = sums(&intervals)?;
        let last = intervals.last().context("no interval")?;
        vm.say(format!("{policy}: {sum:?}\n{}", last["policy"]));
        let [offered, decided, taken] = ["offered", "decided", "taken"].map(|name| sum[name]);
        // Four virtual CPUs have two of the host's: the policy waits for one that its guest believes it has. How it is
        // without that is in `policy_round_trip`.
        ensure!(offered > 500 && decided * 2 > offered, "{decided} and {taken} of {offered}");
    }
    Ok(())
}

/// The longest time that one of these did not run within `window`, as seen every few milliseconds by one who waits
/// for none of them.
fn longest_unrun(hogs: &[Hog], window: Duration) -> Result<Duration> {
    let _first = First::begin()?;
    let end = Instant::now() + window;
    let mut seen: Vec<(Duration, Instant)> = Vec::new();
    for hog in hogs {
        seen.push((hog.cpu_time()?, Instant::now()));
    }
    let mut longest = Duration::ZERO;
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(4));
        for (hog, (time, since)) in hogs.iter().zip(&mut seen) {
            let now = hog.cpu_time()?;
            longest = longest.max(since.elapsed());
            if now != *time {
                (*time, *since) = (now, Instant::now());
            }
        }
    }
    Ok(longest)
}

/// What a policy may cost more than the base alone, in time unrun.
const MORE: Duration = Duration::from_millis(100);

/// Four hogs a CPU, on two, once the scheduler is there: to load beside them takes long.
fn hogs() -> Result<Vec<Hog>> {
    let hogs = (0..8).map(|_| hog().start()).collect();
    thread::sleep(Duration::from_millis(500));
    hogs
}

/// The longest time that one of these hogs does not run with decisions in the kernel.
fn unrun_by_base(vm: &mut Vm, window: Duration) -> Result<Duration> {
    let alone = vm.scheduler(&[])?;
    let unrun = longest_unrun(&hogs()?, window)?;
    alone.finish()?;
    vm.say(format!("base alone: {unrun:?}"));
    Ok(unrun)
}

/// Stopped for ten seconds under four hogs a CPU, the policy is missed by nobody, and takes over again.
fn policy_stopped(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    let by_base = unrun_by_base(vm, WINDOW)?;
    let mut scheduler = vm.scheduler(&["--policy", "vruntime", "--json", "--interval=0.5"])?;
    let hogs = hogs()?;
    let by_policy = longest_unrun(&hogs, WINDOW)?;
    scheduler.process().signal(Signal::SIGSTOP)?;
    let stopped = longest_unrun(&hogs, Duration::from_secs(10))?;
    scheduler.process().signal(Signal::SIGCONT)?;
    let after = longest_unrun(&hogs, WINDOW)?;
    scheduler.check_alive()?;
    vm.say(format!("longest unrun: policy {by_policy:?}, stopped {stopped:?}, after {after:?}"));
    let intervals = intervals(&mut scheduler)?;
    let end = scheduler.finish()?;
    for wait in [by_policy, stopped, after] {
        ensure!(wait < by_base + MORE, "a hog did not run for {wait:?}, {by_base:?} by the base");
    }
    let sum = sums(&intervals)?;
    vm.say(format!("{sum:?}\n{}", end.stderr));
    ensure!(sum["late"] == 1, "late {} times", sum["late"]);
    let told = end.stderr.matches("did not answer").count();
    ensure!(told == 1, "told of {told} times: {}", end.stderr);
    let last = sums(&intervals[intervals.len().checked_sub(3).context("too few intervals")?..])?;
    ensure!(last["decided"] > 100, "after it went on it decided {}", last["decided"]);
    Ok(())
}

/// The message, the exit code, and the kernel's default back.
fn policy_panics(vm: &mut Vm) -> Result<()> {
    let scheduler = Scheduler::start(&mut Mischief::Panics.command()?, &["--stats"])?;
    let _hogs: Vec<Hog> = (0..8).map(|_| hog().start()).collect::<Result<_>>()?;
    vm.wait_for_state("disabled", Duration::from_secs(30))?;
    // It has ended: the signal reaches nobody.
    let end = scheduler.stop(Signal::SIGCONT)?;
    ensure!(end.code == 1, "exit code {}", end.code);
    ensure!(end.stderr.contains("panicked: mischief managed"), "{}", end.stderr);
    Ok(())
}

fn policy_of_another_version(vm: &mut Vm) -> Result<()> {
    let end = Running::start(&mut Mischief::OfAnotherVersion.command()?)?
        .wait(Duration::from_secs(10))?;
    ensure!(end.code == 78 && end.stderr.contains("999"), "{}: {}", end.code, end.stderr);
    ensure!(vm.state()? == "disabled", "something is attached");
    Ok(())
}

/// Whatever a policy does, no task waits for much longer than by the base alone, and nothing is ejected.
fn policy_mischief(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(2);
    let by_base = unrun_by_base(vm, WINDOW)?;
    use Mischief::{DecidesAtRandom, DecidesLate, DecidesNothing, DecidesTwice, Loops};
    for mischief in [Loops, DecidesNothing, DecidesTwice, DecidesAtRandom, DecidesLate] {
        let flags = ["--json", "--interval=0.5"];
        let mut scheduler = Scheduler::start(&mut mischief.command()?, &flags)?;
        let hogs = hogs()?;
        let unrun = longest_unrun(&hogs, WINDOW)?;
        drop(hogs);
        scheduler.check_alive()?;
        let sum = sums(&intervals(&mut scheduler)?)?;
        let end = scheduler.finish()?;
        let shown: Vec<_> = ["offered", "decided", "taken", "gone", "stale", "malformed", "late"]
            .iter()
            .map(|&name| format!("{name} {}", sum[name]))
            .collect();
        vm.say(format!("{mischief:?}: {unrun:?}, {}, {}", shown.join(" "), end.stderr));
        ensure!(unrun < by_base + MORE, "{mischief:?}: a hog did not run for {unrun:?}");
        match mischief {
            // Whether 50 ms pass without a decision of what waits is chance.
            DecidesAtRandom => {}
            DecidesTwice => ensure!(sum["late"] == 0, "late {} times", sum["late"]),
            _ => ensure!(sum["late"] > 0, "{mischief:?} was never late"),
        }
        match mischief {
            DecidesNothing => ensure!(sum["taken"] > 0, "the base took nothing"),
            DecidesTwice => ensure!(sum["stale"] > 100, "a second decision was not stale"),
            DecidesAtRandom => {
                ensure!(sum["stale"] > 100 && sum["malformed"] > 100, "chance was believed");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Each of the examples schedules.
fn policy_examples(vm: &mut Vm) -> Result<()> {
    for (program, flags) in
        [(FIFO, &["--json"][..]), (VRUNTIME, &["--json", "--set", "slice_us=2000"])]
    {
        let mut scheduler = Scheduler::start(&mut Command::new(program), flags)?;
        let hogs: Vec<Hog> = (0..8).map(|_| hog().start()).collect::<Result<_>>()?;
        thread::sleep(Duration::from_secs(2));
        for hog in &hogs {
            ensure!(!hog.cpu_time()?.is_zero(), "a hog does not run under {program}");
        }
        let sum = sums(&intervals(&mut scheduler)?)?;
        vm.say(format!("{program}: {} of {} decided", sum["decided"], sum["offered"]));
        ensure!(sum["decided"] * 2 > sum["offered"], "mostly the base decided: {sum:?}");
        scheduler.check_alive()?;
        drop(hogs);
        scheduler.finish()?;
    }
    Ok(())
}

/// Hogs of one name are on their CPU, all others elsewhere.
fn policy_pins_by_name(vm: &mut Vm) -> Result<()> {
    let name = std::fs::read_to_string("/proc/self/comm")?.trim().to_owned();
    let flags = ["--json", "--set", "name=busybox", "--set", "cpu=2"];
    let mut scheduler = Scheduler::start(&mut Command::new(PIN_BY_NAME), &flags)?;
    let others: Vec<Hog> = (0..6).map(|_| hog().start()).collect::<Result<_>>()?;
    let named: Vec<_> =
        (0..2).map(|_| vm.start(&["busybox", "yes", "pinned"])).collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_secs(2));
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(20));
        for process in &named {
            if last_cpu(process.pid())? == 2 { right += 1 } else { wrong += 1 }
        }
        for hog in &others {
            if hog.last_cpu()? == 2 { wrong += 1 } else { right += 1 }
        }
    }
    vm.say(format!("hogs are called {name}; {right} of {} where they belong", right + wrong));
    let sum = sums(&intervals(&mut scheduler)?)?;
    vm.say(format!("{sum:?}"));
    scheduler.check_alive()?;
    scheduler.finish()?;
    // The base takes what a policy leaves too long, on whichever CPU it can.
    ensure!(wrong * 20 < right, "{wrong} times on a wrong CPU, {right} times on the right one");
    Ok(())
}

/// Tasks that wake while their CPU is busy run in the order in which they woke, whoever is owed most.
fn policy_fifo_is_fifo(vm: &mut Vm) -> Result<()> {
    const WORKERS: u64 = 8;
    const ROUNDS: usize = 12;
    set_affinity(Pid::from_raw(0), &[0])?;
    let scheduler = vm.scheduler(&["--policy", "fifo"])?;
    let _hog = hog().on(&[1]).start()?;
    let order = Mutex::new(Vec::new());
    let (done, finished) = mpsc::channel();
    let mut wrong = 0;
    thread::scope(|scope| -> Result<()> {
        let mut wakers = Vec::new();
        for worker in 0..WORKERS {
            let (waker, woken) = mpsc::channel::<()>();
            wakers.push(waker);
            let (order, done) = (&order, done.clone());
            scope.spawn(move || {
                // A thread's own: 0 is the calling one.
                set_affinity(Pid::from_raw(0), &[1]).ok();
                while woken.recv().is_ok() {
                    order.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                    // The first to wake have run most: by virtual run time they would come last.
                    let until = Instant::now() + Duration::from_millis(WORKERS - worker);
                    while Instant::now() < until {}
                    done.send(()).ok();
                }
            });
        }
        for _ in 0..ROUNDS {
            thread::sleep(Duration::from_millis(50));
            for waker in &wakers {
                waker.send(()).context("a worker has gone")?;
                thread::sleep(Duration::from_micros(200));
            }
            for _ in 0..WORKERS {
                finished.recv_timeout(Duration::from_secs(10)).context("a worker does not run")?;
            }
            let order = mem::take(&mut *order.lock().unwrap_or_else(PoisonError::into_inner));
            vm.say(format!("{order:?}"));
            wrong += usize::from(!order.is_sorted());
        }
        Ok(())
    })?;
    set_affinity(Pid::from_raw(0), &[0, 1])?;
    scheduler.finish()?;
    ensure!(wrong == 0, "{wrong} of {ROUNDS} rounds out of order");
    Ok(())
}

/// Every task that was offered was decided, taken by the base, or gone, over so many decisions.
fn policy_accounts(vm: &mut Vm, decisions: u64) -> Result<()> {
    let flags = ["--json", "--interval=0.5"];
    let mut scheduler = Scheduler::start(&mut Mischief::None.command()?, &flags)?;
    let begin = Instant::now();
    let mut sum = BTreeMap::new();
    let line = "stress-ng --switch 6 --fork 1 --affinity 1 --cpu 1";
    let load = vm.start(&line.split(' ').collect::<Vec<_>>())?;
    while sum.get("decided").is_none_or(|&n| n < decisions) {
        ensure!(begin.elapsed() < Duration::from_secs(1000), "too slow: {sum:?}");
        thread::sleep(Duration::from_secs(1));
        sum = sums(&intervals(&mut scheduler)?)?;
    }
    let took = begin.elapsed();
    load.signal(Signal::SIGINT)?;
    load.wait(Duration::from_secs(60))?;
    thread::sleep(Duration::from_secs(2));
    sum = sums(&intervals(&mut scheduler)?)?;
    let ended = sum["decided"] + sum["taken"] + sum["gone"];
    vm.say(format!("{took:?}: {ended} of {} offers ended: {sum:?}", sum["offered"]));
    // What was open when the first sample was taken, and when the last was.
    ensure!(sum["gone"] > 0, "no task left its queue");
    ensure!(sum["offered"].abs_diff(ended) <= 4, "{ended} of {} offers ended", sum["offered"]);
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// Twenty thousand tasks wake at once, far more than the ring has room for: all of them run.
fn policy_overflow(vm: &mut Vm) -> Result<()> {
    const TASKS: usize = 20_000;
    fs::write("/proc/sys/kernel/threads-max", "100000")?;
    fs::write("/proc/sys/kernel/pid_max", "100000")?;
    fs::write("/proc/sys/vm/max_map_count", "200000")?;
    let flags = ["--json", "--interval=0.5", "--ring-kib=4"];
    let mut scheduler = Scheduler::start(&mut Mischief::Naps.command()?, &flags)?;
    let ran = AtomicUsize::new(0);
    let (reader, writer) = io::pipe()?;
    let reader = &reader;
    thread::scope(|scope| -> Result<()> {
        for _ in 0..TASKS {
            thread::Builder::new().stack_size(16 << 10).spawn_scoped(scope, || {
                // Ends when the other end is closed.
                (&mut &*reader).read_exact(&mut [0]).ok();
                ran.fetch_add(1, Ordering::Relaxed);
            })?;
        }
        drop(writer);
        Ok(())
    })?;
    ensure!(ran.load(Ordering::Relaxed) == TASKS, "{ran:?} tasks ran");
    thread::sleep(Duration::from_secs(1));
    let sum = sums(&intervals(&mut scheduler)?)?;
    vm.say(format!("{sum:?}"));
    ensure!(sum["overflow"] > 1000, "the ring did not overflow: {}", sum["overflow"]);
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// Nothing is kept of tasks that are gone, whatever pids they had.
fn policy_forgets(vm: &mut Vm) -> Result<()> {
    fs::write("/proc/sys/kernel/pid_max", "600")?;
    let mut scheduler = vm.scheduler(&["--policy", "vruntime", "--json", "--interval=0.5"])?;
    let line = "stress-ng --timeout 10 --fork 4 --exec 4 --cpu 4 --pthread 4";
    vm.run(&line.split(' ').collect::<Vec<_>>(), Duration::from_secs(100))?;
    thread::sleep(Duration::from_secs(2));
    let intervals = intervals(&mut scheduler)?;
    let kept = |interval: &Value| interval["policy"]["figures"]["tasks"].as_f64();
    let most = intervals.iter().filter_map(kept).fold(0.0, f64::max);
    let last = intervals.last().and_then(kept).context("no figure")?;
    let alive = fs::read_dir("/proc")?.count() as f64;
    vm.say(format!("{last} kept, {most} at most, {alive} entries in /proc"));
    ensure!(most > 15.0 && last < 15.0, "{last} tasks are kept, {most} at most");
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// Memory runs out, and the kernel kills for it: the policy's process waits for no page, and nobody for it.
fn policy_memory_pressure(vm: &mut Vm) -> Result<()> {
    let mut scheduler = vm.scheduler(&["--policy", "vruntime", "--json", "--interval=0.5"])?;
    fs::write(format!("/proc/{}/oom_score_adj", scheduler.process().pid()), "-1000")?;
    let line = "stress-ng --bigheap 4 --bigheap-growth 32m --vm 2 --vm-bytes 80% --cpu 2";
    let load = vm.start(&line.split(' ').collect::<Vec<_>>())?;
    // How fast memory fills is the host's affair.
    let begin = Instant::now();
    let mut killed = false;
    while !killed && begin.elapsed() < Duration::from_secs(200) {
        thread::sleep(Duration::from_secs(1));
        killed = vm.kernel_log().contains("Out of memory");
    }
    thread::sleep(Duration::from_secs(5));
    load.signal(Signal::SIGINT)?;
    load.wait(Duration::from_secs(100))?;
    vm.say(format!("out of memory after {:?}", begin.elapsed()));
    let sum = sums(&intervals(&mut scheduler)?)?;
    vm.say(format!("{sum:?}"));
    ensure!(killed, "memory did not run out");
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// The first line of /proc/PID/status: the name of the task.
fn of_name(status: &str) -> String {
    status.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned()
}

/// A machine with nothing to do has no policy that asks it all the time.
fn policy_idles(vm: &mut Vm) -> Result<()> {
    const SECONDS: u64 = 10;
    let mut scheduler = vm.scheduler(&["--policy", "vruntime", "--json", "--interval=5"])?;
    let folder = format!("/proc/{}/task", scheduler.process().pid());
    // By thread: how often it was switched away from.
    let switches = || -> Result<BTreeMap<String, u64>> {
        let mut threads = BTreeMap::new();
        for thread in fs::read_dir(&folder)? {
            let status = fs::read_to_string(thread?.path().join("status"))?;
            let of =
                |line: &str| line.split_whitespace().last().and_then(|n| n.parse::<u64>().ok());
            let name = of_name(&status);
            let sum = status.lines().filter(|line| line.contains("ctxt_switches")).filter_map(of);
            *threads.entry(name).or_default() += sum.sum::<u64>();
        }
        Ok(threads)
    };
    thread::sleep(Duration::from_secs(2));
    let before = switches()?;
    thread::sleep(Duration::from_secs(SECONDS));
    let after = switches()?;
    vm.say(format!("{before:?}, {SECONDS} s later {after:?}"));
    let woken = after.values().sum::<u64>() - before.values().sum::<u64>();
    vm.say(format!("{:?}", sums(&intervals(&mut scheduler)?)?));
    // Ten heartbeats and two looks at the scheduler a second, and as much again for what the guest itself does.
    ensure!(woken <= 2 * 12 * SECONDS, "woken {woken} times in {SECONDS} s");
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// From an offer to the answer, and to the run: what is published, with a wide margin.
fn policy_round_trip(vm: &mut Vm) -> Result<()> {
    for policy in ["vruntime", "fifo"] {
        let mut scheduler = vm.scheduler(&["--policy", policy, "--json", "--interval=2"])?;
        let hogs: Vec<Hog> = (0..8).map(|_| hog().start()).collect::<Result<_>>()?;
        let wakers: Vec<Hog> =
            (0..4).map(|_| hog().sleeping(200, 2000).start()).collect::<Result<_>>()?;
        thread::sleep(Duration::from_millis(2500));
        let intervals = intervals(&mut scheduler)?;
        drop((hogs, wakers));
        scheduler.check_alive()?;
        scheduler.finish()?;
        let row = &intervals.last().context("no interval")?["policy"];
        let sum = sums(&intervals)?;
        let times = |of: &str| {
            let figures = ["p50_us", "p99_us", "max_us"].map(|figure| &row[of][figure]);
            format!("{of} p50 {}, p99 {}, max {} us", figures[0], figures[1], figures[2])
        };
        vm.say(format!("{policy}: {}; {}", times("answer"), times("served")));
        let [offered, decided, gone] = [sum["offered"], sum["decided"], sum["gone"]];
        vm.say(format!("{decided} decided, {} taken, {gone} gone of {offered}", sum["taken"]));
        ensure!(decided * 20 > offered * 19, "{decided} of {offered} decided");
        let p50 = row["answer"]["p50_us"].as_f64().context("no answer")?;
        ensure!(p50 < 1000.0, "half of the answers take more than {p50} us");
    }
    Ok(())
}

/// What a decision costs in user space, in the guest's time, which is its instructions: 2 ns each.
fn policy_cost(vm: &mut Vm) -> Result<()> {
    const ROUNDS: u32 = 20_000;
    let make: [fn() -> Box<dyn Policy>; 2] =
        [|| Box::new(Vruntime::default()), || Box::new(Fifo::default())];
    for make in make {
        let mut costs = Vec::new();
        for tasks in [1, 100, 10_000] {
            let mut fake = Fake::with_cpus(4);
            let mut policy = make();
            let tasks: Vec<_> = (1..=tasks).map(|pid| fake.task(pid)).collect();
            for task in &tasks {
                fake.enqueue(&mut *policy, task);
            }
            fake.run_all();
            let begin = Instant::now();
            for (_, task) in (0..ROUNDS).zip(tasks.iter().cycle()) {
                fake.enqueue(&mut *policy, task);
                fake.run_all();
            }
            costs.push(begin.elapsed() / ROUNDS);
        }
        vm.say(format!("{}: {costs:?} with 1, 100, 10,000 tasks", make().name()));
        // 10,000 is 13 doublings: a tenth for each is far below linear, and above what caches of tables may cost.
        ensure!(costs[2] < costs[0].mul_f64(2.3), "{costs:?}");
    }
    Ok(())
}

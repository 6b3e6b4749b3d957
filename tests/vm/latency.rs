//! A waking task runs soon: on an idle CPU if there is one, before the hogs if there is none.

use crate::truth::{intervals, sums};
use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Hog, hog, set_affinity},
    qemu::Topology,
};
use nix::unistd::Pid;
use std::{
    fs, thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(4, "latency_beside_hogs", latency_beside_hogs).deterministic(),
    Case::new(5, "idle_cpus_are_used", idle_cpus_are_used).deterministic(),
    Case::new(5, "idle_cpus_are_used_2_sockets", idle_cpus_are_used)
        .deterministic()
        .on(Topology::TWO_SOCKETS),
    Case::new(5, "idle_cpus_are_used_2_nodes", idle_cpus_are_used)
        .deterministic()
        .on(Topology::TWO_NODES),
    Case::new(5, "idle_cpus_are_used_threads", idle_cpus_are_used)
        .deterministic()
        .on(Topology::THREADS),
    Case::new(5, "freed_tasks_run_at_once", freed_tasks_run_at_once)
        .deterministic()
        .on(Topology::TWO),
    Case::new(5, "stays_with_its_cache", stays_with_its_cache)
        .deterministic()
        .on(Topology::TWO_SOCKETS),
    Case::new(5, "cores_before_threads", cores_before_threads)
        .deterministic()
        .on(Topology::THREADS),
];

/// The wakeup latency that a hundredth of the wakeups exceeds, in µs, by cyclictest beside two hogs per CPU.
fn p99_us(vm: &Vm) -> Result<u64> {
    let _hogs: Vec<Hog> = (0..8).map(|_| hog().start()).collect::<Result<_>>()?;
    thread::sleep(Duration::from_secs(1));
    let line = "cyclictest --policy=other -t2 -i 1000 -l 1000 -q --default-system -h 100000";
    let end = vm.run(&line.split(' ').collect::<Vec<_>>(), Duration::from_secs(120))?;
    // "LATENCY COUNT-OF-THREAD COUNT-OF-THREAD", zero-padded; other lines begin with #.
    let mut counts = Vec::new();
    for line in end.stdout.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())) {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let latency_us = fields.next().context("an empty line")??;
        counts.push((latency_us, fields.sum::<Result<u64, _>>()?));
    }
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    ensure!(total >= 1500, "cyclictest measured {total} wakeups:\n{}", end.stderr);
    let mut seen = 0;
    for (latency_us, count) in counts {
        seen += count;
        if seen * 100 >= total * 99 {
            return Ok(latency_us);
        }
    }
    Ok(u64::MAX)
}

fn latency_beside_hogs(vm: &mut Vm) -> Result<()> {
    let default_us = p99_us(vm)?;
    let scheduler = vm.scheduler(&[])?;
    let ours_us = p99_us(vm)?;
    scheduler.finish()?;
    vm.say(format!("p99 beside 8 hogs on 4 CPUs: {default_us} µs by default, {ours_us} µs here"));
    ensure!(ours_us < default_us, "{ours_us} µs, the kernel's default has {default_us} µs");
    Ok(())
}

/// The time that a process has waited on run queues, and how often it was put on a CPU
/// (Documentation/scheduler/sched-stats.rst).
fn run_queue_wait(task: &Hog) -> Result<(Duration, u64)> {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", task.pid()))?;
    let fields: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    Ok((
        Duration::from_nanos(*fields.get(1).context("schedstat")?),
        *fields.get(2).context("schedstat")?,
    ))
}

/// Two hogs on four CPUs: a third task that sleeps and wakes finds an idle CPU each time.
fn idle_cpus_are_used(vm: &mut Vm) -> Result<()> {
    // On an idle CPU it waits for less than 0.1 µs; in a queue that an idle CPU is told to look at, for 10 µs;
    // behind a hog for a millisecond or more.
    const WAIT_MAX: Duration = Duration::from_micros(3);
    const WINDOW: Duration = Duration::from_secs(1);
    let scheduler = vm.scheduler(&[])?;
    let _hogs: Vec<Hog> = (0..2).map(|_| hog().start()).collect::<Result<_>>()?;
    let sleeper = hog().sleeping(200, 2000).start()?;
    thread::sleep(Duration::from_secs(1));
    let (before, runs_before) = run_queue_wait(&sleeper)?;
    thread::sleep(WINDOW);
    let (after, runs_after) = run_queue_wait(&sleeper)?;
    scheduler.finish()?;

    let runs = runs_after - runs_before;
    ensure!(runs > 300, "it ran {runs} times");
    let mean = (after - before) / u32::try_from(runs)?;
    vm.say(format!("mean run-queue wait of {runs} wakeups: {mean:.1?}"));
    ensure!(mean < WAIT_MAX, "it waits {mean:?} although CPUs are idle");
    Ok(())
}

/// A task that finds its CPU taken goes to the idle one of the same socket, although the other socket idles, too.
fn stays_with_its_cache(vm: &mut Vm) -> Result<()> {
    const ROUNDS: usize = 20;
    const PAUSE: Duration = Duration::from_millis(40);
    // It nearly always sleeps when the intruder comes: one that waits in a queue goes to whoever is idle.
    let plan = hog().sleeping(100, 4000);
    let scheduler = vm.scheduler(&[])?;
    let sleeper = plan.on(&[0, 1]).start()?;
    let intruder = hog().on(&[1]).start()?;
    let (mut moved, mut strayed) = (0, 0);
    for round in 0..ROUNDS {
        let (taken, free) = (round % 2, 1 - round % 2);
        set_affinity(sleeper.pid(), &[taken])?;
        thread::sleep(PAUSE);
        set_affinity(sleeper.pid(), &[0, 1, 2, 3])?;
        set_affinity(intruder.pid(), &[taken])?;
        thread::sleep(PAUSE);
        let cpu = sleeper.last_cpu()?;
        moved += usize::from(cpu == free);
        strayed += usize::from(cpu > 1);
    }
    scheduler.finish()?;
    vm.say(format!("{ROUNDS} times its CPU was taken: {moved} times it went next door, {strayed} to the other socket"));
    ensure!(moved >= ROUNDS * 7 / 10, "{moved} times next door, {strayed} to the other socket");
    Ok(())
}

/// A task behind a hog that may suddenly run elsewhere does so, and not at the next tick of 4 ms: an idle CPU is
/// told of whoever is queued.
fn freed_tasks_run_at_once(vm: &mut Vm) -> Result<()> {
    const ROUNDS: u32 = 25;
    const PAUSE: Duration = Duration::from_millis(20);
    const LOST_MAX: Duration = Duration::from_millis(1);
    let scheduler = vm.scheduler(&[])?;
    // By its weight the second one waits nearly always.
    let both = [hog().on(&[0]).start()?, hog().on(&[0]).nice(19).start()?];
    // This process sleeps beside them: where it went to sleep, the CPU would look at its queues anyway.
    let this = Pid::from_raw(0);
    set_affinity(this, &[0])?;
    let used = || Ok::<_, anyhow::Error>(both[0].cpu_time()? + both[1].cpu_time()?);
    let mut lost = Duration::ZERO;
    for _ in 0..ROUNDS {
        thread::sleep(PAUSE);
        let (begin, before) = (Instant::now(), used()?);
        set_affinity(both[1].pid(), &[0, 1])?;
        thread::sleep(PAUSE);
        // Two CPUs were theirs, but for what this process took.
        let theirs = 2 * begin.elapsed();
        // Stopped, too, because the time of one that runs is as of the last tick.
        set_affinity(both[1].pid(), &[0])?;
        lost += theirs.saturating_sub(used()? - before);
    }
    set_affinity(this, &[0, 1])?;
    scheduler.finish()?;
    let mean = lost / ROUNDS;
    vm.say(format!("CPU time lost when a task is freed: {mean:.1?}"));
    ensure!(mean < LOST_MAX, "{mean:?} lost when a task may go to an idle CPU");
    Ok(())
}

/// The threads of the core of CPU 0.
fn first_core() -> Result<Vec<usize>> {
    let siblings =
        fs::read_to_string("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")?;
    let siblings: Vec<usize> =
        siblings.trim().split([',', '-']).map(str::parse).collect::<Result<_, _>>()?;
    ensure!(siblings.len() == 2, "the guest's cores have {} threads", siblings.len());
    Ok(siblings)
}

/// In how many of the samples of two seconds the two were on different cores, in percent.
fn apart_percent(hogs: &[Hog], core: &[usize]) -> Result<f64> {
    let on_first = |hog: &Hog| -> Result<bool> { Ok(core.contains(&hog.last_cpu()?)) };
    let (mut apart, mut samples) = (0, 0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        samples += 1;
        apart += u32::from(on_first(&hogs[0])? != on_first(&hogs[1])?);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(100.0 * f64::from(apart) / f64::from(samples))
}

/// Two tasks on two cores of two threads keep to a core each. One that wakes goes where nobody is; those that never
/// wake are moved while they run.
fn cores_before_threads(vm: &mut Vm) -> Result<()> {
    let core = first_core()?;
    let mut scheduler = vm.scheduler(&["--json", "--interval", "0.5"])?;
    let sleepers: Vec<Hog> =
        (0..2).map(|_| hog().sleeping(60_000, 5000).start()).collect::<Result<_>>()?;
    thread::sleep(Duration::from_secs(1));
    let waking = apart_percent(&sleepers, &core)?;
    drop(sleepers);

    let hogs: Vec<Hog> = core.iter().map(|&cpu| hog().on(&[cpu]).start()).collect::<Result<_>>()?;
    for hog in &hogs {
        set_affinity(hog.pid(), &[0, 1, 2, 3])?;
    }
    thread::sleep(Duration::from_secs(1));
    let running = apart_percent(&hogs, &core)?;
    let spreads = sums(&intervals(&mut scheduler)?)?.get("spreads").copied().unwrap_or(0);
    scheduler.finish()?;
    vm.say(format!("on different cores: waking ones {waking:.0} %, running ones {running:.0} %"));
    vm.say(format!("moved while they ran: {spreads}"));
    ensure!(spreads > 0, "no running task was moved to the idle core");
    ensure!(waking >= 95.0, "waking tasks: {waking:.0} % of the samples");
    ensure!(running >= 95.0, "running tasks: {running:.0} % of the samples");
    Ok(())
}

//! The machine goes on, whatever happens to it.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{First, Hog, Policy, cpu_times_over, hog, set_affinity},
    qemu::Topology,
    vm::{Scheduler, wait_for},
};
use nix::sys::signal::Signal;
use std::{
    fs, thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(7, "no_stall", no_stall).limit_secs(600),
    Case::new(7, "big_tasks_exit", big_tasks_exit).core().on(Topology::THREADS),
    Case::new(8, "hotplug_under_load", hotplug_under_load).on(Topology::TWO_SOCKETS),
    Case::new(8, "hotplug_of_all_a_task_has", hotplug_of_all_a_task_has).core(),
    Case::new(8, "late_cpu_serves_all", late_cpu_serves_all),
    Case::new(7, "least_weights_go_on", least_weights_go_on),
];

/// Seven kinds of stress at once, 60 s, 217 workers on four CPUs.
fn no_stall(vm: &mut Vm) -> Result<()> {
    const SECONDS: &str = "60";
    const WORKERS: &str = "31";
    let mut scheduler = vm.scheduler(&[])?;
    let mut line = vec!["stress-ng", "--timeout", SECONDS, "--metrics-brief"];
    for kind in
        ["--cpu", "--fork", "--switch", "--affinity", "--schedpolicy", "--nanosleep", "--timer"]
    {
        line.extend([kind, WORKERS]);
    }
    let end = vm.run(&line, Duration::from_secs(400))?;
    scheduler.check_alive()?;
    vm.say(end.stdout + &end.stderr);
    scheduler.finish()?;
    Ok(())
}

/// A task that frees its memory runs for long after it is marked as exiting, which the kernel would put into its CPU's
/// own queue, idle or not, without asking. Beside a hog on its core it is to move to the idle one, and to end.
fn big_tasks_exit(vm: &mut Vm) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(3);
    // Small pages take longer to free. Not every kernel has large ones.
    fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "never").ok();
    let mut scheduler = vm.scheduler(&[])?;
    let _sibling = hog().on(&[0]).start()?;
    for _ in 0..2 {
        let big = vm.start(&[
            "busybox",
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=400M",
            "count=100000",
        ])?;
        set_affinity(big.pid(), &[1])?;
        thread::sleep(Duration::from_secs(4));
        set_affinity(big.pid(), &[0, 1, 2, 3])?;
        big.signal(Signal::SIGKILL)?;
        // Nothing may run meanwhile that would wake its CPU.
        thread::sleep(LIMIT);
        let begin = Instant::now();
        big.wait(Duration::from_secs(20))?;
        let late = begin.elapsed();
        ensure!(late < Duration::from_millis(500), "it ended {:?} after its kill", LIMIT + late);
    }
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// Takes a CPU offline, or back.
pub fn set_online(cpu: usize, online: &str) -> Result<()> {
    fs::write(format!("/sys/devices/system/cpu/cpu{cpu}/online"), online)
        .with_context(|| format!("setting CPU {cpu} online to {online}"))
}

fn hotplug_under_load(vm: &mut Vm) -> Result<()> {
    const ROUNDS: usize = 10;
    vm.expect_log(MISCOUNT_OF_6_12);
    let mut scheduler = vm.scheduler(&[])?;
    let _load = vm.start(&["stress-ng", "--cpu", "6", "--switch", "4", "--nanosleep", "2"])?;
    let pinned = hog().on(&[2]).start()?;
    for round in 0..ROUNDS {
        for cpu in 1..4 {
            for online in ["0", "1"] {
                set_online(cpu, online).with_context(|| format!("round {round}"))?;
                thread::sleep(Duration::from_millis(50));
                scheduler
                    .check_alive()
                    .with_context(|| format!("round {round}: CPU {cpu} to {online}"))?;
            }
        }
    }
    // All CPUs are used again.
    let hogs: Vec<_> = (0..4).map(|cpu| hog().on(&[cpu]).start()).collect::<Result<_>>()?;
    thread::sleep(Duration::from_secs(2));
    for hog in hogs.iter().chain([&pinned]) {
        ensure!(!hog.cpu_time()?.is_zero(), "a hog does not run");
    }
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// Waits until each of the tasks has run once more, and returns the longest wait.
fn all_go_on(tasks: &[Hog], limit: Duration) -> Result<Duration> {
    let before: Vec<Duration> = tasks.iter().map(Hog::cpu_time).collect::<Result<_>>()?;
    let mut longest = Duration::ZERO;
    for (task, before) in tasks.iter().zip(before) {
        let waited = wait_for(limit, || Ok(task.cpu_time()? > before));
        longest = longest.max(waited.with_context(|| format!("task {} stands", task.pid()))?);
    }
    Ok(longest)
}

/// 6.12 miscounts the bandwidth of its deadline servers when a CPU goes or a server is stopped. Nothing of ours runs there.
pub const MISCOUNT_OF_6_12: &str = "kernel/sched/deadline.c";

/// Tasks wait for the two CPUs that they may run on, or for one, and those go off one after the other. Kernel 6.12
/// waits then for whoever is left in a queue of such a CPU; 7.3 was seen to go on.
fn hotplug_of_all_a_task_has(vm: &mut Vm) -> Result<()> {
    const ROUNDS: usize = 2;
    // Less than the kernel's watchdog allows, or it would be this that ends the wait.
    const LIMIT: Duration = Duration::from_secs(15);
    vm.expect_log(MISCOUNT_OF_6_12);
    let mut scheduler = vm.scheduler(&[])?;
    let mut masks = vec![vec![2, 3]; 6];
    masks.extend([vec![2], vec![2], vec![3], vec![3]]);
    let plans = masks.iter().enumerate().map(|(number, mask)| match number % 3 {
        // Some wake while the CPU goes.
        2 => hog().on(mask).sleeping(300, 200),
        _ => hog().on(mask),
    });
    let tasks: Vec<Hog> = plans.map(|plan| plan.start()).collect::<Result<_>>()?;
    let mut longest = Duration::ZERO;
    let check = |scheduler: &mut Scheduler| {
        let waited = all_go_on(&tasks, LIMIT)?;
        scheduler.check_alive()?;
        Ok::<_, anyhow::Error>(waited)
    };
    for round in 0..ROUNDS {
        let order = if round % 2 == 0 { [2, 3] } else { [3, 2] };
        for (cpu, online) in [(order[0], "0"), (order[1], "0"), (order[0], "1"), (order[1], "1")] {
            let step = || format!("round {round}: CPU {cpu} to {online}");
            set_online(cpu, online).with_context(step)?;
            longest = longest.max(check(&mut scheduler).with_context(step)?);
        }
        // Without a CPU left they got all of them.
        for (task, mask) in tasks.iter().zip(&masks) {
            set_affinity(task.pid(), mask)?;
        }
        longest = longest.max(check(&mut scheduler).with_context(|| format!("round {round}"))?);
    }
    vm.say(format!("longest wait for a run: {longest:.1?}"));
    scheduler.finish()?;
    Ok(())
}

/// By weight alone, each of these three would wait for minutes beside the hogs: after at most five seconds
/// (`WAIT_MAX_NS` in rescue.h) it is their turn, whichever queue they wait in.
fn least_weights_go_on(vm: &mut Vm) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(12);
    let mut scheduler = vm.scheduler(&[])?;
    let _first = First::begin()?;
    let least = [
        hog().policy(Policy::Idle).start()?,
        hog().on(&[1]).policy(Policy::Idle).start()?,
        hog().nice(19).start()?,
    ];
    let _heavy: Vec<Hog> = (0..12).map(|_| hog().nice(-20).start()).collect::<Result<_>>()?;
    let longest = all_go_on(&least, LIMIT)?;
    vm.say(format!("longest wait for a run: {longest:.1?}"));
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// A CPU that was offline when the scheduler started serves tasks that were confined to it and others then.
fn late_cpu_serves_all(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    set_online(3, "0")?;
    let mut scheduler = vm.scheduler(&[])?;
    let hogs: Vec<Hog> = (0..3).map(|_| hog().on(&[1, 2, 3]).start()).collect::<Result<_>>()?;
    thread::sleep(Duration::from_millis(500));
    set_online(3, "1")?;
    thread::sleep(Duration::from_secs(2));
    let times = cpu_times_over(&hogs, WINDOW)?;
    vm.say(format!("three hogs on three CPUs, of which one came late: {times:.2?}"));
    // Two CPUs would be two thirds for each.
    ensure!(times.iter().all(|time| *time > WINDOW.mul_f64(0.85)), "a CPU is idle beside them");
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

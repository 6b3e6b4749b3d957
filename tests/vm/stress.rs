//! The machine goes on, whatever happens to it.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{hog, set_affinity},
    qemu::Topology,
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
    for _ in 0..3 {
        let big = vm.start(&[
            "busybox",
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=400M",
            "count=100000",
        ])?;
        set_affinity(big.pid(), &[1])?;
        thread::sleep(Duration::from_secs(5));
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

fn hotplug_under_load(vm: &mut Vm) -> Result<()> {
    const ROUNDS: usize = 10;
    let mut scheduler = vm.scheduler(&[])?;
    let _load = vm.start(&["stress-ng", "--cpu", "6", "--switch", "4", "--nanosleep", "2"])?;
    let pinned = hog().on(&[2]).start()?;
    for round in 0..ROUNDS {
        for cpu in 1..4 {
            for online in ["0", "1"] {
                fs::write(format!("/sys/devices/system/cpu/cpu{cpu}/online"), online)
                    .with_context(|| format!("round {round}: CPU {cpu} to {online}"))?;
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

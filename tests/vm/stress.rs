//! The machine goes on, whatever happens to it.

use anyhow::{Context, Result, ensure};
use lab::{Case, Vm, process::hog, qemu::Topology};
use std::{fs, thread, time::Duration};

pub const CASES: &[Case] = &[
    Case::new(7, "no_stall", no_stall).limit_secs(600),
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

fn hotplug_under_load(vm: &mut Vm) -> Result<()> {
    const ROUNDS: usize = 10;
    let mut scheduler = vm.scheduler(&[])?;
    let _load = vm.start(&["stress-ng", "--cpu", "6", "--switch", "4", "--nanosleep", "2"])?;
    let pinned = hog().on(&[2]).start()?;
    for round in 0..ROUNDS {
        eprintln!("hotplug: round {round}");
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

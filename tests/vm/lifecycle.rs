//! Start, stop, die: nothing stays behind.

use anyhow::{Result, ensure};
use lab::{Case, Vm, process::hog, vm::sched_ext};
use nix::sys::signal::Signal;
use std::{
    thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(1, "starts_and_stops", starts_and_stops).core(),
    Case::new(1, "starts_fast", starts_fast).core().deterministic(),
    Case::new(1, "twenty_rounds_leave_nothing", twenty_rounds_leave_nothing).core().limit_secs(600),
    Case::new(9, "kill_nine", kill_nine),
];

/// A task that runs again after this long was not lost when its scheduler went away.
const SHORT: Duration = Duration::from_millis(500);

fn starts_and_stops(vm: &mut Vm) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let scheduler = vm.scheduler(&[])?;
        let ops = sched_ext("root/ops")?;
        ensure!(ops.starts_with("scheduler"), "root/ops is {ops}");
        let begin = Instant::now();
        let end = scheduler.stop(signal)?;
        let took = begin.elapsed();
        vm.say(format!("{signal}: ended in {took:.2?}"));
        ensure!(end.code == 0, "{signal}: code {}\n{}", end.code, end.stderr);
        ensure!(vm.state()? == "disabled", "{signal}: {}", vm.state()?);
        ensure!(took < Duration::from_secs(1), "{signal}: ended in {took:?}");
    }
    Ok(())
}

/// In the deterministic guest, because here a time is judged.
fn starts_fast(vm: &mut Vm) -> Result<()> {
    let scheduler = vm.scheduler(&[])?;
    let took = scheduler.started_in;
    scheduler.finish()?;
    vm.say(format!("enabled {took:.2?} after the start of the process"));
    ensure!(took < Duration::from_secs(2), "took {took:?}");
    Ok(())
}

/// What is left, the suite looks for after each case.
fn twenty_rounds_leave_nothing(vm: &mut Vm) -> Result<()> {
    const ROUNDS: usize = 20;
    let _load = vm.start(&["stress-ng", "--cpu", "2", "--switch", "1", "--fork", "1"])?;
    for round in 0..ROUNDS {
        let signal = if round % 2 == 0 { Signal::SIGINT } else { Signal::SIGTERM };
        let end = vm.scheduler(&[])?.stop(signal)?;
        ensure!(end.code == 0, "round {round}: {}\n{}", end.code, end.stderr);
        ensure!(vm.state()? == "disabled", "round {round}: {}", vm.state()?);
    }
    Ok(())
}

fn kill_nine(vm: &mut Vm) -> Result<()> {
    let hogs: Vec<_> = (0..4).map(|_| hog().start()).collect::<Result<_>>()?;
    let end = vm.scheduler(&[])?.stop(Signal::SIGKILL)?;
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

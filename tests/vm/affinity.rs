//! Tasks run only where they may, and nobody is forgotten on a CPU.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Hog, Policy, cpu_times_over, hog, set_affinity},
    qemu::Topology,
    vm::wait_for,
};
use std::{
    thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(6, "affinity_storm", affinity_storm).core(),
    Case::new(6, "pinned_tasks_run", pinned_tasks_run).core(),
    Case::new(6, "fifo_hog_ejects_nothing", fifo_hog_ejects_nothing).core(),
    Case::new(6, "tasks_flee_a_fifo_hog", tasks_flee_a_fifo_hog)
        .core()
        .deterministic()
        .on(Topology::TWO),
];

const CPUS: usize = 4;

/// A fixed sequence (xorshift64), so that each run asks for the same masks.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize
    }

    /// One CPU or several.
    fn cpus(&mut self) -> Vec<usize> {
        let mask = 1 + self.roll() % ((1 << CPUS) - 1);
        (0..CPUS).filter(|cpu| mask >> cpu & 1 == 1).collect()
    }
}

fn affinity_storm(vm: &mut Vm) -> Result<()> {
    const HOGS: usize = 8;
    const ROUNDS: usize = 40;
    let mut scheduler = vm.scheduler(&[])?;
    let hogs: Vec<Hog> = (0..HOGS).map(|_| hog().start()).collect::<Result<_>>()?;
    // Short sleeps, so that masks change also while a task is asleep or waking.
    let sleepers: Vec<Hog> =
        (0..HOGS).map(|_| hog().sleeping(200, 300).start()).collect::<Result<_>>()?;
    let mut dice = Dice(0x5eed);
    let mut longest = Duration::ZERO;
    for round in 0..ROUNDS {
        let mut asked = Vec::new();
        for task in hogs.iter().chain(&sleepers) {
            let cpus = dice.cpus();
            set_affinity(task.pid(), &cpus)?;
            asked.push((task, cpus, task.cpu_time()?));
        }
        for (task, cpus, before) in asked {
            // Its CPU counts once it has run under the new mask.
            let waited = wait_for(Duration::from_secs(4), || Ok(task.cpu_time()? > before));
            longest =
                longest.max(waited.with_context(|| format!("round {round}: no run on {cpus:?}"))?);
            let cpu = task.last_cpu()?;
            ensure!(cpus.contains(&cpu), "round {round}: runs on CPU {cpu}, may run on {cpus:?}");
        }
    }
    vm.say(format!("longest wait for a run: {longest:.1?}"));
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

/// Ten hogs on four CPUs are due 40 % of a CPU each; two that may run on one CPU only get at least half of it.
fn pinned_tasks_run(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(6);
    let scheduler = vm.scheduler(&[])?;
    let mut hogs: Vec<Hog> = (0..2).map(|_| hog().on(&[1]).start()).collect::<Result<_>>()?;
    for _ in 0..8 {
        hogs.push(hog().start()?);
    }
    thread::sleep(Duration::from_secs(1));
    let times = cpu_times_over(&hogs, WINDOW)?;
    vm.say(format!("{times:.2?}"));
    for time in &times[..2] {
        ensure!(*time > WINDOW.mul_f64(0.2), "a pinned hog got {time:?} of {WINDOW:?}");
    }
    scheduler.finish()?;
    Ok(())
}

/// Longer than the kernel's watchdog allows a runnable task to wait.
fn fifo_hog_ejects_nothing(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(22);
    let mut scheduler = vm.scheduler(&[])?;
    let movable: Vec<Hog> = (0..6).map(|_| hog().start()).collect::<Result<_>>()?;
    let _fifo = hog().on(&[1]).policy(Policy::Fifo).start()?;
    let times = cpu_times_over(&movable, WINDOW)?;
    vm.say(format!("{times:.2?}"));
    scheduler.check_alive()?;
    for time in times {
        // Six on three CPUs: half a CPU each is due.
        ensure!(time > WINDOW.mul_f64(0.25), "a movable task got {time:?} of {WINDOW:?}");
    }
    scheduler.finish()?;
    Ok(())
}

/// With idle CPUs around, a task under a FIFO hog goes on elsewhere within a tick of 4 ms.
fn tasks_flee_a_fifo_hog(vm: &mut Vm) -> Result<()> {
    const TICK: Duration = Duration::from_millis(4);
    const ROUNDS: usize = 5;
    let mut scheduler = vm.scheduler(&[])?;
    let movable = hog().start()?;
    for _ in 0..ROUNDS {
        thread::sleep(Duration::from_millis(100));
        let cpu = movable.last_cpu()?;
        let _fifo = hog().on(&[cpu]).policy(Policy::Fifo).start()?;
        let (begin, before) = (Instant::now(), movable.cpu_time()?);
        wait_for(Duration::from_secs(4), || {
            Ok(movable.last_cpu()? != cpu && movable.cpu_time()? > before)
        })
        .context("the task stays under the FIFO hog")?;
        let took = begin.elapsed();
        vm.say(format!("left CPU {cpu} in at most {took:.2?}"));
        // The poll of 5 ms is part of the figure.
        ensure!(took < TICK + Duration::from_millis(6), "took {took:?}");
    }
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

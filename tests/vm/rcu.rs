//! Tasks that are preempted while they read under RCU: the machine waits for them, and they get nothing for it.

use crate::stress::{MISCOUNT_OF_6_12, set_online};
use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{hog, set_affinity},
    qemu::Topology,
};
use nix::{errno::Errno, libc, unistd::Pid};
use std::{
    io::{self, Read},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(3, "rcu_readers_gain_nothing", rcu_readers_gain_nothing)
        .deterministic()
        .on(Topology::TWO),
    Case::new(7, "grace_periods_end", grace_periods_end).deterministic().on(Topology::TWO),
    Case::new(8, "hotplug_beside_readers", hotplug_beside_readers).core().on(Topology::TWO),
];

/// While `body` runs on CPU 0, so many threads of a nice level do nothing on CPU 1 but a system call that walks all of
/// a thousand threads under RCU.
fn beside_readers<T>(readers: usize, nice: i32, body: impl FnOnce() -> Result<T>) -> Result<T> {
    const SLEEPERS: usize = 1000;
    set_affinity(Pid::from_raw(0), &[0])?;
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let (pipe, writer) = io::pipe()?;
    let pipe = &pipe;
    let result = thread::scope(|scope| -> Result<T> {
        for _ in 0..SLEEPERS {
            let sleep = || {
                // Ends when the other end is closed.
                (&mut &*pipe).read_exact(&mut [0]).ok();
            };
            thread::Builder::new().stack_size(16 << 10).spawn_scoped(scope, sleep)?;
        }
        for _ in 0..readers {
            scope.spawn(|| {
                // A thread's own: 0 is the calling one.
                set_affinity(Pid::from_raw(0), &[1]).ok();
                // SAFETY: takes three integers and returns one.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
                while !stop.load(Ordering::Relaxed) {
                    // SAFETY: takes two integers and returns one.
                    unsafe { libc::getpriority(libc::PRIO_USER, 0) };
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let result = body();
        stop.store(true, Ordering::Relaxed);
        drop(writer);
        result
    })?;
    ensure!(calls.into_inner() > 0, "the readers have not read");
    set_affinity(Pid::from_raw(0), &[0, 1])?;
    Ok(result)
}

/// Whoever is preempted while it reads goes first, once, and takes no share of others by it; nor do light ones, who are
/// served out of turn where they have waited for long.
fn rcu_readers_gain_nothing(vm: &mut Vm) -> Result<()> {
    // How many, their nice value, and its weight.
    const READERS: [(usize, i32, f64); 2] = [(3, 0, 1024.0), (16, 19, 15.0)];
    const WINDOW: Duration = Duration::from_secs(3);
    let scheduler = vm.scheduler(&[])?;
    for (readers, nice, weight) in READERS {
        let time = beside_readers(readers, nice, || {
            let hog = hog().on(&[1]).start()?;
            thread::sleep(Duration::from_secs(1));
            let before = hog.cpu_time()?;
            thread::sleep(WINDOW);
            Ok(hog.cpu_time()? - before)
        })?;
        let due = 1024.0 / (1024.0 + weight * readers as f64);
        let share = time.as_secs_f64() / WINDOW.as_secs_f64() / due;
        vm.say(format!("a hog beside {readers} readers of nice {nice}: {share:.3} of its due"));
        ensure!((0.95..1.05).contains(&share), "{share:.3} of its due");
    }
    scheduler.finish()?;
    Ok(())
}

/// A grace period: the time until all who read now have done so.
fn grace_period() -> Result<Duration> {
    /// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h.
    const GLOBAL: libc::c_int = 1;
    let begin = Instant::now();
    // SAFETY: takes three integers and returns one.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    Errno::result(result).context("asking for a memory barrier on all CPUs")?;
    Ok(begin.elapsed())
}

/// Readers whose weight gives them a turn in eight seconds hold up nobody for long.
fn grace_periods_end(vm: &mut Vm) -> Result<()> {
    const READERS: usize = 3;
    const HOGS: usize = 30;
    const PERIODS: usize = 10;
    let scheduler = vm.scheduler(&[])?;
    let periods = beside_readers(READERS, 19, || {
        let _hogs = (0..HOGS).map(|_| hog().on(&[1]).start()).collect::<Result<Vec<_>>>()?;
        // Until they have had what they were owed.
        thread::sleep(Duration::from_secs(1));
        (0..PERIODS).map(|_| grace_period()).collect::<Result<Vec<_>>>()
    })?;
    scheduler.finish()?;
    vm.say(format!("grace periods: {periods:.1?}"));
    let longest = periods.iter().max().context("none")?;
    ensure!(*longest < Duration::from_secs(1), "a grace period took {longest:?}");
    Ok(())
}

/// A CPU that goes waits for all who read under RCU before it tells the scheduler, and the kernel asks nothing for it
/// from then on: who reads and waits for that CPU, and no other, is to run there once more.
fn hotplug_beside_readers(vm: &mut Vm) -> Result<()> {
    const ROUNDS: usize = 5;
    const READERS: usize = 3;
    vm.expect_log(MISCOUNT_OF_6_12);
    let mut scheduler = vm.scheduler(&[])?;
    let mut longest = Duration::ZERO;
    for round in 0..ROUNDS {
        let took = beside_readers(READERS, 0, || {
            thread::sleep(Duration::from_millis(300));
            let begin = Instant::now();
            set_online(1, "0")?;
            Ok(begin.elapsed())
        });
        let took = took.with_context(|| format!("round {round}"))?;
        longest = longest.max(took);
        scheduler.check_alive().with_context(|| format!("round {round}"))?;
        set_online(1, "1")?;
    }
    vm.say(format!("longest way out of a CPU: {longest:.1?}"));
    ensure!(longest < Duration::from_secs(5), "a CPU took {longest:?} to go");
    scheduler.finish()?;
    Ok(())
}

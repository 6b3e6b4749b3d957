//! The lab's own probes, for what no packaged tool measures. In a guest they are called `probe`.
//!
//! They print `name value` lines, and histograms as cyclictest does, below a line `# histogram NAME`.
//!
//! Work is CPU time of the thread, not a number of loops: in a deterministic guest the CPUs share one stream of
//! instructions, so that loops run slower where more CPUs are busy, while every CPU has its full time.

mod fair;
mod frames;
mod overcommit;
mod requests;
mod switches;

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::{
    errno::Errno,
    libc,
    time::{ClockId, clock_gettime},
};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

/// Probes of the lab.
#[derive(Parser)]
#[command(name = "probe")]
enum Probe {
    /// Periodic tasks with deadlines
    Frames(frames::Frames),
    /// A server with a queue of requests
    Requests(requests::Requests),
    /// Shares of CPU time against those that are due
    Fair(fair::Fair),
    /// Far more tasks than CPUs
    Overcommit(overcommit::Overcommit),
    /// Ping-pong between two CPUs
    Pipe(switches::Pipe),
    /// Two tasks of one CPU that yield to each other
    Yield(switches::Yield),
    /// What wakes an idle machine
    Idle(switches::Idle),
}

/// Runs the probe that the command line names.
pub fn main() -> Result<()> {
    match Probe::parse() {
        Probe::Frames(probe) => probe.run(),
        Probe::Requests(probe) => probe.run(),
        Probe::Fair(probe) => probe.run(),
        Probe::Overcommit(probe) => probe.run(),
        Probe::Pipe(probe) => probe.run(),
        Probe::Yield(probe) => probe.run(),
        Probe::Idle(probe) => probe.run(),
    }
}

/// The CPU time of this thread.
fn thread_time() -> Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("reading the CPU time")?;
    Ok(now.into())
}

/// Computes for this much CPU time.
fn work(time: Duration) -> Result<()> {
    /// A few µs: reading the clock is a system call.
    const LOOPS: u32 = 500;
    let end = thread_time()? + time;
    while thread_time()? < end {
        for number in 0..LOOPS {
            std::hint::black_box(number);
        }
    }
    Ok(())
}

/// Sleeps until an instant, if it is not over, as exactly as the kernel can.
fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Makes timers of this thread exact, instead of up to 50 µs late.
fn exact_timers() -> Result<()> {
    const NANOSECOND: libc::c_ulong = 1;
    // SAFETY: plain numbers go in.
    let done = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, NANOSECOND) };
    Errno::result(done).context("making timers exact")?;
    Ok(())
}

/// Gives this thread a nice level.
fn set_nice(nice: i32) -> Result<()> {
    // SAFETY: plain numbers go in. Linux takes 0 as the calling thread.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    Errno::result(done).with_context(|| format!("setting nice {nice}"))?;
    Ok(())
}

/// The number of CPUs that this process may use.
fn cpus() -> Result<usize> {
    Ok(thread::available_parallelism().context("counting CPUs")?.get())
}

/// Times, counted in whole microseconds.
#[derive(Clone, Debug, Default)]
struct Times(BTreeMap<u128, u64>);

impl Times {
    fn add(&mut self, time: Duration) {
        *self.0.entry(time.as_micros()).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (micros, count) in &other.0 {
            *self.0.entry(*micros).or_default() += count;
        }
    }

    fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The time that this part of all, in per cent, does not exceed.
    fn percentile(&self, percentile: u64) -> u128 {
        let mut seen = 0;
        for (micros, count) in &self.0 {
            seen += count;
            if seen * 100 >= self.count() * percentile {
                return *micros;
            }
        }
        0
    }

    fn print(&self, name: &str) {
        println!("# histogram {name}");
        for (micros, count) in &self.0 {
            println!("{micros} {count}");
        }
        println!("# end of {name}");
    }
}

/// Waits for threads that return results.
fn join<T>(handles: Vec<thread::JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    let join = |handle: thread::JoinHandle<Result<T>>| match handle.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread of the probe panicked"),
    };
    handles.into_iter().map(join).collect()
}

/// Numbers between 0 and 1 that are the same each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        // Knuth's linear congruential generator; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_times() {
        let mut times = Times::default();
        for micros in 1..=200 {
            times.add(Duration::from_micros(micros));
        }
        assert_eq!((times.percentile(50), times.percentile(99)), (100, 198));
        times.merge(&times.clone());
        assert_eq!((times.count(), times.percentile(100)), (400, 200));
    }

    #[test]
    fn chance_is_even_and_repeats() {
        let mut chance = Chance(1);
        let mean = (0..10_000).map(|_| chance.next()).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
        assert_eq!(Chance(7).next(), Chance(7).next());
    }

    #[test]
    fn work_takes_its_cpu_time() {
        let before = thread_time().expect("a clock");
        work(Duration::from_millis(5)).expect("work");
        assert!(thread_time().expect("a clock") - before >= Duration::from_millis(5));
    }
}

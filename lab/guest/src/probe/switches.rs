//! What one switch costs, and what wakes an idle machine.

use super::join;
use crate::{bench::timer_interrupts, process::set_affinity};
use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::unistd::Pid;
use std::{
    fs,
    io::{Read, Write, pipe},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

/// Arguments of `probe pipe`.
#[derive(Args)]
pub struct Pipe {
    /// The CPUs of the two ends
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    cpus: Vec<usize>,
    /// Round trips
    #[arg(long, default_value_t = 5000)]
    loops: u32,
}

impl Pipe {
    /// Sends a byte to and fro.
    pub fn run(self) -> Result<()> {
        let [here, there] = self.cpus[..] else { anyhow::bail!("--cpus needs two CPUs") };
        let (mut from_there, mut to_here) = pipe().context("making a pipe")?;
        let (mut from_here, mut to_there) = pipe().context("making a pipe")?;
        let loops = self.loops;
        let echo = thread::spawn(move || -> Result<()> {
            set_affinity(Pid::from_raw(0), &[there])?;
            let mut byte = [0];
            for _ in 0..loops {
                from_here.read_exact(&mut byte).context("reading from the pipe")?;
                to_here.write_all(&byte).context("writing into the pipe")?;
            }
            Ok(())
        });
        set_affinity(Pid::from_raw(0), &[here])?;
        let begin = Instant::now();
        let mut byte = [0];
        for _ in 0..loops {
            to_there.write_all(&byte).context("writing into the pipe")?;
            from_there.read_exact(&mut byte).context("reading from the pipe")?;
        }
        let took = begin.elapsed();
        join(vec![echo])?;
        println!("us_per_op {:.3}", took.as_secs_f64() * 1e6 / f64::from(loops));
        Ok(())
    }
}

/// Arguments of `probe yield`.
#[derive(Args)]
pub struct Yield {
    /// Yields of each task
    #[arg(long, default_value_t = 20000)]
    loops: u32,
}

impl Yield {
    /// Two threads on CPU 0 give way to each other.
    pub fn run(self) -> Result<()> {
        const TASKS: u32 = 2;
        let start = Arc::new(Barrier::new(TASKS as usize));
        let switches = switches()?;
        let begin = Instant::now();
        let threads = (0..TASKS).map(|_| {
            let start = start.clone();
            thread::spawn(move || -> Result<()> {
                set_affinity(Pid::from_raw(0), &[0])?;
                start.wait();
                for _ in 0..self.loops {
                    thread::yield_now();
                }
                Ok(())
            })
        });
        join(threads.collect())?;
        let took = begin.elapsed();
        let switched = self::switches()? - switches;
        ensure!(switched > 0, "nothing was switched");
        println!("ns_per_yield {:.1}", took.as_secs_f64() * 1e9 / f64::from(TASKS * self.loops));
        println!("switches_per_yield {:.3}", switched as f64 / f64::from(TASKS * self.loops));
        Ok(())
    }
}

/// Context switches of the machine since it booted.
fn switches() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let count = text.lines().find_map(|line| line.strip_prefix("ctxt "));
    count.and_then(|count| count.trim().parse().ok()).context("/proc/stat has no ctxt line")
}

/// Arguments of `probe idle`.
#[derive(Args)]
pub struct Idle {
    /// How long to watch
    #[arg(long)]
    seconds: f64,
}

impl Idle {
    /// Sleeps, and counts what happened meanwhile.
    pub fn run(self) -> Result<()> {
        let (timers, switched) = (timer_interrupts()?, switches()?);
        thread::sleep(Duration::from_secs_f64(self.seconds));
        let timers = timer_interrupts()? - timers;
        let switched = switches()? - switched;
        println!("timer_interrupts_per_s {:.2}", timers as f64 / self.seconds);
        println!("switches_per_s {:.2}", switched as f64 / self.seconds);
        Ok(())
    }
}

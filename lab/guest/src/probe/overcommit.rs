//! Far more hogs than CPUs: how long one of them goes unrun, and how long a command in a shell takes.

use super::{Times, cpus, exact_timers, join, sleep_until};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::{
    process::Command,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

/// Arguments of `probe overcommit`.
#[derive(Args)]
pub struct Overcommit {
    /// Hogs for each CPU
    #[arg(long, default_value_t = 50)]
    tasks_per_cpu: usize,
    /// How often a command is run
    #[arg(long, default_value_t = 50)]
    command_every_ms: u64,
    /// How long to run
    #[arg(long)]
    seconds: f64,
}

/// Computes until `end` and returns the longest time between two looks at the clock.
fn hog(end: Instant) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while last < end {
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
    }
    longest
}

impl Overcommit {
    /// Runs hogs and commands.
    pub fn run(self) -> Result<()> {
        const SETTLE: Duration = Duration::from_millis(500);
        let hogs = cpus()? * self.tasks_per_cpu;
        let window = Duration::from_secs_f64(self.seconds);
        // They start together: the first ones would leave nothing to start the last ones with.
        let start = Arc::new(Barrier::new(hogs + 1));
        let hogs = (0..hogs).map(|_| {
            let start = start.clone();
            thread::spawn(move || {
                start.wait();
                Ok(hog(Instant::now() + SETTLE + window))
            })
        });
        let hogs: Vec<_> = hogs.collect();
        exact_timers()?;
        start.wait();
        let begin = Instant::now() + SETTLE;
        let mut commands = Times::default();
        for number in 0.. {
            let at = begin + Duration::from_millis(self.command_every_ms) * number;
            if at >= begin + window {
                break;
            }
            sleep_until(at);
            let status = Command::new("/bin/true").status().context("running /bin/true")?;
            ensure!(status.success(), "/bin/true ended with {status}");
            // Counted from when it should have begun.
            commands.add(at.elapsed());
        }
        let longest = join(hogs)?.into_iter().max().unwrap_or_default();
        println!("longest_unrun_ms {:.3}", longest.as_secs_f64() * 1000.0);
        commands.print("command");
        Ok(())
    }
}

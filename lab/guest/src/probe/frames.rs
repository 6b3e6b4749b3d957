//! Periodic tasks, as a video player's or a sound server's: work of a known CPU time, due before the next
//! period begins.

use super::{Times, exact_timers, join, sleep_until, work};
use anyhow::{Context, Result};
use clap::Args;
use std::{
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

/// Arguments of `probe frames`.
#[derive(Args)]
pub struct Frames {
    /// A task: its name, period and work in µs
    #[arg(long = "stream", value_name = "NAME:PERIOD:WORK", required = true)]
    streams: Vec<Stream>,
    /// How long to run
    #[arg(long)]
    seconds: f64,
}

#[derive(Clone, Debug)]
struct Stream {
    name: String,
    period: Duration,
    work: Duration,
}

impl FromStr for Stream {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut fields = text.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let mut micros = || -> Result<Duration> {
            let field = fields.next().context("a stream is NAME:PERIOD:WORK")?;
            Ok(Duration::from_micros(field.parse()?))
        };
        Ok(Self { name, period: micros()?, work: micros()? })
    }
}

#[derive(Default)]
struct Report {
    /// From the beginning of a period to the end of its work.
    response: Times,
    missed: u64,
}

impl Stream {
    fn play(&self, begin: Instant, frames: u32) -> Result<Report> {
        exact_timers()?;
        let mut report = Report::default();
        for frame in 0..frames {
            let release = begin + self.period * frame;
            sleep_until(release);
            // A frame whose period is over is skipped, as a player does.
            if release.elapsed() < self.period {
                work(self.work)?;
            }
            let response = release.elapsed();
            report.response.add(response);
            report.missed += u64::from(response > self.period);
        }
        Ok(report)
    }
}

impl Frames {
    /// Runs all streams at once.
    pub fn run(self) -> Result<()> {
        const START: Duration = Duration::from_millis(20);
        let begin = Instant::now() + START;
        let players = self.streams.iter().cloned().map(|stream| {
            let frames = (self.seconds / stream.period.as_secs_f64()) as u32;
            thread::spawn(move || stream.play(begin, frames))
        });
        let reports = join(players.collect())?;
        for (stream, report) in self.streams.iter().zip(reports) {
            let percent = 100.0 * report.missed as f64 / report.response.count().max(1) as f64;
            let slack = stream.period.as_micros() as f64 - report.response.percentile(99) as f64;
            println!("{}_missed_percent {percent:.3}", stream.name);
            println!("{}_slack_p99_us {slack}", stream.name);
            report.response.print(&stream.name);
        }
        Ok(())
    }
}

//! `scheduler compare`: the same command under the kernel's default scheduler and under this one, by turns.
//!
//! What is measured does not depend on who schedules: clocks, the kernel's resource usage, and an observer on the
//! kernel's tracepoints (`observer`).

mod command;
mod observer;
mod report;
mod verdict;

pub use report::Results;

use crate::{
    exit::{Exit, Failure},
    machine::{preflight::Host, scheduler::Scheduler, stop::Stop},
    settings::{Settings, Tuning},
    stats::text::printable_lines,
};
use anyhow::{Context, ensure};
use command::Run;
use indicatif::{ProgressBar, ProgressStyle};
use observer::{Observer, Waits};
use regex::Regex;
use std::{ffi::OsString, mem::MaybeUninit};

/// What to compare.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Runs of the command under each scheduler; 2 or more.
    pub runs: usize,
    /// Runs under the kernel's default before those, which do not count.
    pub warmup: usize,
    /// A figure that the command prints.
    pub metric: Option<Metric>,
    /// Whether the result is wanted as JSON.
    pub json: bool,
    /// How our scheduler decides.
    pub tuning: Tuning,
    /// Program and arguments; not empty.
    pub command: Vec<OsString>,
}

/// A figure in the output of a command.
#[derive(Debug, Clone)]
pub struct Metric(Regex);

impl Metric {
    /// Takes a regular expression.
    ///
    /// # Errors
    /// When it is none: in one line what is wrong with it.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let error = |error: regex::Error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or(&text).trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        };
        if pattern.is_empty() {
            return Err("an empty pattern matches no number".to_owned());
        }
        Regex::new(pattern).map(Self).map_err(error)
    }

    /// The number in the first group of the last match, or in the whole match without a group.
    fn find(&self, output: &str) -> Option<f64> {
        let last = self.0.captures_iter(output).last()?;
        let number = last.get(1).or_else(|| last.get(0))?;
        number.as_str().trim().parse().ok().filter(|n: &f64| n.is_finite())
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Who schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Default,
    Ours,
}

impl Arm {
    fn name(self) -> &'static str {
        match self {
            Arm::Default => "the kernel's default",
            Arm::Ours => "this scheduler",
        }
    }
}

/// What one run gave.
struct Measured {
    arm: Arm,
    run: Run,
    of_command: Waits,
    of_others: Waits,
    metric: Option<f64>,
}

/// `runs` of each: ABBA, over and over.
fn order(runs: usize) -> Vec<Arm> {
    [Arm::Default, Arm::Ours, Arm::Ours, Arm::Default].into_iter().cycle().take(2 * runs).collect()
}

/// Runs the command as planned. However this ends, our scheduler is not attached afterwards.
///
/// # Errors
/// When the command fails, with the end of its output; when the scheduler cannot be loaded or is
/// ejected; when the user stopped it.
pub fn run(plan: &Plan, host: &Host, stop: &Stop) -> Result<Results, Failure> {
    let mut storage = MaybeUninit::uninit();
    let observer = Observer::attach(host, &mut storage)?;
    let progress = progress(plan);
    let mut session = Session { plan, stop, observer, progress, measured: Vec::new() };

    for _ in 0..plan.warmup {
        session.run_once(Arm::Default, &mut || Ok(()))?;
    }
    // Two runs of ours in a row need one load.
    for block in order(plan.runs).chunk_by(|a, b| a == b) {
        session.run_block(block, host)?;
    }
    session.progress.finish_and_clear();
    Ok(Results::of(plan, &session.measured))
}

struct Session<'a> {
    plan: &'a Plan,
    stop: &'a Stop,
    observer: Observer<'a>,
    progress: ProgressBar,
    measured: Vec<Measured>,
}

impl Session<'_> {
    /// Runs under the same scheduler.
    fn run_block(&mut self, block: &[Arm], host: &Host) -> Result<(), Failure> {
        let Some(Arm::Ours) = block.first() else {
            return self.run_all(block, &mut || Ok(()));
        };
        self.progress.set_message("loading the scheduler");
        let mut storage = MaybeUninit::uninit();
        let settings = Settings { tuning: self.plan.tuning, ..Settings::default() };
        let mut scheduler = Scheduler::load(&settings, host, &mut storage)?;
        scheduler.attach()?;
        let result = self.run_all(block, &mut || {
            ensure!(!scheduler.is_ejected(), "the kernel ejected the scheduler");
            scheduler.follow_hotplug()
        });
        let report = scheduler.detach();
        if !report.is_by_us() {
            return Err(Failure::new(Exit::Failed, report.to_string()));
        }
        result
    }

    fn run_all(
        &mut self,
        block: &[Arm],
        tend: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> Result<(), Failure> {
        for &arm in block {
            let measured = self.run_once(arm, tend)?;
            self.measured.push(measured);
        }
        Ok(())
    }

    fn run_once(
        &self,
        arm: Arm,
        tend: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> Result<Measured, Failure> {
        self.progress.set_message(format!("under {}", arm.name()));
        let before = self.observer.read()?;
        let run = command::run(&self.plan.command, self.stop, tend)?;
        let Some(run) = run else {
            let runs = self.measured.len();
            let message = format!("stopped after {runs} runs: too early to compare");
            return Err(Failure::new(Exit::Failed, message));
        };
        tend()?;
        let after = self.observer.read()?;
        if !run.status.success() {
            return Err(self.failure(arm, &format!("ended with {}", run.status), &run));
        }
        let metric = match &self.plan.metric {
            None => None,
            Some(metric) => Some(metric.find(&run.output).ok_or_else(|| {
                let what = format!("printed no number that --metric '{}' matches", metric.0);
                self.failure(arm, &what, &run)
            })?),
        };
        self.progress.inc(1);
        Ok(Measured {
            arm,
            run,
            of_command: after.of_command.since(&before.of_command),
            of_others: after.of_others.since(&before.of_others),
            metric,
        })
    }

    /// What the command did wrong, with the end of what it printed.
    fn failure(&self, arm: Arm, what: &str, run: &Run) -> Failure {
        const LINES: usize = 20;
        let name = self.plan.command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let lines = printable_lines(run.output.trim_end().as_bytes());
        let mut message = format!("under {}, `{name}` {what}", arm.name());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            message += &format!("\n  {line}");
        }
        Failure::new(Exit::Failed, message)
    }
}

/// Drawn on standard error if that is a terminal.
fn progress(plan: &Plan) -> ProgressBar {
    let bar = ProgressBar::new((plan.warmup + 2 * plan.runs) as u64);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} runs {bar:30} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_secs(1));
    bar
}

/// What the observer has counted, of both kinds of tasks.
struct Seen {
    of_command: Waits,
    of_others: Waits,
}

impl Observer<'_> {
    fn read(&self) -> Result<Seen, Failure> {
        let [of_command, of_others] = self.waits().context("reading the observer's counts")?;
        Ok(Seen { of_command, of_others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_abba_and_even() {
        use Arm::{Default as A, Ours as B};
        assert_eq!(order(2), [A, B, B, A]);
        assert_eq!(order(3), [A, B, B, A, A, B]);
        for runs in 2..20 {
            let ours = order(runs).into_iter().filter(|&arm| arm == B).count();
            assert_eq!((ours, order(runs).len()), (runs, 2 * runs));
        }
    }

    #[test]
    fn metrics() {
        let find = |pattern, text| Metric::parse(pattern).expect("a pattern").find(text);
        assert_eq!(find(r"p99: (\d+)", "p99: 12\np99: 15 us"), Some(15.0));
        assert_eq!(find(r"[\d.]+(?: s)?$", "took 1.25"), Some(1.25));
        assert_eq!(find("x(.*)", "x nan"), None);
        assert_eq!(find("x(.*)", "y"), None);
        let error = Metric::parse("(a").expect_err("no pattern");
        assert!(error.contains("unclosed group") && !error.contains('\n'), "{error}");
    }
}

//! What `scheduler simulate` was asked for, and its runs.

use super::{
    machine::{Violation, follow},
    object::BUILTIN,
    relay::Hosted,
    report::Summary,
    rtapp,
    scenario::Scenario,
    show::Follow,
    stats::Stats,
    sweep::Sweep,
};
use crate::{
    exit::{self, Exit, Failure},
    machine::{output, stop::Stop, topology::Topology},
    settings::Tuning,
    stats::text,
    trace::Trace,
};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::time::{ClockId, clock_gettime};
use std::{
    cell::Cell,
    fs::File,
    io::Read,
    num::NonZero,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A scenario's file is no larger: a thousand times those that ship.
const FILE_MAX: u64 = 1 << 20;
/// Runs that broke a rule, of which each has a line of the report, at most.
const VIOLATIONS_MAX: usize = 10;

/// A simulation to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The scenario's file.
    pub file: PathBuf,
    /// Seed of the first run.
    pub seed: u64,
    /// How many runs, with seeds one after the other.
    pub runs: u64,
    /// CPUs instead of the scenario's.
    pub topology: Option<Topology>,
    /// Who decides: a name of [`crate::policy::builtin`], or that of the program's own policy.
    pub policy: String,
    /// The options of a policy in user space: keys and values.
    pub options: Vec<(String, String)>,
    /// The figures that the kernel's half decides by.
    pub tuning: Tuning,
    /// Values of a setting to run it under, one after the other.
    pub sweep: Option<Sweep>,
    /// Where a trace of the first run goes.
    pub perfetto: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

/// Makes the policy in user space of a run; none if the kernel's half decides.
pub type Policies<'a> = dyn Fn() -> Result<Option<Hosted>> + Sync + 'a;

/// What came of it.
#[derive(Debug)]
pub struct Results<'a> {
    /// All runs, added up.
    pub summary: Summary<'a>,
    /// What the oracles saw, a run each, by seed; the first ten.
    pub violations: Vec<Violation>,
    /// Why the trace is not whole; the rest is.
    pub untraced: Option<anyhow::Error>,
}

/// CPU time that this thread has had.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("reading the CPU time")?.into())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much is done, drawn on standard error if that is a terminal.
struct Progress(ProgressBar);

impl Progress {
    /// What takes no longer than this needs no bar, which would only flicker.
    const QUIET: Duration = Duration::from_millis(500);

    fn new(runs: u64, duration_ns: u64) -> Self {
        let length = runs.saturating_mul(duration_ns) / 1_000_000;
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
        let style = "{bar:30} {percent}% of simulated time  {elapsed}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn add(&self, ns: u64) {
        if self.0.is_hidden() && self.0.elapsed() > Self::QUIET {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.0.inc(ns / 1_000_000);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// One run: its seed's number, how it ended, and what CPU time it took.
type Run = (u64, Stats, Option<Violation>, Duration);

impl Results<'_> {
    /// Whether each of so many runs came to its end, or to what an oracle saw.
    pub fn is_whole(&self, runs: u64) -> bool {
        let whole_ns = self.summary.scenario.duration.saturating_mul(runs);
        !self.violations.is_empty() || self.summary.stats.machine.simulated_ns >= whole_ns
    }
}

impl Plan {
    /// Reads the scenario.
    ///
    /// # Errors
    /// [`Exit::Usage`], in one line with the file's name and, of its syntax, line and column.
    pub fn scenario(&self) -> Result<Scenario, Failure> {
        let name = text::printable(self.file.as_os_str().as_encoded_bytes());
        let refuse = |what: String| Failure::new(Exit::Usage, format!("{name}: {what}"));
        let mut bytes = Vec::new();
        File::open(&self.file)
            .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| {
                refuse(format!("cannot read the scenario: {}", exit::reason(&error)))
            })?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(refuse(format!("a scenario has at most {FILE_MAX} bytes")));
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| refuse(format!("a scenario is UTF-8 text: {error}")))?;
        let is_json = self.file.extension().is_some_and(|extension| extension == "json");
        let parse = if is_json { rtapp::parse } else { Scenario::parse };
        parse(&text, self.topology.clone()).map_err(refuse)
    }

    /// Runs it on all CPUs of this machine, until `stop`: then the results are of what has been run. They are the same on
    /// any number of CPUs.
    ///
    /// # Errors
    /// When the system has no room for a run, a policy panics, or a trace cannot be begun.
    pub fn run<'a>(
        &self,
        scenario: &'a Scenario,
        policies: &Policies<'_>,
        stop: &Stop,
    ) -> Result<Results<'a>, Failure> {
        let results = Self::run_all(std::slice::from_ref(self), scenario, policies, stop)?;
        Ok(results.into_iter().next().context("a plan of no runs")?)
    }

    /// The same for several plans with the same number of runs; those of which none has begun at `stop` have no results.
    pub(super) fn run_all<'a>(
        plans: &[Self],
        scenario: &'a Scenario,
        policies: &Policies<'_>,
        stop: &Stop,
    ) -> Result<Vec<Results<'a>>, Failure> {
        let Some(first) = plans.first() else { return Ok(Vec::new()) };
        let began = Instant::now();
        let total = first.runs * plans.len() as u64;
        let trace =
            first.perfetto.as_deref().map(|path| output::create("--perfetto", path)).transpose()?;
        let trace = trace.map(Trace::on);
        let untraced = Mutex::new(None);
        let (trace, progress) = (Mutex::new(trace), Progress::new(total, scenario.duration));
        let next = AtomicU64::new(0);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = threads.min(usize::try_from(total).unwrap_or(threads));
        let worker = || -> Result<Vec<Run>> {
            let mut runs = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total || number > 0 && stop.is_triggered() {
                    return Ok(runs);
                }
                let plan = &plans[(number / first.runs) as usize];
                let mut trace = if number == 0 { lock(&trace).take() } else { None };
                let told = Cell::new(0);
                let goes_on = |now| {
                    progress.add(now - told.replace(now));
                    !stop.is_triggered()
                };
                let (began, seed) = (cpu_time()?, plan.seed.wrapping_add(number % first.runs));
                let followed = Follow { goes_on: Some(&goes_on), trace: trace.as_mut() };
                let (stats, violation) =
                    follow(scenario, BUILTIN, plan.tuning, seed, policies()?, followed)?;
                progress.add(scenario.duration.saturating_sub(told.get()));
                if let Err(error) = trace.map_or(Ok(()), Trace::finish) {
                    *lock(&untraced) = Some(error);
                }
                runs.push((number, stats, violation, cpu_time()?.saturating_sub(began)));
            }
        };
        let mut runs = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let mut runs = Vec::new();
            for worker in workers {
                match worker.join() {
                    Ok(some) => runs.extend(some?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            anyhow::Ok(runs)
        })?;
        progress.end();
        runs.sort_unstable_by_key(|(number, ..)| *number);
        let took = began.elapsed();
        let of_plan = |a: &Run, b: &Run| a.0 / first.runs == b.0 / first.runs;
        let by_plan = runs.chunk_by(of_plan);
        let mut results: Vec<_> = by_plan.map(|runs| first.add_up(scenario, runs, took)).collect();
        if let Some(first) = results.first_mut() {
            first.untraced = lock(&untraced).take();
        }
        Ok(results)
    }

    fn add_up<'a>(&self, scenario: &'a Scenario, runs: &[Run], took: Duration) -> Results<'a> {
        let mut summary = Summary {
            scenario,
            seed: self.seed,
            runs: runs.len() as u64,
            stats: Stats::default(),
            took,
            cpu_took: runs.iter().map(|(.., took)| *took).sum(),
        };
        let mut violations = Vec::new();
        for (_, stats, violation, _) in runs {
            summary.stats.merge(stats);
            violations.extend(violation.clone());
        }
        violations.truncate(VIOLATIONS_MAX);
        Results { summary, violations, untraced: None }
    }
}

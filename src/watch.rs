//! What the process does while the kernel schedules: sleep, and now and then look after the
//! scheduler, tell the service manager, and report.

use crate::{
    machine::{
        notify::{Event, Notifier},
        output::{self, Written},
        scheduler::Scheduler,
        stop::{Stop, Wake},
    },
    relay::{Lateness, Relay},
    settings::{Format, Report},
    stats::{
        interval::Interval,
        json,
        sample::{PolicySample, Sample},
        table::{self, Style},
        tasks::TaskTracker,
    },
};
use anyhow::Result;
use std::{
    io,
    time::{Duration, Instant},
};

/// How often it is looked whether the kernel has ejected the scheduler: a memory read.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// How often it is looked whether CPUs came: a read of a file.
const HOTPLUG_PERIOD: Duration = Duration::from_secs(1);

/// Returns when the scheduler is to end: a stop signal came, the kernel has ejected it, or the
/// reader of the reports has gone.
///
/// # Errors
/// When the statistics cannot be read or written, or the kernel refuses a new topology.
pub fn until_the_end(
    scheduler: &mut Scheduler<'_>,
    relay: Option<&Relay>,
    report: Option<Report>,
    stop: &Stop,
    notifier: &Notifier,
) -> Result<()> {
    let mut keeper = Keeper::new(notifier, relay);
    let mut reporter = report.map(|report| Reporter::start(report, scheduler)).transpose()?;
    loop {
        let due = reporter.as_ref().map_or(WATCH_PERIOD, |r| WATCH_PERIOD.min(r.time_left()));
        if stop.wait(due) == Wake::Stop || !keeper.tend(scheduler)? {
            return Ok(());
        }
        let Some(reporter) = reporter.as_mut().filter(|r| r.time_left().is_zero()) else {
            continue;
        };
        let text = reporter.report(scheduler, relay)?;
        let mut tend = || keeper.tend(scheduler);
        match output::write(&mut io::stdout(), &text, stop, WATCH_PERIOD, &mut tend)? {
            Written::Whole => {}
            Written::Closed | Written::Stopped => return Ok(()),
        }
    }
}

/// Looks after the scheduler, and tells the service manager that it makes progress.
struct Keeper<'a> {
    notifier: &'a Notifier,
    relay: Option<&'a Relay>,
    lateness: Lateness,
    cpus_looked_at: Instant,
    /// How often the service manager wants to know.
    watchdog_period: Option<Duration>,
    progress_looked_at: Instant,
    seen: Option<Sample>,
}

impl<'a> Keeper<'a> {
    fn new(notifier: &'a Notifier, relay: Option<&'a Relay>) -> Self {
        let now = Instant::now();
        Self {
            notifier,
            relay,
            lateness: Lateness::default(),
            // The first look is due at once: CPUs may have come during the attach.
            cpus_looked_at: now - HOTPLUG_PERIOD,
            watchdog_period: notifier.watchdog_period(),
            progress_looked_at: now,
            seen: None,
        }
    }

    /// Does what is due. False if the kernel has ejected the scheduler.
    fn tend(&mut self, scheduler: &mut Scheduler<'_>) -> Result<bool> {
        if scheduler.is_ejected() {
            return Ok(false);
        }
        if self.cpus_looked_at.elapsed() >= HOTPLUG_PERIOD {
            self.cpus_looked_at = Instant::now();
            scheduler.follow_hotplug()?;
        }
        if let Some(relay) = self.relay
            && let Some(span) = self.lateness.ended(&scheduler.relay_state(), Instant::now())
        {
            log::warn!(
                "the policy {} did not answer: the kernel's half scheduled for {:.1} s",
                relay.name(),
                span.as_secs_f64()
            );
        }
        if self.watchdog_period.is_some_and(|span| self.progress_looked_at.elapsed() >= span) {
            self.progress_looked_at = Instant::now();
            self.prove_progress(scheduler)?;
        }
        Ok(true)
    }

    fn prove_progress(&mut self, scheduler: &Scheduler<'_>) -> Result<()> {
        let now = scheduler.sample()?;
        if self.seen.as_ref().is_none_or(|before| now.shows_progress_since(before)) {
            self.notifier.tell_or_warn(Event::Alive);
        } else {
            log::warn!("tasks wait, and no CPU has started another one since the last look");
        }
        self.seen = Some(now);
        Ok(())
    }
}

/// Makes the reports.
struct Reporter {
    report: Report,
    due: Instant,
    before: Sample,
    tasks: TaskTracker,
}

impl Reporter {
    fn start(report: Report, scheduler: &Scheduler<'_>) -> Result<Self> {
        let before = scheduler.sample()?;
        let mut tasks = TaskTracker::default();
        tasks.busiest(scheduler.task_samples()?, report.interval, 0);
        Ok(Self { report, due: before.at + report.interval, before, tasks })
    }

    fn time_left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// The text of the report that is due.
    fn report(&mut self, scheduler: &Scheduler<'_>, relay: Option<&Relay>) -> Result<String> {
        let mut now = scheduler.sample()?;
        now.policy = relay.map(|relay| PolicySample {
            name: relay.name().to_owned(),
            late: scheduler.relay_state().late_since != 0,
            figures: relay.figures(),
        });
        let span = now.at - self.before.at;
        let tasks = self.tasks.busiest(scheduler.task_samples()?, span, self.report.tasks);
        let interval = Interval::between(&self.before, &now, tasks);
        // By the plan, so that reports do not drift, but never soon after a late one.
        let every = self.report.interval;
        self.due = (self.due + every).max(now.at + every / 2);
        self.before = now;
        match self.report.format {
            Format::Json => json::line(&interval),
            Format::Table => Ok(table::draw(
                &interval,
                Style {
                    width: output::terminal_width(),
                    bold: output::is_coloured(),
                    all_counters: self.report.all_counters,
                },
            )),
        }
    }
}

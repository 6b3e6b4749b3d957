//! What the process does while the kernel schedules: sleep, and now and then look after the
//! scheduler, tell the service manager, and report.

use crate::{
    machine::{
        notify::{Event, Notifier},
        output::{self, Written},
        scheduler::Scheduler,
        stop::{Stop, Wake},
    },
    settings::{Format, Report},
    stats::{
        interval::Interval,
        json,
        sample::Sample,
        table::{self, Style},
        tasks::TaskTracker,
    },
};
use anyhow::Result;
use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

/// How often it is looked whether the kernel has ejected the scheduler or CPUs came. Each look is
/// a memory read and a system call.
const WATCH_PERIOD: Duration = Duration::from_millis(250);

/// Returns when the scheduler is to end: a stop signal came, the kernel has ejected it, or the
/// reader of the reports has gone.
///
/// # Errors
/// When the statistics cannot be read or written, or the kernel refuses a new topology.
pub fn until_the_end(
    scheduler: &mut Scheduler<'_>,
    report: Option<Report>,
    stop: &Stop,
    notifier: &Notifier,
) -> Result<()> {
    let mut watchdog = Watchdog::new(notifier);
    let mut reporter = report.map(|report| Reporter::start(report, scheduler)).transpose()?;
    loop {
        let due = reporter.as_ref().map_or(WATCH_PERIOD, |r| WATCH_PERIOD.min(r.time_left()));
        if stop.wait(due) == Wake::Stop || !tend(scheduler, &mut watchdog)? {
            return Ok(());
        }
        let Some(reporter) = reporter.as_mut().filter(|r| r.time_left().is_zero()) else {
            continue;
        };
        let text = reporter.report(scheduler)?;
        let mut tend = || tend(scheduler, &mut watchdog);
        match output::write(&mut io::stdout(), &text, stop, WATCH_PERIOD, &mut tend)? {
            Written::Whole => {}
            Written::Closed | Written::Stopped => return Ok(()),
        }
    }
}

/// Looks after the scheduler. False if it has been ejected.
fn tend(scheduler: &mut Scheduler<'_>, watchdog: &mut Watchdog<'_>) -> Result<bool> {
    if scheduler.is_ejected() {
        return Ok(false);
    }
    scheduler.follow_hotplug()?;
    watchdog.look(scheduler)?;
    Ok(true)
}

/// Tells the service manager that the scheduler makes progress, as often as it wants to know.
struct Watchdog<'a> {
    notifier: &'a Notifier,
    period: Option<Duration>,
    looked_at: Instant,
    seen: Option<Sample>,
}

impl<'a> Watchdog<'a> {
    fn new(notifier: &'a Notifier) -> Self {
        let period = notifier.watchdog_period();
        Self { notifier, period, looked_at: Instant::now(), seen: None }
    }

    fn look(&mut self, scheduler: &Scheduler<'_>) -> Result<()> {
        if self.period.is_none_or(|period| self.looked_at.elapsed() < period) {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let now = scheduler.sample()?;
        if self.seen.as_ref().is_none_or(|before| now.shows_progress_since(before)) {
            self.notifier.tell_or_warn(Event::Alive);
        } else {
            log::warn!("tasks wait and no CPU has switched for {:?}", self.period);
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
    fn report(&mut self, scheduler: &Scheduler<'_>) -> Result<String> {
        let now = scheduler.sample()?;
        let span = now.at - self.before.at;
        let tasks = self.tasks.busiest(scheduler.task_samples()?, span, self.report.tasks);
        let interval = Interval::between(&self.before, &now, tasks);
        // From the plan, so that reports do not drift; from here if the plan is past.
        self.due = (self.due + self.report.interval).max(now.at);
        self.before = now;
        match self.report.format {
            Format::Json => json::line(&interval),
            Format::Table => Ok(table::draw(
                &interval,
                Style {
                    width: output::terminal_width(),
                    bold: io::stdout().is_terminal(),
                    all_counters: self.report.all_counters,
                },
            )),
        }
    }
}

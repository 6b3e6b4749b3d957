//! What the process does while the kernel schedules: sleep, and now and then look after the
//! scheduler, tell the service manager, and report.

use crate::{
    bpf::intf::task_sample,
    endpoint::{Endpoints, Source, unix::StatsSocket},
    machine::{
        notify::{Event, Notifier},
        output::{self, Written},
        scheduler::Scheduler,
        stop::{Stop, Wake},
    },
    relay::{Lateness, Relay},
    reload::Reloader,
    rules::explain,
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
    rc::Rc,
    time::{Duration, Instant},
};

/// How often it is looked whether the kernel has ejected the scheduler: a memory read.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// How often it is looked whether CPUs came: a read of a file.
const HOTPLUG_PERIOD: Duration = Duration::from_secs(1);

/// What works beside the scheduler.
pub struct Beside<'a> {
    /// The policy in user space, if one decides.
    pub relay: Option<&'a Relay>,
    /// Where other programs may ask, but for the statistics socket.
    pub endpoints: Endpoints,
    /// The service manager.
    pub notifier: &'a Notifier,
}

/// Returns when the scheduler is to end: a stop signal came, the kernel has ejected it, or the
/// reader of the reports has gone.
///
/// # Errors
/// When the statistics cannot be read or written, or the kernel refuses a new topology.
pub fn until_the_end(
    scheduler: &mut Scheduler<'_>,
    reloader: &mut Reloader<'_>,
    beside: Beside<'_>,
    stop: &Stop,
) -> Result<()> {
    let Beside { relay, mut endpoints, notifier } = beside;
    let mut keeper = Keeper::new(notifier, relay);
    let settings = &reloader.effective().settings;
    let report = settings.report;
    let listed = report.is_some_and(|report| report.tasks > 0);
    let socket = settings.socket.clone();
    let mut live = Live { scheduler, reloader, relay, keeps_tasks: listed };
    let mut reporter = report.map(|r| Reporter::start(r, &mut live)).transpose()?;
    let start = Rc::new(live.sample()?);
    match StatsSocket::listen(&socket, start) {
        Ok(socket) => endpoints.add(socket),
        // A scheduler that cannot be asked schedules all the same.
        Err(error) => log::warn!("nobody can ask for statistics: {error:#}"),
    }
    loop {
        let due = reporter.as_ref().map_or(WATCH_PERIOD, |r| WATCH_PERIOD.min(r.time_left()));
        let wake = live.wait(&endpoints, stop, due);
        live.tend(notifier, stop)?;
        if wake == Wake::Stop || !keeper.tend(live.scheduler)? {
            return Ok(());
        }
        if wake == Wake::Ready {
            endpoints.serve(&mut live);
        }
        let Some(reporter) = reporter.as_mut().filter(|r| r.time_left().is_zero()) else {
            continue;
        };
        let text = reporter.report(&mut live)?;
        let mut tend = || {
            endpoints.serve(&mut live);
            live.tend(notifier, stop)?;
            keeper.tend(live.scheduler)
        };
        match output::write(&mut io::stdout(), &text, stop, WATCH_PERIOD, &mut tend)? {
            Written::Whole => {}
            Written::Closed | Written::Stopped => return Ok(()),
        }
    }
}

/// The scheduler while it schedules, as the source of statistics.
struct Live<'a, 'r, 'obj> {
    scheduler: &'a mut Scheduler<'obj>,
    reloader: &'a mut Reloader<'r>,
    relay: Option<&'a Relay>,
    /// Whether the reports list tasks, whoever else asks for them.
    keeps_tasks: bool,
}

impl Live<'_, '_, '_> {
    /// Waits for a client, for whoever wants other settings, and for tasks that may have another rule.
    fn wait(&mut self, endpoints: &Endpoints, stop: &Stop, timeout: Duration) -> Wake {
        let timeout = self.reloader.ruler().rest_left().map_or(timeout, |left| left.min(timeout));
        endpoints.wait(stop, &self.reloader.fds(), timeout)
    }

    fn tend(&mut self, notifier: &Notifier, stop: &Stop) -> Result<()> {
        self.reloader.tend(self.scheduler, notifier, stop);
        self.reloader.ruler().tend(self.scheduler)
    }
}

impl Source for Live<'_, '_, '_> {
    fn sample(&mut self) -> Result<Sample> {
        let mut now = self.scheduler.sample()?;
        now.policy = self.relay.map(|relay| PolicySample {
            name: relay.name().to_owned(),
            late: self.scheduler.relay_state().late_since != 0,
            figures: relay.figures(),
        });
        Ok(now)
    }

    fn tasks(&mut self) -> Result<Vec<task_sample>> {
        self.scheduler.task_samples()
    }

    fn profile(&mut self, name: Option<&str>) -> Result<Vec<String>, String> {
        self.reloader.profile(name, self.scheduler)
    }

    fn rules(&mut self) -> Vec<String> {
        self.reloader.ruler().rules().map(ToString::to_string).collect()
    }

    fn explain(&mut self, of: Option<&str>) -> Result<Vec<String>, String> {
        let tasks = self.scheduler.list_tasks().map_err(|error| format!("{error:#}"))?;
        let ruler = self.reloader.ruler();
        let Some(of) = of else { return Ok(explain::rules(ruler.rules(), &tasks)) };
        let (pids, all) = explain::chosen(of, &tasks)?;
        let mut lines = Vec::new();
        for &pid in &pids {
            let task = self.scheduler.explain(pid).map_err(|error| format!("{error:#}"))?;
            lines.extend(task.iter().flat_map(|&task| {
                explain::task(&explain::Subject { task, rule: ruler.rule(task.rule) })
            }));
        }
        lines.extend(explain::rest(pids.len(), all));
        Ok(lines)
    }

    fn forget_tasks(&mut self) {
        if !self.keeps_tasks {
            self.scheduler.forget_tasks();
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
    fn start(report: Report, live: &mut Live<'_, '_, '_>) -> Result<Self> {
        let before = live.sample()?;
        let mut tasks = TaskTracker::default();
        if report.tasks > 0 {
            tasks.busiest(live.tasks()?, report.interval, 0);
        }
        Ok(Self { report, due: before.at + report.interval, before, tasks })
    }

    fn time_left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// The text of the report that is due.
    fn report(&mut self, live: &mut Live<'_, '_, '_>) -> Result<String> {
        let now = live.sample()?;
        let span = now.at - self.before.at;
        let tasks = match self.report.tasks {
            0 => Vec::new(),
            limit => self.tasks.busiest(live.tasks()?, span, limit),
        };
        let mut interval = Interval::between(&self.before, &now, tasks);
        if self.report.tasks > 0 {
            interval.rules = self.tasks.rules(live.rules(), span);
        }
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

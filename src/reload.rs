//! Settings that change while the kernel schedules: at SIGHUP, or when the file changes, the command line is taken again,
//! with the configuration file as it is then.

use crate::{
    cli::Effective,
    exit::Failure,
    machine::{
        changes::Changes,
        notify::{Event, Notifier},
        ruler::Ruler,
        scheduler::Scheduler,
        stop::{Hangup, Hung, Stop},
    },
};
use anyhow::Result;
use std::os::fd::{AsFd, BorrowedFd};

/// Keeps the settings in effect.
pub struct Reloader<'a> {
    effective: Effective,
    reread: &'a dyn Fn() -> Result<Effective, Failure>,
    hangup: Hangup,
    changes: Option<Changes>,
    ruler: Ruler<'a>,
}

impl<'a> Reloader<'a> {
    /// With what is in effect, and where it is read again: at a SIGHUP and, if that was asked for, at `changes` of the
    /// file.
    pub fn new(
        effective: Effective,
        reread: &'a dyn Fn() -> Result<Effective, Failure>,
        hangup: Hangup,
        changes: Option<Changes>,
        ruler: Ruler<'a>,
    ) -> Self {
        Self { effective, reread, hangup, changes, ruler }
    }

    /// Puts the rules in force that the program was started with. The scheduler is attached.
    ///
    /// # Errors
    /// When the kernel does not take them.
    pub fn start(&mut self, scheduler: &Scheduler<'_>) -> Result<()> {
        self.warn();
        self.ruler.set(&self.effective.rules, scheduler)
    }

    /// What is readable when there is something to [tend](Self::tend) to, or when tasks may have another rule, unless
    /// nobody is looked at for now.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let changes = self.changes.as_ref().map(AsFd::as_fd);
        [Some(self.hangup.as_fd()), changes, self.ruler.told()].into_iter().flatten().collect()
    }

    /// Who keeps the rules of tasks.
    pub fn ruler(&mut self) -> &mut Ruler<'a> {
        &mut self.ruler
    }

    fn warn(&self) {
        for warning in self.effective.warnings() {
            log::warn!("{warning}");
        }
    }

    /// What is in effect.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// Reads the settings again if a user asked for it or the file has changed, and gives the kernel's half those that it can take while it
    /// schedules. Bad ones change nothing. If the terminal has gone that the program was started from, it is to stop.
    pub fn tend(&mut self, scheduler: &mut Scheduler<'_>, notifier: &Notifier, stop: &Stop) {
        let changed = self.changes.as_mut().is_some_and(Changes::take);
        match self.hangup.take() {
            Some(Hung::Gone) => stop.trigger(),
            None if !changed => {}
            Some(Hung::Asked) | None => self.read_again(scheduler, notifier),
        }
    }

    fn read_again(&mut self, scheduler: &mut Scheduler<'_>, notifier: &Notifier) {
        notifier.tell_or_warn(Event::Reloading);
        match (self.reread)() {
            Ok(now) => {
                self.adopt(now, scheduler);
                notifier.tell_or_warn(Event::Ready);
            }
            Err(failure) => {
                let why = format!("{:#}", failure.error);
                log::warn!("the settings stay as they were: {why}");
                notifier.tell_or_warn(Event::Kept(&why));
            }
        }
    }

    /// Decides by the profile of that name until settings are read again, if there is a name. What is in effect, a line
    /// each.
    ///
    /// # Errors
    /// Why that cannot be; nothing has changed then.
    pub fn profile(
        &mut self,
        name: Option<&str>,
        scheduler: &mut Scheduler<'_>,
    ) -> Result<Vec<String>, String> {
        if let Some(name) = name {
            let now = self.effective.with_profile(name)?;
            self.adopt(now, scheduler);
        }
        Ok(self.effective.tuned())
    }

    fn adopt(&mut self, mut now: Effective, scheduler: &mut Scheduler<'_>) {
        let has_rules = self.effective.rules == now.rules;
        if let Err(error) = self.ruler.set(&now.rules, scheduler) {
            log::warn!("the rules stay as they were: {error:#}");
            now.rules = self.effective.rules.clone();
        }
        let adopted = self.effective.adopt(now);
        let settings = &self.effective.settings;
        scheduler.tune(settings.tuning.knobs(settings.relayed.as_ref()));
        for change in adopted.changed {
            log::info!("{change}");
        }
        for change in adopted.pending {
            log::warn!("{change}: not before the next start");
        }
        if !has_rules {
            self.warn();
        }
    }
}

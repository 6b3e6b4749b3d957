//! A policy at work: what it is told, and the orders that come of it. It knows no clock but those of its caller and of the
//! machine, and no kernel, so it is the same on a simulated machine.

use super::channel::Event;
use crate::{
    policy::{Desk, Machine, Policy},
    units::Nanos,
};
use anyhow::Result;

/// At least this often the policy's thread shows the kernel's half that it is there.
const HEARTBEAT: Nanos = Nanos::from_millis(100);
/// The shortest period of ticks.
const TICK_MIN: Nanos = Nanos::from_millis(1);
/// An order that came too early is tried again after this: the task is in its queue within a callback's time.
const RETRY_AFTER: Nanos = Nanos::from_micros(50);

/// Times are of any clock that goes forward, the same for all calls.
pub(crate) struct Session {
    policy: Box<dyn Policy>,
    desk: Desk,
    period: Nanos,
    tick_due: Nanos,
}

impl Session {
    /// A policy that has been told nothing, at `now`. Its decisions have slices of `default_slice` unless they say otherwise.
    pub fn new(policy: Box<dyn Policy>, default_slice: Nanos, now: Nanos) -> Self {
        let period = policy.tick_period().max(TICK_MIN);
        let tick_due = Nanos(now.0 + period.0);
        Self { policy, desk: Desk::new(default_slice), period, tick_due }
    }

    /// The first tick.
    pub fn begin(&mut self, machine: &mut dyn Machine) {
        self.policy.tick(&mut self.desk.context(machine));
    }

    /// How long the policy may sleep where nothing happens.
    pub fn patience(&self, now: Nanos) -> Nanos {
        let left = Nanos(self.tick_due.0.saturating_sub(now.0)).min(HEARTBEAT);
        if self.desk.orders.is_empty() { left } else { left.min(RETRY_AFTER) }
    }

    /// Tells the policy of events, and of a tick if one is due. Returns how often it was called.
    pub fn tell(
        &mut self,
        events: impl Iterator<Item = Event>,
        now: Nanos,
        machine: &mut dyn Machine,
    ) -> u64 {
        let Self { policy, desk, .. } = self;
        let mut calls = 0;
        for event in events {
            calls += 1;
            match event {
                Event::Enqueued(task) => policy.enqueue(&task, &mut desk.context(machine)),
                Event::CpuWants(cpu) => policy.dispatch(cpu, &mut desk.context(machine)),
                Event::Changed(task) => policy.changed(&task, &mut desk.context(machine)),
                Event::Exited(pid) => {
                    desk.forget(pid);
                    policy.exited(pid, &mut desk.context(machine));
                }
            }
        }
        if self.tick_due <= now {
            calls += 1;
            self.tick_due = Nanos(now.0 + self.period.0);
            desk.expire(machine.now());
            policy.tick(&mut desk.context(machine));
        }
        calls
    }

    /// Hands its orders over; with none it is a sign of life.
    ///
    /// # Errors
    /// When the machine can no longer be reached.
    pub fn hand_over(&mut self, machine: &mut dyn Machine) -> Result<()> {
        self.desk.hand_over(machine)
    }
}

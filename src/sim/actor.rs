//! What a task does: its way through the phases of its group.

use super::{dist::Rng, phase::Phase, scenario::Scenario};
use crate::units::CpuId;

/// The life of a task.
pub struct Actor {
    /// Its group.
    pub group: usize,
    /// Its number in the group.
    pub number: usize,
    /// Work that it has to do before its next step, in nanoseconds of a CPU.
    pub left_ns: u64,
    /// CPU that it ran on last.
    pub ran_on: Option<u32>,
    /// Wakeups that came while it did not wait for one.
    pub tokens: u64,
    /// It sleeps until it is woken.
    pub waits: bool,
    /// The beginning of its present period, and when that has to be done.
    pub period: Option<(u64, u64)>,
    /// When its first step was.
    born: Option<u64>,
    /// When each of its timers was last due.
    timers: Vec<u64>,
    /// How often it has gone back, by level.
    repeated: [u64; 2],
    /// Index of its next phase.
    phase: usize,
    rng: Rng,
}

/// What a task does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Runs for `left_ns`.
    Run,
    /// Sleeps until an instant.
    SleepUntil(u64),
    /// Sleeps until it is woken.
    Wait,
    /// Gives up its slice.
    Yield,
    /// Wakes the task of its number in that group, `sync` if it is about to sleep.
    Wake { group: usize, sync: bool },
    /// Makes a task of that group.
    Fork { group: usize },
    /// May not migrate any more, or may again.
    Migrate(bool),
    /// Begins or ends to read under RCU.
    Rcu(bool),
    /// Takes that mutex, or waits for it.
    Lock(usize),
    /// Hands it over.
    Unlock(usize),
    /// Sleeps until a condition is signalled, without that mutex.
    Await { condition: usize, mutex: Option<usize> },
    /// Wakes one or all who wait for it.
    Signal { condition: usize, all: bool },
    /// Gets another affinity,
    Affinity(Vec<CpuId>),
    /// or another nice value.
    Nice(i32),
    /// Ends.
    Exit,
}

/// A period that ended: whether it was late.
pub type Ended = Option<bool>;

impl Actor {
    /// Task `number` of a group; `stream` tells its random numbers from those of others.
    pub fn new(group: usize, number: usize, seed: u64, stream: u64) -> Self {
        Self {
            group,
            number,
            left_ns: 0,
            ran_on: None,
            tokens: 0,
            waits: false,
            period: None,
            born: None,
            timers: Vec::new(),
            repeated: [0; 2],
            phase: 0,
            rng: Rng::new(seed, stream),
        }
    }

    /// When it is born.
    pub fn start(&mut self, scenario: &Scenario) -> u64 {
        scenario.group[self.group].start.draw(&mut self.rng)
    }

    /// Its next step at `now`, and the period that ends with it.
    pub fn step(&mut self, scenario: &Scenario, now: u64) -> (Step, Ended) {
        let born = *self.born.get_or_insert(now);
        let phases = &scenario.group[self.group].phases;
        let phase = &phases[self.phase];
        self.phase = (self.phase + 1) % phases.len();
        let mut ended = None;
        let step = match phase {
            Phase::Run(dist) => {
                self.left_ns += dist.draw(&mut self.rng);
                Step::Run
            }
            Phase::Sleep(dist) => match dist.draw(&mut self.rng) {
                0 => Step::Run,
                ns => Step::SleepUntil(now + ns),
            },
            Phase::Period(period) => {
                let next = match self.period {
                    None => now,
                    Some((began, due)) => {
                        ended = Some(now > due);
                        // Periods that it is too late for are left out.
                        let behind = (now.max(began + 1) - began).div_ceil(period.every);
                        began + behind * period.every
                    }
                };
                self.period = Some((next, next + period.deadline.unwrap_or(period.every)));
                if next > now { Step::SleepUntil(next) } else { Step::Run }
            }
            Phase::Wake(group) => Step::Wake { group: scenario.group_of(group), sync: false },
            Phase::Handoff(group) => Step::Wake { group: scenario.group_of(group), sync: true },
            Phase::Wait if self.tokens > 0 => {
                self.tokens -= 1;
                Step::Run
            }
            Phase::Wait => {
                self.waits = true;
                Step::Wait
            }
            Phase::Yield => Step::Yield,
            Phase::Fork(group) => Step::Fork { group: scenario.group_of(group) },
            Phase::MigrateOff => Step::Migrate(false),
            Phase::MigrateOn => Step::Migrate(true),
            Phase::RcuLock => Step::Rcu(true),
            Phase::RcuUnlock => Step::Rcu(false),
            Phase::Lock(name) => Step::Lock(scenario.lock_of(name)),
            Phase::Unlock(name) => Step::Unlock(scenario.lock_of(name)),
            Phase::Exit => Step::Exit,
            &Phase::Timer { timer, every, absolute } => {
                if self.timers.len() <= timer {
                    self.timers.resize(timer + 1, born);
                }
                let next = self.timers[timer] + every;
                ended = Some(now > next);
                self.timers[timer] = if absolute { next } else { next.max(now) };
                if now < next { Step::SleepUntil(next) } else { Step::Run }
            }
            Phase::Await { condition, mutex } => Step::Await {
                condition: *condition,
                mutex: mutex.as_deref().map(|name| scenario.lock_of(name)),
            },
            &Phase::Signal { condition, all } => Step::Signal { condition, all },
            Phase::Affinity(list) => Step::Affinity(scenario.cpus(Some(list))),
            Phase::Nice(nice) => Step::Nice(nice.0),
            &Phase::Repeat { level, from, times } => {
                let repeated = &mut self.repeated[usize::from(level)];
                *repeated += 1;
                if times.is_none_or(|times| *repeated < times) {
                    self.phase = from;
                } else {
                    *repeated = 0;
                }
                Step::Run
            }
        };
        (step, ended)
    }
}

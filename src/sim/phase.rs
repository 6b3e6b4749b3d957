//! What tasks do, step by step.

use super::{
    dist::Dist,
    scenario::{Nice, maybe_span, span},
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A step of a task's life.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Needs a CPU for so long.
    Run(Dist),
    /// Sleeps for so long.
    Sleep(Dist),
    /// Sleeps until its next period begins.
    Period(Period),
    /// Wakes the task of a group that has its own number in this one, or counts for when that waits.
    Wake(String),
    /// As `wake`, and is about to sleep: a synchronous wakeup.
    Handoff(String),
    /// Sleeps until it is woken.
    Wait,
    /// Gives up the rest of its slice.
    Yield,
    /// Makes a task of that group.
    Fork(String),
    /// May not migrate from here on,
    #[serde(rename = "migrate-off")]
    MigrateOff,
    /// to here.
    #[serde(rename = "migrate-on")]
    MigrateOn,
    /// Reads under RCU from here on,
    #[serde(rename = "rcu-lock")]
    RcuLock,
    /// to here. It does not sleep in between.
    #[serde(rename = "rcu-unlock")]
    RcuUnlock,
    /// Takes the mutex of that name, of which there is one for all. If it is taken, waits for its turn.
    Lock(String),
    /// Hands it to whoever has waited longest.
    Unlock(String),
    /// Ends.
    Exit,
    /// Sleeps until the next time of a timer of its own: `every` after the last one, the first of which was its birth. One that
    /// is over is left out; then the next one is counted from now, or, if it is absolute, from there all the same.
    #[serde(skip)]
    Timer { timer: usize, every: u64, absolute: bool },
    /// Sleeps until a condition is signalled, without the mutex meanwhile.
    #[serde(skip)]
    Await { condition: usize, mutex: Option<String> },
    /// Wakes whoever has waited longest for a condition, or all.
    #[serde(skip)]
    Signal { condition: usize, all: bool },
    /// Gives itself another affinity; an empty one is everywhere.
    #[serde(skip)]
    Affinity(String),
    /// Gives itself another nice value.
    #[serde(skip)]
    Nice(Nice),
    /// Goes back to that phase until it has been there so many times; none: for ever. Two levels of this may be nested.
    #[serde(skip)]
    Repeat { level: u8, from: usize, times: Option<u64> },
}

/// A period, and by when the work of each has to be done.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// Time between two beginnings.
    #[serde(deserialize_with = "span")]
    pub every: u64,
    /// From the beginning, in which the task reaches its next period; `every` if absent.
    #[serde(default, deserialize_with = "maybe_span")]
    pub deadline: Option<u64>,
}

impl Phase {
    /// The mutex that it takes or gives.
    pub fn lock(&self) -> Option<&str> {
        match self {
            Self::Lock(name) | Self::Unlock(name) => Some(name),
            Self::Await { mutex, .. } => mutex.as_deref(),
            _ => None,
        }
    }

    /// The list of CPUs that it names; not one of all.
    pub fn cpus(&self) -> Option<&str> {
        match self {
            Self::Affinity(list) if !list.is_empty() => Some(list),
            _ => None,
        }
    }

    pub(super) fn takes_time(&self) -> bool {
        match self {
            Self::Run(dist) | Self::Sleep(dist) => dist.mean() > 0,
            Self::Period(period) => period.every > 0,
            Self::Wait | Self::Exit => true,
            _ => false,
        }
    }

    fn may_sleep(&self) -> bool {
        matches!(self, Self::Sleep(_) | Self::Period(_) | Self::Wait | Self::Lock(_) | Self::Exit)
    }
}

/// Whether a task can live by these phases, over and over. `names`: all groups, and how many tasks each starts with.
///
/// # Errors
/// What is wrong.
pub fn check(phases: &[Phase], names: &BTreeMap<&str, u32>) -> Result<(), String> {
    let (mut lock, mut reads, mut stays) = (None, false, false);
    for phase in phases {
        if reads && phase.may_sleep() {
            return Err("phases: who reads under RCU does not sleep".into());
        }
        match phase {
            Phase::Period(period) if period.every == 0 => {
                return Err("period: every must be longer than 0".into());
            }
            Phase::Wake(to) | Phase::Handoff(to) | Phase::Fork(to) => {
                match (names.get(to.as_str()), phase) {
                    (None, _) => {
                        return Err(format!("there is no group '{}'", to.escape_default()));
                    }
                    (Some(0), Phase::Wake(_) | Phase::Handoff(_)) => {
                        return Err(format!("group '{}' has no task to wake", to.escape_default()));
                    }
                    _ => {}
                }
            }
            Phase::MigrateOff if !stays => stays = true,
            Phase::MigrateOn if stays => stays = false,
            Phase::RcuLock if !reads => reads = true,
            Phase::RcuUnlock if reads => reads = false,
            Phase::Lock(name) if lock.is_none() => lock = Some(name),
            Phase::Unlock(name) if lock == Some(name) => lock = None,
            Phase::MigrateOff
            | Phase::MigrateOn
            | Phase::RcuLock
            | Phase::RcuUnlock
            | Phase::Lock(_)
            | Phase::Unlock(_) => return Err(SECTIONS.into()),
            Phase::Exit if stays || lock.is_some() => return Err(SECTIONS.into()),
            _ => {}
        }
    }
    if stays || reads || lock.is_some() {
        return Err(SECTIONS.into());
    }
    Ok(())
}

const SECTIONS: &str = "phases: migrate-off, rcu-lock and lock each have their end behind them, before the next of the \
                        same kind and before exit";

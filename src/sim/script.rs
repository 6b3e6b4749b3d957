//! What happens to a simulated machine by the scenario's script: `[[event]]`.

use super::{
    dist::{Dist, Rng},
    events::Kind,
    machine::{Machine, OF_SCENARIO},
    scenario::{Nice, span},
    task::{Place, TaskId},
};
use crate::{machine::cpulist, units::CpuId};
use serde::Deserialize;

/// Real-time tasks on a CPU at most: each is something that a run has to keep in mind.
const REALTIME_MAX: u32 = 1000;

/// Something that happens at an instant, and perhaps over and over from then on.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Event {
    /// When, in nanoseconds.
    pub at: u64,
    /// From one time to the next, drawn anew each time; once if absent.
    pub every: Option<Dist>,
    /// What happens.
    pub what: What,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum What {
    /// All tasks that a group has get another nice value.
    Renice { group: String, nice: Nice },
    /// They get another affinity.
    Affinity { group: String, cpus: String },
    /// CPUs go offline, and come back after that time.
    Offline { cpus: String, lasts: Option<Dist> },
    /// A higher class has CPUs for so long.
    Realtime { cpus: String, lasts: Dist },
    /// The process of the policy in user space is stopped for so long; without one, nothing.
    PolicyStopped { lasts: Dist },
}

/// As the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(deserialize_with = "span")]
    at: u64,
    kind: Name,
    every: Option<Dist>,
    group: Option<String>,
    nice: Option<Nice>,
    cpus: Option<String>,
    #[serde(rename = "for")]
    lasts: Option<Dist>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Renice,
    Affinity,
    Offline,
    Realtime,
    #[serde(rename = "policy-stopped")]
    PolicyStopped,
}

impl TryFrom<Raw> for Event {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let Raw { at, kind, every, group, nice, cpus, lasts } = raw;
        let what = match (kind, group, nice, cpus, lasts) {
            (Name::Renice, Some(group), Some(nice), None, None) => What::Renice { group, nice },
            (Name::Affinity, Some(group), None, Some(cpus), None) => What::Affinity { group, cpus },
            (Name::Offline, None, None, Some(cpus), lasts) => What::Offline { cpus, lasts },
            (Name::Realtime, None, None, Some(cpus), Some(lasts)) => What::Realtime { cpus, lasts },
            (Name::PolicyStopped, None, None, None, Some(lasts)) => What::PolicyStopped { lasts },
            (Name::Renice, ..) => return Err("an event 'renice' has a group and nice"),
            (Name::Affinity, ..) => return Err("an event 'affinity' has a group and cpus"),
            (Name::Offline, ..) => {
                return Err("an event 'offline' has cpus and, if they return, for");
            }
            (Name::Realtime, ..) => return Err("an event 'realtime' has cpus and for"),
            (Name::PolicyStopped, ..) => return Err("an event 'policy-stopped' has for"),
        };
        if every == Some(Dist::Fixed(0)) {
            return Err("every must be longer than 0");
        }
        Ok(Self { at, every, what })
    }
}

impl Event {
    /// The group that it happens to.
    pub fn group(&self) -> Option<&str> {
        match &self.what {
            What::Renice { group, .. } | What::Affinity { group, .. } => Some(group),
            What::Offline { .. } | What::Realtime { .. } | What::PolicyStopped { .. } => None,
        }
    }

    /// The CPUs that it is about.
    pub fn cpus(&self) -> Option<&str> {
        match &self.what {
            What::Renice { .. } | What::PolicyStopped { .. } => None,
            What::Affinity { cpus, .. }
            | What::Offline { cpus, .. }
            | What::Realtime { cpus, .. } => Some(cpus),
        }
    }

    /// Its random numbers: a stream of its own, apart from those of tasks.
    pub fn rng(number: usize, seed: u64) -> Rng {
        Rng::new(seed, u64::MAX - 1 - number as u64)
    }
}

impl Machine<'_> {
    /// Event `number` of the scenario happens.
    pub(super) fn script(&mut self, number: u32) {
        let scenario = self.scenario;
        let event = &scenario.event[number as usize];
        let rng = &mut self.script[number as usize];
        let next = event.every.map(|every| every.draw(rng).max(1));
        let mut draw = |lasts: Dist| lasts.draw(rng);
        let cpus = cpulist::parse(event.cpus().unwrap_or_default(), self.cpus.len());
        match &event.what {
            What::Renice { group, nice } => {
                self.for_each_of(group, |machine, id| machine.renice(id, nice.0));
            }
            What::Affinity { group, .. } => {
                self.for_each_of(group, |machine, id| machine.set_affinity(id, &cpus));
            }
            What::Offline { lasts, .. } => {
                let back_at = lasts.map(|lasts| self.now + draw(lasts));
                cpus.iter().for_each(|cpu| self.take_offline(cpu.0, back_at));
            }
            What::Realtime { lasts, .. } => {
                for &CpuId(cpu) in &cpus {
                    self.events.push(self.now, Kind::Take(cpu, draw(*lasts).max(1)));
                }
            }
            What::PolicyStopped { lasts } => {
                let lasts = draw(*lasts);
                self.stop_process(lasts);
            }
        }
        if let Some(after) = next {
            self.events.push(self.now + after, Kind::Script(number));
        }
    }

    fn for_each_of(&mut self, group: &str, each: impl Fn(&mut Self, TaskId)) {
        let group = self.scenario.group_of(group);
        for id in (0..self.actors.len() as u32).map(TaskId) {
            if self.actors[id.index()].group == group
                && self.kernel.tasks[id.index()].place != Place::Dead
                && self.violation.is_none()
            {
                each(self, id);
            }
        }
    }

    /// A task of a higher class wakes on a CPU, and has it for so long.
    pub(super) fn realtime(&mut self, cpu: u32, lasts: u64) {
        if self.cpus[cpu as usize].taken >= REALTIME_MAX {
            let what = format!("CPU {cpu} has more than {REALTIME_MAX} real-time tasks");
            return self.violated(OF_SCENARIO, what);
        }
        if !self.is_dead(cpu) {
            self.take(cpu);
            self.events.push(self.now + lasts, Kind::GiveBack(cpu));
        }
    }
}

//! Scenarios: which tasks a simulated machine has, and what they do. TOML; see `scenarios/`.

use super::{
    dist::{self, Dist},
    phase::{self, Phase},
    script::{Event, What},
    topology,
};
use crate::{
    machine::{cpulist, topology::Topology},
    units::CpuId,
};
use serde::{Deserialize, Deserializer, de::Error};
use std::{collections::BTreeMap, ops::Range};

/// Tasks at most, those that are forked included.
pub const TASKS_MAX: usize = 200_000;

/// A scenario as its file has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a line.
    pub about: String,
    /// How much time is simulated, in nanoseconds.
    #[serde(deserialize_with = "span")]
    pub duration: u64,
    /// Ticks a second.
    #[serde(default = "Hz::usual")]
    pub hz: Hz,
    /// The CPUs, as [`topology::parse`] takes them.
    #[serde(deserialize_with = "cpus")]
    pub topology: Topology,
    /// What things cost.
    #[serde(default)]
    pub costs: Costs,
    /// The tasks.
    pub group: Vec<Group>,
    /// What happens to the machine and to them meanwhile.
    #[serde(default)]
    pub event: Vec<Event>,
    /// How many conditions its tasks wait for and signal.
    #[serde(skip)]
    pub conditions: usize,
}

/// Ticks a second: one of the kernel's own choices.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub struct Hz(u64);

impl Hz {
    /// What most distributions have.
    pub fn usual() -> Self {
        Self(250)
    }

    /// Time between two ticks in nanoseconds.
    pub fn period_ns(self) -> u64 {
        1_000_000_000 / self.0
    }
}

impl TryFrom<u64> for Hz {
    type Error = &'static str;

    fn try_from(hz: u64) -> Result<Self, Self::Error> {
        [100, 250, 300, 1000]
            .contains(&hz)
            .then_some(Self(hz))
            .ok_or("must be 100, 250, 300 or 1000")
    }
}

/// What things cost, in time. `switch` and `resched` are what the deterministic guest of the lab shows, at 2 ns an
/// instruction, tracepoints and the callbacks of the kernel's half included (`tests/vm/conformance.rs`). It has no caches, and
/// its CPUs take turns: what depends on those is of the order that machines show.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Costs {
    /// From one task to another, before the new one does anything useful. Part of its run time.
    #[serde(deserialize_with = "span")]
    pub switch: u64,
    /// From the need to choose anew to the choice, on the CPU itself: the way out of an interrupt, the scheduler's lock, what
    /// `dispatch` does.
    #[serde(deserialize_with = "span")]
    pub resched: u64,
    /// From a kick to the interrupt on the other CPU.
    #[serde(deserialize_with = "span")]
    pub ipi: u64,
    /// From looking for a task in vain to being idle. Who is queued meanwhile saw no idle CPU.
    #[serde(deserialize_with = "span")]
    pub go_idle: u64,
    /// How far apart the clocks of CPUs are at ticks, at most.
    #[serde(deserialize_with = "span")]
    pub clock_skew: u64,
    /// Work that a task has more of after it came from another CPU of its LLC.
    #[serde(deserialize_with = "span")]
    pub migrate: u64,
    /// The same from another LLC.
    #[serde(deserialize_with = "span")]
    pub migrate_llc: u64,
    /// The same from another node.
    #[serde(deserialize_with = "span")]
    pub migrate_node: u64,
    /// From an event for a policy in user space that sleeps to its first call.
    #[serde(deserialize_with = "span")]
    pub policy_wake: u64,
    /// What each call of it takes, with its part of handing the decisions over.
    #[serde(deserialize_with = "span")]
    pub policy_call: u64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            switch: 16_000,
            resched: 12_500,
            ipi: 1_000,
            go_idle: 500,
            clock_skew: 0,
            migrate: 2_000,
            migrate_llc: 20_000,
            migrate_node: 40_000,
            policy_wake: 20_000,
            policy_call: 2_000,
        }
    }
}

/// Tasks that are alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name in the report.
    pub name: String,
    /// How many start by themselves; 0 for those that are only forked.
    pub tasks: u32,
    /// -20 to 19.
    #[serde(default)]
    pub nice: Nice,
    /// Of the kernel's policies for tasks that are not real-time.
    #[serde(default)]
    pub policy: Policy,
    /// Where they may run, as a list of CPUs (`0-3,8`); everywhere if absent.
    pub cpus: Option<String>,
    /// When each is born.
    #[serde(default = "at_once")]
    pub start: Dist,
    /// What each does, over and over.
    pub phases: Vec<Phase>,
}

/// A nice value.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(try_from = "i64")]
pub struct Nice(pub i32);

impl TryFrom<i64> for Nice {
    type Error = &'static str;

    fn try_from(nice: i64) -> Result<Self, Self::Error> {
        (-20..=19).contains(&nice).then_some(Self(nice as i32)).ok_or("must be from -20 to 19")
    }
}

/// A policy of the kernel's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Policy {
    /// SCHED_NORMAL.
    #[default]
    Normal = 0,
    /// SCHED_BATCH.
    Batch = 3,
    /// SCHED_IDLE.
    Idle = 5,
}

fn at_once() -> Dist {
    Dist::Fixed(0)
}

pub(super) fn span<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    dist::span(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn maybe_span<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    span(from).map(Some)
}

fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<Topology, D::Error> {
    topology::parse(&String::deserialize(from)?).map_err(|e| D::Error::custom(format!("{e:#}")))
}

impl Scenario {
    /// Reads a scenario; `topology` takes the place of its own.
    ///
    /// # Errors
    /// One line: what is wrong and, of the syntax, in which line and column.
    pub fn parse(text: &str, topology: Option<Topology>) -> Result<Self, String> {
        let mut scenario: Self =
            toml::from_str(text).map_err(|e| located(text, e.span(), e.message()))?;
        scenario.topology = topology.unwrap_or(scenario.topology);
        scenario.check()?;
        let names = scenario.group.iter().map(|group| (group.name.as_str(), group.tasks));
        let names = names.collect();
        for group in &scenario.group {
            phase::check(&group.phases, &names).map_err(|error| group.refuse(&error))?;
        }
        Ok(scenario)
    }

    /// Whether it can be simulated: what is said of more than one thing at a time. Phases are the business of who reads them.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.duration == 0 {
            return Err("duration: must be longer than 0".into());
        }
        let total: usize = self.group.iter().map(|group| group.tasks as usize).sum();
        if total == 0 {
            return Err("the groups have no task that starts by itself".into());
        }
        if total > TASKS_MAX {
            return Err(format!("{total} tasks: {TASKS_MAX} at most"));
        }
        let mut names = BTreeMap::new();
        for group in &self.group {
            if names.insert(group.name.as_str(), group.tasks).is_some() {
                return Err(format!("two groups are named '{}'", group.name.escape_default()));
            }
        }
        let nr_cpus = self.topology.places.len();
        for event in &self.event {
            if let Some(group) = event.group().filter(|group| !names.contains_key(group)) {
                let name = group.escape_default();
                return Err(format!("event: there is no group '{name}'"));
            }
            event
                .cpus()
                .map_or(Ok(()), |list| check_cpus(list, nr_cpus))
                .map_err(|e| format!("event: {e}"))?;
        }
        for group in &self.group {
            // Simulated time would stand.
            if !group.phases.iter().any(Phase::takes_time) {
                return Err(group.refuse("phases: none takes time"));
            }
            let lists = group.phases.iter().filter_map(Phase::cpus).chain(group.cpus.as_deref());
            for list in lists {
                check_cpus(list, nr_cpus).map_err(|error| group.refuse(&error))?;
            }
        }
        Ok(())
    }

    /// What of it never happens, a line each. `has_policy`: a policy in user space decides.
    pub fn without_effect(&self, has_policy: bool) -> Vec<String> {
        let mut warnings = Vec::new();
        for group in self.group.iter().filter(|group| group.tasks > 0) {
            if group.start.least() >= self.duration {
                let name = group.name.escape_default();
                warnings.push(format!("group '{name}' starts after the end of the run"));
            }
        }
        for (number, event) in (1..).zip(&self.event) {
            if event.at >= self.duration {
                warnings.push(format!("event {number} comes after the end of the run"));
            } else if matches!(event.what, What::PolicyStopped { .. }) && !has_policy {
                warnings.push(format!(
                    "event {number} stops the policy in user space, and there is none: see --policy"
                ));
            }
        }
        warnings
    }

    /// Where the tasks of a group may run.
    pub fn allowed(&self, group: &Group) -> Vec<CpuId> {
        self.cpus(group.cpus.as_deref())
    }

    /// The CPUs of a list; all of none, and of an empty one.
    pub fn cpus(&self, list: Option<&str>) -> Vec<CpuId> {
        let nr_cpus = self.topology.places.len();
        match list.filter(|list| !list.is_empty()) {
            Some(list) => cpulist::parse(list, nr_cpus),
            None => (0..nr_cpus as u32).map(CpuId).collect(),
        }
    }

    /// The names of all mutexes.
    pub fn locks(&self) -> Vec<&str> {
        let phases = self.group.iter().flat_map(|group| &group.phases);
        let mut names: Vec<_> = phases.filter_map(Phase::lock).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The number of a mutex among [`Self::locks`].
    pub fn lock_of(&self, name: &str) -> usize {
        self.locks().binary_search(&name).unwrap_or(0)
    }

    /// The number of a group of that name. [`Self::parse`] has seen that it exists.
    pub fn group_of(&self, name: &str) -> usize {
        self.group.iter().position(|group| group.name == name).unwrap_or(0)
    }
}

impl Group {
    /// Whether its tasks never sleep.
    pub fn is_hog(&self) -> bool {
        self.phases.iter().all(|phase| matches!(phase, Phase::Run(_)))
    }

    fn refuse(&self, error: &str) -> String {
        format!("group '{}': {error}", self.name.escape_default())
    }
}

fn check_cpus(list: &str, nr_cpus: usize) -> Result<(), String> {
    let is_good = |part: &str| {
        let cpus = cpulist::parse(part, nr_cpus + 1);
        !cpus.is_empty() && cpus.iter().all(|cpu| cpu.index() < nr_cpus)
    };
    if list.split(',').all(is_good) {
        return Ok(());
    }
    let (list, last) = (list.escape_default(), nr_cpus - 1);
    Err(format!("cpus: '{list}' is no list of CPUs from 0 to {last}"))
}

/// A message with its line and column, counted from 1.
fn located(text: &str, span: Option<Range<usize>>, message: &str) -> String {
    let message: Vec<_> = message.split_whitespace().collect();
    let message = message.join(" ");
    let Some(before) = span.and_then(|span| text.get(..span.start)) else { return message };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

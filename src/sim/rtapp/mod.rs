//! Scenarios of rt-app: the JSON files that describe threads of a workload to that program. What it knows and this does not is
//! refused by its name.
//!
//! Source: `doc/tutorial.txt` of rt-app, and its `src/rt-app.c` where that leaves something open.

mod events;
mod json;

use super::{
    dist::{Dist, SPAN_MAX_NS},
    phase::Phase,
    scenario::{Costs, Group, Hz, Nice, Policy, Scenario, TASKS_MAX},
    topology,
};
use crate::machine::topology::Topology;
use events::{Events, Names};
use json::Json;

/// Members of `global` that say how rt-app measures and writes, and nothing of what is scheduled.
const OF_RT_APP: [&str; 12] = [
    "calibration",
    "lock_pages",
    "logdir",
    "log_basename",
    "log_size",
    "ftrace",
    "gnuplot",
    "io_device",
    "mem_buffer_size",
    "cumulative_slack",
    "frag",
    "pi_enabled",
];
/// The longest duration in seconds.
const DURATION_MAX_S: i64 = 86_400;

/// What is wrong, with the way to it from the outermost object.
type Result<T> = std::result::Result<T, String>;

/// The members of an object that has its place in the file.
struct At<'a> {
    path: String,
    members: &'a [(String, Json)],
}

impl<'a> At<'a> {
    fn new(path: impl Into<String>, value: &'a Json) -> Result<Self> {
        let path = path.into();
        match value {
            Json::Object(members) => Ok(Self { path, members }),
            other => Err(format!("{path}: is {}, where an object is expected", other.kind())),
        }
    }

    fn below(&self, name: &str) -> String {
        let name = name.escape_default();
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    /// The member of that name, which is there once at most.
    fn get(&self, name: &str) -> Result<Option<&'a Json>> {
        let mut found = self.members.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let first = found.next();
        if found.next().is_some() {
            return Err(format!("{}: is given twice", self.below(name)));
        }
        Ok(first)
    }

    fn int(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        match value {
            Json::Int(value) if range.contains(value) => Ok(Some(*value)),
            _ => {
                let (low, high, name) = (range.start(), range.end(), self.below(name));
                Err(format!("{name}: must be a whole number from {low} to {high}"))
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.get(name)? {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(other) => {
                let name = self.below(name);
                Err(format!("{name}: is {}, where a string is expected", other.kind()))
            }
        }
    }
}

/// Microseconds of a day.
const US: std::ops::RangeInclusive<i64> = 0..=(SPAN_MAX_NS / 1000) as i64;
/// Times that something is done over and over.
const LOOPS: std::ops::RangeInclusive<i64> = -1..=1_000_000_000;

/// Reads a file of rt-app. Its CPUs are those of this machine, where there are no others.
///
/// # Errors
/// One line: what is wrong, and where: line and column, or the names from the outermost object.
pub fn parse(text: &str, topology: Option<Topology>) -> Result<Scenario> {
    let json = Json::parse(text)?;
    let file = At { path: String::new(), ..At::new("the file", &json)? };
    for (name, _) in file.members {
        if !["tasks", "global", "resources"].contains(&name.as_str()) {
            return Err(format!("{}: unknown; there are tasks and global", file.below(name)));
        }
    }
    let (duration, policy) = global(&file)?;
    let tasks = file.get("tasks")?.ok_or("tasks: is missing")?;
    let tasks = At::new("tasks", tasks)?;
    let mut names = Names::default();
    let groups = tasks
        .members
        .iter()
        .map(|(name, task)| group(name, &At::new(tasks.below(name), task)?, policy, &mut names))
        .collect::<Result<Vec<_>>>()?;
    names.check()?;
    let topology = match topology {
        Some(topology) => topology,
        None => topology::parse("host").map_err(|error| format!("{error:#}"))?,
    };
    let scenario = Scenario {
        about: "A workload of rt-app".into(),
        duration,
        hz: Hz::usual(),
        topology,
        costs: Costs::default(),
        group: groups,
        event: Vec::new(),
        conditions: names.conditions(),
    };
    scenario.check()?;
    Ok(scenario)
}

/// The duration in nanoseconds, and the policy of threads that do not say.
fn global(file: &At<'_>) -> Result<(u64, Policy)> {
    let none = Json::Object(Vec::new());
    let global = At::new("global", file.get("global")?.unwrap_or(&none))?;
    for (name, value) in global.members {
        match (name.as_str(), value) {
            ("duration" | "default_policy", _) => {}
            ("pi_enabled", Json::Bool(true)) => {
                return Err("global.pi_enabled: mutexes inherit no priority here".into());
            }
            (name, _) if OF_RT_APP.contains(&name) => {}
            (name, _) => return Err(format!("{}: is not simulated", global.below(name))),
        }
    }
    let duration = global.int("duration", 1..=DURATION_MAX_S)?;
    let missing = || format!("global.duration: is missing: 1 to {DURATION_MAX_S} seconds");
    let policy = policy(&global, "default_policy")?.unwrap_or_default();
    Ok((duration.ok_or_else(missing)? as u64 * 1_000_000_000, policy))
}

/// A policy of threads that the scheduler gets.
fn policy(at: &At<'_>, name: &str) -> Result<Option<Policy>> {
    Ok(match at.text(name)? {
        None => None,
        Some("SCHED_OTHER") => Some(Policy::Normal),
        Some("SCHED_BATCH") => Some(Policy::Batch),
        Some("SCHED_IDLE") => Some(Policy::Idle),
        Some(other) => {
            let (name, other) = (at.below(name), other.escape_default());
            return Err(format!(
                "{name}: '{other}' is not simulated, only SCHED_OTHER, SCHED_BATCH and SCHED_IDLE"
            ));
        }
    })
}

/// Where threads may run.
fn cpus(at: &At<'_>) -> Result<Option<String>> {
    let Some(value) = at.get("cpus")? else { return Ok(None) };
    let refuse = || format!("{}: must be a list of numbers of CPUs", at.below("cpus"));
    let Json::List(values) = value else { return Err(refuse()) };
    let number = |value: &Json| match value {
        Json::Int(cpu) if (0..=i64::from(u16::MAX)).contains(cpu) => Ok(cpu.to_string()),
        _ => Err(refuse()),
    };
    let list = values.iter().map(number).collect::<Result<Vec<_>>>()?.join(",");
    if list.is_empty() { Err(refuse()) } else { Ok(Some(list)) }
}

/// The nice value of threads; of rt-app's two names for it either.
fn nice(at: &At<'_>) -> Result<Option<Nice>> {
    let (priority, nice) = (at.int("priority", -20..=19)?, at.int("nice", -20..=19)?);
    if priority.is_some() && nice.is_some() {
        return Err(format!("{}: is the same as nice, which is given, too", at.below("priority")));
    }
    Ok(priority.or(nice).map(|nice| Nice(nice as i32)))
}

/// Members of a thread that are no events.
const OF_THREADS: [&str; 8] =
    ["instance", "delay", "loop", "phases", "policy", "priority", "nice", "cpus"];
/// And of a phase.
const OF_PHASES: [&str; 4] = ["loop", "priority", "nice", "cpus"];

/// The threads of a name.
fn group(name: &str, at: &At<'_>, default: Policy, names: &mut Names) -> Result<Group> {
    let instances = at.int("instance", 0..=TASKS_MAX as i64)?.unwrap_or(1);
    let (own_cpus, own_nice) = (cpus(at)?, nice(at)?);
    let mut events = Events::new(name, instances as u32, names);
    let forever = -1;
    let loops = at.int("loop", LOOPS)?.unwrap_or(forever);
    match at.get("phases")? {
        None => events.add(at, &OF_THREADS)?,
        Some(phases) => {
            if let Some((event, _)) =
                at.members.iter().find(|(key, _)| !OF_THREADS.contains(&key.as_str()))
            {
                return Err(format!("{}: unknown beside phases", at.below(event)));
            }
            let phases = At::new(at.below("phases"), phases)?;
            // From one phase to the next an affinity goes back to the thread's, a priority does not.
            let mut moved = false;
            for (name, phase) in phases.members {
                let phase = At::new(phases.below(name), phase)?;
                let first = events.phases.len();
                let there = cpus(&phase)?;
                if there.is_some() || moved {
                    let back = || own_cpus.clone().or_else(|| Some(String::new()));
                    moved = there.is_some();
                    events.phases.extend(there.or_else(back).map(Phase::Affinity));
                }
                events.phases.extend(nice(&phase)?.map(Phase::Nice));
                let from = events.phases.len();
                events.add(&phase, &OF_PHASES)?;
                match phase.int("loop", LOOPS)?.unwrap_or(1) {
                    1 => {}
                    0 => events.phases.truncate(first),
                    times => events.repeat(0, from, times),
                }
            }
        }
    }
    if events.phases.is_empty() {
        return Err(format!("{}: does nothing", at.path));
    }
    match loops {
        0 => events.phases.clear(),
        -1 => {}
        times => events.repeat(1, 0, times),
    }
    if loops != forever {
        events.phases.push(Phase::Exit);
    }
    let delay_us = at.int("delay", US)?.unwrap_or(0);
    Ok(Group {
        name: name.to_owned(),
        tasks: instances as u32,
        nice: own_nice.unwrap_or_default(),
        policy: policy(at, "policy")?.unwrap_or(default),
        cpus: own_cpus,
        start: Dist::Fixed(delay_us as u64 * 1000),
        phases: events.phases,
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! What rt-app's threads do, as phases.

use super::{super::dist::Dist, super::phase::Phase, At, Json, Result, US};
use std::collections::BTreeMap;

/// What threads know each other by.
#[derive(Default)]
pub struct Names {
    /// Conditions, by kind and name.
    conditions: BTreeMap<(Kind, String), usize>,
    /// Timers that are not `unique`: whose they are, and where they were seen.
    shared: BTreeMap<String, String>,
    /// Threads that are forked, and where.
    forked: Vec<(String, String)>,
    threads: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Condition,
    Suspended,
}

impl Names {
    fn condition(&mut self, kind: Kind, name: &str) -> usize {
        let next = self.conditions.len();
        *self.conditions.entry((kind, name.to_owned())).or_insert(next)
    }

    /// How many conditions there are.
    pub fn conditions(&self) -> usize {
        self.conditions.len()
    }

    /// Whether all that is named is there.
    pub fn check(&self) -> Result<()> {
        match self.forked.iter().find(|(name, _)| !self.threads.contains(name)) {
            Some((name, at)) => {
                Err(format!("{at}: there is no thread '{}' in tasks", name.escape_default()))
            }
            None => Ok(()),
        }
    }
}

/// What rt-app does and this does not, by the beginning of the event's name, and why.
const NOT_SIMULATED: [(&str, &str); 9] = [
    ("mem", "is not simulated: what memory costs is no matter of scheduling here"),
    ("iorun", "is not simulated: there are no devices"),
    ("barrier", "is not simulated: lock, wait and broad can stand for it"),
    ("dl-", "is not simulated: SCHED_DEADLINE is another class's"),
    ("util_", "is not simulated: there are no frequencies"),
    ("nodes_membership", "is not simulated: give the CPUs of the nodes as cpus"),
    ("taskgroup", "is not simulated: there are no cgroups"),
    ("policy", "is not simulated in a phase, only of a thread"),
    ("membind", "is not simulated"),
];

/// Events of rt-app by the beginnings of their names, the longer ones first.
const EVENTS: [&str; 14] = [
    "runtime", "suspend", "resume", "signal", "unlock", "broad", "sleep", "timer", "yield", "fork",
    "lock", "sync", "wait", "run",
];

/// The phases of a thread, as they come.
pub struct Events<'a> {
    pub phases: Vec<Phase>,
    thread: &'a str,
    instances: u32,
    /// Mutexes that it has at this place.
    held: Vec<String>,
    /// Its timers.
    timers: Vec<String>,
    names: &'a mut Names,
}

impl<'a> Events<'a> {
    pub fn new(thread: &'a str, instances: u32, names: &'a mut Names) -> Self {
        names.threads.push(thread.to_owned());
        Self { phases: Vec::new(), thread, instances, held: Vec::new(), timers: Vec::new(), names }
    }

    /// All that is done from a phase on is done so many times, over and over if that is negative. There are two levels of that.
    pub fn repeat(&mut self, level: u8, from: usize, times: i64) {
        self.phases.push(Phase::Repeat { level, from, times: u64::try_from(times).ok() });
    }

    /// The events of an object, whose other members are `others`.
    pub fn add(&mut self, at: &At<'_>, others: &[&str]) -> Result<()> {
        let before = self.phases.len();
        for (name, value) in at.members {
            if others.contains(&name.as_str()) {
                continue;
            }
            let path = at.below(name);
            if let Some((_, why)) = NOT_SIMULATED.iter().find(|(start, _)| name.starts_with(start))
            {
                return Err(format!("{path}: {why}"));
            }
            let Some(event) = EVENTS.iter().find(|event| name.starts_with(**event)) else {
                return Err(format!("{path}: unknown; the events are {}", EVENTS.join(", ")));
            };
            self.event(event, path, value)?;
        }
        if self.phases.len() == before {
            return Err(format!("{}: has no event", at.path));
        }
        Ok(())
    }

    fn event(&mut self, event: &str, path: String, value: &Json) -> Result<()> {
        let refuse =
            |what: &str| Err(format!("{path}: is {}, where {what} is expected", value.kind()));
        match (event, value) {
            ("run" | "runtime", value) => self.phases.push(Phase::Run(span(&path, value)?)),
            ("sleep", value) => self.phases.push(Phase::Sleep(span(&path, value)?)),
            ("timer", value) => self.timer(&At::new(path, value)?)?,
            ("wait" | "sync", value) => {
                let at = At::new(path, value)?;
                self.wait(event == "sync", &at)?;
            }
            ("yield", Json::Text(_)) => self.phases.push(Phase::Yield),
            ("suspend", Json::Text(name)) => {
                let name = if name.is_empty() { self.thread } else { name };
                let condition = self.names.condition(Kind::Suspended, name);
                self.phases.push(Phase::Await { condition, mutex: None });
            }
            (_, Json::Text(name)) if name.is_empty() => return Err(format!("{path}: is empty")),
            ("lock", Json::Text(name)) => self.lock(&path, name)?,
            ("unlock", Json::Text(name)) => self.unlock(&path, name)?,
            ("resume", Json::Text(name)) => {
                let condition = self.names.condition(Kind::Suspended, name);
                self.phases.push(Phase::Signal { condition, all: true });
            }
            ("signal" | "broad", Json::Text(name)) => {
                let condition = self.names.condition(Kind::Condition, name);
                self.phases.push(Phase::Signal { condition, all: event == "broad" });
            }
            ("fork", Json::Text(name)) => {
                self.names.forked.push((name.clone(), path));
                self.phases.push(Phase::Fork(name.clone()));
            }
            _ => return refuse("a string"),
        }
        Ok(())
    }

    fn lock(&mut self, path: &str, name: &str) -> Result<()> {
        if self.held.iter().any(|held| held == name) {
            return Err(format!("{path}: '{}' is locked here, for ever", name.escape_default()));
        }
        self.held.push(name.to_owned());
        self.phases.push(Phase::Lock(name.to_owned()));
        Ok(())
    }

    fn unlock(&mut self, path: &str, name: &str) -> Result<()> {
        let Some(at) = self.held.iter().position(|held| held == name) else {
            return Err(format!("{path}: '{}' is not locked here", name.escape_default()));
        };
        self.held.remove(at);
        self.phases.push(Phase::Unlock(name.to_owned()));
        Ok(())
    }

    fn wait(&mut self, signals: bool, at: &At<'_>) -> Result<()> {
        only(at, &["ref", "mutex"])?;
        let text =
            |name: &str| at.text(name)?.ok_or_else(|| format!("{}: is missing", at.below(name)));
        let (name, mutex) = (text("ref")?, text("mutex")?);
        let condition = self.names.condition(Kind::Condition, name);
        let is_held = self.held.iter().any(|held| held == mutex);
        if !is_held && !signals {
            let mutex = mutex.escape_default();
            return Err(format!("{}: the mutex '{mutex}' is not locked here", at.path));
        }
        // sync takes and gives the mutex itself, unless the thread has it.
        if !is_held {
            self.lock(&at.path, mutex)?;
        }
        if signals {
            self.phases.push(Phase::Signal { condition, all: false });
        }
        self.phases.push(Phase::Await { condition, mutex: Some(mutex.to_owned()) });
        if !is_held {
            self.unlock(&at.path, mutex)?;
        }
        Ok(())
    }

    fn timer(&mut self, at: &At<'_>) -> Result<()> {
        only(at, &["ref", "period", "mode"])?;
        let name = at.text("ref")?.ok_or_else(|| format!("{}: is missing", at.below("ref")))?;
        if !name.starts_with("unique") {
            let owner =
                self.names.shared.entry(name.to_owned()).or_insert_with(|| self.thread.to_owned());
            if owner != self.thread || self.instances > 1 {
                let name = name.escape_default();
                return Err(format!(
                    "{}: the timer '{name}' of several threads is not simulated, only 'unique' ones",
                    at.below("ref")
                ));
            }
        }
        let period = at.int("period", 1..=*US.end())?;
        let period = period.ok_or_else(|| format!("{}: is missing", at.below("period")))?;
        let absolute = match at.text("mode")? {
            None | Some("relative") => false,
            Some("absolute") => true,
            Some(_) => return Err(format!("{}: must be relative or absolute", at.below("mode"))),
        };
        let timer = self.timers.iter().position(|timer| timer == name).unwrap_or_else(|| {
            self.timers.push(name.to_owned());
            self.timers.len() - 1
        });
        self.phases.push(Phase::Timer { timer, every: period as u64 * 1000, absolute });
        Ok(())
    }
}

fn span(path: &str, value: &Json) -> Result<Dist> {
    match value {
        Json::Int(us) if US.contains(us) => Ok(Dist::Fixed(*us as u64 * 1000)),
        _ => Err(format!("{path}: must be a whole number of microseconds from 0 to {}", US.end())),
    }
}

fn only(at: &At<'_>, names: &[&str]) -> Result<()> {
    match at.members.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(format!("{}: unknown; there are {}", at.below(name), names.join(", ")))
        }
        None => Ok(()),
    }
}

//! Rules: what the user says of tasks, by name, path, cgroup, user and nice. The first that matches a task counts.
//!
//! [`matcher`] finds the rule of a task with the [`globs`] that it has, [`lint`] what a user should know of a list of them; the kernel's half is told by
//! [`crate::machine::ruler`]. What a rule does there: `src/bpf/follow.h`.

pub mod explain;
pub mod globs;
pub mod lint;
pub mod matcher;

use crate::{
    bpf::intf::{self, effect},
    stats::text,
    units::{CpuId, Nanos},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Write},
    ops::RangeInclusive,
};

/// Rules at most.
pub const RULES_MAX: usize = intf::RULES_MAX as usize;
/// Different sets of CPUs that they may prefer.
pub const CPU_SETS_MAX: usize = intf::CPU_SETS_MAX as usize;
/// Factors of a weight.
pub const WEIGHT: RangeInclusive<f64> = 0.01..=100.0;
/// Shares of a CPU that a boost may be for, in percent.
pub const BUDGET_PERCENT: RangeInclusive<u64> = 1..=90;
/// Periods of a boost, in milliseconds. Ticks of 4 ms are when it is noticed that a budget is used up.
pub const PERIOD_MS: RangeInclusive<u64> = 20..=1_000;
/// How long a boost may last, in seconds: up to a week.
pub const EXPIRES_S: RangeInclusive<u64> = 1..=604_800;
/// Of a boost that is given none: enough for what a person waits for, and others keep most of the CPU.
pub const BUDGET_PERCENT_DEFAULT: u64 = 25;
/// Likewise.
pub const PERIOD_MS_DEFAULT: u64 = 100;

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it is written: file, line and column.
    pub at: String,
    /// Whom it is about.
    pub who: Who,
    /// What it makes of them.
    pub effect: Effect,
}

/// Whom a rule is about: all that is given must be true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Who {
    /// A glob of the name of the program, which a thread may change.
    pub name: Option<String>,
    /// A glob of the path of the program.
    pub exe: Option<String>,
    /// A glob of the path of the cgroup, below the root of all.
    pub cgroup: Option<String>,
    /// The effective user.
    pub user: Option<User>,
    /// Nice values.
    pub nice: Option<RangeInclusive<i32>>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// Number.
    pub id: u32,
    /// As the rule has it.
    pub said: String,
}

/// What a rule makes of a task. None: as it is without.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effect {
    /// How it competes.
    pub class: Option<Class>,
    /// What its weight is multiplied by.
    pub weight: Option<f64>,
    /// Its longest slice.
    pub slice: Option<Nanos>,
    /// CPUs that it had better be on, ascending.
    pub cpus: Option<Vec<CpuId>>,
    /// Bounds of a boost; there are some exactly if it is one.
    pub boost: Option<Boost>,
}

/// How much of a boost there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boost {
    /// Share of a CPU.
    pub budget_percent: u64,
    /// In which that share is measured, in milliseconds.
    pub period_ms: u64,
    /// Seconds from the match to its end.
    pub expires_s: Option<u64>,
}

/// How a task competes, the soonest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Before all that sleep and wake; a boost.
    Latency,
    /// As SCHED_NORMAL.
    Normal,
    /// As SCHED_BATCH: preempts nobody.
    Batch,
    /// As SCHED_IDLE: gives way to all others.
    Idle,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Latency, Self::Normal, Self::Batch, Self::Idle];

    /// As rules have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Normal => "normal",
            Self::Batch => "batch",
            Self::Idle => "idle",
        }
    }

    fn number(self) -> intf::task_class {
        match self {
            Self::Latency => intf::task_class_CLASS_LATENCY,
            Self::Normal => intf::task_class_CLASS_NORMAL,
            Self::Batch => intf::task_class_CLASS_BATCH,
            Self::Idle => intf::task_class_CLASS_IDLE,
        }
    }

    /// By the number that the kernel's half has; none for a task that goes by its own policy.
    pub fn of_number(number: intf::task_class) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }
}

impl Effect {
    /// Whether it puts a task before others.
    pub fn boosts(&self) -> bool {
        self.class == Some(Class::Latency) || self.weight.is_some_and(|weight| weight > 1.0)
    }

    /// As the kernel's half takes it. `cpu_set` is the index of its CPUs plus 1, or 0.
    pub fn wire(&self, cpu_set: u32) -> effect {
        let factor = self.weight.unwrap_or(1.0) * f64::from(intf::FACTOR_ONE);
        let period = self.boost.map_or(0, |boost| Nanos::from_millis(boost.period_ms).0);
        let expires_s = self.boost.and_then(|boost| boost.expires_s).unwrap_or(0);
        effect {
            slice_ns: self.slice.map_or(0, |slice| slice.0),
            budget_ns: self.boost.map_or(0, |boost| period / 100 * boost.budget_percent),
            period_ns: period,
            expires_ns: Nanos::from_millis(1000 * expires_s).0,
            // The range keeps it in 32 bits, and above 0.
            factor: factor.round() as u32,
            class: self.class.map_or(intf::task_class_CLASS_OWN, Class::number),
            cpu_set,
            pad: 0,
        }
    }
}

impl Rule {
    /// As a table of the configuration file, a line a field.
    pub fn lines(&self) -> Vec<String> {
        let (who, effect) = (&self.who, &self.effect);
        let string = |text: &String| quoted(text);
        let mut fields = Vec::new();
        let mut add = |key: &str, value: Option<String>| {
            fields.extend(value.map(|value| format!("{key} = {value}")));
        };
        add("name", who.name.as_ref().map(string));
        add("exe", who.exe.as_ref().map(string));
        add("cgroup", who.cgroup.as_ref().map(string));
        add("user", who.user.as_ref().map(|user| string(&user.said)));
        add("nice", who.nice.as_ref().map(shown_nice));
        add("class", effect.class.map(|class| format!("{:?}", class.name())));
        add("weight", effect.weight.map(|weight| format!("{weight:?}")));
        add("slice_us", effect.slice.map(|slice| (slice.0 / 1000).to_string()));
        add("cpus", effect.cpus.as_ref().map(|cpus| format!("{:?}", shown_cpus(cpus))));
        if let Some(boost) = effect.boost {
            add("budget_percent", Some(boost.budget_percent.to_string()));
            add("period_ms", Some(boost.period_ms.to_string()));
            add("expires_s", boost.expires_s.map(|s| s.to_string()));
        }
        fields
    }
}

/// On one line.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join(", "))
    }
}

/// A text as a string of TOML in which everything shows.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || text::is_format(c) => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn shown_nice(nice: &RangeInclusive<i32>) -> String {
    if nice.start() == nice.end() {
        return nice.start().to_string();
    }
    format!("\"{}..{}\"", nice.start(), nice.end())
}

/// CPUs as a list of ranges.
fn shown_cpus(cpus: &[CpuId]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu.0 => *last = cpu.0,
            _ => ranges.push((cpu.0, cpu.0)),
        }
    }
    let range = |&(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(crate) mod made {
    //! Rules for tests.

    use super::*;

    /// A rule of this name and class.
    pub fn rule(who: Who, class: Class) -> Rule {
        let effect = Effect { class: Some(class), ..Effect::default() };
        Rule { at: "test".to_owned(), who, effect }
    }

    /// One about this name.
    pub fn named(name: &str) -> Who {
        Who { name: Some(name.to_owned()), ..Who::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gets_what_was_said() {
        let boost = Boost { budget_percent: 20, period_ms: 100, expires_s: Some(3) };
        let effect = Effect {
            class: Some(Class::Latency),
            weight: Some(2.5),
            slice: Some(Nanos::from_micros(700)),
            cpus: None,
            boost: Some(boost),
        };
        let wire = effect.wire(7);
        assert_eq!((wire.budget_ns, wire.period_ns), (20_000_000, 100_000_000));
        assert_eq!((wire.expires_ns, wire.slice_ns), (3_000_000_000, 700_000));
        assert_eq!((wire.factor, wire.class, wire.cpu_set), (2560, 1, 7));
        let least = Effect { weight: Some(*WEIGHT.start()), ..Effect::default() }.wire(0);
        assert_eq!((least.factor, least.budget_ns, least.class), (10, 0, 0));
        for class in Class::ALL {
            assert_eq!(Class::of_number(class.number()), Some(class));
        }
        assert_eq!(Class::of_number(intf::task_class_CLASS_OWN), None);
    }

    #[test]
    fn what_is_shown_is_toml_and_hides_nothing() {
        let who = made::named("a\\*\"\n\x1b\u{202e}, b");
        let shown = made::rule(who.clone(), Class::Batch).to_string();
        assert!(shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown}");
        let table: toml::Table =
            toml::from_str(&shown.replace(", class", "\nclass")).expect("TOML");
        assert_eq!(table["name"].as_str(), who.name.as_deref());
    }

    #[test]
    fn lists_of_cpus_are_short() {
        let cpus = [0, 1, 2, 5, 7, 8].map(CpuId);
        assert_eq!(shown_cpus(&cpus), "0-2,5,7-8");
    }
}

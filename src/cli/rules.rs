//! Rules in the configuration file: `[[rule]]`, one a table.

use super::{
    file::{likely, name_of, scalar},
    place::Source,
};
use crate::{
    bpf::intf,
    exit::Failure,
    machine::cpulist,
    rules::{
        BUDGET_PERCENT, BUDGET_PERCENT_DEFAULT, Boost, CPU_SETS_MAX, Class, EXPIRES_S, Effect,
        PERIOD_MS, PERIOD_MS_DEFAULT, RULES_MAX, Rule, User, WEIGHT, Who,
        globs::{Kind, Pattern},
    },
    settings::SLICE_US,
    stats::text,
    units::Nanos,
};
use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The key of the tables.
pub(super) const KEY: &str = "rule";
const FIELDS: [&str; 12] = [
    "name",
    "exe",
    "cgroup",
    "user",
    "nice",
    "class",
    "weight",
    "slice_us",
    "cpus",
    "budget_percent",
    "period_ms",
    "expires_s",
];
const NICE: RangeInclusive<i32> = -20..=19;
const CPUS_MAX: usize = intf::limits_MAX_CPUS as usize;
/// A longer glob is no path.
const GLOB_MAX: usize = 1024;

/// The tables of a file.
pub(super) fn parse(
    source: &Source<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<Rule>, Failure> {
    let refuse = |at: usize, why: &str| source.refuse(at, why);
    let begin = value.span().start;
    let DeValue::Array(tables) = value.get_ref() else {
        let what = name_of(value.get_ref());
        return Err(refuse(begin, &format!("rules are tables, each below a [[rule]], not {what}")));
    };
    if tables.len() > RULES_MAX {
        let why = format!("there are {} rules, {RULES_MAX} at most", tables.len());
        return Err(refuse(begin, &why));
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut known: HashMap<Who, usize> = HashMap::new();
    let mut sets = HashSet::new();
    for (number, table) in (1..).zip(tables.iter()) {
        let at = table.span().start;
        let DeValue::Table(fields) = table.get_ref() else {
            let what = name_of(table.get_ref());
            return Err(refuse(at, &format!("a rule is a table, not {what}")));
        };
        let rule = read(source, fields, source.place(at).to_string())?
            .map_err(|why| refuse(at, &format!("rule {number}: {why}")))?;
        if let Some(first) = known.insert(rule.who.clone(), number) {
            let why =
                format!("rule {number} is about the same as rule {first}, which comes before it");
            return Err(refuse(at, &why));
        }
        sets.extend(rule.effect.cpus.clone());
        if sets.len() > CPU_SETS_MAX {
            let why =
                format!("rule {number}: there are {CPU_SETS_MAX} different sets of CPUs at most");
            return Err(refuse(at, &why));
        }
        rules.push(rule);
    }
    Ok(rules)
}

/// A rule; the inner error is one of its fields together.
fn read(
    source: &Source<'_>,
    fields: &DeTable<'_>,
    at: String,
) -> Result<Result<Rule, String>, Failure> {
    let mut draft = Draft::default();
    let mut fields: Vec<_> = fields.iter().collect();
    // The first mistake is told, from above.
    fields.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in fields {
        let name = key.get_ref().as_ref();
        if !FIELDS.contains(&name) {
            let meant = likely(name, FIELDS);
            let name = text::printable(name.as_bytes());
            let all = FIELDS.join(", ");
            let why = format!("a rule has no field '{name}'; {meant}The fields are {all}");
            return Err(source.refuse(key.span().start, &why));
        }
        draft.set(name, value.get_ref()).map_err(|must| {
            let said = source.shown(value.span());
            source.refuse(value.span().start, &format!("{name} = {said}: {must}"))
        })?;
    }
    Ok(draft.rule(at))
}

/// A rule as far as it was read.
#[derive(Default)]
struct Draft {
    who: Who,
    effect: Effect,
    budget_percent: Option<u64>,
    period_ms: Option<u64>,
    expires_s: Option<u64>,
}

impl Draft {
    fn set(&mut self, field: &str, value: &DeValue<'_>) -> Result<(), String> {
        let (who, effect) = (&mut self.who, &mut self.effect);
        match field {
            "name" => who.name = Some(pattern(value, Kind::Name)?),
            "exe" => who.exe = Some(pattern(value, Kind::Path)?),
            "cgroup" => who.cgroup = Some(pattern(value, Kind::Path)?),
            "user" => who.user = Some(user(value)?),
            "nice" => who.nice = Some(nice(value)?),
            "class" => effect.class = Some(class(value)?),
            "weight" => effect.weight = Some(weight(value)?),
            "slice_us" => effect.slice = Some(Nanos::from_micros(number(value, SLICE_US)?)),
            "cpus" => {
                let list = string(value)?;
                let cpus = cpulist::parse(list, CPUS_MAX);
                let is_list = list.chars().all(|c| c.is_ascii_digit() || "-, ".contains(c));
                if cpus.is_empty() || !is_list {
                    return Err(format!("must be a list of CPUs below {CPUS_MAX}, as in 0-3,8"));
                }
                effect.cpus = Some(cpus);
            }
            "budget_percent" => self.budget_percent = Some(number(value, BUDGET_PERCENT)?),
            "period_ms" => self.period_ms = Some(number(value, PERIOD_MS)?),
            _ => self.expires_s = Some(number(value, EXPIRES_S)?),
        }
        Ok(())
    }

    fn rule(self, at: String) -> Result<Rule, String> {
        let Self { who, mut effect, budget_percent, period_ms, expires_s } = self;
        if who == Who::default() {
            return Err("it says nobody: one of name, exe, cgroup, user and nice at least".into());
        }
        if effect == Effect::default() {
            return Err("it says nothing: one of class, weight, slice_us and cpus at least".into());
        }
        let class = effect.class.map_or("", Class::name);
        if effect.class == Some(Class::Idle) && effect.weight.is_some() {
            return Err(format!(
                "class = {class:?} has a weight of its own, beside which there is none"
            ));
        }
        if effect.class == Some(Class::Batch) && effect.weight.is_some_and(|weight| weight > 1.0) {
            return Err(format!("a weight above 1 is a boost, and class = {class:?} is none"));
        }
        if effect.boosts() {
            effect.boost = Some(Boost {
                budget_percent: budget_percent.unwrap_or(BUDGET_PERCENT_DEFAULT),
                period_ms: period_ms.unwrap_or(PERIOD_MS_DEFAULT),
                expires_s,
            });
        } else if budget_percent.or(period_ms).or(expires_s).is_some() {
            let why = "budget_percent, period_ms and expires_s are of a boost: of class = \"latency\", or a weight above 1";
            return Err(why.into());
        }
        Ok(Rule { at, who, effect })
    }
}

fn string<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(format!("must be a string, not {}", name_of(other))),
    }
}

fn pattern(value: &DeValue<'_>, kind: Kind) -> Result<String, String> {
    let text = string(value)?;
    if text.is_empty() || text.len() > GLOB_MAX {
        return Err(format!("must be a glob of 1 to {GLOB_MAX} bytes"));
    }
    Pattern::new(text, kind)
        .map_err(|why| format!("must be a glob: {}", text::printable(why.as_bytes())))?;
    Ok(text.to_owned())
}

fn number(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let must = || format!("must be a whole number from {} to {}", range.start(), range.end());
    match value {
        DeValue::Integer(_) => {
            let number = scalar(value).and_then(|n| n.parse().ok());
            number.filter(|n| range.contains(n)).ok_or_else(must)
        }
        other => Err(format!("{}, not {}", must(), name_of(other))),
    }
}

fn weight(value: &DeValue<'_>) -> Result<f64, String> {
    let must = || {
        let (low, high) = (WEIGHT.start(), WEIGHT.end());
        format!("must be a factor of the weight from {low} to {high}; bigger is sooner")
    };
    match value {
        DeValue::Integer(_) | DeValue::Float(_) => {
            let number = scalar(value).and_then(|n| n.replace('_', "").parse().ok());
            number.filter(|n| WEIGHT.contains(n)).ok_or_else(must)
        }
        other => Err(format!("{}, not {}", must(), name_of(other))),
    }
}

fn class(value: &DeValue<'_>) -> Result<Class, String> {
    let names = Class::ALL.map(Class::name);
    let text = string(value).map_err(|why| format!("{why}: one of {}", names.join(", ")))?;
    let class = Class::ALL.into_iter().find(|class| class.name() == text);
    class.ok_or_else(|| format!("{}must be one of {}", likely(text, names), names.join(", ")))
}

fn user(value: &DeValue<'_>) -> Result<User, String> {
    let said = match value {
        DeValue::Integer(_) => scalar(value).unwrap_or_default(),
        _ => string(value)
            .map_err(|_| "must be the name or the number of a user".to_owned())?
            .to_owned(),
    };
    if let Ok(id) = said.parse() {
        return Ok(User { id, said });
    }
    match nix::unistd::User::from_name(&said) {
        Ok(Some(user)) => Ok(User { id: user.uid.as_raw(), said }),
        Ok(None) => Err("there is no such user".to_owned()),
        Err(error) => Err(format!("looking for that user: {error}")),
    }
}

fn nice(value: &DeValue<'_>) -> Result<RangeInclusive<i32>, String> {
    let text = scalar(value).unwrap_or_default();
    let (first, last) = text.split_once("..").unwrap_or((&text, &text));
    let range = first.parse().ok().zip(last.parse().ok()).map(|(first, last)| first..=last);
    range
        .filter(|nice| NICE.contains(nice.start()) && NICE.contains(nice.end()) && !nice.is_empty())
        .ok_or_else(|| {
            "must be a nice value from -20 to 19, or a range of them, as in \"-20..-1\"".into()
        })
}

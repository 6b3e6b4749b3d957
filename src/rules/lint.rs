//! What a user should know of a list of rules that is good as such.

use super::{
    Rule, Who,
    globs::{Kind, Pattern, Scratch},
};
use crate::bpf::intf;
use std::cell::OnceCell;

/// Names of tasks are no longer, in bytes.
const NAME_MAX: usize = intf::limits_TASK_COMM_CHARS as usize - 1;

/// Rules that never have an effect, and why, a line each.
pub fn warnings(rules: &[Rule]) -> Vec<String> {
    let read: Vec<_> = rules.iter().map(Said::of).collect();
    let mut scratch = Scratch::default();
    let mut warnings = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let why = never(rule).or_else(|| {
            let first = (0..i).find(|&j| {
                covers(&rules[j].who, &rule.who)
                    && read[j]
                        .iter()
                        .zip(&read[i])
                        .all(|(outer, inner)| outer.covers(inner, &mut scratch))
            })?;
            let (number, at) = (first + 1, &rules[first].at);
            Some(format!("rule {number} ({at}) matches all that it is about, and comes before it"))
        });
        if let Some(why) = why {
            warnings.push(format!("{}: rule {} has no effect: {why}", rule.at, i + 1));
        }
    }
    warnings
}

/// Why no task can be what the rule says.
fn never(rule: &Rule) -> Option<String> {
    let who = &rule.who;
    if who.name.as_ref().is_some_and(|name| is_literal(name) && name.len() > NAME_MAX) {
        return Some(format!("names of tasks have {NAME_MAX} bytes at most"));
    }
    let paths = [("exe", &who.exe), ("cgroup", &who.cgroup)];
    let no_root = paths.into_iter().find(|(_, path)| {
        path.as_ref().is_some_and(|path| !path.starts_with(['/', '*', '?', '[', '{', '\\']))
    });
    no_root.map(|(field, _)| format!("{field} is a path from the root, and begins with a /"))
}

/// Whether a glob stands for nothing but itself.
fn is_literal(glob: &str) -> bool {
    !glob.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// Whether `earlier` is about all users and nice values that `later` is about.
fn covers(earlier: &Who, later: &Who) -> bool {
    let user = earlier
        .user
        .as_ref()
        .is_none_or(|user| later.user.as_ref().map(|later| later.id) == Some(user.id));
    user && earlier.nice.as_ref().is_none_or(|nice| {
        let inner = later.nice.as_ref();
        inner.is_some_and(|inner| nice.start() <= inner.start() && inner.end() <= nice.end())
    })
}

/// A glob of a rule, or none, as each is compared with those of all rules after it.
struct Said<'a> {
    text: Option<&'a String>,
    is_literal: bool,
    kind: Kind,
    /// Read when something is first held against it, as few are.
    pattern: OnceCell<Option<Pattern>>,
}

impl<'a> Said<'a> {
    fn of(rule: &'a Rule) -> [Self; 3] {
        let who = &rule.who;
        let globs = [(&who.name, Kind::Name), (&who.exe, Kind::Path), (&who.cgroup, Kind::Path)];
        globs.map(|(text, kind)| Self {
            text: text.as_ref(),
            is_literal: text.as_ref().is_some_and(|text| is_literal(text)),
            kind,
            pattern: OnceCell::new(),
        })
    }

    /// Whether this matches all that `later` does, as far as that is seen: a later one that is a glob must be the same.
    fn covers(&self, later: &Self, scratch: &mut Scratch) -> bool {
        let Some(outer) = self.text else { return true };
        let Some(inner) = later.text else { return false };
        let mut matches = || {
            // Those of rules are good: they were read.
            let pattern = self.pattern.get_or_init(|| Pattern::new(outer, self.kind).ok());
            pattern.as_ref().is_some_and(|glob| glob.matches(inner.as_bytes(), scratch))
        };
        outer == inner || outer == "**" || !self.is_literal && later.is_literal && matches()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Class, made};

    #[test]
    fn what_can_never_match_is_told() {
        let cgroup = |path: &str| Who { cgroup: Some(path.to_owned()), ..Who::default() };
        let rules: Vec<_> = [
            made::named("ff*"),
            made::named("ffplay"),
            Who { nice: Some(0..=5), ..made::named("ff*") },
            made::named("f*"),
            made::named("a-name-of-more-than-15"),
            cgroup("system.slice"),
            Who { nice: Some(0..=9), ..Who::default() },
            Who { nice: Some(3..=4), ..cgroup("/a") },
            cgroup("/a"),
        ]
        .into_iter()
        .map(|who| made::rule(who, Class::Batch))
        .collect();
        let told = warnings(&rules);
        let about: Vec<_> = [2, 3, 5, 6, 8].map(|i| format!("rule {i} has no effect")).into();
        assert_eq!(told.len(), about.len(), "{told:#?}");
        for (line, words) in told.iter().zip(&about) {
            assert!(line.contains(words), "{line}");
        }
        assert!(told[0].contains("rule 1 (test)") && told[2].contains("15 bytes"), "{told:#?}");
        assert!(told[3].contains("begins with a /") && told[4].contains("rule 7"), "{told:#?}");
    }
}

//! What a user should know of a list of rules that is good as such.

use super::{
    Rule,
    matcher::{Kind, glob},
};
use crate::bpf::intf;
use globset::GlobMatcher;

/// Names of tasks are no longer, in bytes.
const NAME_MAX: usize = intf::limits_TASK_COMM_CHARS as usize - 1;

/// Rules that never have an effect, and why, a line each.
pub fn warnings(rules: &[Rule]) -> Vec<String> {
    let compiled: Vec<_> = rules.iter().map(Compiled::new).collect();
    let mut warnings = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let why = never(rule).or_else(|| {
            let first = (0..i).find(|&j| compiled[j].covers(&rules[j], rule))?;
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

/// The globs of a rule.
struct Compiled([Option<GlobMatcher>; 3]);

impl Compiled {
    fn new(rule: &Rule) -> Self {
        let made = |text: &Option<String>, kind| {
            // Those of rules are good: they were read. A literal one covers itself alone.
            let text = text.as_ref().filter(|text| !is_literal(text))?;
            Some(glob(text, kind).ok()?.compile_matcher())
        };
        let who = &rule.who;
        Self([
            made(&who.name, Kind::Name),
            made(&who.exe, Kind::Path),
            made(&who.cgroup, Kind::Path),
        ])
    }

    /// Whether `earlier`, whose globs these are, matches all that `later` does; as far as that is seen by the globs, of
    /// which those of `later` are literal or the same.
    fn covers(&self, earlier: &Rule, later: &Rule) -> bool {
        let (a, b) = (&earlier.who, &later.who);
        let user =
            a.user.as_ref().is_none_or(|user| b.user.as_ref().map(|u| u.id) == Some(user.id));
        let nice = a.nice.as_ref().is_none_or(|nice| {
            let inner = b.nice.as_ref();
            inner.is_some_and(|b| nice.start() <= b.start() && b.end() <= nice.end())
        });
        let globs = [(&a.name, &b.name), (&a.exe, &b.exe), (&a.cgroup, &b.cgroup)];
        user && nice
            && globs.iter().zip(&self.0).all(|((outer, inner), matcher)| match (outer, inner) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(outer), Some(inner)) => {
                    let matches = || matcher.as_ref().is_some_and(|glob| glob.is_match(inner));
                    outer == inner || outer == "**" || (is_literal(inner) && matches())
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Class, Who, made};

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

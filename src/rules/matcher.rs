//! Which rule a task has.

use super::{
    Rule, Who,
    globs::{Globs, Kind},
};
use crate::{bpf::intf::task_key, stats::text};
use std::collections::HashMap;

/// What rules go by, of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// Name: anything.
    pub name: Vec<u8>,
    /// Path of the program; none of a kernel thread, or if it is longer than is told.
    pub exe: Option<Vec<u8>>,
    /// Path of the cgroup; none if it is longer than is told.
    pub cgroup: Option<Vec<u8>>,
    /// Effective user.
    pub uid: u32,
    /// Nice value.
    pub nice: i32,
}

impl Key {
    /// From what the kernel's half told, with the names of the paths of the program and the cgroup; of longer ones, the
    /// lengths count that were told.
    pub fn of(told: &task_key, exe: &[u8], cgroup: &[u8]) -> Self {
        let name = told.comm.map(|c| c as u8);
        Self {
            name: text::until_nul(&name).to_vec(),
            exe: path(exe, told.exe_len),
            cgroup: path(cgroup, told.cgroup_len),
            uid: told.uid,
            nice: told.nice,
        }
    }
}

/// A path from its names, which come from the last to the first, each with its NUL. A root has one that is empty.
fn path(bytes: &[u8], len: u32) -> Option<Vec<u8>> {
    let bytes = bytes.get(..len as usize)?.strip_suffix(b"\0")?;
    let mut path = Vec::with_capacity(bytes.len() + 1);
    for name in bytes.split(|&byte| byte == 0).rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Some(path)
}

/// The glob of one field.
type GlobOf = fn(&Who) -> Option<&String>;

/// The kinds of text that rules have globs of. A rule is looked at where its first glob matches, in the order of this
/// list: of cgroups and programs there are many, and of most names one.
const FIELDS: [(Kind, GlobOf); 3] = [
    (Kind::Path, |who| who.cgroup.as_ref()),
    (Kind::Path, |who| who.exe.as_ref()),
    (Kind::Name, |who| who.name.as_ref()),
];

/// A list of rules, made ready to be looked up.
pub struct Matcher {
    rules: Vec<Ready>,
    fields: [Field; 3],
    /// Rules without a glob.
    rest: Vec<usize>,
}

/// A rule, and its glob of each field.
struct Ready {
    rule: Rule,
    globs: [Option<usize>; 3],
}

/// What rules say of one kind of text.
struct Field {
    globs: Globs,
    /// The rules to look at where it matches, of each glob.
    rules: Vec<Vec<usize>>,
}

impl Matcher {
    /// Of these rules.
    ///
    /// # Errors
    /// What is wrong with their globs.
    pub fn new(rules: &[Rule]) -> Result<Self, String> {
        let mut ready: Vec<_> =
            rules.iter().map(|rule| Ready { rule: rule.clone(), globs: [None; 3] }).collect();
        let mut fields = Vec::new();
        for (field, (kind, of)) in FIELDS.into_iter().enumerate() {
            let mut known: HashMap<&str, usize> = HashMap::new();
            let mut texts: Vec<&str> = Vec::new();
            let mut firsts: Vec<Vec<usize>> = Vec::new();
            for (index, (rule, ready)) in rules.iter().zip(&mut ready).enumerate() {
                let Some(text) = of(&rule.who) else { continue };
                let glob = *known.entry(text).or_insert_with(|| {
                    texts.push(text);
                    firsts.push(Vec::new());
                    texts.len() - 1
                });
                if ready.globs == [None; 3] {
                    firsts[glob].push(index);
                }
                ready.globs[field] = Some(glob);
            }
            fields.push(Field { globs: Globs::new(&texts, kind)?, rules: firsts });
        }
        let no_glob = |ready: &Ready| ready.globs == [None; 3];
        let rest = (0..).zip(&ready).filter(|(_, ready)| no_glob(ready)).map(|(index, _)| index);
        let rest = rest.collect();
        let [cgroups, exes, names] =
            fields.try_into().map_err(|_| "they are not of three kinds".to_owned())?;
        Ok(Self { rules: ready, fields: [cgroups, exes, names], rest })
    }

    /// The first rule that is about a task of this key, by its index.
    pub fn first(&mut self, key: &Key) -> Option<usize> {
        let texts = [key.cgroup.as_deref(), key.exe.as_deref(), Some(key.name.as_slice())];
        let mut matched = texts
            .iter()
            .zip(&mut self.fields)
            .map(|(text, field)| text.map(|text| field.globs.matched(text)).unwrap_or_default());
        let matched: [_; 3] = std::array::from_fn(|_| matched.next().unwrap_or_default());
        let by_glob = matched
            .iter()
            .zip(&self.fields)
            .flat_map(|(globs, field)| globs.iter().flat_map(|glob| &field.rules[*glob]));
        let is_about =
            |index: &&usize| {
                let Ready { rule, globs } = &self.rules[**index];
                let who = &rule.who;
                globs.iter().zip(&matched).all(|(glob, matched)| {
                    glob.is_none_or(|glob| matched.binary_search(&glob).is_ok())
                }) && who.user.as_ref().is_none_or(|user| user.id == key.uid)
                    && who.nice.as_ref().is_none_or(|nice| nice.contains(&key.nice))
            };
        by_glob.chain(&self.rest).filter(is_about).min().copied()
    }

    /// Whether any rule is about paths of programs.
    pub fn wants_exe(&self) -> bool {
        !self.fields[1].rules.is_empty()
    }

    /// The rules.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter().map(|ready| &ready.rule)
    }

    /// The rule of that index.
    pub fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index).map(|ready| &ready.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Class, User, Who, made};
    use std::time::{Duration, Instant};

    fn key(name: &str, cgroup: &str) -> Key {
        Key { name: name.into(), cgroup: Some(cgroup.into()), ..Key::default() }
    }

    fn matcher(all: Vec<Who>) -> Matcher {
        let rules: Vec<_> = all.into_iter().map(|who| made::rule(who, Class::Normal)).collect();
        Matcher::new(&rules).expect("good globs")
    }

    #[test]
    fn the_first_that_is_true_counts() {
        let some = |text: &str| Some(text.to_owned());
        let mut rules = matcher(vec![
            Who { cgroup: some("/system.slice/**"), ..made::named("pg*") },
            Who { cgroup: some("/*.slice/*.service"), ..Who::default() },
            Who { exe: some("/usr/bin/{ls,cat}"), ..Who::default() },
            Who { user: Some(User { id: 7, said: "7".into() }), ..Who::default() },
            Who { nice: Some(-20..=-1), ..Who::default() },
            made::named("k*"),
        ]);
        let pg = key("pgbench", "/system.slice/a/b.service");
        assert_eq!(rules.first(&pg), Some(0));
        assert_eq!(rules.first(&key("x", "/system.slice/b.service")), Some(1));
        assert_eq!(rules.first(&key("x", "/system.slice/a/b.service")), None, "* ends at a /");
        let exe = |path: &str| Key { exe: Some(path.into()), ..key("x", "/") };
        assert_eq!(rules.first(&exe("/usr/bin/cat")), Some(2));
        assert_eq!(rules.first(&exe("/usr/bin/catt")), None);
        assert_eq!(rules.first(&Key { uid: 7, ..pg.clone() }), Some(0));
        assert_eq!(rules.first(&Key { uid: 7, nice: -1, ..key("x", "/") }), Some(3));
        assert_eq!(rules.first(&Key { nice: -20, ..key("x", "/") }), Some(4));
        assert_eq!(rules.first(&key("kworker/0:1", "/")), Some(5), "* of a name is any of it");
        assert_eq!(rules.first(&Key { name: b"\xff\x1b".to_vec(), ..Key::default() }), None);
        assert!(rules.wants_exe() && !matcher(vec![made::named("a")]).wants_exe());
    }

    #[test]
    fn paths_come_backwards() {
        assert_eq!(path(b"ls\0bin\0usr\0", 11).as_deref(), Some(&b"/usr/bin/ls"[..]));
        assert_eq!(path(b"\0", 1).as_deref(), Some(&b"/"[..]));
        assert_eq!(path(b"ls\0", 0), None);
        assert_eq!(path(b"ls\0", 4), None);
    }

    /// A thousand rules, and a task in each of ten thousand cgroups: a reload has a second for it, with all else, on a
    /// machine that is ten times as slow.
    #[test]
    fn ten_thousand_cgroups_and_a_thousand_rules_are_matched_at_once() {
        let begin = Instant::now();
        let who = |i: usize| Who {
            cgroup: Some(format!("/kubepods.slice/*/pod{i}-*/**")),
            ..made::named("app*")
        };
        let mut rules = matcher((0..1000).map(who).collect());
        let built = begin.elapsed();
        let mut matched = 0;
        for i in 0..10_000 {
            let group =
                format!("/kubepods.slice/burstable.slice/pod{}-{i}/cri-{i}.scope", i % 2000);
            matched += usize::from(rules.first(&key("app-server", &group)) == Some(i % 2000));
        }
        assert_eq!(matched, 5000);
        let took = begin.elapsed();
        println!("compiled in {built:?}, all in {took:?}");
        assert!(took < Duration::from_millis(300), "{took:?}, of which {built:?} to compile");
    }
}

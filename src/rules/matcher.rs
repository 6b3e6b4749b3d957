//! Which rule a task has.

use super::Rule;
use crate::{bpf::intf::task_key, stats::text};
use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use std::{collections::HashMap, rc::Rc};

/// Strings whose matches are remembered, of each kind; all are forgotten then. Some MiB, if all of them are long paths.
const MEMO_MAX: usize = 4_096;

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
    /// From what the kernel's half told.
    pub fn of(told: &task_key) -> Self {
        let name = told.comm.map(|c| c as u8);
        Self {
            name: text::until_nul(&name).to_vec(),
            exe: path(&told.exe.map(|c| c as u8), told.exe_len),
            cgroup: path(&told.cgroup.map(|c| c as u8), told.cgroup_len),
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

/// Globs of one kind, and which of them a string matches.
struct Globs {
    set: GlobSet,
    nr: usize,
    memo: HashMap<Vec<u8>, Rc<[u64]>>,
}

impl Globs {
    fn matched(&mut self, text: &[u8]) -> Rc<[u64]> {
        if let Some(known) = self.memo.get(text) {
            return known.clone();
        }
        let mut bits = vec![0; self.nr.div_ceil(64)];
        for glob in self.set.matches_candidate(&Candidate::from_bytes(text)) {
            bits[glob / 64] |= 1 << (glob % 64);
        }
        if self.memo.len() >= MEMO_MAX {
            self.memo.clear();
        }
        let bits: Rc<[u64]> = bits.into();
        self.memo.insert(text.to_vec(), bits.clone());
        bits
    }
}

fn has(bits: &[u64], glob: usize) -> bool {
    bits.get(glob / 64).is_some_and(|word| word >> (glob % 64) & 1 == 1)
}

/// A kind of string that rules have globs of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of programs; a `*` may be any of it.
    Name,
    /// Of files and cgroups; a `*` ends at a `/`, and `**` does not.
    Path,
}

/// Makes a glob.
///
/// # Errors
/// What is wrong with it.
pub fn glob(text: &str, kind: Kind) -> Result<Glob, String> {
    let mut builder = GlobBuilder::new(text);
    builder.literal_separator(kind == Kind::Path).backslash_escape(true);
    builder.build().map_err(|error| error.kind().to_string())
}

/// A list of rules, made ready to be looked up.
pub struct Matcher {
    names: Globs,
    exes: Globs,
    cgroups: Globs,
    rules: Vec<(Rule, [Option<usize>; 3])>,
}

impl Matcher {
    /// Of these rules.
    ///
    /// # Errors
    /// What is wrong with their globs, all together.
    pub fn new(rules: &[Rule]) -> Result<Self, String> {
        let mut compiled: Vec<_> = rules.iter().map(|rule| (rule.clone(), [None; 3])).collect();
        let mut globs = |field: usize, kind, of: fn(&Rule) -> Option<&String>| {
            let mut known = HashMap::new();
            let mut builder = GlobSetBuilder::new();
            for (rule, indices) in &mut compiled {
                let Some(text) = of(rule) else { continue };
                let next = known.len();
                let index = match known.get(text) {
                    Some(&index) => index,
                    None => {
                        builder.add(glob(text, kind)?);
                        known.insert(text.clone(), next);
                        next
                    }
                };
                indices[field] = Some(index);
            }
            let set = builder.build().map_err(|error| error.kind().to_string())?;
            Ok::<_, String>(Globs { set, nr: known.len(), memo: HashMap::new() })
        };
        let names = globs(0, Kind::Name, |rule| rule.who.name.as_ref())?;
        let exes = globs(1, Kind::Path, |rule| rule.who.exe.as_ref())?;
        let cgroups = globs(2, Kind::Path, |rule| rule.who.cgroup.as_ref())?;
        Ok(Self { names, exes, cgroups, rules: compiled })
    }

    /// The first rule that is about a task of this key, by its index.
    pub fn first(&mut self, key: &Key) -> Option<usize> {
        let names = self.names.matched(&key.name);
        let exes = key.exe.as_ref().map(|path| self.exes.matched(path));
        let cgroups = key.cgroup.as_ref().map(|path| self.cgroups.matched(path));
        self.rules.iter().position(|(rule, globs)| {
            let matches = |glob: Option<usize>, bits: Option<&[u64]>| {
                glob.is_none_or(|glob| bits.is_some_and(|bits| has(bits, glob)))
            };
            matches(globs[0], Some(&names))
                && matches(globs[1], exes.as_deref())
                && matches(globs[2], cgroups.as_deref())
                && rule.who.user.as_ref().is_none_or(|user| user.id == key.uid)
                && rule.who.nice.as_ref().is_none_or(|nice| nice.contains(&key.nice))
        })
    }

    /// Whether any rule is about paths of programs.
    pub fn wants_exe(&self) -> bool {
        self.exes.nr > 0
    }

    /// The rules.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter().map(|(rule, _)| rule)
    }

    /// The rule of that index.
    pub fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index).map(|(rule, _)| rule)
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

    #[test]
    fn globs_are_refused_by_their_fault() {
        for (text, word) in [("[a", "unclosed"), ("{a", "unclosed"), ("a\\", "dangling")] {
            let error = glob(text, Kind::Path).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    /// A thousand rules, and a task in each of ten thousand cgroups: a reload has a second for it, with all else.
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
        assert!(took < Duration::from_millis(700), "{took:?}, of which {built:?} to compile");
    }
}

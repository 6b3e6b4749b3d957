//! Globs, and which of many a text matches.

use aho_corasick::AhoCorasick;
use globset::{Candidate, Glob, GlobBuilder, GlobSet};
use regex_automata::{
    nfa::thompson::{
        self, WhichCaptures,
        pikevm::{Cache, PikeVM},
    },
    util::syntax,
};
use std::{
    cell::{Cell, OnceCell},
    cmp::Reverse,
    collections::{HashMap, HashSet},
    rc::Rc,
};

/// Texts whose matches are remembered, of each kind; all are forgotten then. Some MiB, if all of them are long paths.
const MEMO_MAX: usize = 4_096;
/// Bytes that a glob is held against before it is worth what tables cost: 25 us for one, of which a machine without them
/// takes 20 ns for each byte (globset 0.4.21, 1,000 globs such as `**/name1*`).
const PLAIN_BYTES: usize = 4_096;

/// A kind of text that rules have globs of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of programs; a `*` may be any of it.
    Name,
    /// Of files and cgroups; a `*` ends at a `/`, and `**` does not.
    Path,
}

/// What a pattern needs while it is matched; one does for all.
#[derive(Default)]
pub struct Scratch(Option<Cache>);

/// A glob.
pub struct Pattern {
    glob: Glob,
    /// Made when it is first held against a text, as few are. Most are for one text or ten, and the plainest of the machines
    /// is ready soonest.
    plain: OnceCell<Option<PikeVM>>,
    /// What it was held against, in bytes.
    held: Cell<usize>,
    /// For those that are held against many, and against long ones, which a user may have made for that.
    tables: OnceCell<Option<GlobSet>>,
}

impl Pattern {
    /// From its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str, kind: Kind) -> Result<Self, String> {
        let glob = glob(text, kind)?;
        // Choices may be nested too deeply; all else can be made a machine of.
        if text.contains('{') {
            machine(&glob)?;
        }
        let (plain, tables) = (OnceCell::new(), OnceCell::new());
        Ok(Self { glob, plain, held: Cell::new(0), tables })
    }

    /// Whether it matches all of a text.
    pub fn matches(&self, text: &[u8], scratch: &mut Scratch) -> bool {
        self.held.set(self.held.get().saturating_add(text.len()));
        if self.held.get() > PLAIN_BYTES {
            let tables = self.tables.get_or_init(|| GlobSet::new([self.glob.clone()]).ok());
            if let Some(tables) = tables {
                return tables.is_match_candidate(&Candidate::from_bytes(text));
            }
        }
        let Some(machine) = self.plain.get_or_init(|| machine(&self.glob).ok()) else {
            return false;
        };
        let cache = scratch.0.get_or_insert_with(|| machine.create_cache());
        cache.reset(machine);
        machine.is_match(cache, text)
    }
}

fn glob(text: &str, kind: Kind) -> Result<Glob, String> {
    let mut builder = GlobBuilder::new(text);
    builder.literal_separator(kind == Kind::Path).backslash_escape(true);
    builder.build().map_err(|error| error.kind().to_string())
}

/// Of the expression that globset makes of a glob, as globset itself has it read.
fn machine(glob: &Glob) -> Result<PikeVM, String> {
    PikeVM::builder()
        .syntax(syntax::Config::new().utf8(false).dot_matches_new_line(true))
        .thompson(thompson::Config::new().utf8(false).which_captures(WhichCaptures::None))
        .build(glob.regex())
        .map_err(|_| "its choices are nested too deeply".to_owned())
}

/// Globs that are tried where the same part is found. Many have tables together: they are held against a text at once.
#[derive(Default)]
struct Group {
    globs: Vec<usize>,
    tables: OnceCell<Option<GlobSet>>,
}

impl Group {
    /// Adds those of them to `matched` that match a text.
    fn hold(&self, all: &[Pattern], text: &[u8], scratch: &mut Scratch, matched: &mut Vec<usize>) {
        let made = || GlobSet::new(self.globs.iter().map(|glob| all[*glob].glob.clone())).ok();
        if self.globs.len() > 1
            && let Some(tables) = self.tables.get_or_init(made)
        {
            let found = tables.matches_candidate(&Candidate::from_bytes(text));
            matched.extend(found.into_iter().map(|index| self.globs[index]));
            return;
        }
        matched.extend(self.globs.iter().filter(|glob| all[**glob].matches(text, scratch)));
    }
}

/// Globs of one kind, and which of them a text matches.
///
/// Of each glob, that text is looked for which all its matches contain and the fewest other globs have; the glob is tried
/// where that is found. A thousand of which each has a name of its own cost little more than one so.
#[derive(Default)]
pub struct Globs {
    all: Vec<Pattern>,
    /// What is looked for; none if there is nothing.
    parts: Option<AhoCorasick>,
    /// Those that have it, of each of the parts.
    having: Vec<Group>,
    /// Those that have none.
    partless: Group,
    memo: HashMap<Vec<u8>, Rc<[usize]>>,
    scratch: Scratch,
}

impl Globs {
    /// Of these, which are different ones.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(texts: &[&str], kind: Kind) -> Result<Self, String> {
        let all = texts.iter().map(|text| Pattern::new(text, kind)).collect::<Result<_, _>>()?;
        let mut shared: HashMap<&str, usize> = HashMap::new();
        for text in texts {
            for part in contained(text).collect::<HashSet<_>>() {
                *shared.entry(part).or_default() += 1;
            }
        }
        let mut known: HashMap<&str, usize> = HashMap::new();
        let (mut parts, mut having): (Vec<&str>, Vec<Group>) = (Vec::new(), Vec::new());
        let mut partless = Group::default();
        for (index, text) in texts.iter().enumerate() {
            let rarest = contained(text).min_by_key(|part| (shared[part], Reverse(part.len())));
            let Some(rarest) = rarest else {
                partless.globs.push(index);
                continue;
            };
            let part = *known.entry(rarest).or_insert_with(|| {
                parts.push(rarest);
                having.push(Group::default());
                parts.len() - 1
            });
            having[part].globs.push(index);
        }
        let made = || AhoCorasick::new(&parts).map_err(|error| error.to_string());
        let parts = if parts.is_empty() { None } else { Some(made()?) };
        Ok(Self { all, parts, having, partless, ..Self::default() })
    }

    /// Those that match a text, ascending.
    pub fn matched(&mut self, text: &[u8]) -> Rc<[usize]> {
        if let Some(known) = self.memo.get(text) {
            return known.clone();
        }
        let found = self.parts.iter().flat_map(|parts| parts.find_overlapping_iter(text));
        // A text may have a part hundreds of times.
        let mut seen = vec![false; self.having.len()];
        let mut matched = Vec::new();
        for found in found {
            let part = found.pattern().as_usize();
            if !std::mem::replace(&mut seen[part], true) {
                self.having[part].hold(&self.all, text, &mut self.scratch, &mut matched);
            }
        }
        self.partless.hold(&self.all, text, &mut self.scratch, &mut matched);
        matched.sort_unstable();
        if self.memo.len() >= MEMO_MAX {
            self.memo.clear();
        }
        let matched: Rc<[usize]> = matched.into();
        self.memo.insert(text.to_vec(), matched.clone());
        matched
    }
}

/// Texts that all matches of a glob contain, as far as that is easily seen: what stands before its first class, choice or
/// escape. A `/` beside a `**` may be none, and is left out with all at an end.
fn contained(glob: &str) -> impl Iterator<Item = &str> {
    let plain = glob.find(['[', '{', '\\']).map_or(glob, |end| &glob[..end]);
    plain.split(['*', '?']).map(|part| part.trim_matches('/')).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    #[test]
    fn globs_are_refused_by_their_fault() {
        let deep = "{a,".repeat(400) + &"}".repeat(400);
        for (text, word) in
            [("[a", "unclosed"), ("{a", "unclosed"), ("a\\", "dangling"), (&deep, "nested")]
        {
            let error = Pattern::new(text, Kind::Path).err().expect(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    /// Paths that a user has made to be long, and to have what many globs look for: 24 and 6 ms each for the plain machines.
    #[test]
    fn long_texts_are_held_against_tables() {
        let names = (0..230).map(|i| format!("/n{i:03}")).collect::<String>();
        for globs in [|i| format!("**/[xy]{i:03}"), |i: usize| format!("**/n{i:03}*")] {
            let globs: Vec<String> = (0..1000).map(globs).collect();
            let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
            let mut globs = Globs::new(&globs, Kind::Path).expect("good globs");
            let begin = Instant::now();
            let matched: usize = (0..200)
                .map(|i| globs.matched(format!("/{i}{names}/x{i:03}").as_bytes()).len())
                .sum();
            let took = begin.elapsed();
            println!("{matched} matches in {took:?}");
            assert!(took < Duration::from_millis(800), "{took:?}");
        }
    }

    /// What is tried is all that may match.
    #[test]
    fn no_match_is_missed() {
        let text = |atoms: &'static str, len| {
            proptest::collection::vec(
                proptest::sample::select(atoms.chars().collect::<Vec<_>>()),
                1..len,
            )
            .prop_map(String::from_iter)
        };
        let globs = proptest::collection::vec(text("aab//**?[]{},\\-", 10), 1..12);
        let strings = proptest::collection::vec(text("aab//-", 8), 1..12);
        proptest!(|(globs in globs, strings in strings, kind in proptest::sample::select(&[Kind::Name, Kind::Path]))| {
            let globs: Vec<_> = globs.iter().filter(|text| Pattern::new(text, kind).is_ok()).collect();
            let texts: Vec<&str> =
                globs.iter().enumerate().filter(|(i, g)| !globs[..*i].contains(g)).map(|(_, g)| g.as_str()).collect();
            let mut indexed = Globs::new(&texts, kind).expect("good globs");
            for string in &strings {
                let matched = indexed.matched(string.as_bytes());
                let mut scratch = Scratch::default();
                for (index, text) in texts.iter().enumerate() {
                    let matches = glob(text, kind).expect("a good one").compile_matcher().is_match(string);
                    let pattern = Pattern::new(text, kind).expect("a good one");
                    pattern.held.set(PLAIN_BYTES);
                    prop_assert_eq!(pattern.matches(string.as_bytes(), &mut scratch), matches);
                    prop_assert_eq!(matched.contains(&index), matches, "{} and {}", text, string);
                }
            }
        });
    }
}

//! Conventions of the tree that no compiler checks.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A file with more lines holds two things.
const LINES_MAX: usize = 600;

/// Fields and constants of 64 bits without a unit: no times, but for the ceiling of all of them.
const NO_TIMES: &[&str] = &[
    "wakeups",
    "dsq",
    "enq_flags",
    "virtual_max",
    "idle_direct",
    "task_stats",
    "cgroup",
    "nvcsw",
    "nivcsw",
    "offer",
    "no_dsq",
    "offered_dsq",
    "any_dsq",
    "decided_dsq_base",
    "next_dsq",
    // What a policy orders by, in a unit of its own.
    "vtime",
    "run_vtime",
    "next_vtime",
];
const UNITS: &[&str] = &["_ns", "_vns", "_at", "_us", "_ms"];

/// Files of the tree with what they hold, by path from its root. Built and fetched ones are left
/// out, as are lock files, which cargo writes.
fn tree() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = vec![ROOT.into()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(ROOT).expect("below the root").display().to_string();
            match name.as_str() {
                "target" | ".git" | ".cache" | "Cargo.lock" | "fuzz/Cargo.lock" | "fuzz/target" => {
                }
                _ if path.is_dir() => left.push(path),
                _ => {
                    let bytes = fs::read(&path).expect("a readable file");
                    found.push((name, String::from_utf8_lossy(&bytes).into_owned()));
                }
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the tree was not found: {found:?}");
    found
}

/// The C files of the kernel's half.
fn bpf_files() -> Vec<(String, String)> {
    let is_c = |name: &str| Path::new(name).extension().is_some_and(|e| e == "h" || e == "c");
    tree().into_iter().filter(|(name, _)| name.starts_with("src/bpf/") && is_c(name)).collect()
}

#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_read_in_one_sitting() {
    let problems: Vec<_> = tree()
        .iter()
        .filter(|(name, _)| name.starts_with("src/") || name.starts_with("lab/"))
        // Written by programs, for programs.
        .filter(|(name, _)| !name.starts_with("lab/results/"))
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines, {LINES_MAX} at most"))
        .collect();
    assert_none(&problems);
}

#[test]
fn no_machine_and_no_registry_is_named() {
    // In two parts, so that this file passes.
    let words = [
        ROOT.to_owned(),
        ["/wo", "rk/"].concat(),
        ["/ho", "me/"].concat(),
        ["crates", ".io"].concat(),
        ["py", "pi."].concat(),
        ["npm", "js"].concat(),
        ["deb.deb", "ian.org"].concat(),
        ["proxy.go", "lang"].concat(),
    ];
    let mut problems = Vec::new();
    for (name, text) in tree() {
        for (number, line) in (1..).zip(text.lines()) {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                problems.push(format!("{name}:{number}: names {word}"));
            }
        }
    }
    assert_none(&problems);
}

/// The name of a field of 64 bits, if the line declares one that is no array.
fn field(line: &str) -> Option<String> {
    let (name, _) = line.trim().strip_prefix("u64 ")?.split_once(';')?;
    (!name.ends_with(']')).then(|| name.to_owned())
}

/// The name of a constant of 64 bits in lower case, if the line defines one.
fn constant(line: &str) -> Option<String> {
    let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
    value.contains("ULL").then(|| name.to_lowercase())
}

#[test]
fn times_carry_their_unit() {
    let mut problems = Vec::new();
    let mut fields = 0;
    for (name, text) in bpf_files() {
        let mut in_struct = false;
        for (number, line) in (1..).zip(text.lines()) {
            match line {
                _ if line.starts_with("struct") && line.ends_with('{') => in_struct = true,
                _ if line.starts_with('}') => in_struct = false,
                _ => {}
            }
            let Some(time) = constant(line).or_else(|| field(line).filter(|_| in_struct)) else {
                continue;
            };
            fields += 1;
            let has_unit = UNITS.iter().any(|unit| time.ends_with(unit));
            if !has_unit && !NO_TIMES.contains(&time.as_str()) {
                problems.push(format!("{name}:{number}: {time} has none of {UNITS:?}"));
            }
        }
    }
    assert!(fields > 20, "{fields} fields: the search is broken");
    assert_none(&problems);
}

#[test]
fn every_counter_is_counted() {
    let files = bpf_files();
    let (_, intf) = files.iter().find(|(name, _)| name.ends_with("/intf.h")).expect("intf.h");
    let (_, list) = intf.split_once("#define COUNTERS(X)").expect("the list of counters");
    let (list, _) = list.split_once("\n\n").expect("its end");
    let counters: Vec<_> = list
        .split("X(")
        .skip(1)
        .filter_map(|entry| entry.split(',').next())
        .map(|upper| format!("CNT_{upper}"))
        .collect();
    assert!(counters.len() > 10, "{counters:?}");
    let code: BTreeSet<&str> = files
        .iter()
        .flat_map(|(_, text)| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .collect();
    let problems: Vec<_> = counters
        .iter()
        .filter(|name| !code.contains(name.as_str()))
        .map(|name| format!("{name} is in the list of intf.h and nowhere else in src/bpf"))
        .collect();
    assert_none(&problems);
}

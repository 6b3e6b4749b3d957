//! Seeded bugs: each patch of `tests/mutants` is applied to a copy of the kernel's half, which then has to be caught. One
//! that survives shows that an oracle or a case is missing.

use super::{
    policies,
    suite::{self, Finding},
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

/// Patches whose name begins so are about what is beneath a policy in user space.
const OF_RELAY: &str = "policy-";

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Compiles the kernel's half with a patch, as the build script does.
fn build(patch: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let bpf = dir.path().join("src/bpf");
    fs::create_dir_all(&bpf).expect("a directory");
    for entry in fs::read_dir(Path::new(ROOT).join("src/bpf")).expect("src/bpf") {
        let from = entry.expect("an entry").path();
        fs::copy(&from, bpf.join(from.file_name().expect("a name"))).expect("copied");
    }
    let run = |command: &mut Command| {
        let output = command.current_dir(dir.path()).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {text}", patch.display());
    };
    run(Command::new("git").arg("apply").arg(patch));
    let object = dir.path().join("mutant.so");
    let sim = Path::new(ROOT).join("src/sim");
    run(Command::new(env!("SIM_CLANG"))
        .args(env!("SIM_CFLAGS").split_whitespace())
        .arg("-I")
        .arg(sim.join("include"))
        .arg("-I")
        .arg(&bpf)
        .arg(sim.join("host.c"))
        .arg("-o")
        .arg(&object));
    fs::read(object).expect("an object")
}

/// What the patch says that it breaks: its first line.
fn class(patch: &Path) -> String {
    let text = fs::read_to_string(patch).expect("readable");
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn every_mutant_is_caught() {
    let mut patches: Vec<PathBuf> = fs::read_dir(Path::new(ROOT).join("tests/mutants"))
        .expect("tests/mutants")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    patches.sort();
    let only = env::var("MUTANT").unwrap_or_default();
    patches.retain(|patch| patch.to_string_lossy().contains(&only));
    assert!(!only.is_empty() || patches.len() >= 40, "{patches:?}");
    let left = Mutex::new(patches.iter());
    let table = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let Some(patch) = left.lock().expect("no panic").next() else { return };
                    let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    let code = build(patch);
                    let found = match name.starts_with(OF_RELAY) {
                        true => policies::findings(&code),
                        false => suite::findings(&code),
                    };
                    table.lock().expect("no panic").push((name, class(patch), found));
                }
            });
        }
    });
    let mut table = table.into_inner().expect("no panic");
    table.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, class, found) in &table {
        let found = found.as_ref().map_or("SURVIVES".to_owned(), Finding::to_string);
        println!("{name} ({class})\n    {found}");
    }
    let mut oracles = BTreeMap::<_, u32>::new();
    for finding in table.iter().filter_map(|(.., found)| found.as_ref()) {
        *oracles.entry(finding.by).or_default() += 1;
    }
    println!("{} mutants, caught by", table.len());
    for (oracle, number) in oracles {
        println!("{number:5}  {oracle}");
    }
    let survivors: Vec<_> =
        table.iter().filter(|(.., found)| found.is_none()).map(|(name, ..)| name).collect();
    assert!(survivors.is_empty(), "{survivors:?} are not caught");
}

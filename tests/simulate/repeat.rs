//! A seed decides everything: run after run, on any number of threads, and in a build without optimisation.

use crate::{crates, env_or};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// The program as it is, but for this crate's own code, which is compiled as for debugging. Dependencies are those of the
/// release build.
const UNOPTIMIZED: &str = r#"
    [package]
    name = "scheduler-unoptimized"
    version = "0.0.0"
    edition = "2024"

    [dependencies]
    scheduler = { path = "../scheduler" }

    [profile.release.package.scheduler]
    opt-level = 0
    debug-assertions = true
    overflow-checks = true
"#;

/// What stands for the logs of so many seeds. A terminal shows how far it is.
fn log_hash(program: &Path, seeds: u64) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulate/mixed.toml");
    let output = Command::new(program)
        .args(["simulate", file, "--json", "--runs", &seeds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["runs"].as_u64(), Some(seeds));
    report["log_hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn every_run_of_every_build_has_the_same_log() {
    // `make soak` has more of them.
    let seeds = env_or("SEEDS", 20);
    let release = Path::new(env!("CARGO_BIN_EXE_scheduler"));
    let once = log_hash(release, seeds);
    assert_eq!(log_hash(release, seeds), once, "two runs");
    let main = include_str!("../../src/main.rs");
    let unoptimized = crates::build("scheduler-unoptimized", UNOPTIMIZED, main);
    assert_eq!(log_hash(&unoptimized, seeds), once, "without optimisation on the left");
    assert_ne!(log_hash(release, seeds + 1), once, "one more seed is another log");
}

//! The README against the program: flags, subcommands, exit codes.

mod crates;

use std::{collections::BTreeSet, process::Command};

const README: &str = include_str!("../README.md");

/// Long flags in a text: `--` and a word, after anything but a word or a dash.
fn flags(text: &str) -> BTreeSet<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.match_indices("--")
        .filter(|(at, _)| !text[..*at].ends_with(is_word))
        .map(|(at, _)| {
            let rest = &text[at..];
            &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
        })
        .filter(|flag| flag[2..].starts_with(char::is_alphabetic))
        .collect()
}

fn help(subcommand: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_scheduler"))
        .args(subcommand)
        .arg("--help")
        .output()
        .expect("the binary runs");
    String::from_utf8(out.stdout).expect("help is UTF-8")
}

/// The part of the README below a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n{heading}\n")).expect("the heading");
    rest.split("\n#").next().unwrap_or(rest)
}

#[test]
fn flags_are_those_of_the_program() {
    let [help_all, help_compare, help_top, help_explain] =
        [&[][..], &["compare"][..], &["top"][..], &["explain"][..]].map(help);
    let real = flags(&help_all);
    assert!(real.contains("--slice-min-us") && real.len() > 8, "{real:?}");
    let table = flags(section("## Command line"));
    assert_eq!(table, real, "README.md on the left, --help on the right");
    let of_compare: BTreeSet<_> =
        flags(&help_compare).into_iter().filter(|flag| *flag != "--help").collect();
    assert!(of_compare.contains("--runs"), "{of_compare:?}");
    assert_eq!(flags(section("## Comparing")), of_compare, "the section on compare");
    let help_record = help(&["record"]);
    let of_record: BTreeSet<_> =
        flags(&help_record).into_iter().filter(|flag| *flag != "--help").collect();
    assert_eq!(flags(section("## Recording")), of_record, "the section on record");
    let help_simulate = help(&["simulate"]);
    let of_simulate: BTreeSet<_> =
        flags(&help_simulate).into_iter().filter(|flag| *flag != "--help").collect();
    assert!(of_simulate.contains("--seed"), "{of_simulate:?}");
    assert_eq!(flags(section("## Simulating")), of_simulate, "the section on simulate");
    let mut named = flags(README);
    for of_cargo in ["--open", "--release"] {
        named.remove(of_cargo);
    }
    let of_top = flags(&help_top);
    assert!(of_top.iter().all(|flag| named.contains(flag)), "{of_top:?}");
    let of_explain = flags(&help_explain);
    assert!(of_explain.iter().all(|flag| named.contains(flag)), "{of_explain:?}");
    let known = [&real, &of_compare, &of_simulate, &of_record, &of_top, &of_explain];
    assert!(named.iter().all(|flag| known.iter().any(|of| of.contains(flag))), "{named:?}");
}

#[test]
fn subcommands_are_described() {
    let help = help(&[]);
    let (_, commands) = help.split_once("\nCommands:\n").expect("subcommands");
    let names: Vec<_> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.contains(&"doctor"), "{help}");
    for name in names {
        assert!(section("## Command line").contains(&format!("`scheduler {name}`")), "{name}");
    }
}

#[test]
fn exit_codes_are_those_of_the_program() {
    let (_, list) = include_str!("../src/exit.rs").split_once("pub enum Exit {").expect("Exit");
    let (list, _) = list.split_once("\n}").expect("the end of Exit");
    let number = |text: &str| text.trim().parse::<u8>().ok();
    let real: Vec<u8> = list
        .lines()
        .filter_map(|line| number(line.trim_end_matches(',').split_once(" = ")?.1))
        .collect();
    let named: Vec<u8> = section("### Exit codes")
        .lines()
        .filter_map(|line| number(line.split('|').nth(1)?))
        .collect();
    assert!(real.len() >= 6);
    assert_eq!(named, real, "README.md on the left, src/exit.rs on the right");
}

/// The first block of code in a language, below a heading.
fn block(heading: &str, language: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n{heading}\n")).expect("the heading");
    let (_, code) = rest.split_once(&format!("```{language}\n")).expect("a block");
    code.split_once("```").expect("its end").0
}

/// What the README says is a whole scheduler is one: the crate that it describes builds, and is the example.
#[test]
fn the_scheduler_of_ones_own_builds() {
    let source = block("## Write your own", "rust");
    assert!(source.lines().count() <= 30, "thirty lines were promised");
    let example = include_str!("../examples/fifo.rs");
    assert!(example.ends_with(source), "examples/fifo.rs is not what the README shows");
    assert!(example.lines().count() <= 40);

    let program = crates::build("my-scheduler", block("## Write your own", "toml"), source);
    let run = |args: &[&str]| Command::new(&program).args(args).output().expect("it runs");
    let help = String::from_utf8(run(&["--help"]).stdout).expect("UTF-8");
    assert!(help.contains("by the policy Fifo") && help.contains("--stats"), "{help}");
    assert!(!help.contains("--policy"), "{help}");
    let refused = run(&["--policy", "kernel"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(run(&["--set", "slice_us=1"]).status.code(), Some(2));
}

#[test]
fn the_settings_are_shown_so() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("my.toml"), block("## Settings", "toml")).expect("written");
    let (_, shown) = section("## Settings").split_once("```\n$ scheduler ").expect("a sample");
    let (call, shown) = shown.split_once('\n').expect("lines");
    let shown = shown.split("```").next().unwrap_or(shown);
    let out = Command::new(env!("CARGO_BIN_EXE_scheduler"))
        .args(call.split_whitespace())
        .current_dir(&dir)
        .output()
        .expect("the binary runs");
    assert_eq!(String::from_utf8_lossy(&out.stdout), shown, "README.md on the right");
}

#[test]
fn the_scenario_runs() {
    let (_, rest) = README.split_once("\nA scenario is TOML.").expect("the paragraph");
    let (_, rest) = rest.split_once("```toml\n").expect("a block");
    let (text, _) = rest.split_once("```").expect("its end");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("readme.toml");
    std::fs::write(&file, text.replace("\"10s\"", "\"1s\"")).expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_scheduler"))
        .arg("simulate")
        .arg(&file)
        .output()
        .expect("the binary runs");
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
}

/// What happens in the simulator depends on the scenario and the seed alone, so its samples are true to the last figure.
/// Where this fails, so does the table of profiles.
#[test]
fn samples_of_the_simulator_are_what_it_prints() {
    let samples = [
        &["scenarios/audio-beside-games.toml"][..],
        &["scenarios/stopped-policy.toml", "--policy", "vruntime"],
    ];
    let shown: BTreeSet<_> = README.lines().collect();
    for sample in samples {
        let out = Command::new(env!("CARGO_BIN_EXE_scheduler"))
            .arg("simulate")
            .args(sample)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("the binary runs");
        let printed = String::from_utf8(out.stdout).expect("a table is UTF-8");
        assert!(printed.lines().count() > 5, "{sample:?}: {printed}");
        // But for its speed, which is the machine's.
        for line in printed.lines().filter(|line| !line.starts_with("simulated ")) {
            assert!(
                shown.contains(line),
                "{sample:?} prints this, which README.md does not show:\n{line}"
            );
        }
    }
}

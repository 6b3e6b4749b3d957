//! The README against the program: flags, subcommands, exit codes.

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
    let (help, help_compare) = (help(&[]), help(&["compare"]));
    let real = flags(&help);
    assert!(real.contains("--slice-min-us") && real.len() > 8, "{real:?}");
    let table = flags(section("## Command line"));
    assert_eq!(table, real, "README.md on the left, --help on the right");
    let of_compare: BTreeSet<_> =
        flags(&help_compare).into_iter().filter(|flag| *flag != "--help").collect();
    assert!(of_compare.contains("--runs"), "{of_compare:?}");
    assert_eq!(flags(section("## Comparing")), of_compare, "the section on compare");
    let named = flags(README);
    assert!(named.iter().all(|flag| real.contains(flag) || of_compare.contains(flag)), "{named:?}");
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

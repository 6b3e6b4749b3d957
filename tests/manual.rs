//! The man page and the completions, as the programs see them that they are for.

mod tools;

use std::{fs, path::PathBuf, process::Command};
use tempfile::TempDir;

fn scheduler(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_scheduler")).args(args).output().expect("it runs");
    assert!(out.status.success(), "{args:?}: {}", tools::text(&out));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// What the program prints, in a file of its own.
fn file(args: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("scheduler");
    fs::write(&path, scheduler(args)).expect("written");
    (dir, path)
}

/// The first words of the lines of a help that begin with a dash: `-s,`, `--stats`.
fn flags(help: &str) -> Vec<&str> {
    help.lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')))
        .map(|flag| flag.trim_end_matches(',').trim_end_matches("..."))
        // Its value may be left out: `--partial[=<BOOL>]`.
        .map(|flag| flag.split('[').next().unwrap_or(flag))
        .collect()
}

#[test]
fn the_page_has_every_flag_and_command() {
    let page = scheduler(&["man"]).replace("\\-", "-");
    let (_, of_commands) = page.split_once(".SH COMMANDS\n").expect("a section on commands");
    let (_, of_compare) = of_commands.split_once(".SS \"scheduler compare").expect("compare");
    let (of_compare, _) = of_compare.split_once("\n.SS ").expect("its end");
    for (section, arguments) in [(&page[..], &["--help"][..]), (of_compare, &["compare", "--help"])]
    {
        let help = scheduler(arguments);
        let flags = flags(&help);
        assert!(flags.len() > 6, "{flags:?}");
        let of_all = ["-h", "--help"];
        for flag in flags.iter().filter(|flag| arguments.len() == 1 || !of_all.contains(flag)) {
            assert!(section.contains(&format!("\\fB{flag}\\fR")), "{arguments:?}: {flag}");
        }
    }
    for command in [
        "doctor",
        "config check",
        "config show",
        "profile",
        "explain",
        "compare",
        "completions",
        "man",
    ] {
        assert!(of_commands.contains(&format!("scheduler {command}")), "{command}");
    }
    for code in ["0", "1", "2", "75", "77", "78"] {
        assert!(of_commands.contains(&format!("\n.TP\n\\fB{code}\\fR\n")), "exit code {code}");
    }
}

#[test]
fn the_page_is_good_roff() {
    let (_dir, page) = file(&["man"]);
    let mut mandoc = Command::new("mandoc");
    if let Some(out) = tools::run(mandoc.args(["-T", "lint", "-W", "warning"]).arg(&page)) {
        assert!(out.status.success(), "{}", tools::text(&out));
    }
    let mut mandoc = Command::new("mandoc");
    if let Some(out) = tools::run(mandoc.args(["-T", "utf8"]).arg(&page)) {
        let text = tools::text(&out);
        assert!(text.contains("System Manager"), "not of section 8: {text}");
    }
}

/// What bash offers for the last of some words.
fn offered_by_bash(words: &[&str]) -> Option<Vec<String>> {
    let (_dir, script) = file(&["completions", "bash"]);
    let complete = r#"
        source "$1" || exit 1
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        eval "$(complete -p scheduler | sed 's/.*-F \([^ ]*\).*/\1/') scheduler \"\${COMP_WORDS[COMP_CWORD]}\" \"\${COMP_WORDS[COMP_CWORD-1]}\""
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    let out = tools::run(bash.args(["--norc", "-c", complete, "bash"]).arg(&script).args(words))?;
    assert!(out.status.success() && out.stderr.is_empty(), "{}", tools::text(&out));
    let mut offered: Vec<_> = tools::text(&out).lines().map(str::to_owned).collect();
    offered.sort();
    Some(offered)
}

#[test]
fn bash_completes() {
    let Some(offered) = offered_by_bash(&["scheduler", "--slice"]) else { return };
    assert_eq!(offered, ["--slice-min-us", "--slice-us"]);
    let policies = offered_by_bash(&["scheduler", "--policy", ""]);
    assert_eq!(policies.expect("as before"), ["fifo", "kernel", "list", "vruntime"]);
    let of_compare = offered_by_bash(&["scheduler", "compare", "--w"]);
    assert_eq!(of_compare.expect("as before"), ["--warmup"]);
}

#[test]
fn fish_completes() {
    let (_dir, script) = file(&["completions", "fish"]);
    let complete =
        r#"source $argv[1]; complete -C "scheduler --slice"; complete -C "scheduler comp""#;
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c", complete]).arg(&script).env("HOME", "/nonexistent");
    let Some(out) = tools::run(&mut fish) else { return };
    let text = tools::text(&out);
    let mut words: Vec<_> = text.lines().filter_map(|line| line.split('\t').next()).collect();
    words.sort();
    assert_eq!(words, ["--slice-min-us", "--slice-us", "compare", "completions"], "{text}");
}

/// zsh completes only at a terminal: it loads the function, and knows it for what completes `scheduler`.
#[test]
fn zsh_takes_the_function() {
    let (dir, script) = file(&["completions", "zsh"]);
    fs::rename(script, dir.path().join("_scheduler")).expect("renamed");
    let load = r#"
        fpath=("$1" $fpath)
        autoload -Uz compinit && compinit -u -D || exit 1
        autoload +X _scheduler || exit 1
        print $_comps[scheduler]
    "#;
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", load, "zsh"]).arg(dir.path()).env("HOME", dir.path());
    let Some(out) = tools::run(&mut zsh) else { return };
    assert_eq!(tools::text(&out), "_scheduler\n");
}

/// A program made of another's policy has completions and a page of its own.
#[test]
fn the_name_is_that_of_the_program() {
    use scheduler::cli::{Request, parse};
    let print = |args: &[&str]| match parse([&["/usr/bin/mine"], args].concat(), Some("Mine")) {
        Ok(Request::Print(text)) => text,
        other => panic!("{args:?}: {other:?}"),
    };
    let page = print(&["man"]);
    assert!(page.contains(".SS \"mine doctor"), "{page}");
    assert!(!page.contains("\\-policy"), "{page}");
    assert!(print(&["completions", "bash"]).contains("complete -F _mine "));
    assert!(parse(["mine", "completions", "tcsh"], None).is_err());
}

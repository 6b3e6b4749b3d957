//! The command line, through the built binary. Nothing here attaches anything: runs that would
//! schedule are made only where the kernel has no sched_ext.

use std::{
    path::Path,
    process::{Command, Output},
};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scheduler")).args(args).output().expect("the binary runs")
}

fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Whether a run without arguments could attach. Such runs are for the guests of tests/vm.rs.
fn kernel_has_sched_ext() -> bool {
    Path::new("/sys/kernel/sched_ext").exists()
}

#[test]
fn help_names_every_flag_and_exit_code() {
    for flag in ["-h", "--help"] {
        let out = run(&[flag]);
        assert_eq!(out.status.code(), Some(0));
        let text = stdout(&out);
        for word in [
            "--stats",
            "--interval",
            "--verbose",
            "--json",
            "--tasks",
            "--profile",
            "--slice-us",
            "--lag-us",
            "--preempt-gran-us",
            "--slice-min-us",
            "--partial",
            "--socket",
            "--metrics",
            "--policy",
            "--set",
            "--grace-us",
            "--ring-kib",
            "--exit-dump-len",
            "--config",
            "--version",
            "--help",
            "doctor",
            "-s",
            "-i",
            "-v",
            "-p",
            "-V",
            "-h",
            "75",
            "77",
            "78",
            "3000",
            "1000",
        ] {
            assert!(text.contains(word), "{flag} does not mention {word}:\n{text}");
        }
    }
}

#[test]
fn version_has_the_revision() {
    for flag in ["-V", "--version"] {
        let out = run(&[flag]);
        assert_eq!(out.status.code(), Some(0));
        let expected = concat!(
            "scheduler ",
            env!("CARGO_PKG_VERSION"),
            " (",
            env!("SCHEDULER_REVISION"),
            ")\n"
        );
        assert_eq!(stdout(&out), expected);
    }
}

#[test]
fn bad_values_are_refused_with_flag_and_range() {
    let cases = [
        (&["--interval", "0"][..], "--interval", "0.01 to 86400"),
        (&["-i", "-1"], "--interval", "0.01 to 86400"),
        (&["-i", "NaN"], "--interval", "0.01 to 86400"),
        (&["-i", "inf"], "--interval", "0.01 to 86400"),
        (&["-i", "1e30"], "--interval", "0.01 to 86400"),
        (&["--tasks", "0"], "--tasks", "1 to 1000"),
        (&["--tasks", "1001"], "--tasks", "1 to 1000"),
        (&["--slice-us", "0"], "--slice-us", "100 to 100000"),
        (&["--slice-min-us", "-3"], "--slice-min-us", "100 to the value of --slice-us"),
        (&["--slice-us", "500", "--slice-min-us", "501"], "--slice-min-us", "--slice-us, 500"),
        (&["--exit-dump-len", "99999999999"], "--exit-dump-len", "0 to 16777216"),
        (&["--metrics", "localhost:9100"], "--metrics", "1 to 65535"),
        (&["--nonsense"], "--nonsense", ""),
        (&["--profile", "fast"], "--profile", "lowlatency, gaming"),
        (&["--lag-us", "99"], "--lag-us", "100 to 40000"),
        (&["--preempt-gran-us", "10001"], "--preempt-gran-us", "0 to 10000"),
        (&["simulate", "x", "--set", "speed=1"], "'--set speed=1'", "profile, slice_us"),
        (&["record", "-o", "-"], "--output -", "/dev/stdout"),
        (&["simulate", "x", "--sweep", "slice=1..2"], "'--sweep slice=1..2'", "mean 'slice_us'?"),
        (&["simulate", "x", "--sweep", "slice_us=50..200"], "'--sweep slice_us=50..200'", "100 to"),
        (&["simulate", "x", "--sweep", "preempt_gran_us=0..9"], "--sweep", "LOW from 1 and HIGH"),
        (&["simulate", "x", "--sweep", "slice_us=500..500"], "--sweep", "HIGH above it"),
        (
            &["simulate", "x", "--set=slice_min_us=900", "--sweep=slice_us=500..2000"],
            "'--sweep slice_us=500..2000': slice_min_us=900",
            "--slice-us, 500",
        ),
        (&["record"], "--output", "required"),
        (&["record", "-o", "/nosuch/x"], "--output /nosuch/x", "this file cannot be written"),
        (&["record", "-o", "x", "--seconds", "0"], "--seconds", "0.1 to 3600"),
        (&["record", "-o", "x", "--ring-kib", "63"], "--ring-kib", "64 to 1048576"),
        (&["simulate", "nosuch.toml"], "nosuch.toml: cannot read", "No such file or directory\n"),
        (
            &["simulate", "scenarios/fork-storm.toml", "--perfetto", "/nosuch/x"],
            "--perfetto /nosuch/x",
            "this file cannot be written",
        ),
        (
            &[
                "simulate",
                "scenarios/fork-storm.toml",
                "--sweep=slice_us=500..2000",
                "--svg=/nosuch/x.svg",
            ],
            "--svg /nosuch/x.svg",
            "this file cannot be written",
        ),
        (&["simulate", "x", "--set", "lag_us=1"], "lag_us=1", "100 to 40000"),
        (&["simulate", "x", "--set", "slice_min_us=3001"], "slice_min_us=3001", "3000"),
        (&["nonsense"], "nonsense", ""),
        (&["config"], "config", "check, show"),
    ];
    for (args, flag, range) in cases {
        let out = run(args);
        let message = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        assert!(message.contains(flag) && message.contains(range), "{args:?}: {message}");
        assert!(stdout(&out).is_empty());
    }
}

#[test]
fn a_machine_without_sched_ext_is_refused_by_name() {
    if kernel_has_sched_ext() {
        eprintln!("skipped: this kernel has sched_ext");
        return;
    }
    let out = run(&[]);
    let message = stderr(&out);
    assert_eq!(out.status.code(), Some(78), "{message}");
    assert!(message.contains("/sys/kernel/sched_ext"), "{message}");
    assert!(message.contains("CONFIG_SCHED_CLASS_EXT"), "{message}");
    assert_eq!(message.matches("CONFIG_SCHED_CLASS_EXT").count(), 1, "said twice: {message}");

    let out = run(&["--interval", "2"]);
    let message = stderr(&out);
    assert!(message.contains("warning: --interval has no effect"), "{message}");
    assert_eq!(out.status.code(), Some(78), "{message}");

    let of_policy = ["--config=/dev/null", "--grace-us=500", "--ring-kib=64"];
    for (policy, warnings) in [("kernel", 2), ("fifo", 0)] {
        let message = stderr(&run(&[&of_policy[..], &["--policy", policy]].concat()));
        let warned = ["--grace-us", "--ring-kib"]
            .iter()
            .filter(|flag| message.contains(&format!("warning: {flag} has no effect without")));
        assert_eq!(warned.count(), warnings, "{message}");
    }
}

#[test]
fn doctor_prints_a_line_a_check() {
    let out = run(&["doctor"]);
    let text = stdout(&out);
    const CHECKS: usize = 9;
    assert_eq!(text.lines().count(), CHECKS, "{text}");
    let known = |line: &str| ["ok ", "fault ", "skip "].iter().any(|word| line.starts_with(word));
    assert!(text.lines().all(known), "{text}");
    let faulty = text.lines().any(|l| l.starts_with("fault "));
    assert_eq!(out.status.code(), Some(if faulty { 78 } else { 0 }), "{text}");
    if !kernel_has_sched_ext() {
        assert!(faulty, "{text}");
    }
}

#[test]
fn top_needs_a_terminal() {
    let out = run(&["top", "--demo"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(stderr(&out).lines().count(), 1, "{}", stderr(&out));
    assert!(stderr(&out).contains("terminal"), "{}", stderr(&out));
}

#[test]
fn a_full_disk_is_an_error_and_a_closed_pipe_is_not() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut help = Command::new(env!("CARGO_BIN_EXE_scheduler"));
    let out = help.arg("--help").stdout(full).output().expect("the binary runs");
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    assert!(stderr(&out).contains("standard output"), "{}", stderr(&out));

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let out = help.stdout(writer).output().expect("the binary runs");
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
}

#[test]
fn policies_are_listed_and_others_refused() {
    let list = stdout(&run(&["--policy", "list"]));
    for name in ["kernel", "vruntime", "fifo"] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{list}");
    }
    for (args, words) in [
        (&["--policy", "best"][..], &["--policy", "'best'", "kernel, vruntime, fifo"][..]),
        (&["--policy", "a\x1b[31m"], &["--policy"]),
        (&["--set", "slice_us=1000"], &["--set", "--policy"]),
        (&["--policy", "fifo", "--set", "slice_us"], &["--set", "KEY=VALUE"]),
        (&["--policy", "fifo", "--set", "slice_us=7"], &["slice_us=7", "fifo", "100 to 20000"]),
        (&["--policy", "vruntime", "--set", "speed=9"], &["speed", "vruntime", "slice_min_us"]),
        (&["--policy", "fifo", "--grace-us", "99"], &["--grace-us", "100 to 50000"]),
        (&["--policy", "fifo", "--ring-kib", "5"], &["--ring-kib", "power of two"]),
    ] {
        let out = run(args);
        let line = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.contains('\x1b'), "{line}");
        assert!(words.iter().all(|word| line.contains(word)), "{args:?}: {line}");
    }
}

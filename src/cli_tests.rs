//! Command lines and what they become.

use super::*;

/// Whatever this machine's own file says.
fn settings(args: &[&str]) -> Settings {
    match parse([&["scheduler", "--config=/dev/null"], args].concat(), None) {
        Ok(Request::Schedule(effective)) => effective.settings,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn refusal(args: &[&str]) -> String {
    match parse([&["scheduler"], args].concat(), None) {
        Err(failure) if failure.exit == Exit::Usage => failure.error.to_string(),
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn defaults() {
    let s = settings(&[]);
    assert_eq!(s.tuning.slice_max, Nanos::from_micros(3_000));
    assert_eq!(s.tuning.slice_min, Nanos::from_micros(1_000));
    assert_eq!((s.partial, s.exit_dump_len, s.verbosity, s.report), (false, 0, 0, None));
    assert_eq!(s.socket.to_str(), Some("/var/run/scx/root/stats"));
    assert_eq!(s.metrics, None);
}

#[test]
fn every_flag() {
    let s = settings(&[
        "-s",
        "-i",
        "0.25",
        "-vv",
        "--tasks",
        "7",
        "--slice-us=4000",
        "--slice-min-us=4000",
        "-p",
        "--exit-dump-len",
        "65536",
        "--socket=/run/other/stats",
    ]);
    assert_eq!(s.tuning.slice_min, s.tuning.slice_max);
    assert_eq!((s.partial, s.exit_dump_len, s.verbosity), (true, 65536, 2));
    assert_eq!(s.socket.to_str(), Some("/run/other/stats"));
    let report = s.report.expect("--stats was given");
    assert_eq!(report.interval, Duration::from_millis(250));
    assert_eq!((report.format, report.tasks), (Format::Table, 7));
}

#[test]
fn metrics_are_for_the_loopback_unless_told_otherwise() {
    for (text, address) in [
        ("9100", "127.0.0.1:9100"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("0.0.0.0:9100", "0.0.0.0:9100"),
        ("[::1]:65535", "[::1]:65535"),
    ] {
        let metrics = settings(&["--metrics", text]).metrics;
        assert_eq!(metrics.map(|at| at.to_string()).as_deref(), Some(address));
    }
    for text in ["", "0", "65536", "-1", "localhost:9100", "1.2.3.4", "::1", "127.0.0.1:0"] {
        let line = refusal(&["--metrics", text]);
        assert!(line.contains("--metrics") && line.contains("1 to 65535"), "{line}");
    }
}

#[test]
fn a_short_slice_takes_the_shortest_one_along() {
    let short = settings(&["--slice-us", "500"]).tuning;
    assert_eq!(short.slice_min, short.slice_max);
}

#[test]
fn a_refusal_says_what_may_have_been_meant() {
    assert!(refusal(&["--stat"]).contains("'--stats'"));
    assert!(refusal(&["compare", "make"]).contains("compare -- make"));
}

#[test]
fn json_and_tasks_imply_statistics() {
    assert_eq!(settings(&["--json"]).report.map(|r| r.format), Some(Format::Json));
    assert_eq!(settings(&["--tasks", "3"]).report.map(|r| r.tasks), Some(3));
}

#[test]
fn refusals_name_flag_and_range() {
    for value in ["0", "-1", "nan", "inf", "-inf", "1e300", "0.001", "x", ""] {
        let line = refusal(&["--interval", value]);
        assert!(line.contains("--interval") && line.contains("0.01 to 86400"), "{line}");
    }
    for value in ["0", "99", "100001", "-5", "1.5", "18446744073709551616"] {
        let line = refusal(&["--slice-us", value]);
        assert!(line.contains("--slice-us") && line.contains("100 to 100000"), "{line}");
    }
    let line = refusal(&["--slice-us", "2000", "--slice-min-us", "3000"]);
    assert!(line.contains("--slice-min-us") && line.contains("--slice-us, 2000"), "{line}");
    assert!(refusal(&["--tasks", "0"]).contains("1 to 1000"));
    assert!(refusal(&["--exit-dump-len", "4294967296"]).contains("0 to 16777216"));
}

#[test]
fn refusals_are_one_line_whatever_the_user_typed() {
    for args in [&["--nope"][..], &["a\nb"], &["-i", "\n\n\x1b[31m"], &["--tasks"]] {
        let line = refusal(args);
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.contains(args[0].split('\n').next().unwrap_or("")), "{line:?}");
    }
}

#[test]
fn compare() {
    let plan = |args: &[&str]| match parse([&["scheduler", "compare"], args].concat(), None) {
        Ok(Request::Compare(plan)) => plan,
        other => panic!("{args:?}: {other:?}"),
    };
    let least = plan(&["--", "make", "-j4"]);
    assert_eq!((least.runs, least.warmup, least.json), (5, 1, false));
    assert_eq!(least.command, ["make", "-j4"]);
    let all = plan(&["--runs=2", "--warmup=0", "--metric", r"(\d+) ops", "--json", "--", "x"]);
    assert_eq!((all.runs, all.warmup, all.json), (2, 0, true));
    assert!(all.metric.is_some());
    for runs in ["0", "1", "-3", "1001", "x"] {
        let line = refusal(&["compare", "--runs", runs, "--", "x"]);
        assert!(line.contains("--runs") && line.contains("2 to 1000"), "{line}");
    }
    assert!(refusal(&["compare", "--metric", "(", "--", "x"]).contains("--metric"));
    assert!(refusal(&["compare", "--metric=", "--", "x"]).contains("--metric"));
    let short = plan(&["--slice-us=700", "--metric", "-x", "--", "x"]);
    assert_eq!(short.tuning.slice_max, Nanos::from_micros(700));
    assert!(refusal(&["compare"]).contains("COMMAND"));
    assert!(refusal(&["compare", "--"]).contains("COMMAND"));
    refusal(&["compare", "make"]);
}

#[test]
fn top() {
    let options = |args: &[&str]| match parse([&["scheduler", "top"], args].concat(), None) {
        Ok(Request::Top(options)) => options,
        other => panic!("{args:?}: {other:?}"),
    };
    let plain = options(&[]);
    assert_eq!(plain.socket.to_str(), Some("/var/run/scx/root/stats"));
    assert_eq!((plain.interval, plain.demo), (Duration::from_secs(1), false));
    let all = options(&["--demo", "-i", "0.5", "--socket", "/x"]);
    assert_eq!((all.interval, all.demo), (Duration::from_millis(500), true));
    assert_eq!(all.socket.to_str(), Some("/x"));
    assert!(refusal(&["top", "-i", "0"]).contains("0.01 to 86400"));
}

#[test]
fn doctor_takes_no_flags() {
    assert_eq!(parse(["scheduler", "doctor"], None).ok(), Some(Request::Doctor));
    refusal(&["-s", "doctor"]);
}

#[test]
fn what_measures_the_kernels_half_is_refused_to_other_programs() {
    match parse(["mine", "compare", "--", "true"], Some("Mine")) {
        Err(failure) if failure.exit == Exit::Usage => {
            assert!(failure.error.to_string().contains("not the policy Mine"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_simulation_is_of_the_policy_that_was_asked_for() {
    let simulated = |args: &[&str], own| match parse(args.iter().copied(), own) {
        Ok(Request::Simulate(plan)) => (plan.policy, plan.options),
        other => panic!("{args:?}: {other:?}"),
    };
    let args = ["scheduler", "simulate", "x.toml"];
    assert_eq!(simulated(&args, None), ("kernel".to_owned(), Vec::new()));
    assert_eq!(simulated(&args, Some("Mine")).0, "Mine");
    let set = ["--policy", "fifo", "--set", "policy.slice_us=700", "--set", "slice_us=2000"];
    let (policy, options) = simulated(&[&args[..], &set].concat(), None);
    assert_eq!((policy.as_str(), options), ("fifo", vec![("slice_us".into(), "700".into())]));
    for (set, own, says) in [
        (&["--set", "policy.slice_us=700"][..], None, "choose one by --policy"),
        (&["--policy", "lottery"], None, "must be kernel, vruntime, fifo"),
        (&["--policy", "fifo"], Some("Mine"), "the policy Mine and takes no other"),
    ] {
        let args = [&args[..], set].concat();
        let error = parse(args, own).expect_err("refused").error.to_string();
        assert!(error.contains(says), "{error}");
    }
}

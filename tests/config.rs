//! The configuration file, through the program that reads it and through the library.

use proptest::prelude::*;
use scheduler::{
    cli::{Effective, Origin, Request, parse},
    exit::Exit,
    profile,
    settings::Relayed,
    units::Nanos,
};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};
use tempfile::TempDir;

/// A file of this text.
fn file(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("config.toml");
    fs::write(&path, text).expect("written");
    (dir, path)
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scheduler")).args(args).output().expect("the binary runs")
}

fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What is in effect with this file and these flags, or the refusal.
fn effective(text: &str, flags: &[&str]) -> Result<Effective, String> {
    let (_dir, path) = file(text);
    let path = path.to_str().expect("UTF-8");
    match parse([&["scheduler", "--config", path], flags].concat(), None) {
        Ok(Request::Schedule(effective)) => Ok(effective),
        Err(failure) if failure.exit == Exit::Usage => Err(failure.error.to_string()),
        other => panic!("{text:?}, {flags:?}: {other:?}"),
    }
}

/// The value of a setting, and the letter that its origin begins with.
fn shown(effective: &Effective, key: &str) -> (Option<String>, char) {
    let shown = effective.shown.iter().find(|shown| shown.key == key).expect("a setting");
    let origin = match shown.origin {
        Origin::Default => 'd',
        Origin::File(_) => 'f',
        Origin::Flag => 'c',
        Origin::Profile(_) => 'p',
        Origin::Request => 'r',
    };
    (shown.value.clone(), origin)
}

#[test]
fn flags_go_before_the_file_and_the_file_before_defaults() {
    let text = "slice_us = 4_000\nslice_min_us = 0x1f4\npartial = true\nsocket = \"/file\"\nmetrics = 9100\n";
    let of_file = effective(text, &[]).expect("good");
    assert_eq!(of_file.settings.tuning.slice_max, Nanos::from_micros(4000));
    assert_eq!(of_file.settings.tuning.slice_min, Nanos::from_micros(500));
    assert!(of_file.settings.partial);
    assert_eq!(of_file.settings.metrics.map(|at| at.port()), Some(9100));
    let both = effective(text, &["--slice-us", "5000", "--socket=/flag"]).expect("good");
    assert_eq!(both.settings.tuning.slice_max, Nanos::from_micros(5000));
    assert_eq!(both.settings.tuning.slice_min, Nanos::from_micros(500));
    assert_eq!(both.settings.socket.to_str(), Some("/flag"));
    for (key, value, origin) in [
        ("slice_us", Some("5000"), 'c'),
        ("slice_min_us", Some("500"), 'f'),
        ("socket", Some("\"/flag\""), 'c'),
        ("partial", Some("true"), 'f'),
        ("grace_us", Some("2000"), 'd'),
        ("set", None, 'd'),
    ] {
        assert_eq!(shown(&both, key), (value.map(str::to_owned), origin), "{key}");
    }
    // A flag takes the place of the whole table.
    let text = "policy = \"fifo\"\nset = { slice_us = 7000 }\n";
    let options = effective(text, &["--set", "slice_us=800"]).expect("good").choice.options;
    assert_eq!(options, [("slice_us".to_owned(), "800".to_owned())]);
    // A switch is undone by its value.
    for (flags, partial, origin) in [
        (&["--partial=false"][..], false, 'c'),
        (&["-p=false"], false, 'c'),
        (&["-sp"], true, 'c'),
        (&["-ps"], true, 'c'),
        (&[], true, 'f'),
    ] {
        let now = effective("partial = true", flags).expect("good");
        assert_eq!(now.settings.partial, partial, "{flags:?}");
        assert_eq!(shown(&now, "partial"), (Some(partial.to_string()), origin), "{flags:?}");
    }
    assert!(!effective("partial = false", &[]).expect("good").settings.partial);
    let refused = effective("", &["--partial=no"]).expect_err("neither");
    assert!(refused.contains("--partial") && refused.contains("true, false"), "{refused}");
}

/// Options are of the policy that the file names, and stay with that one.
#[test]
fn another_policy_leaves_the_options_of_the_file() {
    let text = "policy = \"fifo\"\nset = { slice_us = 7000 }\n";
    for (flags, options) in [
        (&[][..], &[("slice_us", "7000")][..]),
        (&["--policy=fifo"], &[("slice_us", "7000")]),
        (&["--policy=vruntime"], &[]),
        (&["--policy=kernel"], &[]),
        (&["--policy=vruntime", "--set=slice_us=900"], &[("slice_us", "900")]),
    ] {
        let choice = effective(text, flags).expect("good").choice;
        let said: Vec<_> =
            choice.options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(said, options, "{flags:?}");
    }
    // A file that names none leaves it to the flag.
    let set = "set = { slice_us = 7000 }";
    assert_eq!(effective(set, &["--policy=fifo"]).expect("good").choice.options.len(), 1);
    let kernel = effective(set, &["--policy=kernel"]).expect_err("an option and no policy");
    assert!(kernel.contains("config.toml:1:1: set = slice_us=7000"), "{kernel}");
}

/// Of two that do not go together, both are named with where they are from.
#[test]
fn a_conflict_names_both_places() {
    for (text, flags, words) in [
        (
            "slice_min_us = 2500",
            &["--slice-us=2000"][..],
            &[":1:1: slice_min_us = 2500", "2000 (flag)"],
        ),
        ("slice_us = 700", &["--slice-min-us=900"], &["'900' for '--slice-min-us", "toml:1:1)"]),
        ("slice_min_us = 3001", &[], &[":1:1: slice_min_us = 3001", "3000 (default)"]),
        ("slice_us = 700\nslice_min_us = 900", &[], &[":2:1: slice_min_us", "toml:1:1)"]),
    ] {
        let line = effective(text, flags).expect_err(text);
        assert!(words.iter().all(|word| line.contains(word)), "{text:?}: {line}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_is_allowed() {
    for (text, words) in [
        ("slice_uss = 3\n", &[":1:1: ", "'slice_uss'", "did you mean 'slice_us'?", "grace_us"][..]),
        ("\x20\n nonsense = 3\n", &[":2:2: ", "no setting 'nonsense' (there are profile, "]),
        ("slice_us = \"3000\"", &[":1:12: ", "whole number", "a string", "100 to 100000"]),
        ("slice_us = 1.5", &[":1:12: ", "whole number", "fraction"]),
        ("slice_us = 3000\n\nslice_us = 2000", &[":3:1: ", "duplicate"]),
        ("# größer\npartial = true\n ö = 7", &[":3:2: "]),
        ("slice_us = 99", &[":1:12: slice_us = 99: ", "100 to 100000"]),
        ("slice_us = 99999999999999999999999", &["100 to 100000"]),
        ("slice_us = -1", &["100 to 100000"]),
        ("slice_us = 500\nslice_min_us = 501", &[":2:1: slice_min_us = 501: ", "500"]),
        ("slice_us =", &[":1:11: "]),
        ("partial = 1", &[":1:11: ", "true or false"]),
        ("socket = \"\"", &[":1:10: "]),
        ("socket = 7", &["a string"]),
        ("metrics = 0", &[":1:11: ", "1 to 65535"]),
        ("metrics = true", &["a port"]),
        ("ring_kib = 5", &["power of two"]),
        ("policy = \"best\"", &[":1:1: ", "kernel, vruntime, fifo"]),
        ("policy = \"list\"", &[":1:1: ", "kernel, vruntime, fifo"]),
        ("set = [\"a\"]", &[":1:7: ", "a table"]),
        ("set = { slice_us = [1] }", &[":1:7: ", "a number or a string"]),
        ("[set]\nslice_us = 1000", &[":1:2: ", "choose one by --policy"]),
        ("policy = \"a\\u001b[31m\"", &["policy = a\\x1b[31m"]),
    ] {
        let line = effective(text, &[]).expect_err(text);
        assert!(words.iter().all(|word| line.contains(word)), "{text:?}: {line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn options_are_judged_by_the_policy() {
    let (_dir, path) = file("policy = \"fifo\"\nset = { slice_us = 7 }\n");
    let out = run(&["config", "check", path.to_str().expect("UTF-8")]);
    let line = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!((out.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    let words = [":2:1: ", "slice_us=7", "the policy fifo", "100 to 20000"];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
}

#[test]
fn what_is_no_file_of_settings_is_refused_at_once() {
    let (dir, path) = file(vec![b'#'; 10_000_000]);
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let (_other, binary) = file(b"slice_us = 3000\nsocket = \"\xff\"\n");
    for (path, words) in [
        (path.to_str().expect("UTF-8"), "more than 1024 KiB"),
        ("/dev/zero", "more than 1024 KiB"),
        (pipe.to_str().expect("UTF-8"), "no file"),
        (dir.path().to_str().expect("UTF-8"), "no file"),
        ("/nonexistent/x.toml", "no such file"),
        (binary.to_str().expect("UTF-8"), "config.toml:2:11: this is no text in UTF-8"),
    ] {
        for args in [["config", "check", path], ["config", "show", &format!("--config={path}")]] {
            let out = run(&args);
            let line = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!((out.status.code(), line.lines().count()), (Some(2), 1), "{line}");
            assert!(line.contains(words) && stdout(&out).is_empty(), "{line}");
        }
    }
    // Nothing is a file without settings.
    assert_eq!(run(&["config", "check", "/dev/null"]).status.code(), Some(0));
}

/// What the package installs says all defaults, and changes none.
#[test]
fn the_file_of_the_package_says_the_defaults() {
    let text = include_str!("../packaging/config.toml");
    let defaults = effective("", &[]).expect("good");
    assert_eq!(effective(text, &[]).expect("good").shown, defaults.shown);
    for shown in &defaults.shown {
        let said: Vec<_> = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix('#')?.strip_prefix(&shown.key)?.strip_prefix(" = ")
            })
            .collect();
        match &shown.value {
            Some(value) => assert_eq!(said, [value], "{}", shown.key),
            // An example of a value.
            None => assert_eq!(said.len(), 1, "{}: {said:?}", shown.key),
        }
    }
    let all: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    assert_eq!(all.len(), defaults.shown.len(), "{all:?}");
    // An option is one of a policy.
    let all = all.join("\n").replace("\"kernel\"", "\"fifo\"");
    effective(&all, &[]).expect("all lines are good");
}

#[test]
fn show_prints_a_file_of_the_same_settings() {
    let (_dir, path) = file("policy = \"vruntime\"\n[set]\nslice_us = 4000\n");
    let config = format!("--config={}", path.display());
    let out = run(&["config", "show", &config, "--slice-us=700", "--socket", "/a \"b\"", "-p"]);
    let text = stdout(&out);
    assert!(text.contains("slice_us = 700 ") && text.contains("# flag"), "{text}");
    assert!(text.contains("config.toml:2:2"), "{text}");
    let again = effective(&text, &[]).expect("good");
    assert_eq!(again.settings.socket.to_str(), Some("/a \"b\""));
    assert!(again.settings.partial && again.choice.policy == "vruntime");
    assert_eq!(again.choice.options, [("slice_us".to_owned(), "4000".to_owned())]);
}

#[test]
fn what_the_kernel_can_take_changes_at_once_and_the_rest_is_named() {
    let before = "slice_us = 3000\nsocket = \"/a\"\npolicy = \"fifo\"\nset = { slice_us = 5000 }";
    let mut ours = effective(before, &["--ring-kib=64"]).expect("good");
    let relayed = Relayed { grace: ours.choice.grace, ring_bytes: 65536, idle_direct: true };
    ours.settings.relayed = Some(relayed);
    let after = "slice_us = 500\ngrace_us = 700\nsocket = \"/b\"\nmetrics = 9100\npartial = true";
    for round in 0..2 {
        let now = effective(after, &["--ring-kib=128"]).expect("good");
        let adopted = ours.adopt(now);
        let names = |changes: &[String]| -> Vec<String> {
            changes.iter().filter_map(|change| Some(change.split_once(' ')?.0.to_owned())).collect()
        };
        let changed = ["slice_us", "slice_min_us", "grace_us"];
        assert_eq!(names(&adopted.changed), if round == 0 { &changed[..] } else { &[] });
        let pending = ["policy", "set", "ring_kib", "socket", "metrics", "partial"];
        assert_eq!(names(&adopted.pending), pending);
        assert!(adopted.pending[2].contains("128 (flag), was 64"), "{:?}", adopted.pending);
        let slices = (ours.settings.tuning.slice_max, ours.settings.tuning.slice_min);
        assert_eq!(slices, (Nanos::from_micros(500), Nanos::from_micros(500)));
        let grace = Nanos::from_micros(700);
        assert_eq!(ours.settings.relayed, Some(Relayed { grace, ..relayed }));
        assert_eq!(ours.settings.socket.to_str(), Some("/a"));
        assert!(!ours.settings.partial && ours.settings.metrics.is_none());
        assert_eq!(shown(&ours, "slice_us"), (Some("500".to_owned()), 'f'));
        assert_eq!(shown(&ours, "socket"), (Some("\"/a\"".to_owned()), 'f'));
    }
}

#[test]
fn a_profile_gives_what_nobody_gave_by_itself() {
    for profile in profile::PROFILES {
        let text = format!("profile = \"{}\"", profile.name);
        let tuning = effective(&text, &[]).expect("good").settings.tuning;
        let us = [tuning.slice_max, tuning.slice_min, tuning.lag_max, tuning.preempt_gran];
        let is = [profile.slice_us, profile.slice_min_us, profile.lag_us, profile.preempt_gran_us];
        assert_eq!(us, is.map(Nanos::from_micros), "{text}");
        // By name, and as a request to one that runs.
        let auto = effective("", &[]).expect("good");
        assert_eq!(auto.with_profile(profile.name).expect("good").settings.tuning, tuning);
    }
    let text = "profile = \"server\"\nslice_us = 2000\n";
    let server = effective(text, &["--lag-us=500"]).expect("good");
    let origin = |effective: &Effective, key: &str| {
        effective.shown.iter().find(|shown| shown.key == key).expect("a setting").to_string()
    };
    assert!(origin(&server, "slice_us").contains("= 2000 (/"), "{}", server.text());
    assert_eq!(origin(&server, "slice_min_us"), "slice_min_us = 2000 (profile server)");
    assert_eq!(origin(&server, "lag_us"), "lag_us = 500 (flag)");
    let mut gaming = server.clone();
    let adopted = gaming.adopt(server.with_profile("gaming").expect("good"));
    assert_eq!(adopted.changed.len(), 3, "{adopted:?}");
    assert_eq!(gaming.tuned().len(), 5);
    assert_eq!(origin(&gaming, "profile"), "profile = \"gaming\" (scheduler profile)");
    assert_eq!(origin(&gaming, "slice_min_us"), "slice_min_us = 1000 (profile gaming)");
    assert!(origin(&gaming, "slice_us").contains("= 2000 (/"), "it was given by itself");
    // Read again, the file counts.
    gaming.adopt(effective(text, &["--lag-us=500"]).expect("good"));
    assert_eq!(gaming.settings.tuning, server.settings.tuning);

    let long = effective("profile = \"powersave\"\nslice_min_us = 5000", &[]).expect("good");
    let refused = long.with_profile("lowlatency").expect_err("above the longest slice");
    assert!(refused.contains("slice_min_us = 5000") && refused.contains("1000"), "{refused}");
    assert!(long.with_profile("fast").expect_err("no profile").contains("gaming"));
    let unknown = effective("profile = \"fast\"", &[]).expect_err("no profile");
    assert!(unknown.contains(":1:11: ") && unknown.contains("lowlatency"), "{unknown}");
}

#[test]
fn rules_are_read_in_their_order_and_shown() {
    let text = r#"slice_us = 2000
[[rule]]
name = "ffplay*"
nice = "-5..3"
class = "latency"
budget_percent = 40
expires_s = 60

[[rule]]
exe = "/usr/{bin,lib}/**"
user = 0
weight = 0.5
slice_us = 700

[[rule]]
cgroup = "/system.slice/*\u002eservice"
cpus = "0-2,7"
"#;
    let rules = effective(text, &[]).expect("good");
    assert_eq!(rules.rules.len(), 3);
    let [first, second, third] = &rules.rules[..] else { panic!("{:?}", rules.rules) };
    let is = [("latency", 40, 100, Some(60))];
    let boost = first.effect.boost.expect("a boost");
    let class = first.effect.class.expect("a class").name();
    assert_eq!([(class, boost.budget_percent, boost.period_ms, boost.expires_s)], is);
    assert!(first.at.ends_with(":2:1"), "{}", first.at);
    assert_eq!(second.who.user.as_ref().map(|user| user.id), Some(0));
    assert_eq!((second.effect.weight, second.effect.boost), (Some(0.5), None));
    assert_eq!(third.who.cgroup.as_deref(), Some("/system.slice/*.service"));
    assert_eq!(third.effect.cpus.as_ref().map(Vec::len), Some(4));
    let shown = rules.text();
    assert!(shown.contains("# rule 2, ") && shown.contains("weight = 0.5"), "{shown}");
    let again = effective(&shown, &[]).expect("what is shown is good");
    for (one, other) in rules.rules.iter().zip(&again.rules) {
        assert_eq!((&one.who, &one.effect), (&other.who, &other.effect), "{shown}");
    }
    let adopted = rules.clone().adopt(effective("slice_us = 2000", &[]).expect("good"));
    assert_eq!(adopted.changed, ["0 rules, there were 3"]);

    let (_dir, path) =
        file("[[rule]]\nname = \"a*\"\nweight = 0.5\n[[rule]]\nname = \"ab\"\nweight = 2\n");
    let out = run(&["config", "check", path.to_str().expect("UTF-8")]);
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{told}");
    assert!(told.contains("config.toml:4:1: rule 2 has no effect: rule 1"), "{told}");
}

#[test]
fn what_is_wrong_with_rules_is_told_with_its_place() {
    let who = "name = \"a\"";
    for (fields, words) in [
        ("nam = \"a\"", &[":2:1: ", "'nam'", "did you mean 'name'?", "expires_s"][..]),
        ("name = 7", &[":2:8: name = 7: ", "a string, not a whole number"]),
        ("name = \"\"", &[":2:8: ", "1 to 1024 bytes"]),
        ("exe = \"/a/[b\"", &[":2:7: ", "must be a glob", "unclosed character class"]),
        ("cgroup = \"{a\"", &["must be a glob", "unclosed alternate"]),
        ("user = \"nobody-of-that-name\"", &[":2:8: ", "no such user"]),
        ("user = -1", &["no such user"]),
        ("nice = 20", &[":2:8: ", "-20 to 19"]),
        ("nice = \"3..-3\"", &["-20 to 19"]),
        ("class = \"batch\"", &[":1:1: rule 1: ", "name, exe, cgroup, user and nice"]),
        ("class = \"latencey\"", &["did you mean 'latency'?", "latency, normal, batch, idle"]),
        (who, &[":1:1: rule 1: ", "class, weight, slice_us and cpus"]),
        ("weight = 0", &["weight = 0: ", "0.01 to 100", "bigger is sooner"]),
        ("weight = nan", &["0.01 to 100"]),
        ("weight = \"2\"", &["not a string"]),
        ("slice_us = 99", &["100 to 100000"]),
        ("cpus = \"3-1\"", &["a list of CPUs below 8192"]),
        ("cpus = \"0-x\"", &["a list of CPUs"]),
        ("budget_percent = 91", &["1 to 90"]),
        ("period_ms = 19", &["20 to 1000"]),
        ("expires_s = 0", &["1 to 604800"]),
        ("name = \"a\"\nclass = \"idle\"\nweight = 2", &[":1:1: rule 1: ", "class = \"idle\""]),
        ("name = \"a\"\nclass = \"batch\"\nweight = 2", &["is a boost"]),
        ("name = \"a\"\nclass = \"batch\"\nperiod_ms = 20", &["are of a boost"]),
        ("name = \"a\"\nweight = 1\nexpires_s = 20", &["are of a boost"]),
        (
            "name = \"a\"\nweight = 2\n[[rule]]\nname = \"a\"\nclass = \"idle\"",
            &[":4:1: rule 2 ", "as rule 1"],
        ),
        ("name = \"a\"\nclass = \"\\u001b\"", &[":3:9: "]),
    ] {
        let line = effective(&format!("[[rule]]\n{fields}\n"), &[]).expect_err(fields);
        assert!(words.iter().all(|word| line.contains(word)), "{fields:?}: {line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    for (text, word) in [
        ("rule = 7", "not a whole number"),
        ("rule = [7]", "a rule is a table"),
        ("[rule]\nname = \"a\"", "not a table"),
        ("[[rules]]\nname = \"a\"", "did you mean 'rule'?"),
    ] {
        let line = effective(text, &[]).expect_err(text);
        assert!(line.contains(word), "{text}: {line}");
    }
    let many = |nr: usize, fields: fn(usize) -> String| -> String {
        (0..nr).map(|i| format!("[[rule]]\nname = \"a{i}\"\n{}\n", fields(i))).collect()
    };
    let rules = effective(&many(1024, |_| "weight = 0.5".into()), &[]).expect("as many as may be");
    assert_eq!(rules.rules.len(), 1024);
    let line = effective(&many(1025, |_| "weight = 0.5".into()), &[]).expect_err("one more");
    assert!(line.contains("1025 rules, 1024 at most"), "{line}");
    let line = effective(&many(65, |i| format!("cpus = \"{i}\"")), &[]).expect_err("sets");
    assert!(line.contains("rule 65: there are 64 different sets"), "{line}");
}

/// A program of another's policy has settings of its own, and looks for no file.
#[test]
fn other_programs_look_for_no_file() {
    let (_dir, path) = file("policy = \"fifo\"\nslice_us = 4000\n");
    let path = path.to_str().expect("UTF-8");
    let own = |args: &[&str]| parse([&["mine"], args].concat(), Some("Mine"));
    let failure = own(&["--config", path]).expect_err("another policy");
    assert!(failure.error.to_string().contains("policy = fifo"), "{:?}", failure.error);
    match own(&["config", "show"]) {
        Ok(Request::Print(text)) => assert!(!text.contains("policy"), "{text}"),
        other => panic!("{other:?}"),
    }
    for help in [&["--help"][..], &["config", "show", "--help"]] {
        match own(help) {
            Ok(Request::Print(text)) => {
                assert!(text.contains("--config"), "{text}");
                assert!(!text.contains("config.toml"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file holds, it is taken or refused in one line; and shown as what is taken again.
    #[test]
    fn any_file_is_taken_or_refused(
        lines in prop::collection::vec("(profile|slice_us|slice_min_us|lag_us|preempt_gran_us|policy|set|grace_us|ring_kib|socket|metrics|partial|exit_dump_len|[a-z]{1,3}) = (true|[0-9]{1,6}|\"gaming\"|\"[ -~é\u{1b}]{0,6}\"|\"fifo\"|\\{ a = 1 \\}|.{0,8})", 0..4)
    ) {
        match effective(&lines.join("\n"), &[]) {
            Ok(taken) => {
                let again = effective(&taken.text(), &[]).expect("what is shown is good");
                prop_assert_eq!(again.settings, taken.settings);
                prop_assert_eq!(again.choice, taken.choice);
            }
            Err(line) => prop_assert!(!line.chars().any(char::is_control), "{:?}", line),
        }
    }
}

//! Runs of the simulator that are followed: a trace, a bar of progress, and an end before the end.

mod perfetto;

use nix::{
    libc::SIGINT,
    pty::openpty,
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use perfetto::What;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const SCHEDULER: &str = env!("CARGO_BIN_EXE_scheduler");

fn scenario(name: &str) -> String {
    format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_trace_that_cannot_be_written_costs_nothing_else() {
    let run = |path: &str| {
        let args = ["simulate", &scenario("pinned-workers"), "--perfetto", path];
        let output = Command::new(SCHEDULER).args(args).output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, table, error) = run("/dev/full");
    assert_eq!(code, Some(1), "{error}");
    assert!(table.contains("wait p99") && table.contains("from seed 1"), "{table}");
    assert!(error.contains("writing the trace: No space left"), "{error}");
    // Where it cannot even begin, nothing is simulated.
    let (code, table, error) = run("/nowhere/out");
    assert_eq!((code, table.as_str()), (Some(2), ""));
    assert!(error.contains("--perfetto /nowhere/out: this file cannot be written"), "{error}");
}

#[test]
fn a_trace_tells_what_ran_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("out.pftrace");
    let output = Command::new(SCHEDULER)
        .args(["simulate", &scenario("real-time-neighbour"), "--json", "--perfetto"])
        .arg(&path)
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");

    // By CPU: since when it runs what. By name: time, and wakeups.
    let mut runs = BTreeMap::new();
    let mut ran_ns = BTreeMap::<String, u64>::new();
    let mut wakeups = 0;
    for event in perfetto::events(&fs::read(path).expect("the trace")) {
        wakeups += u64::from(matches!(event.what, What::Waking(_)));
        let What::Switch { prev, next } = event.what else { continue };
        let (now, cpu) = (event.at_ns, event.cpu);
        if let Some((since, before)) = runs.insert(cpu, (now, next)) {
            assert_eq!(prev, before, "at {now} on {cpu}");
            assert!(since <= now);
            let group = prev.comm.rsplit_once([' ', '/']);
            let group = group.map_or(prev.comm.as_str(), |(group, _)| group);
            *ran_ns.entry(group.to_owned()).or_default() += now - since;
        } else {
            assert_eq!((prev.pid, prev.comm), (0, format!("swapper/{cpu}")));
        }
    }
    let whole_ns = 8.0 * 10e9;
    for group in report["groups"].as_array().expect("groups") {
        let name = group["name"].as_str().expect("a name");
        let percent = ran_ns[name] as f64 * 100.0 / whole_ns;
        // The last runs have no end in the trace.
        let told = group["cpu_percent"].as_f64().expect("a number");
        assert!((percent - told).abs() < 0.5, "{name}: {percent} in the trace, {told} told");
    }
    let taken = ran_ns["real-time"] as f64 * 100.0 / whole_ns;
    let told = report["machine"]["taken_percent"].as_f64().expect("a number");
    assert!((taken - told).abs() < 0.1, "{taken} in the trace, {told} told");
    let woken = report["groups"].as_array().expect("groups").iter();
    let woken: u64 = woken.filter_map(|g| g["wakeup_latency"]["count"].as_u64()).sum();
    assert!(woken <= wakeups && wakeups < woken + 30, "{wakeups} in the trace, {woken} told");
}

#[test]
fn an_interrupted_run_prints_what_there_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("long.toml");
    let text = fs::read_to_string(scenario("audio-beside-games")).expect("readable");
    fs::write(&path, text.replace("duration = \"10s\"", "duration = \"80000s\"")).expect("written");
    let pty = openpty(None, None).expect("a terminal");
    let mut child = Command::new(SCHEDULER)
        .args(["simulate", path.to_str().expect("UTF-8"), "--json", "--runs", "100000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::from(pty.slave))
        .spawn()
        .expect("it starts");
    thread::sleep(Duration::from_secs(2));
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::try_from(SIGINT).expect("a signal")).expect("it is there");
    let mut out = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("UTF-8");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let simulated_s = report["machine"]["simulated_s"].as_f64().expect("a number");
    assert!((1.0..80_000.0).contains(&simulated_s), "{simulated_s} s");
    assert!(report["groups"][2]["wakeup_latency"]["count"].as_u64() > Some(100), "{out}");
    let runs = report["runs"].as_u64().expect("a number");
    assert!((1..1000).contains(&runs), "{runs} runs");

    let mut drawn = [0; 4096];
    let length = File::from(pty.master).read(&mut drawn).expect("a bar was drawn");
    let drawn = String::from_utf8_lossy(&drawn[..length]);
    assert!(drawn.contains("% of simulated time"), "{drawn:?}");
}

/// Whatever it is stuck in: here a pipe that nobody reads, in practice a policy that loops.
#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let pipe = dir.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    let mut child = Command::new(SCHEDULER)
        .args(["simulate", &scenario("pinned-workers"), "--perfetto"])
        .arg(&pipe)
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let pid = Pid::from_raw(child.id() as i32);
    let interrupt = || {
        thread::sleep(Duration::from_secs(1));
        kill(pid, Signal::try_from(SIGINT).expect("a signal")).expect("it is there");
    };
    interrupt();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(child.try_wait().expect("it is ours"), None, "the first is a wish");
    interrupt();
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
}

#[test]
fn what_never_happens_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.toml");
    let text = "about = \"a\"\nduration = \"1s\"\ntopology = \"1 core\"\n\
                [[group]]\nname = \"\\u001b[2J\"\ntasks = 1\nstart = \"1s..2s\"\nphases = [{ run = \"1s\" }]\n\
                [[group]]\nname = \"there\"\ntasks = 1\nphases = [{ run = \"1s\" }]\n\
                [[event]]\nat = \"1s\"\nkind = \"offline\"\ncpus = \"0\"\n\
                [[event]]\nat = \"1ms\"\nkind = \"policy-stopped\"\nfor = \"1ms\"\n";
    fs::write(&path, text).expect("written");
    let run = |policy: &str| {
        let args = ["simulate", path.to_str().expect("UTF-8"), "--policy", policy];
        let output = Command::new(SCHEDULER).args(args).output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8(all).expect("UTF-8")
    };
    let said = run("kernel");
    for words in ["starts after the end", "event 1 comes after the end", "event 2 stops the policy"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    // What a file calls its groups does not reach the terminal as it is.
    assert!(said.contains("\\x1b[2J") && !said.contains('\x1b'), "{said:?}");
    assert!(!run("fifo").contains("event 2"), "there is one");
}

#[test]
fn a_sweep_shows_the_trade_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let svg = dir.path().join("out.svg");
    let file = dir.path().join("many.toml");
    let text = "about = \"many <on> a CPU\"\nduration = \"2s\"\nhz = 1000\ntopology = \"1 core\"\n\
                [[group]]\nname = \"hogs\"\ntasks = 4\nphases = [{ run = \"1s\" }]\n\
                [[group]]\nname = \"naps\"\ntasks = 1\nphases = [{ run = \"200us\" }, { sleep = \"exp 5ms\" }]\n";
    fs::write(&file, text).expect("written");
    let run = |args: &[&str]| {
        let output = Command::new(SCHEDULER)
            .args(["simulate", file.to_str().expect("UTF-8")])
            .args(args)
            .output()
            .expect("it starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let range = ["--sweep", "slice_us=1000..20000"];
    let path = svg.to_str().expect("UTF-8");
    let (code, table, err) = run(&[&range[..], &["--svg", path, "--runs", "2"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..3], ["slice_us", "busy%", "switches/s"]);
    assert!(table.lines().next().expect("a head").ends_with("hogs p99  naps p99"), "{table}");
    assert_eq!(rows.len(), 11, "{table}");
    assert_eq!((rows[1][0], rows[10][0]), ("1000", "20000"));
    let switches = |row: usize| rows[row][2].parse::<f64>().expect("a number");
    assert!(switches(1) > 1.5 * switches(10), "longer slices, fewer switches: {table}");
    let drawn = fs::read_to_string(svg).expect("the chart");
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{drawn}");
    for text in ["naps p99", "switches/s, right axis", "many &lt;on&gt; a CPU"] {
        assert!(drawn.contains(text), "{text}: {drawn}");
    }

    // Each value is what a simulation with that setting prints.
    let json = |args: &[&str]| {
        let (code, out, err) = run(&[args, &["--json"]].concat());
        assert_eq!((code, err.as_str()), (Some(0), ""));
        serde_json::from_str::<serde_json::Value>(&out).expect("JSON")
    };
    let swept = json(&range);
    let alone = json(&["--set", "slice_us=20000"]);
    assert_eq!(swept["points"][9]["value"], 20_000);
    assert_eq!(swept["points"][9]["result"]["log_hash"], alone["log_hash"]);
    assert_ne!(swept["points"][0]["result"]["log_hash"], alone["log_hash"]);

    for (args, says) in [
        (&["--sweep", "slice_us=5..20"][..], "100 to 100000"),
        (&["--sweep", "slice_us=2000..1000"], "LOW..HIGH"),
        (&["--sweep", "slice_us=2000"], "LOW..HIGH"),
        (&["--sweep", "slice=1000..2000"], "slice_us"),
        (&["--svg", "x.svg"], "--sweep"),
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
        assert!(err.contains(says), "{args:?}: {err}");
    }
}

/// A row of a run that was cut short would say what is not so.
#[test]
fn an_interrupted_sweep_has_no_row_of_a_part() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("long.toml");
    let text = fs::read_to_string(scenario("audio-beside-games")).expect("readable");
    fs::write(&path, text.replace("duration = \"10s\"", "duration = \"80000s\"")).expect("written");
    let child = Command::new(SCHEDULER)
        .args(["simulate", "--sweep", "slice_us=500..20000"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    thread::sleep(Duration::from_secs(1));
    let pid = Pid::from_raw(child.id() as i32);
    // As `timeout` sends it: to the process, and to its group at once.
    for _ in 0..2 {
        kill(pid, Signal::try_from(SIGINT).expect("a signal")).expect("it is there");
    }
    let output = child.wait_with_output().expect("it ends");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(0), ""), "{err}");
    assert!(err.contains("interrupted: 0 of 10 values"), "{err}");
}

/// Who is to blame is told by the exit code.
#[test]
fn a_scenario_that_cannot_be_is_bad_usage() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bomb.toml");
    let text = "about = \"a\"\nduration = \"10s\"\ntopology = \"1 core\"\n\
                [[group]]\nname = \"a\"\ntasks = 1\nphases = [{ fork = \"a\" }, { run = \"1us\" }]\n";
    fs::write(&path, text).expect("written");
    let output = Command::new(SCHEDULER).arg("simulate").arg(&path).output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("tasks were forked"), "{err}");
}

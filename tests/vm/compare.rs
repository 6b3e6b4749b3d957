//! `scheduler compare`, with commands whose answer is known.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Finished, Hog, hog},
    qemu::Topology,
    vm::SCHEDULER,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{fs, path::Path, thread, time::Duration};

pub const CASES: &[Case] = &[
    Case::new(13, "compare_a_sleep", compare_a_sleep).deterministic().on(Topology::TWO),
    Case::new(13, "compare_latency", compare_latency).deterministic().on(Topology::TWO),
    Case::new(13, "compare_failures", compare_failures),
];

const LIMIT: Duration = Duration::from_secs(120);

fn compare(vm: &Vm, args: &[&str]) -> Result<Finished> {
    vm.run(&[&[SCHEDULER, "compare"], args].concat(), LIMIT)
}

/// A figure of the result by name.
fn figure(results: &Value, name: &str) -> Result<Value> {
    let figures = results["figures"].as_array().context("no figures")?;
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.cloned().with_context(|| format!("no {name} in {results}"))
}

fn results(vm: &Vm, args: &[&str]) -> Result<Value> {
    let end = compare(vm, args)?;
    ensure!(end.code == 0, "exit code {}: {}", end.code, end.stderr);
    ensure!(vm.state()? == "disabled", "sched_ext is {} afterwards", vm.state()?);
    serde_json::from_str(&end.stdout).with_context(|| format!("reading {}", end.stdout))
}

/// A sleep takes as long under any scheduler.
fn compare_a_sleep(vm: &mut Vm) -> Result<()> {
    let results = results(vm, &["--runs", "4", "--json", "--", "sleep", "0.5"])?;
    vm.say(&results);
    let wall = figure(&results, "wall time")?;
    ensure!(wall["verdict"] == "no_difference", "{wall}");
    for arm in ["default", "ours"] {
        let seconds = wall[arm].as_array().context("no runs")?;
        ensure!(seconds.len() == 4, "{wall}");
        let all_right = seconds.iter().filter_map(Value::as_f64).all(|s| (0.5..0.8).contains(&s));
        ensure!(all_right, "a sleep of half a second: {wall}");
    }
    Ok(())
}

/// Tasks that wake each millisecond beside two hogs a CPU wait for less time.
fn compare_latency(vm: &mut Vm) -> Result<()> {
    let _hogs: Vec<Hog> = (0..4).map(|_| hog().start()).collect::<Result<_>>()?;
    let probe = ["cyclictest", "--policy=other", "-q", "-t2", "-i", "1000", "-l", "500"];
    let args = ["--runs", "4", "--metric", r"Avg:\s*(\d+)", "--json", "--"];
    let results = results(vm, &[&args[..], &probe].concat())?;
    for name in ["metric", "wait of command p50", "wait of command p99"] {
        vm.say(format!("{name}: {}", figure(&results, name)?));
    }
    let wait = figure(&results, "wait of command p99")?;
    ensure!(wait["verdict"] == "less", "{wait}");
    Ok(())
}

fn compare_failures(vm: &mut Vm) -> Result<()> {
    let end = compare(vm, &["--warmup=0", "--", "sh", "-c", "echo out of cheese; exit 3"])?;
    vm.say(&end.stderr);
    ensure!(end.code == 1, "exit code {}: {}", end.code, end.stderr);
    for words in ["out of cheese", "exit status: 3", "default"] {
        ensure!(end.stderr.contains(words), "{words:?} is not in {}", end.stderr);
    }
    let end = compare(vm, &["--metric", "cheese", "--", "echo", "none"])?;
    ensure!(end.code == 1 && end.stderr.contains("--metric 'cheese'"), "{}", end.stderr);
    let end = compare(vm, &["--", "/bin/nothing"])?;
    ensure!(end.code == 1 && end.stderr.contains("/bin/nothing"), "{}", end.stderr);
    let end = compare(vm, &["--runs", "1", "--", "true"])?;
    ensure!(end.code == 2 && end.stderr.contains("--runs"), "{}", end.stderr);

    let mut scheduler = vm.scheduler(&[])?;
    let end = compare(vm, &["--", "true"])?;
    ensure!(end.code == 75, "beside another scheduler: exit code {}: {}", end.code, end.stderr);
    scheduler.check_alive()?;
    scheduler.finish()?;

    // Ctrl-C while ours schedules: the command ends, and the kernel's default is back.
    let args = ["compare", "--warmup=0", "--", "sh", "-c", "sleep 1; echo $$ >/tmp/command"];
    let process = vm.start(&[&[SCHEDULER], &args[..]].concat())?;
    vm.wait_for_state("enabled", LIMIT)?;
    // Of the run before.
    fs::remove_file("/tmp/command").context("the run under the default")?;
    thread::sleep(Duration::from_millis(300));
    process.signal(Signal::SIGINT)?;
    let end = process.wait(LIMIT)?;
    vm.say(&end.stderr);
    ensure!(end.code == 1 && end.stderr.contains("stopped after"), "{}", end.stderr);
    ensure!(vm.state()? == "disabled", "sched_ext is {} afterwards", vm.state()?);
    thread::sleep(Duration::from_millis(1500));
    ensure!(!Path::new("/tmp/command").exists(), "the command went on");
    Ok(())
}

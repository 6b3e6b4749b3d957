//! Other programs ask the running scheduler: over its socket, and for metrics.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::hog,
    qemu::Topology,
    vm::{SCHEDULER, Scheduler, wait_for},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt, chown},
        net::UnixStream,
    },
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

pub const CASES: &[Case] =
    &[Case::new(11, "asked_while_it_runs", asked_while_it_runs).core().on(Topology::TWO)];

const FOLDER: &str = "/run/scx/root";
const SOCKET: &str = "/var/run/scx/root/stats";
const USER: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(20);

/// As the service runs it: another user, with two capabilities.
fn start(flags: &[&str]) -> Result<Scheduler> {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]);
    let sets = ["--inh-caps", "--ambient-caps", "--bounding-set"];
    command.args(sets.map(|set| format!("{set}=-all,+bpf,+perfmon"))).arg(SCHEDULER);
    Scheduler::start(&mut command, flags)
}

fn ask(stream: &mut BufReader<UnixStream>, request: &Value) -> Result<Value> {
    writeln!(stream.get_mut(), "{request}")?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let response: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(response["errno"] == 0, "{response}");
    Ok(response["args"]["resp"].clone())
}

fn scrape() -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", 9100)).context("asking for metrics")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: guest\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").context("no head")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body.to_owned())
}

fn metric(page: &str, name: &str) -> Result<f64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name} in {page}"))?.parse()?)
}

fn asked_while_it_runs(vm: &mut Vm) -> Result<()> {
    let up = vm.run(&["ip", "link", "set", "lo", "up"], LIMIT)?;
    ensure!(up.code == 0, "the loopback: {up:?}");
    // As the service manager makes it.
    fs::create_dir_all(FOLDER)?;
    chown(FOLDER, Some(USER), Some(USER))?;
    let mut scheduler = start(&["--metrics", "9100"])?;
    wait_for(LIMIT, || Ok(Path::new(SOCKET).exists()))?;
    let file = fs::metadata(SOCKET)?;
    ensure!((file.mode() & 0o777, file.uid()) == (0o600, USER), "{file:?}");

    let busy = hog().nice(3).on(&[1]).start()?;
    let _sleeper = hog().sleeping(200, 2000).start()?;
    let stream = UnixStream::connect(SOCKET).context("asking over the socket")?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut stream = BufReader::new(stream);
    let interval = json!({"req": "stats", "args": {"target": "interval", "tasks": "2"}});
    let first = scrape()?;
    // From here on figures of tasks are kept.
    ask(&mut stream, &interval)?;
    thread::sleep(Duration::from_secs(2));
    let told = ask(&mut stream, &interval)?;
    let second = scrape()?;
    let top = ask(&mut stream, &json!({"req": "stats"}))?;
    ask(&mut stream, &json!({"req": "stats_meta"}))?;

    vm.say(format!(
        "told {} bytes of JSON, {} bytes of metrics",
        told.to_string().len(),
        second.len()
    ));
    let share = told["cpus"][1]["busy_percent"].as_f64().context("no CPU 1")?;
    ensure!(share > 90.0, "CPU 1 has a hog, and is {share} % busy");
    let task = &told["tasks"][0];
    ensure!(task["pid"] == busy.pid().as_raw() && task["nice"] == 3, "{task}");
    ensure!(task["busy_percent"].as_f64().is_some_and(|busy| busy > 80.0), "{task}");
    ensure!(top["switches"].is_u64() && top["cpus"]["1"]["run_ns"].is_u64(), "{top}");

    // What was counted between the two answers was counted between the two scrapes around them.
    for (counter, name, scale) in [
        ("switches", "scheduler_switches_total", 1.0),
        ("wakeups", "scheduler_wakeups_total", 1.0),
        ("run_ns", "scheduler_run_seconds_total", 1e9),
        ("wait_ns", "scheduler_wait_seconds_total", 1e9),
    ] {
        let grown = (metric(&second, name)? - metric(&first, name)?) * scale;
        let told = told["total"]["counters"][counter].as_f64().context(counter)?;
        vm.say(format!("{counter}: {told:.0} of {grown:.0} between the scrapes"));
        ensure!(told > 0.0 && told <= grown + 1.0 && told >= grown / 4.0, "{counter}");
    }
    let count = metric(&second, "scheduler_wakeup_latency_seconds_count")?;
    let sum = metric(&second, "scheduler_wakeup_latency_seconds_sum")?;
    ensure!(count > 0.0 && sum > 0.0 && sum / count < 1.0, "{sum} s of {count} wakeups");
    if Path::new("/sys/kernel/sched_ext/root/events").exists() {
        let events = told["kernel_events"].as_object().context("no events")?;
        ensure!(!events.is_empty(), "the kernel counts events, and none are told");
        ensure!(second.contains("scheduler_kernel_events_total{event="), "{second}");
    }
    scheduler.check_alive()?;
    scheduler.finish()?;
    ensure!(!Path::new(SOCKET).exists(), "the socket stays behind");

    // Where it may not make the socket, it says so and schedules.
    fs::remove_dir_all(FOLDER)?;
    let mut scheduler = start(&[])?;
    wait_for(LIMIT, || Ok(scheduler.process().stderr().contains("nobody can ask")))?;
    vm.say(scheduler.process().stderr().trim());
    scheduler.check_alive()?;
    scheduler.finish()?;
    Ok(())
}

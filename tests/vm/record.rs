//! `scheduler record`: what it tells of a real machine, and of the scheduler that runs there.

use crate::perfetto::{self, Event, Said, What};
use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Finished, Running, hog},
    qemu::Topology,
    vm::{SCHEDULER, wait_for},
};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, fs, process::Command, thread, time::Duration};

pub const CASES: &[Case] = &[
    Case::new(17, "record_reasons", record_reasons).core().on(Topology::TWO),
    Case::new(17, "record_loses_and_says_so", record_loses_and_says_so),
    Case::new(17, "record_costs_little", record_costs_little).deterministic().on(Topology::TWO),
];

const TRACE: &str = "/run/recorded.pftrace";
const LIMIT: Duration = Duration::from_secs(60);

fn record(vm: &mut Vm, seconds: &str) -> Result<(Finished, Vec<Event>)> {
    let end = vm.run(&[SCHEDULER, "record", "-o", TRACE, "--seconds", seconds], LIMIT)?;
    ensure!(end.code == 0, "{end:?}");
    vm.say(end.stdout.trim());
    Ok((end, perfetto::events(&fs::read(TRACE)?)))
}

/// Who runs on each CPU is who came there last: nothing is missing, and all is in order.
fn check_chains(events: &[Event]) -> Result<usize> {
    let (mut running, mut switches) = (BTreeMap::new(), 0);
    for event in events {
        let What::Switch { prev, next } = &event.what else { continue };
        switches += 1;
        let before = running.insert(event.cpu, (event.at_ns, next.pid));
        if let Some((at_ns, pid)) = before {
            ensure!(
                pid == prev.pid,
                "CPU {} had {pid}, and {} goes: {event:?}",
                event.cpu,
                prev.pid
            );
            ensure!(at_ns <= event.at_ns, "CPU {}: {event:?}", event.cpu);
        }
    }
    ensure!(running.len() == 2, "CPUs {:?}", running.keys());
    Ok(switches)
}

/// Three hogs on two CPUs. Each start of one has a reason: it was first by its deadline.
fn record_reasons(vm: &mut Vm) -> Result<()> {
    let scheduler = vm.scheduler(&[])?;
    let hogs = [hog().start()?, hog().start()?, hog().start()?];
    let pids = hogs.each_ref().map(|hog| hog.pid().as_raw());
    thread::sleep(Duration::from_secs(1));
    let (end, events) = record(vm, "3")?;
    let switches = check_chains(&events)?;
    ensure!(end.stdout.contains(&format!("{switches} switches,")), "{end:?}: {switches}");
    ensure!(!end.stdout.contains("without reasons") && !end.stdout.contains("room"), "{end:?}");
    let started = events.iter().filter(
        |event| matches!(&event.what, What::Switch { next, .. } if pids.contains(&next.pid)),
    );
    let started = started.count();
    let notes_of = |what: &'static str| {
        events.iter().filter_map(move |event| match &event.what {
            What::Note { pid, name, said } if name == what && pids.contains(pid) => Some(said),
            _ => None,
        })
    };
    let reasons: Vec<_> = notes_of("runs").collect();
    let gave_way = notes_of("gave way").count();
    vm.say(format!("{started} starts of hogs, {} reasons, {gave_way} gave way", reasons.len()));
    // In 3 s each CPU goes to another hog each 3 ms or so; ticks are 4 ms apart.
    ensure!(started >= 300, "{started} starts");
    ensure!(reasons.len() == started, "{} reasons of {started}", reasons.len());
    ensure!(gave_way * 10 >= started * 8, "{gave_way} of {started} gave way");
    let waited = |said: &&&BTreeMap<String, Said>| match said.get("why") {
        Some(Said::Words(why)) => why.contains("until its deadline was first"),
        _ => false,
    };
    let by_deadline = reasons.iter().filter(waited).count();
    ensure!(by_deadline * 10 >= started * 8, "{by_deadline} of {started} by deadline");
    for said in &reasons {
        ensure!(said.get("weight") == Some(&Said::Number(1024)), "{said:?}");
        for (name, most_ns) in [("lag_vns", 50_000_000), ("due_vns", 50_000_000)] {
            let value = said.get(name).with_context(|| format!("no {name}: {said:?}"))?;
            let near = matches!(value, Said::Number(vns) if vns.abs() < most_ns);
            ensure!(near, "{name}: {said:?}");
        }
    }
    scheduler.finish()?;

    let (end, events) = record(vm, "1")?;
    ensure!(end.stdout.contains("without reasons"), "{end:?}");
    check_chains(&events)?;
    let is_reason =
        |event: &Event| matches!(&event.what, What::Note { name, .. } if name == "runs");
    ensure!(!events.iter().any(is_reason), "reasons of whom?");
    Ok(())
}

/// A ring that is too small for what happens: the trace has less, and it says how much.
fn record_loses_and_says_so(vm: &mut Vm) -> Result<()> {
    let args = ["record", "-o", TRACE, "--seconds", "3", "--ring-kib", "64"];
    let recorder = Running::start(Command::new(SCHEDULER).args(args))?;
    thread::sleep(Duration::from_millis(500));
    let load = vm.run(&["hackbench", "-g", "4", "-l", "300", "-T", "-p"], LIMIT)?;
    ensure!(load.code == 0, "hackbench: {load:?}");
    let end = recorder.wait(LIMIT)?;
    vm.say(end.stdout.trim());
    ensure!(end.code == 0, "{end:?}");
    ensure!(end.stdout.contains("more events found no room"), "{end:?}");
    ensure!(!perfetto::events(&fs::read(TRACE)?).is_empty(), "an empty trace");
    Ok(())
}

/// Beside `hackbench`, where next to nothing but switches and wakeups happens.
fn record_costs_little(vm: &mut Vm) -> Result<()> {
    let scheduler = vm.scheduler(&[])?;
    let hackbench = |vm: &mut Vm| -> Result<Duration> {
        let end = vm.run(&["hackbench", "-g", "2", "-l", "300", "-T", "-p"], LIMIT)?;
        ensure!(end.code == 0, "hackbench: {end:?}");
        Ok(end.took)
    };
    let without = hackbench(vm)?;
    let recorder =
        Running::start(Command::new(SCHEDULER).args(["record", "-o", TRACE, "--seconds", "30"]))?;
    wait_for(LIMIT, || Ok(fs::metadata(TRACE).is_ok_and(|file| file.len() > 1 << 16)))?;
    let with = hackbench(vm)?;
    recorder.signal(Signal::SIGINT)?;
    let end = recorder.wait(LIMIT)?;
    scheduler.finish()?;
    let percent = (with.as_secs_f64() / without.as_secs_f64() - 1.0) * 100.0;
    vm.say(end.stdout.trim());
    vm.say(format!(
        "hackbench: {without:.3?}, and {with:.3?} while it is recorded: {percent:.0} % more"
    ));
    ensure!(end.code == 0 && !end.stdout.contains("room"), "{end:?}");
    ensure!(percent < 30.0, "{percent:.0} %");
    Ok(())
}

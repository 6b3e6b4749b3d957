//! Statistics tell the truth: what the scheduler prints is what the kernel counts.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Hog, hog},
    vm::{Scheduler, wait_for},
};
use serde_json::Value;
use std::{fs, thread, time::Duration};

pub const CASES: &[Case] = &[
    Case::new(11, "statistics_busy_and_switches", busy_and_switches).deterministic(),
    Case::new(11, "statistics_return_to_the_floor", return_to_the_floor).deterministic(),
];

/// The whole intervals printed so far.
fn intervals(scheduler: &mut Scheduler) -> Result<Vec<Value>> {
    let text = scheduler.process().stdout();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).context("reading an interval")).collect()
}

/// Waits for `count` intervals from here on, and returns them.
fn next_intervals(scheduler: &mut Scheduler, count: usize) -> Result<Vec<Value>> {
    let before = intervals(scheduler)?.len();
    wait_for(Duration::from_secs(60), || Ok(intervals(scheduler)?.len() >= before + count))?;
    Ok(intervals(scheduler)?.split_off(before))
}

fn number(sample: &Value, path: &str) -> Result<f64> {
    sample.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {sample}"))
}

/// Busy part of all CPUs so far, in ticks, of all ticks; and context switches (proc_stat(5)).
fn kernel_counts() -> Result<(f64, f64, f64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = |name: &str| -> Result<Vec<f64>> {
        let fields = text.lines().find_map(|line| line.strip_prefix(name)).context("/proc/stat")?;
        Ok(fields.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    };
    let ticks = line("cpu ")?;
    let (idle, iowait) = (ticks[3], ticks[4]);
    let all: f64 = ticks.iter().take(8).sum();
    Ok((all - idle - iowait, all, line("ctxt ")?[0]))
}

fn busy_and_switches(vm: &mut Vm) -> Result<()> {
    const COUNT: usize = 3;
    let mut scheduler = vm.scheduler(&["--json", "--interval", "1"])?;
    let _hogs: Vec<Hog> = (0..2).map(|_| hog().start()).collect::<Result<_>>()?;
    let _sleepers: Vec<Hog> =
        (0..3).map(|_| hog().sleeping(300, 1000).start()).collect::<Result<_>>()?;
    // From the end of one interval to the end of another, so that both clocks see the same time.
    next_intervals(&mut scheduler, 2)?;
    let (busy, all, switches) = kernel_counts()?;
    let samples = next_intervals(&mut scheduler, COUNT)?;
    let (busy_after, all_after, switches_after) = kernel_counts()?;

    let mean = |path: &str| -> Result<f64> {
        Ok(samples.iter().map(|s| number(s, path)).sum::<Result<f64>>()? / COUNT as f64)
    };
    let (ours, theirs) =
        (mean("/total/busy_percent")?, 100.0 * (busy_after - busy) / (all_after - all));
    let ours_switches = mean("/total/switches_per_s")?;
    let theirs_switches = (switches_after - switches) / COUNT as f64;
    vm.say(format!("busy: {ours:.1} % here, {theirs:.1} % in /proc/stat"));
    vm.say(format!("switches a second: {ours_switches:.0} here, {theirs_switches:.0} there"));
    ensure!((ours - theirs).abs() <= 3.0, "busy {ours:.1} %, /proc/stat has {theirs:.1} %");
    // The kernel counts switches to the idle task as well: up to one more for each of ours.
    ensure!(
        ours_switches <= 1.05 * theirs_switches && 2.1 * ours_switches >= theirs_switches,
        "{ours_switches:.0} switches a second, the kernel counts {theirs_switches:.0}"
    );
    scheduler.finish()?;
    Ok(())
}

fn return_to_the_floor(vm: &mut Vm) -> Result<()> {
    const HOGS: usize = 12;
    let mut scheduler = vm.scheduler(&["--json", "--interval", "0.5"])?;
    let hogs: Vec<Hog> = (0..HOGS).map(|_| hog().start()).collect::<Result<_>>()?;
    let loaded = next_intervals(&mut scheduler, 3)?;
    let runnable = number(loaded.last().context("none")?, "/total/runnable")?;
    vm.say(format!("runnable under {HOGS} hogs: {runnable}"));
    ensure!((12.0..=16.0).contains(&runnable), "{runnable} runnable under {HOGS} hogs");
    drop(hogs);
    thread::sleep(Duration::from_millis(500));
    let idle = next_intervals(&mut scheduler, 3)?;
    let runnable = number(idle.last().context("none")?, "/total/runnable")?;
    let queued = number(idle.last().context("none")?, "/total/queue_depth")?;
    vm.say(format!("afterwards: {runnable}, queued {queued}"));
    // The scheduler itself takes the sample.
    ensure!(runnable <= 2.0 && queued == 0.0, "{runnable} runnable, {queued} queued, without load");
    scheduler.finish()?;
    Ok(())
}

//! Statistics tell the truth: what the scheduler prints is what the kernel counts.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Hog, Policy, hog},
    qemu::Topology,
    vm::{SCHEDULER, Scheduler, wait_for},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(11, "statistics_busy_and_switches", busy_and_switches)
        .deterministic()
        .on(Topology::TWO),
    Case::new(11, "statistics_return_to_the_floor", return_to_the_floor)
        .deterministic()
        .on(Topology::TWO),
    Case::new(11, "statistics_every_counter_moves", every_counter_moves).on(Topology::TWO_SOCKETS),
    Case::new(11, "statistics_of_tasks", statistics_of_tasks),
    Case::new(11, "statistics_into_a_closed_pipe", into_a_closed_pipe),
];

/// The whole intervals printed so far.
pub fn intervals(scheduler: &mut Scheduler) -> Result<Vec<Value>> {
    let text = scheduler.process().stdout();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).context("reading an interval")).collect()
}

/// Waits for `count` intervals from here on, and returns them.
pub fn next_intervals(scheduler: &mut Scheduler, count: usize) -> Result<Vec<Value>> {
    // Each look reads all that was printed, on a CPU that some cases say is idle.
    const LOOK_EVERY: Duration = Duration::from_millis(40);
    let before = intervals(scheduler)?.len();
    wait_for(Duration::from_secs(60), || {
        thread::sleep(LOOK_EVERY);
        Ok(scheduler.process().stdout().matches('\n').count() >= before + count)
    })?;
    Ok(intervals(scheduler)?.split_off(before))
}

fn number(sample: &Value, path: &str) -> Result<f64> {
    sample.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {sample}"))
}

/// What the kernel has counted up to an instant (proc_stat(5)).
struct KernelCounts {
    at: Instant,
    /// Time in tasks and in interrupts, of each CPU, in seconds.
    busy_s: Vec<f64>,
    switches: f64,
}

/// The idle time in the same file will not do: 7.3 counts idle CPUs whose tick goes on twice, and gives a CPU up to
/// 1.25 s of it in a second. What is not idle is counted at ticks, by all kernels, so it is true of a load that goes
/// on and off for many ticks, and of none that sleeps and wakes with them.
fn kernel_counts() -> Result<KernelCounts> {
    const TICKS_PER_S: f64 = 100.0;
    const IDLE: usize = 3;
    const IOWAIT: usize = 4;
    // Those of a guest's users are in `user` already.
    const STEAL: usize = 7;
    let text = fs::read_to_string("/proc/stat")?;
    let mut counts = KernelCounts { at: Instant::now(), busy_s: Vec::new(), switches: 0.0 };
    for line in text.lines() {
        let (name, rest) = line.split_once(' ').with_context(|| format!("/proc/stat: {line}"))?;
        let fields = || rest.split_whitespace().map(|field| Ok(field.parse::<f64>()?));
        if name == "ctxt" {
            counts.switches = fields().next().context("/proc/stat: ctxt")??;
        } else if name.starts_with("cpu") && name != "cpu" {
            let ticks: Vec<f64> = fields().collect::<Result<_>>()?;
            let busy: f64 = (0..=STEAL)
                .filter(|field| ![IDLE, IOWAIT].contains(field))
                .filter_map(|field| ticks.get(field))
                .sum();
            counts.busy_s.push(busy / TICKS_PER_S);
        }
    }
    Ok(counts)
}

fn busy_and_switches(vm: &mut Vm) -> Result<()> {
    let mut scheduler = vm.scheduler(&["--json", "--interval", "1"])?;
    let _hog = hog().on(&[0]).start()?;
    let half = hog().on(&[1]).sleeping(100_000, 100_000).start()?;
    busy_agrees(vm, &mut scheduler, "a hog, and one half of the time", [95.0..101.0, 40.0..65.0])?;
    drop(half);
    // Idle but for the test itself, which reads what the scheduler prints.
    busy_agrees(vm, &mut scheduler, "a hog and an idle CPU", [95.0..101.0, 0.0..25.0])?;
    // It takes a CPU that is idle, of which sched_ext tells nobody.
    let real_time = hog().on(&[1]).policy(Policy::Fifo).start()?;
    busy_agrees(vm, &mut scheduler, "a hog and a real-time hog", [95.0..101.0, 95.0..101.0])?;
    drop(real_time);

    let _sleeper = hog().on(&[1]).sleeping(3000, 5000).start()?;
    next_intervals(&mut scheduler, 1)?;
    let before = kernel_counts()?;
    let samples = next_intervals(&mut scheduler, 3)?;
    let after = kernel_counts()?;
    let ours = mean(&samples, "/total/switches_per_s")?;
    let theirs = (after.switches - before.switches) / (after.at - before.at).as_secs_f64();
    vm.say(format!("switches a second: {ours:.0} here, {theirs:.0} there"));
    // The kernel counts switches to the idle task as well: up to one more for each of ours.
    ensure!(
        ours <= 1.05 * theirs && 2.1 * ours >= theirs,
        "{ours:.0} switches a second, the kernel counts {theirs:.0}"
    );
    scheduler.finish()?;
    Ok(())
}

fn mean(samples: &[Value], path: &str) -> Result<f64> {
    let sum = samples.iter().map(|s| number(s, path)).sum::<Result<f64>>()?;
    Ok(sum / samples.len() as f64)
}

/// Busy % of each CPU in four intervals against /proc/stat, and against what the load must give.
fn busy_agrees(
    vm: &mut Vm,
    scheduler: &mut Scheduler,
    load: &str,
    due: [std::ops::Range<f64>; 2],
) -> Result<()> {
    // From the end of one interval to the end of another, so that both clocks see the same time.
    next_intervals(scheduler, 2)?;
    let before = kernel_counts()?;
    let samples = next_intervals(scheduler, 4)?;
    let after = kernel_counts()?;
    let seconds = (after.at - before.at).as_secs_f64();
    for (cpu, due) in due.into_iter().enumerate() {
        let ours = mean(&samples, &format!("/cpus/{cpu}/busy_percent"))?;
        let theirs = 100.0 * (after.busy_s[cpu] - before.busy_s[cpu]) / seconds;
        vm.say(format!("{load}: CPU {cpu} busy {ours:.1} % here, {theirs:.1} % in /proc/stat"));
        ensure!((ours - theirs).abs() <= 3.0, "{load}: {ours:.1} %, /proc/stat has {theirs:.1} %");
        ensure!(due.contains(&ours), "{load}: {ours:.1} %");
    }
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
    let queued = number(loaded.last().context("none")?, "/total/queue_depth")?;
    ensure!((10.0..=14.0).contains(&queued), "{queued} queued under {HOGS} hogs on 2 CPUs");
    drop(hogs);
    thread::sleep(Duration::from_millis(500));
    let least = |samples: &[Value], path: &str| -> Result<f64> {
        samples.iter().map(|s| number(s, path)).try_fold(f64::MAX, |least, n| Ok(least.min(n?)))
    };
    let idle = next_intervals(&mut scheduler, 4)?;
    let (runnable, queued) =
        (least(&idle, "/total/runnable")?, least(&idle, "/total/queue_depth")?);
    vm.say(format!("afterwards: {runnable}, queued {queued}"));
    // The scheduler itself takes the sample.
    ensure!(runnable <= 1.0 && queued == 0.0, "{runnable} runnable, {queued} queued, without load");
    scheduler.finish()?;
    Ok(())
}

/// The growth of all counters in these intervals.
pub fn sums(samples: &[Value]) -> Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for sample in samples {
        let counters = sample.pointer("/total/counters").and_then(Value::as_object);
        for (name, value) in counters.context("no counters")? {
            *sums.entry(name.clone()).or_default() += value.as_u64().context("a counter")?;
        }
    }
    Ok(sums)
}

/// Loads and events that between them move every counter of the list, on two LLCs of two CPUs.
fn every_counter_moves(vm: &mut Vm) -> Result<()> {
    const SHORT: Duration = Duration::from_millis(1500);
    const MEANT_FOR_FAULTS: &str = "bad_context";
    const OF_POLICIES: [&str; 8] =
        ["offered", "decided", "taken", "gone", "overflow", "stale", "malformed", "late"];
    // These cores have one thread: see cores_before_threads.
    const OF_THREADS: &str = "spreads";
    vm.expect_log(crate::stress::MISCOUNT_OF_6_12);
    let mut scheduler = vm.scheduler(&["--json", "--interval", "0.25"])?;
    let start = |plans: &[lab::process::HogPlan]| -> Result<Vec<Hog>> {
        plans.iter().map(|plan| plan.start()).collect()
    };

    // Idle CPUs; a hog that nothing waits for.
    let few = start(&[hog(), hog().sleeping(200, 1000)])?;
    thread::sleep(SHORT);
    drop(few);

    // More hogs than CPUs, unequal, wandering, in both LLCs; sleepers that wake into them on one CPU.
    let mut many = start(&[hog().nice(5), hog().nice(-5), hog(), hog(), hog(), hog(), hog()])?;
    many.extend(start(&[hog().on(&[1]), hog().on(&[1])])?);
    for sleep_us in [300, 400, 500, 700] {
        many.extend(start(&[
            hog().sleeping(100, sleep_us).on(&[1]),
            hog().sleeping(100, sleep_us),
        ])?);
    }
    thread::sleep(SHORT);
    // Its worker on each CPU wakes.
    for _ in 0..50 {
        fs::write("/proc/sys/vm/stat_refresh", "1")?;
    }
    // A real-time task comes and goes.
    let real_time = start(&[hog().on(&[0]).policy(Policy::Fifo).sleeping(20_000, 5000)])?;
    thread::sleep(SHORT);
    drop(real_time);
    drop(many);

    // The least weight beside the greatest: due in a minute, so it is rescued.
    let unequal = start(&[
        hog().on(&[1]).nice(-20),
        hog().on(&[1]).nice(-20),
        hog().on(&[1]).policy(Policy::Idle),
    ])?;
    // Longer than WAIT_MAX_NS in rescue.h.
    thread::sleep(Duration::from_secs(8));
    drop(unequal);

    // One LLC has tasks, the other has none: it pulls them.
    let movable = start(&[hog().on(&[0, 1]), hog().on(&[0, 1]), hog().on(&[0, 1])])?;
    for hog in &movable {
        lab::process::set_affinity(hog.pid(), &[0, 1, 2, 3])?;
    }
    thread::sleep(SHORT);
    drop(movable);

    for online in ["0", "1"] {
        fs::write("/sys/devices/system/cpu/cpu3/online", online)?;
    }
    next_intervals(&mut scheduler, 2)?;

    let sums = sums(&intervals(&mut scheduler)?)?;
    scheduler.finish()?;
    vm.say(format!("{sums:?}"));
    let still: Vec<&String> = sums
        .iter()
        .filter(|(name, sum)| **sum == 0 && ![MEANT_FOR_FAULTS, OF_THREADS].contains(&&***name))
        // Without a policy in user space these stand still; the cases of policy.rs move each of them.
        .filter(|(name, _)| !OF_POLICIES.contains(&name.as_str()))
        .map(|(name, _)| name)
        .collect();
    ensure!(still.is_empty(), "counters that never moved: {still:?}");
    ensure!(sums.get(MEANT_FOR_FAULTS) == Some(&0), "{MEANT_FOR_FAULTS} moved: {sums:?}");
    Ok(())
}

/// `--tasks` lists the busiest first, with what is known of them.
fn statistics_of_tasks(vm: &mut Vm) -> Result<()> {
    const ROWS: usize = 3;
    let mut scheduler = vm.scheduler(&["--json", "--interval", "1", "--tasks", "3"])?;
    let busy = hog().nice(5).on(&[2]).start()?;
    let _sleeper = hog().sleeping(200, 2000).start()?;
    let _sharing = [hog().nice(5).on(&[3]).start()?, hog().nice(5).on(&[3]).start()?];
    let samples = next_intervals(&mut scheduler, 3)?;
    let sample = samples.last().context("none")?;
    scheduler.finish()?;

    for path in ["/time", "/interval_s", "/total/queue_depth", "/total/slice_avg_us"] {
        number(sample, path)?;
    }
    for field in ["p50_us", "p99_us", "max_us", "count"] {
        number(sample, &format!("/total/wakeup_latency/{field}"))?;
        number(sample, &format!("/total/queue_wait/{field}"))?;
    }
    // One of the two that share a CPU waits at any time, and says so whenever it runs again.
    let requeued = number(sample, "/total/counters/requeue_ns")? / 1e9;
    let waited = requeued / number(sample, "/interval_s")?;
    vm.say(format!("after a run waits {waited:.3} task on average"));
    ensure!((0.8..1.3).contains(&waited), "{waited:.3} tasks wait that were put back");
    let cpus = sample.pointer("/cpus").and_then(Value::as_array).context("no CPUs")?;
    ensure!(cpus.len() == 4, "{} rows of CPUs", cpus.len());
    for cpu in cpus {
        for field in ["/cpu", "/node", "/llc", "/busy_percent", "/switches_per_s", "/runnable"] {
            number(cpu, field)?;
        }
    }
    let tasks = sample.pointer("/tasks").and_then(Value::as_array).context("no tasks")?;
    ensure!(tasks.len() == ROWS, "{} rows of tasks", tasks.len());
    let first = &tasks[0];
    vm.say(first);
    for (field, value) in [
        ("/pid", f64::from(busy.pid().as_raw())),
        ("/tgid", f64::from(busy.pid().as_raw())),
        ("/cpu", 2.0),
        ("/nice", 5.0),
        ("/weight", 335.0),
    ] {
        ensure!(number(first, field)? == value, "{field} is not {value} in {first}");
    }
    let comm = first.pointer("/comm").and_then(Value::as_str).context("no name")?;
    let real = fs::read_to_string(format!("/proc/{}/comm", busy.pid()))?;
    ensure!(comm == real.trim(), "named {comm}, is {real}");
    ensure!(number(first, "/busy_percent")? > 80.0, "a hog that is not busy: {first}");
    number(first, "/vruntime_vns")?;
    number(first, "/wakeups_per_s")?;
    for task in &tasks[1..] {
        vm.say(task);
        // A slice is 3 ms; a wait is one of the other's, and the tick that ends it.
        let (switches, wait) = (number(task, "/preemptions_per_s")?, number(task, "/wait_p99_us")?);
        ensure!((20.0..400.0).contains(&switches), "{switches} preemptions a second: {task}");
        ensure!((500.0..70_000.0).contains(&wait), "{wait} us of wait: {task}");
    }
    Ok(())
}

/// `| head -n 1` is a clean end.
fn into_a_closed_pipe(vm: &mut Vm) -> Result<()> {
    for format in ["--stats", "--json"] {
        let line =
            format!("{{ {SCHEDULER} {format} --interval 0.2; echo $? >/tmp/code; }} | head -n 1");
        let end = vm.run(&["sh", "-c", &line], Duration::from_secs(60))?;
        let code = fs::read_to_string("/tmp/code")?;
        ensure!(code == "0\n", "{format}: exit code {code}{}", end.stderr);
        ensure!(end.stdout.lines().count() == 1, "{format}: {}", end.stdout);
        ensure!(end.stderr.is_empty(), "{format}: {}", end.stderr);
        ensure!(vm.state()? == "disabled", "{format}: {}", vm.state()?);
    }
    Ok(())
}

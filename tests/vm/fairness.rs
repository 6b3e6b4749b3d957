//! CPU time goes by weight, and cannot be had by trickery. In the deterministic guest, whose clock is exact.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Hog, Policy, cpu_times_over, hog, set_affinity},
    qemu::Topology,
};
use nix::unistd::Pid;
use std::{thread, time::Duration};

/// Of the scheduler.
type Flags = &'static [&'static str];
const KERNEL: Flags = &[];
const VRUNTIME: Flags = &["--policy", "vruntime"];

pub const CASES: &[Case] = &[
    Case::new(2, "fairness_equal_nice", |vm| equal_nice(vm, KERNEL))
        .core()
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_by_weight", |vm| by_weight(vm, KERNEL))
        .core()
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_least_weight", |vm| least_weight(vm, KERNEL))
        .core()
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_three_on_two_cpus", |vm| three_on_two_cpus(vm, KERNEL))
        .core()
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_with_the_idle_class", with_the_idle_class)
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_of_a_bound_task", |vm| of_a_bound_task(vm, KERNEL))
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_where_light_ones_were", where_light_ones_were)
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_where_light_ones_were_not", where_light_ones_were_not)
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_to_a_task_bound_late", to_a_task_bound_late)
        .deterministic()
        .on(Topology::TWO),
    Case::new(3, "forks_gain_nothing", |vm| forks_gain_nothing(vm, KERNEL))
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_to_those_before", to_those_before).deterministic().on(Topology::TWO),
    Case::new(2, "fairness_to_light_ones_before", to_light_ones_before)
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_beside_confined_tasks", beside_confined_tasks).deterministic(),
    Case::new(3, "sleepers_gain_nothing", |vm| sleepers_gain_nothing(vm, KERNEL))
        .deterministic()
        .on(Topology::TWO),
    Case::new(14, "vruntime_equal_nice", |vm| equal_nice(vm, VRUNTIME))
        .thorough()
        .deterministic()
        .on(Topology::TWO),
    Case::new(14, "vruntime_by_weight", |vm| by_weight(vm, VRUNTIME))
        .deterministic()
        .on(Topology::TWO),
    Case::new(14, "vruntime_least_weight", |vm| least_weight(vm, VRUNTIME))
        .thorough()
        .deterministic()
        .on(Topology::TWO),
    Case::new(14, "vruntime_three_on_two_cpus", |vm| three_on_two_cpus(vm, VRUNTIME))
        .thorough()
        .deterministic()
        .on(Topology::TWO),
    Case::new(14, "vruntime_sleepers_gain_nothing", |vm| sleepers_gain_nothing(vm, VRUNTIME))
        .deterministic()
        .on(Topology::TWO),
    Case::new(14, "vruntime_forks_gain_nothing", |vm| forks_gain_nothing(vm, VRUNTIME))
        .deterministic()
        .on(Topology::TWO),
    Case::new(14, "vruntime_of_a_bound_task", |vm| of_a_bound_task(vm, VRUNTIME))
        .thorough()
        .deterministic()
        .on(Topology::TWO),
    Case::new(2, "fairness_of_a_light_one_between_llcs", light_between_llcs)
        .deterministic()
        .on(Topology::TWO_SOCKETS),
];

/// Before a window opens, hogs have found their rhythm.
const SETTLE: Duration = Duration::from_millis(500);

/// The kernel's load weight of a nice level (`sched_prio_to_weight`).
fn weight(nice: i32) -> f64 {
    match nice {
        -5 => 3121.0,
        0 => 1024.0,
        5 => 335.0,
        19 => 15.0,
        _ => 1024.0 / 1.25_f64.powi(nice),
    }
}

/// What hogs of these nice levels get on CPU 1 in `window`, as parts of their due.
fn parts_of_due(vm: &mut Vm, levels: &[i32], window: Duration) -> Result<Vec<f64>> {
    let hogs: Vec<Hog> =
        levels.iter().map(|&nice| hog().on(&[1]).nice(nice).start()).collect::<Result<_>>()?;
    thread::sleep(SETTLE);
    let times = cpu_times_over(&hogs, window)?;
    let weights: f64 = levels.iter().map(|&nice| weight(nice)).sum();
    let sum: f64 = times.iter().map(Duration::as_secs_f64).sum();
    let parts: Vec<f64> = levels
        .iter()
        .zip(&times)
        .map(|(&nice, time)| time.as_secs_f64() / (sum * weight(nice) / weights))
        .collect();
    vm.say(format!("nice {levels:?}: {times:.3?}, {parts:.3?} of the due"));
    ensure!(sum > 0.97 * window.as_secs_f64(), "the CPU was not theirs: {sum} s of {window:?}");
    Ok(parts)
}

fn within(parts: &[f64], tolerance: f64) -> Result<()> {
    for part in parts {
        ensure!((part - 1.0).abs() <= tolerance, "{part:.3} of the due, {tolerance} is tolerated");
    }
    Ok(())
}

fn equal_nice(vm: &mut Vm, flags: Flags) -> Result<()> {
    let scheduler = vm.scheduler(flags)?;
    within(&parts_of_due(vm, &[0; 4], Duration::from_secs(3))?, 0.02)?;
    scheduler.finish()?;
    Ok(())
}

fn by_weight(vm: &mut Vm, flags: Flags) -> Result<()> {
    let scheduler = vm.scheduler(flags)?;
    within(&parts_of_due(vm, &[0, 5], Duration::from_secs(3))?, 0.03)?;
    within(&parts_of_due(vm, &[-5, 0, 5], Duration::from_secs(4))?, 0.03)?;
    scheduler.finish()?;
    Ok(())
}

fn least_weight(vm: &mut Vm, flags: Flags) -> Result<()> {
    let scheduler = vm.scheduler(flags)?;
    let parts = parts_of_due(vm, &[0, 0, 0, 19], Duration::from_secs(6))?;
    let least = parts.last().context("four hogs")?;
    ensure!(*least >= 0.9, "the nice 19 hog got {least:.2} of its due");
    scheduler.finish()?;
    Ok(())
}

fn three_on_two_cpus(vm: &mut Vm, flags: Flags) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(10);
    let scheduler = vm.scheduler(flags)?;
    let hogs: Vec<Hog> = (0..3).map(|_| hog().on(&[0, 1]).start()).collect::<Result<_>>()?;
    thread::sleep(SETTLE);
    let times = cpu_times_over(&hogs, WINDOW)?;
    vm.say(format!("{times:.3?}"));
    let (least, most) = (times.iter().min().context("none")?, times.iter().max().context("none")?);
    ensure!(most.as_secs_f64() <= 1.05 * least.as_secs_f64(), "{times:.3?}");
    scheduler.finish()?;
    Ok(())
}

/// A SCHED_IDLE hog takes next to nothing, and does not distort what the others get.
fn with_the_idle_class(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(6);
    const WEIGHT_IDLE: f64 = 3.0;
    let scheduler = vm.scheduler(&[])?;
    let hogs = [
        hog().on(&[1]).start()?,
        hog().on(&[1]).nice(5).start()?,
        hog().on(&[1]).policy(Policy::Idle).start()?,
    ];
    thread::sleep(SETTLE);
    let times = cpu_times_over(&hogs, WINDOW)?;
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    let (nice_0, nice_5, idle) = (seconds[0], seconds[1], seconds[2]);
    let due = WINDOW.as_secs_f64() * WEIGHT_IDLE / (weight(0) + weight(5) + WEIGHT_IDLE);
    vm.say(format!(
        "{times:.3?}: nice 5 to nice 0 is {:.3}; SCHED_IDLE got {:.1} of its due",
        nice_5 / nice_0,
        idle / due
    ));
    within(&[nice_5 / nice_0 / (weight(5) / weight(0))], 0.03)?;
    // Its due is 13 ms, and a tick is 4 ms: no finer than that.
    ensure!(idle > 0.0, "the SCHED_IDLE hog got nothing");
    ensure!(idle < 3.0 * due, "the SCHED_IDLE hog got {idle:.3} s, due are {due:.3}");
    scheduler.finish()?;
    Ok(())
}

/// Half of a CPU is due to each of four hogs on two CPUs, however many of them may run on CPU 1 only:
/// those who can go elsewhere do not live at the cost of those who cannot.
fn of_a_bound_task(vm: &mut Vm, flags: Flags) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(4);
    const TOLERANCE: f64 = 0.05;
    let scheduler = vm.scheduler(flags)?;
    for bound in [1, 2] {
        let hogs: Vec<Hog> = (0..4)
            .map(|number| if number < bound { hog().on(&[1]).start() } else { hog().start() })
            .collect::<Result<_>>()?;
        thread::sleep(SETTLE);
        let times = cpu_times_over(&hogs, WINDOW)?;
        vm.say(format!("{bound} of four bound to CPU 1: {times:.3?}"));
        let parts: Vec<f64> =
            times.iter().map(|time| time.as_secs_f64() / WINDOW.as_secs_f64() / 0.5).collect();
        within(&parts[..bound], TOLERANCE)?;
    }
    scheduler.finish()?;
    Ok(())
}

/// A CPU that four bound hogs share gets on at a quarter of the pace of the other. Whoever is bound to it later
/// joins at that pace, not as far behind as its LLC is ahead.
fn to_a_task_bound_late(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    let scheduler = vm.scheduler(&[])?;
    // Bound from birth on: nobody tells the scheduler of a change.
    let this = Pid::from_raw(0);
    set_affinity(this, &[1])?;
    let mut bound: Vec<Hog> = (0..4).map(|_| hog().start()).collect::<Result<_>>()?;
    set_affinity(this, &[0, 1])?;
    let _ahead = hog().start()?;
    thread::sleep(Duration::from_secs(4));
    let late = hog().start()?;
    set_affinity(late.pid(), &[1])?;
    bound.push(late);
    let times = cpu_times_over(&bound, WINDOW)?;
    vm.say(format!("{times:.3?}"));
    for time in times {
        ensure!(time > WINDOW.mul_f64(0.9 / 5.0), "a hog got {time:?} of {WINDOW:?}");
    }
    scheduler.finish()?;
    Ok(())
}

/// Light hogs that had a CPU to themselves leave its clock minutes ahead. Nobody bound to it later pays for that.
fn where_light_ones_were(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    let scheduler = vm.scheduler(&[])?;
    let light: Vec<Hog> = (0..2).map(|_| hog().on(&[1]).nice(19).start()).collect::<Result<_>>()?;
    thread::sleep(Duration::from_secs(3));
    drop(light);
    let mut hogs: Vec<Hog> = (0..3).map(|_| hog().start()).collect::<Result<_>>()?;
    hogs.push(hog().on(&[1]).start()?);
    thread::sleep(SETTLE);
    let times = cpu_times_over(&hogs, WINDOW)?;
    vm.say(format!("{times:.3?}, the last is bound"));
    for time in times {
        ensure!(time > WINDOW.mul_f64(0.9 * 0.5), "a hog got {time:?}, due are {:?}", WINDOW / 2);
    }
    scheduler.finish()?;
    Ok(())
}

/// The mirror of it: light hogs that may run anywhere leave the clock of all far ahead of that of a CPU whose bound hog
/// never let them in. Whoever comes later shares that CPU, too.
fn where_light_ones_were_not(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    let scheduler = vm.scheduler(&[])?;
    let mut hogs = vec![hog().on(&[1]).start()?];
    let light = |_| hog().nice(19).start();
    let _light: Vec<Hog> = (0..3).map(light).collect::<Result<_>>()?;
    thread::sleep(Duration::from_secs(4));
    for _ in 0..3 {
        hogs.push(hog().start()?);
    }
    thread::sleep(SETTLE);
    let times = cpu_times_over(&hogs, WINDOW)?;
    vm.say(format!("{times:.3?}, the first is bound"));
    for time in times {
        ensure!(time > WINDOW.mul_f64(0.9 * 0.5), "a hog got {time:?}, due are {:?}", WINDOW / 2);
    }
    scheduler.finish()?;
    Ok(())
}

/// A chain of short-lived children has no more of a CPU than one hog, whose debts do not die, and not much less.
fn forks_gain_nothing(vm: &mut Vm, flags: Flags) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(2);
    const LEAST: f64 = 0.45;
    const MOST: f64 = 0.65;
    let scheduler = vm.scheduler(flags)?;
    for (kind, line) in [
        ("children that end at once", "while :; do (:); done"),
        (
            "children that compute a little",
            "while :; do (i=0; while [ $i -lt 200 ]; do i=$((i+1)); done); done",
        ),
    ] {
        let forks = vm.start(&["sh", "-c", line])?;
        set_affinity(forks.pid(), &[1])?;
        let hogs = [hog().on(&[1]).start()?];
        thread::sleep(SETTLE);
        let share = cpu_times_over(&hogs, WINDOW)?[0].as_secs_f64() / WINDOW.as_secs_f64();
        vm.say(format!("beside {kind} a hog has {share:.3} of the CPU"));
        ensure!(share >= LEAST, "beside {kind} a hog has {share:.3} of the CPU");
        ensure!(share <= MOST, "beside a hog, {kind} have {:.3}", 1.0 - share);
    }
    scheduler.finish()?;
    Ok(())
}

/// Hogs that shared a CPU of their own are owed no less than those that may run on all CPUs and come later.
fn to_those_before(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    let scheduler = vm.scheduler(&[])?;
    let mut hogs: Vec<Hog> = (0..2).map(|_| hog().on(&[1]).start()).collect::<Result<_>>()?;
    // What they must not be behind by afterwards is half of this.
    thread::sleep(Duration::from_secs(6));
    for _ in 0..4 {
        hogs.push(hog().start()?);
    }
    let times = cpu_times_over(&hogs, WINDOW)?;
    vm.say(format!("{times:.3?}"));
    for time in times {
        // Six on two CPUs.
        ensure!(time > WINDOW.mul_f64(0.9 / 3.0), "a hog got {time:?} of {WINDOW:?}");
    }
    scheduler.finish()?;
    Ok(())
}

/// Nice 19 hogs that had a CPU, or all of them, to themselves get their due beside heavier ones that come later.
fn to_light_ones_before(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    let scheduler = vm.scheduler(&[])?;
    let (one, both) = (vec![1], vec![0, 1]);
    // The CPUs of the light ones and of the others, how many they are, and somebody who wakes often.
    for (of_light, of_heavy, light, heavy, waker) in [
        (&one, &one, 2, 1, None),
        (&both, &both, 3, 3, None),
        (&one, &both, 2, 3, None),
        (&both, &both, 3, 3, Some(&one)),
    ] {
        let waker = waker.map(|cpus| hog().on(cpus).sleeping(100, 1000).start()).transpose()?;
        let start = |cpus: &[usize], nice| hog().on(cpus).nice(nice).start();
        let mut hogs: Vec<Hog> = (0..light).map(|_| start(of_light, 19)).collect::<Result<_>>()?;
        thread::sleep(Duration::from_secs(3));
        for _ in 0..heavy {
            hogs.push(start(of_heavy, 0)?);
        }
        let times = cpu_times_over(&hogs, WINDOW)?;
        let weights = f64::from(light) * weight(19) + f64::from(heavy) * weight(0);
        let due = WINDOW.mul_f64(of_heavy.len() as f64 * weight(19) / weights);
        let beside = if waker.is_some() { ", beside a waker" } else { "" };
        vm.say(format!("on {of_light:?} and {of_heavy:?}{beside}: {times:.3?}, {due:.3?} are due"));
        for time in &times[..light as usize] {
            // A turn of theirs is a tick of 4 ms, a tenth of the due.
            ensure!(*time > due.mul_f64(0.6), "a nice 19 hog got {time:?} of its {due:?}");
        }
    }
    scheduler.finish()?;
    Ok(())
}

/// Many tasks that may run on two of the four CPUs that share a cache do not hide the others from each other.
fn beside_confined_tasks(vm: &mut Vm) -> Result<()> {
    const CONFINED: usize = 16;
    const WINDOW: Duration = Duration::from_secs(3);
    let scheduler = vm.scheduler(&[])?;
    let confined: Vec<Hog> =
        (0..CONFINED).map(|_| hog().on(&[0, 1]).start()).collect::<Result<_>>()?;
    let free: Vec<Hog> =
        [0, 0, 5, 5].into_iter().map(|nice| hog().nice(nice).start()).collect::<Result<_>>()?;
    thread::sleep(SETTLE);
    let hogs: Vec<Hog> = free.into_iter().chain(confined).collect();
    let times = cpu_times_over(&hogs, WINDOW)?;
    scheduler.finish()?;
    vm.say(format!("nice 0, 0, 5, 5: {:.3?}; confined {:.3?}", &times[..4], &times[4..]));
    let ratio = (times[0] + times[1]).as_secs_f64() / (times[2] + times[3]).as_secs_f64();
    let due = weight(0) / weight(5);
    ensure!((ratio / due - 1.0).abs() < 0.05, "nice 0 to nice 5 is {ratio:.3}, {due:.3} is due");
    // They go by the clocks of two CPUs, whose lags differ for a while: by 15 % over three seconds, 6 % over twelve.
    let mean = times[4..].iter().sum::<Duration>() / CONFINED as u32;
    for time in &times[4..] {
        let part = time.div_duration_f64(mean);
        ensure!((part - 1.0).abs() < 0.25, "confined alike, one got {part:.3} of the mean");
    }
    Ok(())
}

/// A pure hog against one that sleeps just before its slice ends, or in another pattern.
fn sleepers_gain_nothing(vm: &mut Vm, flags: Flags) -> Result<()> {
    const WINDOW: Duration = Duration::from_millis(1500);
    const MOST: f64 = 0.55;
    let scheduler = vm.scheduler(flags)?;
    for (run_us, sleep_us) in
        [(250, 20), (950, 50), (1900, 100), (3900, 100), (9000, 1000), (19_000, 1000)]
    {
        let hogs = [hog().on(&[1]).start()?, hog().on(&[1]).sleeping(run_us, sleep_us).start()?];
        thread::sleep(SETTLE);
        let times = cpu_times_over(&hogs, WINDOW)?;
        let share = times[1].as_secs_f64() / WINDOW.as_secs_f64();
        vm.say(format!("runs {run_us} µs, sleeps {sleep_us} µs: {share:.3} of the CPU"));
        ensure!(
            share <= MOST,
            "{share:.3} of the CPU by running {run_us} µs and sleeping {sleep_us} µs"
        );
    }
    scheduler.finish()?;
    Ok(())
}

/// A hog for each CPU and one of SCHED_IDLE, whose due is a thousandth of a CPU: no LLC takes it in front of theirs.
fn light_between_llcs(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(4);
    let scheduler = vm.scheduler(&[])?;
    let mut hogs: Vec<Hog> = (0..4).map(|_| hog().start()).collect::<Result<_>>()?;
    hogs.push(hog().policy(Policy::Idle).start()?);
    thread::sleep(Duration::from_secs(1));
    let times = cpu_times_over(&hogs, WINDOW)?;
    vm.say(format!("four hogs and a light one: {times:.3?}"));
    ensure!(times[4] < WINDOW.mul_f64(0.02), "the light one had {:?} of {WINDOW:?}", times[4]);
    scheduler.finish()?;
    Ok(())
}

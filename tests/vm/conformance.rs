//! What the simulator says is what a kernel does: the same tasks on a simulated machine and in a guest, side by side.

use crate::perfetto::{self, What};
use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{First, Hog, hog},
    qemu::Topology,
};
use nix::sys::signal::{Signal, kill};
use scheduler::{
    settings::Tuning,
    sim::{self, BUILTIN, Follow, Scenario},
    trace::Trace,
};
use std::{
    collections::BTreeMap, fmt::Write as _, fs, iter, ops::Range, path::Path, thread,
    time::Duration,
};

pub const CASES: &[Case] = &[
    Case::new(15, "conformance_of_one_cpu", one_cpu).deterministic().on(Topology::ONE),
    Case::new(15, "conformance_of_two_cpus", two_cpus).deterministic().on(Topology::TWO),
];

/// Tasks that are alike.
#[derive(Debug)]
struct Group {
    tasks: usize,
    nice: i32,
    /// CPU time between two sleeps, and how long those last; no sleep: for ever.
    run_us: u64,
    sleep_us: u64,
}

/// A hog of this nice value, so many times.
const fn hogs(tasks: usize, nice: i32) -> Group {
    Group { tasks, nice, run_us: 0, sleep_us: 0 }
}

const fn sleepers(tasks: usize, run_us: u64, sleep_us: u64) -> Group {
    Group { tasks, nice: 0, run_us, sleep_us }
}

/// What became of the tasks of a scene, in the order of its groups.
#[derive(Debug, Default)]
struct Record {
    ran_ns: Vec<u64>,
    /// From waking to running, of each wakeup but the first.
    latencies_ns: Vec<Vec<u64>>,
    /// Who ran from when to when.
    runs: Vec<(u64, u64, usize)>,
}

/// An entry of a trace: when, on which CPU, who went and came, or who was woken.
enum Entry {
    Switch(u64, u64, i32, i32),
    Waking(u64, i32),
}

impl Record {
    fn of(entries: &[Entry], pids: &[i32], from_ns: u64, to_ns: u64) -> Self {
        let task = |pid: i32| pids.iter().position(|&of| of == pid);
        // Who goes first is owed most, and who sleeps may not be there at the beginning.
        let settled_ns = from_ns + SETTLE_NS;
        let mut record = Self {
            ran_ns: vec![0; pids.len()],
            latencies_ns: vec![Vec::new(); pids.len()],
            ..Self::default()
        };
        let mut since: BTreeMap<u64, (u64, i32)> = BTreeMap::new();
        let mut woken: BTreeMap<i32, u64> = BTreeMap::new();
        for entry in entries {
            match *entry {
                Entry::Switch(at, cpu, prev, next) => {
                    if let (Some((began, pid)), Some(task)) =
                        (since.insert(cpu, (at, next)), task(prev))
                        && pid == prev
                    {
                        let (began_in, at_in) = (began.max(settled_ns), at.min(to_ns));
                        record.ran_ns[task] += at_in.saturating_sub(began_in);
                        record.runs.push((began, at, task));
                    }
                    let Some(task) = task(next) else { continue };
                    if let Some(woken) = woken.remove(&next)
                        && (settled_ns..to_ns).contains(&woken)
                    {
                        record.latencies_ns[task].push(at - woken);
                    }
                }
                Entry::Waking(at, pid) => {
                    woken.insert(pid, at);
                }
            }
        }
        record.runs.retain(|(began, ..)| (from_ns..to_ns).contains(began));
        record
    }

    /// Who has each tick, in order.
    fn order(&self) -> Vec<usize> {
        let mut order = Vec::new();
        for same in self.runs.chunk_by(|a, b| a.2 == b.2) {
            let ran_ns: u64 = same.iter().map(|(began, ended, _)| ended - began).sum();
            order.extend(iter::repeat_n(
                same[0].2,
                (ran_ns as f64 / TICK_NS as f64).round() as usize,
            ));
        }
        order
    }
}

const TICK_NS: u64 = 4_000_000;
/// From then on CPU time and latencies count; the order of ticks does from the beginning.
const SETTLE_NS: u64 = 50_000_000;
const TRACING: &str = "/sys/kernel/tracing";
/// How long each task runs before it is stopped, and how long somebody else has the CPUs then.
const BEFORE: Duration = Duration::from_millis(50);
const MOVING: Duration = Duration::from_millis(200);
/// When the simulated tasks may run. They wake before, while a real-time task has the CPUs, as this process does in the guest.
const BEGIN_MS: u64 = 1000;

fn trace_file(name: &str, value: &str) -> Result<()> {
    let path = Path::new(TRACING).join(name);
    fs::write(&path, value).with_context(|| format!("writing {}", path.display()))
}

/// Starts the tasks, each for long enough to ask for whole slices, and stops them; then the clock goes on without them, until
/// each is owed as much as can be when it wakes. So all begin alike, here and there.
fn start(groups: &[Group]) -> Result<Vec<Hog>> {
    let mut all = Vec::new();
    for group in groups {
        for _ in 0..group.tasks {
            let plan = hog().nice(group.nice).sleeping(group.run_us, group.sleep_us);
            let hog = plan.start()?;
            thread::sleep(BEFORE);
            kill(hog.pid(), Signal::SIGSTOP)?;
            all.push(hog);
        }
    }
    let _mover = hog().start()?;
    thread::sleep(MOVING);
    Ok(all)
}

/// What happened in the guest from the instant on at which the tasks may run.
struct Guest {
    record: Record,
    /// How long the first of them ran up to a tick.
    first_ns: u64,
    /// When others had which CPU, and for how long.
    others: Vec<(u64, u64, u64)>,
}

fn in_the_guest(vm: &mut Vm, groups: &[Group], window: Duration) -> Result<Guest> {
    let scheduler = vm.scheduler(&[])?;
    let first = First::begin()?;
    let tasks = start(groups)?;
    thread::sleep(Duration::from_millis(20));
    trace_file("buffer_size_kb", "16384")?;
    for event in ["sched_switch", "sched_waking"] {
        trace_file(&format!("events/sched/{event}/enable"), "1")?;
    }
    trace_file("trace", "")?;
    trace_file("tracing_on", "1")?;
    for task in &tasks {
        kill(task.pid(), Signal::SIGCONT)?;
    }
    thread::sleep(window + Duration::from_millis(20));
    trace_file("tracing_on", "0")?;
    let text = fs::read_to_string(Path::new(TRACING).join("trace"))?;
    let pids: Vec<i32> = tasks.iter().map(|task| task.pid().as_raw()).collect();
    drop(tasks);
    drop(first);
    scheduler.finish()?;
    let entries: Vec<Entry> = text.lines().filter_map(entry).collect();
    let is_one = |pid: &i32| pids.contains(pid);
    let begin = entries.iter().find_map(|entry| match entry {
        Entry::Switch(at, _, _, next) if is_one(next) => Some(*at),
        _ => None,
    });
    let begin = begin.context("none of the tasks ran")?;
    let record = Record::of(&entries, &pids, begin, begin + window.as_nanos() as u64);
    let (began, ended, _) = record.runs.first().context("no run")?;
    let mut others = Vec::new();
    let mut since = BTreeMap::new();
    for entry in &entries {
        let Entry::Switch(at, cpu, _, next) = *entry else { continue };
        if let Some(from) = since.remove(&cpu)
            && from > begin
        {
            others.push((from - begin, cpu, at - from));
        }
        if next != 0 && !is_one(&next) {
            since.insert(cpu, at);
        }
    }
    Ok(Guest { first_ns: ended - began, others, record })
}

/// `COMM-PID [CPU] FLAGS SECONDS: sched_switch: …` (Documentation/trace/events.rst).
fn entry(line: &str) -> Option<Entry> {
    let (head, what) = line.split_once(": sched_")?;
    let at_s = head.rsplit(' ').next()?;
    let (s, us) = at_s.split_once('.')?;
    let at_ns = (s.parse::<u64>().ok()? * 1_000_000 + us.parse::<u64>().ok()?) * 1000;
    let cpu = head.rsplit_once('[')?.1.split(']').next()?.parse().ok()?;
    let number = |name: &str| {
        let (_, rest) = what.split_once(name)?;
        rest.split(' ').next()?.trim().parse::<i32>().ok()
    };
    if what.starts_with("switch") {
        return Some(Entry::Switch(at_ns, cpu, number(" prev_pid=")?, number(" next_pid=")?));
    }
    Some(Entry::Waking(at_ns, number(" pid=")?))
}

fn in_the_simulator(
    groups: &[Group],
    cpus: usize,
    window: Duration,
    guest: &Guest,
) -> Result<Record> {
    // Most come with a tick, and after the switch that it makes.
    const AFTER_TICK_NS: u64 = 50_000;
    // A tick cuts the first run as short as there.
    let begin_ns = BEGIN_MS * 1_000_000 + TICK_NS - guest.first_ns.min(TICK_NS);
    let everywhere = format!("cpus = \"0-{}\"", cpus - 1);
    let mut text = format!(
        "about = \"as in the guest\"\nduration = \"{}ms\"\ntopology = \"{cpus} cores\"\n\
         [[event]]\nat = \"{}ms\"\nkind = \"realtime\"\n{everywhere}\nfor = \"{}ns\"\n\
         [[group]]\nname = \"mover\"\ntasks = 1\nstart = \"600ms\"\nphases = [{{ run = \"{}ms\" }}, \"exit\"]\n",
        BEGIN_MS as u128 + window.as_millis() + 20,
        BEGIN_MS - 20,
        begin_ns - (BEGIN_MS - 20) * 1_000_000,
        MOVING.as_millis(),
    );
    // A wakeup that finds its CPU taken by a real-time task waits for a tick, and threads of the kernel are none.
    let others = if groups.iter().any(|group| group.run_us > 0) { &[][..] } else { &guest.others };
    for (at, cpu, lasts) in others {
        let _ = write!(
            text,
            "[[event]]\nat = \"{}ns\"\nkind = \"realtime\"\ncpus = \"{cpu}\"\nfor = \"{lasts}ns\"\n",
            begin_ns + at + AFTER_TICK_NS,
        );
    }
    let mut nr = 0;
    for Group { tasks, nice, run_us, sleep_us } in groups {
        for _ in 0..*tasks {
            let start_us = nr * 60_000;
            let before_us = BEFORE.as_micros() as u64;
            let phases = match run_us {
                0 => format!(
                    "{{ run = \"{before_us}us\" }}, {{ sleep = \"{}us\" }}, {{ run = \"3600s\" }}",
                    (BEGIN_MS - 10) * 1000 - start_us - before_us + nr
                ),
                _ => format!("{{ run = \"{run_us}us\" }}, {{ sleep = \"{sleep_us}us\" }}"),
            };
            let _ = write!(
                text,
                "[[group]]\nname = \"{nr}\"\ntasks = 1\nnice = {nice}\nstart = \"{start_us}us\"\nphases = [{phases}]\n"
            );
            nr += 1;
        }
    }
    let scenario = Scenario::parse(&text, None).map_err(anyhow::Error::msg)?;
    let path = Path::new("/tmp/simulated");
    let mut trace = Trace::on(fs::File::create(path)?);
    let follow = Follow { trace: Some(&mut trace), ..Follow::default() };
    let (_, violation) = sim::follow(&scenario, BUILTIN, Tuning::default(), 1, None, follow)?;
    ensure!(violation.is_none(), "{}", violation.map(|v| v.to_string()).unwrap_or_default());
    trace.finish()?;
    let entries: Vec<Entry> = perfetto::events(&fs::read(path)?)
        .into_iter()
        .filter_map(|event| match event.what {
            What::Switch { prev, next } => {
                Some(Entry::Switch(event.at_ns, event.cpu, prev.pid, next.pid))
            }
            What::Waking(task) => Some(Entry::Waking(event.at_ns, task.pid)),
            What::Note { .. } => None,
        })
        .collect();
    // The mover is the first.
    let pids: Vec<i32> = (0..nr as i32).map(|number| number + 3).collect();
    Ok(Record::of(&entries, &pids, begin_ns, begin_ns + window.as_nanos() as u64))
}

/// A group's wakeup latencies, in order.
fn latencies_us(record: &Record, tasks: Range<usize>) -> Option<(f64, f64)> {
    let mut all = record.latencies_ns[tasks].concat();
    all.sort_unstable();
    // Those few that a start makes are none.
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    (all.len() > 50).then(|| (at(0.5), at(0.99)))
}

/// Length of the longest sequence that is in both, with gaps.
fn common(a: &[usize], b: &[usize]) -> usize {
    let mut best = vec![0; b.len() + 1];
    for x in a {
        let before = best.clone();
        for (i, y) in b.iter().enumerate() {
            best[i + 1] = if x == y { before[i] + 1 } else { before[i + 1].max(best[i]) };
        }
    }
    best[b.len()]
}

/// How far the simulator may be off.
struct Error {
    /// Of run time, in parts of it.
    share: f64,
    /// Of the median and the 99th percentile of wakeup latencies, in µs; of what the guest cannot tell, none.
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    /// What part of the ticks goes to the same tasks in the same order. Virtual times come to be within microseconds of each other,
    /// which is how exactly the guest's ticks come: then two tasks change places.
    order: f64,
}

/// Runs the tasks here and there.
fn compare(
    vm: &mut Vm,
    groups: &[Group],
    cpus: usize,
    window: Duration,
    error: &Error,
) -> Result<()> {
    let guest = in_the_guest(vm, groups, window)?;
    let real = &guest.record;
    let simulated = in_the_simulator(groups, cpus, window, &guest)?;
    let orders = (real.order(), simulated.order());
    let first = orders.0.iter().zip(&orders.1).take_while(|(a, b)| a == b).count();
    let same = common(&orders.0, &orders.1) as f64 / orders.0.len().max(1) as f64;
    vm.say(format!(
        "of {} ticks {:.1} % go to the same tasks in the same order, and the first {first} without an exception",
        orders.0.len(),
        100.0 * same
    ));
    let mut problems = Vec::new();
    let mut next = 0;
    for group in groups {
        let tasks = next..next + group.tasks;
        next = tasks.end;
        let ran = |record: &Record| record.ran_ns[tasks.clone()].iter().sum::<u64>() as f64 / 1e6;
        let (here, there) = (ran(real), ran(&simulated));
        vm.say(format!("{group:?}: ran for {here:.2} ms, simulated {there:.2} ms"));
        if (there / here - 1.0).abs() > error.share {
            problems.push(format!("{group:?}: ran for {here:.2} ms, simulated {there:.2} ms"));
        }
        let both = (latencies_us(real, tasks.clone()), latencies_us(&simulated, tasks));
        let (Some(here), Some(there)) = both else { continue };
        let line = format!("{group:?}: wakeup p50, p99 {here:?} µs, simulated {there:?} µs");
        let is_off = |a: f64, b: f64, most: Option<f64>| most.is_some_and(|m| (a - b).abs() > m);
        if is_off(here.0, there.0, error.p50_us) || is_off(here.1, there.1, error.p99_us) {
            problems.push(line.clone());
        }
        vm.say(line);
    }
    if same < error.order {
        problems.push(format!("{same:.3} of the ticks are in the same order"));
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// On one CPU its time is the count of the guest's instructions alone.
fn one_cpu(vm: &mut Vm) -> Result<()> {
    let error = |order| Error { share: 0.02, p50_us: Some(3.0), p99_us: Some(5.0), order };
    let second = Duration::from_secs(1);
    compare(vm, &[hogs(1, 0), hogs(1, 3)], 1, second, &error(0.95))?;
    compare(vm, &[hogs(1, 0), hogs(1, 5), hogs(1, -5)], 1, 4 * second, &error(0.85))?;
    compare(vm, &[hogs(2, 0), sleepers(1, 200, 2000)], 1, second, &error(0.0))?;
    compare(vm, &[sleepers(1, 200, 2000)], 1, second / 2, &error(0.0))
}

/// With two, QEMU's turns are in whatever one CPU wants of the other: the longest waits are theirs.
fn two_cpus(vm: &mut Vm) -> Result<()> {
    let error = |p50_us| Error { share: 0.02, p50_us, p99_us: None, order: 0.0 };
    let second = Duration::from_secs(1);
    compare(vm, &[hogs(3, 0), hogs(2, 3)], 2, 4 * second, &error(None))?;
    compare(vm, &[sleepers(3, 300, 3000)], 2, second, &error(Some(3.0)))
}

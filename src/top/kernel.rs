//! What the kernel tells of itself, whoever schedules: `/proc` and `/sys/kernel/sched_ext`.

use crate::{
    machine::{preflight::Host, topology::Topology},
    stats::{
        interval::{Activity, Counters, CpuRow, Interval, Latency, Total},
        tasks::{Comm, TaskRow},
        text,
    },
    units::{CpuId, Vtime, Weight},
};
use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Fields of a line of `/proc/stat` (proc_stat(5)).
const IDLE: usize = 3;
const IOWAIT: usize = 4;
/// User, nice, system, idle, iowait, irq, softirq, steal: the time of a guest's users is in `user` already.
const TIMES: usize = 8;

/// The view, with what was seen last.
pub struct KernelView {
    host: Host,
    topology: Option<Topology>,
    ticks_per_s: f64,
    before: Option<Seen>,
}

/// Counts up to an instant.
struct Seen {
    at: Instant,
    cpus: BTreeMap<u32, Times>,
    switches: u64,
    /// Run time of each process, in ticks.
    processes: HashMap<i32, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    busy: u64,
    all: u64,
}

impl KernelView {
    /// Of this machine.
    pub fn real() -> Self {
        Self::of(Host::real())
    }

    fn of(host: Host) -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().filter(|ticks| *ticks > 0);
        Self {
            topology: Topology::read(&host).ok(),
            host,
            ticks_per_s: ticks.unwrap_or(100) as f64,
            before: None,
        }
    }

    /// The state of sched_ext, and who schedules by it.
    pub fn state(&self) -> String {
        let read = |file: &str| self.host.read(&format!("sys/kernel/sched_ext/{file}")).ok();
        let state = match (read("state"), read("root/ops")) {
            (None, _) => "this kernel has no sched_ext".to_owned(),
            (Some(state), Some(ops)) => format!("sched_ext is {state}: {ops}"),
            (Some(state), None) => format!("sched_ext is {state}"),
        };
        text::printable(state.as_bytes())
    }

    /// What happened since the last call.
    ///
    /// # Errors
    /// When `/proc/stat` cannot be read.
    pub fn interval(&mut self) -> Result<Interval> {
        let text = self.host.read("proc/stat").context("reading /proc/stat")?;
        let at = Instant::now();
        let mut now = Seen { at, cpus: BTreeMap::new(), switches: 0, processes: HashMap::new() };
        let mut running = 0;
        for line in text.lines() {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            let numbers: Vec<u64> = rest.split_whitespace().map_while(|n| n.parse().ok()).collect();
            match name.strip_prefix("cpu").map(str::parse) {
                Some(Ok(cpu)) => {
                    now.cpus.insert(cpu, times(&numbers));
                }
                Some(Err(_)) => {}
                None if name == "ctxt" => now.switches = numbers.first().copied().unwrap_or(0),
                None if name == "procs_running" => running = numbers.first().copied().unwrap_or(0),
                None => {}
            }
        }
        let before = self.before.take();
        let seconds =
            before.as_ref().map_or(1.0, |before| (at - before.at).as_secs_f64().max(1e-3));
        let tasks = self.tasks(before.as_ref(), &mut now, seconds);
        let busy = |cpu: u32, times: Times| {
            let old = before.as_ref().and_then(|b| b.cpus.get(&cpu)).copied().unwrap_or_default();
            let all = times.all.saturating_sub(old.all).max(1);
            100.0 * times.busy.saturating_sub(old.busy).min(all) as f64 / all as f64
        };
        let cpus: Vec<_> = now
            .cpus
            .iter()
            .map(|(&cpu, &times)| self.row(cpu, activity(busy(cpu, times), 0.0)))
            .collect();
        let mean = cpus.iter().map(|cpu| cpu.activity.busy_percent).sum::<f64>()
            / cpus.len().max(1) as f64;
        let switches = before.as_ref().map_or(0, |b| now.switches.saturating_sub(b.switches));
        let interval = Interval {
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            interval_s: seconds,
            llcs: Vec::new(),
            total: Total {
                activity: activity(mean, switches as f64 / seconds),
                runnable: running,
                queue_depth: running.saturating_sub(cpus.len() as u64),
                wakeup_latency: Latency::default(),
                queue_wait: Latency::default(),
            },
            cpus,
            rules: Vec::new(),
            kernel_events: BTreeMap::new(),
            tasks,
            policy: None,
        };
        self.before = Some(now);
        Ok(interval)
    }

    fn row(&self, cpu: u32, activity: Activity) -> CpuRow {
        let places = self.topology.as_ref().map(|topology| &topology.places);
        let place = places.and_then(|places| places.get(cpu as usize));
        CpuRow {
            cpu: CpuId(cpu),
            node: place.map_or(0, |place| place.node),
            llc: place.map_or(0, |place| place.llc),
            core: place.map_or(CpuId(cpu), |place| place.core),
            activity,
            runnable: 0,
        }
    }

    /// The processes that ran, from `/proc/PID/stat` (proc_pid_stat(5)).
    fn tasks(&self, before: Option<&Seen>, now: &mut Seen, seconds: f64) -> Vec<TaskRow> {
        let Ok(folder) = fs::read_dir(self.host.path("proc")) else { return Vec::new() };
        let mut rows = Vec::new();
        for entry in folder.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // It may have ended meanwhile.
            let Ok(line) = fs::read(entry.path().join("stat")) else { continue };
            let Some((comm, fields)) = split(&line) else { continue };
            let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
            // utime and stime.
            let ticks = (field(14) + field(15)).max(0) as u64;
            now.processes.insert(pid, ticks);
            let old = before.and_then(|before| before.processes.get(&pid)).copied();
            let ran = ticks.saturating_sub(old.unwrap_or(ticks));
            rows.push(TaskRow {
                rule: None,
                pid,
                tgid: pid,
                comm: Comm::new(comm),
                cpu: i32::try_from(field(39)).ok(),
                nice: i32::try_from(field(19)).unwrap_or(0),
                weight: Weight(0),
                policy: "".into(),
                vruntime_vns: Vtime(0),
                busy_percent: 100.0 * ran as f64 / self.ticks_per_s / seconds,
                wakeups_per_s: 0.0,
                preemptions_per_s: 0.0,
                wait_p99_us: None,
            });
        }
        rows
    }
}

/// The name and the numbers behind it, the state as 0. The name is in parentheses, and may have some of its own.
fn split(line: &[u8]) -> Option<(&[u8], Vec<i64>)> {
    let open = line.iter().position(|&byte| byte == b'(')?;
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let rest = String::from_utf8_lossy(line.get(close + 1..)?);
    let numbers = rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    Some((line.get(open + 1..close)?, numbers))
}

fn times(numbers: &[u64]) -> Times {
    let all = numbers.iter().take(TIMES).sum::<u64>();
    let idle: u64 = [IDLE, IOWAIT].iter().filter_map(|&field| numbers.get(field)).sum();
    Times { busy: all - idle, all }
}

fn activity(busy_percent: f64, switches_per_s: f64) -> Activity {
    Activity { busy_percent, switches_per_s, slice_avg_us: 0.0, counters: Counters::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_between_two_looks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        };
        let stat = |busy: u64, idle: u64, ctxt: u64| {
            format!(
                "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 {busy} 0 0 {idle} 0 0 0 0 0 0\n\
                 cpu7 0 0 0 {} 0 0 0 0 0 0\nctxt {ctxt}\nprocs_running 3\n",
                busy + idle
            )
        };
        write("sys/devices/system/cpu/possible", "0-7\n");
        write("sys/kernel/sched_ext/state", "enabled\n");
        write("sys/kernel/sched_ext/root/ops", "other\x1b[2J_1.0\n");
        write("proc/stat", &stat(100, 900, 50));
        let mut view = KernelView::of(Host::at(dir.path()));
        view.interval().expect("an interval");
        write("proc/stat", &stat(175, 925, 80));
        let zeros = "0 ".repeat(30);
        write("proc/42/stat", &format!("42 (a) \x1b(b) S 1 1 1 0 -1 0 0 0 0 0 {zeros}"));
        let interval = view.interval().expect("an interval");
        assert_eq!(interval.cpus.iter().map(|cpu| cpu.cpu.0).collect::<Vec<_>>(), [0, 7]);
        assert_eq!(interval.cpus[0].activity.busy_percent, 75.0);
        assert_eq!(interval.total.activity.busy_percent, 37.5);
        assert_eq!((interval.total.runnable, interval.total.queue_depth), (3, 1));
        assert!(interval.total.activity.switches_per_s > 0.0);
        assert_eq!(interval.tasks[0].comm.printable(), "a) \\x1b(b");
        assert_eq!(view.state(), "sched_ext is enabled: other\\x1b[2J_1.0");
    }

    #[test]
    fn this_machine_tells_something() {
        let interval = KernelView::real().interval().expect("an interval");
        assert!(!interval.cpus.is_empty() && !interval.tasks.is_empty());
        let own = std::process::id() as i32;
        assert!(interval.tasks.iter().any(|task| task.pid == own));
    }
}

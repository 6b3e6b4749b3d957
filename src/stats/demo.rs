//! A machine that is made up: samples like those of a real one, for whoever wants to look at the displays without a
//! kernel, and for tests of them.

use super::{
    hist,
    sample::{CpuSample, LlcSample, Sample},
};
use crate::{
    bpf::{
        intf::{self, counter, task_sample},
        policy, wire,
    },
    units::{CpuId, Nanos},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

/// CPUs of a core, of an LLC and of a node, as of a server of today.
const CORE_CPUS: u32 = 2;
const LLC_CPUS: u32 = 8;
const NODE_CPUS: u32 = 32;
/// What the tasks are called, the share of a CPU that each takes, and how long its bursts are, in microseconds.
const TASKS: &[(&str, f64, f64)] = &[
    ("cc1plus", 0.95, 20_000.0),
    ("rustc", 0.9, 8_000.0),
    ("ffmpeg", 0.6, 2_500.0),
    ("postgres", 0.35, 400.0),
    ("firefox", 0.25, 700.0),
    ("nginx", 0.15, 120.0),
    ("Xwayland", 0.1, 300.0),
    ("pipewire", 0.03, 90.0),
    ("kworker/u8:3", 0.02, 40.0),
    ("sshd", 0.005, 60.0),
];

/// Rules, and the name of the tasks that each has.
const RULES: [(&str, &str); 3] = [
    (r#"name = "pipewire", class = "latency", budget_percent = 25, period_ms = 100"#, "pipewire"),
    (r#"name = "cc1plus", class = "batch""#, "cc1plus"),
    (r#"cgroup = "/backup.slice/**", class = "idle""#, ""),
];

/// The machine. Its time passes only when it is told to.
#[derive(Debug)]
pub struct Demo {
    random: fastrand::Rng,
    begin: (Instant, SystemTime),
    now: Duration,
    cpus: Vec<CpuSample>,
    /// How busy each CPU is, 0 to 1.
    load: Vec<f64>,
    llcs: Vec<LlcSample>,
    tasks: Vec<task_sample>,
    late_enqueues: u64,
}

impl Demo {
    /// One with so many CPUs, at least one. The same number gives the same machine.
    pub fn new(nr_cpus: u32) -> Self {
        let nr_cpus = nr_cpus.max(1);
        let place = |cpu| {
            CpuSample::new(
                CpuId(cpu),
                cpu / NODE_CPUS,
                cpu / LLC_CPUS,
                CpuId(cpu - cpu % CORE_CPUS),
            )
        };
        let node_of = |llc| llc * LLC_CPUS / NODE_CPUS;
        let llcs = 0..nr_cpus.div_ceil(LLC_CPUS);
        let tasks = 0..(nr_cpus * 2).clamp(24, 400);
        Self {
            random: fastrand::Rng::with_seed(nr_cpus.into()),
            begin: (Instant::now(), SystemTime::now()),
            now: Duration::ZERO,
            cpus: (0..nr_cpus).map(place).collect(),
            load: (0..nr_cpus).map(|cpu| f64::from(cpu % 5) / 5.0).collect(),
            llcs: llcs.map(|llc| LlcSample { node: node_of(llc), nr_queued: 0 }).collect(),
            tasks: tasks.map(|i| task(i, nr_cpus)).collect(),
            late_enqueues: 0,
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, span: Duration) {
        self.now += span;
        for cpu in 0..self.cpus.len() {
            let drift = (self.random.f64() - 0.5) * 0.3;
            self.load[cpu] = (self.load[cpu] + drift).clamp(0.02, 1.0);
            self.work(cpu, span);
        }
        for (llc, cpus) in self.llcs.iter_mut().zip(self.load.chunks(LLC_CPUS as usize)) {
            let crowded = cpus.iter().filter(|load| **load > 0.8).count() as u32;
            llc.nr_queued = self.random.u32(0..=crowded * 2);
        }
        for i in 0..self.tasks.len() {
            let (_, share, burst_us) = TASKS[i % TASKS.len()];
            let run_us = span.as_secs_f64() * 1e6 * share * (0.5 + self.random.f64() / 2.0);
            let wakeups = (run_us / burst_us).ceil();
            let task = &mut self.tasks[i];
            task.run_ns += (run_us * 1e3) as u64;
            task.vruntime_vns += (run_us * 1e3) as u64;
            task.wakeups += wakeups as u64;
            task.nivcsw += (run_us / 3e3).ceil() as u64;
            let slot = policy::task_hist_slot(self.random.u64(8_000..400_000)) as usize;
            task.wait_hist[slot % hist::TASK_SLOTS] += wakeups as u32;
        }
        self.late_enqueues += u64::from(self.random.u64(0..10) == 0);
    }

    /// What a CPU does in a span.
    fn work(&mut self, cpu: usize, span: Duration) {
        let load = self.load[cpu];
        let run_ns = (span.as_nanos() as f64 * load) as u64;
        let switches = (span.as_secs_f64() * (400.0 + 3000.0 * load * self.random.f64())) as u64;
        let waking = switches * 3 / 4;
        let queued = (waking as f64 * load * load) as u64;
        let sample = &mut self.cpus[cpu];
        let mut count = |which: counter, n: u64| sample.stats.counters[which as usize] += n;
        count(intf::counter_CNT_SWITCHES, switches);
        count(intf::counter_CNT_STOPS, switches);
        count(intf::counter_CNT_RUN_NS, run_ns);
        count(intf::counter_CNT_IDLE_NS, Nanos::from(span).0 - run_ns);
        count(intf::counter_CNT_WAKEUPS, waking);
        count(intf::counter_CNT_IDLE_DIRECT, waking - queued);
        count(intf::counter_CNT_QUEUED, queued);
        count(intf::counter_CNT_KEPT, switches / 10);
        count(intf::counter_CNT_PREEMPTIONS, queued / 3);
        count(intf::counter_CNT_TICK_PREEMPTIONS, queued / 9);
        count(intf::counter_CNT_MIGRATIONS, waking / 5);
        count(intf::counter_CNT_STEALS, queued / 50);
        for _ in 0..waking {
            // Most wait for microseconds; the busier the CPU, the longer the tail.
            let nines = -self.random.f64().max(1e-6).ln();
            let wait_ns = 3e3 + 2e4 * nines * (1.0 + 40.0 * load.powi(6) * nines);
            sample.stats.wait_hists[0][policy::hist_slot(wait_ns as u64) as usize] += 1;
            sample.stats.counters[intf::counter_CNT_WAIT_NS as usize] += wait_ns as u64;
        }
        for _ in 0..switches - waking {
            // Who was put back waits for a slice of somebody else.
            let wait_ns = 3e6 * load * (0.5 + self.random.f64());
            sample.stats.wait_hists[1][policy::hist_slot(wait_ns as u64) as usize] += 1;
            sample.stats.counters[intf::counter_CNT_REQUEUE_NS as usize] += wait_ns as u64;
        }
        sample.state.running_pid = u32::from(self.random.f64() < load);
        sample.state.nr_pinned = u16::from(self.random.f64() < load / 8.0);
        sample.state.snapshot_at = Nanos::from(self.now).0;
    }

    /// The state at this instant.
    pub fn sample(&self) -> Sample {
        Sample {
            at: self.begin.0 + self.now,
            time: self.begin.1 + self.now,
            cpus: self.cpus.clone(),
            llcs: self.llcs.clone(),
            kernel_events: BTreeMap::from([(
                "SCX_EV_ENQ_SKIP_EXITING".to_owned(),
                self.late_enqueues,
            )]),
            policy: None,
        }
    }

    /// Its rules, in words.
    pub fn rules() -> Vec<String> {
        RULES.map(|(text, _)| text.to_owned()).into()
    }

    /// All tasks, cumulative.
    pub fn tasks(&self) -> Vec<task_sample> {
        self.tasks.clone()
    }
}

fn task(i: u32, nr_cpus: u32) -> task_sample {
    let (name, ..) = TASKS[i as usize % TASKS.len()];
    let pid = 1000 + 17 * i as i32;
    let mut task =
        task_sample { pid, tgid: pid, cpu: (i % nr_cpus) as i32, weight: 1024, ..wire::zero() };
    let rule = RULES.iter().position(|(_, of)| *of == name);
    task.rule = rule.map_or(0, |rule| rule as u32 + 1);
    // The last character stays NUL.
    let room = task.comm.len() - 1;
    for (to, from) in task.comm[..room].iter_mut().zip(name.bytes()) {
        *to = from as _;
    }
    task
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::interval::Interval;

    #[test]
    fn the_same_machine_does_the_same() {
        let [one, other] = [(); 2].map(|()| {
            let mut demo = Demo::new(16);
            let before = demo.sample();
            demo.advance(Duration::from_secs(1));
            let interval = Interval::between(&before, &demo.sample(), Vec::new());
            (interval.cpus, interval.llcs, interval.total)
        });
        assert_eq!(one, other);
        assert_eq!((one.0.len(), one.1.len()), (16, 2));
        assert!(one.0.iter().all(|cpu| (1.0..=100.0).contains(&cpu.activity.busy_percent)));
        assert!(one.2.wakeup_latency.count > 100);
    }
}

//! Tasks of different weights and demands, and how far each is from the CPU time that is due to it.

use super::{exact_timers, set_nice, sleep_until, work};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::{
    time::{ClockId, clock_gettime},
    unistd::gettid,
};
use std::{
    str::FromStr,
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// The kernel's weights of nice −20 to 19 (`sched_prio_to_weight`).
const WEIGHTS: [f64; 40] = [
    88761.0, 71755.0, 56483.0, 46273.0, 36291.0, 29154.0, 23254.0, 18705.0, 14949.0, 11916.0,
    9548.0, 7620.0, 6100.0, 4904.0, 3906.0, 3121.0, 2501.0, 1991.0, 1586.0, 1277.0, 1024.0, 820.0,
    655.0, 526.0, 423.0, 335.0, 272.0, 215.0, 172.0, 137.0, 110.0, 87.0, 70.0, 56.0, 45.0, 36.0,
    29.0, 23.0, 18.0, 15.0,
];

/// Arguments of `probe fair`. All tasks share the CPUs that the probe may use.
#[derive(Args)]
pub struct Fair {
    /// Tasks that always compute: nice level and how many
    #[arg(long, value_name = "NICE:COUNT", allow_hyphen_values = true)]
    hogs: Vec<Group>,
    /// Tasks that compute for WORK in each PERIOD, both in µs, and sleep otherwise
    #[arg(long, value_name = "NICE:COUNT:PERIOD:WORK", allow_hyphen_values = true)]
    sleepers: Vec<Group>,
    /// How long to measure
    #[arg(long)]
    seconds: f64,
}

#[derive(Clone, Debug)]
struct Group {
    nice: i32,
    count: usize,
    /// Period and work of a sleeper.
    rhythm: Option<(Duration, Duration)>,
}

impl FromStr for Group {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let fields: Vec<&str> = text.split(':').collect();
        let micros = |text: &str| -> Result<Duration> { Ok(Duration::from_micros(text.parse()?)) };
        let (nice, count, rhythm) = match fields[..] {
            [nice, count] => (nice, count, None),
            [nice, count, period, work] => (nice, count, Some((micros(period)?, micros(work)?))),
            _ => bail!("{text:?} is neither NICE:COUNT nor NICE:COUNT:PERIOD:WORK"),
        };
        let nice = nice.parse()?;
        ensure!((-20..=19).contains(&nice), "no nice level: {nice}");
        Ok(Self { nice, count: count.parse()?, rhythm })
    }
}

impl Group {
    fn weight(&self) -> f64 {
        let index = usize::try_from(self.nice + 20).unwrap_or(20);
        WEIGHTS.get(index).copied().unwrap_or(1024.0)
    }

    /// The CPUs that one of its tasks can use.
    fn demand(&self) -> f64 {
        self.rhythm.map_or(1.0, |(period, work)| work.as_secs_f64() / period.as_secs_f64())
    }

    /// The life of a task: reports its clock, then computes until the process ends.
    fn live(&self, ready: &Sender<Result<ClockId>>) {
        let settled = set_nice(self.nice).and_then(|()| exact_timers()).map(|()| own_clock());
        if ready.send(settled).is_err() {
            return;
        }
        let begin = Instant::now();
        let Some((period, work_time)) = self.rhythm else {
            for number in 0..u64::MAX {
                std::hint::black_box(number);
            }
            return;
        };
        for number in 0.. {
            sleep_until(begin + period * number);
            if work(work_time).is_err() {
                return;
            }
        }
    }
}

/// The clock of this thread's CPU time, as other threads can read it (clock_gettime(2), the kernel's
/// `MAKE_THREAD_CPUCLOCK`).
fn own_clock() -> ClockId {
    const THREAD_AND_SCHED: i32 = 6;
    ClockId::from_raw((!gettid().as_raw() << 3) | THREAD_AND_SCHED)
}

impl Fair {
    /// Starts all tasks, measures, and leaves them to the end of the process.
    pub fn run(self) -> Result<()> {
        const SETTLE: Duration = Duration::from_millis(500);
        let groups = self.hogs.iter().chain(&self.sleepers);
        let tasks: Vec<&Group> =
            groups.flat_map(|group| std::iter::repeat_n(group, group.count)).collect();
        ensure!(!tasks.is_empty(), "no tasks: name --hogs or --sleepers");
        let mut clocks = Vec::new();
        for &task in &tasks {
            let (ready, started) = channel();
            let task = task.clone();
            thread::spawn(move || task.live(&ready));
            clocks.push(started.recv().context("a task did not start")??);
        }
        // So that the end of the window is seen in time, however many hogs there are.
        const FIRST: i32 = -20;
        set_nice(FIRST)?;
        thread::sleep(SETTLE);
        let read = || -> Result<Vec<f64>> {
            let seconds = |clock: &ClockId| -> Result<f64> {
                let time = clock_gettime(*clock).context("reading a task's clock")?;
                Ok(Duration::from(time).as_secs_f64())
            };
            clocks.iter().map(seconds).collect()
        };
        let before = read()?;
        thread::sleep(Duration::from_secs_f64(self.seconds));
        let got: Vec<f64> =
            read()?.iter().zip(before).map(|(after, before)| after - before).collect();
        let demands: Vec<f64> = tasks.iter().map(|task| task.demand() * self.seconds).collect();
        let weights: Vec<f64> = tasks.iter().map(|task| task.weight()).collect();
        // What other things took is nobody's fault.
        let due = shares(got.iter().sum(), &weights, &demands);
        let mut worst_percent: f64 = 0.0;
        let mut worst_lag_ms: f64 = 0.0;
        for ((task, got), due) in tasks.iter().zip(&got).zip(&due) {
            println!("# nice {} got {:.4} s of {:.4} s due", task.nice, got, due);
            worst_percent = worst_percent.max(100.0 * (got - due).abs() / due);
            worst_lag_ms = worst_lag_ms.max(1000.0 * (got - due).abs());
        }
        println!("worst_deviation_percent {worst_percent:.3}");
        println!("worst_lag_ms {worst_lag_ms:.3}");
        Ok(())
    }
}

/// Divides `capacity` by weight, and what someone does not want among the others.
fn shares(capacity: f64, weights: &[f64], demands: &[f64]) -> Vec<f64> {
    let mut due = vec![None; weights.len()];
    loop {
        let given: f64 = due.iter().flatten().sum();
        let open = |due: &[Option<f64>]| -> Vec<usize> {
            (0..due.len()).filter(|&task| due[task].is_none()).collect()
        };
        let left = open(&due);
        let weight: f64 = left.iter().map(|&task| weights[task]).sum();
        let share = |task: usize| (capacity - given) * weights[task] / weight;
        let content: Vec<usize> =
            left.iter().copied().filter(|&task| demands[task] <= share(task)).collect();
        if content.is_empty() {
            return (0..due.len()).map(|task| due[task].unwrap_or_else(|| share(task))).collect();
        }
        for task in content {
            due[task] = Some(demands[task]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(capacity: f64, weights: &[f64], demands: &[f64], expected: &[f64]) {
        let due = shares(capacity, weights, demands);
        for (due, expected) in due.iter().zip(expected) {
            assert!((due - expected).abs() < 1e-9, "{due} for {expected}");
        }
    }

    #[test]
    fn shares_go_by_weight_up_to_the_demand() {
        check(2.0, &[1.0, 1.0, 1.0], &[9.0; 3], &[2.0 / 3.0; 3]);
        check(1.0, &[3.0, 1.0], &[1.0, 1.0], &[0.75, 0.25]);
        // The first cannot use more than one CPU; the others share the rest.
        check(2.0, &[8.0, 1.0, 1.0], &[1.0; 3], &[1.0, 0.5, 0.5]);
        // Two rounds: the sleeper's rest makes the next one content.
        check(1.0, &[1.0, 1.0, 2.0], &[0.1, 0.29, 1.0], &[0.1, 0.29, 0.61]);
    }

    #[test]
    fn groups_are_read() {
        let group: Group = "-10:3".parse().expect("a group");
        assert_eq!((group.nice, group.count, group.weight()), (-10, 3, 9548.0));
        let sleeper: Group = "0:1:10000:3000".parse().expect("a sleeper");
        assert!((sleeper.demand() - 0.3).abs() < 1e-9);
        assert!("0".parse::<Group>().is_err() && "20:1".parse::<Group>().is_err());
    }
}

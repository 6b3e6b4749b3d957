//! The lowest virtual run time first.

use super::{Context, Decision, Policy, Task, builtin::set_slice};
use crate::units::{Nanos, Pid};
use std::collections::HashMap;

/// The lowest virtual run time first.
///
/// - Priority is weight: the virtual run time of a task of more weight grows more slowly.
/// - A task that often gives up its CPU by its own will is sensitive to latency, and comes up to 2 ms of virtual time
///   earlier. What it runs is charged all the same, so it gains
///   no share by that.
/// - A slice is 5 ms divided by the tasks that wait for each CPU, never under 0.5 ms.
/// - A task of the priority table comes 1 ms earlier for each level.
/// - A task that wakes up runs on an idle CPU near its last one, if there is one; the kernel's half sees to that.
#[derive(Debug, Clone)]
pub struct Vruntime {
    slice: Nanos,
    slice_min: Nanos,
    nr_online: u64,
    switching: HashMap<Pid, Switching>,
}

/// How a task gave up its CPU so far.
#[derive(Debug, Clone, Copy, Default)]
struct Switching {
    voluntary: u64,
    all: u64,
    /// Of its last switches, how many were by its own will: a moving average, 0 to 1.
    share: f64,
}

impl Switching {
    fn of(task: &Task) -> Self {
        let voluntary = task.voluntary_switches;
        // Most tasks are short, and whoever waits for a new one waits for its first run.
        let share = if task.started_at == Nanos(0) { 1.0 } else { 0.0 };
        Self { voluntary, all: voluntary + task.involuntary_switches, share }
    }

    fn update(&mut self, task: &Task) {
        let now = Self::of(task);
        let all = now.all.saturating_sub(self.all);
        if all > 0 {
            let share = now.voluntary.saturating_sub(self.voluntary) as f64 / all as f64;
            self.share += (share - self.share) / 4.0;
        }
        (self.voluntary, self.all) = (now.voluntary, now.all);
    }
}

/// How much earlier a task comes that gives up its CPU by its own will only.
const EARLIER: Nanos = Nanos::from_millis(2);
/// And for each level of priority.
const EARLIER_BY_LEVEL: Nanos = Nanos::from_millis(1);

impl Default for Vruntime {
    fn default() -> Self {
        Self {
            slice: Nanos::from_millis(5),
            slice_min: Nanos::from_micros(500),
            nr_online: 0,
            switching: HashMap::new(),
        }
    }
}

impl Vruntime {
    fn slice_beside(&self, waiting: u64) -> Nanos {
        let each = waiting / self.nr_online.max(1);
        Nanos(self.slice.0 / (1 + each)).max(self.slice_min)
    }
}

impl Policy for Vruntime {
    fn name(&self) -> &str {
        "vruntime"
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let slices = &mut [("slice_us", &mut self.slice), ("slice_min_us", &mut self.slice_min)];
        set_slice(slices, key, value)
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        if self.nr_online == 0 {
            self.tick(cx);
        }
        let switching = self.switching.entry(task.pid).or_insert_with(|| Switching::of(task));
        switching.update(task);
        let share = switching.share;
        let earlier = Nanos((EARLIER.0 as f64 * share) as u64);
        let earlier = Nanos(earlier.0 + EARLIER_BY_LEVEL.0 * u64::from(cx.priority(task.pid)));
        let slice = self.slice_beside(cx.nr_queued() + cx.nr_decided());
        let vtime = task.vruntime.earlier_by(earlier);
        let mut decision = Decision::any_cpu().vtime(vtime).slice(slice);
        // One that had its slice has had its turn.
        if task.woke_up() || task.started_at == Nanos(0) {
            decision = decision.preempt_if_earlier();
        }
        cx.decide(task, decision);
    }

    fn exited(&mut self, pid: Pid, _: &mut Context<'_>) {
        self.switching.remove(&pid);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.nr_online = cx.cpus().iter().filter(|cpu| cpu.online).count() as u64;
        cx.show("tasks", self.switching.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::fake::Fake, units::Vtime};

    #[test]
    fn the_lowest_first() {
        let mut fake = Fake::with_cpus(1);
        let mut policy = Vruntime::default();
        for (pid, vruntime) in [(1, 30), (2, 10), (3, 20)] {
            let task = Task { vruntime: Vtime(vruntime), ..fake.task(pid) };
            fake.enqueue(&mut policy, &task);
        }
        assert_eq!(fake.order(), [2, 3, 1]);
    }

    #[test]
    fn who_sleeps_comes_earlier() {
        let mut fake = Fake::with_cpus(1);
        let mut policy = Vruntime::default();
        for turn in 0..20 {
            let task = |pid| Task {
                vruntime: Vtime(1_000_000_000),
                started_at: Nanos(1),
                ..fake.task(pid)
            };
            let hog = Task { involuntary_switches: turn, ..task(1) };
            let sleeper = Task { voluntary_switches: turn, ..task(2) };
            fake.enqueue(&mut policy, &hog);
            fake.enqueue(&mut policy, &sleeper);
            let expected = if turn == 0 { [1, 2] } else { [2, 1] };
            assert_eq!(fake.order(), expected, "turn {turn}");
            fake.run_all();
        }
    }

    #[test]
    fn slices_are_shared_down_to_a_floor() {
        let policy = Vruntime { nr_online: 2, ..Vruntime::default() };
        let slices = [0, 2, 8, 18, 1000].map(|waiting| policy.slice_beside(waiting).0 / 1000);
        assert_eq!(slices, [5000, 2500, 1000, 500, 500]);
    }

    #[test]
    fn the_dead_leave_nothing_behind() {
        let mut fake = Fake::with_cpus(1);
        let mut policy = Vruntime::default();
        for pid in 1..1000 {
            fake.enqueue(&mut policy, &fake.task(pid));
            fake.exit(&mut policy, pid);
        }
        assert!(policy.switching.is_empty());
    }
}

//! The lowest virtual run time first: a fair scheduler, with a queue of its own in user space.
//!
//! `sudo target/release/examples/vruntime --stats`, with `--set slice_us=2000` for shorter slices.
//!
//! Other than `examples/fifo.rs` it does not decide at once: it keeps the tasks that wait, and decides about one more
//! whenever a CPU has nothing to run. What it does not decide within the grace period the kernel's half takes over.

use scheduler::policy::{Context, Decision, Policy, Task};
use scheduler::units::{CpuId, Nanos, Pid};
use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
};

#[derive(Default)]
struct Vruntime {
    /// By virtual run time, and by pid among equals.
    waiting: BTreeMap<(u64, Pid), Task>,
    /// The virtual run time of each that waits.
    places: HashMap<Pid, u64>,
    slice: Nanos,
}

impl Vruntime {
    fn new(slice: Nanos) -> Self {
        Self { slice, ..Self::default() }
    }

    /// Forgets that a task waits.
    fn remove(&mut self, pid: Pid) {
        if let Some(vruntime) = self.places.remove(&pid) {
            self.waiting.remove(&(vruntime, pid));
        }
    }

    /// Decides about the first `count` tasks.
    fn decide_next(&mut self, count: usize, cx: &mut Context<'_>) {
        for _ in 0..count {
            let Some((_, task)) = self.waiting.pop_first() else { return };
            self.places.remove(&task.pid);
            let decision = Decision::any_cpu().vtime(task.vruntime).slice(self.slice);
            cx.decide(&task, decision);
        }
    }
}

impl Policy for Vruntime {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value.parse()) {
            ("slice_us", Ok(us)) => self.slice = Nanos::from_micros(us),
            ("slice_us", Err(error)) => return Err(error.to_string()),
            _ => return Err("the only option is 'slice_us'".to_owned()),
        }
        Ok(())
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        // Enqueued anew, it has left its old place.
        self.remove(task.pid);
        self.places.insert(task.pid, task.vruntime.0);
        self.waiting.insert((task.vruntime.0, task.pid), task.clone());
        cx.show("waiting", self.waiting.len() as f64);
        // One for each CPU is always decided, so that none has to ask.
        let nr_cpus = cx.cpus().iter().filter(|cpu| cpu.online).count() as u64;
        if cx.nr_decided() < nr_cpus {
            self.decide_next(1, cx);
        }
    }

    fn dispatch(&mut self, _: CpuId, cx: &mut Context<'_>) {
        self.decide_next(1, cx);
    }

    fn exited(&mut self, pid: Pid, _: &mut Context<'_>) {
        self.remove(pid);
    }
}

fn main() -> ExitCode {
    scheduler::run(Vruntime::new(Nanos::from_millis(3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler::{policy::fake::Fake, units::Vtime};

    #[test]
    fn the_lowest_first_when_a_cpu_asks() {
        let mut fake = Fake::with_cpus(1);
        let mut policy = Vruntime::new(Nanos::from_millis(1));
        for (pid, vruntime) in [(1, 30), (2, 20), (3, 10)] {
            fake.enqueue(&mut policy, &Task { vruntime: Vtime(vruntime), ..fake.task(pid) });
        }
        // The first was decided at once, for the one CPU.
        assert_eq!((fake.order(), fake.undecided()), (vec![1], vec![2, 3]));
        fake.dispatch(&mut policy, CpuId(0));
        assert_eq!(fake.undecided(), [2]);
    }
}

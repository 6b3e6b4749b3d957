//! Tasks of one name have a CPU to themselves; all others share the rest, first in, first out.
//!
//! `sudo target/release/examples/pin_by_name --set name=make --set cpu=3`

use scheduler::policy::{Context, Decision, Policy, Task};
use scheduler::units::{CpuId, Vtime};
use std::process::ExitCode;

#[derive(Default)]
struct PinByName {
    name: String,
    cpu: CpuId,
    arrived: u64,
}

impl Policy for PinByName {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "name" => self.name = value.to_owned(),
            "cpu" => self.cpu = CpuId(value.parse().map_err(|_| "must be the number of a CPU")?),
            _ => return Err("the options are 'name' and 'cpu'".to_owned()),
        }
        Ok(())
    }

    // Be asked about every wakeup: an idle CPU may be the wrong one.
    fn takes_idle_cpus(&self) -> bool {
        false
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        self.arrived += 1;
        let order = Vtime(self.arrived);
        if task.comm == *self.name && task.cpus.contains(self.cpu) {
            cx.decide(task, Decision::on(self.cpu).vtime(order));
            return;
        }
        // The others: an idle CPU that is not the reserved one, or else the one of the fewest tasks so far, in turn.
        let mut cpus: Vec<_> = cx
            .cpus()
            .into_iter()
            .filter(|cpu| cpu.online && cpu.id != self.cpu && task.cpus.contains(cpu.id))
            .collect();
        cpus.sort_by_key(|cpu| (!cpu.idle, Some(cpu.id) != task.cpu));
        let turn = if cpus.first().is_some_and(|cpu| cpu.idle) { 0 } else { self.arrived as usize };
        let decision = match cpus.get(turn % cpus.len().max(1)) {
            Some(cpu) => Decision::on(cpu.id),
            // It may run nowhere else.
            None => Decision::any_cpu(),
        };
        cx.decide(task, decision.vtime(order));
    }
}

fn main() -> ExitCode {
    scheduler::run(PinByName::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler::policy::{Comm, fake::Fake};

    #[test]
    fn by_name_and_nothing_else() {
        let mut fake = Fake::with_cpus(4);
        let mut policy = PinByName { name: "make".to_owned(), cpu: CpuId(3), arrived: 0 };
        for (pid, comm) in [(1, "make"), (2, "sh"), (3, "makeinfo"), (4, "make")] {
            fake.enqueue(&mut policy, &Task { comm: Comm::new(comm), ..fake.task(pid) });
        }
        let there = |pid: i32| {
            let order = fake.decided().iter().find(|order| order.pid.is_some_and(|p| p.0 == pid));
            order.and_then(|order| order.decision.cpu()) == Some(CpuId(3))
        };
        assert_eq!([1, 2, 3, 4].map(there), [true, false, false, true]);
    }
}

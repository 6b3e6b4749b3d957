//! What is told of a run while it goes on: to a trace, and to whoever waits for it.

use super::{
    machine::Machine,
    task::{Place, TaskId},
};
use crate::trace::{Named, Trace};

/// Events between two looks at whether the run shall go on: some milliseconds.
const LOOK_EVERY: u64 = 1 << 15;

/// Who follows a run.
#[derive(Default)]
pub struct Follow<'a> {
    /// Is told every few milliseconds how much of simulated time is over, in nanoseconds; false ends the run.
    pub goes_on: Option<&'a dyn Fn(u64) -> bool>,
    /// What runs where is written there.
    pub trace: Option<&'a mut Trace>,
}

/// What a CPU was last shown to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shown {
    #[default]
    Idle,
    Task(TaskId),
    Higher,
}

impl Machine<'_> {
    /// Whether the run goes on.
    pub(super) fn goes_on(&self) -> bool {
        let events = self.stats.machine.events;
        !events.is_multiple_of(LOOK_EVERY) || self.follow.goes_on.is_none_or(|ask| ask(self.now))
    }

    fn named(&self, cpu: u32, what: Shown) -> Named {
        match what {
            Shown::Idle => Named { comm: format!("swapper/{cpu}"), pid: 0, prio: 120 },
            // Numbers that no task of a scenario has.
            Shown::Higher => {
                Named { comm: format!("real-time/{cpu}"), pid: i32::MAX - cpu as i32, prio: 50 }
            }
            Shown::Task(id) => {
                let (actor, task) = (&self.actors[id.index()], &self.kernel.tasks[id.index()]);
                let group = &self.scenario.group[actor.group];
                let comm = format!("{} {}", group.name, actor.number);
                Named { comm, pid: task.pid(), prio: task.prio() }
            }
        }
    }

    /// A CPU may run something else by now.
    pub(super) fn show_switch(&mut self, cpu: u32) {
        if self.follow.trace.is_none() {
            return;
        }
        let next = match self.kernel.cpus[cpu as usize].curr {
            _ if self.cpus[cpu as usize].taken > 0 => Shown::Higher,
            Some(id) => Shown::Task(id),
            None => Shown::Idle,
        };
        let prev = std::mem::replace(&mut self.cpus[cpu as usize].shown, next);
        if prev == next {
            return;
        }
        let state = match prev {
            Shown::Task(id) => match self.kernel.tasks[id.index()].place {
                Place::Asleep => super::abi::TASK_INTERRUPTIBLE,
                Place::Dead => super::abi::TASK_DEAD,
                _ => super::abi::TASK_RUNNING,
            },
            Shown::Higher => super::abi::TASK_INTERRUPTIBLE,
            Shown::Idle => super::abi::TASK_RUNNING,
        };
        let (before, after, now) = (self.named(cpu, prev), self.named(cpu, next), self.now);
        if let Some(trace) = &mut self.follow.trace {
            trace.switch(cpu, now, &before, state, &after);
        }
    }

    /// A task is woken, or born, by what runs on a CPU.
    pub(super) fn show_waking(&mut self, here: u32, id: TaskId) {
        if self.follow.trace.is_none() {
            return;
        }
        let task = self.named(here, Shown::Task(id));
        let by = self.named(here, self.cpus[here as usize].shown).pid;
        let (now, target) = (self.now, self.kernel.tasks[id.index()].cpu() as u32);
        if let Some(trace) = &mut self.follow.trace {
            trace.waking(here, now, by, &task, target);
        }
    }
}

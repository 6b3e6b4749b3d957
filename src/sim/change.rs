//! Tasks that change: another nice value. `set_user_nice()` in `kernel/sched/core.c`.

use super::{
    abi,
    machine::Machine,
    scenario::Change,
    task::{Place, TaskId},
};

impl Machine<'_> {
    /// A change of the scenario happens to all tasks that the group has.
    pub(super) fn change(&mut self, change: &Change) {
        let group = self.scenario.group_of(&change.group);
        for id in (0..self.actors.len() as u32).map(TaskId) {
            if self.actors[id.index()].group == group && self.violation.is_none() {
                self.renice(id, change.nice.0);
            }
        }
    }

    /// A task is off its runqueue for the instant in which its weight changes. The running one goes on without a question.
    fn renice(&mut self, id: TaskId, nice: i32) {
        let task = &self.kernel.tasks[id.index()];
        let (place, cpu, flags) = (task.place, task.cpu() as u32, task.scx_flags());
        if place == Place::Running {
            self.update_curr(cpu);
            self.kernel.stopping(cpu, id, false);
        }
        self.kernel.dispatch_dequeue(id);
        let task = self.kernel.task(id);
        task.set_scx_flags(flags & !abi::SCX_TASK_QUEUED);
        task.set_nice(nice);
        if task.is_known() {
            self.kernel.set_weight(cpu, id);
        }
        self.kernel.task(id).set_scx_flags(flags);
        match place {
            Place::Running => self.kernel.running(cpu, id),
            Place::Queued(..) => self.do_enqueue(id, cpu, abi::ENQUEUE_RESTORE.into()),
            _ => {}
        }
        self.after_callback(cpu);
    }
}

//! Tasks that change: another nice value, another affinity, sections without migration. `kernel/sched/core.c`.

use super::{
    abi,
    events::Kind,
    machine::Machine,
    mask::Mask,
    task::{Place, TaskId},
};
use crate::units::CpuId;

impl Machine<'_> {
    /// `set_user_nice()`.
    pub(super) fn renice(&mut self, id: TaskId, nice: i32) {
        self.change(id, |machine, cpu| {
            let task = machine.kernel.task(id);
            task.set_nice(nice);
            if task.is_known() {
                machine.kernel.set_weight(cpu, id);
            }
        });
    }

    /// `do_set_cpus_allowed()`; `here` is where that runs.
    pub(super) fn set_cpus_allowed(&mut self, id: TaskId, allowed: Mask, here: u32) {
        self.change(id, |machine, _| {
            machine.kernel.task(id).set_allowed(allowed);
            machine.kernel.set_cpumask(here, id);
        });
    }

    /// `sched_setaffinity()`: `__set_cpus_allowed_ptr()` and `affine_move_task()`. None of the CPUs active: it is refused.
    pub(super) fn set_affinity(&mut self, id: TaskId, cpus: &[CpuId]) {
        let allowed = Mask::of(self.cpus.len(), cpus.iter().copied());
        let task = &self.kernel.tasks[id.index()];
        if !task.is_known() || allowed.bits().next_and(self.kernel.active.bits(), 0).is_none() {
            return;
        }
        let cpu = task.cpu() as u32;
        self.set_cpus_allowed(id, allowed, self.alive(cpu));
        let task = self.kernel.task(id);
        let is_queued = task.scx_flags() & abi::SCX_TASK_QUEUED != 0;
        if task.allowed().has(cpu) || !is_queued {
            return;
        }
        if task.place == Place::Running {
            task.migration_pending = true;
            self.events.push(self.now + self.scenario.costs.ipi, Kind::Stopper(cpu, id));
        } else if task.migration_disabled() == 0 {
            let to = self.select_fallback_rq(id, cpu);
            self.move_queued_task(id, to, cpu);
        }
    }

    /// `migrate_disable_switch()`: a task that may not migrate leaves its CPU for others.
    pub(super) fn switched_out(&mut self, id: TaskId, cpu: u32) {
        let task = self.kernel.task(id);
        if task.migration_disabled() == 0 || task.is_pinned() {
            return;
        }
        let only = Mask::of(self.cpus.len(), [CpuId(cpu)]);
        self.change(id, |machine, _| {
            machine.kernel.task(id).pin(Some(only));
            machine.kernel.set_cpumask(cpu, id);
        });
    }

    /// `migrate_enable()` of the running task.
    pub(super) fn migrate_enable(&mut self, id: TaskId, cpu: u32) {
        let now = self.now;
        if self.kernel.task(id).is_pinned() {
            self.change(id, |machine, _| {
                machine.kernel.task(id).pin(None);
                machine.kernel.set_cpumask(cpu, id);
            });
        }
        let task = self.kernel.task(id);
        task.set_migration_disabled(0);
        task.movable_at = now;
        if !self.kernel.is_cpu_allowed(id, cpu) {
            self.events.push(now, Kind::Stopper(cpu, id));
        }
    }

    /// A task is off its runqueue for the instant in which it changes. The running one goes on without a question.
    fn change(&mut self, id: TaskId, change: impl FnOnce(&mut Self, u32)) {
        let now = self.now;
        let task = self.kernel.task(id);
        task.movable_at = now;
        let (place, cpu, flags) = (task.place, task.cpu() as u32, task.scx_flags());
        let is_queued = flags & abi::SCX_TASK_QUEUED != 0;
        if place == Place::Running {
            self.update_curr(cpu);
            self.kernel.stopping(cpu, id, false);
        }
        self.kernel.dispatch_dequeue(id);
        self.kernel.task(id).set_scx_flags(flags & !abi::SCX_TASK_QUEUED);
        change(self, cpu);
        self.kernel.task(id).set_scx_flags(flags);
        match place {
            Place::Running => self.kernel.running(cpu, id),
            _ if is_queued => self.do_enqueue(id, cpu, abi::ENQUEUE_RESTORE.into()),
            _ => {}
        }
        self.after_callback(cpu);
    }
}

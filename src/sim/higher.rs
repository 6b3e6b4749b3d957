//! Higher classes: real-time tasks that take a CPU for a while, and the stopper, which moves a task off a CPU. `ext.c`
//! tells of both by `cpu_release` and `cpu_acquire`, as kernels do that have these.

use super::{
    abi,
    events::Kind,
    machine::Machine,
    mask::Mask,
    sched::LOG_STOPS,
    task::{Place, QueueId, TaskId},
};
use crate::units::CpuId;

/// What is logged of a CPU.
const LOG_TAKEN: u64 = 3;

impl Machine<'_> {
    /// Time that higher classes have had of a CPU up to now.
    pub(super) fn taken_ns(&self, cpu: u32) -> u64 {
        self.cpus[cpu as usize].taken_until(self.now)
    }

    /// A task of a higher class runs on a CPU: `put_prev_task_scx()` and `switch_class()`.
    pub(super) fn take(&mut self, cpu: u32) {
        let now = self.now;
        let state = &mut self.cpus[cpu as usize];
        state.taken += 1;
        if state.taken > 1 {
            return;
        }
        state.taken_at = now;
        if state.resched_at.take().is_some() {
            self.kernel.missed_at = Some(now);
        }
        state.run = state.run.wrapping_add(1);
        self.log(LOG_TAKEN, cpu, TaskId(u32::MAX));
        let Some(id) = self.kernel.cpus[cpu as usize].curr else {
            self.end_idle(cpu);
            self.show_switch(cpu);
            return self.after_callback(cpu);
        };
        self.update_curr(cpu);
        self.count_switch(id, true);
        self.log(LOG_STOPS, cpu, id);
        self.kernel.stopping(cpu, id, true);
        self.waits_again(id, cpu);
        if self.kernel.task(id).slice() > 0 {
            self.kernel.dispatch_enqueue(id, QueueId::Local(cpu), abi::SCX_ENQ_HEAD, false);
        } else {
            self.do_enqueue(id, cpu, 0);
        }
        if !self.kernel.cpus[cpu as usize].released {
            let reenqueue = self.kernel.cpu_release(cpu);
            self.kernel.cpus[cpu as usize].released = true;
            if reenqueue {
                self.reenq_local(cpu, id);
            }
        }
        self.kernel.cpus[cpu as usize].curr = None;
        self.after_callback(cpu);
        self.switched_out(id, cpu);
        self.show_switch(cpu);
    }

    /// `reenq_local()`, within `cpu_release` while `curr` is the current task, which counts for one more entry.
    fn reenq_local(&mut self, cpu: u32, curr: TaskId) {
        let waiting: Vec<_> = self.kernel.cpus[cpu as usize]
            .local
            .iter()
            .filter(|id| !self.kernel.tasks[id.index()].migration_pending)
            .collect();
        self.kernel.count_entry(Some(curr), 1);
        waiting.iter().for_each(|&id| self.kernel.dispatch_dequeue(id));
        waiting.iter().for_each(|&id| self.do_enqueue(id, cpu, abi::SCX_ENQ_REENQ));
        self.kernel.count_entry(Some(curr), -1);
    }

    /// The higher class is done with the CPU.
    pub(super) fn give_back(&mut self, cpu: u32) {
        let state = &mut self.cpus[cpu as usize];
        state.taken -= 1;
        if state.taken == 0 {
            state.taken_ns += self.now - state.taken_at;
            self.schedule(cpu, false);
        }
    }

    /// `migration_cpu_stop()`, `__balance_push_cpu_stop()`: a task that is on a CPU where it may not stay leaves it.
    pub(super) fn stopper(&mut self, cpu: u32, id: TaskId) {
        self.take(cpu);
        let task = self.kernel.task(id);
        let pending = std::mem::take(&mut task.migration_pending);
        let is_here = task.cpu() == cpu as i32 && task.scx_flags() & abi::SCX_TASK_QUEUED != 0;
        if is_here && task.migration_disabled() > 0 {
            task.migration_pending = pending;
        } else if is_here && !self.kernel.is_cpu_allowed(id, cpu) {
            if !self.kernel.cpus[cpu as usize].online {
                self.displaced();
            }
            let to = self.select_fallback_rq(id, cpu);
            self.move_queued_task(id, to, cpu);
        }
        self.give_back(cpu);
    }

    /// `move_queued_task()`, of a task that does not run. `here` is where that runs.
    pub(super) fn move_queued_task(&mut self, id: TaskId, to: u32, here: u32) {
        self.kernel.dispatch_dequeue(id);
        self.kernel.task(id).set_cpu(to as i32);
        self.activate(id, here, 0);
    }

    /// `select_fallback_rq()`: a CPU that the task may be woken on, of the same node if there is one. Where there is none at
    /// all, the task loses its affinity.
    pub(super) fn select_fallback_rq(&mut self, id: TaskId, from: u32) -> u32 {
        let node = self.kernel.cpus[from as usize].node;
        let all = || 0..self.cpus.len() as u32;
        let is_near = |cpu: &u32| self.kernel.cpus[*cpu as usize].node == node;
        let is_allowed = |cpu: &u32| self.kernel.is_cpu_allowed(id, *cpu);
        let found = all().filter(is_near).find(is_allowed).or_else(|| all().find(is_allowed));
        if let Some(cpu) = found {
            return cpu;
        }
        let everywhere = Mask::of(self.cpus.len(), (0..self.cpus.len() as u32).map(CpuId));
        self.set_cpus_allowed(id, everywhere, from);
        let active = self.kernel.active.bits();
        active.next_and(active, from).unwrap_or(from)
    }

    /// The kernel sends a task away from a CPU on its way out, whose kicks arrive nowhere. It may be behind a slice of another
    /// one; else, at each tick of the CPU where it goes, an idle one is woken.
    pub(super) fn displaced(&mut self) {
        let until = &mut self.kernel.displaced_until;
        *until = self.now.max(*until) + self.slice_max_ns + self.scenario.hz.period_ns();
    }

    /// `balance_push()`: on a CPU on its way out whoever runs is sent away, unless it may not migrate.
    pub(super) fn balance_push(&mut self, cpu: u32) {
        if self.kernel.active.bits().has(cpu) {
            return;
        }
        if let Some(id) = self.kernel.cpus[cpu as usize].curr
            && self.kernel.task(id).migration_disabled() == 0
        {
            self.events.push(self.now, Kind::Stopper(cpu, id));
        }
    }

    /// A task waits that ran until now.
    pub(super) fn waits_again(&mut self, id: TaskId, cpu: u32) {
        let (now, taken_ns) = (self.now, self.taken_ns(cpu));
        let task = self.kernel.task(id);
        task.place = Place::Held;
        task.runnable_at = now;
        task.taken_before = taken_ns;
        task.woke = false;
    }
}

//! How CPUs choose what to run: `kernel/sched/core.c` and `ext.c`, with the order of callbacks that those have.

use super::{
    abi,
    dist::Rng,
    events::Kind,
    hotplug::Stage,
    kernel::Kernel,
    machine::Machine,
    task::{Place, QueueId, TaskId},
};

/// What is logged of a task.
const LOG_RUNS: u64 = 1;
pub(super) const LOG_STOPS: u64 = 2;

/// Further ahead than this nobody looks at when a task will be done.
const LOOK_AGAIN_NS: u64 = 50_000_000;

/// What a CPU does next.
enum Pick {
    /// Goes on with what it runs.
    Keep,
    /// The first of its local queue.
    Local(TaskId),
    /// Nothing is to be had.
    Nothing,
}

impl Machine<'_> {
    /// Has a CPU choose anew soon. `here` is the CPU that says so: another one gets an interrupt.
    pub(super) fn resched(&mut self, cpu: u32, here: u32) {
        let costs = &self.scenario.costs;
        let at = self.now + costs.resched + if cpu == here { 0 } else { costs.ipi };
        let resched_at = &mut self.cpus[cpu as usize].resched_at;
        if resched_at.is_none_or(|earlier| earlier > at) {
            *resched_at = Some(at);
            self.events.push(at, Kind::Resched(cpu));
        }
    }

    /// What a callback that ran on `here` left to be done.
    pub(super) fn after_callback(&mut self, here: u32) {
        if let Some(fault) = self.kernel.fault.take() {
            self.violated("kernel", fault);
        }
        if let Some((id, cpu)) = self.kernel.to_offline.take() {
            self.sent_offline(id, cpu);
        }
        while let Some(cpu) = self.kernel.rescheds.pop() {
            self.resched(cpu, here);
        }
        while let Some((number, cpu, delay_ns)) = self.kernel.started_timers.pop() {
            self.start_timer(number, cpu, delay_ns);
        }
        self.wake_process();
        if self.kernel.kicks.is_empty() {
            return;
        }
        for (cpu, flags) in std::mem::take(&mut self.kernel.kicks) {
            // From interrupt work of this CPU, even to itself. All of SCX_KICK_* fits.
            self.events.push(self.now + self.scenario.costs.ipi, Kind::Kick(cpu, flags as u32));
        }
    }

    /// `kick_one_cpu()`, `kick_one_cpu_if_idle()`.
    pub(super) fn kicked(&mut self, cpu: u32, flags: u64) {
        let curr = self.kernel.cpus[cpu as usize].curr;
        let is_taken = self.cpus[cpu as usize].taken > 0;
        // On its way out it chooses anew, but the scheduler, which does not know, is not asked. What was sent just before
        // it is told would leave an idle CPU marked as idle; in the kernel further steps on that CPU end this.
        let (is_leaving, is_told) = match self.cpus[cpu as usize].stage {
            Stage::Online | Stage::Dead(_) => (false, false),
            Stage::Draining(_) => (true, false),
            Stage::Emptying(since) => (false, self.now - since <= self.scenario.costs.ipi),
        };
        if is_taken || is_leaving || is_told {
            self.kernel.missed_at = Some(self.now);
        }
        if is_taken || is_told {
            return;
        }
        if flags & abi::SCX_KICK_IDLE != 0 && curr.is_some() {
            return;
        }
        if let (Some(id), true) = (curr, flags & abi::SCX_KICK_PREEMPT != 0) {
            self.kernel.task(id).set_slice(0);
        }
        self.resched(cpu, cpu);
    }

    /// `update_curr_scx()`: charges the running task.
    pub(super) fn update_curr(&mut self, cpu: u32) {
        let Some(id) = self.kernel.cpus[cpu as usize].curr else { return };
        let now = self.now;
        let task = self.kernel.task(id);
        let ran_ns = now - task.charged_at;
        task.charged_at = now;
        task.set_run_ns(task.run_ns() + ran_ns);
        task.set_slice(task.slice().saturating_sub(ran_ns));
        let actor = &mut self.actors[id.index()];
        actor.left_ns = actor.left_ns.saturating_sub(ran_ns);
        self.cpus[cpu as usize].run_ns += ran_ns;
        self.stats.groups[actor.group].run_ns += ran_ns;
    }

    /// `task_tick_scx()`.
    pub(super) fn tick(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].tick_at != Some(self.now) {
            return;
        }
        self.cpus[cpu as usize].tick_at = None;
        let Some(id) = self.kernel.cpus[cpu as usize].curr else { return };
        self.update_curr(cpu);
        self.by_its_clock(cpu, |kernel| kernel.tick(cpu, id));
        self.after_callback(cpu);
        self.arm_tick(cpu);
        if self.kernel.task(id).slice() == 0 {
            self.schedule(cpu, true);
        }
    }

    /// A callback on a CPU. Ticks of all CPUs are at one instant, which their clocks do not agree on.
    fn by_its_clock<T>(&mut self, cpu: u32, callback: impl FnOnce(&mut Kernel) -> T) -> T {
        let most_ns = self.scenario.costs.clock_skew;
        let behind_ns = Rng::new(self.now, cpu.into()).below(most_ns + 1);
        self.kernel.set_now(self.now.saturating_sub(behind_ns));
        let said = callback(&mut self.kernel);
        self.kernel.set_now(self.now);
        said
    }

    fn arm_tick(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].tick_at.is_none() {
            let period = self.scenario.hz.period_ns();
            let at = (self.now / period + 1) * period;
            self.cpus[cpu as usize].tick_at = Some(at);
            self.events.push(at, Kind::Tick(cpu));
        }
    }

    /// `dequeue_task_scx()` of the running task, which goes to sleep or dies.
    pub(super) fn dequeue_curr(&mut self, cpu: u32, id: TaskId, place: Place) {
        self.update_curr(cpu);
        let state = if place == Place::Dead { abi::TASK_DEAD } else { abi::TASK_INTERRUPTIBLE };
        let task = self.kernel.task(id);
        task.set_state(state);
        if place == Place::Dead {
            task.set_flags(task.flags() | abi::PF_EXITING);
        }
        self.log(LOG_STOPS, cpu, id);
        self.kernel.stopping(cpu, id, false);
        let task = self.kernel.task(id);
        task.set_scx_flags(task.scx_flags() & !abi::SCX_TASK_QUEUED);
        task.place = place;
        self.after_callback(cpu);
        self.schedule(cpu, false);
        self.switched_out(id, cpu);
    }

    /// `__schedule()`: the CPU chooses what it runs. `runnable`: what it runs could go on.
    pub(super) fn schedule(&mut self, cpu: u32, runnable: bool) {
        self.cpus[cpu as usize].resched_at = None;
        // A higher class goes on.
        if self.cpus[cpu as usize].taken > 0 {
            return;
        }
        let prev = self.kernel.cpus[cpu as usize].curr;
        if runnable {
            self.update_curr(cpu);
        }
        let pick = self.balance(cpu, prev, runnable && prev.is_some());
        if self.violation.is_some() {
            return;
        }
        // What dispatch put into the local queue needs nobody else to say so.
        self.cpus[cpu as usize].resched_at = None;
        match pick {
            Pick::Keep => {
                if let Some(id) = prev
                    && self.kernel.task(id).slice() == 0
                {
                    self.kernel.task(id).set_slice(abi::SCX_SLICE_DFL);
                }
            }
            Pick::Local(next) => {
                if let Some(id) = prev.filter(|&id| id != next) {
                    self.count_switch(id, runnable);
                }
                if let (Some(id), true) = (prev, runnable) {
                    self.put_prev(cpu, id, 0);
                }
                self.set_next(cpu, next);
                if let (Some(id), true) = (prev, runnable && prev != Some(next)) {
                    self.switched_out(id, cpu);
                }
            }
            Pick::Nothing => {
                if let Some(id) = prev {
                    self.count_switch(id, runnable);
                }
                if let (Some(id), true) = (prev, runnable) {
                    self.put_prev(cpu, id, abi::SCX_ENQ_LAST);
                }
                self.leave(cpu);
                if let (Some(id), true) = (prev, runnable) {
                    self.switched_out(id, cpu);
                }
            }
        }
        self.balance_push(cpu);
        self.show_switch(cpu);
    }

    /// A task leaves its CPU to another one, or to nobody; `taken`: it could go on.
    pub(super) fn count_switch(&mut self, id: TaskId, taken: bool) {
        let task = self.kernel.task(id);
        if taken {
            task.set_involuntary_switches(task.involuntary_switches() + 1);
        } else {
            task.set_voluntary_switches(task.voluntary_switches() + 1);
        }
    }

    /// `balance_one()`.
    fn balance(&mut self, cpu: u32, prev: Option<TaskId>, runnable: bool) -> Pick {
        let keeps = |machine: &mut Self| {
            runnable && prev.is_some_and(|id| machine.kernel.task(id).slice() > 0)
        };
        if std::mem::take(&mut self.kernel.cpus[cpu as usize].released) {
            self.kernel.cpu_acquire(cpu);
            self.after_callback(cpu);
        }
        if keeps(self) {
            return Pick::Keep;
        }
        if let Some((_, id)) = self.kernel.cpus[cpu as usize].local.first() {
            return Pick::Local(id);
        }
        self.kernel.cpus[cpu as usize].in_balance = true;
        let mut pick = Pick::Nothing;
        let mut loops = abi::SCX_DSP_MAX_LOOPS;
        loop {
            let online = self.kernel.cpus[cpu as usize].online;
            let moved = if self.kernel.consume_global_dsq(cpu) || !online {
                0
            } else {
                let moved = self.by_its_clock(cpu, |kernel| kernel.dispatch(cpu, prev));
                self.after_callback(cpu);
                moved
            };
            if keeps(self) {
                pick = Pick::Keep;
                break;
            }
            if let Some((_, id)) = self.kernel.cpus[cpu as usize].local.first() {
                pick = Pick::Local(id);
                break;
            }
            loops -= 1;
            if moved == 0 || self.violation.is_some() {
                break;
            }
            if loops == 0 {
                self.kernel.kicks.push((cpu, 0));
                self.after_callback(cpu);
                break;
            }
        }
        self.kernel.cpus[cpu as usize].in_balance = false;
        pick
    }

    /// `put_prev_task_scx()`: the running task stays runnable, and another one or nothing follows it.
    fn put_prev(&mut self, cpu: u32, id: TaskId, enq_flags: u64) {
        self.log(LOG_STOPS, cpu, id);
        self.kernel.stopping(cpu, id, true);
        self.waits_again(id, cpu);
        self.do_enqueue(id, cpu, enq_flags);
    }

    /// `set_next_task_scx()`.
    fn set_next(&mut self, cpu: u32, id: TaskId) {
        let task = &self.kernel.tasks[id.index()];
        if !task.may_run(cpu) && !task.migration_pending {
            let pid = self.kernel.task(id).pid();
            self.violated("affinity", format!("task {pid} runs on CPU {cpu}"));
            return;
        }
        self.note_idle_beside(id, cpu);
        self.end_idle(cpu);
        self.kernel.dispatch_dequeue(id);
        let now = self.now;
        let task = self.kernel.task(id);
        task.place = Place::Running;
        task.set_cpu(cpu as i32);
        task.charged_at = now;
        if task.slice() == 0 {
            task.set_slice(abi::SCX_SLICE_DFL);
        }
        let (waited_ns, woke) = (now - task.runnable_at, task.woke);
        self.kernel.cpus[cpu as usize].curr = Some(id);
        self.log(LOG_RUNS, cpu, id);
        self.kernel.running(cpu, id);
        self.after_callback(cpu);

        let cost_ns = self.scenario.costs.switch + self.move_cost(cpu, id);
        let actor = &mut self.actors[id.index()];
        actor.left_ns += cost_ns;
        let group = &mut self.stats.groups[actor.group];
        group.migrations += u64::from(actor.ran_on.is_some_and(|last| last != cpu));
        actor.ran_on = Some(cpu);
        group.wait.add(waited_ns);
        if woke {
            group.wakeup.add(waited_ns);
        }
        self.stats.machine.switches += 1;
        self.arm_tick(cpu);
        self.cpus[cpu as usize].run = self.cpus[cpu as usize].run.wrapping_add(1);
        self.expect_done(cpu, id);
    }

    /// Puts down when the running task has done what it has to do, or to look again: most are put off before they get far, and
    /// what was put down for a run that is over stays until its time.
    pub(super) fn expect_done(&mut self, cpu: u32, id: TaskId) {
        let at = self.now + self.actors[id.index()].left_ns.min(LOOK_AGAIN_NS);
        self.events.push(at, Kind::Done(cpu, self.cpus[cpu as usize].run));
    }

    fn move_cost(&self, cpu: u32, id: TaskId) -> u64 {
        let Some(last) = self.actors[id.index()].ran_on else { return 0 };
        let places = &self.scenario.topology.places;
        let (from, to) = (&places[last as usize], &places[cpu as usize]);
        let costs = &self.scenario.costs;
        match () {
            () if last == cpu => 0,
            () if from.node != to.node => costs.migrate_node,
            () if from.llc != to.llc => costs.migrate_llc,
            () => costs.migrate,
        }
    }

    /// Nothing to run: the CPU is about to be idle, or stays so.
    fn leave(&mut self, cpu: u32) {
        let state = &mut self.cpus[cpu as usize];
        state.run = state.run.wrapping_add(1);
        if state.idle_at.is_some() {
            // pick_task_idle(): its mark may have been claimed meanwhile.
            self.kernel.idle.update(cpu, true);
            return;
        }
        let at = self.now + self.scenario.costs.go_idle;
        state.idle_at = Some(self.now);
        state.locked_until = at;
        self.kernel.cpus[cpu as usize].curr = None;
        self.events.push(at, Kind::Idle(cpu));
    }

    /// For how long a CPU that the task may use has been idle while it waited: the one that takes it now, or the one that
    /// has been idle for longest.
    fn note_idle_beside(&mut self, id: TaskId, cpu: u32) {
        let task = &self.kernel.tasks[id.index()];
        let runnable_at = task.runnable_at.max(task.movable_at);
        let since = |cpu: u32| self.cpus[cpu as usize].idle_at.map(|at| at.max(runnable_at));
        let idle = self.kernel.idle.cpus.bits();
        let others = idle.both(task.bits()).filter(|&cpu| self.kernel.cpus[cpu as usize].online);
        if let Some(since) = since(cpu).or_else(|| others.filter_map(since).min()) {
            self.stats.machine.idle_beside.add(self.now.saturating_sub(since));
        }
    }

    /// Adds up the time that a CPU was idle. True: it was.
    pub(super) fn account_idle(&mut self, cpu: u32) -> bool {
        let since = self.cpus[cpu as usize].idle_at.take();
        self.cpus[cpu as usize].idle_ns += since.map_or(0, |since| self.now - since);
        since.is_some()
    }

    /// `put_prev_task_idle()`, if the CPU was idle.
    pub(super) fn end_idle(&mut self, cpu: u32) {
        if self.account_idle(cpu) {
            self.kernel.idle.update(cpu, false);
            self.kernel.update_idle(cpu, false);
            self.after_callback(cpu);
        }
    }

    /// `set_next_task_idle()`.
    pub(super) fn become_idle(&mut self, cpu: u32) {
        self.kernel.idle.update(cpu, true);
        self.kernel.update_idle(cpu, true);
        self.after_callback(cpu);
    }

    /// `do_enqueue_task()`. `here` is where that runs.
    pub(super) fn do_enqueue(&mut self, id: TaskId, here: u32, enq_flags: u64) {
        let home = self.kernel.task(id).cpu() as u32;
        if !self.kernel.cpus[home as usize].online {
            // The scheduler is not asked about a CPU on its way out.
            let task = self.kernel.task(id);
            task.direct = None;
            task.set_slice(abi::SCX_SLICE_DFL);
            self.kernel.dispatch_enqueue(id, QueueId::Local(home), enq_flags, false);
            return self.after_callback(here);
        }
        if self.kernel.task(id).direct.is_none() {
            self.kernel.enqueue(here, id, enq_flags);
        }
        let task = self.kernel.task(id);
        if let Some(insertion) = task.direct.take() {
            self.kernel.insert(id, insertion, enq_flags, home);
        }
        self.after_callback(here);
    }
}

//! How tasks live: born, woken, at work, asleep, gone.

use super::{
    abi,
    actor::Step,
    events::Kind,
    machine::{Machine, OF_SCENARIO},
    scenario::TASKS_MAX,
    task::{Place, TaskId},
};

/// Steps that a task takes at one instant at most, before that counts as a nanosecond of work.
const STEPS_MAX: u32 = 1000;

impl Machine<'_> {
    /// The sleep of a task ends, or its life begins.
    pub(super) fn timer(&mut self, id: TaskId) {
        match self.actors[id.index()].ran_on {
            // Where the timer was armed.
            Some(cpu) => self.wake(id, self.alive(cpu), abi::SCX_WAKE_TTWU),
            None => self.be_born(id, self.alive(id.0 % self.cpus.len() as u32)),
        }
    }

    /// `sched_fork()` to `wake_up_new_task()`, by a parent on a CPU.
    pub(super) fn be_born(&mut self, id: TaskId, parent: u32) {
        let task = self.kernel.task(id);
        // set_task_cpu() of whoever it is copied from, where that is allowed.
        let cpu = task.bits().next_and(task.bits(), parent).unwrap_or(parent);
        task.set_cpu(cpu as i32);
        let error = self.kernel.init_task(parent, id);
        if error != 0 {
            self.kernel.eject(format!("ops.init_task() failed: {error}"));
        }
        self.kernel.enable(parent, id);
        self.after_callback(parent);
        self.place_and_activate(id, parent, abi::SCX_WAKE_FORK, 0);
    }

    /// `try_to_wake_up()` on CPU `here`, with `SCX_WAKE_*`.
    pub(super) fn wake(&mut self, id: TaskId, here: u32, wake_flags: u64) {
        self.place_and_activate(id, here, wake_flags, abi::SCX_ENQ_WAKEUP);
    }

    /// `select_task_rq()`, and on to the runqueue of the CPU that it answers.
    fn place_and_activate(&mut self, id: TaskId, here: u32, wake_flags: u64, enq_flags: u64) {
        let mut flags = enq_flags;
        let prev = self.kernel.task(id).cpu();
        self.waits_again(id, prev as u32);
        let task = self.kernel.task(id);
        task.set_state(abi::TASK_RUNNING);
        task.woke = true;
        let mut cpu = prev as u32;
        if task.nr_allowed() > 1 && task.migration_disabled() == 0 {
            flags |= abi::SCX_ENQ_CPU_SELECTED;
            let answer = self.kernel.select_cpu(here, id, prev, wake_flags).unwrap_or(prev);
            self.after_callback(here);
            if answer < 0 || answer as usize >= self.cpus.len() {
                return self
                    .violated("kernel", format!("invalid CPU {answer} from ops.select_cpu()"));
            }
            cpu = answer as u32;
        }
        if !self.kernel.is_cpu_allowed(id, cpu) {
            if !self.kernel.active.bits().has(cpu) {
                self.displaced();
            }
            cpu = self.select_fallback_rq(id, cpu);
        }
        self.kernel.task(id).set_cpu(cpu as i32);
        self.show_waking(here, id);
        let until = self.cpus[cpu as usize].locked_until;
        // The flags of a wakeup are in the lower half.
        if until > self.now {
            return self.events.push(until, Kind::Activate(id, flags as u32));
        }
        self.activate(id, here, flags);
    }

    /// `ttwu_do_activate()`.
    pub(super) fn activate(&mut self, id: TaskId, here: u32, enq_flags: u64) {
        let mut cpu = self.kernel.task(id).cpu() as u32;
        if !self.kernel.is_cpu_allowed(id, cpu) {
            // Its affinity has changed on the way.
            cpu = self.select_fallback_rq(id, cpu);
        }
        let task = self.kernel.task(id);
        task.set_cpu(cpu as i32);
        task.set_scx_flags(task.scx_flags() | abi::SCX_TASK_QUEUED);
        self.do_enqueue(id, here, enq_flags);
        // wakeup_preempt(): any task is above the idle one.
        if self.kernel.cpus[cpu as usize].curr.is_none() {
            self.resched(cpu, here);
        }
    }

    /// The running task of a CPU has done the work of its phase.
    pub(super) fn work_done(&mut self, cpu: u32) {
        let Some(id) = self.kernel.cpus[cpu as usize].curr else { return };
        self.update_curr(cpu);
        if self.actors[id.index()].left_ns > 0 {
            return self.expect_done(cpu, id);
        }
        for _ in 0..STEPS_MAX {
            let (step, ended) = self.actors[id.index()].step(self.scenario, self.now);
            let group = self.actors[id.index()].group;
            if let Some(late) = ended {
                self.stats.groups[group].periods += 1;
                self.stats.groups[group].missed += u64::from(late);
            }
            match step {
                Step::Run if self.actors[id.index()].left_ns == 0 => {}
                Step::Run => return self.expect_done(cpu, id),
                Step::SleepUntil(at) => {
                    self.events.push(at, Kind::Timer(id));
                    return self.dequeue_curr(cpu, id, Place::Asleep);
                }
                Step::Wait => return self.dequeue_curr(cpu, id, Place::Asleep),
                Step::Yield => {
                    self.kernel.yields(cpu, id);
                    self.after_callback(cpu);
                    self.actors[id.index()].left_ns += 1;
                    self.expect_done(cpu, id);
                    return self.schedule(cpu, true);
                }
                Step::Wake { group, sync } => self.wake_other(cpu, id, group, sync),
                Step::Fork { group } => self.fork(cpu, group),
                Step::Migrate(false) => {
                    let now = self.now;
                    let task = self.kernel.task(id);
                    task.set_migration_disabled(1);
                    task.movable_at = now;
                }
                Step::Migrate(true) => self.migrate_enable(id, cpu),
                Step::Rcu(begins) => {
                    let now = self.now;
                    let task = self.kernel.task(id);
                    task.set_rcu_nesting(begins.into());
                    task.reads_at = now;
                }
                Step::Lock(lock) => {
                    let lock = &mut self.locks[lock];
                    if lock.held {
                        lock.waiting.push_back(id);
                        return self.dequeue_curr(cpu, id, Place::Asleep);
                    }
                    lock.held = true;
                }
                Step::Unlock(lock) => self.unlock(cpu, lock),
                Step::Await { condition, mutex } => {
                    self.conditions[condition].push_back((id, mutex));
                    mutex.into_iter().for_each(|lock| self.unlock(cpu, lock));
                    return self.dequeue_curr(cpu, id, Place::Asleep);
                }
                Step::Signal { condition, all } => self.signal(cpu, condition, all),
                Step::Affinity(cpus) => self.set_affinity(id, &cpus),
                Step::Nice(nice) => self.renice(id, nice),
                Step::Exit => return self.die(cpu, id),
            }
            if self.violation.is_some() {
                return;
            }
        }
        self.actors[id.index()].left_ns += 1;
        self.expect_done(cpu, id);
    }

    fn unlock(&mut self, cpu: u32, lock: usize) {
        let lock = &mut self.locks[lock];
        match lock.waiting.pop_front() {
            Some(next) => self.wake(next, cpu, abi::SCX_WAKE_TTWU),
            None => lock.held = false,
        }
    }

    /// `pthread_cond_signal()`: who is woken has the mutex first.
    fn signal(&mut self, cpu: u32, condition: usize, all: bool) {
        let waiting = &mut self.conditions[condition];
        let nr = if all { waiting.len() } else { waiting.len().min(1) };
        let woken: Vec<_> = waiting.drain(..nr).collect();
        for (id, mutex) in woken {
            match mutex.map(|lock| &mut self.locks[lock]) {
                Some(lock) if lock.held => lock.waiting.push_back(id),
                mutex => {
                    mutex.into_iter().for_each(|lock| lock.held = true);
                    self.wake(id, cpu, abi::SCX_WAKE_TTWU);
                }
            }
        }
    }

    fn wake_other(&mut self, cpu: u32, waker: TaskId, group: usize, sync: bool) {
        // Tasks that start by themselves are numbered group by group.
        let before: u32 = self.scenario.group[..group].iter().map(|group| group.tasks).sum();
        let number = self.actors[waker.index()].number as u32 % self.scenario.group[group].tasks;
        let id = TaskId(before + number);
        let actor = &mut self.actors[id.index()];
        if !actor.waits {
            actor.tokens += 1;
            return;
        }
        actor.waits = false;
        let flags = if sync { abi::SCX_WAKE_SYNC } else { 0 };
        self.wake(id, cpu, abi::SCX_WAKE_TTWU | flags);
    }

    fn fork(&mut self, cpu: u32, group: usize) {
        if self.actors.len() >= TASKS_MAX {
            return self.violated(OF_SCENARIO, format!("more than {TASKS_MAX} tasks were forked"));
        }
        let number = self.stats.groups[group].tasks as usize;
        let id = self.create(group, number);
        self.be_born(id, cpu);
    }

    fn die(&mut self, cpu: u32, id: TaskId) {
        self.dequeue_curr(cpu, id, Place::Dead);
        self.kernel.exit_task(cpu, id);
        self.after_callback(cpu);
    }
}

//! CPUs that go offline and come back: `sched_cpu_deactivate()`, `sched_cpu_wait_empty()` and `sched_cpu_activate()` of
//! `kernel/sched/core.c`, and what `ext.c` does there.

use super::{abi, events::Kind, machine::Machine, task::TaskId};

/// What is logged of a CPU.
const LOG_OFFLINE: u64 = 4;
const LOG_ONLINE: u64 = 5;
/// Ticks that a grace period of RCU takes where nobody holds it up.
const GRACE_TICKS: u64 = 3;
/// A CPU that waits this long for its tasks to leave waits for ever: seconds are felt by whoever takes it offline.
const EMPTY_MAX_NS: u64 = 1_000_000_000;

/// How far a CPU is on its way.
#[derive(Debug, Clone, Default)]
pub enum Stage {
    /// It schedules.
    #[default]
    Online,
    /// New tasks are kept away. It waits for those who read under RCU, each with since when.
    Draining(Vec<(TaskId, u64)>),
    /// The scheduler has been told, and since then it waits for its tasks to leave.
    Emptying(u64),
    /// It is gone, since then.
    Dead(u64),
}

impl Machine<'_> {
    /// Takes a CPU offline, if it is not under way already and not the last. It comes back at `back_at`, or as soon
    /// after that as it is gone.
    pub(super) fn take_offline(&mut self, cpu: u32, back_at: Option<u64>) {
        let is_last = self.kernel.active.bits().count() == 1;
        if is_last || !matches!(self.cpus[cpu as usize].stage, Stage::Online) {
            return;
        }
        self.log(LOG_OFFLINE, cpu, TaskId(u32::MAX));
        self.cpus[cpu as usize].back_at = back_at;
        self.kernel.active.bits().clear(cpu);
        self.kernel.cpus[cpu as usize].online = false;
        let readers = self.kernel.tasks.iter().zip(0..).filter(|(task, _)| task.rcu_nesting() > 0);
        let readers = readers.map(|(task, id)| (TaskId(id), task.reads_at)).collect();
        self.cpus[cpu as usize].stage = Stage::Draining(readers);
        self.thread_sleeps(cpu);
        self.balance_push(cpu);
        let grace_ns = GRACE_TICKS * self.scenario.hz.period_ns();
        self.events.push(self.now + grace_ns, Kind::Hotplug(cpu));
    }

    /// The next step of a CPU that is on its way out or back.
    pub(super) fn hotplug(&mut self, cpu: u32) {
        let now = self.now;
        let mut next = now + self.scenario.hz.period_ns();
        match self.cpus[cpu as usize].stage.clone() {
            Stage::Online => return,
            Stage::Draining(readers) => {
                let still = |&(id, since): &(TaskId, u64)| {
                    let task = &self.kernel.tasks[id.index()];
                    task.rcu_nesting() > 0 && task.reads_at == since
                };
                if !readers.iter().any(still) {
                    // A thread on that CPU tells the scheduler, and sleeps then.
                    self.cpus[cpu as usize].stage = Stage::Emptying(now);
                    self.end_idle(cpu);
                    self.kernel.hotplug(cpu, false);
                    self.after_callback(cpu);
                    self.thread_sleeps(cpu);
                }
            }
            Stage::Emptying(since) => match self.who_stays(cpu) {
                None if self.cpus[cpu as usize].taken > 0 => {}
                None => {
                    // Its mark of idleness stays, as in the kernel.
                    self.account_idle(cpu);
                    self.kernel.online.bits().clear(cpu);
                    self.cpus[cpu as usize].stage = Stage::Dead(now);
                    let Some(back_at) = self.cpus[cpu as usize].back_at else { return };
                    next = back_at.max(now);
                }
                Some(id) => {
                    let task = &self.kernel.tasks[id.index()];
                    if now - since > EMPTY_MAX_NS && task.migration_disabled() == 0 {
                        let (pid, place) = (task.pid(), task.place);
                        let what = format!(
                            "CPU {cpu} cannot go offline: task {pid} stays on it, {place:?}"
                        );
                        return self.violated("hotplug", what);
                    }
                }
            },
            Stage::Dead(since) => return self.come_online(cpu, now - since),
        }
        self.events.push(next, Kind::Hotplug(cpu));
    }

    /// The thread on that CPU which takes it offline has done a step, and sleeps.
    fn thread_sleeps(&mut self, cpu: u32) {
        self.end_idle(cpu);
        match self.kernel.cpus[cpu as usize].curr {
            None => self.schedule(cpu, false),
            Some(_) => self.resched(cpu, cpu),
        }
    }

    /// A task that keeps the runqueue of a CPU from being empty.
    fn who_stays(&self, cpu: u32) -> Option<TaskId> {
        let stays = |id: &TaskId| {
            let task = &self.kernel.tasks[id.index()];
            let is_queued = task.scx_flags() & abi::SCX_TASK_QUEUED != 0;
            task.cpu() == cpu as i32 && (is_queued || task.migration_disabled() > 0)
        };
        (0..self.kernel.tasks.len() as u32).map(TaskId).find(stays)
    }

    fn come_online(&mut self, cpu: u32, offline_ns: u64) {
        self.log(LOG_ONLINE, cpu, TaskId(u32::MAX));
        let state = &mut self.cpus[cpu as usize];
        state.offline_ns += offline_ns;
        state.stage = Stage::Online;
        self.kernel.online.bits().set(cpu);
        self.kernel.active.bits().set(cpu);
        self.kernel.hotplug(cpu, true);
        self.kernel.cpus[cpu as usize].online = true;
        self.after_callback(cpu);
        self.schedule(cpu, false);
    }

    /// The scheduler has sent a task to a CPU that it does not have: a fault once it was told.
    pub(super) fn sent_offline(&mut self, id: TaskId, cpu: u32) {
        if matches!(self.cpus[cpu as usize].stage, Stage::Emptying(_) | Stage::Dead(_)) {
            let pid = self.kernel.task(id).pid();
            self.violated("hotplug", format!("task {pid} is sent to CPU {cpu}, which is offline"));
        } else {
            // It could not know, and the kernel, which puts the task into the global queue, wakes nobody.
            self.kernel.missed_at = Some(self.now);
        }
    }

    /// Whether a CPU runs anything at all.
    pub(super) fn is_dead(&self, cpu: u32) -> bool {
        matches!(self.cpus[cpu as usize].stage, Stage::Dead(_))
    }

    /// Where something happens that would on this CPU: timers and births move on from one that is gone.
    pub(super) fn alive(&self, cpu: u32) -> u32 {
        let active = self.kernel.active.bits();
        if active.has(cpu) { cpu } else { active.next_and(active, cpu).unwrap_or(cpu) }
    }
}

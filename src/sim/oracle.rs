//! What a scheduler must not do, whatever the scenario. The engine has more: affinity where a task starts to run, and
//! whatever the kernel ejects for.

use super::{
    actor::Actor,
    kernel::Kernel,
    machine::Cpu,
    scenario::{Group, Scenario},
    stats::Stats,
    task::{Place, QueueId, TaskId},
};
use crate::{
    bpf::intf,
    settings::{Relayed, Tuning},
};

/// Which oracle, and what it saw.
pub type Finding = (&'static str, String);

/// A CPU may be idle beside a task that it may run for a tick, at which a busy CPU looks for such ones, and this: the way
/// of an interrupt, there and back.
const IDLE_SLACK_NS: u64 = 500_000;
/// Tasks are looked at for starvation this often.
const STARVED_EVERY_NS: u64 = 100_000_000;
/// A task may wait this much longer than its turn by weight takes: what the clocks of its queue owe to others, twice.
const STARVED_SLACK_NS: u64 = 200_000_000;
/// Turns by weight that a task may wait for.
const STARVED_TURNS: u64 = 4;
/// And more of them for a reader under RCU: the slice out of turn that it was rescued with, and the tick that ends it.
const READER_TURNS: u64 = 2;
/// After this the kernel ejects a scheduler for a stall of RCU.
const RCU_STALL_NS: u64 = 21_000_000_000;
/// Shares are judged from this much time on, for each CPU: the error of a start is a hundredth of that.
const SHARE_MIN_NS: u64 = 10_000_000_000;
/// Whoever starts after this part of a run was not there from its begin.
const START_PART: u64 = 200;
/// Shares may be off by this much, in thousandths of what is due,
const SHARE_ERROR: u64 = 10;
/// and by this of all CPUs: whoever waited for 5 s goes first, for a tick.
const SHARE_RESCUES: u64 = 1;

/// The period of the timer beneath a policy in user space is its grace period, within these: `relay.h`.
const TIMER_MIN_NS: u64 = 1_000_000;
const TIMER_MAX_NS: u64 = 10_000_000;

/// The oracles of a run.
pub struct Oracle {
    tick_ns: u64,
    timeout_ns: u64,
    slice_max_ns: u64,
    /// How long a CPU may wait for a policy in user space.
    policy_ns: u64,
    /// Groups of tasks that never sleep, where all may run everywhere and all CPUs share one queue.
    judged: bool,
    hogs: Vec<bool>,
    free: bool,
    starved_at: u64,
    /// Up to then kicks that were lost had not been made up for.
    unsettled_until: u64,
}

impl Oracle {
    /// Those for a scenario. `timeout_ns`: after that the kernel ejects for a stall.
    pub fn new(scenario: &Scenario, timeout_ns: u64, tuning: Tuning) -> Self {
        // What is due changes with a weight, and with who is there. Whoever sleeps gets what it asks for.
        let begins =
            |group: &Group| !group.is_hog() || group.start.mean() <= scenario.duration / START_PART;
        let free = scenario.event.is_empty()
            && scenario.group.iter().all(|group| group.cpus.is_none() && begins(group));
        Self {
            tick_ns: scenario.hz.period_ns(),
            timeout_ns,
            slice_max_ns: tuning.slice_max.0,
            policy_ns: 0,
            judged: free && scenario.topology.llcs.len() == 1 && scenario.duration >= SHARE_MIN_NS,
            hogs: scenario.group.iter().map(|group| group.is_hog()).collect(),
            free,
            starved_at: 0,
            unsettled_until: 0,
        }
    }

    /// A policy in user space decides. The base beneath it has a CPU wait for the grace period, and the one that looks for
    /// such a CPU is a timer of about that period (`relay.h`), which may just miss it. Slices are the policy's then, and
    /// shares its business.
    pub fn relayed(&mut self, relayed: Option<&Relayed>) {
        let Some(relayed) = relayed else { return };
        let timer_ns = relayed.grace.0.clamp(TIMER_MIN_NS, TIMER_MAX_NS);
        self.policy_ns = relayed.grace.0 + 2 * timer_ns;
        self.slice_max_ns = self.slice_max_ns.max(u64::from(intf::DECIDED_SLICE_MAX_US) * 1000);
        self.judged = false;
    }

    /// Looks at the machine, once a tick.
    pub(super) fn watch(&mut self, kernel: &Kernel, cpus: &[Cpu], now: u64) -> Option<Finding> {
        if now - self.starved_at >= STARVED_EVERY_NS {
            self.starved_at = now;
            if let Some(finding) = self.starvation(kernel, cpus, now) {
                return Some(finding);
            }
        }
        self.work_conservation(kernel, cpus, now)
    }

    fn work_conservation(&mut self, kernel: &Kernel, cpus: &[Cpu], now: u64) -> Option<Finding> {
        let limit = self.tick_ns + IDLE_SLACK_NS + self.policy_ns;
        let is_long = |since: u64| now - since > limit;
        if !cpus.iter().any(|cpu| cpu.idle_at.is_some_and(is_long)) {
            return None;
        }
        // Who waits since before a kick was lost takes the next one, from others who wait for that.
        let waiting =
            || kernel.queues().flat_map(|dsq| dsq.iter()).map(|id| &kernel.tasks[id.index()]);
        if kernel.missed_at.is_some_and(|at| waiting().any(|task| task.runnable_at <= at)) {
            self.unsettled_until = now;
        }
        let excused_until = self.unsettled_until.max(kernel.displaced_until);
        let serves = |cpu: u32| kernel.cpus[cpu as usize].online;
        for task in waiting() {
            let since = task.runnable_at.max(task.movable_at).max(excused_until);
            if now <= since || !is_long(since) {
                continue;
            }
            let is_theirs = |cpu: u32| match task.place {
                // On its way to a CPU that a higher class has taken since, or to one that is on its way out.
                Place::Queued(QueueId::Local(to), _) => {
                    let state = &cpus[to as usize];
                    state.taken > 0 || state.taken_ns > task.taken_before || !serves(to)
                }
                // Where readers under RCU go; the kernel has one a node, for the CPUs of that.
                Place::Queued(QueueId::Global(node), _) if task.rcu_nesting() > 0 => {
                    kernel.cpus[cpu as usize].node != node
                }
                // By the decision of a policy in user space it is for one CPU and no other.
                Place::Queued(queue, _) => Kernel::decided_for(queue).is_some_and(|its| its != cpu),
                _ => false,
            };
            let idle = (0..).zip(cpus).find(|&(cpu, state)| {
                let is_idle = state.idle_at.is_some_and(is_long) && serves(cpu);
                is_idle && task.may_run(cpu) && !is_theirs(cpu)
            });
            if let Some((cpu, state)) = idle {
                let pid = task.pid();
                let (waits, idles) = (now - since, now - state.idle_at.unwrap_or(now));
                let what = format!(
                    "task {pid} waits for {} us in {:?} while CPU {cpu}, where it may run, is idle for {} us",
                    waits / 1000,
                    task.place,
                    idles / 1000
                );
                return Some(("work conservation", what));
            }
        }
        None
    }

    fn starvation(&self, kernel: &Kernel, cpus: &[Cpu], now: u64) -> Option<Finding> {
        let nr_cpus = kernel.cpus.len() as u64;
        let is_waiting = |place: Place| matches!(place, Place::Queued(..) | Place::Held);
        let runnable =
            kernel.tasks.iter().filter(|t| is_waiting(t.place) || t.place == Place::Running);
        let (nr, weights) =
            runnable.fold((0, 0), |(nr, sum), t| (nr + 1, sum + u64::from(t.weight().0)));
        if let Some(reader) = kernel
            .tasks
            .iter()
            .find(|task| task.rcu_nesting() > 0 && now - task.reads_at > RCU_STALL_NS)
        {
            let (pid, since) = (reader.pid(), (now - reader.reads_at) / 1_000_000);
            return Some(("kernel", format!("RCU stall: task {pid} reads for {since} ms")));
        }
        let turn_ns = self.slice_max_ns.max(self.tick_ns);
        for task in kernel.tasks.iter().filter(|task| is_waiting(task.place)) {
            let waited = now - task.runnable_at;
            let pid = task.pid();
            if waited > self.timeout_ns {
                let what =
                    format!("runnable task {pid} stalls: not run for {} ms", waited / 1_000_000);
                return Some(("kernel", what));
            }
            // With part of the CPUs, it may be among all the others there.
            let mine = if self.free && task.migration_disabled() == 0 { nr_cpus } else { 1 };
            let turns = weights / (mine * u64::from(task.weight().0.max(1))) + nr / mine + 1;
            // Nor is it the scheduler who takes what higher classes have of its CPU.
            let taken_ns =
                cpus[task.cpu() as usize].taken_until(now).saturating_sub(task.taken_before);
            // However many there are, each gets a tick, the shortest that there is.
            let round_ns = 2 * self.tick_ns * (nr / mine + 1);
            // Who reads under RCU goes before others where it has to, and works that off: see rescue.h.
            let early = if task.reads_at > 0 { READER_TURNS } else { 0 };
            let limit = (STARVED_SLACK_NS + (STARVED_TURNS + early) * turn_ns * turns)
                .min(round_ns.max(self.timeout_ns / 2))
                + taken_ns;
            if waited > limit {
                let what = format!(
                    "task {pid} of weight {} waits for {} ms among {nr}; {} ms at most are its turn",
                    task.weight().0,
                    waited / 1_000_000,
                    limit / 1_000_000
                );
                return Some(("starvation", what));
            }
        }
        None
    }

    /// What each group was due by weight: as water flows, no task beyond one CPU, those that sleep not beyond what they
    /// ran for.
    pub(super) fn add_due(&self, kernel: &Kernel, actors: &[Actor], stats: &mut Stats) {
        if !self.free || stats.groups.iter().zip(&self.hogs).any(|(g, hog)| *hog && g.tasks == 0) {
            return;
        }
        let cpus = kernel.cpus.len() as u64;
        let one = stats.machine.cpu_ns / cpus;
        // A hog's weight and group; whoever sleeps has got what it asked for.
        let mut left: Vec<(u64, usize)> = actors
            .iter()
            .zip(&kernel.tasks)
            .filter(|(actor, _)| self.hogs[actor.group])
            .map(|(actor, task)| (u64::from(task.weight().0), actor.group))
            .collect();
        let mut due: Vec<u64> = stats
            .groups
            .iter()
            .zip(&self.hogs)
            .map(|(g, hog)| if *hog { 0 } else { g.run_ns })
            .collect();
        let mut room = stats.machine.cpu_ns.saturating_sub(due.iter().sum());
        // The heaviest first: whoever is due more than a CPU gets one.
        left.sort_unstable_by(|a, b| b.cmp(a));
        let mut weights: u64 = left.iter().map(|(weight, _)| weight).sum();
        for (weight, group) in left {
            let fair = (u128::from(room) * u128::from(weight) / u128::from(weights.max(1))) as u64;
            let got = fair.min(one);
            due[group] += got;
            room -= got;
            weights -= weight;
        }
        for (group, due) in stats.groups.iter_mut().zip(due) {
            group.due_ns = Some(due);
        }
    }

    /// Looks at the whole of a run.
    pub(super) fn at_end(
        &self,
        kernel: &Kernel,
        cpus: &[Cpu],
        actors: &[Actor],
        stats: &Stats,
        now: u64,
    ) -> Option<Finding> {
        for (number, cpu) in cpus.iter().enumerate() {
            if cpu.run_ns + cpu.idle_ns + cpu.taken_ns + cpu.offline_ns != now {
                let what = format!(
                    "CPU {number} ran for {} ns, idled for {} ns, was taken for {} ns and offline for {} ns of {now} ns",
                    cpu.run_ns, cpu.idle_ns, cpu.taken_ns, cpu.offline_ns
                );
                return Some(("accounting", what));
            }
        }
        let charged: u64 = kernel.tasks.iter().map(|task| task.run_ns()).sum();
        if charged != stats.machine.run_ns {
            let what = format!("tasks ran for {charged} ns, CPUs for {} ns", stats.machine.run_ns);
            return Some(("accounting", what));
        }
        self.tasks_and_cpus(kernel, actors).or_else(|| self.shares(stats))
    }

    /// Every running task has one CPU, and that has it.
    fn tasks_and_cpus(&self, kernel: &Kernel, actors: &[Actor]) -> Option<Finding> {
        for id in (0..actors.len() as u32).map(TaskId) {
            let task = &kernel.tasks[id.index()];
            let runs = task.place == Place::Running;
            let has =
                usize::try_from(task.cpu()).is_ok_and(|cpu| kernel.cpus[cpu].curr == Some(id));
            if runs != has {
                let what = format!("task {} is {:?} on CPU {}", task.pid(), task.place, task.cpu());
                return Some(("accounting", what));
            }
        }
        None
    }

    fn shares(&self, stats: &Stats) -> Option<Finding> {
        if !self.judged {
            return None;
        }
        let all = stats.groups.iter().zip(&self.hogs).enumerate();
        for (number, (group, _)) in all.filter(|(_, (_, hog))| **hog) {
            let due = group.due_ns?;
            let most = due * SHARE_ERROR + stats.machine.cpu_ns * SHARE_RESCUES;
            if group.run_ns.abs_diff(due) * 1000 > most {
                let what = format!(
                    "group number {number} ran for {} ms, due by weight are {} ms",
                    group.run_ns / 1_000_000,
                    due / 1_000_000
                );
                return Some(("shares", what));
            }
        }
        None
    }
}

//! The simulated machine: time, and what happens in it. How CPUs choose is in `sched`, how tasks live in `life`.

use super::{
    abi,
    actor::Actor,
    dist::Rng,
    events::{Events, Kind},
    hotplug::Stage,
    kernel::{Kernel, PID_FIRST},
    mask::Mask,
    object::Object,
    oracle::Oracle,
    relay::{Hosted, Process},
    scenario::Scenario,
    script::Event,
    show::{Follow, Shown},
    stats::{GroupStats, Stats},
    task::{Birth, Task, TaskId},
};
use crate::{settings::Tuning, units::Pid};
use anyhow::Result;
use std::{collections::VecDeque, fmt, rc::Rc};

/// What the scheduler did that it must not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in nanoseconds of simulated time.
    pub at_ns: u64,
    /// The seed that shows it again.
    pub seed: u64,
    /// Which oracle saw it.
    pub oracle: &'static str,
    /// What it saw.
    pub what: String,
}

/// The oracle that finds fault with the scenario, not with who schedules it.
pub const OF_SCENARIO: &str = "scenario";

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ns, seed, oracle, what } = self;
        let (s, ns) = (at_ns / 1_000_000_000, at_ns % 1_000_000_000);
        write!(f, "{oracle}: {what}, at {s}.{ns:09} s with --seed {seed}")
    }
}

/// What the engine keeps of a CPU.
#[derive(Debug, Clone, Default)]
pub(super) struct Cpu {
    /// When it will hear that it has to choose anew.
    pub resched_at: Option<u64>,
    /// Its runqueue is locked until then.
    pub locked_until: u64,
    /// Its next tick; idle CPUs have none.
    pub tick_at: Option<u64>,
    /// Since when it is idle; none if it is not.
    pub idle_at: Option<u64>,
    /// Number of its present run.
    pub run: u32,
    /// Time with a task.
    pub run_ns: u64,
    /// Time without.
    pub idle_ns: u64,
    /// Tasks of higher classes that it has, since when, and time that they have had before.
    pub taken: u32,
    pub taken_at: u64,
    pub taken_ns: u64,
    /// Whether it is there, when it comes back, and time that it was not.
    pub stage: Stage,
    pub back_at: Option<u64>,
    pub offline_ns: u64,
    /// What a trace was last told that it runs.
    pub shown: Shown,
}

impl Cpu {
    /// Time that higher classes have had of it up to now.
    pub fn taken_until(&self, now: u64) -> u64 {
        self.taken_ns + if self.taken > 0 { now - self.taken_at } else { 0 }
    }
}

/// A mutex: taken in the order of coming.
#[derive(Debug, Default)]
pub(super) struct Lock {
    pub held: bool,
    pub waiting: VecDeque<TaskId>,
}

/// A condition: who waits for it, in the order of coming, and the mutex that each of them takes then.
pub(super) type Condition = VecDeque<(TaskId, Option<usize>)>;

/// A machine with a scheduler, tasks, and a clock.
pub struct Machine<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) seed: u64,
    pub(super) kernel: Kernel,
    pub(super) cpus: Vec<Cpu>,
    pub(super) actors: Vec<Actor>,
    /// The CPUs that tasks of a group may run on, when they are born.
    affinities: Vec<Rc<Mask>>,
    pub(super) events: Events,
    pub(super) now: u64,
    pub(super) stats: Stats,
    pub(super) violation: Option<Violation>,
    pub(super) slice_max_ns: u64,
    /// The mutexes of the scenario.
    pub(super) locks: Vec<Lock>,
    /// The conditions.
    pub(super) conditions: Vec<Condition>,
    /// Random numbers of each event of the script.
    pub(super) script: Vec<Rng>,
    /// Who follows the run.
    pub(super) follow: Follow<'a>,
    /// The policy in user space, if one decides.
    pub(super) process: Option<Process>,
    /// Why the simulation cannot go on, without any fault of the scheduler's.
    pub(super) failure: Option<anyhow::Error>,
    /// When each timer of the kernel's half is due.
    timeouts: Vec<Option<u64>>,
    oracle: Oracle,
}

/// Simulates a scenario. `code` is the kernel's half: [`super::object::BUILTIN`], or another build of it.
///
/// # Errors
/// When the system has no room for it.
pub fn run(
    scenario: &Scenario,
    code: &[u8],
    tuning: Tuning,
    seed: u64,
) -> Result<(Stats, Option<Violation>)> {
    follow(scenario, code, tuning, seed, None, Follow::default())
}

/// As [`run`], where a policy in user space decides.
///
/// # Errors
/// When the system has no room for it, or the policy panics.
pub fn run_policy(
    scenario: &Scenario,
    code: &[u8],
    tuning: Tuning,
    seed: u64,
    hosted: Hosted,
) -> Result<(Stats, Option<Violation>)> {
    follow(scenario, code, tuning, seed, Some(hosted), Follow::default())
}

/// As those, followed by somebody, who may end it early: the statistics are those up to then.
///
/// # Errors
/// When the system has no room for it, or the policy panics.
pub fn follow<'a>(
    scenario: &'a Scenario,
    code: &[u8],
    tuning: Tuning,
    seed: u64,
    hosted: Option<Hosted>,
    follow: Follow<'a>,
) -> Result<(Stats, Option<Violation>)> {
    let relayed = hosted.as_ref().map(Hosted::relayed);
    let object = Object::open(code, &scenario.topology, tuning, relayed.as_ref())?;
    let mut machine = Machine::new(scenario, object, seed, tuning, follow);
    machine.oracle.relayed(relayed.as_ref());
    machine.process = hosted.map(|hosted| Process::new(hosted.policy, scenario, tuning.slice_max));
    machine.run();
    match machine.failure {
        Some(failure) => Err(failure),
        None => Ok((machine.stats, machine.violation)),
    }
}

impl<'a> Machine<'a> {
    fn new(
        scenario: &'a Scenario,
        object: Object,
        seed: u64,
        tuning: Tuning,
        follow: Follow<'a>,
    ) -> Self {
        let nr_cpus = scenario.topology.places.len();
        let oracle = Oracle::new(scenario, object.timeout_ns(), tuning);
        let affinity = |group| Rc::new(Mask::of(nr_cpus, scenario.allowed(group)));
        let mut machine = Self {
            scenario,
            seed,
            kernel: Kernel::new(object, &scenario.topology),
            cpus: vec![Cpu { idle_at: Some(0), ..Cpu::default() }; nr_cpus],
            actors: Vec::new(),
            affinities: scenario.group.iter().map(affinity).collect(),
            events: Events::default(),
            now: 0,
            stats: Stats {
                groups: vec![GroupStats::default(); scenario.group.len()],
                ..Stats::default()
            },
            violation: None,
            slice_max_ns: tuning.slice_max.0,
            locks: scenario.locks().iter().map(|_| Lock::default()).collect(),
            conditions: vec![Condition::new(); scenario.conditions],
            script: (0..scenario.event.len()).map(|number| Event::rng(number, seed)).collect(),
            follow,
            process: None,
            failure: None,
            timeouts: Vec::new(),
            oracle,
        };
        for (index, group) in scenario.group.iter().enumerate() {
            for number in 0..group.tasks as usize {
                let id = machine.create(index, number);
                let at = machine.actors[id.index()].start(scenario);
                machine.events.push(at, Kind::Timer(id));
            }
        }
        for (number, event) in (0..).zip(&scenario.event) {
            machine.events.push(event.at, Kind::Script(number));
        }
        machine.events.push(scenario.hz.period_ns(), Kind::Watch);
        machine
    }

    /// A task that is not born yet.
    pub(super) fn create(&mut self, group: usize, number: usize) -> TaskId {
        let id = TaskId(self.actors.len() as u32);
        let of = &self.scenario.group[group];
        let pid = Pid(id.0 as i32 + PID_FIRST);
        let birth = Birth { pid, nice: of.nice.0, policy: of.policy as u32, name: &of.name };
        let allowed = &self.affinities[group];
        self.kernel.tasks.push(Task::new(id, birth, Rc::clone(allowed)));
        self.actors.push(Actor::new(group, number, self.seed, u64::from(id.0)));
        self.stats.groups[group].tasks += 1;
        id
    }

    fn run(&mut self) {
        let end = self.scenario.duration;
        self.kernel.set_now(0);
        for cpu in 0..self.cpus.len() as u32 {
            self.kernel.idle.update(cpu, true);
        }
        self.start_process();
        let error = self.kernel.init();
        if error != 0 {
            self.kernel.eject(format!("ops.init() failed: {error}"));
        }
        self.after_callback(0);
        let mut at_end = true;
        while self.violation.is_none()
            && self.failure.is_none()
            && let Some((at, kind)) = self.events.pop(end)
        {
            self.now = at;
            self.kernel.set_now(at);
            self.stats.machine.events += 1;
            self.happen(kind);
            if !self.goes_on() {
                at_end = false;
                break;
            }
        }
        at_end &= self.violation.is_none() && self.failure.is_none();
        if at_end {
            self.now = end;
            self.kernel.set_now(end);
        }
        self.end(at_end);
        self.kernel.exit(abi::SCX_EXIT_UNREG as i32);
        self.stats.machine.events += self.kernel.calls;
    }

    fn happen(&mut self, kind: Kind) {
        let on = match kind {
            Kind::Tick(cpu)
            | Kind::Resched(cpu)
            | Kind::Kick(cpu, _)
            | Kind::Take(cpu, _)
            | Kind::GiveBack(cpu)
            | Kind::Stopper(cpu, _)
            | Kind::Hotplug(cpu) => Some(cpu),
            Kind::Activate(id, _) => Some(self.kernel.tasks[id.index()].cpu() as u32),
            _ => None,
        };
        // Whoever wants a runqueue that is locked waits for it.
        if let Some(cpu) = on
            && self.cpus[cpu as usize].locked_until > self.now
        {
            let state = &mut self.cpus[cpu as usize];
            let until = state.locked_until;
            let expected = match kind {
                Kind::Resched(_) => &mut state.resched_at,
                Kind::Tick(_) => &mut state.tick_at,
                _ => &mut None,
            };
            if *expected == Some(self.now) {
                *expected = Some(until);
            }
            return self.events.push(until, kind);
        }
        if let (Some(cpu), Kind::Resched(_) | Kind::Kick(..)) = (on, kind)
            && self.is_dead(cpu)
        {
            return;
        }
        match kind {
            Kind::Tick(cpu) => self.tick(cpu),
            Kind::Resched(cpu) => {
                if self.cpus[cpu as usize].resched_at == Some(self.now) {
                    self.schedule(cpu, true);
                }
            }
            Kind::Kick(cpu, flags) => self.kicked(cpu, flags.into()),
            Kind::Done(cpu, run) => {
                if self.cpus[cpu as usize].run == run {
                    self.work_done(cpu);
                }
            }
            Kind::Idle(cpu) => self.become_idle(cpu),
            Kind::Timer(id) => self.timer(id),
            Kind::Activate(id, flags) => {
                let cpu = self.kernel.tasks[id.index()].cpu() as u32;
                self.activate(id, cpu, flags.into());
            }
            Kind::Script(number) => self.script(number),
            Kind::Take(cpu, lasts) => self.realtime(cpu, lasts),
            Kind::GiveBack(cpu) => self.give_back(cpu),
            Kind::Stopper(cpu, id) => self.stopper(cpu, id),
            Kind::Hotplug(cpu) => self.hotplug(cpu),
            Kind::Timeout(number, cpu) => self.timeout(number, cpu),
            Kind::Process => self.process(),
            Kind::Watch => {
                if let Some((oracle, what)) = self.oracle.watch(&self.kernel, &self.cpus, self.now)
                {
                    self.violated(oracle, what);
                }
                let tick_ns = self.scenario.hz.period_ns();
                self.stats.machine.shared_ns += self.kernel.nr_sharing() * tick_ns;
                self.events.push(self.now + tick_ns, Kind::Watch);
            }
        }
    }

    /// The kernel's half has started one of its timers, in place of any start before.
    pub(super) fn start_timer(&mut self, number: u32, cpu: u32, delay_ns: u64) {
        let (at, index) = (self.now + delay_ns, number as usize);
        self.timeouts.resize(self.timeouts.len().max(index + 1), None);
        self.timeouts[index] = Some(at);
        self.events.push(at, Kind::Timeout(number, cpu));
    }

    /// A timer is due, where it was started, or where timers of a CPU that is gone go.
    fn timeout(&mut self, number: u32, cpu: u32) {
        let due = &mut self.timeouts[number as usize];
        if *due != Some(self.now) {
            return;
        }
        *due = None;
        let cpu = if self.is_dead(cpu) { self.alive(cpu) } else { cpu };
        self.kernel.timer_due(number, cpu);
        self.after_callback(cpu);
    }

    /// Something that must not be has happened.
    pub(super) fn violated(&mut self, oracle: &'static str, what: String) {
        let (at_ns, seed) = (self.now, self.seed);
        self.violation.get_or_insert(Violation { at_ns, seed, oracle, what });
    }

    /// Notes in the log that something happened to a task on a CPU. The log is kept as its hash only.
    pub(super) fn log(&mut self, what: u64, cpu: u32, id: TaskId) {
        // FNV-1a, by words.
        for word in [self.now, what, u64::from(cpu) << 32 | u64::from(id.0)] {
            self.stats.log_hash = (self.stats.log_hash ^ word).wrapping_mul(0x0100_0000_01b3);
            self.stats.log_hash ^= self.stats.log_hash >> 29;
        }
    }

    /// Adds up. A run that ended early is not judged as a whole.
    fn end(&mut self, at_end: bool) {
        for cpu in 0..self.cpus.len() {
            self.update_curr(cpu as u32);
            self.account_idle(cpu as u32);
            self.cpus[cpu].taken_ns = self.taken_ns(cpu as u32);
            if let Stage::Dead(since) = self.cpus[cpu].stage {
                self.cpus[cpu].offline_ns += self.now - since;
            }
        }
        self.stats.policy = self.policy_stats();
        let machine = &mut self.stats.machine;
        machine.simulated_ns = self.now;
        machine.cpu_ns = self.now * self.cpus.len() as u64;
        machine.run_ns = self.cpus.iter().map(|cpu| cpu.run_ns).sum();
        machine.taken_ns = self.cpus.iter().map(|cpu| cpu.taken_ns).sum();
        machine.offline_ns = self.cpus.iter().map(|cpu| cpu.offline_ns).sum();
        self.oracle.add_due(&self.kernel, &self.actors, &mut self.stats);
        if at_end
            && let Some((oracle, what)) =
                self.oracle.at_end(&self.kernel, &self.cpus, &self.actors, &self.stats, self.now)
        {
            self.violated(oracle, what);
        }
    }
}

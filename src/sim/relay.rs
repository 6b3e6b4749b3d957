//! A policy in user space on a simulated machine: the runtime of a real one (`src/relay`), in simulated time.
//!
//! Its process has a CPU of its own, which is none of the machine's: it waits for nobody and takes time from nobody. It is
//! woken by an event in its ring, and then each call of the policy takes its time; when all that was there is dealt with,
//! the decisions are handed over.

use super::{
    events::Kind,
    kernel::Kernel,
    machine::Machine,
    object::Program,
    scenario::Scenario,
    stats::{Durations, PolicyStats},
};
use crate::{
    bpf::intf::{self, cpu_ctx, decision, relay_call},
    policy::{Cpu, Machine as _, Policy},
    relay::{
        Board,
        channel::{Channel, EVENTS_MAX, Event, Port, places},
        message,
        session::Session,
    },
    settings::{GRACE_US_DEFAULT, RING_KIB_DEFAULT, Relayed},
    units::Nanos,
};
use anyhow::{Context as _, Result, anyhow, ensure};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// A policy in user space, and how it is listened to.
pub struct Hosted {
    /// The policy. Told nothing before.
    pub policy: Box<dyn Policy>,
    /// How long a CPU without anything else to run waits for a decision.
    pub grace: Nanos,
    /// Room for events to it, in bytes: a power of two.
    pub ring_bytes: u32,
}

impl Hosted {
    /// With the defaults of the command line.
    pub fn new(policy: Box<dyn Policy>) -> Self {
        let grace = Nanos::from_micros(GRACE_US_DEFAULT);
        Self { policy, grace, ring_bytes: RING_KIB_DEFAULT * 1024 }
    }

    pub(super) fn relayed(&self) -> Relayed {
        let idle_direct = self.policy.takes_idle_cpus();
        Relayed { grace: self.grace, ring_bytes: self.ring_bytes, idle_direct }
    }
}

/// What the policy's process does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It sleeps until then, or until an event wakes it.
    Sleeps,
    /// It has been woken, and looks at its events then.
    Wakes,
    /// It hands its decisions over then.
    Answers,
}

/// The policy's process.
pub(super) struct Process {
    name: String,
    session: Session,
    board: Board,
    places: Arc<[Cpu]>,
    next: Next,
    at: u64,
    stopped_until: u64,
}

impl Process {
    pub fn new(policy: Box<dyn Policy>, scenario: &Scenario, default_slice: Nanos) -> Self {
        Self {
            name: policy.name().to_owned(),
            session: Session::new(policy, default_slice, Nanos(0)),
            board: Board::default(),
            places: places(&scenario.topology),
            next: Next::Sleeps,
            at: 0,
            stopped_until: 0,
        }
    }
}

/// The way to the kernel's half, for as long as the process runs. `cpu` is where its calls count.
struct SimPort<'a> {
    kernel: &'a mut Kernel,
    cpu: u32,
}

impl SimPort<'_> {
    fn run(&mut self, program: Option<Program>, call: &mut relay_call) -> Result<()> {
        let program = program.context("the kernel's half has no such program")?;
        let code = self.kernel.run_program(self.cpu, program, call);
        ensure!(code == 0, "the program returned {code}");
        Ok(())
    }
}

impl Port for SimPort<'_> {
    fn now(&self) -> Nanos {
        self.kernel.now()
    }

    fn write_decision(&mut self, index: usize, decision: decision) {
        self.kernel.object.decisions.write(index, decision);
    }

    fn verdict(&self, index: usize) -> u16 {
        self.kernel.object.decisions.read(index).verdict
    }

    fn cpu(&self, index: usize) -> cpu_ctx {
        self.kernel.object.states.read(index)
    }

    fn apply(&mut self, call: &mut relay_call) -> Result<()> {
        self.run(self.kernel.object.relay_apply, call)
    }

    fn idle_cpu(&mut self, call: &mut relay_call) -> Result<()> {
        self.run(self.kernel.object.relay_idle_cpu, call)
    }
}

impl Machine<'_> {
    /// Lets the policy's process do something. None if there is none, or if it failed: then the run ends.
    fn in_process<R>(
        &mut self,
        act: impl FnOnce(&mut Session, &mut Channel<SimPort<'_>>) -> Result<R>,
    ) -> Option<R> {
        let mut process = self.process.take()?;
        let cpu = self.alive(0);
        let port = SimPort { kernel: &mut self.kernel, cpu };
        let mut channel = Channel::new(port, Arc::clone(&process.places), process.board.clone());
        let acted = catch_unwind(AssertUnwindSafe(|| act(&mut process.session, &mut channel)));
        let name = &process.name;
        let result = match acted {
            Ok(result) => result.with_context(|| format!("serving the policy {name}")),
            Err(panic) => Err(anyhow!("the policy {name} panicked: {}", message(&*panic))),
        };
        self.process = Some(process);
        self.after_callback(cpu);
        let (at_ns, seed) = (self.now, self.seed);
        let when = || format!("at {} ns with --seed {seed}", at_ns);
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failure.get_or_insert(anyhow!("{error:#}, {}", when()));
                None
            }
        }
    }

    /// As on a real machine before the scheduler is attached: the kernel's half learns of the process, and the policy has
    /// its first tick.
    pub(super) fn start_process(&mut self) {
        let begun = self.in_process(|session, channel| {
            channel.apply(&[])?;
            session.begin(channel);
            Ok(session.patience(Nanos(0)).0)
        });
        if let Some(after) = begun {
            self.process_next(Next::Sleeps, after);
        }
    }

    /// Whether what the process does is put down for this instant: whatever it was woken from is not.
    fn process_next(&mut self, next: Next, after: u64) {
        let at = self.now + after;
        if let Some(process) = &mut self.process {
            (process.next, process.at) = (next, at);
            self.events.push(at, Kind::Process);
        }
    }

    /// The process does what it was going to.
    pub(super) fn process(&mut self) {
        let Some(process) = &self.process else { return };
        let (next, now) = (process.next, Nanos(self.now));
        if process.at != now.0 {
            return;
        }
        if now.0 < process.stopped_until {
            let left = process.stopped_until - now.0;
            return self.process_next(next, left);
        }
        if next != Next::Answers {
            let records: Vec<_> =
                std::iter::from_fn(|| self.kernel.ring.consume()).take(EVENTS_MAX).collect();
            let events = records.iter().filter_map(|record| Event::decode(record));
            let calls = self.in_process(|session, channel| Ok(session.tell(events, now, channel)));
            let Some(calls) = calls else { return };
            return self.process_next(Next::Answers, calls * self.scenario.costs.policy_call);
        }
        let patience = self.in_process(|session, channel| {
            session.hand_over(channel)?;
            Ok(session.patience(now).0)
        });
        match patience {
            Some(_) if !self.kernel.ring.is_empty() => self.process_next(Next::Wakes, 0),
            Some(after) => self.process_next(Next::Sleeps, after),
            None => {}
        }
    }

    /// Something may be in the ring.
    pub(super) fn wake_process(&mut self) {
        let sleeps = self.process.as_ref().is_some_and(|process| process.next == Next::Sleeps);
        if sleeps && !self.kernel.ring.is_empty() {
            self.process_next(Next::Wakes, self.scenario.costs.policy_wake);
        }
    }

    /// SIGSTOP, and SIGCONT after that time.
    pub(super) fn stop_process(&mut self, lasts: u64) {
        if let Some(process) = &mut self.process {
            process.stopped_until = process.stopped_until.max(self.now + lasts);
        }
    }

    /// What became of its decisions.
    pub(super) fn policy_stats(&self) -> Option<PolicyStats> {
        let process = self.process.as_ref()?;
        let mut stats = PolicyStats {
            name: process.name.clone(),
            figures: process.board.figures(),
            ..PolicyStats::default()
        };
        for cpu in self.kernel.object.stats() {
            let of = |counter: u32| cpu.counters[counter as usize];
            stats.offered += of(intf::counter_CNT_OFFERED);
            stats.decided += of(intf::counter_CNT_DECIDED);
            stats.taken += of(intf::counter_CNT_TAKEN);
            stats.gone += of(intf::counter_CNT_GONE);
            stats.overflow += of(intf::counter_CNT_OVERFLOW);
            stats.stale += of(intf::counter_CNT_STALE);
            stats.malformed += of(intf::counter_CNT_MALFORMED);
            stats.late += of(intf::counter_CNT_LATE);
            stats.answer.merge(&Durations::of_slots(cpu.answer_hist));
            stats.served.merge(&Durations::of_slots(cpu.served_hist));
        }
        let relay = self.kernel.object.relay();
        stats.late_ns = relay.late_ns;
        if relay.late_at != 0 {
            stats.late_ns += self.kernel.now().0 - relay.late_at;
        }
        Some(stats)
    }
}

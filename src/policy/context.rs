//! What a policy can do and ask: the [`Context`] of its methods, and the [`Machine`] behind it.

use super::{CpuSet, Task};
use crate::units::{CpuId, Nanos, Pid, Vtime};
use std::collections::HashMap;

/// The highest priority of the table of [`Context::set_priority`].
pub const PRIORITY_MAX: u8 = 20;

/// Where, when and for how long a task is to run.
///
/// ```
/// use scheduler::{policy::Decision, units::{CpuId, Nanos, Vtime}};
/// // Before all others that may run anywhere, for a millisecond.
/// let soon = Decision::any_cpu().vtime(Vtime(0)).slice(Nanos::from_millis(1));
/// // On CPU 3, in place of what runs there.
/// let now = Decision::on(CpuId(3)).preempt();
/// # let _ = (soon, now);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub(crate) cpu: Option<CpuId>,
    pub(crate) slice: Option<Nanos>,
    pub(crate) vtime: Vtime,
    pub(crate) preempt: bool,
    pub(crate) preempt_if_earlier: bool,
}

impl Decision {
    /// Whichever CPU is free first, of those that the task may run on.
    pub fn any_cpu() -> Self {
        Self { cpu: None, slice: None, vtime: Vtime(0), preempt: false, preempt_if_earlier: false }
    }

    /// This CPU and no other. One that the task may not run on makes the decision void, and it counts as malformed.
    pub fn on(cpu: CpuId) -> Self {
        Self { cpu: Some(cpu), ..Self::any_cpu() }
    }

    /// For how long it may run; without this for [`Context::default_slice`]. The kernel's half keeps it between 0.1 and
    /// 20 ms (or `--slice-us`, if that is longer), and slices end at ticks of the kernel (every 4 ms at 250 Hz) or when somebody preempts.
    pub fn slice(mut self, slice: Nanos) -> Self {
        self.slice = Some(slice);
        self
    }

    /// Its place in the order: of the tasks that were decided for a CPU and for any, the one with the lowest runs first;
    /// among equals the one that was decided first. 0 without this. It wraps around, as [`Vtime::is_before`] does.
    pub fn vtime(mut self, vtime: Vtime) -> Self {
        self.vtime = vtime;
        self
    }

    /// The same, but only if what runs there comes later: by the vtime of its own decision, and what it has run since,
    /// scaled by its weight. So the order stays what it is, and is just looked at now instead of at the next tick.
    pub fn preempt_if_earlier(mut self) -> Self {
        self.preempt_if_earlier = true;
        self
    }

    /// The CPU that was chosen; none: any.
    pub fn cpu(&self) -> Option<CpuId> {
        self.cpu
    }

    /// Ends the slice of what runs on the chosen CPU (with [`any_cpu`](Self::any_cpu): on the task's last one).
    pub fn preempt(mut self) -> Self {
        self.preempt = true;
        self
    }
}

/// A CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: CpuId,
    /// One CPU that stands for its core: the same for all of its threads.
    pub core: CpuId,
    /// Dense index of its last-level cache.
    pub llc: u32,
    /// Dense index of its NUMA node.
    pub node: u32,
    /// Whether it is online.
    pub online: bool,
    /// Whether it runs nothing.
    pub idle: bool,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The task is where it was decided to be.
    Applied,
    /// The task no longer waits for this decision.
    Stale,
    /// The decision cannot be: its CPU is not there, or the task may not run on it.
    Malformed,
    /// The task is on its way into its queue: the order is worth another try.
    Early,
}

/// A decision on its way to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The task; none: just preempt the CPU of the decision.
    pub pid: Option<Pid>,
    /// Which of its enqueueings is meant.
    pub(crate) offer: u32,
    /// The decision.
    pub decision: Decision,
    /// Tries so far.
    pub(crate) tries: u8,
}

impl Order {
    /// Has an idle CPU look at its queues.
    pub(crate) fn look(cpu: CpuId) -> Self {
        Self { pid: None, offer: 0, decision: Decision::on(cpu), tries: 0 }
    }

    /// Has a CPU look at its queues.
    pub(crate) fn kick(cpu: CpuId) -> Self {
        Self { pid: None, offer: 0, decision: Decision::on(cpu).preempt(), tries: 0 }
    }
}

/// How much is waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Tasks that wait for a decision.
    pub queued: u64,
    /// Tasks that wait for a CPU, decided.
    pub decided: u64,
    /// Whether the kernel's half has taken over, because the policy did not answer.
    pub late: bool,
}

/// What a policy runs against: the kernel, or a [`fake`](super::fake) in tests.
pub trait Machine {
    /// Nanoseconds of a clock that only goes forward.
    fn now(&self) -> Nanos;

    /// The CPUs that there may be, ascending.
    fn cpus(&self) -> Vec<Cpu>;

    /// An idle CPU that the task may run on, near where it ran last. It passes for taken from then on.
    fn pick_idle_cpu(&mut self, pid: Pid) -> Option<CpuId>;

    /// Carries out orders and returns what became of each, in the same order, and what waits now.
    ///
    /// # Errors
    /// When the machine can no longer be reached.
    fn apply(&mut self, orders: &[Order]) -> anyhow::Result<(Vec<Verdict>, Load)>;

    /// Takes a figure of the policy's own, for the statistics.
    fn show(&mut self, name: &str, value: f64);

    /// The figure of that name that was taken last.
    fn shown(&self, name: &str) -> Option<f64>;
}

/// What is kept for a policy from one of its methods to the next.
#[derive(Debug, Default)]
pub struct Desk {
    pub(crate) orders: Vec<Order>,
    pub(crate) load: Load,
    pub(crate) default_slice: Nanos,
    priorities: HashMap<Pid, Priority>,
}

#[derive(Debug, Clone, Copy)]
struct Priority {
    level: u8,
    until: Option<Nanos>,
}

/// An order that came too early is tried so often.
const TRIES_MAX: u8 = 20;

impl Desk {
    /// For a policy whose decisions have slices of `default_slice` unless they say otherwise.
    pub fn new(default_slice: Nanos) -> Self {
        Self { default_slice, ..Self::default() }
    }

    /// The context of a call of the policy.
    pub fn context<'a>(&'a mut self, machine: &'a mut dyn Machine) -> Context<'a> {
        Context { machine, desk: self }
    }

    /// Hands all orders over. Those that came too early stay for the next time.
    pub(crate) fn hand_over(&mut self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        let orders = std::mem::take(&mut self.orders);
        let (verdicts, load) = machine.apply(&orders)?;
        self.load = load;
        self.orders = orders
            .into_iter()
            .zip(verdicts)
            .filter(|(order, verdict)| *verdict == Verdict::Early && order.tries < TRIES_MAX)
            .map(|(order, _)| Order { tries: order.tries + 1, ..order })
            .collect();
        Ok(())
    }

    /// Forgets a task that is gone.
    pub(crate) fn forget(&mut self, pid: Pid) {
        self.priorities.remove(&pid);
    }

    /// Forgets priorities that have ended.
    pub(crate) fn expire(&mut self, now: Nanos) {
        self.priorities.retain(|_, priority| priority.until.is_none_or(|until| now < until));
    }
}

/// What a policy can do and ask, in each of its methods.
pub struct Context<'a> {
    machine: &'a mut dyn Machine,
    desk: &'a mut Desk,
}

impl Context<'_> {
    /// Decides about a task that was enqueued. A second decision about the same enqueueing is stale, and so is one about
    /// a task that has left its queue meanwhile: both are counted, and do nothing.
    pub fn decide(&mut self, task: &Task, decision: Decision) {
        let decision =
            Decision { slice: decision.slice.or(Some(self.desk.default_slice)), ..decision };
        self.desk.orders.push(Order { pid: Some(task.pid), offer: task.offer, decision, tries: 0 });
    }

    /// Ends the slice of what runs on a CPU, so that it takes the next task of its queues.
    pub fn preempt(&mut self, cpu: CpuId) {
        self.desk.orders.push(Order::kick(cpu));
    }

    /// Now, in nanoseconds of the clock that instants of a [`Task`] are of.
    pub fn now(&self) -> Nanos {
        self.machine.now()
    }

    /// The CPUs, ascending, with what they are doing at the moment.
    pub fn cpus(&self) -> Vec<Cpu> {
        self.machine.cpus()
    }

    /// The CPUs that run nothing at the moment.
    pub fn idle_cpus(&self) -> CpuSet {
        self.machine.cpus().iter().filter(|cpu| cpu.online && cpu.idle).map(|cpu| cpu.id).collect()
    }

    /// Asks the kernel for an idle CPU that the task may run on, the one that it ran on last if possible. The kernel hands
    /// that CPU to nobody else until it has run something: decide for it. A system call.
    pub fn pick_idle_cpu(&mut self, task: &Task) -> Option<CpuId> {
        self.machine.pick_idle_cpu(task.pid)
    }

    /// Tasks that wait for a decision, as of the last batch.
    pub fn nr_queued(&self) -> u64 {
        self.desk.load.queued
    }

    /// Tasks that wait for a CPU, decided: as of the last batch, and what was decided since.
    pub fn nr_decided(&self) -> u64 {
        self.desk.load.decided + self.desk.orders.len() as u64
    }

    /// Whether the kernel's half has taken over, because the policy did not answer for a while. Tasks are enqueued again
    /// when it lets go.
    pub fn is_late(&self) -> bool {
        self.desk.load.late
    }

    /// The slice of a decision that does not say: `--slice-us`.
    pub fn default_slice(&self) -> Nanos {
        self.desk.default_slice
    }

    /// Sets the slice of decisions that do not say.
    pub fn set_default_slice(&mut self, slice: Nanos) {
        self.desk.default_slice = slice;
    }

    /// Gives a task a priority from 0, the lowest and that of all others, to [`PRIORITY_MAX`]; higher ones are cut to
    /// that. It ends with the task, or after `span`. What it means is up to the policy.
    pub fn set_priority(&mut self, pid: Pid, level: u8, span: Option<Nanos>) {
        let until = span.map(|span| Nanos(self.now().0.saturating_add(span.0)));
        match level.min(PRIORITY_MAX) {
            0 => self.desk.forget(pid),
            level => {
                self.desk.priorities.insert(pid, Priority { level, until });
            }
        }
    }

    /// The priority of a task.
    pub fn priority(&self, pid: Pid) -> u8 {
        let now = self.machine.now();
        match self.desk.priorities.get(&pid) {
            Some(priority) if priority.until.is_none_or(|until| now < until) => priority.level,
            _ => 0,
        }
    }

    /// Shows a figure of the policy's own in the statistics, by this name, until it is set again.
    pub fn show(&mut self, name: &str, value: f64) {
        self.machine.show(name, value);
    }

    /// Adds to such a figure, which begins at 0.
    pub fn add(&mut self, name: &str, more: f64) {
        let before = self.machine.shown(name).unwrap_or(0.0);
        self.show(name, before + more);
    }
}

//! Policies in user space: a scheduler as a plain Rust type.
//!
//! A [`Policy`] is told which tasks became runnable and says where, when and for how long each is
//! to run. [`crate::run`] makes a program of it. Beneath it stays the kernel's half of this
//! crate, which takes over whatever the policy does not decide in time: a policy can be slow, hang
//! or be killed, and the machine goes on.
//!
//! First in, first out, whole:
//!
//! ```no_run
//! use scheduler::policy::{Context, Decision, Policy, Task};
//! use scheduler::units::Vtime;
//!
//! #[derive(Default)]
//! struct Fifo {
//!     arrived: u64,
//! }
//!
//! impl Policy for Fifo {
//!     fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
//!         self.arrived += 1;
//!         cx.decide(task, Decision::any_cpu().vtime(Vtime(self.arrived)));
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     scheduler::run(Fifo::default())
//! }
//! ```
//!
//! A policy asks the machine through its [`Context`] only, so the same source runs in a unit test
//! against a [`fake::Fake`] machine, and on a simulated machine: `simulate FILE` of its program.

pub mod builtin;
mod context;
pub mod fake;
mod fifo;
mod task;
mod vruntime;

pub use context::{Context, Cpu, Decision, Desk, Load, Machine, Order, PRIORITY_MAX, Verdict};
pub use fifo::Fifo;
pub use task::{Comm, CpuSet, Task};
pub use vruntime::Vruntime;

use crate::units::{CpuId, Nanos, Pid};
use std::sync::{Mutex, PoisonError};

/// The policy that a program is made of.
pub enum Own {
    /// There is one of it.
    Once(Mutex<Option<Box<dyn Policy>>>),
    /// One is made whenever one is needed: each run of a simulation begins anew.
    Each(Box<dyn Fn() -> Box<dyn Policy> + Send + Sync>),
}

impl Own {
    /// The policy; none if there was but one, and somebody has it.
    pub fn make(&self) -> Option<Box<dyn Policy>> {
        match self {
            Self::Once(policy) => policy.lock().unwrap_or_else(PoisonError::into_inner).take(),
            Self::Each(make) => Some(make()),
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Self::Once(policy) => {
                let policy = policy.lock().unwrap_or_else(PoisonError::into_inner);
                policy.as_deref().map_or_else(String::new, |policy| policy.name().to_owned())
            }
            Self::Each(make) => make().name().to_owned(),
        }
    }
}

/// The version of what a policy and this crate expect of each other. It grows when the meaning of
/// anything in this module changes.
pub const INTERFACE: u32 = 1;

/// A scheduling policy. Only [`enqueue`](Self::enqueue) must be there.
///
/// All methods are called from one thread, one at a time. They should return soon: CPUs wait for an
/// answer for the grace period (`--grace-us`), and then the kernel's half decides instead. What
/// was decided takes effect when the method returns, together with the decisions of other events that came
/// meanwhile.
///
/// Kernel threads and the threads of the policy's own process never show up here.
pub trait Policy: Send {
    /// What the policy is called in statistics and messages. The name of its type, unless it says otherwise.
    fn name(&self) -> &str {
        let name = std::any::type_name::<Self>();
        name.rsplit("::").next().unwrap_or(name)
    }

    /// The [`INTERFACE`] that the policy was written for. A policy that says a number of its own is refused by any other
    /// version of this crate, before anything is attached.
    fn interface(&self) -> u32 {
        INTERFACE
    }

    /// Takes an option of the command line, `--set KEY=VALUE`. Called before anything else.
    ///
    /// # Errors
    /// What is wrong with it, in a few words; the program then ends with exit code 2. Without this method every option
    /// is refused.
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let _ = value;
        Err(format!("it has no option '{key}'"))
    }

    /// Whether a waking task takes an idle CPU by itself, chosen by the kernel's half (the previous one, its core, its
    /// cache, its node), without [`enqueue`](Self::enqueue). So it is unless the policy says otherwise: only tasks that
    /// have to compete are asked about.
    fn takes_idle_cpus(&self) -> bool {
        true
    }

    /// How often [`tick`](Self::tick) is called. At least 1 ms; by default 100 ms.
    fn tick_period(&self) -> Nanos {
        Nanos::from_millis(100)
    }

    /// A task became runnable, or used up its slice, and needs a decision: [`Context::decide`], at once or later. A task
    /// is enqueued again whenever it has run and still is runnable, and a decision belongs to one of these times.
    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>);

    /// A CPU has nothing to run, though tasks wait for a decision: decide one now, if it may run there. After the grace
    /// period the CPU takes the one that has waited longest. Nothing to do for policies that decide in
    /// [`enqueue`](Self::enqueue).
    fn dispatch(&mut self, cpu: CpuId, cx: &mut Context<'_>) {
        let _ = (cpu, cx);
    }

    /// The weight or the affinity of a task has changed that was enqueued before. If it still waits, it is enqueued again.
    fn changed(&mut self, task: &Task, cx: &mut Context<'_>) {
        let _ = (task, cx);
    }

    /// A task that was enqueued before is gone. Its number may be given to another one.
    fn exited(&mut self, pid: Pid, cx: &mut Context<'_>) {
        let _ = (pid, cx);
    }

    /// Time has passed: see [`tick_period`](Self::tick_period).
    fn tick(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }
}

//! `scheduler`: a CPU scheduler for Linux, loaded into the kernel through sched_ext.
//!
//! To write a scheduler of your own, implement [`policy::Policy`] and hand it to [`run`]; start with the example in
//! [`policy`].
//!
//! Unless such a policy is asked, the decisions are made in the kernel, by the BPF programs under `src/bpf`. This library
//! is the user's half: it checks the machine, loads and attaches those programs, tells them where the
//! CPUs are, reads their statistics, and takes them out again.
//!
//! Principles:
//! - The kernel's half needs nobody: once attached, it schedules whether or not this process runs.
//!   When this process ends in any way, the kernel returns to its default scheduler.
//! - What a machine may lack is probed once and named ([`machine::preflight`]); no bare errno.
//! - A setting is validated once, where it enters ([`cli`]), and is a plain value from there on
//!   ([`settings`]).
//! - Types and constants that both halves share come from one header ([`bpf::intf`]).
//! - Every way out has a documented exit code ([`exit::Exit`]).

pub mod bpf;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod endpoint;
pub mod exit;
pub mod machine;
pub mod manual;
mod placed;
pub mod policy;
pub mod profile;
pub mod record;
pub mod relay;
pub mod reload;
pub mod rules;
pub mod settings;
pub mod sim;
pub mod stats;
pub mod top;
pub mod trace;
pub mod units;
pub mod watch;

use std::process::ExitCode;

/// Makes a whole program of a policy: the command line of `scheduler` (`--stats`, `--json`, `doctor`, …), its signals and
/// its exit codes. For a `main` that returns its result.
///
/// ```no_run
/// # struct MyPolicy;
/// # impl scheduler::policy::Policy for MyPolicy {
/// #     fn enqueue(
/// #         &mut self,
/// #         task: &scheduler::policy::Task,
/// #         cx: &mut scheduler::policy::Context<'_>,
/// #     ) {
/// #     }
/// # }
/// fn main() -> std::process::ExitCode {
///     scheduler::run(MyPolicy)
/// }
/// ```
pub fn run(policy: impl policy::Policy + 'static) -> ExitCode {
    let policy: Box<dyn policy::Policy> = Box::new(policy);
    commands::main(std::env::args_os(), Some(policy::Own::Once(Some(policy).into())))
}

/// As [`run`], of a policy that is made whenever one is needed. The program's `simulate` has more runs than one by this, each
/// with a policy that knows nothing of the others.
///
/// ```no_run
/// use scheduler::policy::Fifo;
///
/// fn main() -> std::process::ExitCode {
///     scheduler::run_made(Fifo::default)
/// }
/// ```
pub fn run_made<P: policy::Policy + 'static>(
    make: impl Fn() -> P + Send + Sync + 'static,
) -> ExitCode {
    let own = policy::Own::Each(Box::new(move || Box::new(make())));
    commands::main(std::env::args_os(), Some(own))
}

//! First in, first out: a whole scheduler.
//!
//! `cargo build --release --example fifo && sudo target/release/examples/fifo --stats`

use scheduler::policy::{Context, Decision, Policy, Task};
use scheduler::units::{Nanos, Vtime};
use std::process::ExitCode;

#[derive(Default)]
struct Fifo {
    arrived: u64,
}

impl Policy for Fifo {
    // A task became runnable and found no idle CPU, or used up its slice.
    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        self.arrived += 1;
        // The lowest vtime runs first, on whichever CPU is free.
        let decision = Decision::any_cpu().vtime(Vtime(self.arrived));
        cx.decide(task, decision.slice(Nanos::from_millis(5)));
    }
}

fn main() -> ExitCode {
    scheduler::run(Fifo::default())
}

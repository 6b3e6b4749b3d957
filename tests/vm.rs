//! Cases on real kernels. This binary is the runner on the host and process 1 of the guests it boots.
//!
//! Not run unless asked, because they need QEMU and kernels:
//! `make vm`, or `cargo test --test vm -- fairness --kernel 7.3`, or `VM=1 cargo test`.
//!
//! A new case is one function over `&mut Vm` in a module below, and its line in that module's `CASES`.

use lab::Suite;
use std::process::ExitCode;

#[path = "vm/affinity.rs"]
mod affinity;
#[path = "vm/compare.rs"]
mod compare;
#[path = "vm/fairness.rs"]
mod fairness;
#[path = "vm/latency.rs"]
mod latency;
#[path = "vm/lifecycle.rs"]
mod lifecycle;
#[path = "vm/programs.rs"]
mod programs;
#[path = "vm/refusals.rs"]
mod refusals;
#[path = "vm/stress.rs"]
mod stress;
#[path = "vm/truth.rs"]
mod truth;

fn main() -> ExitCode {
    let suite = Suite {
        cases: [
            lifecycle::CASES,
            refusals::CASES,
            affinity::CASES,
            fairness::CASES,
            latency::CASES,
            stress::CASES,
            truth::CASES,
            programs::CASES,
            compare::CASES,
        ]
        .concat(),
        programs: vec![(lab::vm::SCHEDULER, env!("CARGO_BIN_EXE_scheduler").into())],
        tools: &["stress-ng", "cyclictest", "hackbench", "setpriv"],
        root: env!("CARGO_MANIFEST_DIR").into(),
        folder: concat!(env!("CARGO_TARGET_TMPDIR"), "/vm").into(),
    };
    suite.main()
}

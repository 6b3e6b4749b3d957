//! Cases on real kernels. This binary is the runner on the host and process 1 of the guests it boots.
//!
//! Not run unless asked, because they need QEMU and kernels:
//! `make vm`, or `cargo build --examples` and `cargo test --test vm -- fairness --kernel 7.3`, or `VM=1 cargo test`.
//!
//! A new case is one function over `&mut Vm` in a module below, and its line in that module's `CASES`.

use lab::Suite;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[path = "vm/affinity.rs"]
mod affinity;
#[path = "vm/ask.rs"]
mod ask;
#[path = "vm/compare.rs"]
mod compare;
#[path = "vm/conformance.rs"]
mod conformance;
#[path = "vm/fairness.rs"]
mod fairness;
#[path = "vm/latency.rs"]
mod latency;
#[path = "vm/lifecycle.rs"]
mod lifecycle;
#[path = "vm/mischief.rs"]
mod mischief;
mod perfetto;
#[path = "vm/policy.rs"]
mod policy;
#[path = "vm/programs.rs"]
mod programs;
#[path = "vm/rcu.rs"]
mod rcu;
#[path = "vm/record.rs"]
mod record;
#[path = "vm/refusals.rs"]
mod refusals;
#[path = "vm/rules.rs"]
mod rules;
#[path = "vm/service.rs"]
mod service;
#[path = "vm/stress.rs"]
mod stress;
#[path = "vm/truth.rs"]
mod truth;

fn main() -> ExitCode {
    if let Some(code) = mischief::Mischief::act() {
        return code;
    }
    if let Some(code) = rules::Napper::act() {
        return code;
    }
    let mut programs: Vec<(&str, PathBuf)> = vec![
        (lab::vm::SCHEDULER, env!("CARGO_BIN_EXE_scheduler").into()),
        (policy::FIFO, example("fifo")),
        (policy::VRUNTIME, example("vruntime")),
        (policy::PIN_BY_NAME, example("pin_by_name")),
    ];
    // Which of them a host has depends on its release; the case says what it lacks.
    let managers = [service::MANAGER, service::EXECUTOR].map(|path| (path, PathBuf::from(path)));
    programs.extend(managers.into_iter().filter(|(_, path)| path.exists()));
    let suite = Suite {
        cases: [
            lifecycle::CASES,
            service::CASES,
            refusals::CASES,
            affinity::CASES,
            fairness::CASES,
            rcu::CASES,
            latency::CASES,
            stress::CASES,
            truth::CASES,
            ask::CASES,
            policy::CASES,
            programs::CASES,
            compare::CASES,
            conformance::CASES,
            rules::CASES,
            record::CASES,
        ]
        .concat(),
        programs,
        tools: &["stress-ng", "cyclictest", "hackbench", "setpriv", "systemctl"],
        root: env!("CARGO_MANIFEST_DIR").into(),
        folder: concat!(env!("CARGO_TARGET_TMPDIR"), "/vm").into(),
    };
    suite.main()
}

/// Where `make examples` leaves it: beside the program.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_scheduler")).with_file_name("examples").join(name)
}

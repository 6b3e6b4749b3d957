//! The simulated machine: `src/bpf/main.bpf.c` itself, compiled for this machine, on virtual CPUs.
//!
//! The object that the build script makes of the kernel's half imports one table of functions, which `kernel.rs` answers
//! as Linux does. The engine (`machine.rs`) knows events in an order that depends on the scenario and the seed alone: no
//! clock, no hash, no thread has a part in it. Each machine has a copy of the object, globals and all, so machines share
//! nothing.
//!
//! ```
//! use scheduler::{settings::Tuning, sim};
//!
//! let scenario = sim::Scenario::parse(
//!     r#"
//!     about = "two hogs on a CPU"
//!     duration = "1s"
//!     topology = "1 core"
//!     [[group]]
//!     name = "hogs"
//!     tasks = 2
//!     phases = [{ run = "1s" }]
//!     "#,
//!     None,
//! )?;
//! let (stats, violation) = sim::run(&scenario, sim::BUILTIN, Tuning::default(), 1).map_err(|e| e.to_string())?;
//! // All of the second, but for what it takes the CPU to begin.
//! assert_eq!((stats.groups[0].run_ns, violation), (999_987_500, None));
//! # Ok::<(), String>(())
//! ```

mod actor;
mod change;
mod dist;
mod dsq;
mod events;
mod higher;
mod hotplug;
mod idle;
mod kernel;
mod kfuncs;
mod life;
mod machine;
mod mask;
mod object;
mod oracle;
mod phase;
mod plan;
mod relay;
mod report;
mod ring;
mod rtapp;
mod scenario;
mod sched;
mod script;
mod show;
mod stats;
mod sweep;
mod task;
mod topology;

pub use self::{
    machine::{OF_SCENARIO, Violation, follow, run, run_policy},
    object::BUILTIN,
    plan::{Plan, Policies, Results},
    relay::Hosted,
    report::Summary,
    rtapp::parse as parse_rtapp,
    scenario::Scenario,
    show::Follow,
    stats::{Durations, PolicyStats, Stats},
    sweep::Sweep,
    topology::parse as parse_topology,
};

/// The types and constants of `include/kernel.h`.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
mod abi {
    use crate::bpf::{
        intf::{relay, relay_call},
        skel::types::knobs,
    };
    include!(concat!(env!("OUT_DIR"), "/sim_abi.rs"));
}

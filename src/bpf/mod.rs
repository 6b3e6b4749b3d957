//! The kernel's half, as Rust sees it: generated at build time, never by hand.

pub mod wire;

/// Types and constants of `src/bpf/intf.h`.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
pub mod intf {
    include!(concat!(env!("OUT_DIR"), "/intf.rs"));
}

/// A line of the list of counters in `intf.h`.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    /// Its name in the statistics.
    pub name: &'static str,
    /// What it counts.
    pub text: &'static str,
}

/// All counters, in the order of `intf::counter`.
pub const COUNTERS: &[Counter; intf::counter_NR_COUNTERS as usize] =
    include!(concat!(env!("OUT_DIR"), "/counters.rs"));

/// The skeleton of `src/bpf/main.bpf.c`.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
pub mod skel {
    include!(concat!(env!("OUT_DIR"), "/bpf_skel.rs"));
}

/// The skeleton of `src/bpf/observer.bpf.c`.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
pub mod observer {
    include!(concat!(env!("OUT_DIR"), "/observer_skel.rs"));
}

/// The skeleton of `src/bpf/recorder.bpf.c`.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
pub mod recorder {
    include!(concat!(env!("OUT_DIR"), "/recorder_skel.rs"));
}

/// The skeleton of `src/bpf/rules.bpf.c`.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
pub mod rules {
    include!(concat!(env!("OUT_DIR"), "/rules_skel.rs"));
}

/// The kernel's enums, as the kernel's half takes them.
pub mod enums {
    use super::skel::types::rodata;
    include!(concat!(env!("OUT_DIR"), "/enums.rs"));
}

/// The decision core, `src/bpf/policy.h`, as native code for tests.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
pub mod policy {
    use super::intf::{boost, vclock};
    include!(concat!(env!("OUT_DIR"), "/policy.rs"));
}

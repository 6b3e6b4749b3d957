//! The policies that the program brings along, by name.

use super::{Fifo, Policy, Vruntime};
use crate::units::Nanos;

/// A policy of the list.
pub struct Builtin {
    /// What `--policy` takes.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Makes it; none for the one that decides in the kernel.
    pub make: Option<fn() -> Box<dyn Policy>>,
}

/// The name of the default: decisions in the kernel.
pub const KERNEL: &str = "kernel";

/// All of them, the default first.
pub const BUILTIN: &[Builtin] = &[
    Builtin {
        name: KERNEL,
        about: "decides in the kernel: fair by weight, short bursts first (the default)",
        make: None,
    },
    Builtin {
        name: "vruntime",
        about: "decides in this process: lowest virtual run time first, slices by load \
                (--set slice_us=5000 --set slice_min_us=500)",
        make: Some(|| Box::new(Vruntime::default())),
    },
    Builtin {
        name: "fifo",
        about: "decides in this process: first in, first out (--set slice_us=5000)",
        make: Some(|| Box::new(Fifo::default())),
    },
];

/// The policy of that name.
pub fn find(name: &str) -> Option<&'static Builtin> {
    BUILTIN.iter().find(|builtin| builtin.name == name)
}

/// The list, a line each.
pub fn list() -> String {
    BUILTIN.iter().map(|builtin| format!("{:<10}{}\n", builtin.name, builtin.about)).collect()
}

/// A slice in an option's value.
pub(super) fn slice(value: &str) -> Result<Nanos, String> {
    match value.parse() {
        Ok(us @ 100..=100_000) => Ok(Nanos::from_micros(us)),
        _ => Err("must be a whole number of microseconds from 100 to 100000".to_owned()),
    }
}

//! The policies that the program brings along, by name.

use super::{Fifo, Policy, Vruntime};
use crate::{settings::DECIDED_SLICE_US, units::Nanos};

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

/// Sets the slice of that name, an option in microseconds.
pub(super) fn set_slice(
    slices: &mut [(&str, &mut Nanos)],
    key: &str,
    value: &str,
) -> Result<(), String> {
    let names: Vec<_> = slices.iter().map(|(name, _)| format!("'{name}'")).collect();
    let Some((_, slice)) = slices.iter_mut().find(|(name, _)| *name == key) else {
        return Err(format!("it has no option '{key}', only {}", names.join(", ")));
    };
    let us = value.parse().ok().filter(|us| DECIDED_SLICE_US.contains(us)).ok_or_else(|| {
        let (low, high) = (DECIDED_SLICE_US.start(), DECIDED_SLICE_US.end());
        format!("must be a whole number of microseconds from {low} to {high}")
    })?;
    **slice = Nanos::from_micros(us);
    Ok(())
}

//! Profiles: sets of figures to decide by, under names that say what they are for. What each does was found by
//! `scheduler simulate`; see the README.

/// A profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// What `--profile` takes.
    pub name: &'static str,
    /// Longest slice in microseconds, as the next three.
    pub slice_us: u64,
    /// Shortest slice.
    pub slice_min_us: u64,
    /// Most service that a sleeper is owed when it wakes.
    pub lag_us: u64,
    /// How much earlier a waking task must be due than the running one that it preempts.
    pub preempt_gran_us: u64,
}

/// Longer slices gain 2 % of throughput beside hogs in a deterministic guest and cost half of the latency of a server under
/// load; the tasks of a queue are apart by up to a slice, and whoever is ahead waits for it to pass on each of the others: at
/// 20 ms a second, with fifty of them on a CPU. The lag is a slice, as in EEVDF: where many sleep and wake, they are apart by
/// up to this, and whoever is behind waits for it to pass on every task in front.
pub const AUTO: Profile = Profile {
    name: "auto",
    slice_us: 3_000,
    slice_min_us: 1_000,
    lag_us: 3_000,
    preempt_gran_us: 100,
};

/// All of them, the default first.
pub const PROFILES: [Profile; 5] = [
    AUTO,
    // Whoever sleeps most of the time comes first, as long as it sleeps; nobody runs for long.
    Profile { name: "lowlatency", slice_us: 1_000, slice_min_us: 500, lag_us: 10_000, ..AUTO },
    // A game sleeps less than that, and needs what it is owed; short slices would only divide its frames.
    Profile { name: "gaming", lag_us: 10_000, ..AUTO },
    // Work in long pieces, and a request does not break into another one for little.
    Profile {
        name: "server",
        slice_us: 10_000,
        slice_min_us: 4_000,
        lag_us: 6_000,
        preempt_gran_us: 1_000,
    },
    // The fewest switches and interrupts.
    Profile {
        name: "powersave",
        slice_us: 20_000,
        slice_min_us: 8_000,
        lag_us: 10_000,
        preempt_gran_us: 3_000,
    },
];

/// Their names.
pub fn names() -> [&'static str; PROFILES.len()] {
    PROFILES.map(|profile| profile.name)
}

/// The profile of that name.
pub fn find(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

//! Quantities that must not be mixed up.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The number of a CPU, as the kernel counts them.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CpuId(pub u32);

impl CpuId {
    /// The number as an index into arrays with one element a CPU.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A span of wall or run time in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// From microseconds; the largest span there is when that overflows.
    pub const fn from_micros(us: u64) -> Self {
        Self(us.saturating_mul(1000))
    }

    /// From milliseconds; the largest span there is when that overflows.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// In microseconds, with the fraction.
    pub fn micros(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

impl From<Duration> for Nanos {
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Virtual time: nanoseconds of a nice 0 task (see `src/bpf/policy.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vtime(pub u64);

/// The load weight of a task: nice 0 is 1024, a nice step is a factor of 1.25.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Weight(pub u32);

impl Vtime {
    /// Whether it comes before `other`. Virtual time wraps around, as in the kernel.
    ///
    /// ```
    /// # use scheduler::units::Vtime;
    /// assert!(Vtime(u64::MAX).is_before(Vtime(5)));
    /// assert!(!Vtime(5).is_before(Vtime(5)));
    /// ```
    pub fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i64) < 0
    }

    /// Later by `span` of virtual time.
    pub fn after(self, span: Nanos) -> Self {
        Self(self.0.wrapping_add(span.0))
    }

    /// Earlier by `span` of virtual time.
    pub fn earlier_by(self, span: Nanos) -> Self {
        Self(self.0.wrapping_sub(span.0))
    }
}

impl Weight {
    /// The weight of nice 0.
    pub const NICE_0: Self = Self(1024);

    /// What a run of `span` is in the virtual time of a task of this weight.
    ///
    /// ```
    /// # use scheduler::units::{Nanos, Weight};
    /// assert_eq!(Weight(2048).scale(Nanos(1_000)), Nanos(500));
    /// ```
    pub fn scale(self, span: Nanos) -> Nanos {
        let scaled = u128::from(span.0) * u128::from(Self::NICE_0.0) / u128::from(self.0.max(1));
        Nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

/// The number of a task (a thread), in the initial PID namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

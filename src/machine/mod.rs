//! The real machine: what it has, and the way of the scheduler into its kernel and out again.

pub mod changes;
pub mod cpulist;
pub mod ejection;
pub mod enums;
pub mod notify;
pub mod output;
pub mod preflight;
pub(crate) mod program;
pub mod reader;
pub mod ruler;
pub mod scheduler;
pub mod stop;
pub mod topology;

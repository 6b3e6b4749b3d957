//! A CPU scheduler for Linux (sched_ext).
pub mod bpf;

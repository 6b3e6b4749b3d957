//! `scheduler`: a CPU scheduler for Linux, loaded into the kernel through sched_ext.
//!
//! The decisions are made in the kernel, by the BPF programs under `src/bpf`. This library is the
//! user's half: it checks the machine, loads and attaches those programs, tells them where the
//! CPUs are, reads their statistics, and takes them out again.
//!
//! Principles:
//! - The kernel's half needs nobody: once attached, it schedules whether or not this process runs.
//!   When this process ends in any way, the kernel returns to its default scheduler.
//! - What a machine may lack is probed once and named ([`machine::preflight`]); no bare errno.
//! - A setting is validated once, where it enters ([`cli`]), and is a plain value from there on
//!   ([`settings`]).
//! - Types and constants that both halves share come from one header ([`bpf::intf`]).
//! - Every way out has a documented exit code ([`exit::Exit`]).

pub mod bpf;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod exit;
pub mod machine;
pub mod settings;
pub mod stats;
pub mod units;
pub mod watch;

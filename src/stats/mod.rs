//! Statistics: what the kernel's half counts, decoded and shown.
//!
//! [`sample`] is the state at an instant, [`interval`] what happened between two of them,
//! [`tasks`] the same for tasks. [`table`], [`json`] and [`flat`] show an interval, [`metrics`] a sample. Nothing here talks to
//! the kernel: `machine::reader` does. [`demo`] makes samples up.

pub mod demo;
pub mod flat;
pub mod hist;
pub mod interval;
pub mod json;
pub mod metrics;
pub mod sample;
pub mod table;
pub mod tasks;
pub mod text;

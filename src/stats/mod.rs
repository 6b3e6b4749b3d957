//! Statistics: what the kernel's half counts, decoded and shown.
//!
//! [`sample`] is the state at an instant, [`interval`] what happened between two of them,
//! [`tasks`] the same for tasks. [`table`] and [`json`] show an interval. Nothing here talks to
//! the kernel: `machine::reader` does.

pub mod hist;
pub mod interval;
pub mod json;
pub mod sample;
pub mod table;
pub mod tasks;
pub mod text;

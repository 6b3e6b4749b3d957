//! The real machine: what it has, and the way of the scheduler into and out of its kernel.

pub mod preflight;

//! Guests: boot a kernel, run, collect.

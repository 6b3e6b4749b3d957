//! Statistics: what the kernel's half counts, decoded and shown.

pub mod text;

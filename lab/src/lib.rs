//! Guests: boot a kernel in QEMU, run code inside it, collect the results. No root, no image, no network.
//!
//! A test binary built on this crate is two programs in one. On the host it finds kernels ([`kernel`]),
//! packs itself and the tools into an initramfs ([`initramfs`]) and boots it ([`qemu`]). As process 1 of
//! that guest ([`init`]) it runs its cases ([`suite`]), which are plain functions over a [`vm::Vm`], and
//! writes one JSON line a case to the second serial port.
//!
//! Benchmarks ([`bench`]) boot the same guests with a smaller process 1.

pub mod bench;
mod boot;
pub mod demo;
pub mod initramfs;
pub mod kernel;
pub mod qemu;
pub mod scale;
pub mod suite;

pub use lab_guest::{init, process, vm};
pub use suite::{Case, Suite};
pub use vm::Vm;

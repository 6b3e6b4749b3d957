//! What runs inside guests. A crate of its own, so that a change on the host's side leaves `lab-guest`, process 1
//! of the benchmarks, as it was, byte for byte: in a deterministic guest every byte decides, and samples that were
//! taken before stay comparable.

pub mod bench;
pub mod init;
pub mod plan;
pub mod probe;
pub mod process;
pub mod vm;

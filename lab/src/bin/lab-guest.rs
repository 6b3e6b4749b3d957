//! Process 1 of the benchmarks' guests, and under the name `probe` the lab's own probes.
//!
//! A program of its own, so that a change on the host's side leaves the guest as it was, byte for byte:
//! in a deterministic guest every byte decides.

use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match lab::init::is_guest() {
        true => lab::bench::guest::main().map(|never| match never {}),
        false => lab::probe::main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

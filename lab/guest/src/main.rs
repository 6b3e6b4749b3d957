//! Process 1 of the benchmarks' guests, and under the name `probe` the lab's own probes.

use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match lab_guest::init::is_guest() {
        true => lab_guest::bench::main().map(|never| match never {}),
        false => lab_guest::probe::main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

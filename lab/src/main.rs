//! The lab as a program: `lab --help`.

use anyhow::Result;
use clap::Parser;
use std::{path::PathBuf, process::ExitCode};

/// Guests for the scheduler: a show, benchmarks, the gate. Run it in the repository's root.
#[derive(Parser)]
#[command(name = "lab")]
enum Command {
    /// Show the scheduler under load for some seconds
    Run {
        /// The scheduler's program
        scheduler: PathBuf,
    },
    /// Run scenarios under the kernel's default, ours and peers, and write a report
    Bench(lab::bench::BenchArgs),
    /// Compare a short scenario with the committed baseline
    Gate(lab::bench::GateArgs),
    /// Measure how the simulator grows with the machine that it simulates
    Scale(lab::scale::ScaleArgs),
}

fn main() -> ExitCode {
    let result = match lab::init::is_guest() {
        true => lab::demo::guest().map(|never| match never {}),
        false => host(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn host() -> Result<()> {
    match Command::parse() {
        Command::Run { scheduler } => lab::demo::run(&scheduler),
        Command::Bench(args) => lab::bench::bench(&args),
        Command::Gate(args) => lab::bench::gate(&args),
        Command::Scale(args) => lab::scale::scale(&args),
    }
}

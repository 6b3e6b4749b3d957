//! The lab as a program: `lab run SCHEDULER` shows the scheduler at work.

use anyhow::{Result, bail};
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let result =
        if lab::init::is_guest() { lab::demo::guest().map(|never| match never {}) } else { host() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn host() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", scheduler] => lab::demo::run(scheduler.as_ref()),
        _ => bail!("usage: lab run PATH-OF-THE-SCHEDULER"),
    }
}

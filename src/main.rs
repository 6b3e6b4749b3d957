//! The program. See `scheduler --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    scheduler::commands::main(std::env::args_os(), None)
}

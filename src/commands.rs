//! The commands, and how each ends.

use crate::{
    cli::{self, Request},
    exit::{Exit, Failure},
    machine::preflight::{self, Host},
    settings::Settings,
};
use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

/// The whole program: from the command line, the program's name first, to the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let result = cli::parse(args).and_then(|request| match request {
        Request::Schedule(settings) => schedule(&settings),
        Request::Doctor => doctor(),
        Request::Print(text) => print(&text).map(|()| Exit::Stopped),
    });
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            complain(&format!("{:#}", failure.error));
            failure.exit.into()
        }
    }
}

/// One message to the user. A closed standard error is no reason to end otherwise.
pub fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "scheduler: {message}");
}

/// Prints a text and is done. A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("writing to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// `scheduler doctor`: 0, or 78 when a load would fail for whatever reason.
fn doctor() -> Result<Exit, Failure> {
    let report = preflight::full(&Host::real());
    print(&report.to_string())?;
    Ok(if report.fault().is_some() { Exit::Unsupported } else { Exit::Stopped })
}

/// `scheduler`: schedules until it is stopped or ejected.
fn schedule(_settings: &Settings) -> Result<Exit, Failure> {
    let host = Host::real();
    let report = preflight::quick(&host);
    if let Some(exit) = report.exit() {
        return Err(Failure::new(exit, format!("cannot schedule on this machine:\n{report}")));
    }
    Ok(Exit::Stopped)
}

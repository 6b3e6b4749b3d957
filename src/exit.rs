//! How the program ends: the exit codes, and the error that carries one.

use nix::errno::Errno;
use std::{io, process::ExitCode};

/// The exit codes. They are part of the interface: service managers and scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The user stopped it (SIGINT, SIGTERM, a terminal that has gone), or the reader of its output went away.
    Stopped = 0,
    /// The kernel ejected it, or it failed at run time.
    Failed = 1,
    /// The command line or the configuration file is wrong. Nothing was attached.
    Usage = 2,
    /// Another sched_ext scheduler is attached (EX_TEMPFAIL: trying again may help).
    Busy = 75,
    /// Capabilities are missing, or a policy's memory cannot be locked (EX_NOPERM).
    NotPermitted = 77,
    /// This kernel cannot run it, or this version cannot run the policy (EX_CONFIG).
    Unsupported = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why the system refused, in words alone: its number tells a user nothing.
pub fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |n| Errno::from_raw(n).desc().to_owned())
}

/// An error with the exit code that it ends the program with. The message says what was being
/// done, to what, and what the user can do.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// The message.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()) }
    }
}

/// Whatever has no code of its own is a failure at run time.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, error: error.into() }
    }
}

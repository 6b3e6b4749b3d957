//! The kernel's exit report: why it detached the scheduler.

use crate::stats::text;
use std::fmt;

/// `SCX_EXIT_UNREG` of the kernel's `enum scx_exit_kind`: user space detached it. The numbers
/// below 1024 are orderly ends, those from there on errors.
const UNREGISTERED: i32 = 64;
const ERRORS_FROM: i32 = 1024;

/// Why the scheduler is no longer attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExitReport {
    /// The kernel's `enum scx_exit_kind`; 0 while the kernel has said nothing.
    pub kind: i32,
    /// The code that a scheduler or the kernel gave along, 0 for none.
    pub code: i64,
    /// Where it happened; negative if unknown.
    pub cpu: i32,
    /// The kind in the kernel's words.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// The state of CPUs and tasks at that time, a line a line; empty for most orderly ends.
    pub dump: Vec<String>,
}

impl ExitReport {
    /// Whether it ended because we detached it, rather than for any reason of the kernel's.
    pub fn is_by_us(&self) -> bool {
        matches!(self.kind, 0 | UNREGISTERED)
    }

    /// From the bytes of the kernel's half. Reason, message and dump are C strings, and may hold
    /// the names of tasks.
    pub fn decode(
        kind: i32,
        code: i64,
        cpu: i32,
        reason: &[u8],
        message: &[u8],
        dump: &[u8],
    ) -> Self {
        let dump = match text::until_nul(dump) {
            [] => Vec::new(),
            dump => text::printable_lines(dump),
        };
        Self {
            kind,
            code,
            cpu,
            reason: text::printable(text::until_nul(reason)),
            message: text::printable(text::until_nul(message)),
            dump,
        }
    }
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.kind >= ERRORS_FROM { "ejected" } else { "detached" };
        write!(f, "the kernel {verb} the scheduler: {} (kind {}", self.reason, self.kind)?;
        if self.code != 0 {
            write!(f, ", code {:#x}", self.code)?;
        }
        if self.cpu >= 0 {
            write!(f, ", CPU {}", self.cpu)?;
        }
        f.write_str(")")?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if !self.dump.is_empty() {
            f.write_str("\n--- the kernel's dump ---")?;
            self.dump.iter().try_for_each(|line| write!(f, "\n{line}"))?;
            f.write_str("\n--- end of the dump ---")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_in_full() {
        let report = ExitReport::decode(
            1026,
            0,
            3,
            b"runnable task stall\0\0",
            b"\x1bhog[12] failed to run for 5.1s\0",
            b"CPU states\n\trq\0\0\0",
        );
        assert!(!report.is_by_us());
        assert_eq!(
            report.to_string(),
            "the kernel ejected the scheduler: runnable task stall (kind 1026, CPU 3): \
             \\x1bhog[12] failed to run for 5.1s\n--- the kernel's dump ---\nCPU states\n\trq\n\
             --- end of the dump ---"
        );
    }

    #[test]
    fn an_orderly_end_by_others() {
        let report = ExitReport::decode(67, 0, -1, b"SysRq\0", b"\0", b"\0");
        assert!(!report.is_by_us());
        assert_eq!(report.to_string(), "the kernel detached the scheduler: SysRq (kind 67)");
        assert!(ExitReport::decode(64, 0, -1, b"", b"", b"").is_by_us());
    }
}

//! One run of the command.

use crate::machine::stop::Stop;
use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Usage, UsageWho, getrusage},
        signal::{Signal, killpg},
        time::TimeValLike,
    },
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use std::{
    ffi::OsString,
    io::{self, ErrorKind, PipeReader, Read},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The end of the output that is kept: room for any summary, and a bound for any flood.
const OUTPUT_MAX: usize = 1 << 20;
/// How often the caller's own work is done meanwhile.
const TEND_PERIOD: Duration = Duration::from_millis(500);
/// What a command gets to end in when it is asked to.
const GRACE: Duration = Duration::from_secs(2);

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// From its start to its end.
    pub wall: Duration,
    /// Time on CPUs, its own and that of the children it waited for.
    pub cpu: Duration,
    /// Context switches, voluntary or not, of the same.
    pub switches: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// The last of what it wrote to standard output and standard error.
    pub output: String,
}

/// Runs the command to its end. None if `stop` came first; then it is ended. `tend` is called now and then.
pub fn run(
    command: &[OsString],
    stop: &Stop,
    tend: &mut dyn FnMut() -> Result<()>,
) -> Result<Option<Run>> {
    let (name, args) = command.split_first().context("no command")?;
    let (reader, writer) = io::pipe().context("creating a pipe for the command's output")?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("preparing the pipe")?;
    let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let start = Instant::now();
    let child = Command::new(name)
        .args(args)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // A group of its own: Ctrl-C reaches us, and we end all of it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting the command {}", name.display()))?;
    let mut running = Running { child, reader: Some(reader), output: Vec::new() };
    if !running.wait(stop, tend)? {
        return Ok(None);
    }
    let wall = start.elapsed();
    let status = running.child.wait()?;
    running.take_output();
    let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let tail = running.output.len().saturating_sub(OUTPUT_MAX);
    Ok(Some(Run {
        wall,
        cpu: cpu_time(&after).saturating_sub(cpu_time(&before)),
        switches: switches(&after).saturating_sub(switches(&before)),
        status,
        output: String::from_utf8_lossy(&running.output[tail..]).into_owned(),
    }))
}

fn cpu_time(usage: &Usage) -> Duration {
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(us.try_into().unwrap_or(0))
}

fn switches(usage: &Usage) -> u64 {
    let all = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    all.try_into().unwrap_or(0)
}

/// A command that runs. Ended with all of its group when this is dropped early.
struct Running {
    child: Child,
    /// None when everybody has closed the other end.
    reader: Option<PipeReader>,
    output: Vec<u8>,
}

impl Running {
    /// False if a stop came first.
    fn wait(&mut self, stop: &Stop, tend: &mut dyn FnMut() -> Result<()>) -> Result<bool> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let ended = pidfd_open(pid, PidfdFlags::empty()).context("watching the command")?;
        loop {
            let mut fds = vec![
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.reader.iter().map(|r| PollFd::new(r.as_fd(), PollFlags::POLLIN)));
            let timeout = PollTimeout::try_from(TEND_PERIOD).unwrap_or(PollTimeout::MAX);
            let ready = match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => continue,
                result => result.context("waiting for the command")?,
            };
            let [ended, stopped] = [0, 1].map(|i| fds[i].any() == Some(true));
            if ended || stopped {
                return Ok(ended);
            }
            if ready == 0 {
                tend()?;
            }
            self.take_output();
        }
    }

    /// Reads what there is.
    fn take_output(&mut self) {
        let mut buffer = [0; 1 << 16];
        while let Some(reader) = &mut self.reader {
            match reader.read(&mut buffer) {
                Ok(0) => self.reader = None,
                Ok(n) => {
                    self.output.extend_from_slice(&buffer[..n]);
                    if self.output.len() > 2 * OUTPUT_MAX {
                        self.output.drain(..OUTPUT_MAX);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.reader = None,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let over = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if over(&mut self.child) {
            return;
        }
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let group = Pid::from_raw(pid);
        // It may end by itself in between.
        let _ = killpg(group, Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if over(&mut self.child) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, stop: &Stop) -> Option<Run> {
        let command = ["sh", "-c", script].map(OsString::from);
        run(&command, stop, &mut || Ok(())).expect("a run")
    }

    #[test]
    fn a_run_is_measured() {
        let stop = Stop::new().expect("an event");
        let run = sh("echo out; echo err >&2; sleep 0.1; exit 3", &stop).expect("not stopped");
        assert_eq!((run.status.code(), run.output.as_str()), (Some(3), "out\nerr\n"));
        assert!(run.wall >= Duration::from_millis(100) && run.wall < Duration::from_secs(10));
        assert!(run.cpu < run.wall && run.switches > 0, "{run:?}");
    }

    #[test]
    fn a_flood_is_cut_to_its_end_and_a_daemon_is_not_waited_for() {
        let stop = Stop::new().expect("an event");
        let run = sh("yes | head -c 5000000; echo last; sleep 20 & exit 0", &stop);
        let run = run.expect("not stopped");
        assert!(run.output.len() <= OUTPUT_MAX && run.output.ends_with("y\nlast\n"));
        assert!(run.wall < Duration::from_secs(15), "{:?}", run.wall);
    }

    #[test]
    fn a_stop_ends_the_command() {
        let stop = Stop::new().expect("an event");
        stop.trigger();
        let start = Instant::now();
        assert!(sh("sleep 20", &stop).is_none());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let stop = Stop::new().expect("an event");
        let command = [OsString::from("/nonexistent/x")];
        let error = run(&command, &stop, &mut || Ok(())).expect_err("no such file");
        assert!(error.to_string().contains("/nonexistent/x"), "{error:#}");
    }
}

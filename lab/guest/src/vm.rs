//! The guest as a case sees it.

use crate::process::{Finished, Running};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::{
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Where the scheduler under test lies in a guest.
pub const SCHEDULER: &str = "/bin/scheduler";

/// What a broken kernel or an ejected scheduler says.
const FAULTS: [&str; 7] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "Kernel panic",
    "rcu: INFO:",
    "blocked for more than",
    "call trace",
];

/// The guest that a case runs in.
pub struct Vm {
    kernel_log: File,
    log: String,
    said: String,
    expected: Vec<&'static str>,
}

impl Vm {
    /// Begins a case: what the kernel says from here on is the case's.
    pub fn new() -> Result<Self> {
        let mut kernel_log = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("opening the kernel's log")?;
        kernel_log.seek(SeekFrom::End(0)).context("finding the end of the kernel's log")?;
        Ok(Self { kernel_log, log: String::new(), said: String::new(), expected: Vec::new() })
    }

    /// Notes something for the reader of the results.
    pub fn say(&mut self, line: impl Display) {
        self.said += &format!("{line}\n");
    }

    /// What the case has noted.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Tells that the kernel may say this, although it looks like a fault.
    pub fn expect_log(&mut self, text: &'static str) {
        self.expected.push(text);
    }

    /// Everything that the kernel said since the case began.
    pub fn kernel_log(&mut self) -> &str {
        const RECORD_BYTES: usize = 8192;
        let mut record = [0; RECORD_BYTES];
        loop {
            match self.kernel_log.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    // "priority,number,time,flags;text", then lines of key=value.
                    let text = String::from_utf8_lossy(&record[..length]);
                    let text = text.split_once(';').map_or(&*text, |(_, text)| text);
                    self.log += text.split_inclusive('\n').next().unwrap_or_default();
                }
                // Overtaken by the writer: the next read goes on with the oldest record.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(_) => break,
            }
        }
        &self.log
    }

    /// The lines of the kernel's log that tell of a fault or an ejection which the case did not expect.
    pub fn faults(&mut self) -> Vec<String> {
        self.kernel_log();
        let is_fault = |line: &&str| {
            let ejected = line.contains("sched_ext: ")
                && (line.contains("disabled (") && !line.contains("unregistered from user space")
                    || line.contains("failed"));
            ejected || FAULTS.iter().any(|fault| line.contains(fault))
        };
        let is_expected = |line: &str| self.expected.iter().any(|text| line.contains(text));
        self.log
            .lines()
            .filter(is_fault)
            .filter(|line| !is_expected(line))
            .map(String::from)
            .collect()
    }

    /// Starts a program; the first word is its name.
    pub fn start(&self, command: &[&str]) -> Result<Running> {
        let (program, args) = command.split_first().context("an empty command")?;
        Running::start(Command::new(program).args(args))
    }

    /// Runs a program to its end.
    pub fn run(&self, command: &[&str], limit: Duration) -> Result<Finished> {
        self.start(command)?.wait(limit)
    }

    /// Starts the scheduler with these flags and waits until it schedules.
    pub fn scheduler(&self, flags: &[&str]) -> Result<Scheduler> {
        Scheduler::start(&mut Command::new(SCHEDULER), flags)
    }

    /// The scheduler's state in the kernel: `enabled`, `disabled`, …
    pub fn state(&self) -> Result<String> {
        sched_ext("state")
    }

    /// Waits until the state is this.
    pub fn wait_for_state(&self, state: &str, limit: Duration) -> Result<Duration> {
        wait_for(limit, || Ok(sched_ext("state")? == state))
            .with_context(|| format!("waiting for sched_ext to be {state}"))
    }

    /// How many BPF programs, maps and links the kernel holds, loaded by anyone.
    pub fn bpf_objects(&self) -> Result<BpfObjects> {
        BpfObjects::count()
    }
}

/// Waits until `done` says so, and returns how long it took; an error after `limit`.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<Duration> {
    const POLL: Duration = Duration::from_millis(5);
    let begin = Instant::now();
    while !done()? {
        ensure!(begin.elapsed() < limit, "nothing after {limit:?}");
        thread::sleep(POLL);
    }
    Ok(begin.elapsed())
}

/// A file of `/sys/kernel/sched_ext`, trimmed.
pub fn sched_ext(file: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/sys/kernel/sched_ext/{file}"));
    Ok(text.with_context(|| format!("reading sched_ext/{file}"))?.trim().to_owned())
}

/// The scheduler under test while it schedules. Dropped, it is killed.
pub struct Scheduler {
    process: Running,
    /// From start to `enabled`.
    pub started_in: Duration,
    /// The part of it after the programs were loaded; as far as it is known, from `-v`.
    pub attached_in: Option<Duration>,
}

impl Scheduler {
    /// Long enough for a loaded guest on a loaded host; cases that care look at [`Self::started_in`].
    const START_LIMIT: Duration = Duration::from_secs(60);

    /// Starts `command` with these flags and waits until it schedules.
    pub fn start(command: &mut Command, flags: &[&str]) -> Result<Self> {
        let begin = Instant::now();
        let mut process = Running::start(command.args(flags))?;
        let mut loaded = None;
        wait_for(Self::START_LIMIT, || {
            if loaded.is_none() && process.stderr().contains("loaded") {
                loaded = Some(Instant::now());
            }
            if process.has_ended()? {
                bail!("the scheduler ended:\n{}{}", process.stdout(), process.stderr());
            }
            Ok(sched_ext("state")? == "enabled")
        })
        .context("waiting for the scheduler to be enabled")?;
        Ok(Self {
            process,
            started_in: begin.elapsed(),
            attached_in: loaded.map(|at| at.elapsed()),
        })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.process
    }

    /// Sends a signal and waits for the end.
    pub fn stop(self, signal: Signal) -> Result<Finished> {
        const LIMIT: Duration = Duration::from_secs(30);
        self.process.signal(signal)?;
        self.process.wait(LIMIT)
    }

    /// Stops it as a user does, and insists on a clean end.
    pub fn finish(self) -> Result<Finished> {
        let end = self.stop(Signal::SIGINT)?;
        ensure!(
            end.code == 0,
            "the scheduler ended with {}:\n{}{}",
            end.code,
            end.stdout,
            end.stderr
        );
        ensure!(
            sched_ext("state")? == "disabled",
            "sched_ext is {} after the end",
            sched_ext("state")?
        );
        Ok(end)
    }

    /// Insists that it still schedules.
    pub fn check_alive(&mut self) -> Result<()> {
        let ended = self.process.has_ended()?;
        let state = sched_ext("state")?;
        ensure!(
            !ended && state == "enabled",
            "sched_ext is {state}; the scheduler said:\n{}",
            self.process.stderr()
        );
        Ok(())
    }
}

/// How many objects of each kind the kernel's BPF half holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfObjects {
    /// Loaded programs.
    pub programs: usize,
    /// Maps.
    pub maps: usize,
    /// Links.
    pub links: usize,
}

impl BpfObjects {
    /// Asks the kernel (`bpf(BPF_*_GET_NEXT_ID)`).
    pub fn count() -> Result<Self> {
        const PROG_GET_NEXT_ID: i32 = 11;
        const MAP_GET_NEXT_ID: i32 = 12;
        const LINK_GET_NEXT_ID: i32 = 31;
        Ok(Self {
            programs: count_ids(PROG_GET_NEXT_ID)?,
            maps: count_ids(MAP_GET_NEXT_ID)?,
            links: count_ids(LINK_GET_NEXT_ID)?,
        })
    }
}

fn count_ids(command: i32) -> Result<usize> {
    /// The first fields of `union bpf_attr` for these commands.
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        start_id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut attr = Attr::default();
    for count in 0.. {
        // SAFETY: `attr` lives through the call and its size is given.
        let done = unsafe {
            nix::libc::syscall(nix::libc::SYS_bpf, command, &raw mut attr, size_of::<Attr>())
        };
        match nix::errno::Errno::result(done) {
            Ok(_) => attr.start_id = attr.next_id,
            Err(nix::errno::Errno::ENOENT) => return Ok(count),
            Err(error) => return Err(error).context("counting BPF objects"),
        }
    }
    Ok(0)
}

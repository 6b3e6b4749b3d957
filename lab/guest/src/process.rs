//! Processes inside a guest: programs with a time limit, and hogs of known affinity, nice level and class.

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    libc,
    sched::{CpuSet, sched_setaffinity},
    sys::signal::{Signal, kill},
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(2);

/// A program that runs, its output going to files.
pub struct Running {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; 128 + N when signal N ended it, as in a shell.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it took to end, from the call that waited.
    pub took: Duration,
}

impl Running {
    /// Starts a command line. Standard output and error are kept; `command` may redirect neither.
    pub fn start(command: &mut Command) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = command.get_program().to_string_lossy().into_owned();
        let [stdout, stderr] =
            ["out", "err"].map(|kind| env::temp_dir().join(format!("lab-{number}.{kind}")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name, stdout, stderr })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Waits for its end; after `limit` it is killed, which is an error.
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                let took = begin.elapsed();
                return Ok(Finished {
                    code: code(status),
                    stdout: self.stdout(),
                    stderr: self.stderr(),
                    took,
                });
            }
            thread::sleep(POLL);
        }
        bail!("{} had not ended after {limit:?}:\n{}{}", self.name, self.stdout(), self.stderr());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_file(&self.stdout).ok();
        fs::remove_file(&self.stderr).ok();
    }
}

fn read_lossy(path: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A scheduling policy of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_OTHER`.
    Other,
    /// `SCHED_BATCH`.
    Batch,
    /// `SCHED_IDLE`.
    Idle,
    /// `SCHED_FIFO` at priority 10.
    Fifo,
    /// `SCHED_FIFO` at priority 20, before [`Policy::Fifo`].
    FifoFirst,
    /// `SCHED_EXT`.
    Ext,
}

impl Policy {
    /// The kernel's number and the real-time priority.
    fn numbers(self) -> (i32, i32) {
        const SCHED_EXT: i32 = 7;
        match self {
            Self::Other => (libc::SCHED_OTHER, 0),
            Self::Batch => (libc::SCHED_BATCH, 0),
            Self::Idle => (libc::SCHED_IDLE, 0),
            Self::Fifo => (libc::SCHED_FIFO, 10),
            Self::FifoFirst => (libc::SCHED_FIFO, 20),
            Self::Ext => (SCHED_EXT, 0),
        }
    }
}

/// A process that computes, to be started with [`HogPlan::start`].
#[derive(Clone, Debug)]
pub struct HogPlan {
    cpus: Vec<usize>,
    nice: i32,
    policy: Policy,
    run_us: u64,
    sleep_us: u64,
}

/// A hog of nice 0 that may run everywhere and never sleeps.
pub fn hog() -> HogPlan {
    HogPlan { cpus: Vec::new(), nice: 0, policy: Policy::Other, run_us: 0, sleep_us: 0 }
}

impl HogPlan {
    /// The word that makes a test binary act as a hog.
    const ROLE: &str = "lab-hog";

    /// May run on these CPUs only.
    pub fn on(mut self, cpus: &[usize]) -> Self {
        self.cpus = cpus.to_vec();
        self
    }

    /// Runs at this nice level.
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = nice;
        self
    }

    /// Runs under this policy.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Computes for `run_us` of CPU time, sleeps for `sleep_us`, and so on.
    pub fn sleeping(mut self, run_us: u64, sleep_us: u64) -> Self {
        (self.run_us, self.sleep_us) = (run_us, sleep_us);
        self
    }

    /// Starts it, and returns when it computes with these settings.
    pub fn start(&self) -> Result<Hog> {
        let cpus: Vec<String> = self.cpus.iter().map(ToString::to_string).collect();
        let (policy, priority) = self.policy.numbers();
        let mut child = Command::new("/proc/self/exe")
            .args([
                Self::ROLE,
                &cpus.join(","),
                &self.nice.to_string(),
                &policy.to_string(),
                &priority.to_string(),
            ])
            .args([self.run_us.to_string(), self.sleep_us.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a hog")?;
        let stdout = child.stdout.take().context("a hog's output")?;
        let hog = Hog { child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "a hog could not begin: {line}");
        Ok(hog)
    }

    /// If this process was started as a hog, does that for ever.
    pub fn act() -> Result<()> {
        let args: Vec<String> = env::args().skip(1).collect();
        let [role, cpus, nice, policy, priority, run_us, sleep_us] = args.as_slice() else {
            return Ok(());
        };
        if role != Self::ROLE {
            return Ok(());
        }
        let cpus: Vec<usize> = cpus.split(',').filter_map(|cpu| cpu.parse().ok()).collect();
        let settings = apply(&cpus, nice.parse()?, policy.parse()?, priority.parse()?);
        match settings {
            Ok(()) => println!("ready"),
            Err(error) => println!("{error:#}"),
        }
        std::io::stdout().flush()?;
        compute(run_us.parse()?, Duration::from_micros(sleep_us.parse()?))
    }
}

/// Gives this process its CPUs, policy and nice level.
fn apply(cpus: &[usize], nice: i32, policy: i32, priority: i32) -> Result<()> {
    let this = Pid::from_raw(0);
    set_policy_numbers(this, policy, priority)?;
    // SAFETY: plain numbers go in, nothing is dereferenced.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    Errno::result(done).with_context(|| format!("setting nice {nice}"))?;
    // Last, so that a real-time hog arrives on its CPU as one.
    if !cpus.is_empty() {
        set_affinity(this, cpus)?;
    }
    Ok(())
}

/// Moves a process under a policy.
pub fn set_policy(pid: Pid, policy: Policy) -> Result<()> {
    let (policy, priority) = policy.numbers();
    set_policy_numbers(pid, policy, priority)
}

fn set_policy_numbers(pid: Pid, policy: i32, priority: i32) -> Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` lives through the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(pid.as_raw(), policy, &raw const param) };
    Errno::result(done).with_context(|| format!("setting policy {policy}"))?;
    Ok(())
}

/// While it lives, this process runs before all hogs, those of [`Policy::Fifo`] among them: a case that waits for
/// the hogs it watches judges nothing.
pub struct First(());

impl First {
    /// From now on.
    pub fn begin() -> Result<Self> {
        set_policy(Pid::from_raw(0), Policy::FifoFirst)?;
        Ok(Self(()))
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // The cases after this one would tell.
        set_policy(Pid::from_raw(0), Policy::Other).ok();
    }
}

/// Lets a process run on these CPUs only.
pub fn set_affinity(pid: Pid, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu).with_context(|| format!("naming CPU {cpu}"))?;
    }
    sched_setaffinity(pid, &set).with_context(|| format!("setting affinity {cpus:?}"))
}

fn compute(run_us: u64, sleep: Duration) -> ! {
    let cpu_time =
        || clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from);
    loop {
        if sleep.is_zero() {
            // Plain work: QEMU ends a virtual CPU's turn at every `pause`.
            for number in 0..u64::MAX {
                std::hint::black_box(number);
            }
            continue;
        }
        let begin = cpu_time().unwrap_or_default();
        while cpu_time().unwrap_or_default().saturating_sub(begin) < Duration::from_micros(run_us) {
        }
        thread::sleep(sleep);
    }
}

/// A hog that runs, until it is dropped.
pub struct Hog {
    child: Child,
}

impl Hog {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The CPU time it has had, exact to the nanosecond.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.pid())
    }

    /// The CPU that it runs on, or ran on last.
    pub fn last_cpu(&self) -> Result<usize> {
        last_cpu(self.pid())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The CPU time of a process, exact to the nanosecond.
pub fn cpu_time(pid: Pid) -> Result<Duration> {
    let clock =
        clock_getcpuclockid(pid).with_context(|| format!("finding the clock of process {pid}"))?;
    Ok(clock_gettime(clock).context("reading the clock of a process")?.into())
}

/// The CPU that a process runs on, or ran on last.
pub fn last_cpu(pid: Pid) -> Result<usize> {
    /// Position of `processor` in /proc/PID/stat, counted after the name (proc_pid_stat(5)).
    const AFTER_NAME: usize = 36;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a stat line without a name")?;
    let field = fields.split(' ').nth(AFTER_NAME).context("a short stat line")?;
    Ok(field.parse()?)
}

/// The CPU times that hogs get while `window` passes.
pub fn cpu_times_over(hogs: &[Hog], window: Duration) -> Result<Vec<Duration>> {
    let before: Vec<Duration> = hogs.iter().map(Hog::cpu_time).collect::<Result<_>>()?;
    thread::sleep(window);
    hogs.iter().zip(before).map(|(hog, before)| Ok(hog.cpu_time()? - before)).collect()
}

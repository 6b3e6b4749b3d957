//! The guest's side of a benchmark: process 1 carries out the plan and sends what came out.

use crate::{
    init,
    plan::{Idle, Message, Output, PLAN, PartRecord, Plan, SAMPLE, SAMPLE_OFFSET_US},
    vm::{Scheduler, Vm},
};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    env,
    fs::{self, File},
    io::Write,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Carries out the plan and switches the guest off.
pub fn main() -> Result<Infallible> {
    let ran = init::set_up().and_then(|()| {
        let mut port = File::options()
            .write(true)
            .open("/dev/ttyS1")
            .context("opening the port of results")?;
        let mut send = |message: &Message| -> Result<()> {
            let line = serde_json::to_string(message)? + "\n";
            port.write_all(line.as_bytes()).context("writing results")
        };
        match carry_out(&mut send) {
            Ok(()) => send(&Message::Done),
            Err(error) => send(&Message::Failed(format!("{error:#}"))),
        }
    });
    if let Err(error) = ran {
        eprintln!("lab: {error:#}");
    }
    init::power_off()
}

fn carry_out(send: &mut impl FnMut(&Message) -> Result<()>) -> Result<()> {
    let plan = fs::read(Path::new("/").join(PLAN)).context("reading the plan")?;
    let plan: Plan = serde_json::from_slice(&plan).context("reading the plan")?;
    let cpus = thread::available_parallelism().context("counting CPUs")?;
    // SAFETY: process 1 has one thread here, and nothing reads the environment meanwhile.
    unsafe { env::set_var("CPUS", cpus.to_string()) };
    let mut vm = Vm::new()?;
    let sample: u64 = init::parameter(SAMPLE).and_then(|word| word.parse().ok()).unwrap_or(0);
    thread::sleep(Duration::from_micros(sample * SAMPLE_OFFSET_US));
    let mut scheduler = match plan.scheduler.split_first() {
        None => None,
        Some((program, args)) => {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Some(Scheduler::start(&mut Command::new(program), &args)?)
        }
    };
    send(&Message::Idle(wait_until_idle(cpus.get())?))?;
    for (name, run) in &plan.parts {
        send(&Message::Begin(name.clone()))?;
        let loads = run.load.iter().enumerate().map(|(number, line)| Load::start(number, line));
        let loads: Vec<Load> = loads.collect::<Result<_>>()?;
        thread::sleep(Duration::from_millis(run.settle_ms));
        let probe = probe(&run.probe)?;
        let loads = loads.into_iter().map(Load::end).collect::<Result<_>>()?;
        if let Some(scheduler) = &mut scheduler {
            scheduler.check_alive()?;
        }
        send(&Message::Part(PartRecord { name: name.clone(), probe, loads }))?;
    }
    let faults = vm.faults();
    ensure!(faults.is_empty(), "faults in the kernel's log: {}", faults.join("; "));
    Ok(())
}

/// A line for the shell.
fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null());
    command
}

/// Runs to its end, in silence on this side: process 1 waits in the kernel and wakes for output only.
fn probe(line: &str) -> Result<Output> {
    const SAID_MAX: usize = 400;
    let begin = Instant::now();
    let out = shell(line).output().with_context(|| format!("starting `{line}`"))?;
    let seconds = begin.elapsed().as_secs_f64();
    let stdout = String::from_utf8_lossy(&out.stdout);
    let stderr = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        let said = if stderr.trim().is_empty() { &stdout } else { &stderr };
        let said: String = said.trim().chars().take(SAID_MAX).collect();
        bail!("`{line}` ended with {}: {said}", code(out.status));
    }
    // Some tools report on standard error.
    let text = format!("{stdout}{stderr}");
    Ok(Output { code: code(out.status), seconds, stdout: without_zeros(&text) })
}

/// A command beside the probe, in a process group of its own.
struct Load {
    child: Child,
    line: String,
    out: PathBuf,
    begin: Instant,
}

impl Load {
    fn start(number: usize, line: &str) -> Result<Self> {
        let out = env::temp_dir().join(format!("load-{number}"));
        let file = File::create(&out).with_context(|| format!("creating {}", out.display()))?;
        let child = shell(line)
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting `{line}`"))?;
        Ok(Self { child, line: line.to_owned(), out, begin: Instant::now() })
    }

    /// Interrupts it, and kills what does not heed that.
    fn end(mut self) -> Result<Output> {
        const HEED: Duration = Duration::from_secs(10);
        const POLL: Duration = Duration::from_millis(20);
        let group = Pid::from_raw(self.child.id().cast_signed());
        if let Some(status) = self.child.try_wait()? {
            ensure!(
                status.success(),
                "the load `{}` ended early with {}: {}",
                self.line,
                code(status),
                self.text().lines().last().unwrap_or("nothing")
            );
        }
        killpg(group, Signal::SIGINT).ok();
        let interrupted = Instant::now();
        while self.child.try_wait()?.is_none() && interrupted.elapsed() < HEED {
            thread::sleep(POLL);
        }
        // Whoever is left of the group, the first process among them or not.
        killpg(group, Signal::SIGKILL).ok();
        let status = self.child.wait().context("waiting for a load")?;
        let seconds = self.begin.elapsed().as_secs_f64();
        Ok(Output { code: code(status), seconds, stdout: without_zeros(&self.text()) })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Leaves out lines of a histogram whose counts are all 0: of cyclictest's, nearly all.
fn without_zeros(text: &str) -> String {
    let counts_nothing = |line: &&str| {
        let mut words = line.split_whitespace();
        let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        let is_zero = |word: &str| word.bytes().all(|byte| byte == b'0');
        words.next().is_some_and(is_number) && line.contains(' ') && words.all(is_zero)
    };
    text.lines().filter(|line| !counts_nothing(line)).map(|line| format!("{line}\n")).collect()
}

/// Waits for a second in which next to nothing runs, and tells how little that was.
fn wait_until_idle(cpus: usize) -> Result<Idle> {
    const WINDOW: Duration = Duration::from_secs(1);
    const BUSY_PERCENT_MAX: f64 = 1.0;
    const WINDOWS: u32 = 60;
    let mut busiest = String::new();
    let mut last_percent = 0.0;
    for waited_s in 0..WINDOWS {
        let before = (tasks_run_ns()?, timer_interrupts()?);
        let run_ns = cpus_run_ns()?;
        thread::sleep(WINDOW);
        let run_ns = cpus_run_ns()? - run_ns;
        let after = (tasks_run_ns()?, timer_interrupts()?);
        last_percent = 100.0 * run_ns as f64 / (WINDOW.as_nanos() as f64 * cpus as f64);
        if last_percent < BUSY_PERCENT_MAX {
            let timer_interrupts = after.1 - before.1;
            return Ok(Idle { busy_percent: last_percent, timer_interrupts, waited_s });
        }
        let ran = |name: &String| after.0[name] - before.0.get(name).copied().unwrap_or(0);
        busiest = after.0.keys().max_by_key(|name| ran(name)).cloned().unwrap_or_default();
    }
    bail!("the guest does not become idle: {last_percent:.1} % busy, most of all {busiest}")
}

/// The time that tasks ran on all CPUs (Documentation/scheduler/sched-stats.rst: the seventh number).
fn cpus_run_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/schedstat").context("reading /proc/schedstat")?;
    let run_ns = |line: &str| line.split_whitespace().nth(7)?.parse::<u64>().ok();
    let is_cpu = |line: &&str| line.starts_with("cpu");
    text.lines().filter(is_cpu).map(run_ns).sum::<Option<u64>>().context("reading /proc/schedstat")
}

/// The run time of each process, by number and name.
fn tasks_run_ns() -> Result<BTreeMap<String, u64>> {
    let mut tasks = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let path = entry?.path();
        let read = |file: &str| fs::read_to_string(path.join(file));
        // A process may end meanwhile.
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
        let run_ns = times.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let pid = path.file_name().unwrap_or_default().to_string_lossy();
        tasks.insert(format!("{} ({pid})", name.trim()), run_ns);
    }
    Ok(tasks)
}

/// Local timer interrupts of all CPUs.
pub fn timer_interrupts() -> Result<u64> {
    let text = fs::read_to_string("/proc/interrupts").context("reading /proc/interrupts")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("LOC:"));
    let line = line.context("/proc/interrupts has no LOC line")?;
    Ok(line.split_whitespace().map_while(|word| word.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_lines_of_histograms_are_left_out() {
        let text = "# Histogram\n000001 000000\t000000\n000002 000000\t000010\n\n17\nTime 0 0\n";
        let kept = "# Histogram\n000002 000000\t000010\n\n17\nTime 0 0\n";
        assert_eq!(without_zeros(text), kept);
    }
}

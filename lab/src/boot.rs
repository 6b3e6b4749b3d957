//! Boots: guests that run cases one after the other, and what becomes of the cases when a guest is lost.

use crate::{
    initramfs::Initramfs,
    kernel::Kernel,
    qemu::{self, Event, Guest, Mode, Running, Topology},
    suite::Case,
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What the guest writes, one JSON object a line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    Begin(String),
    End(Outcome),
    AllDone,
}

/// The result of a case.
#[derive(Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    pub(crate) said: String,
    /// Why it failed; none if it passed.
    pub(crate) failure: Option<String>,
}

/// What a guest's console says when QEMU, not the kernel, went wrong: a breakpoint where none is.
///
/// The kernel switches its static branches by way of an `int3` that it removes again. Threads of QEMU that
/// translate code can see the byte before the store and file their translation after the store has thrown
/// old ones away: that `int3` is met for ever. Attaching a scheduler switches about a dozen branches in code
/// that runs all the time. Such a guest is spoiled, and repeated. Guests in deterministic mode have one thread.
pub(crate) const EMULATOR_FAULT: &str = "Oops: int3";

/// Guests of a boot that may be repeated for [`EMULATOR_FAULT`].
const REPEATS_MAX: usize = 3;

/// How a guest ended, and how many of its cases have a result.
pub(crate) enum GuestEnd {
    Done(usize),
    /// [`EMULATOR_FAULT`]: the next case has no result, and none is its fault.
    EmulatorFault(usize),
}

/// Where the guest finds the names of the cases to run.
pub(crate) const PLAN: &str = "lab/cases";

/// Cases that share a guest.
pub(crate) struct Boot<'a> {
    pub(crate) kernel: Kernel,
    pub(crate) mode: Mode,
    pub(crate) topology: Topology<'static>,
    pub(crate) cases: Vec<&'a Case>,
}

impl Boot<'_> {
    fn title(&self, case: &Case) -> String {
        let clock = if self.mode == Mode::Deterministic { " deterministic" } else { "" };
        format!(
            "{:10} {:>2} {} (smp {}{clock})",
            self.kernel.series, case.number, case.name, self.topology.smp
        )
    }

    /// Runs all cases. `guest` boots one for those that are left, the count of guests before it given, and runs
    /// them until all are done or the guest is lost.
    pub(crate) fn run(
        &self,
        report: &Mutex<Report>,
        mut guest: impl FnMut(&[&Case], usize) -> Result<GuestEnd>,
    ) {
        let mut left = self.cases.as_slice();
        let mut part = 0;
        let mut repeats_left = REPEATS_MAX;
        // A guest that dies takes one case with it; the others get a new guest.
        while let Some(first) = left.first() {
            match guest(left, part) {
                Ok(GuestEnd::Done(done)) => left = &left[done.min(left.len())..],
                Ok(GuestEnd::EmulatorFault(done)) => {
                    left = &left[done.min(left.len())..];
                    let Some(first) = left.first() else { break };
                    let text = "QEMU ran stale code (see EMULATOR_FAULT in lab/src/boot.rs)";
                    if repeats_left == 0 {
                        lock(report).fail(&self.title(first), &format!("{text}, again and again"));
                        left = &left[1..];
                    } else {
                        println!("again {}: {text}", self.title(first));
                        repeats_left -= 1;
                    }
                }
                Err(error) => {
                    lock(report).fail(&self.title(first), &format!("{error:#}"));
                    left = &left[1..];
                }
            }
            part += 1;
        }
    }

    /// A guest of QEMU for [`Self::run`]. `folder` receives its files.
    pub(crate) fn guest(
        &self,
        cases: &[&Case],
        base: &Initramfs,
        folder: &Path,
        report: &Mutex<Report>,
    ) -> Result<GuestEnd> {
        const MEMORY_MIB: u32 = 2048;
        let mut initramfs = base.clone();
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        initramfs.file(PLAN, names.join("\n"));
        let guest = Guest {
            kernel: &self.kernel,
            topology: self.topology,
            mode: self.mode,
            memory_mib: MEMORY_MIB,
            append: "",
        };
        self.follow(cases, &mut guest.boot(&initramfs, folder)?, report)
    }

    /// Reports the results of a guest until all cases are done or it is lost.
    fn follow(
        &self,
        cases: &[&Case],
        guest: &mut impl Results,
        report: &Mutex<Report>,
    ) -> Result<GuestEnd> {
        const BOOT_LIMIT: Duration = Duration::from_secs(180);
        const CONSOLE_LINES: usize = 60;
        let mut done = 0;
        let mut limit = BOOT_LIMIT;
        let mut begin = Instant::now();
        loop {
            let reason = match guest.next_line(limit)? {
                Event::Line(line) => match serde_json::from_str(&line) {
                    Ok(Message::Begin(_)) => {
                        limit = cases.get(done).map_or(BOOT_LIMIT, |case| case.limit);
                        begin = Instant::now();
                        continue;
                    }
                    Ok(Message::End(outcome)) => {
                        let case = cases.get(done).context("more results than cases")?;
                        // The breakpoint killed a task, not the whole guest, and will kill the next.
                        if outcome.failure.as_ref().is_some_and(|why| why.contains(EMULATOR_FAULT))
                        {
                            return Ok(GuestEnd::EmulatorFault(done));
                        }
                        lock(report).add(&self.title(case), &outcome, begin.elapsed());
                        (done, limit) = (done + 1, BOOT_LIMIT);
                        continue;
                    }
                    Ok(Message::AllDone) => return Ok(GuestEnd::Done(cases.len())),
                    Err(_) => continue,
                },
                Event::Off(how) => format!("the guest went off in the middle, {how}"),
                Event::Silence => format!("hang: no end within {} s", limit.as_secs()),
            };
            let case = cases.get(done).context("a guest that does not end after its last case")?;
            // All of it: the fault may be followed by more lines than are shown.
            let console = guest.console();
            if console.contains(EMULATOR_FAULT) {
                return Ok(GuestEnd::EmulatorFault(done));
            }
            let console = qemu::tail(&console, CONSOLE_LINES);
            let text = format!("{reason}; the console's last lines:\n{console}");
            lock(report).fail(&self.title(case), &text);
            return Ok(GuestEnd::Done(done + 1));
        }
    }
}

/// Where results come from: a guest, or a test's idea of one.
trait Results {
    /// The next line on the port of results.
    fn next_line(&mut self, limit: Duration) -> Result<Event>;
    /// All that the console has shown.
    fn console(&self) -> String;
}

impl Results for Running {
    fn next_line(&mut self, limit: Duration) -> Result<Event> {
        self.next_line(limit)
    }

    fn console(&self) -> String {
        self.console()
    }
}

/// Results so far.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: Vec<String>,
}

impl Report {
    fn add(&mut self, title: &str, outcome: &Outcome, on_host: Duration) {
        let host_s = on_host.as_secs_f64();
        let title = format!("{title} {:.1} s, {host_s:.0} s of the host", outcome.seconds);
        match &outcome.failure {
            None => {
                self.passed += 1;
                println!("ok    {title}");
                print_indented(&outcome.said);
            }
            Some(failure) => self.fail(&title, &format!("{}{failure}", outcome.said)),
        }
    }

    pub(crate) fn fail(&mut self, title: &str, text: &str) {
        println!("FAIL  {title}");
        print_indented(text);
        self.failed.push(title.into());
    }
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("      {line}");
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;

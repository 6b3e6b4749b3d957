//! What becomes of the cases when guests end in all the ways they do.

use super::*;
use std::{collections::VecDeque, path::PathBuf};

/// What a kernel of the tests says when it meets a breakpoint that nobody set.
const STALE: &str =
    "[    9.1] Oops: int3: 0000 [#1] SMP NOPTI\n[    9.1] CPU: 2 UID: 0 PID: 0 Comm: swapper/2";

const CASES: [Case; 3] = [
    Case::new(1, "first", |_| Ok(())),
    Case::new(2, "second", |_| Ok(())),
    Case::new(3, "third", |_| Ok(())),
];

fn boot() -> Boot<'static> {
    const KERNEL: &str = "7.3";
    let kernel = Kernel {
        series: KERNEL.into(),
        release: KERNEL.into(),
        image: PathBuf::new(),
        config: PathBuf::new(),
    };
    let (mode, topology) = (Mode::Parallel, Topology::FOUR);
    Boot { kernel, mode, topology, cases: const { &CASES }.iter().collect() }
}

/// Runs a boot whose guests end like this, and returns the name of the first case of each guest, and the
/// titles of the cases that failed.
fn run(ends: Vec<Result<GuestEnd>>) -> (Vec<&'static str>, Vec<String>) {
    let (mut ends, mut firsts) = (VecDeque::from(ends), Vec::new());
    let report = Mutex::new(Report::default());
    boot().run(&report, |cases, part| {
        assert_eq!(part, firsts.len());
        firsts.push(cases[0].name);
        ends.pop_front().expect("no guest more")
    });
    assert!(ends.is_empty(), "{} guests less", ends.len());
    (firsts, lock(&report).failed.clone())
}

fn is_of(failed: &str, case: &str) -> bool {
    failed.split_whitespace().nth(2) == Some(case)
}

#[test]
fn a_guest_with_stale_code_is_repeated_from_its_next_case_on() {
    let ends = vec![Ok(GuestEnd::EmulatorFault(1)), Ok(GuestEnd::Done(2))];
    assert_eq!(run(ends), (vec!["first", "second"], vec![]));
}

#[test]
fn a_case_is_given_up_when_guests_are_spoiled_again_and_again() {
    let mut ends: Vec<Result<GuestEnd>> =
        (0..=REPEATS_MAX).map(|_| Ok(GuestEnd::EmulatorFault(0))).collect();
    ends.push(Ok(GuestEnd::Done(2)));
    let (firsts, failed) = run(ends);
    assert_eq!(firsts, ["first", "first", "first", "first", "second"]);
    assert!(failed.len() == 1 && is_of(&failed[0], "first"), "{failed:?}");
}

#[test]
fn a_lost_guest_takes_one_case_with_it() {
    let (firsts, failed) = run(vec![Err(anyhow::anyhow!("no QEMU")), Ok(GuestEnd::Done(2))]);
    assert_eq!(firsts, ["first", "second"]);
    assert!(failed.len() == 1 && is_of(&failed[0], "first"), "{failed:?}");
}

/// A guest that says these things, goes off, and leaves this on its console.
struct Script(VecDeque<String>, &'static str);

impl Results for Script {
    fn next_line(&mut self, _: Duration) -> Result<Event> {
        Ok(self.0.pop_front().map_or(Event::Off(String::new()), Event::Line))
    }

    fn console(&self) -> String {
        // Backtraces and registers, twice.
        self.1.to_owned() + &"\n[    9.2] Code: 90".repeat(200)
    }
}

/// What becomes of a guest whose cases end with these failures and that then goes off: how it ended and the
/// counts of passed and failed cases.
fn follow(failures: &[Option<&str>], console: &'static str) -> (GuestEnd, usize, usize) {
    let mut lines = VecDeque::new();
    for (case, failure) in CASES.iter().zip(failures) {
        let outcome = Outcome {
            name: case.name.into(),
            seconds: 1.0,
            said: String::new(),
            failure: failure.map(String::from),
        };
        for message in [Message::Begin(case.name.into()), Message::End(outcome)] {
            lines.push_back(serde_json::to_string(&message).expect("JSON"));
        }
    }
    let (boot, report) = (boot(), Mutex::new(Report::default()));
    let end = boot.follow(&boot.cases, &mut Script(lines, console), &report).expect("an end");
    let report = lock(&report);
    (end, report.passed, report.failed.len())
}

#[test]
fn stale_code_is_told_from_a_fault_of_the_kernel() {
    // It panics: the guest goes off.
    assert!(matches!(follow(&[None], STALE), (GuestEnd::EmulatorFault(1), 1, 0)));
    assert!(matches!(follow(&[None], "Oops: 0000 [#1] SMP"), (GuestEnd::Done(2), 1, 1)));
    // It loses a task: the case fails.
    assert!(matches!(follow(&[None, Some(STALE)], ""), (GuestEnd::EmulatorFault(1), 1, 0)));
    assert!(matches!(follow(&[Some("nothing runs")], ""), (GuestEnd::Done(2), 0, 2)));
}

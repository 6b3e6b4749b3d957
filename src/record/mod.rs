//! `scheduler record`: every switch, wakeup and migration of this machine as a trace for ui.perfetto.dev, with the running
//! scheduler's reasons.
//!
//! The ring between the kernel and this process is all the memory that it takes; what does not fit is counted.

mod recorder;

use crate::{
    bpf::intf::{self, traced},
    exit::Failure,
    machine::{
        output,
        preflight::{self, Host},
        stop::Stop,
    },
    placed::why,
    stats::text,
    trace::{Named, Said, Trace},
};
use anyhow::Context;
use recorder::Recorder;
use std::{
    cell::RefCell,
    ffi::c_char,
    fmt,
    mem::MaybeUninit,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Between two looks at the ring: half a million events a second fill less than a half of the default one in that time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to record.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The trace.
    pub out: PathBuf,
    /// For how long.
    pub seconds: Duration,
    /// Size of the ring; a power of two.
    pub ring_kib: u32,
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    counts: Counts,
    lost: u64,
    took: Duration,
    with_reasons: bool,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counts {
    switches: u64,
    wakeups: u64,
    migrations: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { switches, wakeups, migrations } = self.counts;
        let (seconds, lost) = (self.took.as_secs_f64(), self.lost);
        write!(
            f,
            "{switches} switches, {wakeups} wakeups, {migrations} migrations in {seconds:.1} s"
        )?;
        if self.lost > 0 {
            write!(f, "; {lost} more events found no room: a larger --ring-kib has it")?;
        }
        if !self.with_reasons {
            f.write_str(
                "; without reasons: no scheduler of this version runs, or it may not be looked at",
            )?;
        }
        Ok(())
    }
}

/// Records as planned, or until the user stops it.
///
/// # Errors
/// [`crate::exit::Exit::Usage`] if the file cannot be written; as a load of the scheduler; when the disk is full.
pub fn run(plan: &Plan, host: &Host, stop: &Stop) -> Result<Summary, Failure> {
    let name = text::printable(plan.out.as_os_str().as_encoded_bytes());
    preflight::require(&preflight::tracing(host))?;
    let mut storage = MaybeUninit::uninit();
    let mut recorder = Recorder::load(host, plan.ring_kib * 1024, &mut storage)?;
    // Who may not record has no file of it either.
    let file = output::create("--output", &plan.out)?;
    let state = RefCell::new((Trace::on(file), Counts::default()));
    let took;
    {
        let records = recorder.attach(|event| {
            let (trace, counts) = &mut *state.borrow_mut();
            add(trace, counts, event);
        })?;
        recorder.set_recording(true);
        let began = Instant::now();
        while began.elapsed() < plan.seconds && !stop.is_triggered() {
            stop.wait(LOOK_EVERY.min(plan.seconds.saturating_sub(began.elapsed())));
            records.read()?;
            // Why, finish() says.
            if state.borrow().0.is_broken() {
                break;
            }
        }
        recorder.set_recording(false);
        took = began.elapsed();
        records.read()?;
    }
    let (lost, with_reasons) = (recorder.lost()?, recorder.with_reasons);
    let (trace, counts) = state.into_inner();
    trace.finish().with_context(|| format!("writing {name}"))?;
    Ok(Summary { counts, lost, took, with_reasons })
}

fn named(comm: &[c_char], pid: i32, prio: i32) -> Named {
    let bytes: Vec<u8> = comm.iter().map(|&c| c as u8).collect();
    Named { comm: text::printable(text::until_nul(&bytes)), pid, prio }
}

fn add(trace: &mut Trace, counts: &mut Counts, event: &traced) {
    let (now, cpu) = (event.traced_at, event.cpu.cast_unsigned());
    let task = named(&event.comm, event.pid, event.prio);
    match event.kind {
        intf::traced_kind_TRACED_SWITCH => {
            counts.switches += 1;
            let next = named(&event.next_comm, event.next_pid, event.next_prio);
            trace.switch(cpu, now, &task, event.state, &next);
            // Who is still runnable gave way, but for the idle task.
            if event.state == 0 && event.pid != 0 && event.next_pid != 0 {
                let by = format!("{} {}", next.comm, next.pid);
                let by = [("by", Said::Words(&by))];
                trace.note(now, (event.tgid, event.pid), "gave way", &by);
            }
            if event.placed != intf::placed_PLACED_NOWHERE {
                let said = [
                    ("why", Said::Words(why(event.placed))),
                    ("lag_vns", Said::Number(event.lag_vns)),
                    ("due_vns", Said::Number(event.due_vns)),
                    ("weight", Said::Number(event.weight.into())),
                ];
                trace.note(now, (event.next_tgid, event.next_pid), "runs", &said);
            }
        }
        intf::traced_kind_TRACED_WAKING => {
            counts.wakeups += 1;
            trace.waking(cpu, now, event.next_pid, &task, event.to.cast_unsigned());
        }
        _ => {
            counts.migrations += 1;
            let said = [
                ("from_cpu", Said::Number(event.cpu.into())),
                ("to_cpu", Said::Number(event.to.into())),
            ];
            trace.note(now, (event.tgid, event.pid), "migrates", &said);
        }
    }
}

//! Where `scheduler top` has its data from: the running scheduler by its socket, the kernel if there is none, or nothing
//! real.

use super::kernel::KernelView;
use crate::endpoint::ask::Connection;
use crate::stats::{demo::Demo, interval::Interval, sample::Sample, tasks::TaskTracker, text};
use anyhow::{Context, Result};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// All that the socket gives.
const TASKS: usize = 1000;
const DEMO_CPUS: u32 = 16;

/// What is shown at a time.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where it is from.
    pub origin: Origin,
    /// What happened.
    pub interval: Interval,
}

/// Where data come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The running scheduler.
    Scheduler,
    /// The kernel: there is no scheduler of ours, for this reason.
    Kernel {
        /// Why the scheduler was not asked.
        why: String,
        /// The state of sched_ext, and who schedules by it.
        state: String,
    },
    /// Nowhere.
    Demo,
}

/// A source of frames.
pub enum Feed {
    /// A machine that is made up.
    Demo(Box<Demonstration>),
    /// This machine.
    Machine {
        /// Where the scheduler's socket is.
        socket: PathBuf,
        /// The connection, while there is one.
        scheduler: Option<Connection>,
        /// What the kernel tells.
        kernel: Box<KernelView>,
    },
}

/// The demo, with what was shown last.
pub struct Demonstration {
    demo: Demo,
    before: Sample,
    tasks: TaskTracker,
}

impl Feed {
    /// Of a machine that is made up.
    pub fn demo() -> Self {
        let demo = Demo::new(DEMO_CPUS);
        let before = demo.sample();
        Feed::Demo(Box::new(Demonstration { demo, before, tasks: TaskTracker::default() }))
    }

    /// Of this machine, whose scheduler has its socket there.
    pub fn machine(socket: &Path) -> Self {
        Feed::Machine {
            socket: socket.to_owned(),
            scheduler: None,
            kernel: Box::new(KernelView::real()),
        }
    }

    /// What happened since the last one, `span` ago.
    ///
    /// # Errors
    /// When not even the kernel tells anything.
    pub fn next(&mut self, span: Duration) -> Result<Frame> {
        match self {
            Feed::Demo(demo) => Ok(demo.next(span)),
            Feed::Machine { socket, scheduler, kernel } => {
                let asked = match scheduler.take() {
                    Some(connection) => Ok(connection),
                    None => Connection::open(socket),
                };
                let asked = asked.and_then(|mut connection| {
                    let interval = ask(&mut connection)?;
                    Ok((connection, interval))
                });
                match asked {
                    Ok((connection, interval)) => {
                        *scheduler = Some(connection);
                        Ok(Frame { origin: Origin::Scheduler, interval })
                    }
                    Err(error) => {
                        let why = text::printable(format!("{error:#}").as_bytes());
                        let origin = Origin::Kernel { why, state: kernel.state() };
                        Ok(Frame { origin, interval: kernel.interval()? })
                    }
                }
            }
        }
    }
}

impl Demonstration {
    fn next(&mut self, span: Duration) -> Frame {
        let span = span.max(Duration::from_millis(1));
        self.demo.advance(span);
        let now = self.demo.sample();
        let tasks = self.tasks.busiest(self.demo.tasks(), span, TASKS);
        let mut interval = Interval::between(&self.before, &now, tasks);
        interval.rules = self.tasks.rules(Demo::rules(), span);
        self.before = now;
        Frame { origin: Origin::Demo, interval }
    }
}

/// What happened since the last question of the connection.
fn ask(connection: &mut Connection) -> Result<Interval> {
    let args = json!({"target": "interval", "tasks": TASKS.to_string()});
    let answer = connection.ask(&json!({"req": "stats", "args": args}))?;
    serde_json::from_value(answer)
        .context("understanding the scheduler (is it of another version, or another one?)")
}

//! Where `scheduler top` has its data from: the running scheduler by its socket, the kernel if there is none, or nothing
//! real.

use super::kernel::KernelView;
use crate::stats::{demo::Demo, interval::Interval, sample::Sample, tasks::TaskTracker, text};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::value::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// A scheduler that does not answer for so long is as good as gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer of 8192 CPUs is well below.
const ANSWER_MAX: u64 = 64 << 20;
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
                    Some(connection) => connection.ask(),
                    None => Connection::open(socket).and_then(Connection::ask),
                };
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
        let interval = Interval::between(&self.before, &now, tasks);
        self.before = now;
        Frame { origin: Origin::Demo, interval }
    }
}

/// A connection to the scheduler's socket.
pub struct Connection(BufReader<UnixStream>);

/// An answer, as far as it is looked at.
#[derive(Deserialize)]
struct Response {
    errno: i32,
    args: Args,
}

#[derive(Deserialize)]
struct Args {
    resp: Value,
}

impl Connection {
    fn open(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("asking the scheduler at {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// What happened since the last question. The connection is good for another one then.
    fn ask(mut self) -> Result<(Self, Interval)> {
        let request = format!(
            "{{\"req\":\"stats\",\"args\":{{\"target\":\"interval\",\"tasks\":\"{TASKS}\"}}}}\n"
        );
        self.0.get_mut().write_all(request.as_bytes()).context("asking the scheduler")?;
        let mut line = String::new();
        let mut limited = self.0.by_ref().take(ANSWER_MAX);
        let n = limited.read_line(&mut line).context("reading the scheduler's answer")?;
        if n == 0 {
            bail!("the scheduler has closed the connection");
        }
        let response: Response =
            serde_json::from_str(&line).context("understanding the scheduler's answer")?;
        if response.errno != 0 {
            bail!("the scheduler refuses: {}", response.args.resp);
        }
        let interval = serde_json::from_value(response.args.resp)
            .context("understanding the scheduler (is it of another version, or another one?)")?;
        Ok((self, interval))
    }
}

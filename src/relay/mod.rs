//! The user-space half of a policy in user space: events of the kernel's half to the [`Policy`], and its decisions back.
//!
//! The policy has a thread of its own, so that neither it nor a slow reader of the statistics waits for the other, and
//! the program can be stopped whatever the policy is doing.

pub(crate) mod channel;
mod kernel;
mod lateness;
mod memory;
pub(crate) mod session;

pub use lateness::Lateness;
pub use memory::lock_memory;

use crate::{
    exit::{Exit, Failure},
    machine::{scheduler::Scheduler, stop::Stop},
    policy::{INTERFACE, Machine, Policy},
    units::Nanos,
};
use anyhow::{Context as _, Result};
use channel::{Channel, places};
use kernel::KernelPort;
use session::Session;
use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a policy may take to end when it is told to.
const END_WAIT: Duration = Duration::from_millis(200);

/// The figures, for the policy's thread and for reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<BTreeMap<String, f64>>>);

impl Board {
    /// The figures of this instant.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        self.lock().clone()
    }

    /// A policy that panicked leaves them whole: each change is one insertion.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, f64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a policy that cannot run with this version.
///
/// # Errors
/// [`Exit::Unsupported`], with both versions.
pub fn check_interface(policy: &dyn Policy) -> Result<(), Failure> {
    let wants = policy.interface();
    if wants == INTERFACE {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Unsupported,
        format!(
            "the policy {} was written for version {wants} of the interface of policies, and this program has version \
             {INTERFACE}: build both against the same version of the crate scheduler",
            policy.name()
        ),
    ))
}

/// A policy that runs beside a loaded scheduler.
pub struct Relay {
    name: String,
    board: Board,
    stop: Stop,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Relay {
    /// Starts the policy's thread. Before the scheduler is attached, so that it is there for the first task. `ended` is
    /// triggered when the policy ends by itself.
    ///
    /// # Errors
    /// When the kernel does not give the memory that both share, or no thread.
    pub fn start(
        scheduler: &Scheduler<'_>,
        policy: Box<dyn Policy>,
        default_slice: Nanos,
        ended: Stop,
    ) -> Result<Self> {
        let board = Board::default();
        let name = policy.name().to_owned();
        let port =
            KernelPort::open(scheduler).context("setting up the exchange with the policy")?;
        let mut channel = Channel::new(port, places(scheduler.topology()), board.clone());
        // The kernel's half learns which process this is.
        channel.apply(&[]).context("telling the kernel of the policy")?;
        let stop = Stop::new()?;
        let told = stop.clone();
        let thread = thread::Builder::new()
            .name("policy".to_owned())
            .spawn(move || {
                let _ended = TriggerOnDrop(ended);
                serve(policy, default_slice, &mut channel, &told)
            })
            .context("starting the thread of the policy")?;
        Ok(Self { name, board, stop, thread: Some(thread) })
    }

    /// The name of the policy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The figures that the policy shows.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        self.board.figures()
    }

    /// Tells the policy to end, and returns how it did. One that does not return is left behind.
    ///
    /// # Errors
    /// That of the exchange with the kernel, or the message of a panic.
    pub fn end(&mut self) -> Result<()> {
        self.stop.trigger();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let deadline = Instant::now() + END_WAIT;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            log::info!("the policy {} does not return: it ends with the process", self.name);
            return Ok(());
        }
        match thread.join() {
            Ok(result) => result.with_context(|| format!("serving the policy {}", self.name)),
            Err(panic) => {
                anyhow::bail!("the policy {} panicked: {}", self.name, message(&*panic))
            }
        }
    }
}

/// Wakes the main thread when the policy's ends, however that comes about.
struct TriggerOnDrop(Stop);

impl Drop for TriggerOnDrop {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Events to the policy and decisions back, until the end.
fn serve(
    policy: Box<dyn Policy>,
    default_slice: Nanos,
    channel: &mut Channel<KernelPort>,
    stop: &Stop,
) -> Result<()> {
    let began = Instant::now();
    let now = || Nanos::from(began.elapsed());
    let mut session = Session::new(policy, default_slice, now());
    let mut events = Vec::new();
    session.begin(channel);
    while !stop.is_triggered() {
        channel.port.wait(stop, Duration::from_nanos(session.patience(now()).0))?;
        channel.port.receive(&mut events)?;
        session.tell(events.drain(..), now(), channel);
        session.hand_over(channel)?;
    }
    Ok(())
}

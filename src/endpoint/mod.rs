//! What other programs ask the running scheduler: its statistics, over a socket, and metrics over HTTP.
//!
//! All of it runs in the thread that watches the scheduler, and sleeps until somebody asks. Whoever connects is trusted
//! with nothing: requests are short ([`client::REQUEST_MAX`]), clients are few ([`CLIENTS_MAX`]), none is waited for
//! longer than [`client::PATIENCE`], and all of them together get a part of one CPU ([`REST`]). What the kernel's half
//! does costs the same however many ask.

pub mod ask;
pub mod client;
pub mod http;
pub mod scx_stats;
pub mod unix;

use crate::{
    bpf::intf::task_sample,
    machine::stop::{Stop, Wake},
    stats::sample::Sample,
};
use anyhow::Result;
use client::{Client, Next};
use nix::poll::PollFlags;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    time::{Duration, Instant},
};

/// Clients of one listener at a time. One more takes the place of the one that has been silent for longest.
pub const CLIENTS_MAX: usize = 16;
/// After a round of answers nobody is listened to for this many times as long as it took: whatever clients do, they take
/// a twentieth of one CPU.
pub const REST: u32 = 19;
/// Connections that are taken in one round.
const ACCEPTS_MAX: usize = 64;
/// After a failure to take one, which more of them would only repeat: file descriptors are short.
const ACCEPT_REST: Duration = Duration::from_millis(200);
/// A sample of this age is good for another client. Nothing that is shown changes sooner.
const SAMPLE_AGE: Duration = Duration::from_millis(5);

/// Where statistics come from.
pub trait Source {
    /// The state at this instant.
    ///
    /// # Errors
    /// When it cannot be had.
    fn sample(&mut self) -> Result<Sample>;

    /// All tasks, cumulative. Figures of tasks may be kept only from the first call on.
    ///
    /// # Errors
    /// When they cannot be had.
    fn tasks(&mut self) -> Result<Vec<task_sample>>;

    /// The rules in force, each in words, in the order in which they are tried.
    fn rules(&mut self) -> Vec<String>;

    /// Nobody is left who asked for tasks.
    fn forget_tasks(&mut self);

    /// Decides by the profile of that name from here on, if there is a name. The profile in effect and its figures, a line
    /// each.
    ///
    /// # Errors
    /// Why that cannot be; nothing has changed then.
    fn profile(&mut self, name: Option<&str>) -> Result<Vec<String>, String>;

    /// How it stands with the tasks of that number or name, or with all rules; lines of text.
    ///
    /// # Errors
    /// Why that cannot be said.
    fn explain(&mut self, of: Option<&str>) -> Result<Vec<String>, String>;
}

/// A source, with the last sample kept for whoever asks at the same time.
pub struct Samples<'a> {
    source: &'a mut dyn Source,
    last: &'a mut Option<Rc<Sample>>,
}

impl Samples<'_> {
    /// The state at this instant, or as good as that.
    ///
    /// # Errors
    /// As [`Source::sample`].
    pub fn now(&mut self) -> Result<Rc<Sample>> {
        if let Some(last) = self.last.as_ref().filter(|last| last.at.elapsed() < SAMPLE_AGE) {
            return Ok(last.clone());
        }
        Ok(self.last.insert(Rc::new(self.source.sample()?)).clone())
    }

    /// As [`Source::tasks`].
    ///
    /// # Errors
    /// As there.
    pub fn tasks(&mut self) -> Result<Vec<task_sample>> {
        self.source.tasks()
    }

    /// As [`Source::rules`].
    pub fn rules(&mut self) -> Vec<String> {
        self.source.rules()
    }

    /// As [`Source::profile`].
    ///
    /// # Errors
    /// As there.
    pub fn profile(&mut self, name: Option<&str>) -> Result<Vec<String>, String> {
        self.source.profile(name)
    }

    /// As [`Source::explain`].
    ///
    /// # Errors
    /// As there.
    pub fn explain(&mut self, of: Option<&str>) -> Result<Vec<String>, String> {
        self.source.explain(of)
    }
}

/// A place that clients connect to.
pub trait Listener: AsFd {
    /// The next client; none if no one waits, or if it may not ask.
    ///
    /// # Errors
    /// When the process cannot take it.
    fn accept(&self) -> io::Result<Accepted>;
}

/// What became of a look for a client.
pub enum Accepted {
    /// It may ask.
    Client(Box<Client>),
    /// There was one that may not.
    Refused,
    /// There is none.
    None,
}

/// A listener with its clients.
struct Place {
    listener: Box<dyn Listener>,
    clients: Vec<Client>,
}

/// All places that clients connect to.
#[derive(Default)]
pub struct Endpoints {
    places: Vec<Place>,
    /// Nobody is listened to before.
    rest_until: Option<Instant>,
    last: Option<Rc<Sample>>,
    tasks_wanted: bool,
}

impl Endpoints {
    /// Listens there, too.
    pub fn add(&mut self, listener: impl Listener + 'static) {
        self.places.push(Place { listener: Box::new(listener), clients: Vec::new() });
    }

    /// Waits until a client needs something, until `others` can be read, for `timeout`, or for a stop.
    pub fn wait(&self, stop: &Stop, others: &[BorrowedFd<'_>], timeout: Duration) -> Wake {
        let now = Instant::now();
        let others = || others.iter().map(|&fd| (fd, PollFlags::POLLIN));
        let rest = self.rest_until.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if !rest.is_zero() {
            let fds: Vec<_> = others().collect();
            let wake = stop.wait_ready(&fds, rest.min(timeout));
            if wake != Wake::Timeout || rest >= timeout {
                return wake;
            }
        }
        let timeout = timeout.saturating_sub(rest);
        let clients = || self.places.iter().flat_map(|place| &place.clients);
        let left = clients().map(|client| client.time_left(now)).min();
        let listening = self.places.iter().map(|place| (place.listener.as_fd(), PollFlags::POLLIN));
        let fds: Vec<(BorrowedFd<'_>, PollFlags)> =
            listening.chain(clients().map(Client::waits_for)).chain(others()).collect();
        match stop.wait_ready(&fds, timeout.min(left.unwrap_or(timeout))) {
            // Some client's time is over.
            Wake::Timeout if left.is_some_and(|left| left < timeout) => Wake::Ready,
            wake => wake,
        }
    }

    /// Takes clients, answers what was asked and lets go of those whose time is over. Never blocks.
    pub fn serve(&mut self, source: &mut dyn Source) {
        let begin = Instant::now();
        if self.places.is_empty() || self.rest_until.is_some_and(|until| begin < until) {
            return;
        }
        self.rest_until = None;
        let mut samples = Samples { source, last: &mut self.last };
        let mut short = false;
        for place in &mut self.places {
            short |= !place.admit();
            place.clients.retain_mut(|client| client.turn(begin, &mut samples) == Next::Stay);
        }
        self.last = None;
        let wanted =
            self.places.iter().flat_map(|place| &place.clients).any(|client| client.wants_tasks());
        if self.tasks_wanted && !wanted {
            source.forget_tasks();
        }
        self.tasks_wanted = wanted;
        let rest = if short { ACCEPT_REST } else { begin.elapsed() * REST };
        self.rest_until = Some(Instant::now() + rest);
    }
}

impl Place {
    /// Takes those who wait. False if that cannot be done for now.
    fn admit(&mut self) -> bool {
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept() {
                Ok(Accepted::Client(client)) => {
                    if self.clients.len() >= CLIENTS_MAX {
                        self.drop_most_silent();
                    }
                    self.clients.push(*client);
                }
                Ok(Accepted::Refused) => {}
                Ok(Accepted::None) => return true,
                Err(error) => {
                    log::info!("a client of the statistics could not be taken: {error}");
                    return false;
                }
            }
        }
        true
    }

    fn drop_most_silent(&mut self) {
        let silent = self.clients.iter().enumerate().min_by_key(|(_, client)| client.heard_at());
        if let Some((i, _)) = silent {
            self.clients.remove(i);
        }
    }
}

/// What an error of `accept` means.
fn not_accepted(error: io::Error) -> io::Result<Accepted> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Accepted::None),
        // It has gone before it was taken.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => Ok(Accepted::Refused),
        _ => Err(error),
    }
}

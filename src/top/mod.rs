//! `scheduler top`: the running scheduler in a terminal.
//!
//! [`feed`] has the data, from the scheduler's socket or from the kernel ([`kernel`]); [`app`] is what is shown and how keys
//! change it, [`events`] what happened, and [`draw`] turns all that into characters. Keys are those of `bpftop` and `scxtop`.

pub mod app;
pub mod draw;
pub mod events;
pub mod feed;
pub mod kernel;

use crate::{
    exit::{Exit, Failure},
    machine::{output, stop::Stop},
};
use anyhow::{Context, Result, bail};
use app::App;
use feed::Feed;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use std::{
    io::{IsTerminal, stdin, stdout},
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Another size of the terminal is seen after this time at most.
const POLL: Duration = Duration::from_millis(200);

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the scheduler's socket is.
    pub socket: PathBuf,
    /// Time between two looks.
    pub interval: Duration,
    /// A made-up machine instead of this one.
    pub demo: bool,
}

/// Shows it until the user or a signal ends it.
///
/// # Errors
/// Without a terminal, or when it cannot be used.
pub fn run(options: &Options) -> Result<Exit, Failure> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        let why = "top needs a terminal; for programs there is 'scheduler --json', or the socket";
        return Err(Failure::new(Exit::Failed, why));
    }
    let feed = if options.demo { Feed::demo() } else { Feed::machine(&options.socket) };
    // Without a terminal nothing is left to do or to put in order: SIGHUP ends it as it is.
    let stop = Stop::but_hangup()?;
    let mut terminal = ratatui::try_init().context("setting up the terminal")?;
    let shown = show(&mut terminal, feed, options.interval, &stop);
    ratatui::try_restore().context("restoring the terminal (`reset` does, too)")?;
    shown?;
    Ok(Exit::Stopped)
}

fn show(
    terminal: &mut DefaultTerminal,
    mut feed: Feed,
    interval: Duration,
    stop: &Stop,
) -> Result<()> {
    let mut app = App::new(output::is_coloured());
    let mut before = Instant::now();
    let mut due = before;
    while !stop.is_triggered() {
        let now = Instant::now();
        if now >= due {
            app.take(feed.next(now - before)?);
            (before, due) = (now, now + interval);
        }
        terminal.draw(|frame| draw::draw(&mut app, frame)).context("drawing")?;
        let left = due.saturating_duration_since(Instant::now());
        stop.wait_ready(&[(stdin().as_fd(), PollFlags::POLLIN)], left.min(POLL));
        if has_hung_up()? {
            bail!("the terminal has gone");
        }
        if event::poll(Duration::ZERO).context("waiting for a key")?
            && let Event::Key(key) = event::read().context("reading a key")?
            && !app.key(key)
        {
            break;
        }
    }
    Ok(())
}

/// Whether nobody is at the other end of the terminal: to wait for a key there would never end.
fn has_hung_up() -> Result<bool> {
    let stdin = stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).context("looking at the terminal")?;
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    Ok(fds[0].revents().is_some_and(|events| events.intersects(gone)))
}

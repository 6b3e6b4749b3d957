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
use anyhow::{Context, Result};
use app::App;
use feed::Feed;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use std::{
    io::{IsTerminal, stdin, stdout},
    path::PathBuf,
    time::{Duration, Instant},
};

/// A stop signal is seen after this time at most.
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
    let stop = Stop::on_signals()?;
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
        if event::poll(left.min(POLL)).context("waiting for a key")?
            && let Event::Key(key) = event::read().context("reading a key")?
            && !app.key(key)
        {
            break;
        }
    }
    Ok(())
}

//! What the user sees meanwhile: a bar and a line for each guest on a terminal, a line for each sample
//! elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The display of a run.
pub struct Progress {
    all: MultiProgress,
    bar: ProgressBar,
    guests: Mutex<BTreeMap<String, ProgressBar>>,
    terminal: bool,
}

impl Progress {
    /// A display of this many samples.
    pub fn new(samples: u64) -> Self {
        let all = MultiProgress::new();
        let bar = all.add(ProgressBar::new(samples));
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {pos}/{len} samples, {elapsed} (left: {eta})")
        {
            bar.set_style(style);
        }
        let terminal = io::stderr().is_terminal();
        Self { all, bar, guests: Mutex::default(), terminal }
    }

    /// A guest works on a part.
    pub fn running(&self, title: &str, part: &str) {
        const SPIN: Duration = Duration::from_millis(200);
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let spinner = guests.entry(title.to_owned()).or_insert_with(|| {
            let spinner = self.all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(SPIN);
            spinner
        });
        spinner.set_message(format!("{title}: {part}"));
    }

    /// A guest is off.
    pub fn ended(&self, title: &str) {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spinner) = guests.remove(title) {
            spinner.finish_and_clear();
        }
    }

    /// A sample is settled.
    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// Something to be kept on the screen.
    pub fn line(&self, text: &str) {
        match self.terminal {
            // A lost line is no reason to end a run of hours.
            true => self.all.println(text).unwrap_or_default(),
            false => println!("{text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

//! What `scheduler top` shows and how keys change it. Nothing here draws or waits.

use super::{
    events::{Event, Events},
    feed::{Frame, Origin},
};
use crate::stats::tasks::TaskRow;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::{cmp::Ordering, collections::VecDeque};

/// Intervals that are remembered for the history: as many as a wide terminal has columns.
pub const HISTORY_MAX: usize = 300;
/// A longer filter finds no task: names have 15 bytes, each of four characters at most when escaped.
const FILTER_MAX: usize = 60;

/// A page of the display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// CPUs by node, LLC and core.
    Cpus,
    /// Tasks.
    Tasks,
    /// Wakeup latencies.
    Latency,
    /// What happened.
    Events,
    /// Rules and what they matched.
    Rules,
}

impl View {
    /// All, in the order of their keys.
    pub const ALL: [View; 5] = [View::Cpus, View::Tasks, View::Latency, View::Events, View::Rules];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            View::Cpus => "CPUs",
            View::Tasks => "Tasks",
            View::Latency => "Latency",
            View::Events => "Events",
            View::Rules => "Rules",
        }
    }

    fn after(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|view| *view == self).unwrap_or(0);
        Self::ALL[(at + steps) % Self::ALL.len()]
    }
}

/// What tasks are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Share of a CPU, greatest first.
    Busy,
    /// Wait in the queue that 99 of 100 stay below, longest first.
    Wait,
    /// Wakeups a second, most first.
    Wakeups,
    /// Preemptions a second, most first.
    Preemptions,
    /// Name.
    Name,
    /// Number.
    Pid,
}

impl Sort {
    const ALL: [Sort; 6] =
        [Sort::Busy, Sort::Wait, Sort::Wakeups, Sort::Preemptions, Sort::Name, Sort::Pid];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Busy => "busy",
            Sort::Wait => "wait p99",
            Sort::Wakeups => "wakeups",
            Sort::Preemptions => "preemptions",
            Sort::Name => "name",
            Sort::Pid => "pid",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    fn compare(self, a: &TaskRow, b: &TaskRow) -> Ordering {
        let most = |of: fn(&TaskRow) -> f64| of(b).total_cmp(&of(a));
        match self {
            Sort::Busy => most(|task| task.busy_percent),
            Sort::Wait => most(|task| task.wait_p99_us.unwrap_or(-1.0)),
            Sort::Wakeups => most(|task| task.wakeups_per_s),
            Sort::Preemptions => most(|task| task.preemptions_per_s),
            Sort::Name => a.comm.printable().cmp(&b.comm.printable()),
            Sort::Pid => Ordering::Equal,
        }
        // Equal ones by number, so that the order does not flicker.
        .then(a.pid.cmp(&b.pid))
    }
}

/// Latencies of an interval, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Median, p99 and longest.
    pub us: [Option<f64>; 3],
}

/// The display.
#[derive(Debug)]
pub struct App {
    /// The page.
    pub view: View,
    /// Whether the help is shown instead.
    pub help: bool,
    /// Whether new frames are left alone.
    pub paused: bool,
    /// The order of tasks.
    pub sort: Sort,
    /// What the names of tasks have to contain, in any case of letters.
    pub filter: String,
    /// Whether keys go to the filter.
    pub editing: bool,
    /// The selected task, or the first line that is shown.
    pub at: usize,
    /// The task whose details are shown.
    pub detail: Option<i32>,
    /// The last frame.
    pub frame: Option<Frame>,
    /// The latencies of the last intervals, the newest last.
    pub history: VecDeque<Point>,
    /// What happened.
    pub events: Events,
    /// Lines that fit; drawing tells.
    pub page: usize,
    /// Whether there may be colours.
    pub colours: bool,
}

impl App {
    /// At its beginning.
    pub fn new(colours: bool) -> Self {
        Self {
            view: View::Cpus,
            help: false,
            paused: false,
            sort: Sort::Busy,
            filter: String::new(),
            editing: false,
            at: 0,
            detail: None,
            frame: None,
            history: VecDeque::new(),
            events: Events::default(),
            page: 10,
            colours,
        }
    }

    /// Shows this from here on. What happened is noted even while it is paused.
    pub fn take(&mut self, frame: Frame) {
        self.events.note(&frame);
        if self.paused {
            return;
        }
        if frame.origin != Origin::Demo && self.origin_changes(&frame) {
            self.history.clear();
        }
        let latency = &frame.interval.total.wakeup_latency;
        self.history.push_back(Point { us: [latency.p50_us, latency.p99_us, latency.max_us] });
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        self.frame = Some(frame);
    }

    fn origin_changes(&self, frame: &Frame) -> bool {
        let is_scheduler = |frame: &Frame| frame.origin == Origin::Scheduler;
        self.frame.as_ref().is_some_and(|old| is_scheduler(old) != is_scheduler(frame))
    }

    /// The tasks to be shown, in their order.
    pub fn tasks(&self) -> Vec<&TaskRow> {
        let Some(frame) = &self.frame else { return Vec::new() };
        let wanted = self.filter.to_lowercase();
        let mut tasks: Vec<_> = frame
            .interval
            .tasks
            .iter()
            .filter(|task| task.comm.printable().to_lowercase().contains(&wanted))
            .collect();
        tasks.sort_by(|a, b| self.sort.compare(a, b));
        tasks
    }

    /// What happened, the newest first.
    pub fn newest_events(&self) -> impl Iterator<Item = &Event> {
        self.events.newest()
    }

    /// A key. False if it ends the program.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return true;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return false;
        }
        if self.editing {
            self.edit(key.code);
            return true;
        }
        match key.code {
            KeyCode::Char('q') => return false,
            KeyCode::Char('h' | '?') | KeyCode::F(1) => self.help = !self.help,
            KeyCode::Esc => self.back(),
            KeyCode::Char(digit @ '1'..='5') => {
                self.show(View::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Tab | KeyCode::Right => self.show(self.view.after(1)),
            KeyCode::BackTab | KeyCode::Left => self.show(self.view.after(View::ALL.len() - 1)),
            KeyCode::Char('s') => {
                self.show(View::Tasks);
                self.sort = self.sort.next();
            }
            KeyCode::Char('f' | '/') => {
                self.show(View::Tasks);
                self.editing = true;
            }
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('j') | KeyCode::Down => self.at += 1,
            KeyCode::Char('k') | KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::PageDown => self.at += self.page,
            KeyCode::PageUp => self.at = self.at.saturating_sub(self.page),
            KeyCode::Home | KeyCode::Char('g') => self.at = 0,
            KeyCode::End | KeyCode::Char('G') => self.at = usize::MAX / 2,
            KeyCode::Enter if self.view == View::Tasks => {
                self.detail = self.tasks().get(self.at).map(|task| task.pid);
            }
            _ => {}
        }
        true
    }

    /// One step out: of the help, the details, the filter.
    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.detail.is_some() {
            self.detail = None;
        } else {
            self.filter.clear();
        }
    }

    fn show(&mut self, view: View) {
        self.help = false;
        self.detail = None;
        if self.view != view {
            self.view = view;
            self.at = 0;
        }
    }

    fn edit(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.editing = false,
            KeyCode::Esc => {
                self.editing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if !c.is_control() && self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(c);
            }
            _ => return,
        }
        self.at = 0;
    }

    /// Keeps the position among `len` lines of which `page` fit.
    pub fn settle(&mut self, len: usize, page: usize) {
        self.page = page.max(1);
        let last = if self.view == View::Tasks { len } else { (len + 1).saturating_sub(page) };
        self.at = self.at.min(last.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::feed::Feed;
    use std::time::Duration;

    fn app() -> App {
        let mut app = App::new(true);
        let mut feed = Feed::demo();
        for _ in 0..3 {
            app.take(feed.next(Duration::from_secs(1)).expect("a frame"));
        }
        app
    }

    fn press(app: &mut App, keys: &str) -> bool {
        keys.chars().all(|c| {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                c => KeyCode::Char(c),
            };
            app.key(KeyEvent::new(code, KeyModifiers::NONE))
        })
    }

    #[test]
    fn keys_of_views_and_help() {
        let mut app = app();
        assert!(press(&mut app, "2") && app.view == View::Tasks);
        assert!(press(&mut app, "h") && app.help);
        assert!(press(&mut app, "\x1b") && !app.help && app.view == View::Tasks);
        assert!(press(&mut app, "?4") && !app.help && app.view == View::Events);
        assert!(press(&mut app, "5") && app.view == View::Rules);
        app.key(KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE));
        assert_eq!(app.view, View::Cpus);
        app.key(KeyEvent::new(KeyCode::BackTab, KeyModifiers::NONE));
        assert_eq!(app.view, View::Rules);
        assert!(!press(&mut app, "q"));
        assert!(!app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    }

    #[test]
    fn the_filter_takes_all_keys_until_it_is_done() {
        let mut app = app();
        let all = app.tasks().len();
        assert!(press(&mut app, "/qRUSTC"), "q is a letter there");
        assert!(app.tasks().is_empty());
        for _ in 0..6 {
            app.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
        }
        assert!(press(&mut app, "rUs\n") && !app.editing);
        let names: Vec<_> = app.tasks().iter().map(|task| task.comm.printable()).collect();
        assert!(!names.is_empty() && names.iter().all(|name| name == "rustc"), "{names:?}");
        press(&mut app, "\x1b");
        assert_eq!(app.tasks().len(), all);
    }

    #[test]
    fn every_order_is_one() {
        let mut app = app();
        for _ in Sort::ALL {
            press(&mut app, "s");
            let tasks = app.tasks();
            assert!(tasks.len() > 10);
            assert!(tasks.is_sorted_by(|a, b| app.sort.compare(a, b) == Ordering::Less));
        }
        assert_eq!(app.sort, Sort::Busy);
        let busy: Vec<_> = app.tasks().iter().map(|task| task.busy_percent).collect();
        assert!(busy.is_sorted_by(|a, b| a >= b), "{busy:?}");
    }

    #[test]
    fn the_position_stays_inside() {
        let mut app = app();
        press(&mut app, "2G");
        let len = app.tasks().len();
        app.settle(len, 10);
        assert_eq!(app.at, len - 1);
        press(&mut app, "j");
        app.settle(len, 10);
        assert_eq!(app.at, len - 1);
        press(&mut app, "gk\n");
        assert_eq!((app.at, app.detail), (0, Some(app.tasks()[0].pid)));
        app.settle(0, 10);
        assert_eq!(app.at, 0);
        // Of pages that scroll, the last one is full.
        press(&mut app, "1G");
        app.settle(30, 10);
        assert_eq!(app.at, 20);
    }

    #[test]
    fn a_pause_keeps_the_frame() {
        let mut app = app();
        press(&mut app, " ");
        let before = app.frame.as_ref().map(|frame| frame.interval.time);
        app.take(Feed::demo().next(Duration::from_secs(9)).expect("a frame"));
        assert_eq!(app.frame.as_ref().map(|frame| frame.interval.time), before);
    }
}

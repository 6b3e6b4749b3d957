//! The pages of `scheduler top` as lines of text. Everything that others chose was made printable before it comes here.

mod cpus;
mod latency;
mod rules;
mod tasks;

use super::{
    app::{App, View},
    feed::Origin,
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

const KEYS: &str = "q quit  h help  1-5 views  j/k PgUp/PgDn move  s sort  / filter  Space pause";
const KEYS_OF_FILTER: &str = "Enter keep  Esc drop";

const HELP: &[&str] = &[
    "q, Ctrl-C         quit",
    "h, ?              this help, and back",
    "1 2 3 4 5         CPUs, tasks, latency, events, rules",
    "Tab, Left, Right  the next view, the one before",
    "j k, Down Up      move",
    "PgDn PgUp         move by a page",
    "g G, Home End     to the beginning, to the end",
    "s                 order of tasks: busy, wait p99, wakeups, name, pid",
    "f, /              only tasks whose name has this in it",
    "Enter             details of the selected task",
    "Esc               back: out of the help, the details, the filter",
    "Space, p          pause",
    "",
    "CPUs: number, share of the time taken by tasks, tasks on it or bound to it.",
    "A + before the number: another thread of the core before it. Tasks that wait",
    "for any CPU of an LLC are in the queue of that.",
];

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
struct Look {
    colours: bool,
}

impl Look {
    /// Of a share in percent: named colours, which a terminal makes readable on its own background.
    fn heat(self, percent: f64) -> Style {
        match percent {
            _ if !self.colours => Style::new(),
            p if p < 50.0 => Style::new().fg(Color::Green),
            p if p < 90.0 => Style::new().fg(Color::Blue),
            _ => Style::new().fg(Color::Red),
        }
    }

    fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn warning(self) -> Style {
        let bold = self.heading();
        if self.colours { bold.fg(Color::Red) } else { bold }
    }
}

/// Draws the display, and tells it how much fits.
pub fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let look = Look { colours: app.colours };
    let notice = notice(app);
    let rows = [1, 1, notice.is_some().into(), 0, 1].map(|rows| match rows {
        0 => Constraint::Length(0),
        rows => Constraint::Length(rows),
    });
    let mut rows = rows.to_vec();
    rows[3] = Constraint::Fill(1);
    let areas = Layout::vertical(rows).split(frame.area());
    put(frame, areas[0], vec![tabs(app, look)]);
    put(frame, areas[1], vec![summary(app)]);
    if let Some(notice) = notice {
        put(frame, areas[2], vec![Line::styled(notice, look.warning())]);
    }
    body(app, look, frame, areas[3]);
    put(frame, areas[4], vec![footer(app)]);
}

fn put(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines), area);
}

fn tabs(app: &App, look: Look) -> Line<'static> {
    let mut spans = vec![Span::styled("scheduler top ", look.heading())];
    for (i, view) in View::ALL.iter().enumerate() {
        let text = format!(" {} {} ", i + 1, view.name());
        let is_shown = *view == app.view && !app.help;
        spans.push(if is_shown { Span::styled(text, look.chosen()) } else { text.into() });
    }
    if app.paused {
        spans.push(Span::styled("  paused", look.warning()));
    }
    Line::from(spans)
}

fn summary(app: &App) -> Line<'static> {
    let Some(frame) = &app.frame else { return Line::from("waiting for the first interval") };
    let interval = &frame.interval;
    let total = &interval.total;
    let mut text = format!(
        "{}  {} CPUs  busy {:.1}%  runnable {}  waiting {}",
        clock(interval.time),
        interval.cpus.len(),
        total.activity.busy_percent,
        total.runnable,
        total.queue_depth,
    );
    if total.wakeup_latency.count > 0 {
        text += &format!("  wakeup p99 {}", time(total.wakeup_latency.p99_us));
    }
    // The least interesting of them: a narrow terminal cuts it.
    text += &format!("  switches/s {:.0}", total.activity.switches_per_s);
    Line::from(text)
}

/// What people must know before they believe the figures.
fn notice(app: &App) -> Option<String> {
    match &app.frame.as_ref()?.origin {
        Origin::Scheduler => None,
        Origin::Demo => Some("simulated data: nothing here is of this machine".to_owned()),
        Origin::Kernel { why, state } => {
            Some(format!("No scheduler answers: this is the kernel's view; {state} ({why})"))
        }
    }
}

fn footer(app: &App) -> Line<'static> {
    if app.editing {
        return Line::from(format!("filter: {}_  {KEYS_OF_FILTER}", app.filter));
    }
    if app.filter.is_empty() {
        return Line::from(KEYS);
    }
    Line::from(format!("filter: {} (Esc drops it)  {KEYS}", app.filter))
}

/// The lines of the page from the position on; of tasks, those around the selected one.
fn body(app: &mut App, look: Look, frame: &mut Frame<'_>, area: Rect) {
    let page = usize::from(area.height);
    if app.help {
        return put(frame, area, HELP.iter().map(|line| Line::from(*line)).collect());
    }
    if let Some(pid) = app.detail {
        return put(frame, area, tasks::details(app, pid));
    }
    if app.view == View::Tasks {
        // One line is the header.
        app.settle(app.tasks().len(), page.saturating_sub(1));
        return put(frame, area, tasks::lines(app, look, page));
    }
    let lines = match app.view {
        View::Cpus => cpus::lines(app, look, area.width),
        View::Latency => latency::lines(app, look, area.width),
        View::Rules => rules::lines(app, look),
        View::Events | View::Tasks => events(app),
    };
    app.settle(lines.len(), page);
    put(frame, area, lines.into_iter().skip(app.at).take(page).collect());
}

fn events(app: &App) -> Vec<Line<'static>> {
    let line = |time: f64, text: &str| Line::from(format!("{}  {text}", clock(time)));
    app.newest_events().map(|event| line(event.time, &event.text)).collect()
}

/// A time of day, universal time.
fn clock(time: f64) -> String {
    let s = time.max(0.0) as u64 % 86_400;
    format!("{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

/// A time in microseconds, short.
fn time(us: Option<f64>) -> String {
    crate::stats::table::time(us)
}

/// A bar of `width` characters for a share of 0 to 1, exact to an eighth of a character.
fn bar(share: f64, width: usize) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8]);
    }
    let missing = width - bar.chars().count();
    bar + &" ".repeat(missing)
}

#[cfg(test)]
mod tests;

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
    "s                 order of tasks: busy, wait, wakeups, preemptions, name, pid",
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
    let width = frame.area().width;
    let notice = notice(app).map_or_else(Vec::new, |text| wrapped(&text, "", width));
    let [head, told, below, rest, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(notice.len() as u16),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    put(frame, head, vec![tabs(app, look)]);
    put(frame, told, vec![summary(app, width)]);
    put(frame, below, notice.into_iter().map(|line| Line::styled(line, look.warning())).collect());
    body(app, look, frame, rest);
    put(frame, foot, vec![footer(app, width)]);
}

/// A text in lines of this width, broken between words; those after the first begin with `indent`.
fn wrapped(text: &str, indent: &str, width: u16) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_inclusive(' ') {
        let longer = format!("{line}{word}");
        let fits = Span::raw(longer.trim_end()).width() <= usize::from(width);
        if fits || line.trim().is_empty() {
            line = longer;
        } else {
            lines.push(std::mem::replace(&mut line, format!("{indent}{word}")));
        }
    }
    lines.push(line);
    lines
}

/// As many of these, from the first on, as fit between blanks into a line of this width.
fn fitting(parts: &[String], width: u16) -> Line<'static> {
    let mut text = String::new();
    for part in parts {
        let longer = if text.is_empty() { part.clone() } else { format!("{text}  {part}") };
        if !text.is_empty() && Span::raw(&longer).width() > usize::from(width) {
            break;
        }
        text = longer;
    }
    Line::from(text)
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

fn summary(app: &App, width: u16) -> Line<'static> {
    let Some(frame) = &app.frame else { return Line::from("waiting for the first interval") };
    let interval = &frame.interval;
    let total = &interval.total;
    let latency = &total.wakeup_latency;
    let mut parts = vec![
        clock(interval.time),
        format!("{} CPUs", interval.cpus.len()),
        format!("busy {:.1}%", total.activity.busy_percent),
        format!("runnable {}", total.runnable),
        format!("waiting {}", total.queue_depth),
    ];
    parts.extend((latency.count > 0).then(|| format!("wakeup p99 {}", time(latency.p99_us))));
    // The least interesting of them: a narrow terminal has no room for it.
    parts.push(format!("switches/s {:.0}", total.activity.switches_per_s));
    fitting(&parts, width)
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

fn footer(app: &App, width: u16) -> Line<'static> {
    let mut parts = match (app.editing, app.filter.is_empty()) {
        (true, _) => vec![format!("filter: {}_", app.filter), KEYS_OF_FILTER.to_owned()],
        (false, true) => Vec::new(),
        (false, false) => vec![format!("filter: {} (Esc drops it)", app.filter)],
    };
    if !app.editing {
        parts.extend(KEYS.split("  ").map(str::to_owned));
    }
    fitting(&parts, width)
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
        View::Rules => rules::lines(app, look, area.width),
        View::Events | View::Tasks => events(app, area.width),
    };
    app.settle(lines.len(), page);
    put(frame, area, lines.into_iter().skip(app.at).take(page).collect());
}

fn events(app: &App, width: u16) -> Vec<Line<'static>> {
    let lines = |time: f64, text: &str| {
        let clock = format!("{}  ", clock(time));
        wrapped(&format!("{clock}{text}"), &" ".repeat(clock.len()), width)
    };
    let lines = app.newest_events().flat_map(|event| lines(event.time, &event.text));
    lines.map(Line::from).collect()
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

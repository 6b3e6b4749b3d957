//! Rules in the order in which they are tried, and what they matched.

use super::{Look, wrapped};
use crate::{
    stats::{tasks::RuleRow, text},
    top::{app::App, feed::Origin},
};
use ratatui::text::Line;

/// A rule in lines of this width.
pub fn lines(app: &App, look: Look, width: u16) -> Vec<Line<'static>> {
    let header = format!("{:>4} {:>6} {:>6}  rule", "no.", "tasks", "busy%");
    let mut lines = vec![Line::styled(header, look.heading())];
    let Some(frame) = &app.frame else { return lines };
    lines.extend(frame.interval.rules.iter().flat_map(|rule| row(rule, width)));
    if lines.len() == 1 {
        let of_kernel = matches!(frame.origin, Origin::Kernel { .. });
        let why = match of_kernel {
            true => "the scheduler would tell",
            false => "there are none; they go into the configuration file, below [[rule]]",
        };
        lines.push(Line::from(why));
    }
    lines
}

fn row(rule: &RuleRow, width: u16) -> impl Iterator<Item = Line<'static>> {
    let said = text::printable(rule.text.as_bytes());
    let head = format!("{:>4} {:>6} {:>6.1}  ", rule.number, rule.tasks, rule.busy_percent);
    let lines = wrapped(&format!("{head}{said}"), &" ".repeat(head.len()), width);
    lines.into_iter().map(Line::from)
}

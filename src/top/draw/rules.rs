//! Rules in the order in which they are tried, and what they matched.

use super::Look;
use crate::{
    stats::{tasks::RuleRow, text},
    top::{app::App, feed::Origin},
};
use ratatui::text::Line;

/// A line a rule.
pub fn lines(app: &App, look: Look) -> Vec<Line<'static>> {
    let header = format!("{:>4} {:>6} {:>6}  rule", "no.", "tasks", "busy%");
    let mut lines = vec![Line::styled(header, look.heading())];
    let Some(frame) = &app.frame else { return lines };
    lines.extend(frame.interval.rules.iter().map(row));
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

fn row(rule: &RuleRow) -> Line<'static> {
    let said = text::printable(rule.text.as_bytes());
    Line::from(format!("{:>4} {:>6} {:>6.1}  {said}", rule.number, rule.tasks, rule.busy_percent))
}

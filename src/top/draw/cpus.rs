//! CPUs by node, LLC and core.

use super::{Look, bar};
use crate::{stats::interval::CpuRow, top::app::App};
use ratatui::text::{Line, Span};
use std::collections::BTreeMap;

const BAR: usize = 7;

/// A line for each LLC, and below it its CPUs, as many in a row as fit.
pub fn lines(app: &App, look: Look, width: u16) -> Vec<Line<'static>> {
    let Some(frame) = &app.frame else { return Vec::new() };
    let interval = &frame.interval;
    let mut groups: BTreeMap<(u32, u32), Vec<&CpuRow>> = BTreeMap::new();
    for cpu in &interval.cpus {
        groups.entry((cpu.node, cpu.llc)).or_default().push(cpu);
    }
    let highest = interval.cpus.iter().map(|cpu| cpu.cpu.0).max().unwrap_or(0);
    let digits = highest.to_string().len().max(2);
    let mut lines = Vec::new();
    for ((node, llc), mut cpus) in groups {
        cpus.sort_by_key(|cpu| (cpu.core, cpu.cpu));
        let busy: f64 = cpus.iter().map(|cpu| cpu.activity.busy_percent).sum();
        let mut title =
            format!("node {node}  LLC {llc}  busy {:.0}%", busy / cpus.len().max(1) as f64);
        if let Some(queue) = interval.llcs.iter().find(|row| row.llc == llc) {
            title += &format!("  queue {}", queue.queue_depth);
        }
        lines.push(Line::styled(title, look.heading()));
        // Marker, number, bar, share, tasks, with blanks between.
        let cell = 1 + digits + 1 + BAR + 5 + 3 + 1;
        let columns = (usize::from(width) / cell).max(1);
        for row in cpus.chunks(columns) {
            lines.push(Line::from_iter(row.iter().flat_map(|cpu| spans(cpu, digits, look))));
        }
    }
    lines
}

fn spans(cpu: &CpuRow, digits: usize, look: Look) -> [Span<'static>; 3] {
    let percent = cpu.activity.busy_percent;
    let marker = if cpu.core == cpu.cpu { ' ' } else { '+' };
    [
        Span::raw(format!("{marker}{:>digits$} ", cpu.cpu.0)),
        Span::styled(bar(percent / 100.0, BAR), look.heat(percent)),
        Span::raw(format!("{percent:>4.0}%{:>3} ", cpu.runnable)),
    ]
}

//! Tasks, and one of them in detail.

use super::{Look, time};
use crate::{
    stats::tasks::TaskRow,
    top::{app::App, feed::Origin},
};
use ratatui::text::Line;

/// The header, and as many tasks around the selected one as fit into `page` lines.
pub fn lines(app: &App, look: Look, page: usize) -> Vec<Line<'static>> {
    let header = format!(
        "{:>7} {:>4} {:>4} {:>6} {:>6} {:>8} {:>9} {:>8}  command (by {})",
        "pid",
        "cpu",
        "nice",
        "weight",
        "busy%",
        "wake/s",
        "preempt/s",
        "wait-p99",
        app.sort.name()
    );
    let rows = page.saturating_sub(1);
    let first = (app.at + 1).saturating_sub(rows);
    let told = told(app);
    let tasks = app.tasks();
    let shown = tasks.iter().enumerate().skip(first).take(rows);
    let row = |(i, task): (usize, &&TaskRow)| {
        let text = cells(task, told);
        if i == app.at { Line::styled(text, look.chosen()) } else { Line::from(text) }
    };
    let mut lines = vec![Line::styled(header, look.heading())];
    if tasks.is_empty() {
        let why = if app.filter.is_empty() { "no task ran" } else { "no task of this name ran" };
        lines.push(Line::from(why));
    }
    lines.extend(shown.map(row));
    lines
}

/// Whether the scheduler tells of tasks; the kernel tells less.
fn told(app: &App) -> bool {
    !app.frame.as_ref().is_some_and(|frame| matches!(frame.origin, Origin::Kernel { .. }))
}

fn cells(task: &TaskRow, told: bool) -> String {
    let if_told = |text: String| if told { text } else { "-".to_owned() };
    format!(
        "{:>7} {:>4} {:>4} {:>6} {:>6.1} {:>8} {:>9} {:>8}  {}",
        task.pid,
        task.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
        task.nice,
        if_told(task.weight.0.to_string()),
        task.busy_percent,
        if_told(format!("{:.0}", task.wakeups_per_s)),
        if_told(format!("{:.0}", task.preemptions_per_s)),
        time(task.wait_p99_us),
        task.comm.printable()
    )
}

/// All that is known of a task.
pub fn details(app: &App, pid: i32) -> Vec<Line<'static>> {
    let tasks = app.frame.iter().flat_map(|frame| &frame.interval.tasks);
    let Some(task) = tasks.into_iter().find(|task| task.pid == pid) else {
        return vec![Line::from(format!("task {pid} did not run in this interval  (Esc: back)"))];
    };
    let mut facts = vec![
        ("task", format!("{} of process {}", task.pid, task.tgid)),
        ("name", task.comm.printable()),
        ("last CPU", task.cpu.map_or_else(|| "none".to_owned(), |cpu| cpu.to_string())),
        ("nice", task.nice.to_string()),
        ("busy", format!("{:.1} % of a CPU", task.busy_percent)),
    ];
    if told(app) {
        facts.extend([
            ("weight", task.weight.0.to_string()),
            ("rule", task.rule.map_or_else(|| "none".to_owned(), |number| number.to_string())),
            ("policy", crate::stats::text::printable(task.policy.as_bytes())),
            ("vruntime", format!("{:.3} ms", task.vruntime_vns.0 as f64 / 1e6)),
            ("wakeups", format!("{:.0} a second", task.wakeups_per_s)),
            ("preempted", format!("{:.0} times a second", task.preemptions_per_s)),
            ("wait p99", format!("{} in the queue, rounded up to 2^n", time(task.wait_p99_us))),
        ]);
    }
    let mut lines: Vec<_> =
        facts.into_iter().map(|(name, value)| Line::from(format!("{name:>9}  {value}"))).collect();
    lines.push(Line::from("           (Esc: back)"));
    lines
}

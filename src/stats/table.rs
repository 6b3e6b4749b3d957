//! Statistics for people: a row a CPU, a row for all, and lines for what is not of one CPU.

use super::{
    interval::{Activity, CpuRow, Interval, Latency, PolicyRow},
    tasks::TaskRow,
    text,
};
use crate::bpf::{COUNTERS, intf};

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal: what does not fit is left out. None: no limit.
    pub width: Option<usize>,
    /// Whether headers are bold.
    pub bold: bool,
    /// Whether all counters are listed.
    pub all_counters: bool,
}

/// A cell, with what is known of its column.
struct Cell {
    header: &'static str,
    /// The higher, the earlier the column is left out on a narrow terminal; 0 stays.
    dispensable: u8,
    text: String,
}

fn cell(header: &'static str, dispensable: u8, text: impl ToString) -> Cell {
    Cell { header, dispensable, text: text.to_string() }
}

/// The row of a CPU, or that of all. Counts are those of the interval.
fn cpu_cells(cpu: Option<&CpuRow>, activity: &Activity) -> Vec<Cell> {
    let place = |of: fn(&CpuRow) -> u32| cpu.map_or_else(String::new, |cpu| of(cpu).to_string());
    let count = |counter| activity.counters.get(counter);
    let queued = count(intf::counter_CNT_QUEUED) + count(intf::counter_CNT_PINNED);
    let preempted =
        count(intf::counter_CNT_PREEMPTIONS) + count(intf::counter_CNT_TICK_PREEMPTIONS);
    vec![
        cell("cpu", 0, cpu.map_or_else(|| "all".to_owned(), |cpu| cpu.cpu.to_string())),
        cell("node", 9, place(|cpu| cpu.node)),
        cell("llc", 6, place(|cpu| cpu.llc)),
        cell("busy%", 0, format!("{:.1}", activity.busy_percent)),
        cell("switches/s", 1, format!("{:.0}", activity.switches_per_s)),
        cell("slice", 2, time(Some(activity.slice_avg_us))),
        cell("idle", 3, count(intf::counter_CNT_IDLE_DIRECT)),
        cell("queued", 3, queued),
        cell("preempt", 4, preempted),
        cell("migr", 5, count(intf::counter_CNT_MIGRATIONS)),
        cell("llc-in", 7, count(intf::counter_CNT_LLC_IN)),
        cell("llc-out", 7, count(intf::counter_CNT_LLC_OUT)),
        cell("steals", 8, count(intf::counter_CNT_STEALS)),
    ]
}

/// The row of a task. The name comes last, so that its width disturbs nothing.
fn task_cells(task: &TaskRow) -> Vec<Cell> {
    let cpu = task.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string());
    vec![
        cell("pid", 0, task.pid),
        cell("cpu", 2, cpu),
        cell("nice", 3, task.nice),
        cell("weight", 5, task.weight.0),
        cell("busy%", 0, format!("{:.1}", task.busy_percent)),
        cell("vruntime-ms", 6, format!("{:.1}", task.vruntime_vns.0 as f64 / 1e6)),
        cell("wakeups/s", 4, format!("{:.0}", task.wakeups_per_s)),
        cell("preempt/s", 7, format!("{:.0}", task.preemptions_per_s)),
        cell("wait-p99", 1, time(task.wait_p99_us)),
        cell(NAME, 0, task.comm.printable()),
    ]
}

/// The one column that is text, and not aligned to the right.
const NAME: &str = "command";

/// A time in microseconds, in a unit that keeps it short.
pub(crate) fn time(us: Option<f64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us < 1e3 => format!("{us:.0}us"),
        Some(us) if us < 1e6 => format!("{:.1}ms", us / 1e3),
        Some(us) => format!("{:.1}s", us / 1e6),
    }
}

/// An interval as lines, with an empty one at the end.
pub fn draw(interval: &Interval, style: Style) -> String {
    let mut rows: Vec<_> =
        interval.cpus.iter().map(|cpu| cpu_cells(Some(cpu), &cpu.activity)).collect();
    rows.push(cpu_cells(None, &interval.total.activity));
    let mut lines = grid(&rows, style);
    lines.extend(wrap(&summary(interval), style.width));
    if let Some(policy) = &interval.policy {
        let items = policy_items(policy, &interval.total.activity);
        lines.extend(wrap(&items, style.width));
    }
    if style.all_counters {
        let counters = COUNTERS.iter().zip(interval.total.activity.counters.0);
        let items: Vec<_> = counters.map(|(c, n)| format!("{} {n}", c.name)).collect();
        lines.extend(wrap(&items, style.width));
        let events = interval.kernel_events.iter();
        let items: Vec<_> =
            events.map(|(name, n)| format!("{} {n}", text::printable(name.as_bytes()))).collect();
        lines.extend(wrap(&items, style.width));
    }
    if !interval.tasks.is_empty() {
        lines.push(String::new());
        let rows: Vec<_> = interval.tasks.iter().map(task_cells).collect();
        lines.extend(grid(&rows, style));
    }
    lines.push(String::new());
    lines.join("\n") + "\n"
}

/// Rows of the same columns as lines, the header first. Columns that do not fit are left out,
/// the most dispensable first.
fn grid(rows: &[Vec<Cell>], style: Style) -> Vec<String> {
    let Some(columns) = rows.first() else { return Vec::new() };
    let width = |i: usize| {
        let texts = rows.iter().map(|row| row[i].text.chars().count());
        texts.max().unwrap_or(0).max(columns[i].header.len())
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let mut kept: Vec<_> = (0..columns.len()).collect();
    let limit = style.width.unwrap_or(usize::MAX);
    while kept.iter().map(|&i| widths[i] + GAP).sum::<usize>() - GAP > limit {
        let worst = kept.iter().copied().max_by_key(|&i| columns[i].dispensable);
        let Some(worst) = worst.filter(|&i| columns[i].dispensable > 0) else { break };
        kept.retain(|&i| i != worst);
    }

    let line = |text: &dyn Fn(usize) -> String| {
        let cells = kept.iter().map(|&i| match columns[i].header {
            NAME => text(i),
            _ => format!("{:>1$}", text(i), widths[i]),
        });
        cut(&cells.collect::<Vec<_>>().join(&" ".repeat(GAP)), limit)
    };
    let header = line(&|i| columns[i].header.to_owned());
    let header = if style.bold { format!("\x1b[1m{header}\x1b[0m") } else { header };
    let body = rows.iter().map(|row| line(&|i| row[i].text.clone()));
    [header].into_iter().chain(body).collect()
}

/// Blanks between two columns, and between two items of a line.
const GAP: usize = 2;

/// The first `limit` characters.
fn cut(line: &str, limit: usize) -> String {
    line.chars().take(limit).collect()
}

/// Items as lines no longer than `width`, as far as an item alone is not.
pub(crate) fn wrap(items: &[String], width: Option<usize>) -> Vec<String> {
    let limit = width.unwrap_or(usize::MAX);
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.len() + GAP + item.len() <= limit => {
                line.push_str(&" ".repeat(GAP));
                line.push_str(item);
            }
            _ => lines.push(item.clone()),
        }
    }
    lines.iter().map(|line| cut(line, limit)).collect()
}

fn summary(interval: &Interval) -> Vec<String> {
    let total = &interval.total;
    let Latency { count, p50_us, p99_us, max_us, .. } = total.wakeup_latency;
    vec![
        format!("runnable {}", total.runnable),
        format!("queue depth {}", total.queue_depth),
        format!("wakeup latency p50 {}", time(p50_us)),
        format!("p99 {}", time(p99_us)),
        format!("max {}", time(max_us)),
        format!("of {count}"),
    ]
}

/// The policy in user space, and what became of what it was offered.
fn policy_items(policy: &PolicyRow, activity: &Activity) -> Vec<String> {
    let count = |counter| activity.counters.get(counter);
    let mut items = vec![
        format!("policy {}", text::printable(policy.name.as_bytes())),
        format!("offered {}", count(intf::counter_CNT_OFFERED)),
        format!("decided {}", count(intf::counter_CNT_DECIDED)),
        format!("taken {}", count(intf::counter_CNT_TAKEN)),
        format!("answer p50 {}", time(policy.answer.p50_us)),
        format!("p99 {}", time(policy.answer.p99_us)),
        format!("until it ran p50 {}", time(policy.served.p50_us)),
        format!("p99 {}", time(policy.served.p99_us)),
    ];
    if policy.late {
        items.push("LATE: the kernel's half decides".to_owned());
    }
    let figures = policy.figures.iter();
    items.extend(figures.map(|(name, n)| format!("{} {n}", text::printable(name.as_bytes()))));
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{sample::made, tasks};
    use std::time::{Duration, Instant};

    const PLAIN: Style = Style { width: None, bold: false, all_counters: false };

    fn interval() -> Interval {
        let start = Instant::now();
        let before = made::sample(start, 0, vec![made::cpu(0), made::cpu(1)]);
        let mut after = before.clone();
        after.at += Duration::from_secs(1);
        for (counter, value) in [
            (intf::counter_CNT_SWITCHES, 1234),
            (intf::counter_CNT_STOPS, 100),
            (intf::counter_CNT_RUN_NS, 345_600_000),
            (intf::counter_CNT_IDLE_DIRECT, 50),
            (intf::counter_CNT_PINNED, 2),
            (intf::counter_CNT_QUEUED, 40),
            // Different ones: a column that shows another's number is seen.
            (intf::counter_CNT_PREEMPTIONS, 5),
            (intf::counter_CNT_MIGRATIONS, 6),
            (intf::counter_CNT_LLC_IN, 7),
            (intf::counter_CNT_LLC_OUT, 8),
            (intf::counter_CNT_STEALS, 9),
        ] {
            after.cpus[1].stats.counters[counter as usize] = value;
        }
        for (cpu, idle_ns) in after.cpus.iter_mut().zip([1_000_000_000, 654_400_000]) {
            cpu.state.snapshot_at = 1_000_000_000;
            cpu.stats.counters[intf::counter_CNT_IDLE_NS as usize] = idle_ns;
        }
        after.cpus[1].stats.wait_hists[0][9] = 60;
        after.cpus[1].state.running_pid = 42;
        after.llcs[0].nr_queued = 3;
        let now = vec![tasks::made::task(42, 250_000_000, 10, b"evil\x1b[31m")];
        let tasks = tasks::TaskTracker::default().busiest(now, Duration::from_secs(1), 5);
        Interval::between(&before, &after, tasks)
    }

    #[test]
    fn plain() {
        assert_eq!(
            draw(&interval(), PLAIN),
            "\
cpu  node  llc  busy%  switches/s  slice  idle  queued  preempt  migr  llc-in  llc-out  steals
  0     0    0    0.0           0    0us     0       0        0     0       0        0       0
  1     0    0   34.6        1234  3.5ms    50      42        5     6       7        8       9
all              17.3        1234  3.5ms    50      42        5     6       7        8       9
runnable 4  queue depth 3  wakeup latency p50 10us  p99 10us  max 10us  of 60

pid  cpu  nice  weight  busy%  vruntime-ms  wakeups/s  preempt/s  wait-p99  command
 42    1     0    1024   25.0        123.5         10         20      16us  evil\\x1b[31m

"
        );
    }

    #[test]
    fn narrow_terminals_lose_the_least_important() {
        let narrow = Style { width: Some(40), ..PLAIN };
        let text = draw(&interval(), narrow);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert_eq!(text.lines().next(), Some("cpu  busy%  switches/s  slice  idle"));
        for width in 0..120 {
            let text = draw(&interval(), Style { width: Some(width), all_counters: true, ..PLAIN });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn bold_headers_and_all_counters() {
        let style = Style { bold: true, all_counters: true, ..PLAIN };
        let text = draw(&interval(), style);
        assert!(text.starts_with("\x1b[1mcpu  node"), "{text}");
        assert!(COUNTERS.iter().all(|counter| text.contains(counter.name)), "{text}");
        assert!(!draw(&interval(), PLAIN).contains('\x1b'));
    }

    #[test]
    fn times_stay_short() {
        let shown = [Some(0.0), Some(999.4), Some(1500.0), Some(2_500_000.0), None].map(time);
        assert_eq!(shown, ["0us", "999us", "1.5ms", "2.5s", "-"]);
    }
}

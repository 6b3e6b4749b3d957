//! What a simulation prints.

use super::{
    scenario::Scenario,
    stats::{Durations, GroupStats, PolicyStats, Stats},
};
use crate::stats::{table::wrap, text};
use serde_json::{Map, Value, json};
use std::{fmt::Write, fs, time::Duration};

/// Runs of one scenario, added up.
#[derive(Debug)]
pub struct Summary<'a> {
    /// What was simulated.
    pub scenario: &'a Scenario,
    /// Seed of the first run.
    pub seed: u64,
    /// How many runs, with seeds one after the other.
    pub runs: u64,
    /// Their sum.
    pub stats: Stats,
    /// How long all of it took.
    pub took: Duration,
    /// CPU time that it took, of all threads.
    pub cpu_took: Duration,
}

const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999)];

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

impl Summary<'_> {
    fn events_per_s(&self) -> f64 {
        self.stats.machine.events as f64 / self.cpu_took.as_secs_f64().max(1e-9)
    }

    fn simulated_s(&self) -> f64 {
        self.stats.machine.simulated_ns as f64 / 1e9
    }

    /// CPU time of tasks, of all that there was.
    pub fn busy_percent(&self) -> f64 {
        percent(self.stats.machine.run_ns, self.stats.machine.cpu_ns)
    }

    /// Times that a task started, in a second of simulated time.
    pub fn switches_per_s(&self) -> f64 {
        self.stats.machine.switches as f64 / self.simulated_s().max(1e-9)
    }

    /// For people: a row a group, and lines about the machine. `width`: columns of the terminal, if there is one.
    pub fn text(&self, width: Option<usize>) -> String {
        let head = [
            "group", "tasks", "cpu%", "due%", "wakeups", "p50", "p99", "p99.9", "max", "wait p99",
            "missed", "migr",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let named = self.scenario.group.iter().zip(&self.stats.groups);
        rows.extend(named.map(|(group, stats)| self.cells(&group.name, stats)));
        fit(&mut rows, width.unwrap_or(usize::MAX));
        let machine = &self.stats.machine;
        let mut about = vec![
            format!("{} CPUs", self.scenario.topology.places.len()),
            format!("{:.1}% busy", self.busy_percent()),
        ];
        // What else became of CPU time, where that happened.
        for (ns, name) in [(machine.taken_ns, "taken"), (machine.offline_ns, "offline")] {
            if ns > 0 {
                about.push(format!("{:.1}% {name}", percent(ns, machine.cpu_ns)));
            }
        }
        about.push(format!("{:.0} switches/s", self.switches_per_s()));
        about.push(format!("{} run(s) from seed {}", self.runs, self.seed));
        about.push(format!("log {:016x}", self.stats.log_hash));
        let mut text = table(&rows) + &wrap(&about, width).join("\n") + "\n";
        let _ = writeln!(
            text,
            "simulated {:.1} s in {:.2} s  {:.0} events/s on a core",
            self.simulated_s(),
            self.took.as_secs_f64(),
            self.events_per_s()
        );
        if let Some(policy) = &self.stats.policy {
            for line in policy_items(policy).iter().flat_map(|items| wrap(items, width)) {
                text += &(line + "\n");
            }
        }
        text
    }

    fn cells(&self, name: &str, stats: &GroupStats) -> Vec<String> {
        let whole = self.stats.machine.cpu_ns;
        let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), duration);
        let mut cells = vec![
            text::printable(name.as_bytes()),
            (stats.tasks / self.runs).to_string(),
            format!("{:.2}", percent(stats.run_ns, whole)),
            stats
                .due_ns
                .map_or_else(|| "-".to_owned(), |due| format!("{:.2}", percent(due, whole))),
            stats.wakeup.count().to_string(),
        ];
        cells.extend(SHARES.map(|(_, share)| us(stats.wakeup.percentile_us(share))));
        let some = stats.wakeup.count() > 0;
        cells.push(us(some.then_some(stats.wakeup.max_ns as f64 / 1e3)));
        cells.push(us(stats.wait.percentile_us(0.99)));
        cells.push(match stats.periods {
            0 => "-".to_owned(),
            periods => format!("{:.2}%", percent(stats.missed, periods)),
        });
        cells.push(stats.migrations.to_string());
        cells
    }

    /// For programs: one object. Times in microseconds, shares in percent of all CPUs.
    pub fn json(&self) -> Value {
        let whole = self.stats.machine.cpu_ns;
        let named = self.scenario.group.iter().zip(&self.stats.groups);
        let groups: Vec<_> = named
            .map(|(group, stats)| {
                json!({
                    "name": group.name,
                    "tasks": stats.tasks / self.runs,
                    "cpu_percent": percent(stats.run_ns, whole),
                    "due_percent": stats.due_ns.map(|due| percent(due, whole)),
                    "wakeup_latency": percentiles(&stats.wakeup),
                    "queue_wait": percentiles(&stats.wait),
                    "periods": stats.periods,
                    "missed": stats.missed,
                    "migrations": stats.migrations,
                })
            })
            .collect();
        let machine = &self.stats.machine;
        json!({
            "seed": self.seed,
            "runs": self.runs,
            "log_hash": format!("{:016x}", self.stats.log_hash),
            "groups": groups,
            "machine": {
                "cpus": self.scenario.topology.places.len(),
                "busy_percent": percent(machine.run_ns, machine.cpu_ns),
                "taken_percent": percent(machine.taken_ns, machine.cpu_ns),
                "offline_percent": percent(machine.offline_ns, machine.cpu_ns),
                "idle_beside": percentiles(&machine.idle_beside),
                "shared_core_percent": percent(machine.shared_ns, machine.cpu_ns),
                "switches": machine.switches,
                "events": machine.events,
                "simulated_s": self.simulated_s(),
                "took_s": self.took.as_secs_f64(),
                "events_per_s": self.events_per_s(),
                "peak_memory_kib": peak_memory_kib(),
            },
            "policy": self.stats.policy.as_ref().map(policy_json),
        })
    }
}

/// The most memory that this process has had at a time. getrusage() tells of the one that it was forked from, too.
fn peak_memory_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// A policy in user space: what became of offers, and how long that took.
fn policy_items(policy: &PolicyStats) -> [Vec<String>; 2] {
    let mut offers = vec![format!("policy {}", policy.name)];
    offers.extend(policy.counts().iter().map(|(name, count)| format!("{name} {count}")));
    if let Some(late) = offers.last_mut() {
        let _ = write!(late, " for {:.1} s", policy.late_ns as f64 / 1e9);
    }
    let times = [("answer", &policy.answer), ("until it ran", &policy.served)];
    let mut took: Vec<_> = times
        .iter()
        .map(|(name, durations)| {
            let us =
                |share| durations.percentile_us(share).map_or_else(|| "-".to_owned(), duration);
            format!("{name} p50 {} p99 {}", us(0.5), us(0.99))
        })
        .collect();
    let figures = policy.figures.iter();
    took.extend(
        figures.map(|(name, value)| format!("{} {value}", text::printable(name.as_bytes()))),
    );
    [offers, took]
}

fn policy_json(policy: &PolicyStats) -> Value {
    let counts: Map<_, _> =
        policy.counts().iter().map(|&(name, count)| (name.to_owned(), json!(count))).collect();
    json!({
        "name": policy.name,
        "counters": counts,
        "late_s": policy.late_ns as f64 / 1e9,
        "answer": percentiles(&policy.answer),
        "served": percentiles(&policy.served),
        "figures": policy.figures,
    })
}

/// Columns that a narrow terminal has no room for, the first to be left out first.
const DISPENSABLE: [&str; 6] = ["migr", "p99.9", "due%", "wakeups", "missed", "tasks"];

/// Leaves columns out until the table is no wider than that, if it can be.
fn fit(rows: &mut [Vec<String>], width: usize) {
    for name in DISPENSABLE {
        if table(rows).lines().all(|line| line.chars().count() <= width) {
            break;
        }
        if let Some(column) = rows.first().and_then(|head| head.iter().position(|h| h == name)) {
            rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
    }
}

/// Rows as aligned columns: the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<_> = (0..columns)
        .map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn percentiles(durations: &Durations) -> Map<String, Value> {
    let figure = |&(name, share): &(&str, f64)| {
        (format!("{name}_us"), json!(durations.percentile_us(share)))
    };
    let mut all: Map<_, _> = SHARES.iter().map(figure).collect();
    all.insert("max_us".into(), json!(durations.max_ns as f64 / 1e3));
    all.insert("count".into(), json!(durations.count()));
    all
}

/// Microseconds as people read them.
pub fn duration(us: f64) -> String {
    match us {
        _ if us < 1_000.0 => format!("{us:.0}us"),
        _ if us < 1_000_000.0 => format!("{:.1}ms", us / 1e3),
        _ => format!("{:.2}s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        let head = ["group", "tasks", "due%", "wakeups", "p50", "p99.9", "missed", "migr"];
        let whole: Vec<Vec<_>> =
            vec![head.map(str::to_owned).to_vec(), head.map(|name| name.to_uppercase()).to_vec()];
        let fitted = |width| {
            let mut rows = whole.clone();
            fit(&mut rows, width);
            rows
        };
        assert_eq!(fitted(usize::MAX), whole);
        let all = table(&whole).lines().map(str::len).max().expect("lines");
        assert_eq!(fitted(all), whole);
        assert_eq!(fitted(all - 1)[0], head[..7], "the migrations go first");
        assert_eq!(fitted(0)[1], ["GROUP", "P50"], "what a table is for stays");
    }
}

//! What came out, for people and for programs.

use super::{
    Arm, Measured, Plan,
    observer::Waits,
    verdict::{Comparison, Verdict},
};
use crate::stats::text::printable;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;

/// All figures. Its serialized form is the JSON output.
#[derive(Debug, Serialize)]
pub struct Results {
    /// The command, as text; what is not is escaped.
    command: Vec<String>,
    /// Runs under each scheduler.
    runs: usize,
    /// One for each figure.
    figures: Vec<Figure>,
}

/// A figure.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    /// `s`, `us`, or empty for a count or a figure of the command's own.
    unit: &'static str,
    /// Of each run under the kernel's default, in order.
    default: Vec<f64>,
    /// Of each run under ours, in order.
    ours: Vec<f64>,
    #[serde(flatten)]
    comparison: Comparison,
}

impl Results {
    pub(super) fn of(plan: &Plan, measured: &[Measured]) -> Self {
        let mut figures = Vec::new();
        let mut add = |name: &str, unit, value: &dyn Fn(&Measured) -> Option<f64>| {
            // A figure that one run does not have, none has: nobody waited, say.
            let of = |arm| {
                let runs = measured.iter().filter(|m| m.arm == arm);
                runs.map(value).collect::<Option<Vec<f64>>>().filter(|v| !v.is_empty())
            };
            if let (Some(default), Some(ours)) = (of(Arm::Default), of(Arm::Ours)) {
                let comparison = Comparison::of(&default, &ours);
                figures.push(Figure { name: name.to_owned(), unit, default, ours, comparison });
            }
        };
        add("wall time", "s", &|m| Some(m.run.wall.as_secs_f64()));
        add("CPU time", "s", &|m| Some(m.run.cpu.as_secs_f64()));
        add("context switches", "", &|m| Some(m.run.switches as f64));
        for (whose, waits) in [
            ("command", (|m| &m.of_command) as fn(&Measured) -> &Waits),
            ("others", |m| &m.of_others),
        ] {
            for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
                add(&format!("wait of {whose} {name}"), "us", &|m| {
                    waits(m).percentile(share).map(|wait| wait.0 as f64 / 1000.0)
                });
            }
        }
        if plan.metric.is_some() {
            add("metric", "", &|m| m.metric);
        }
        let command = plan.command.iter().map(|word| printable(word.as_bytes())).collect();
        Self { command, runs: plan.runs, figures }
    }

    /// One JSON object, and a newline.
    ///
    /// # Errors
    /// None is expected: there is nothing in it that JSON does not have.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// A table, a line a figure.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:20}{:>14}{:>14}{:>8}  {:16}\n",
            format!("median of {} runs", self.runs),
            "default",
            "scheduler",
            "ratio",
            "95 % interval"
        );
        for figure in &self.figures {
            let c = &figure.comparison;
            let value = |x: f64| with_unit(x, figure.unit);
            let ratio = c.ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.3}"));
            let interval = c
                .interval
                .map_or_else(|| "-".into(), |[low, high]| format!("{low:.3} to {high:.3}"));
            text += &format!(
                "{:20}{:>14}{:>14}{ratio:>8}  {interval:16}  {}\n",
                figure.name,
                value(c.default_median),
                value(c.ours_median),
                in_words(c)
            );
        }
        text
    }
}

fn with_unit(x: f64, unit: &str) -> String {
    match unit {
        "s" => format!("{x:.3} s"),
        "us" if x >= 10_000.0 => format!("{:.1} ms", x / 1000.0),
        "us" => format!("{x:.0} us"),
        _ => format!("{x}"),
    }
}

fn in_words(c: &Comparison) -> String {
    let percent = c.ratio.map(|ratio| format!("{:.0} % ", 100.0 * (ratio - 1.0).abs()));
    match c.verdict {
        Verdict::Less => format!("{}less", percent.unwrap_or_default()),
        Verdict::More => format!("{}more", percent.unwrap_or_default()),
        Verdict::NoDifference => "no difference shown".into(),
        Verdict::TooFewRuns => "too few runs to tell (4 are needed)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::command::Run;
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

    fn results(runs: usize) -> Results {
        let plan = Plan {
            runs,
            warmup: 0,
            metric: super::super::Metric::parse("x").ok(),
            json: false,
            tuning: crate::settings::Tuning::default(),
            command: vec!["sleep".into(), "\x1b[31m".into()],
        };
        let run = |arm, wall_ms| Measured {
            arm,
            run: Run {
                wall: Duration::from_millis(wall_ms),
                cpu: Duration::from_millis(3),
                switches: 0,
                status: ExitStatus::from_raw(0),
                output: String::new(),
            },
            of_command: Waits::default(),
            of_others: Waits::default(),
            metric: Some(7.5),
        };
        let mut measured: Vec<_> = (0..runs as u64).map(|n| run(Arm::Default, 1000 + n)).collect();
        measured.extend((0..runs as u64).map(|n| run(Arm::Ours, 500 + n)));
        Results::of(&plan, &measured)
    }

    #[test]
    fn table() {
        assert_eq!(
            results(5).text(),
            "\
median of 5 runs           default     scheduler   ratio  95 % interval   
wall time                  1.002 s       0.502 s   0.501  0.499 to 0.503    50 % less
CPU time                   0.003 s       0.003 s   1.000  1.000 to 1.000    no difference shown
context switches                 0             0       -  -                 no difference shown
metric                         7.5           7.5   1.000  1.000 to 1.000    no difference shown
"
        );
        assert!(results(2).text().contains("too few runs"));
    }

    #[test]
    fn json() {
        let json: serde_json::Value =
            serde_json::from_str(&results(5).json().expect("JSON")).expect("JSON");
        assert_eq!(json["command"][1], "\\x1b[31m");
        let wall = &json["figures"][0];
        assert_eq!((wall["name"].as_str(), wall["unit"].as_str()), (Some("wall time"), Some("s")));
        assert_eq!(wall["verdict"], "less");
        assert_eq!(wall["default"].as_array().map(Vec::len), Some(5));
        assert!(wall["interval"][1].as_f64() < Some(0.51), "{wall}");
    }
}

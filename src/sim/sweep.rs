//! `--sweep`: the same scenario under several values of a setting, and the trade-off that they make.

use super::{
    plan::{Plan, Policies, Results},
    report::{Summary, duration},
    scenario::Scenario,
};
use crate::{exit::Failure, machine::stop::Stop, settings::Tuning, stats::text};
use anyhow::{Context, Result};
use plotters::prelude::*;
use serde_json::{Value, json};
use std::{fs::File, io::Write, path::PathBuf};

/// Values of a setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Its name.
    pub key: String,
    /// Each value in microseconds, and the figures that the policy decides by then.
    pub points: Vec<(u64, Tuning)>,
    /// Where a chart of the trade-off goes.
    pub svg: Option<PathBuf>,
}

impl Sweep {
    /// Values from `low` to `high`, both included, each larger than the one before by about the same factor.
    pub fn values(low: u64, high: u64) -> Vec<u64> {
        const VALUES: u32 = 10;
        let factor = (high as f64 / low as f64).powf(1.0 / f64::from(VALUES - 1));
        let mut values: Vec<_> =
            (0..VALUES).map(|i| (low as f64 * factor.powi(i as i32)).round() as u64).collect();
        values[VALUES as usize - 1] = high;
        values.dedup();
        values
    }

    /// Runs the plan under each value, until `stop`.
    ///
    /// # Errors
    /// When the system has no room for a run, or a policy panics.
    pub fn run<'a>(
        &self,
        plan: &Plan,
        scenario: &'a Scenario,
        policies: &Policies<'_>,
        stop: &Stop,
    ) -> Result<Vec<(u64, Results<'a>)>, Failure> {
        let plans: Vec<_> =
            self.points.iter().map(|&(_, tuning)| Plan { tuning, ..plan.clone() }).collect();
        let results = Plan::run_all(&plans, scenario, policies, stop)?;
        Ok(self.points.iter().map(|(value, _)| *value).zip(results).collect())
    }

    /// For people: a row a value, with the 99th percentile of each group's waits.
    pub fn text(&self, results: &[(u64, Results<'_>)]) -> String {
        let Some((_, first)) = results.first() else { return String::new() };
        let mut rows = vec![vec![self.key.clone(), "busy%".into(), "switches/s".into()]];
        let names = first.summary.scenario.group.iter();
        rows[0].extend(names.map(|g| format!("{} p99", text::printable(g.name.as_bytes()))));
        for (value, Results { summary, .. }) in results {
            let mut row = vec![
                value.to_string(),
                format!("{:.1}", summary.busy_percent()),
                format!("{:.0}", summary.switches_per_s()),
            ];
            let waits = latencies(summary);
            row.extend(waits.into_iter().map(|us| us.map_or("-".to_owned(), duration)));
            rows.push(row);
        }
        super::report::table(&rows)
    }

    /// For programs: one object.
    pub fn json(&self, results: &[(u64, Results<'_>)]) -> Value {
        let points: Vec<_> = results
            .iter()
            .map(|(value, results)| json!({ "value": value, "result": results.summary.json() }))
            .collect();
        json!({ "sweep": self.key, "points": points })
    }

    /// The chart: latencies of groups over the setting, and switches, each on an axis of its own.
    ///
    /// # Errors
    /// When it cannot be drawn or written.
    pub fn draw(&self, results: &[(u64, Results<'_>)], mut file: File) -> Result<()> {
        let svg = self.chart(results).map_err(|e| anyhow::anyhow!("drawing the sweep: {e}"))?;
        file.write_all(svg.as_bytes()).context("writing the chart")
    }

    fn chart(&self, results: &[(u64, Results<'_>)]) -> Result<String, Box<dyn std::error::Error>> {
        let Some((_, first)) = results.first() else { return Ok(String::new()) };
        let at = |value: u64| value as f64;
        let (low, high) = (at(results[0].0), at(results[results.len() - 1].0).max(2.0));
        let lines: Vec<(String, Vec<(f64, f64)>)> = (0..first.summary.scenario.group.len())
            .map(|group| {
                let of = |(value, results): &(u64, Results<'_>)| {
                    latencies(&results.summary)[group].map(|us| (at(*value), us.max(1.0)))
                };
                let name = &first.summary.scenario.group[group].name;
                (format!("{name} p99"), results.iter().filter_map(of).collect())
            })
            .collect();
        let most = |points: &[(f64, f64)]| points.iter().map(|point| point.1).fold(1.0, f64::max);
        let top = lines.iter().map(|(_, line)| most(line)).fold(10.0, f64::max);
        let switches: Vec<_> =
            results.iter().map(|(value, r)| (at(*value), r.summary.switches_per_s())).collect();
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (860, 460)).into_drawing_area();
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(&first.summary.scenario.about, ("sans-serif", 16))
                .margin(12)
                .x_label_area_size(36)
                .y_label_area_size(64)
                .right_y_label_area_size(64)
                .build_cartesian_2d((low..high).log_scale(), (1.0..top * 3.0).log_scale())?
                .set_secondary_coord((low..high).log_scale(), 0.0..most(&switches) * 1.2);
            chart
                .configure_mesh()
                .x_desc(&self.key)
                .x_labels(5)
                .y_desc("wakeup latency, µs")
                .light_line_style(TRANSPARENT)
                .x_label_formatter(&|value| format!("{value:.0}"))
                .y_label_formatter(&|value| format!("{value:.0}"))
                .draw()?;
            chart.configure_secondary_axes().y_desc("switches/s").draw()?;
            for (number, (name, line)) in lines.into_iter().enumerate() {
                let color = Palette99::pick(number).to_rgba();
                chart
                    .draw_series(LineSeries::new(line, color.stroke_width(2)))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
            }
            chart
                .draw_secondary_series(LineSeries::new(switches, BLACK.stroke_width(1)))?
                .label("switches/s, right axis")
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK));
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::MiddleRight)
                .background_style(WHITE.mix(0.8))
                .draw()?;
            area.present()?;
        }
        Ok(svg)
    }
}

/// The 99th percentile of each group's wakeups, in microseconds; of its waits, where none wakes.
fn latencies(summary: &Summary<'_>) -> Vec<Option<f64>> {
    let p99 = |group: &super::stats::GroupStats| {
        let woken = group.wakeup.count() > group.tasks;
        if woken { &group.wakeup } else { &group.wait }.percentile_us(0.99)
    };
    summary.stats.groups.iter().map(p99).collect()
}

//! Figures of cells, as they are kept in `results.json`.

use super::{
    candidate::DEFAULT,
    figure::{Histogram, Reading},
    runner::{Finished, Runner},
    scenario::Better,
};
use crate::qemu::{Mode, TURN_TICKS};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Percentiles of the curves in the charts.
const CURVE: [f64; 14] =
    [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 100.0];

/// All results of a folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// One for each cell.
    pub entries: Vec<Entry>,
}

/// What makes cells comparable with each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Setting {
    /// `deterministic` or `parallel`.
    pub mode: String,
    /// The kernel's release.
    pub kernel: String,
    /// QEMU's version.
    pub qemu: String,
    /// The longest turn of a virtual CPU while others wait, where CPUs take turns.
    pub turn_us: Option<u32>,
}

/// The figures of one scheduler in one scenario on one number of CPUs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The scenario's name.
    pub scenario: String,
    /// QEMU's `-smp`.
    pub cpus: String,
    /// The scheduler's name.
    pub scheduler: String,
    /// The scheduler's version.
    pub version: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where it was measured.
    pub setting: Setting,
    /// The commit that measured it.
    pub commit: String,
    /// How many samples there are.
    pub samples: usize,
    /// The longest time a sample took on the host.
    pub host_s: f64,
    /// The proof of idleness: the busiest of the samples, in per cent of all CPUs, in the second before.
    pub idle_busy_percent: f64,
    /// The parts of the scenario.
    pub parts: Vec<PartResult>,
}

/// The figures of a part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartResult {
    /// The part's name.
    pub name: String,
    /// Its figures.
    pub figures: Vec<FigureResult>,
    /// Percentile and value, of all samples together, for each histogram that a figure reads.
    pub curves: BTreeMap<String, Vec<(f64, f64)>>,
}

/// A figure of all samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FigureResult {
    /// The figure's name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Which direction is better.
    pub better: Better,
    /// Whether it belongs into the summary.
    pub headline: bool,
    /// In the gate: what it may be worse by.
    pub margin: Option<f64>,
    /// One value for each sample.
    pub values: Vec<f64>,
}

impl FigureResult {
    /// The middle of the values; of an even number, the mean of the middle two. `values` is never empty.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        }
    }

    /// The least and the greatest value.
    pub fn range(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, greatest)
    }
}

impl Entry {
    /// Reads the figures of a cell. A figure that a sample lacks is left out, and `failures` told.
    pub fn read(
        cell: &Finished<'_>,
        setting: &Setting,
        commit: &str,
        failures: &mut Vec<String>,
    ) -> Option<Self> {
        let samples = &cell.samples;
        if samples.is_empty() {
            return None;
        }
        let (scenario, candidate) = (cell.cell.scenario, cell.cell.candidate);
        let mut parts = Vec::new();
        for (number, part) in scenario.parts.iter().enumerate() {
            let mut result = PartResult {
                name: part.name.clone(),
                figures: Vec::new(),
                curves: BTreeMap::new(),
            };
            for figure in &part.figures {
                let read = || -> Result<Vec<f64>> {
                    let records = samples.iter().map(|sample| sample.record.parts.get(number));
                    records
                        .map(|record| figure.reading.read(record.context("the part is missing")?))
                        .collect()
                };
                match read() {
                    Ok(values) => result.figures.push(FigureResult {
                        name: figure.name.clone(),
                        unit: figure.unit.clone(),
                        better: figure.better,
                        headline: figure.headline,
                        margin: figure.margin,
                        values,
                    }),
                    Err(error) => failures.push(format!(
                        "{} · {} CPUs · {} · {} · {}: {error:#}",
                        scenario.name, cell.cell.cpus, candidate.name, part.name, figure.name
                    )),
                }
                if figure.reading.percentile.is_some() {
                    let name = figure.reading.histogram.clone().unwrap_or_default();
                    result.curves.entry(name).or_insert_with(|| {
                        curve(cell, number, &figure.reading).unwrap_or_default()
                    });
                }
            }
            parts.push(result);
        }
        let greatest =
            |of: fn(&super::runner::Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
        Some(Self {
            scenario: scenario.name.clone(),
            cpus: cell.cell.cpus.to_owned(),
            scheduler: candidate.name.clone(),
            version: candidate.version.clone(),
            args: candidate.args.clone(),
            setting: setting.clone(),
            commit: commit.to_owned(),
            samples: samples.len(),
            host_s: greatest(|sample| sample.host_s).round(),
            idle_busy_percent: greatest(|sample| sample.record.idle.busy_percent),
            parts,
        })
    }

    fn is_same_cell(&self, other: &Self) -> bool {
        let key =
            |entry: &Self| (entry.scenario.clone(), entry.cpus.clone(), entry.scheduler.clone());
        key(self) == key(other) && self.setting.mode == other.setting.mode
    }
}

/// The distribution of all samples together.
fn curve(cell: &Finished<'_>, part: usize, reading: &Reading) -> Result<Vec<(f64, f64)>> {
    let mut all = Histogram::default();
    for sample in &cell.samples {
        let record = sample.record.parts.get(part).context("the part is missing")?;
        all.add(reading.histogram_of(record)?);
    }
    CURVE.iter().map(|&percentile| Ok((percentile, all.percentile(percentile)?))).collect()
}

impl Results {
    /// Reads a file of results; none is no error.
    pub fn load(file: &Path) -> Result<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        let read = || -> Result<_> { Ok(serde_json::from_slice(&fs::read(file)?)?) };
        read().with_context(|| format!("reading the results in {}", file.display()))
    }

    /// Puts new entries in place of the old ones of the same cells. Old entries of a changed scenario or of another
    /// setting go, because nothing can be compared with them.
    pub fn merge(&mut self, new: Vec<Entry>) {
        self.entries.retain(|old| {
            !new.iter().any(|entry| entry.is_same_cell(old))
                && new.iter().all(|entry| {
                    entry.scenario != old.scenario
                        || entry.setting.mode != old.setting.mode
                        || entry.setting == old.setting
                })
        });
        self.entries.extend(new);
        let rank = |entry: &Entry| (entry.scheduler != DEFAULT, entry.scheduler.clone());
        let key = |entry: &Entry| {
            let cpus: usize =
                entry.cpus.split(',').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            (
                entry.setting.mode.clone(),
                entry.scenario.clone(),
                cpus,
                entry.cpus.clone(),
                rank(entry),
            )
        };
        self.entries.sort_by_key(key);
    }
}

impl Setting {
    /// The setting of a run.
    pub fn of(runner: &Runner) -> Self {
        const TICKS_PER_US: u32 = 100;
        let deterministic = runner.mode == Mode::Deterministic;
        Self {
            mode: if deterministic { "deterministic" } else { "parallel" }.into(),
            kernel: runner.kernel.release.clone(),
            qemu: runner.qemu.clone(),
            turn_us: deterministic.then_some(TURN_TICKS / TICKS_PER_US),
        }
    }
}

/// The commit of a repository, marked where files differ from it.
pub fn commit(root: &Path) -> String {
    let out = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(root)
        .stderr(Stdio::null())
        .output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[f64]) -> FigureResult {
        FigureResult {
            name: "one".into(),
            unit: "s".into(),
            better: Better::Less,
            headline: true,
            margin: None,
            values: values.to_vec(),
        }
    }

    fn entry(scenario: &str, scheduler: &str, kernel: &str, value: f64) -> Entry {
        Entry {
            scenario: scenario.into(),
            cpus: "4".into(),
            scheduler: scheduler.into(),
            version: String::new(),
            args: Vec::new(),
            setting: Setting {
                mode: "deterministic".into(),
                kernel: kernel.into(),
                qemu: "10.0.2".into(),
                turn_us: Some(100),
            },
            commit: "abc".into(),
            samples: 1,
            host_s: 1.0,
            idle_busy_percent: 0.0,
            parts: vec![PartResult {
                name: "part".into(),
                figures: vec![figure(&[value])],
                curves: BTreeMap::new(),
            }],
        }
    }

    #[test]
    fn median_and_range() {
        assert_eq!(figure(&[3.0, 1.0, 20.0]).median(), 3.0);
        assert_eq!(figure(&[4.0, 1.0, 3.0, 20.0]).median(), 3.5);
        assert_eq!(figure(&[7.0]).median(), 7.0);
        assert_eq!(figure(&[3.0, 1.0, 20.0]).range(), (1.0, 20.0));
    }

    #[test]
    fn merging_replaces_the_same_cell_and_drops_what_cannot_be_compared() {
        let mut results = Results::default();
        results.merge(vec![
            entry("hogs", "scheduler", "7.3", 1.0),
            entry("hogs", DEFAULT, "7.3", 2.0),
            entry("pipe", DEFAULT, "7.3", 3.0),
        ]);
        let all = |results: &Results| -> Vec<(String, String, f64)> {
            let value = |entry: &Entry| entry.parts[0].figures[0].values[0];
            let entries = results.entries.iter();
            entries.map(|e| (e.scenario.clone(), e.scheduler.clone(), value(e))).collect()
        };
        let row = |scenario: &str, scheduler: &str, value: f64| {
            (scenario.to_owned(), scheduler.to_owned(), value)
        };
        results.merge(vec![entry("hogs", "scheduler", "7.3", 4.0)]);
        assert_eq!(
            all(&results),
            [row("hogs", DEFAULT, 2.0), row("hogs", "scheduler", 4.0), row("pipe", DEFAULT, 3.0)]
        );
        results.merge(vec![entry("hogs", "scheduler", "7.4", 5.0)]);
        assert_eq!(all(&results), [row("hogs", "scheduler", 5.0), row("pipe", DEFAULT, 3.0)]);
    }
}

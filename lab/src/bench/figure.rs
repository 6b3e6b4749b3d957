//! From what a program printed to numbers.

use anyhow::{Context, Result, ensure};
use lab_guest::plan::{PartRecord, Run};
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How a number is read from a part's record: by exactly one of `percentile`, `regex` and `elapsed`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Reading {
    /// This percentile of a histogram as cyclictest prints it, in its unit; 100 is the maximum.
    pub percentile: Option<f64>,
    /// Of the histogram below a line `# histogram NAME`; without it, of the whole output.
    pub histogram: Option<String>,
    /// The number in the only group, of the last line that matches.
    pub regex: Option<String>,
    /// The time that the probe took, in seconds.
    #[serde(default)]
    pub elapsed: bool,
    /// Read the output of this load instead of the probe's; the first is 0.
    pub load: Option<usize>,
    /// What the number is multiplied with.
    pub scale: Option<f64>,
}

impl Reading {
    /// Refuses a reading that cannot be carried out on what this part runs.
    pub fn check(&self, run: &Run) -> Result<()> {
        let ways = [self.percentile.is_some(), self.regex.is_some(), self.elapsed];
        ensure!(
            ways.iter().filter(|&&way| way).count() == 1,
            "needs exactly one of `percentile`, `regex` and `elapsed = true`"
        );
        if let Some(percentile) = self.percentile {
            ensure!((0.0..=100.0).contains(&percentile), "no percentile: {percentile}");
        }
        ensure!(
            self.histogram.is_none() || self.percentile.is_some(),
            "`histogram` is for `percentile`"
        );
        if let Some(regex) = &self.regex {
            let regex = Regex::new(regex).context("the regex")?;
            // The whole match counts as a group.
            ensure!(regex.captures_len() == 2, "the regex needs one group, the number");
        }
        if let Some(load) = self.load {
            ensure!(load < run.load.len(), "there is no load {load}; the first is 0");
            ensure!(!self.elapsed, "`elapsed` is of the probe");
        }
        Ok(())
    }

    /// Reads the number.
    pub fn read(&self, record: &PartRecord) -> Result<f64> {
        let number = if let Some(percentile) = self.percentile {
            self.histogram_of(record)?.percentile(percentile)?
        } else if let Some(regex) = &self.regex {
            last_match(self.text(record)?, regex)?
        } else {
            record.probe.seconds
        };
        Ok(number * self.scale.unwrap_or(1.0))
    }

    /// The histogram that it is read from.
    pub fn histogram_of(&self, record: &PartRecord) -> Result<Histogram> {
        Histogram::parse(self.text(record)?, self.histogram.as_deref())
    }

    fn text<'a>(&self, record: &'a PartRecord) -> Result<&'a str> {
        Ok(match self.load {
            None => &record.probe.stdout,
            Some(load) => &record.loads.get(load).context("the load left no output")?.stdout,
        })
    }
}

fn last_match(text: &str, regex: &str) -> Result<f64> {
    let compiled = Regex::new(regex)?;
    let found = text.lines().filter_map(|line| compiled.captures(line)).next_back();
    let group = found.and_then(|captures| captures.get(1).map(|group| group.as_str().to_owned()));
    let group = group.with_context(|| format!("no line matches {regex:?}"))?;
    group.parse().with_context(|| format!("{regex:?} found {group:?}, which is no number"))
}

/// A distribution of whole numbers.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: BTreeMap<u64, u64>,
    /// How many were too great to be counted where they belong, and the greatest of them.
    overflows: u64,
    max: Option<u64>,
}

impl Histogram {
    /// Reads `VALUE COUNT…` lines, a count for each thread, and cyclictest's lines on the maximum and on
    /// overflows. `section` is the name in a line `# histogram NAME` above them.
    pub fn parse(text: &str, section: Option<&str>) -> Result<Self> {
        const SECTION: &str = "# histogram ";
        let mut histogram = Self::default();
        let mut inside = section.is_none();
        for line in text.lines() {
            let numbers = |rest: &str| -> Option<Vec<u64>> {
                rest.split_whitespace().map(|word| word.parse().ok()).collect()
            };
            if let (Some(name), Some(section)) = (line.strip_prefix(SECTION), section) {
                inside = name.trim() == section;
            } else if !inside {
            } else if let Some(rest) = line.strip_prefix("# Max Latencies:") {
                histogram.max = numbers(rest).and_then(|all| all.into_iter().max());
            } else if let Some(rest) = line.strip_prefix("# Histogram Overflows:") {
                histogram.overflows = numbers(rest).map_or(0, |all| all.iter().sum());
            } else if let Some([value, counts @ ..]) = numbers(line).as_deref()
                && !counts.is_empty()
            {
                *histogram.counts.entry(*value).or_default() += counts.iter().sum::<u64>();
            }
        }
        ensure!(
            histogram.total() > 0,
            "the output holds no histogram{}",
            section.map(|name| format!(" {name:?}")).unwrap_or_default()
        );
        Ok(histogram)
    }

    /// Takes in another one.
    pub fn add(&mut self, other: Self) {
        for (value, count) in other.counts {
            *self.counts.entry(value).or_default() += count;
        }
        self.overflows += other.overflows;
        self.max = self.max.max(other.max);
    }

    fn total(&self) -> u64 {
        self.counts.values().sum::<u64>() + self.overflows
    }

    /// The least value that this part of all, in per cent, does not exceed.
    pub fn percentile(&self, percentile: f64) -> Result<f64> {
        let total = self.total() as f64;
        let mut seen = 0;
        for (&value, &count) in &self.counts {
            seen += count;
            // Compared as counts, so that 99.9 % of 1000 are 999 and not one more by rounding.
            if seen as f64 >= percentile * total / 100.0 - 1e-6 {
                return Ok(value as f64);
            }
        }
        // Among the overflows, only the greatest is known: the worst that it can be.
        Ok(self.max.context("the percentile lies beyond the histogram")? as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_guest::plan::Output;

    fn record(stdout: &str, load: &str) -> PartRecord {
        let output = |text: &str| Output { code: 0, seconds: 1.5, stdout: text.into() };
        PartRecord { name: "part".into(), probe: output(stdout), loads: vec![output(load)] }
    }

    const CYCLICTEST: &str = "\
# Histogram
000008 000500\t000480
000100 000000\t000015
# Total: 000000500 000000499
# Max Latencies: 00100 04000
# Histogram Overflows: 00000 00005
";

    #[test]
    fn percentiles_of_cyclictest() {
        let histogram = Histogram::parse(CYCLICTEST, None).expect("a histogram");
        let at = |percentile| histogram.percentile(percentile).expect("a percentile");
        assert_eq!(at(50.0), 8.0);
        assert_eq!(at(98.0), 8.0, "980 of 1000");
        assert_eq!(at(98.1), 100.0);
        assert_eq!(at(99.5), 100.0);
        assert_eq!(at(99.6), 4000.0, "among the overflows");
        assert_eq!(at(100.0), 4000.0);
    }

    #[test]
    fn sections_are_apart() {
        let text = "# histogram wakeup\n1 10\n# histogram request\n500 3\n900 1\n";
        let at = |section| {
            let histogram = Histogram::parse(text, Some(section)).expect("a section");
            histogram.percentile(100.0).expect("a maximum")
        };
        assert_eq!((at("wakeup"), at("request")), (1.0, 900.0));
        assert!(Histogram::parse(text, Some("other")).is_err());
        assert!(Histogram::parse("# nothing\n", None).is_err());
    }

    #[test]
    fn readings() {
        let record = record("Time: 3.1\nTime: 4.2\n", "cpu 17 5.0 4.9 0.1 108.25 3\n");
        let read = |reading: Reading| reading.read(&record);
        let regex = |text: &str| Reading { regex: Some(text.into()), ..Default::default() };
        assert_eq!(read(regex(r"Time: ([\d.]+)")).expect("a match"), 4.2);
        let scaled = Reading { scale: Some(1000.0), ..regex(r"Time: ([\d.]+)") };
        assert_eq!(read(scaled).expect("a match"), 4200.0);
        let load = Reading { load: Some(0), ..regex(r"cpu +(?:\S+ +){4}([\d.]+)") };
        assert_eq!(read(load).expect("a match"), 108.25);
        let elapsed = Reading { elapsed: true, ..Default::default() };
        assert_eq!(read(elapsed).expect("a time"), 1.5);
        assert!(read(regex("Tme: (.+)")).expect_err("no match").to_string().contains("Tme"));
    }
}

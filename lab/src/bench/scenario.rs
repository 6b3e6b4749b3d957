//! Scenarios: what runs in a guest and which figures are read from it. One TOML file each.

use super::figure::Reading;
use anyhow::{Context, Result, bail, ensure};
use lab_guest::plan::Run;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fs, path::Path};

/// One file of `lab/scenarios`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its extension.
    #[serde(skip)]
    pub name: String,
    /// One sentence: what is measured.
    pub about: String,
    /// QEMU's `-smp` of each guest: `"4"`, or `"8,sockets=2,cores=4"` for two last-level caches.
    pub cpus: Vec<String>,
    /// Memory of a guest.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u32,
    /// Programs of the host that the commands call, beside busybox and the lab's own `probe`.
    #[serde(default)]
    pub tools: Vec<String>,
    /// How long the host waits for one part to end before it gives the guest up.
    #[serde(default = "default_limit_s")]
    pub limit_s: u64,
    /// What the guest does, one after the other.
    #[serde(rename = "part")]
    pub parts: Vec<Part>,
}

/// A probe beside its load.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Distinguishes the parts of a scenario.
    pub name: String,
    /// What runs, and how its figures are read.
    #[serde(flatten)]
    pub run: Run,
    /// What is read.
    pub figures: Vec<Figure>,
}

/// One number, and how to judge it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Distinguishes the figures of a part.
    pub name: String,
    /// The unit of the number.
    pub unit: String,
    /// Which direction is better.
    pub better: Better,
    /// How it is read.
    #[serde(flatten)]
    pub reading: Reading,
    /// Belongs into the summary and the chart of ratios.
    #[serde(default)]
    pub headline: bool,
    /// In the gate: how far beyond the worst sample of the baseline it may be, as a part of it.
    pub margin: Option<f64>,
}

/// Which of two numbers is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// The lesser one.
    Less,
    /// The greater one.
    More,
}

fn default_memory_mib() -> u32 {
    2048
}

fn default_limit_s() -> u64 {
    900
}

impl Scenario {
    /// Reads a scenario and refuses what makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut scenario: Self = toml::from_str(text)?;
        scenario.name = name.to_owned();
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.cpus.is_empty(), "`cpus` names no guest");
        ensure!(!self.parts.is_empty(), "it has no [[part]]");
        let mut names = BTreeSet::new();
        for cpus in &self.cpus {
            cpu_count(cpus)?;
        }
        for part in &self.parts {
            ensure!(names.insert(part.name.clone()), "two parts are named {:?}", part.name);
            ensure!(!part.figures.is_empty(), "part {:?} reads no figure", part.name);
            let mut figures = BTreeSet::new();
            for figure in &part.figures {
                let name = format!("{:?} of part {:?}", figure.name, part.name);
                ensure!(figures.insert(&figure.name), "two figures are named {name}");
                figure.reading.check(&part.run).with_context(|| format!("figure {name}"))?;
                ensure!(
                    figure.margin.is_none_or(|margin| margin > 0.0),
                    "figure {name}: a margin is above 0"
                );
            }
        }
        Ok(())
    }

    /// Reads all scenarios of a folder, by name.
    pub fn load_all(folder: &Path) -> Result<Vec<Self>> {
        let entries = fs::read_dir(folder)
            .with_context(|| format!("reading the scenarios in {}", folder.display()))?;
        let mut scenarios = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let scenario = Self::parse(&name, &text)
                .with_context(|| format!("reading the scenario {}", path.display()))?;
            scenarios.push(scenario);
        }
        scenarios.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(scenarios)
    }

    /// The scenarios of these names, in that order; all if none is named.
    pub fn select(mut all: Vec<Self>, names: &[String]) -> Result<Vec<Self>> {
        if names.is_empty() {
            return Ok(all);
        }
        let mut selected = Vec::new();
        for name in names {
            let Some(at) = all.iter().position(|scenario| scenario.name == *name) else {
                let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
                bail!("no scenario {name:?}; there are: {}", known.join(", "));
            };
            selected.push(all.remove(at));
        }
        Ok(selected)
    }
}

/// The number of CPUs of a `-smp` value.
pub fn cpu_count(smp: &str) -> Result<usize> {
    let count = smp.split(',').next().unwrap_or_default().parse();
    count.ok().filter(|&count| count > 0).with_context(|| {
        format!("{smp:?} is no number of CPUs; use QEMU's -smp, as \"8,sockets=2,cores=4\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        about = "A test"
        cpus = ["4"]
        [[part]]
        name = "one"
        probe = "true"
        figures = [{ name = "time", unit = "s", better = "less", elapsed = true }]
    "#;

    #[test]
    fn shipped_scenarios_parse() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let all = Scenario::load_all(&folder).expect("every scenario parses");
        assert!(!all.is_empty());
        for scenario in &all {
            let headlines = scenario.parts.iter().flat_map(|part| &part.figures);
            assert!(headlines.into_iter().any(|figure| figure.headline), "{}", scenario.name);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refusal = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            match Scenario::parse("test", &GOOD.replace(from, to)) {
                Ok(_) => panic!("{to} was accepted"),
                Err(error) => format!("{error:#}"),
            }
        };
        assert!(Scenario::parse("test", GOOD).is_ok());
        assert!(refusal("about", "abuot").contains("abuot"));
        assert!(refusal("probe =", "prboe = 1\nprobe =").contains("prboe"));
        assert!(refusal("elapsed = true", "elapsed = true, margn = 1").contains("margn"));
        assert!(refusal("elapsed = true", "margin = 0.1").contains("exactly one"));
        assert!(refusal("elapsed = true", "elapsed = true, margin = -0.1").contains("above 0"));
        assert!(refusal("elapsed = true", "regex = 'a+'").contains("one group"));
        assert!(refusal("elapsed = true", "regex = '(a+)', load = 0").contains("no load 0"));
        assert!(refusal("[\"4\"]", "[\"four\"]").contains("four"));
        assert!(refusal("[\"4\"]", "[]").contains("cpus"));
    }

    #[test]
    fn an_unknown_scenario_is_named_with_the_known_ones() {
        let one = || Scenario::parse("one", GOOD).expect("a scenario");
        let error = Scenario::select(vec![one()], &["two".into()]).expect_err("unknown");
        assert!(error.to_string().contains("two") && error.to_string().contains("one"), "{error}");
        assert_eq!(Scenario::select(vec![one()], &["one".into()]).expect("known").len(), 1);
    }
}

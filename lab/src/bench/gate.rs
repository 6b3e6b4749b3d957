//! The gate: a short scenario against its committed baseline.

use super::{
    results::{Entry, FigureResult},
    scenario::Better,
};

/// The verdict on one figure.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    /// Part and figure.
    pub name: String,
    /// What was measured, in words.
    pub text: String,
    /// Whether it is good enough.
    pub passed: bool,
}

/// Judges each figure of the baseline that has a margin: the new median must not be worse than the worst
/// sample of the baseline by more than the margin. A figure that is gone does not pass.
pub fn judge(baseline: &Entry, new: &Entry) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for part in &baseline.parts {
        for figure in &part.figures {
            let Some(margin) = figure.margin else { continue };
            let limit = limit(figure, margin);
            let found = new.parts.iter().find(|one| one.name == part.name);
            let found = found.and_then(|one| one.figures.iter().find(|f| f.name == figure.name));
            let name = format!("{}: {}", part.name, figure.name);
            let verdict = match found {
                None => Verdict { name, text: "not measured".into(), passed: false },
                Some(found) => {
                    let (median, (least, greatest)) = (found.median(), figure.range());
                    let (passed, bound) = match figure.better {
                        Better::Less => (median <= limit, "at most"),
                        Better::More => (median >= limit, "at least"),
                    };
                    let text = format!(
                        "{median:.3} {}, {bound} {limit:.3}: baseline {least:.3}…{greatest:.3}, margin {:.0} %",
                        figure.unit,
                        margin * 100.0
                    );
                    Verdict { name, text, passed }
                }
            };
            verdicts.push(verdict);
        }
    }
    verdicts
}

/// The worst value that passes.
fn limit(baseline: &FigureResult, margin: f64) -> f64 {
    let (least, greatest) = baseline.range();
    match baseline.better {
        Better::Less => greatest * (1.0 + margin),
        Better::More => least / (1.0 + margin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{PartResult, Setting};
    use std::collections::BTreeMap;

    fn entry(better: Better, margin: Option<f64>, values: &[f64]) -> Entry {
        let figure = FigureResult {
            name: "p99".into(),
            unit: "µs".into(),
            better,
            headline: true,
            margin,
            values: values.to_vec(),
        };
        Entry {
            scenario: "gate".into(),
            cpus: "4".into(),
            scheduler: "scheduler".into(),
            version: String::new(),
            args: Vec::new(),
            setting: Setting {
                mode: "deterministic".into(),
                kernel: "7.3".into(),
                qemu: "10".into(),
                turn_us: None,
            },
            commit: String::new(),
            samples: values.len(),
            host_s: 0.0,
            idle_busy_percent: 0.0,
            parts: vec![PartResult {
                name: "hogs".into(),
                figures: vec![figure],
                curves: BTreeMap::new(),
            }],
        }
    }

    fn passes(better: Better, new: &[f64]) -> bool {
        let baseline = entry(better, Some(0.25), &[80.0, 100.0, 90.0]);
        let verdicts = judge(&baseline, &entry(better, None, new));
        assert_eq!(verdicts.len(), 1);
        verdicts[0].passed
    }

    #[test]
    fn worse_than_range_and_margin_fails() {
        assert!(passes(Better::Less, &[125.0]));
        assert!(!passes(Better::Less, &[125.1]));
        assert!(passes(Better::Less, &[125.0, 10.0, 4000.0]), "the median counts");
        assert!(passes(Better::More, &[64.0]));
        assert!(!passes(Better::More, &[63.9]));
    }

    #[test]
    fn only_figures_with_a_margin_are_judged_and_a_lost_one_fails() {
        let free = entry(Better::Less, None, &[1.0]);
        assert!(judge(&free, &free).is_empty());
        let mut lost = entry(Better::Less, None, &[1.0]);
        lost.parts.clear();
        let verdicts = judge(&entry(Better::Less, Some(0.1), &[1.0]), &lost);
        assert!(!verdicts[0].passed, "{verdicts:?}");
    }
}

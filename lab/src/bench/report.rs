//! Results for readers: Markdown.

use super::{
    candidate::DEFAULT,
    results::{Entry, FigureResult, PartResult, Results},
    scenario::{Better, Scenario},
};
use lab_guest::plan::SAMPLE_OFFSET_US;
use std::{collections::BTreeSet, fmt::Write};

/// The name of the block of results in the README.
pub const README_BLOCK: &str = "bench";

/// Entries of one scenario, mode and number of CPUs: the columns of a table.
pub fn tables(results: &Results) -> Vec<&[Entry]> {
    let same = |a: &Entry, b: &Entry| {
        (&a.setting.mode, &a.scenario, &a.cpus) == (&b.setting.mode, &b.scenario, &b.cpus)
    };
    results.entries.chunk_by(same).collect()
}

/// The whole report.
pub fn markdown(results: &Results, scenarios: &[Scenario], charts: &[String]) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    text += "Written by `make bench`; do not edit. A cell holds the median of its samples, after × how many times \
             worse it is than the kernel's default (below 1 is better, whatever the unit), and the range.\n\n";
    text += &settings(results);
    text += "\n## Summary\n\n";
    text += &summary(results);
    if charts.iter().any(|chart| chart == "ratios.svg") {
        text += "\n![ratios to the kernel's default](ratios.svg)\n";
    }
    let mut scenario = String::new();
    for entries in tables(results) {
        let Some(first) = entries.first() else { continue };
        if scenario != first.scenario {
            scenario = first.scenario.clone();
            let about = scenarios.iter().find(|one| one.name == scenario).map(|one| &one.about);
            let about = about.map(|about| format!("{about}\n")).unwrap_or_default();
            write!(text, "\n## {scenario}\n\n{about}").unwrap_or_default();
        }
        write!(text, "\n### {scenario}: {} CPUs, {}\n\n", first.cpus, first.setting.mode)
            .unwrap_or_default();
        text += &table(entries, |_| true, with_range);
        for chart in charts.iter().filter(|chart| is_of(chart, first)) {
            write!(text, "\n![{chart}]({chart})\n").unwrap_or_default();
        }
    }
    text
}

/// The name that the charts of a table begin with.
pub fn chart_prefix(entry: &Entry) -> String {
    let mode = if entry.setting.mode == "parallel" { "-parallel" } else { "" };
    format!("{}-{}cpus{mode}-", entry.scenario, slug(&entry.cpus))
}

/// A name that needs no quoting anywhere.
pub fn slug(text: &str) -> String {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

fn is_of(chart: &str, entry: &Entry) -> bool {
    chart.starts_with(&chart_prefix(entry))
}

/// Where and how all of it was measured.
fn settings(results: &Results) -> String {
    let mut text = String::new();
    let settings: BTreeSet<_> = results.entries.iter().map(|entry| &entry.setting).collect();
    for setting in settings {
        let turn = match setting.turn_us {
            Some(turn) => format!(
                "; time is the count of instructions (2 ns each), virtual CPUs take turns of {turn} µs at most, \
                 and each sample begins {SAMPLE_OFFSET_US} µs later than the one before"
            ),
            None => "; a host thread for each virtual CPU".into(),
        };
        writeln!(
            text,
            "- Linux {}, QEMU {}, {}{turn}.",
            setting.kernel, setting.qemu, setting.mode
        )
        .unwrap_or_default();
    }
    let versions: BTreeSet<String> = results
        .entries
        .iter()
        .filter(|entry| entry.scheduler != DEFAULT)
        .map(|entry| format!("{} {} {}", entry.scheduler, entry.version, entry.args.join(" ")))
        .map(|line| line.trim().to_owned())
        .collect();
    writeln!(text, "- Schedulers: {DEFAULT} (the kernel's default), {}.", join(versions))
        .unwrap_or_default();
    let commits = results.entries.iter().map(|entry| entry.commit.clone());
    writeln!(text, "- Commit of the lab: {}.", join(commits.collect())).unwrap_or_default();
    let samples: BTreeSet<String> =
        results.entries.iter().map(|entry| entry.samples.to_string()).collect();
    writeln!(text, "- Samples a cell: {}.", join(samples)).unwrap_or_default();
    let busiest = results.entries.iter().map(|entry| entry.idle_busy_percent).fold(0.0, f64::max);
    writeln!(
        text,
        "- In the second before each measurement, with the scheduler attached, tasks ran for at most {busiest:.2} % \
         of the CPUs' time."
    )
    .unwrap_or_default();
    text
}

fn join(words: BTreeSet<String>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// The figures marked as headlines, without ranges.
pub fn summary(results: &Results) -> String {
    let entries = deterministic(results, |_| true);
    table(&entries, |figure| figure.headline, median)
}

/// What the README shows: the headlines on four CPUs, and where they were measured.
pub fn for_readme(results: &Results) -> String {
    let entries = deterministic(results, |entry| entry.cpus == "4");
    let Some(first) = entries.first() else { return String::new() };
    let samples: BTreeSet<String> = entries.iter().map(|one| one.samples.to_string()).collect();
    format!(
        "Linux {}, QEMU {}, 4 CPUs, deterministic; samples a cell: {}.\n\n{}",
        first.setting.kernel,
        first.setting.qemu,
        join(samples),
        table(&entries, |figure| figure.headline, median)
    )
}

fn deterministic(results: &Results, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let entries = results.entries.iter();
    let entries = entries.filter(|entry| entry.setting.mode == "deterministic" && wanted(entry));
    entries.cloned().collect()
}

/// Puts `content` between two lines that mark a block; None without them.
pub fn replace_block(text: &str, mark: &str, content: &str) -> Option<String> {
    let (before, rest) = text.split_once(&format!("<!-- {mark} -->\n"))?;
    let (_, after) = rest.split_once(&format!("<!-- /{mark} -->"))?;
    Some(format!("{before}<!-- {mark} -->\n{content}<!-- /{mark} -->{after}"))
}

/// The medians for a terminal: a line a figure.
pub fn plain(results: &Results) -> String {
    let mut text = String::new();
    for entries in tables(results) {
        for (part, figure) in rows_of(entries) {
            let Some(first) = entries.first() else { continue };
            let name = format!("{} {} {}: {}", first.scenario, first.cpus, part.name, figure.name);
            write!(text, "{name:<52} {:<10}", figure.unit).unwrap_or_default();
            for entry in entries {
                let found = find(entries, &entry.scheduler, &part.name, &figure.name);
                let value = found.map_or("–".into(), |figure| number(figure.median()));
                write!(text, " {} {value:<9}", entry.scheduler).unwrap_or_default();
            }
            text.push('\n');
        }
    }
    text
}

/// A table of figures: a row a figure, a column a scheduler.
fn table(
    entries: &[Entry],
    wanted: impl Fn(&FigureResult) -> bool,
    show: impl Fn(&FigureResult, Option<&FigureResult>) -> String,
) -> String {
    let mut schedulers: Vec<&str> = Vec::new();
    for entry in entries {
        if !schedulers.contains(&entry.scheduler.as_str()) {
            schedulers.push(&entry.scheduler);
        }
    }
    let mut text = format!("| figure | {} |\n", schedulers.join(" | "));
    text += &format!("| --- |{}\n", " --- |".repeat(schedulers.len()));
    for rows in entries.chunk_by(|a, b| (&a.scenario, &a.cpus) == (&b.scenario, &b.cpus)) {
        for (part, figure) in rows_of(rows).into_iter().filter(|(_, figure)| wanted(figure)) {
            let default = find(rows, DEFAULT, &part.name, &figure.name);
            let arrow = if figure.better == Better::Less { "less" } else { "more" };
            let place =
                rows.first().map(|entry| format!("{}, {} CPUs", entry.scenario, entry.cpus));
            let place = place.filter(|_| spans(entries)).unwrap_or_default();
            let name = [place, part.name.clone(), figure.name.clone()]
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join(": ");
            write!(text, "| {name}, {} ({arrow}) |", figure.unit).unwrap_or_default();
            for scheduler in &schedulers {
                let cell = find(rows, scheduler, &part.name, &figure.name);
                let cell = cell.map_or("–".into(), |figure| show(figure, default));
                write!(text, " {cell} |").unwrap_or_default();
            }
            text.push('\n');
        }
    }
    text
}

/// Whether a table spans scenarios or numbers of CPUs, so that its rows must name them.
fn spans(entries: &[Entry]) -> bool {
    entries
        .windows(2)
        .any(|two| (&two[0].scenario, &two[0].cpus) != (&two[1].scenario, &two[1].cpus))
}

/// Every figure that one of these entries has, once.
fn rows_of(entries: &[Entry]) -> Vec<(&PartResult, &FigureResult)> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for entry in entries {
        for part in &entry.parts {
            for figure in &part.figures {
                if seen.insert((&part.name, &figure.name)) {
                    rows.push((part, figure));
                }
            }
        }
    }
    rows
}

fn find<'a>(
    entries: &'a [Entry],
    scheduler: &str,
    part: &str,
    figure: &str,
) -> Option<&'a FigureResult> {
    let entry = entries.iter().find(|entry| entry.scheduler == scheduler)?;
    let part = entry.parts.iter().find(|one| one.name == part)?;
    part.figures.iter().find(|one| one.name == figure)
}

/// How much worse than the default, as a factor: below 1 is better. None where one of them is 0.
pub fn ratio(figure: &FigureResult, default: &FigureResult) -> Option<f64> {
    let (ours, theirs) = (figure.median(), default.median());
    let ratio = match figure.better {
        Better::Less => ours / theirs,
        Better::More => theirs / ours,
    };
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// The median, and its ratio to the default's.
fn median(figure: &FigureResult, default: Option<&FigureResult>) -> String {
    let mut text = number(figure.median());
    if let Some(default) = default.filter(|default| !std::ptr::eq(*default, figure))
        && let Some(ratio) = ratio(figure, default)
    {
        text += &format!(" (×{})", number(ratio));
    }
    text
}

fn with_range(figure: &FigureResult, default: Option<&FigureResult>) -> String {
    let mut text = median(figure, default);
    let (least, greatest) = figure.range();
    if figure.values.len() > 1 {
        text += &format!("<br>{}…{}", number(least), number(greatest));
    }
    text
}

/// Three figures that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(better: Better, values: &[f64]) -> FigureResult {
        FigureResult {
            name: "one".into(),
            unit: "s".into(),
            better,
            headline: true,
            margin: None,
            values: values.to_vec(),
        }
    }

    #[test]
    fn ratios_below_one_are_better() {
        let ratio = |better, ours: f64, theirs: f64| {
            ratio(&figure(better, &[ours]), &figure(better, &[theirs]))
        };
        assert_eq!(ratio(Better::Less, 1.0, 4.0), Some(0.25));
        assert_eq!(ratio(Better::More, 4.0, 1.0), Some(0.25));
        assert_eq!(ratio(Better::More, 0.0, 1.0), None);
    }

    #[test]
    fn slugs() {
        assert_eq!(slug("90 % load: p99.9"), "90-load-p99-9");
    }

    #[test]
    fn blocks_are_replaced() {
        let text = "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n";
        let new = "a\n<!-- bench -->\nnew\n<!-- /bench -->\nb\n";
        assert_eq!(replace_block(text, "bench", "new\n").as_deref(), Some(new));
        assert_eq!(replace_block("no marks", "bench", "new\n"), None);
    }

    #[test]
    fn readme_shows_the_committed_results() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let results = Results::load(&root.join("lab/results/results.json")).expect("results");
        let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
        let new = replace_block(&readme, README_BLOCK, &for_readme(&results));
        assert_eq!(new.expect("the block of results"), readme, "left: what `make bench` writes");
    }

    #[test]
    fn cells_show_median_ratio_and_range() {
        let default = figure(Better::Less, &[200.0]);
        let ours = figure(Better::Less, &[90.0, 100.0, 123.4]);
        assert_eq!(with_range(&ours, Some(&default)), "100 (×0.500)<br>90.0…123");
        assert_eq!(with_range(&default, Some(&default)), "200");
        assert_eq!(with_range(&figure(Better::Less, &[1.234]), None), "1.23");
    }
}

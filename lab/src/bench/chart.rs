//! Results for the eye: SVG.

use super::{
    candidate::DEFAULT,
    report::{chart_prefix, ratio, slug, tables},
    results::{Entry, PartResult, Results},
};
use anyhow::{Context, Result};
use plotters::prelude::*;
use std::{fs, path::Path};

const COLORS: [RGBColor; 8] = [
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
    RGBColor(0x17, 0xbe, 0xcf),
];

/// Draws all charts into a folder, and returns the names of their files.
pub fn draw_all(results: &Results, folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut write = |name: String, svg: Option<String>| -> Result<()> {
        if let Some(svg) = svg {
            let path = folder.join(&name);
            fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
            names.push(name);
        }
        Ok(())
    };
    for entries in tables(results) {
        let Some(first) = entries.first() else { continue };
        for part in &first.parts {
            for histogram in part.curves.keys() {
                let name = slug(&format!("{} {histogram}", part.name));
                let name = format!("{}{name}.svg", chart_prefix(first));
                let title = format!("{}: {} {histogram}", first.scenario, part.name);
                write(name, distribution(title.trim(), entries, &part.name, histogram)?)?;
            }
        }
    }
    write("ratios.svg".into(), ratios(results)?)?;
    Ok(names)
}

/// One line a scheduler: value over percentile, with the nines stretched out.
fn distribution(
    title: &str,
    entries: &[Entry],
    part: &str,
    histogram: &str,
) -> Result<Option<String>> {
    const NINES_MAX: f64 = 4.0;
    let find = |entry: &Entry| -> Option<Vec<(f64, f64)>> {
        let is_meant = |one: &&PartResult| one.name == part;
        entry.parts.iter().find(is_meant)?.curves.get(histogram).cloned()
    };
    let nines = |percentile: f64| (-(1.0 - percentile / 100.0).log10()).min(NINES_MAX);
    let lines: Vec<(&str, Vec<(f64, f64)>)> = entries
        .iter()
        .filter_map(|entry| Some((entry.scheduler.as_str(), find(entry)?)))
        .map(|(name, curve)| {
            // Below 1 there is no logarithm; 0 µs is "less than 1 µs".
            (name, curve.into_iter().map(|(at, value)| (nines(at), value.max(1.0))).collect())
        })
        .collect();
    let top = lines.iter().flat_map(|(_, curve)| curve).map(|point| point.1).fold(1.0, f64::max);
    let least = lines.iter().flat_map(|(_, curve)| curve).map(|point| point.1).fold(top, f64::min);
    let bottom = 10_f64.powf(least.log10().floor());
    if lines.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (760, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..NINES_MAX, (bottom..top * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("µs")
            .x_labels(5)
            .x_label_formatter(&|nines| match nines.round() {
                0.0 => "0".into(),
                1.0 => "90".into(),
                2.0 => "99".into(),
                3.0 => "99.9".into(),
                _ => "max".into(),
            })
            .y_label_formatter(&|value| format!("{value:.0}"))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for ((name, curve), color) in lines.into_iter().zip(COLORS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(curve, color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], *color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(TRANSPARENT)
            .draw()?;
        area.present()?;
    }
    Ok(Some(svg))
}

/// One row a headline figure, one dot a scheduler: left of the line is better than the kernel's default.
fn ratios(results: &Results) -> Result<Option<String>> {
    struct Dot<'a> {
        row: usize,
        scheduler: &'a str,
        ratio: f64,
    }
    let (mut rows, mut dots) = (Vec::new(), Vec::new());
    for entries in tables(results) {
        let Some(default) = entries.iter().find(|entry| entry.scheduler == DEFAULT) else {
            continue;
        };
        if default.setting.mode != "deterministic" {
            continue;
        }
        for part in &default.parts {
            for figure in part.figures.iter().filter(|figure| figure.headline) {
                for entry in entries.iter().filter(|entry| entry.scheduler != DEFAULT) {
                    let other = entry.parts.iter().find(|one| one.name == part.name);
                    let other = other
                        .and_then(|one| one.figures.iter().find(|other| other.name == figure.name));
                    if let Some(ratio) = other.and_then(|other| ratio(other, figure)) {
                        dots.push(Dot { row: rows.len(), scheduler: &entry.scheduler, ratio });
                    }
                }
                rows.push(format!(
                    "{} {}: {}: {}",
                    entries[0].scenario, entries[0].cpus, part.name, figure.name
                ));
            }
        }
    }
    if dots.is_empty() {
        return Ok(None);
    }
    let mut schedulers: Vec<&str> = Vec::new();
    for dot in &dots {
        if !schedulers.contains(&dot.scheduler) {
            schedulers.push(dot.scheduler);
        }
    }
    let least = dots.iter().map(|dot| dot.ratio).fold(0.5, f64::min) / 1.3;
    let greatest = dots.iter().map(|dot| dot.ratio).fold(2.0, f64::max) * 1.3;
    // Above the first row lies the legend.
    let above = 1.0 + schedulers.len() as f64;
    let height = u32::try_from(90 + (rows.len() + schedulers.len()) * 20).unwrap_or(4000);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (860, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let bottom = rows.len() as f64;
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("ratio to {DEFAULT}, left is better"), ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(330)
            .build_cartesian_2d((least..greatest).log_scale(), bottom..-above)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_label_formatter(&|ratio| format!("{ratio}"))
            .light_line_style(TRANSPARENT)
            .draw()?;
        chart
            .draw_series(LineSeries::new([(1.0, -above), (1.0, bottom)], BLACK.stroke_width(1)))?;
        for (row, name) in rows.iter().enumerate() {
            let (_, y) = chart.backend_coord(&(least, row as f64 + 0.5));
            area.draw(&Text::new(name.clone(), (16, y - 7), ("sans-serif", 13)))?;
        }
        for (number, name) in schedulers.iter().enumerate() {
            let color = COLORS[(number + 1) % COLORS.len()];
            let of_it = dots.iter().filter(|dot| dot.scheduler == *name);
            let circles =
                of_it.map(|dot| Circle::new((dot.ratio, dot.row as f64 + 0.5), 5, color.filled()));
            chart
                .draw_series(circles)?
                .label(*name)
                .legend(move |(x, y)| Circle::new((x + 9, y), 5, color.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(TRANSPARENT)
            .draw()?;
        area.present()?;
    }
    Ok(Some(svg))
}

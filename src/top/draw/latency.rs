//! Wakeup latencies: their histogram in the last interval, and what became of them before.

use super::{Look, bar, time};
use crate::{
    stats::interval::Slot,
    top::app::{App, Point},
};
use ratatui::text::Line;
use std::collections::BTreeMap;

/// A unit of the kernel's half, in microseconds: slots end at multiples of it.
const UNIT_US: f64 = 1.024;
/// What the columns beside the bars and the histories take.
const BESIDE: usize = 30;

/// The histogram by powers of two, and the histories.
pub fn lines(app: &App, look: Look, width: u16) -> Vec<Line<'static>> {
    let Some(frame) = &app.frame else { return Vec::new() };
    let latency = &frame.interval.total.wakeup_latency;
    if latency.count == 0 && app.history.iter().all(|point| point.us == [None; 3]) {
        return vec![Line::from("no wakeup latencies: only the scheduler tells them")];
    }
    let room = usize::from(width).saturating_sub(BESIDE).max(8);
    let names = ["p50", "p99", "max"];
    let mut lines = vec![Line::styled(
        format!("the last {} intervals, each step of a bar is a power of two", app.history.len()),
        look.heading(),
    )];
    for (i, name) in names.into_iter().enumerate() {
        let now = app.history.back().and_then(|point| point.us[i]);
        let bars = history(app.history.iter().map(|point: &Point| point.us[i]), room);
        lines.push(Line::from(format!("{name:>6} {:>8}  {bars}", time(now))));
    }
    lines.push(Line::from(""));
    let title = format!("wakeups of the last interval: {}", latency.count);
    lines.push(Line::styled(title, look.heading()));
    let by_power = by_power(&latency.slots);
    let most = by_power.values().copied().max().unwrap_or(1).max(1);
    let powers = by_power.keys().min().copied().zip(by_power.keys().max().copied());
    for power in powers.into_iter().flat_map(|(first, last)| first..=last) {
        let count = by_power.get(&power).copied().unwrap_or(0);
        let end = UNIT_US * 2f64.powi(power);
        let share = 100.0 * count as f64 / latency.count.max(1) as f64;
        let bar = bar(count as f64 / most as f64, room);
        lines.push(Line::from(format!("< {:>7} {bar} {count:>9} {share:>5.1}%", time(Some(end)))));
    }
    lines
}

/// How many below each power of two of units and not below the one before.
fn by_power(slots: &[Slot]) -> BTreeMap<i32, u64> {
    let mut counts = BTreeMap::new();
    for slot in slots {
        // Ends of slots are whole units; less than half of one makes the end itself belong to its power.
        let power = (slot.end_us / UNIT_US - 0.25).max(1.0).log2().ceil() as i32;
        *counts.entry(power).or_default() += slot.count;
    }
    counts
}

/// A character for each of the last values, on a scale of powers of two from the least to the greatest.
fn history(values: impl Iterator<Item = Option<f64>>, width: usize) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values: Vec<_> = values.collect();
    let shown = &values[values.len().saturating_sub(width)..];
    let powers = || shown.iter().flatten().map(|us| us.max(UNIT_US).log2());
    let least = powers().fold(f64::INFINITY, f64::min);
    let step = |us: &Option<f64>| match us {
        None => ' ',
        Some(us) => STEPS[((us.max(UNIT_US).log2() - least) as usize).min(STEPS.len() - 1)],
    };
    shown.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_add_up_by_powers_of_two() {
        let slot = |units: f64, count| Slot { end_us: units * UNIT_US, count };
        let slots = [slot(1.0, 1), slot(2.0, 2), slot(3.0, 4), slot(4.0, 8), slot(9.0, 16)];
        let counts: Vec<_> = by_power(&slots).into_iter().collect();
        assert_eq!(counts, [(0, 1), (1, 2), (2, 12), (4, 16)]);
    }

    #[test]
    fn histories_are_of_powers_and_of_the_newest() {
        let values = [Some(9e9), Some(10.0), None, Some(21.0), Some(1e9)];
        assert_eq!(history(values.into_iter(), 4), "▁ ▂█");
        assert_eq!(history([].into_iter(), 4), "");
    }
}

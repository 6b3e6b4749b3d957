//! Is there a difference? Medians, their ratio, and how sure of it one can be.

use serde::Serialize;

/// Resamples of the bootstrap: the ends of the interval are then good to about a hundredth of its width.
const RESAMPLES: usize = 10_000;
/// Whoever repeats the evaluation gets the same interval.
const SEED: u64 = 0x5eed;
/// Ratios within this of 1 are no difference to anybody, however sure one is of them.
const BAND: f64 = 0.01;
/// With three runs of each, one in ten pairs of equal schedulers is told apart by mere luck; with four, one in 35.
const RUNS_MIN: usize = 4;

/// What can be said of two sets of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second set is lower.
    Less,
    /// The second set is higher.
    More,
    /// Neither is shown to be higher.
    NoDifference,
    /// There are fewer than four of each.
    TooFewRuns,
}

/// A figure under the kernel's default, and under ours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Median under the kernel's default.
    pub default_median: f64,
    /// Median under ours.
    pub ours_median: f64,
    /// Ours to the default; none if the default is 0.
    pub ratio: Option<f64>,
    /// The 95 % interval of the ratio, by the percentile bootstrap (Efron 1979).
    pub interval: Option<[f64; 2]>,
    /// In a word.
    pub verdict: Verdict,
}

impl Comparison {
    /// Compares two sets, neither of them empty.
    pub fn of(default: &[f64], ours: &[f64]) -> Self {
        let (default_median, ours_median) = (median(default), median(ours));
        let ratio = Some(ours_median / default_median).filter(|ratio| ratio.is_finite());
        let interval = ratio.and_then(|_| interval(default, ours));
        let verdict = match interval {
            _ if default.len().min(ours.len()) < RUNS_MIN => Verdict::TooFewRuns,
            Some([_, high]) if high < 1.0 - BAND => Verdict::Less,
            Some([low, _]) if low > 1.0 + BAND => Verdict::More,
            // All of one are above all of the other, which are 0 by the median.
            None if least(ours) > greatest(default) => Verdict::More,
            _ => Verdict::NoDifference,
        };
        Self { default_median, ours_median, ratio, interval, verdict }
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// The median; of an even number of values, the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// None where a resample has a median of 0 to divide by.
fn interval(default: &[f64], ours: &[f64]) -> Option<[f64; 2]> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut resampled = |values: &[f64]| {
        let drawn: Vec<f64> = values.iter().map(|_| values[random.usize(..values.len())]).collect();
        median(&drawn)
    };
    let mut ratios: Vec<f64> =
        (0..RESAMPLES).map(|_| resampled(ours) / resampled(default)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some([at(0.025), at(0.975)]).filter(|ends| ends.iter().all(|end| end.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn clear_differences_are_called() {
        let slow = [10.0, 10.2, 9.9, 10.1, 10.0];
        let fast = [5.0, 5.1, 4.9, 5.0, 5.2];
        let less = Comparison::of(&slow, &fast);
        assert_eq!((less.verdict, less.ratio), (Verdict::Less, Some(0.5)));
        assert_eq!(Comparison::of(&fast, &slow).verdict, Verdict::More);
    }

    #[test]
    fn noise_and_trifles_are_not() {
        let a = [10.0, 12.0, 9.0, 11.0, 10.5];
        let b = [10.4, 11.5, 9.2, 10.9, 10.1];
        assert_eq!(Comparison::of(&a, &b).verdict, Verdict::NoDifference);
        // Sure, but half a percent.
        let b = a.map(|x| x * 1e-6 + 100.5);
        let a = a.map(|x| x * 1e-6 + 100.0);
        assert_eq!(Comparison::of(&a, &b).verdict, Verdict::NoDifference);
    }

    #[test]
    fn few_runs_and_zeros_are_no_trap() {
        assert_eq!(Comparison::of(&[1.0; 3], &[2.0; 3]).verdict, Verdict::TooFewRuns);
        let zeros = Comparison::of(&[0.0; 5], &[0.0; 5]);
        assert_eq!((zeros.verdict, zeros.ratio), (Verdict::NoDifference, None));
        assert_eq!(Comparison::of(&[0.0; 5], &[2.0; 5]).verdict, Verdict::More);
        assert_eq!(Comparison::of(&[2.0; 5], &[0.0; 5]).verdict, Verdict::Less);
    }

    #[test]
    fn equal_schedulers_are_seldom_told_apart() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut draw = || [(); 8].map(|()| 1.0 + 0.1 * random.f64());
        let called = (0..200)
            .filter(|_| Comparison::of(&draw(), &draw()).verdict != Verdict::NoDifference)
            .count();
        assert!(called <= 20, "{called} of 200");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_interval_holds_the_ratio(a in prop::collection::vec(0.1..10.0, 2..12), b in prop::collection::vec(0.1..10.0, 2..12)) {
            let c = Comparison::of(&a, &b);
            let ([low, high], ratio) = (c.interval.expect("no zeros"), c.ratio.expect("no zeros"));
            prop_assert!(low <= ratio && ratio <= high, "{ratio} is not in {low} to {high}");
            prop_assert_eq!(Comparison::of(&a, &b), c);
        }
    }
}

//! Random spans of time, from integers only: the same on every machine and in every build.

use serde::{Deserialize, Deserializer, de::Error};

/// The longest span that a scenario may name: a day.
pub const SPAN_MAX_NS: u64 = 86_400 * 1_000_000_000;

/// A generator of its own for each task, so that what one draws changes nothing for the others.
/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of stream `stream` under a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        let base = mixed.next();
        Self(base ^ Self(stream.wrapping_add(1)).next())
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// A span of time, drawn anew each time: `3ms`, `1ms..3ms` (uniform), `exp 5ms` (exponential with that mean).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dist {
    /// Always this.
    Fixed(u64),
    /// Each from the first to the second as likely.
    Uniform(u64, u64),
    /// Exponential with this mean; beyond 16 means it is cut.
    Exponential(u64),
}

impl Dist {
    /// Nanoseconds.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        match self {
            Self::Fixed(ns) => ns,
            Self::Uniform(low, high) => low + rng.below(high - low + 1),
            Self::Exponential(mean) => {
                // -ln(u) = (64 - log2(n)) ln 2 of n in 1..=2^64; in units of 2^-32.
                let log2 = log2_fixed(rng.next() | 1);
                let minus_ln = ((u128::from((64u64 << 32) - log2)) * 0xb172_17f7) >> 32;
                ((u128::from(mean) * minus_ln.min(16 << 32)) >> 32) as u64
            }
        }
    }

    /// Nanoseconds.
    pub fn mean(self) -> u64 {
        match self {
            Self::Fixed(mean) | Self::Exponential(mean) => mean,
            Self::Uniform(low, high) => low.midpoint(high),
        }
    }

    /// Nanoseconds: it is never shorter.
    pub fn least(self) -> u64 {
        match self {
            Self::Fixed(least) | Self::Uniform(least, _) => least,
            Self::Exponential(_) => 0,
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(mean) = text.strip_prefix("exp ") {
            return span(mean).map(Self::Exponential);
        }
        match text.split_once("..") {
            None => span(text).map(Self::Fixed),
            Some((low, high)) => match (span(low)?, span(high)?) {
                (low, high) if low <= high => Ok(Self::Uniform(low, high)),
                _ => Err(format!("'{}': the range is empty", text.escape_default())),
            },
        }
    }
}

/// log2 in units of 2^-32, by squaring: exact to the last bits, and no floating point.
fn log2_fixed(n: u64) -> u64 {
    let whole = 63 - n.leading_zeros();
    let mut mantissa = u128::from(n << (63 - whole));
    let mut fraction = 0u64;
    for _ in 0..32 {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >> 64 != 0 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    (u64::from(whole) << 32) | fraction
}

/// A span with its unit, as nanoseconds: `250us`, `1.5ms`, `2s`.
///
/// # Errors
/// What was expected.
pub fn span(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let refuse = || {
        let text = text.escape_default();
        Err(format!("'{text}': a time with its unit is expected, such as 250us, 1.5ms or 2s"))
    };
    let at = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let per_unit: u64 = match unit.trim() {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return refuse(),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (Ok(whole), true) = (whole.parse::<u64>(), fraction.len() <= 9) else { return refuse() };
    let Ok(parts) = format!("{fraction:0<9}").parse::<u64>() else { return refuse() };
    let ns = u128::from(whole) * u128::from(per_unit)
        + u128::from(parts) * u128::from(per_unit) / 1_000_000_000;
    match u64::try_from(ns) {
        Ok(ns) if ns <= SPAN_MAX_NS => Ok(ns),
        _ => Err(format!("'{}': a day is the longest time", text.escape_default())),
    }
}

impl<'de> Deserialize<'de> for Dist {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(span("250us"), Ok(250_000));
        assert_eq!(span("1.5 ms"), Ok(1_500_000));
        assert_eq!(span("86400s"), Ok(SPAN_MAX_NS));
        for text in
            ["", "3", "-1ms", "1e3ms", "1.ms.", "86401s", "99999999999999999999s", "3 m", "."]
        {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(Dist::parse("3ms..1ms").is_err());
    }

    #[test]
    fn means() {
        let mut rng = Rng::new(1, 2);
        let mut mean = |dist: Dist| (0..20_000).map(|_| dist.draw(&mut rng)).sum::<u64>() / 20_000;
        assert_eq!(mean(Dist::Fixed(7)), 7);
        assert!((1_980..2_020).contains(&mean(Dist::Uniform(1_000, 3_000))));
        assert!((4_880_000..5_120_000).contains(&mean(Dist::Exponential(5_000_000))));
    }

    #[test]
    fn draws_are_the_same_everywhere() {
        let mut rng = Rng::new(42, 7);
        let drawn: Vec<_> = (0..3).map(|_| Dist::Exponential(1_000_000).draw(&mut rng)).collect();
        assert_eq!(drawn, DRAWN);
        assert_eq!(log2_fixed(8), 3 << 32);
        assert_eq!(log2_fixed(3), 6_807_362_105);
    }

    /// Of the first build, for all others.
    const DRAWN: [u64; 3] = [16_886, 699_210, 242_431];
}

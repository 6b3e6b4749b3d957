//! Statistics for programs: one JSON object a line. Its fields are those of
//! [`Interval`], documented there.

use super::interval::Interval;
use anyhow::{Context, Result};

/// An interval as a line with its end.
///
/// # Errors
/// None that is known: all values are finite numbers and text.
pub fn line(interval: &Interval) -> Result<String> {
    let json = serde_json::to_string(interval).context("writing an interval as JSON")?;
    Ok(json + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bpf::COUNTERS,
        stats::{sample::made, tasks},
    };
    use serde_json::Value;
    use std::time::{Duration, Instant};

    #[test]
    fn one_line_with_every_counter() {
        let start = Instant::now();
        let tasks = tasks::TaskTracker::default().busiest(
            vec![tasks::made::task(7, 1_000, 1, b"a\nb")],
            Duration::from_secs(1),
            1,
        );
        let interval = Interval::between(
            &made::sample(start, 0, vec![made::cpu(0)]),
            &made::sample(start, 1000, vec![made::cpu(0)]),
            tasks,
        );
        let line = line(&interval).expect("serializes");
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).expect("JSON");
        for place in [&value["cpus"][0], &value["total"]] {
            for counter in COUNTERS {
                assert!(place["counters"][counter.name].is_u64(), "{} is missing", counter.name);
            }
            assert!(place["busy_percent"].is_f64() && place["slice_avg_us"].is_f64());
        }
        assert_eq!(value["time"], 1.0);
        assert_eq!(value["total"]["wakeup_latency"]["p99_us"], Value::Null);
        assert_eq!(value["tasks"][0]["comm"], "a\nb");
    }

    #[test]
    fn counters_are_those_of_the_list() {
        assert_eq!(COUNTERS[0].name, "switches");
        assert_eq!(COUNTERS[crate::bpf::intf::counter_CNT_STEALS as usize].name, "steals");
        assert!(COUNTERS.iter().all(|counter| !counter.text.is_empty()));
    }
}

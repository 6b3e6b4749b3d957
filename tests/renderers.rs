//! All renderers of one sample show the same: the table, JSON, the flat numbers of the socket, and both formats of metrics.

use scheduler::{
    bpf::COUNTERS,
    stats::{
        demo::Demo,
        flat,
        interval::Interval,
        json,
        metrics::{self, Dialect},
        sample::Sample,
        table::{self, Style},
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// A sample whose counters are all different, and the one a second before, in which all were zero.
fn samples() -> (Sample, Sample) {
    let mut demo = Demo::new(2);
    let before = demo.sample();
    demo.advance(Duration::from_secs(1));
    let mut after = demo.sample();
    for (i, cpu) in (1..).zip(&mut after.cpus) {
        for (n, counter) in (1..).zip(&mut cpu.stats.counters) {
            *counter = n * 1_000_003 * i;
        }
    }
    after.llcs[0].nr_queued = 5;
    (before, after)
}

/// The numbers that follow these words, wherever they stand.
fn following(text: &str, word: &str) -> Vec<String> {
    let words: Vec<_> = text.split_whitespace().collect();
    words.windows(2).filter(|pair| pair[0] == word).map(|pair| pair[1].to_owned()).collect()
}

/// The value of a metric, in units of 1 or of nanoseconds.
fn metric(page: &str, counter: &str) -> Option<u128> {
    let name = format!("{}_total", metrics::name_of(counter));
    let value = page.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '))?;
    match value.split_once('.') {
        // Nine digits after the point are nanoseconds.
        Some((whole, fraction)) => format!("{whole}{fraction}").parse().ok(),
        None => value.parse().ok(),
    }
}

#[test]
fn every_counter_is_in_each_and_the_same() {
    let (before, after) = samples();
    let interval = Interval::between(&before, &after, Vec::new());
    let style = Style { width: None, bold: false, all_counters: true };
    let table = table::draw(&interval, style);
    let json: Value = serde_json::from_str(&json::line(&interval).expect("JSON")).expect("JSON");
    let back: Interval = serde_json::from_value(json.clone()).expect("an interval");
    let flat = Value::from(flat::of(&interval));
    let pages = [Dialect::OpenMetrics, Dialect::Prometheus].map(|d| metrics::render(&after, d));
    let mut seen = BTreeMap::new();
    for (i, counter) in COUNTERS.iter().enumerate() {
        let name = counter.name;
        let value: u64 = after.cpus.iter().map(|cpu| cpu.stats.counters[i]).sum();
        assert!(seen.insert(value, name).is_none(), "{name} is as another: this shows nothing");
        assert!(following(&table, name).contains(&value.to_string()), "{name}: {table}");
        assert_eq!(json["total"]["counters"][name], value, "{name} in JSON");
        assert_eq!(back.total.activity.counters.0[i], value, "{name} read back");
        assert_eq!(flat[name], value, "{name} over the socket");
        for page in &pages {
            assert_eq!(metric(page, name), Some(value.into()), "{name} in {page}");
        }
        for (cpu, sample) in after.cpus.iter().enumerate() {
            let value = sample.stats.counters[i];
            assert_eq!(json["cpus"][cpu]["counters"][name], value);
            assert_eq!(flat["cpus"][cpu.to_string()][name], value);
        }
    }
}

#[test]
fn so_are_lengths_of_queues_and_latencies() {
    let (before, after) = samples();
    let interval = Interval::between(&before, &after, Vec::new());
    let table = table::draw(&interval, Style { width: None, bold: false, all_counters: false });
    let json: Value = serde_json::from_str(&json::line(&interval).expect("JSON")).expect("JSON");
    let flat = Value::from(flat::of(&interval));
    let page = metrics::render(&after, Dialect::Prometheus);
    let has = |line: String| assert!(page.lines().any(|l| l == line), "{line} is not in {page}");

    let (runnable, depth) = (after.runnable(), after.waiting());
    assert!(depth >= 5 && runnable >= depth);
    assert!(following(&table, "runnable").contains(&runnable.to_string()), "{table}");
    assert!(following(&table, "depth").contains(&depth.to_string()), "{table}");
    for (name, value) in [("runnable", runnable), ("queue_depth", depth)] {
        assert_eq!((&json["total"][name], &flat[name]), (&value.into(), &value.into()), "{name}");
    }
    has(format!("scheduler_runnable_tasks {runnable}"));
    has(format!("scheduler_queued_tasks {depth}"));
    has("scheduler_llc_queued_tasks{node=\"0\",llc=\"0\"} 5".to_owned());
    assert_eq!(json["llcs"][0]["queue_depth"], 5);

    let latency = &json["total"]["wakeup_latency"];
    let count = latency["count"].as_u64().expect("a count");
    let slots = latency["slots"].as_array().expect("slots");
    assert_eq!(slots.iter().filter_map(|slot| slot["count"].as_u64()).sum::<u64>(), count);
    assert_eq!(following(&table, "of"), [count.to_string()], "{table}");
    assert_eq!(flat["wakeups_timed"], count);
    assert_eq!(flat["wakeup_latency_p99_us"], latency["p99_us"]);
    has(format!("scheduler_wakeup_latency_seconds_count {count}"));
    let wait = &json["total"]["queue_wait"];
    let waits = wait["count"].as_u64().expect("a count");
    assert!(waits > count, "none was put back after a run: this shows nothing");
    assert_eq!(
        (&flat["queue_waits_timed"], &flat["queue_wait_p99_us"]),
        (&wait["count"], &wait["p99_us"])
    );
    has(format!("scheduler_run_queue_wait_seconds_count {waits}"));
    for (event, count) in &after.kernel_events {
        has(format!("scheduler_kernel_events_total{{event=\"{event}\"}} {count}"));
        assert_eq!(json["kernel_events"][event], *count);
    }
}

//! Statistics for Prometheus and its kin: a sample as text, in OpenMetrics 1.0 or in the older format of Prometheus.
//!
//! Names follow the rules of both: counters end in `_total`, times are in seconds. Sums are of the machine; what is worth
//! a series for each CPU or LLC has one. Tasks have none, because there is no end of them.

use super::{hist, sample::Sample, text};
use crate::{
    bpf::{COUNTERS, intf},
    units::Nanos,
};
use std::fmt::{Display, Write};

/// Bounds of a histogram reach up to this: 17 s. The kernel ejects a scheduler that lets a task wait for 20 s.
const BOUND_MAX: Nanos = Nanos(1 << 34);

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Prometheus,
}

impl Dialect {
    /// What HTTP calls it.
    pub fn content_type(self) -> &'static str {
        match self {
            Dialect::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Dialect::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The name of the metric that a counter of the list is, without `_total`.
pub fn name_of(counter: &str) -> String {
    match counter.strip_suffix("_ns") {
        Some(name) => format!("scheduler_{name}_seconds"),
        None => format!("scheduler_{counter}"),
    }
}

/// A sample as text.
pub fn render(sample: &Sample, dialect: Dialect) -> String {
    let mut page = Page { text: String::new(), dialect };
    page.info(
        "scheduler_build",
        "The program that schedules",
        &[("version", env!("CARGO_PKG_VERSION")), ("revision", env!("SCHEDULER_REVISION"))],
    );
    let online = sample.cpus.iter().filter(|cpu| cpu.state.online != 0).count();
    page.gauge("scheduler_online_cpus", "CPUs that are online", online);
    page.gauge("scheduler_runnable_tasks", "Tasks that run or wait", sample.runnable());
    page.gauge("scheduler_queued_tasks", "Tasks that wait, in any queue", sample.waiting());
    counters(&mut page, sample);
    cpus(&mut page, sample);
    latencies(&mut page, sample);
    policy(&mut page, sample);
    if dialect == Dialect::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

fn counters(page: &mut Page, sample: &Sample) {
    for (i, counter) in COUNTERS.iter().enumerate() {
        let sum = sample.count(i as intf::counter);
        let is_time = counter.name.ends_with("_ns");
        let unit = is_time.then_some("seconds");
        let help = counter.text.replace("nanoseconds", "time");
        let name = name_of(counter.name);
        page.family(&name, Kind::Counter, unit, &help);
        let total = format!("{name}_total");
        if is_time {
            page.value(&total, &[], Seconds(Nanos(sum)));
        } else {
            page.value(&total, &[], sum);
        }
    }
    const EVENTS: &str = "scheduler_kernel_events";
    page.family(EVENTS, Kind::Counter, None, "what the kernel had to do in a scheduler's place");
    for (name, count) in &sample.kernel_events {
        page.value(&format!("{EVENTS}_total"), &[("event", name)], count);
    }
}

fn cpus(page: &mut Page, sample: &Sample) {
    const IDLE: &str = "scheduler_cpu_idle_seconds";
    page.family(IDLE, Kind::Counter, Some("seconds"), "time without a task of any class");
    for cpu in &sample.cpus {
        let [number, node, llc] = [cpu.cpu.0, cpu.node, cpu.llc].map(|n| n.to_string());
        let labels = [("cpu", &*number), ("node", &node), ("llc", &llc)];
        page.value(&format!("{IDLE}_total"), &labels, Seconds(cpu.idle()));
    }
    const QUEUED: &str = "scheduler_llc_queued_tasks";
    page.family(QUEUED, Kind::Gauge, None, "Tasks in the deadline queue of an LLC");
    for (llc, now) in sample.llcs.iter().enumerate() {
        let [llc, node] = [llc.to_string(), now.node.to_string()];
        page.value(QUEUED, &[("node", &*node), ("llc", &llc)], now.nr_queued);
    }
}

fn latencies(page: &mut Page, sample: &Sample) {
    page.histogram(
        "scheduler_wakeup_latency_seconds",
        "From becoming runnable to running, wakeups and new tasks only",
        &sum(sample.cpus.iter().map(|cpu| cpu.wakeup_hist())),
        Some(Nanos(sample.count(intf::counter_CNT_WAIT_NS))),
    );
    let waits = [intf::counter_CNT_WAIT_NS, intf::counter_CNT_REQUEUE_NS];
    page.histogram(
        "scheduler_run_queue_wait_seconds",
        "From entering a queue to running: wakeups, new tasks, and tasks that were put back",
        &sum(sample.cpus.iter().flat_map(|cpu| cpu.queue_hists())),
        Some(Nanos(waits.into_iter().map(|counter| sample.count(counter)).sum())),
    );
}

fn policy(page: &mut Page, sample: &Sample) {
    let Some(policy) = &sample.policy else { return };
    let name = text::printable(policy.name.as_bytes());
    page.info("scheduler_policy", "The policy in user space", &[("policy", &name)]);
    let late = u64::from(policy.late);
    page.gauge("scheduler_policy_late", "1 while the kernel's half has taken over from it", late);
    page.histogram(
        "scheduler_policy_answer_seconds",
        "From an offer to the policy's decision",
        &sum(sample.cpus.iter().map(|cpu| &cpu.stats.answer_hist)),
        None,
    );
    page.histogram(
        "scheduler_policy_served_seconds",
        "From an offer to the run that was decided",
        &sum(sample.cpus.iter().map(|cpu| &cpu.stats.served_hist)),
        None,
    );
    const FIGURE: &str = "scheduler_policy_figure";
    page.family(FIGURE, Kind::Gauge, None, "What the policy shows of itself");
    for (name, value) in &policy.figures {
        page.value(FIGURE, &[("figure", name)], value);
    }
}

fn sum<'a>(of_cpus: impl Iterator<Item = &'a [u64; hist::SLOTS]>) -> [u64; hist::SLOTS] {
    let mut sums = [0; hist::SLOTS];
    for counts in of_cpus {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    sums
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A time as a decimal number, with no digit lost.
struct Seconds(Nanos);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NANOS: u64 = 1_000_000_000;
        write!(f, "{}.{:09}", self.0.0 / NANOS, self.0.0 % NANOS)
    }
}

struct Page {
    text: String,
    dialect: Dialect,
}

impl Page {
    /// What describes the values that follow. In the older format a counter is called as its value is, and information is
    /// a gauge.
    fn family(&mut self, name: &str, kind: Kind, unit: Option<&str>, help: &str) {
        let is_new = self.dialect == Dialect::OpenMetrics;
        let (suffix, kind) = match kind {
            Kind::Counter if is_new => ("", "counter"),
            Kind::Counter => ("_total", "counter"),
            Kind::Info if is_new => ("", "info"),
            Kind::Info => ("_info", "gauge"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        self.line(format_args!("# TYPE {name}{suffix} {kind}"));
        if let Some(unit) = unit.filter(|_| is_new) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name}{suffix} {help}"));
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, None, help);
        self.value(name, &[], value);
    }

    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.family(name, Kind::Info, None, help);
        self.value(&format!("{name}_info"), labels, 1);
    }

    /// Bounds at powers of two of 1.024 µs, where slots end. OpenMetrics wants a count only beside a sum.
    fn histogram(&mut self, name: &str, help: &str, counts: &[u64], sum: Option<Nanos>) {
        self.family(name, Kind::Histogram, Some("seconds"), help);
        let bucket = format!("{name}_bucket");
        let mut seen = 0;
        for (slot, count) in counts.iter().enumerate() {
            seen += count;
            let end = hist::slot_end(slot);
            if end.0.is_power_of_two() && end <= BOUND_MAX {
                self.value(&bucket, &[("le", &Seconds(end).to_string())], seen);
            }
        }
        self.value(&bucket, &[("le", "+Inf")], seen);
        if let Some(sum) = sum {
            self.value(&format!("{name}_sum"), &[], Seconds(sum));
            self.value(&format!("{name}_count"), &[], seen);
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::sample::{PolicySample, made};
    use std::{collections::BTreeMap, time::Instant};

    fn sample() -> Sample {
        let mut sample = made::sample(Instant::now(), 0, vec![made::cpu(0), made::cpu(1)]);
        for cpu in &mut sample.cpus {
            cpu.stats.counters[intf::counter_CNT_RUN_NS as usize] = 750_000_001;
            cpu.stats.counters[intf::counter_CNT_SWITCHES as usize] = 7;
            // Below 2.048 µs and between 8.192 and 9.216 µs.
            cpu.stats.wait_hists[0][1] = 2;
            cpu.stats.wait_hists[0][8] = 3;
            cpu.stats.wait_hists[1][1] = 1;
            cpu.stats.counters[intf::counter_CNT_WAIT_NS as usize] = 30_000;
            cpu.stats.counters[intf::counter_CNT_REQUEUE_NS as usize] = 2_000;
        }
        sample
    }

    #[test]
    fn counters_are_sums_and_times_are_seconds() {
        let text = render(&sample(), Dialect::Prometheus);
        for line in [
            "# TYPE scheduler_run_seconds_total counter",
            "scheduler_run_seconds_total 1.500000002",
            "scheduler_switches_total 14",
            "# TYPE scheduler_build_info gauge",
            "scheduler_llc_queued_tasks{node=\"0\",llc=\"0\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing:\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT") && !text.contains("_ns"));
    }

    #[test]
    fn openmetrics_names_families_and_ends() {
        let text = render(&sample(), Dialect::OpenMetrics);
        for line in [
            "# TYPE scheduler_run_seconds counter",
            "# UNIT scheduler_run_seconds seconds",
            "scheduler_run_seconds_total 1.500000002",
            "# TYPE scheduler_build info",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn histograms_are_cumulative() {
        let text = render(&sample(), Dialect::OpenMetrics);
        let (name, waits) =
            ("scheduler_wakeup_latency_seconds", "scheduler_run_queue_wait_seconds");
        let bucket_of = |name: &str, le: &str| {
            let start = format!("{name}_bucket{{le=\"{le}\"}} ");
            text.lines().find_map(|l| l.strip_prefix(&*start)?.parse::<u64>().ok())
        };
        let bucket = |le: &str| bucket_of(name, le);
        assert_eq!(bucket("0.000001024"), Some(0));
        assert_eq!(bucket("0.000002048"), Some(4));
        assert_eq!(bucket("0.000008192"), Some(4));
        assert_eq!(bucket("0.000016384"), Some(10));
        assert_eq!(bucket("17.179869184"), Some(10));
        assert_eq!(bucket("+Inf"), Some(10));
        assert!(
            text.contains(&format!("{name}_count 10\n"))
                && text.contains(&format!("{name}_sum 0.000060000\n")),
            "{text}"
        );
        assert_eq!(bucket_of(waits, "0.000002048"), Some(6));
        assert_eq!(bucket_of(waits, "+Inf"), Some(12));
        assert!(text.contains(&format!("{waits}_sum 0.000064000\n")), "{text}");
    }

    #[test]
    fn a_policy_may_be_called_anything() {
        let mut sample = sample();
        let figures = BTreeMap::from([("a\"b\\\n".to_owned(), 1.5)]);
        sample.policy = Some(PolicySample { name: "x\x1b\"".into(), late: true, figures });
        let text = render(&sample, Dialect::Prometheus);
        assert!(text.contains("scheduler_policy_info{policy=\"x\\\\x1b\\\"\"} 1\n"), "{text}");
        assert!(text.contains("scheduler_policy_figure{figure=\"a\\\"b\\\\\\n\"} 1.5\n"), "{text}");
        assert!(text.contains("scheduler_policy_late 1\n"));
        // Without a sum there is no count.
        assert!(!text.contains("scheduler_policy_answer_seconds_count"));
    }
}

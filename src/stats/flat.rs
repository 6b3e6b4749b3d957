//! An interval as numbers by name, and a CPU's likewise below its number: the shape that readers of the protocol
//! `scx_stats` turn into gauges. Each field is defined once, with what describes it.

use super::interval::{Activity, CpuRow, Interval, Latency};
use crate::bpf::COUNTERS;
use serde_json::{Map, Value, json};

/// A field: its name, its type in the words of the protocol, what it means, and its value. One that has none is left
/// out: readers make a number of whatever there is.
struct Field<T> {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    value: fn(&T) -> Option<Value>,
}

const U64: &str = "u64";
const FLOAT: &str = "float";

const ALL: &[Field<Interval>] = &[
    Field {
        name: "time",
        kind: FLOAT,
        text: "end of the interval, seconds since 1970",
        value: |i| Some(i.time.into()),
    },
    Field {
        name: "interval_s",
        kind: FLOAT,
        text: "length of the interval in seconds",
        value: |i| Some(i.interval_s.into()),
    },
    Field {
        name: "runnable",
        kind: U64,
        text: "tasks that run or wait",
        value: |i| Some(i.total.runnable.into()),
    },
    Field {
        name: "queue_depth",
        kind: U64,
        text: "tasks that wait, in any queue",
        value: |i| Some(i.total.queue_depth.into()),
    },
    Field {
        name: "wakeups_timed",
        kind: U64,
        text: "wakeups whose latency was taken",
        value: |i| Some(i.total.wakeup_latency.count.into()),
    },
    Field {
        name: "wakeup_latency_p50_us",
        kind: FLOAT,
        text: "median wakeup latency in microseconds",
        value: |i| i.total.wakeup_latency.p50_us.map(Value::from),
    },
    Field {
        name: "wakeup_latency_p99_us",
        kind: FLOAT,
        text: "what 99 of 100 wakeup latencies stay below",
        value: |i| i.total.wakeup_latency.p99_us.map(Value::from),
    },
    Field {
        name: "wakeup_latency_max_us",
        kind: FLOAT,
        text: "longest wakeup latency in microseconds",
        value: |i| i.total.wakeup_latency.max_us.map(Value::from),
    },
    Field {
        name: "queue_waits_timed",
        kind: U64,
        text: "waits in a queue that were taken: after wakeups, and after other runs",
        value: |i| Some(i.total.queue_wait.count.into()),
    },
    Field {
        name: "queue_wait_p50_us",
        kind: FLOAT,
        text: "median wait in a queue in microseconds",
        value: |i| i.total.queue_wait.p50_us.map(Value::from),
    },
    Field {
        name: "queue_wait_p99_us",
        kind: FLOAT,
        text: "what 99 of 100 waits in a queue stay below",
        value: |i| i.total.queue_wait.p99_us.map(Value::from),
    },
    Field {
        name: "queue_wait_max_us",
        kind: FLOAT,
        text: "longest wait in a queue in microseconds",
        value: |i| i.total.queue_wait.max_us.map(Value::from),
    },
    Field {
        name: "policy",
        kind: "string",
        text: "the policy in user space",
        value: |i| Some(i.policy.as_ref()?.name.clone().into()),
    },
    Field {
        name: "policy_late",
        kind: U64,
        text: "1 while the kernel's half has taken over from it",
        value: |i| Some(u64::from(i.policy.as_ref()?.late).into()),
    },
    Field {
        name: "policy_answer_p99_us",
        kind: FLOAT,
        text: "what 99 of 100 times to its decision stay below",
        value: |i| policy_p99(i, |p| &p.answer),
    },
    Field {
        name: "policy_served_p99_us",
        kind: FLOAT,
        text: "what 99 of 100 times to the run that it decided stay below",
        value: |i| policy_p99(i, |p| &p.served),
    },
];

const OF_CPU: &[Field<CpuRow>] = &[
    Field { name: "node", kind: U64, text: "its NUMA node", value: |c| Some(c.node.into()) },
    Field { name: "llc", kind: U64, text: "its last-level cache", value: |c| Some(c.llc.into()) },
    Field {
        name: "core",
        kind: U64,
        text: "the CPU that stands for its core",
        value: |c| Some(c.core.0.into()),
    },
    Field {
        name: "runnable",
        kind: U64,
        text: "tasks on it, or waiting for it and no other CPU",
        value: |c| Some(c.runnable.into()),
    },
];

const OF_ACTIVITY: &[Field<Activity>] = &[
    Field {
        name: "busy_percent",
        kind: FLOAT,
        text: "share of the time taken by tasks, 0 to 100",
        value: |a| Some(a.busy_percent.into()),
    },
    Field {
        name: "switches_per_s",
        kind: FLOAT,
        text: "times a task started to run, a second",
        value: |a| Some(a.switches_per_s.into()),
    },
    Field {
        name: "slice_avg_us",
        kind: FLOAT,
        text: "average time from start to stop of a run",
        value: |a| Some(a.slice_avg_us.into()),
    },
];

fn policy_p99(
    interval: &Interval,
    of: fn(&super::interval::PolicyRow) -> &Latency,
) -> Option<Value> {
    of(interval.policy.as_ref()?).p99_us.map(Value::from)
}

/// The fields of an interval, with an object for each CPU below `cpus`.
pub fn of(interval: &Interval) -> Map<String, Value> {
    let mut top = values(ALL, interval);
    top.extend(activity(&interval.total.activity));
    let cpu = |row: &CpuRow| {
        let mut cpu = values(OF_CPU, row);
        cpu.extend(activity(&row.activity));
        (row.cpu.to_string(), Value::from(cpu))
    };
    top.insert("cpus".to_owned(), interval.cpus.iter().map(cpu).collect());
    top
}

fn activity(of: &Activity) -> Map<String, Value> {
    let mut map = values(OF_ACTIVITY, of);
    let counters = COUNTERS.iter().zip(of.counters.0);
    map.extend(counters.map(|(counter, n)| (counter.name.to_owned(), n.into())));
    map
}

fn values<T>(fields: &[Field<T>], of: &T) -> Map<String, Value> {
    let value = |field: &Field<T>| Some((field.name.to_owned(), (field.value)(of)?));
    fields.iter().filter_map(value).collect()
}

/// What [`of`] gives, described as the protocol wants it. The prefixes and the label are those of the metrics that
/// readers make of it.
pub fn meta() -> Value {
    let mut top = described(ALL);
    top.extend(described_activity());
    top.insert(
        "cpus".to_owned(),
        json!({"dict": {"key": U64, "datum": {"struct": "Cpu"}}, "desc": "each CPU by its number"}),
    );
    let mut cpu = described(OF_CPU);
    cpu.extend(described_activity());
    json!({
        "Scheduler": {
            "name": "Scheduler", "top": "true", "desc": "the machine in an interval",
            "user": {"_om_prefix": "scheduler_"}, "fields": top,
        },
        "Cpu": {
            "name": "Cpu", "desc": "a CPU in an interval",
            "user": {"_om_prefix": "scheduler_cpu_", "_om_label": "cpu"}, "fields": cpu,
        },
    })
}

fn described_activity() -> Map<String, Value> {
    let mut map = described(OF_ACTIVITY);
    let counters = COUNTERS.iter();
    map.extend(counters.map(|c| (c.name.to_owned(), json!({"datum": U64, "desc": c.text}))));
    map
}

fn described<T>(fields: &[Field<T>]) -> Map<String, Value> {
    let describe = |f: &Field<T>| (f.name.to_owned(), json!({"datum": f.kind, "desc": f.text}));
    fields.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::demo::Demo;
    use std::time::Duration;

    fn interval() -> Interval {
        let mut demo = Demo::new(4);
        let before = demo.sample();
        demo.advance(Duration::from_secs(1));
        Interval::between(&before, &demo.sample(), Vec::new())
    }

    /// Whether an object has described fields only, of the types that are told.
    fn is_as_described(object: &Map<String, Value>, fields: &Value) {
        for (name, value) in object {
            let kind = &fields[name]["datum"];
            let is_right = match kind.as_str() {
                Some("u64") => value.is_u64(),
                Some("float") => value.is_f64(),
                Some("string") => value.is_string(),
                _ => name == "cpus" && value.is_object(),
            };
            assert!(is_right, "{name}: {value} is no {kind}");
        }
    }

    #[test]
    fn every_field_is_described_and_nothing_is_null() {
        let (flat, meta) = (of(&interval()), meta());
        is_as_described(&flat, &meta["Scheduler"]["fields"]);
        let cpus = flat["cpus"].as_object().expect("CPUs");
        assert_eq!(cpus.len(), 4);
        for cpu in cpus.values() {
            is_as_described(cpu.as_object().expect("a CPU"), &meta["Cpu"]["fields"]);
        }
        for counter in COUNTERS {
            assert!(flat[counter.name].is_u64(), "{}", counter.name);
            assert_eq!(meta["Scheduler"]["fields"][counter.name]["desc"], counter.text);
        }
    }

    /// Each name makes one metric of what readers see: two fields of the same would be one too many.
    #[test]
    fn names_are_told_once() {
        let named = |fields: &Value| fields.as_object().map_or(0, Map::len);
        let own = ALL.len() + OF_ACTIVITY.len() + COUNTERS.len();
        assert_eq!(named(&meta()["Scheduler"]["fields"]), own + 1);
        assert_eq!(
            named(&meta()["Cpu"]["fields"]),
            OF_CPU.len() + OF_ACTIVITY.len() + COUNTERS.len()
        );
    }
}

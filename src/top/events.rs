//! What happened on the machine that people want to know of, found between frames.

use super::feed::{Frame, Origin};
use crate::{
    bpf::{COUNTERS, intf},
    stats::text,
};
use std::collections::VecDeque;

/// Events that are kept, of the newest.
const EVENTS_MAX: usize = 1000;
/// Counters of which each step is worth a line.
const TOLD: &[intf::counter] = &[
    intf::counter_CNT_RESCUES,
    intf::counter_CNT_LATE,
    intf::counter_CNT_OVERFLOW,
    intf::counter_CNT_MALFORMED,
    intf::counter_CNT_BAD_CONTEXT,
];

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, in seconds since 1970.
    pub time: f64,
    /// What, fit for a terminal.
    pub text: String,
}

/// The list, with what it was made from.
#[derive(Debug, Default)]
pub struct Events {
    list: VecDeque<Event>,
    origin: Option<String>,
    late: bool,
}

impl Events {
    /// The newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Event> {
        self.list.iter().rev()
    }

    /// Looks at the next frame.
    pub fn note(&mut self, frame: &Frame) {
        let interval = &frame.interval;
        let origin = match &frame.origin {
            Origin::Scheduler => "the scheduler answers".to_owned(),
            Origin::Kernel { state, .. } => format!("no scheduler answers; {state}"),
            Origin::Demo => "simulated data".to_owned(),
        };
        if self.origin.as_ref() != Some(&origin) {
            self.add(interval.time, origin.clone());
            self.origin = Some(origin);
        }
        for cpu in &interval.cpus {
            let times = cpu.activity.counters.get(intf::counter_CNT_HOTPLUG);
            if times > 0 {
                self.add(interval.time, format!("CPU {} went off- or online, {times} x", cpu.cpu));
            }
        }
        for &counter in TOLD {
            let times = interval.total.activity.counters.get(counter);
            if times > 0 {
                let Some(told) = COUNTERS.get(counter as usize) else { continue };
                self.add(interval.time, format!("{times} x {}: {}", told.name, told.text));
            }
        }
        for (name, times) in interval.kernel_events.iter().filter(|(_, times)| **times > 0) {
            let name = text::printable(name.as_bytes());
            self.add(interval.time, format!("{times} x {name}, told by the kernel"));
        }
        let policy = interval.policy.as_ref();
        let late = policy.is_some_and(|policy| policy.late);
        if let Some(policy) = policy.filter(|policy| policy.late != self.late) {
            let name = text::printable(policy.name.as_bytes());
            let what = if late { "is late: the kernel's half decides" } else { "decides again" };
            self.add(interval.time, format!("the policy {name} {what}"));
        }
        self.late = late;
    }

    fn add(&mut self, time: f64, text: String) {
        self.list.push_back(Event { time, text });
        if self.list.len() > EVENTS_MAX {
            self.list.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        stats::interval::{Latency, PolicyRow},
        top::feed::Feed,
    };
    use std::{collections::BTreeMap, time::Duration};

    fn texts(events: &Events) -> Vec<&str> {
        events.newest().map(|event| event.text.as_str()).collect()
    }

    #[test]
    fn what_changes_is_told_once() {
        let mut frame = Feed::demo().next(Duration::from_secs(1)).expect("a frame");
        frame.interval.kernel_events.clear();
        let mut events = Events::default();
        events.note(&frame);
        events.note(&frame);
        assert_eq!(texts(&events), ["simulated data"]);

        frame.origin = Origin::Kernel { why: "gone".into(), state: "sched_ext is disabled".into() };
        frame.interval.policy = Some(PolicyRow {
            name: "mine\x07".into(),
            late: true,
            answer: Latency::default(),
            served: Latency::default(),
            figures: BTreeMap::new(),
        });
        frame.interval.cpus[2].activity.counters.0[intf::counter_CNT_HOTPLUG as usize] = 1;
        frame.interval.kernel_events.insert("EV\x1b".into(), 3);
        events.note(&frame);
        let told = texts(&events);
        assert_eq!(told.len(), 5, "{told:?}");
        assert_eq!(told[0], "the policy mine\\x07 is late: the kernel's half decides");
        assert_eq!(told[1], "3 x EV\\x1b, told by the kernel");
        assert_eq!(told[2], "CPU 2 went off- or online, 1 x");
        assert_eq!(told[3], "no scheduler answers; sched_ext is disabled");
    }

    #[test]
    fn the_list_does_not_grow_for_ever() {
        let mut frame = Feed::demo().next(Duration::from_secs(1)).expect("a frame");
        frame.interval.kernel_events.insert("EV".into(), 1);
        let mut events = Events::default();
        for _ in 0..2 * EVENTS_MAX {
            events.note(&frame);
        }
        assert_eq!(events.newest().count(), EVENTS_MAX);
    }
}

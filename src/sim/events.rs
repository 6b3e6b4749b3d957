//! What is to happen, in order of time; at the same instant, in the order in which it was put down.

use super::task::TaskId;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The tick of a CPU.
    Tick(u32),
    /// A CPU that was told to choose anew hears of it.
    Resched(u32),
    /// A kick arrives: on which CPU, with which flags.
    Kick(u32, u32),
    /// The running task of a CPU has done the work of its phase, if that is still its run of this number.
    Done(u32, u32),
    /// A CPU that found nothing to run is idle.
    Idle(u32),
    /// The sleep of a task ends, or its life begins.
    Timer(TaskId),
    /// A task that was woken reaches the runqueue of its CPU, with these flags.
    Activate(TaskId, u32),
    /// An event of this number in the scenario.
    Script(u32),
    /// A higher class takes a CPU, for so many nanoseconds.
    Take(u32, u64),
    /// It gives it back.
    GiveBack(u32),
    /// The stopper of a CPU moves a task off it.
    Stopper(u32, TaskId),
    /// The next step of a CPU that goes offline or comes back.
    Hotplug(u32),
    /// The timer of the kernel's half that has this number is due on a CPU.
    Timeout(u32, u32),
    /// The process of a policy in user space goes on.
    Process,
    /// The oracles look.
    Watch,
}

/// Events of the same 2^16 ns are put into order only when their time comes: a heap of those has some hundreds on a
/// machine of hundreds of CPUs, one of all has tens of thousands, and misses the cache at each step.
const SPAN_BITS: u32 = 16;

type Entry = Reverse<(u64, u64, Kind)>;

/// The queue of events.
#[derive(Debug, Default)]
pub struct Events {
    /// Those of the present span, and of earlier ones.
    near: BinaryHeap<Entry>,
    /// Those of later spans, by the number of the span.
    far: BTreeMap<u64, Vec<Entry>>,
    /// Number of the present span.
    span: u64,
    seq: u64,
}

impl Events {
    /// Puts something down for an instant.
    pub fn push(&mut self, at: u64, kind: Kind) {
        self.seq += 1;
        let entry = Reverse((at, self.seq, kind));
        match at >> SPAN_BITS {
            span if span <= self.span => self.near.push(entry),
            span => self.far.entry(span).or_default().push(entry),
        }
    }

    /// The next one, if it is not after `end`.
    pub fn pop(&mut self, end: u64) -> Option<(u64, Kind)> {
        if self.near.is_empty() {
            let (span, entries) = self.far.pop_first()?;
            self.span = span;
            self.near = entries.into();
        }
        let Reverse((at, _, kind)) = *self.near.peek()?;
        (at <= end).then(|| {
            self.near.pop();
            (at, kind)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_and_of_coming() {
        let mut events = Events::default();
        for (number, at) in [70_000, 5, 1 << 40, 5, 70_000, 0].into_iter().enumerate() {
            events.push(at, Kind::Tick(number as u32));
        }
        let mut order = Vec::new();
        while let Some((at, Kind::Tick(number))) = events.pop(1 << 39) {
            order.push(number);
            if number == 1 {
                // Behind those of the same instant, before all later ones.
                events.push(at, Kind::Tick(10));
                events.push(65_537, Kind::Tick(11));
            }
        }
        assert_eq!(order, [5, 1, 3, 10, 11, 0, 4]);
        assert_eq!(events.pop(1 << 40), Some((1 << 40, Kind::Tick(2))));
        assert_eq!(events.pop(u64::MAX), None);
    }
}

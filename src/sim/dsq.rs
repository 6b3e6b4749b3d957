//! Dispatch queues: FIFO or by vtime, as in the kernel.

use super::task::TaskId;
use std::{collections::BTreeMap, ops::Bound};

/// The middle of the order: from here a FIFO grows to both ends, and so do vtimes.
const MIDDLE: u64 = 1 << 63;

/// A place in a queue. Lower is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Vtime by the first of the queue, or place in the FIFO.
    pub order: u64,
    /// Among equal vtimes, who came first.
    pub turn: u64,
}

/// The order of a queue that has tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Fifo,
    /// By the distance from this vtime, which wraps as in the kernel.
    Vtime {
        base: u64,
    },
}

/// A queue has tasks of the other order: the kernel ejects for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixed;

/// A dispatch queue. All operations take logarithmic time.
#[derive(Debug)]
pub struct Dsq {
    tasks: BTreeMap<Spot, TaskId>,
    order: Order,
    turns: u64,
}

impl Default for Dsq {
    fn default() -> Self {
        Self { tasks: BTreeMap::new(), order: Order::Fifo, turns: 0 }
    }
}

impl Dsq {
    /// Tasks in it.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many ever came: the kernel's `seq`.
    pub fn seq(&self) -> u32 {
        self.turns as u32
    }

    /// Puts a task behind all others, or in front of them.
    ///
    /// # Errors
    /// When the others are ordered by vtime.
    pub fn push(&mut self, task: TaskId, in_front: bool) -> Result<Spot, Mixed> {
        if !self.is_empty() && self.order != Order::Fifo {
            return Err(Mixed);
        }
        self.order = Order::Fifo;
        self.turns += 1;
        let order = if in_front { MIDDLE - self.turns } else { MIDDLE + self.turns };
        Ok(self.put(Spot { order, turn: 0 }, task))
    }

    /// Puts a task behind those whose vtime is not later.
    ///
    /// # Errors
    /// When the others are a FIFO.
    pub fn push_vtime(&mut self, task: TaskId, vtime: u64) -> Result<Spot, Mixed> {
        let base = match self.order {
            Order::Vtime { base } if !self.is_empty() => base,
            _ if self.is_empty() => vtime.wrapping_sub(MIDDLE),
            _ => return Err(Mixed),
        };
        self.order = Order::Vtime { base };
        self.turns += 1;
        Ok(self.put(Spot { order: vtime.wrapping_sub(base), turn: self.turns }, task))
    }

    fn put(&mut self, spot: Spot, task: TaskId) -> Spot {
        self.tasks.insert(spot, task);
        spot
    }

    /// Takes a task out.
    pub fn remove(&mut self, spot: Spot) {
        self.tasks.remove(&spot);
    }

    /// The first task.
    pub fn first(&self) -> Option<(Spot, TaskId)> {
        self.tasks.first_key_value().map(|(&spot, &task)| (spot, task))
    }

    /// The task behind a place, or the first; before it, or the last, if `backwards`.
    pub fn next(&self, from: Option<Spot>, backwards: bool) -> Option<(Spot, TaskId)> {
        let found = match (from, backwards) {
            (None, false) => self.tasks.first_key_value(),
            (None, true) => self.tasks.last_key_value(),
            (Some(spot), false) => {
                self.tasks.range((Bound::Excluded(spot), Bound::Unbounded)).next()
            }
            (Some(spot), true) => self.tasks.range(..spot).next_back(),
        };
        found.map(|(&spot, &task)| (spot, task))
    }

    /// The tasks in order.
    pub fn iter(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.tasks.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(dsq: &Dsq) -> Vec<u32> {
        dsq.iter().map(|task| task.0).collect()
    }

    #[test]
    fn fifo_with_a_front() {
        let mut dsq = Dsq::default();
        for (task, in_front) in [(1, false), (2, false), (3, true), (4, true)] {
            dsq.push(TaskId(task), in_front).expect("a FIFO");
        }
        assert_eq!(order(&dsq), [4, 3, 1, 2]);
        assert_eq!(dsq.push_vtime(TaskId(5), 0), Err(Mixed));
    }

    #[test]
    fn vtimes_wrap_and_equals_keep_their_turn() {
        let mut dsq = Dsq::default();
        let first = dsq.push_vtime(TaskId(1), 5).expect("empty");
        for (task, vtime) in [(2, u64::MAX - 3), (3, 5), (4, 6), (5, u64::MAX - 3)] {
            dsq.push_vtime(TaskId(task), vtime).expect("by vtime");
        }
        assert_eq!(order(&dsq), [2, 5, 1, 3, 4]);
        assert_eq!(dsq.push(TaskId(6), false), Err(Mixed));
        assert_eq!(dsq.next(Some(first), false).map(|(_, task)| task.0), Some(3));
        assert_eq!(dsq.next(Some(first), true).map(|(_, task)| task.0), Some(5));
        assert_eq!(dsq.next(None, true).map(|(_, task)| task.0), Some(4));
        dsq.remove(first);
        assert_eq!((order(&dsq), dsq.seq()), (vec![2, 5, 3, 4], 5));
    }
}

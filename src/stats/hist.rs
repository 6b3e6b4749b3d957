//! Histograms of durations, as the kernel's half fills them, and their percentiles.

use crate::{bpf::intf, units::Nanos};

/// Slots of the histogram of wakeup latencies; `hist_slot()` in `policy.h` fills it.
pub const SLOTS: usize = intf::hist_HIST_SLOTS as usize;
/// Slots of a task's own histogram; `task_hist_slot()` in `policy.h` fills it.
pub const TASK_SLOTS: usize = intf::hist_TASK_HIST_SLOTS as usize;

/// Durations are counted in units of 1024 ns.
const UNIT_BITS: usize = 10;
const SUB_BITS: usize = intf::hist_HIST_SUB_BITS as usize;

/// The end of a slot: every duration in it is below that. The last slot has no end; its
/// nominal one is given.
pub fn slot_end(slot: usize) -> Nanos {
    Nanos(slot_start(slot + 1) << UNIT_BITS)
}

/// The first duration of a slot, in units. The first 2^SUB_BITS slots are a unit wide; from
/// there on each power of two has 2^SUB_BITS slots.
fn slot_start(slot: usize) -> u64 {
    let sub = slot & ((1 << SUB_BITS) - 1);
    match slot >> SUB_BITS {
        0 => slot as u64,
        group => (((1 << SUB_BITS) + sub) as u64) << (group - 1),
    }
}

/// The end of a slot of a task's histogram: slot k ends at 2^k units.
pub fn task_slot_end(slot: usize) -> Nanos {
    Nanos(1 << (slot + UNIT_BITS))
}

/// The duration that a share of all (0 to 1) stays below; none of an empty histogram.
/// `end_of` gives the end of a slot.
pub fn percentile(counts: &[u64], share: f64, end_of: fn(usize) -> Nanos) -> Option<Nanos> {
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let slot = counts.iter().position(|&n| {
        seen += n;
        seen >= rank
    });
    slot.map(end_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::policy;

    #[test]
    fn slot_ends_agree_with_the_kernels_half() {
        for slot in 0..SLOTS {
            let end = slot_end(slot).0;
            let (last, next) = (policy::hist_slot(end - 1), policy::hist_slot(end));
            assert_eq!(last as usize, slot);
            assert_eq!(next as usize, (slot + 1).min(SLOTS - 1));
        }
        for slot in 0..TASK_SLOTS {
            let end = task_slot_end(slot).0;
            let (last, next) = (policy::task_hist_slot(end - 1), policy::task_hist_slot(end));
            assert_eq!(last as usize, slot);
            assert_eq!(next as usize, (slot + 1).min(TASK_SLOTS - 1));
        }
    }

    #[test]
    fn slots_are_narrow_and_reach_far() {
        for slot in 8..SLOTS {
            let (start, end) = (slot_start(slot), slot_start(slot + 1));
            assert!((end - start) * 8 <= start, "slot {slot} is wider than an eighth");
        }
        assert!(slot_start(SLOTS - 1) << UNIT_BITS > 15_000_000_000);
    }

    #[test]
    fn percentiles() {
        let mut counts = [0; SLOTS];
        assert_eq!(percentile(&counts, 0.5, slot_end), None);
        counts[3] = 98;
        counts[20] = 1;
        counts[40] = 1;
        assert_eq!(percentile(&counts, 0.5, slot_end), Some(slot_end(3)));
        assert_eq!(percentile(&counts, 0.98, slot_end), Some(slot_end(3)));
        assert_eq!(percentile(&counts, 0.99, slot_end), Some(slot_end(20)));
        assert_eq!(percentile(&counts, 1.0, slot_end), Some(slot_end(40)));
        counts = [0; SLOTS];
        counts[SLOTS - 1] = 1;
        assert_eq!(percentile(&counts, 0.0, slot_end), Some(slot_end(SLOTS - 1)));
    }
}

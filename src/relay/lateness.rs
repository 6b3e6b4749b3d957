//! Spells in which the policy did not answer, told of once.

use crate::machine::scheduler::RelayState;
use std::time::{Duration, Instant};

/// An episode of lateness is over after so much time without a new spell.
const EPISODE_GAP: Duration = Duration::from_secs(1);

/// Follows how often and for how long a policy was late, to tell of each episode once.
#[derive(Debug, Default)]
pub struct Lateness {
    /// All time of lateness that has been told of.
    told_ns: u64,
    /// When the last spell of the episode was seen to be over; none while one is under way.
    over_since: Option<Instant>,
    under_way: bool,
}

impl Lateness {
    /// How long the policy was late in an episode that is over by `now`. To be called with the state of that instant,
    /// and more often than spells end.
    pub fn ended(&mut self, state: &RelayState, now: Instant) -> Option<Duration> {
        if state.late_since != 0 {
            self.under_way = true;
            self.over_since = None;
            return None;
        }
        if !self.under_way && state.late_ns == self.told_ns {
            return None;
        }
        if now - *self.over_since.get_or_insert(now) < EPISODE_GAP {
            return None;
        }
        let span = Duration::from_nanos(state.late_ns.wrapping_sub(self.told_ns));
        *self = Self { told_ns: state.late_ns, ..Self::default() };
        Some(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a policy that is late (`since` is not 0) or was for so long, every half second.
    fn told(states: &[(u64, u64)]) -> Vec<Option<u64>> {
        let start = Instant::now();
        let mut lateness = Lateness::default();
        states
            .iter()
            .zip(0..)
            .map(|(&(late_since, late_ns), turn)| {
                let now = start + turn * Duration::from_millis(500);
                let state = RelayState { late_since, late_ns };
                lateness.ended(&state, now).map(|span| span.as_nanos() as u64)
            })
            .collect()
    }

    #[test]
    fn an_episode_is_told_of_once() {
        let states = [(0, 0), (7, 0), (7, 0), (0, 30), (0, 30), (0, 30), (0, 30), (0, 30)];
        assert_eq!(told(&states), [None, None, None, None, None, Some(30), None, None]);
    }

    #[test]
    fn spells_in_a_row_are_one_episode() {
        let states = [(7, 0), (0, 30), (9, 30), (0, 50), (0, 50), (0, 50), (11, 50), (0, 90)];
        assert_eq!(told(&states)[..6], [None, None, None, None, None, Some(50)]);
    }

    #[test]
    fn a_spell_between_two_looks_is_told_of_too() {
        assert_eq!(
            told(&[(0, 0), (0, 5), (0, 5), (0, 5), (0, 5)])[..4],
            [None, None, None, Some(5)]
        );
    }
}

//! First in, first out.

use super::{Context, Decision, Policy, Task, builtin::set_slice};
use crate::units::{Nanos, Vtime};

/// First in, first out, on whichever CPU is free; slices of 5 ms.
#[derive(Debug, Clone)]
pub struct Fifo {
    arrived: u64,
    slice: Nanos,
}

impl Default for Fifo {
    fn default() -> Self {
        Self { arrived: 0, slice: Nanos::from_millis(5) }
    }
}

impl Policy for Fifo {
    fn name(&self) -> &str {
        "fifo"
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        set_slice(&mut [("slice_us", &mut self.slice)], key, value)
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        self.arrived += 1;
        cx.decide(task, Decision::any_cpu().vtime(Vtime(self.arrived)).slice(self.slice));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fake::Fake;

    #[test]
    fn first_in_first_out() {
        let mut fake = Fake::with_cpus(1);
        let mut policy = Fifo::default();
        for pid in [30, 10, 20] {
            fake.enqueue(&mut policy, &fake.task(pid));
        }
        assert_eq!(fake.order(), [30, 10, 20]);
    }
}

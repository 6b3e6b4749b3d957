//! Built-in idle tracking, as `kernel/sched/ext_idle.c` does it.

use super::mask::{Bits, Mask};
use crate::machine::topology::Topology;

/// Which CPUs, and which whole cores, are idle.
pub struct Idle {
    /// CPUs that nobody has claimed.
    pub cpus: Mask,
    /// CPUs of cores that are idle as a whole.
    pub cores: Mask,
    siblings: Vec<Vec<u32>>,
    smt: bool,
    /// Where each CPU's next search for any CPU begins.
    turn: Vec<u32>,
}

impl Idle {
    /// None is idle.
    pub fn new(topology: &Topology) -> Self {
        let nr = topology.places.len();
        let mut cores = vec![Vec::new(); nr];
        for (cpu, place) in (0..).zip(&topology.places) {
            cores[place.core.index()].push(cpu);
        }
        Self {
            cpus: Mask::new(nr),
            cores: Mask::new(nr),
            siblings: topology.places.iter().map(|p| cores[p.core.index()].clone()).collect(),
            smt: topology.smt,
            turn: vec![0; nr],
        }
    }

    /// `update_builtin_idle()`.
    pub fn update(&mut self, cpu: u32, idle: bool) {
        let siblings = &self.siblings[cpu as usize];
        if idle {
            self.cpus.bits().set(cpu);
            if siblings.iter().all(|&cpu| self.cpus.bits().has(cpu)) {
                siblings.iter().for_each(|&cpu| self.cores.bits().set(cpu));
            }
        } else {
            self.cpus.bits().clear(cpu);
            for &cpu in siblings {
                self.cores.bits().clear(cpu);
            }
        }
    }

    /// The threads of a CPU's core.
    pub fn siblings(&self, cpu: u32) -> &[u32] {
        &self.siblings[cpu as usize]
    }

    /// `scx_idle_test_and_clear_cpu()`: claims a CPU, if it is idle.
    pub fn test_and_clear(&mut self, cpu: u32) -> bool {
        for &cpu in &self.siblings[cpu as usize] {
            self.cores.bits().clear(cpu);
        }
        self.cpus.bits().clear(cpu)
    }

    /// `scx_pick_idle_cpu()`: claims an idle CPU of a mask, whole cores first. Asked on CPU `here`.
    pub fn pick(&mut self, allowed: Bits<'_>, whole_core: bool, here: u32) -> Option<u32> {
        let core = if self.smt {
            distribute(&mut self.turn[here as usize], self.cores.bits(), allowed)
        } else {
            None
        };
        let found = match core {
            None if whole_core && self.smt => None,
            None => distribute(&mut self.turn[here as usize], self.cpus.bits(), allowed),
            core => core,
        };
        found.filter(|&cpu| self.test_and_clear(cpu))
    }

    /// `cpumask_any_and_distribute()`: a CPU of both masks, another one each time. Asked on CPU `here`.
    pub fn any_distribute(&mut self, a: Bits<'_>, b: Bits<'_>, here: u32) -> Option<u32> {
        distribute(&mut self.turn[here as usize], a, b)
    }
}

fn distribute(turn: &mut u32, a: Bits<'_>, b: Bits<'_>) -> Option<u32> {
    let found = a.next_and(b, *turn)?;
    *turn = found + 1;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::topology;

    #[test]
    fn a_claim_takes_the_core_out() {
        let topology = topology::parse("2 cores x 2 threads").expect("a topology");
        let mut idle = Idle::new(&topology);
        (0..4).for_each(|cpu| idle.update(cpu, true));
        let all = Mask::of(4, topology.possible.iter().copied());
        assert_eq!(idle.pick(all.bits(), true, 0), Some(0));
        let whole =
            |idle: &Idle| (0..4).filter(|&cpu| idle.cores.bits().has(cpu)).collect::<Vec<_>>();
        assert_eq!(whole(&idle), [1, 3]);
        assert_eq!(idle.pick(all.bits(), true, 0), Some(1));
        assert_eq!(idle.pick(all.bits(), true, 0), None);
        assert_eq!(idle.pick(all.bits(), false, 0), Some(2));
        assert_eq!(idle.pick(all.bits(), false, 0), Some(3));
        assert_eq!(idle.pick(all.bits(), false, 0), None);
        idle.update(0, true);
        assert_eq!(idle.cores.bits().count(), 0);
        idle.update(2, true);
        assert_eq!(whole(&idle), [0, 2]);
    }
}

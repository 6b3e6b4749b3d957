//! What the policy's process and the kernel's half say to each other: events, decisions, and the state of the CPUs. By which
//! way they get there is the business of a [`Port`].

use super::Board;
use crate::{
    bpf::{
        intf::{self, cpu_ctx, decision, event, relay_call},
        wire,
    },
    machine::topology::Topology,
    policy::{Cpu, Load, Machine, Order, Task, Verdict},
    units::{CpuId, Nanos, Pid},
};
use anyhow::{Context as _, Result};
use std::sync::Arc;

/// So many events are dealt with before their decisions are handed over.
pub(crate) const EVENTS_MAX: usize = 256;
const DECISIONS_MAX: usize = intf::DECISIONS_MAX as usize;

/// What the kernel's half tells of.
#[derive(Debug)]
pub(crate) enum Event {
    Enqueued(Task),
    CpuWants(CpuId),
    Changed(Task),
    Exited(Pid),
}

impl Event {
    /// From what the kernel's half wrote. None if it is of no known kind.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head: event = wire::value(bytes)?;
        let mask = bytes[size_of::<event>()..].chunks_exact(8);
        let words = mask.map(|word| word.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b)));
        match head.kind {
            intf::event_kind_EV_RUNNABLE => Some(Self::Enqueued(Task::from_event(&head, words))),
            intf::event_kind_EV_CPU => Some(Self::CpuWants(CpuId(u32::try_from(head.cpu).ok()?))),
            intf::event_kind_EV_CHANGED => Some(Self::Changed(Task::from_event(&head, words))),
            intf::event_kind_EV_EXITED => Some(Self::Exited(Pid(head.pid))),
            _ => None,
        }
    }
}

/// The way to a kernel's half: that of a kernel, or that of a simulated machine.
pub(crate) trait Port {
    /// Now, by the clock of events.
    fn now(&self) -> Nanos;

    /// Writes an element of the array `decisions`.
    fn write_decision(&mut self, index: usize, decision: decision);

    /// What became of it.
    fn verdict(&self, index: usize) -> u16;

    /// The state of a CPU.
    fn cpu(&self, index: usize) -> cpu_ctx;

    /// Runs `relay_apply`.
    fn apply(&mut self, call: &mut relay_call) -> Result<()>;

    /// Runs `relay_idle_cpu`.
    fn idle_cpu(&mut self, call: &mut relay_call) -> Result<()>;
}

/// The policy's end of the exchange.
pub(crate) struct Channel<P> {
    pub port: P,
    places: Arc<[Cpu]>,
    board: Board,
    /// CPUs that were picked since the last batch.
    picked: Vec<CpuId>,
}

/// The CPUs of a machine, as a policy sees them while nothing is known of what they do.
pub(crate) fn places(topology: &Topology) -> Arc<[Cpu]> {
    let place = |&id: &CpuId| {
        let place = topology.places[id.index()];
        Cpu { id, core: place.core, llc: place.llc, node: place.node, online: false, idle: false }
    };
    topology.possible.iter().map(place).collect()
}

impl<P: Port> Channel<P> {
    pub fn new(port: P, places: Arc<[Cpu]>, board: Board) -> Self {
        Self { port, places, board, picked: Vec::new() }
    }

    /// Applies no more orders than there is room for.
    fn apply_batch(&mut self, orders: &[Order], verdicts: &mut Vec<Verdict>) -> Result<Load> {
        for (index, order) in orders.iter().enumerate() {
            self.port.write_decision(index, encode(order));
        }
        let mut call = relay_call { nr: orders.len() as u32, ..NO_CALL };
        self.port.apply(&mut call).context("handing decisions to the kernel")?;
        for index in 0..orders.len() {
            verdicts.push(match u32::from(self.port.verdict(index)) {
                intf::verdict_VERDICT_APPLIED => Verdict::Applied,
                intf::verdict_VERDICT_MALFORMED => Verdict::Malformed,
                intf::verdict_VERDICT_EARLY => Verdict::Early,
                _ => Verdict::Stale,
            });
        }
        Ok(Load {
            queued: call.nr_offered.into(),
            decided: call.nr_decided.into(),
            late: call.late != 0,
        })
    }

    /// Wakes CPUs that were picked: those that got no task look around, and pass for idle again.
    fn release_picked(&mut self) -> Result<()> {
        let kicks: Vec<Order> = self.picked.drain(..).map(Order::look).collect();
        for batch in kicks.chunks(DECISIONS_MAX) {
            self.apply_batch(batch, &mut Vec::new())?;
        }
        Ok(())
    }
}

const NO_CALL: relay_call = relay_call { nr: 0, nr_offered: 0, nr_decided: 0, late: 0, now_at: 0 };

fn encode(order: &Order) -> decision {
    let Order { pid, offer, decision: chosen, .. } = order;
    decision {
        vtime: chosen.vtime.0,
        slice_ns: chosen.slice.map_or(0, |slice| slice.0),
        pid: pid.map_or(0, |pid| pid.0),
        offer: *offer,
        cpu: chosen.cpu.map_or(u32::MAX, |cpu| cpu.0),
        flags: [
            (chosen.preempt, intf::DECISION_PREEMPT),
            (chosen.preempt_if_earlier, intf::DECISION_PREEMPT_LATER),
        ]
        .iter()
        .fold(0, |flags, &(chosen, flag)| if chosen { flags | flag as u16 } else { flags }),
        verdict: 0,
    }
}

impl<P: Port> Machine for Channel<P> {
    fn now(&self) -> Nanos {
        self.port.now()
    }

    fn cpus(&self) -> Vec<Cpu> {
        let now = |place: &Cpu| {
            let state = self.port.cpu(place.id.index());
            Cpu { online: state.online != 0, idle: state.running_pid == 0, ..*place }
        };
        self.places.iter().map(now).collect()
    }

    fn pick_idle_cpu(&mut self, pid: Pid) -> Option<CpuId> {
        let mut call = relay_call { nr: pid.0 as u32, ..NO_CALL };
        self.port.idle_cpu(&mut call).ok()?;
        let cpu = (call.nr != u32::MAX).then_some(CpuId(call.nr))?;
        self.picked.push(cpu);
        Some(cpu)
    }

    fn apply(&mut self, orders: &[Order]) -> Result<(Vec<Verdict>, Load)> {
        let mut verdicts = Vec::with_capacity(orders.len());
        let mut batches = orders.chunks(DECISIONS_MAX);
        // One call even without orders: the sign of life.
        let mut load = self.apply_batch(batches.next().unwrap_or_default(), &mut verdicts)?;
        for batch in batches {
            load = self.apply_batch(batch, &mut verdicts)?;
        }
        self.release_picked()?;
        Ok((verdicts, load))
    }

    fn show(&mut self, name: &str, value: f64) {
        let mut figures = self.board.lock();
        match figures.get_mut(name) {
            Some(shown) => *shown = value,
            None => {
                figures.insert(name.to_owned(), value);
            }
        }
    }

    fn shown(&self, name: &str) -> Option<f64> {
        self.board.lock().get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_on_the_wire() {
        let order = Order {
            pid: Some(Pid(7)),
            offer: 3,
            decision: crate::policy::Decision::on(CpuId(2)).slice(Nanos(5)).preempt(),
            tries: 0,
        };
        let wire = encode(&order);
        assert_eq!((wire.pid, wire.offer, wire.cpu, wire.slice_ns, wire.flags), (7, 3, 2, 5, 1));
        let any = encode(&Order { decision: crate::policy::Decision::any_cpu(), ..order });
        assert_eq!((any.cpu, any.slice_ns, any.flags), (u32::MAX, 0, 0));
        assert_eq!(encode(&Order::kick(CpuId(4))).pid, 0);
    }

    #[test]
    fn events_decode() {
        let mut bytes = vec![0; size_of::<event>()];
        assert!(matches!(Event::decode(&bytes), Some(Event::Enqueued(_))));
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0x80]);
        let Some(Event::Enqueued(task)) = Event::decode(&bytes) else { panic!("not enqueued") };
        assert_eq!(task.cpus.iter().collect::<Vec<_>>(), [CpuId(0), CpuId(63)]);
        assert!(Event::decode(&bytes[..8]).is_none());
    }
}

//! What the policy's process and the kernel's half share: a ring of events, an array of decisions, the state of the
//! CPUs, and the programs that carry decisions out.

use super::Board;
use crate::{
    bpf::{
        intf::{self, cpu_ctx, decision, event, relay_call},
        wire::{self, Wire},
    },
    machine::{program::Program, scheduler::Scheduler, stop::Stop},
    policy::{Cpu, Load, Machine, Order, Task, Verdict},
    units::{CpuId, Nanos, Pid},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use libbpf_rs::{MapCore, MapHandle, RingBuffer, RingBufferBuilder};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    sys::time::TimeSpec,
};
use std::{
    ffi::c_void,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many are dealt with before their decisions are handed over.
const EVENTS_MAX: usize = 256;
const DECISIONS_MAX: usize = intf::DECISIONS_MAX as usize;

/// What the kernel's half tells of.
#[derive(Debug)]
pub(super) enum Event {
    Enqueued(Task),
    CpuWants(CpuId),
    Changed(Task),
    Exited(Pid),
}

impl Event {
    /// From what the kernel's half wrote. None if it is of no known kind.
    fn decode(bytes: &[u8]) -> Option<Self> {
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

/// The policy's end of the exchange. It outlives the [`Scheduler`] that it was made of, should it have to.
pub(super) struct Channel {
    ring: RingBuffer<'static>,
    received: Arc<Mutex<Vec<Event>>>,
    decisions: Shared<decision>,
    states: Shared<cpu_ctx>,
    places: Vec<Cpu>,
    apply: Program,
    idle_cpu: Program,
    board: Board,
    /// The clock of events, at the last batch.
    clock: (Nanos, Instant),
    /// CPUs that were picked since the last batch.
    picked: Vec<CpuId>,
}

impl Channel {
    pub fn open(scheduler: &Scheduler<'_>, board: Board) -> Result<Self> {
        let skel = scheduler.skel();
        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&received);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&skel.maps.events, move |bytes| {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend(Event::decode(bytes));
                0
            })
            .context("reading the ring of events")?;
        let topology = scheduler.topology();
        let places = topology.possible.iter().map(|&id| {
            let place = topology.places[id.index()];
            Cpu {
                id,
                core: place.core,
                llc: place.llc,
                node: place.node,
                online: false,
                idle: false,
            }
        });
        Ok(Self {
            ring: builder.build().context("reading the ring of events")?,
            received,
            decisions: Shared::map(&MapHandle::try_from(&skel.maps.decisions)?, true)?,
            states: Shared::map(&MapHandle::try_from(&skel.maps.cpus)?, false)?,
            places: places.collect(),
            apply: Program::of(&skel.progs.relay_apply)?,
            idle_cpu: Program::of(&skel.progs.relay_idle_cpu)?,
            board,
            clock: (Nanos(0), Instant::now()),
            picked: Vec::new(),
        })
    }

    /// Waits until there is an event, for a stop, or for `timeout`.
    pub fn wait(&self, stop: &Stop, timeout: Duration) -> Result<()> {
        // SAFETY: the ring is alive, and so is the descriptor that it owns.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) };
        let mut fds =
            [PollFd::new(ring, PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("waiting for events"),
        }
    }

    /// Takes events that are there, in their order: no more than are soon dealt with.
    pub fn receive(&self, events: &mut Vec<Event>) -> Result<()> {
        let code = self.ring.consume_raw_n(EVENTS_MAX);
        ensure!(code >= 0, "reading the ring of events: {}", Errno::from_raw(-code));
        events.append(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Applies no more orders than there is room for.
    fn apply_batch(&mut self, orders: &[Order], verdicts: &mut Vec<Verdict>) -> Result<Load> {
        for (index, order) in orders.iter().enumerate() {
            self.decisions.write(index, encode(order));
        }
        let mut call = relay_call { nr: orders.len() as u32, ..NO_CALL };
        self.apply.call(&mut call).context("handing decisions to the kernel")?;
        self.clock = (Nanos(call.now_at), Instant::now());
        for index in 0..orders.len() {
            verdicts.push(match u32::from(self.decisions.read(index).verdict) {
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

impl Machine for Channel {
    fn now(&self) -> Nanos {
        let (kernel, then) = self.clock;
        Nanos(kernel.0.saturating_add(Nanos::from(then.elapsed()).0))
    }

    fn cpus(&self) -> Vec<Cpu> {
        let now = |place: &Cpu| {
            let state = self.states.read(place.id.index());
            Cpu { online: state.online != 0, idle: state.running_pid == 0, ..*place }
        };
        self.places.iter().map(now).collect()
    }

    fn pick_idle_cpu(&mut self, pid: Pid) -> Option<CpuId> {
        let mut call = relay_call { nr: pid.0 as u32, ..NO_CALL };
        self.idle_cpu.call(&mut call).ok()?;
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

/// The elements of an array map that both sides see.
struct Shared<T: Wire> {
    at: NonNull<c_void>,
    bytes: NonZeroUsize,
    elements: usize,
    stride: usize,
    _of: PhantomData<T>,
}

// SAFETY: memory of the process like any other; all access is by copies.
unsafe impl<T: Wire> Send for Shared<T> {}

impl<T: Wire> Shared<T> {
    /// Maps the elements, to be written, too, if that is asked for.
    fn map(map: &MapHandle, writable: bool) -> Result<Self> {
        // An element takes a multiple of eight bytes.
        let stride = size_of::<T>().next_multiple_of(8);
        let elements = map.max_entries() as usize;
        ensure!(map.value_size() as usize == size_of::<T>(), "an array of other elements");
        let bytes = NonZeroUsize::new(stride * elements).ok_or_else(|| anyhow!("empty"))?;
        // SAFETY: a new mapping wherever the kernel likes.
        let at = unsafe {
            mmap(
                None,
                bytes,
                if writable {
                    ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
                } else {
                    ProtFlags::PROT_READ
                },
                MapFlags::MAP_SHARED,
                map.as_fd(),
                0,
            )
        };
        let at = at.context("mapping an array of the kernel's half")?;
        Ok(Self { at, bytes, elements, stride, _of: PhantomData })
    }

    fn element(&self, index: usize) -> *mut T {
        assert!(index < self.elements, "element {index} of {}", self.elements);
        // SAFETY: within the mapping.
        unsafe { self.at.as_ptr().byte_add(index * self.stride).cast() }
    }

    fn read(&self, index: usize) -> T {
        // SAFETY: within the mapping and aligned; any bytes are a value of a Wire type.
        unsafe { ptr::read_volatile(self.element(index)) }
    }

    fn write(&mut self, index: usize, value: T) {
        // SAFETY: as above, and only a mapping that may be written to is ever written to.
        unsafe { ptr::write_volatile(self.element(index), value) }
    }
}

impl<T: Wire> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which no reference is left. An error would leave it, until the process ends.
        let _ = unsafe { munmap(self.at, self.bytes.get()) };
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

//! The way to the kernel's half in a kernel: a ring of events, mapped arrays, and programs that are run.

use super::channel::{EVENTS_MAX, Event, Port};
use crate::{
    bpf::{
        intf::{cpu_ctx, decision, relay_call},
        wire::{Elements, Wire},
    },
    machine::{program::Program, scheduler::Scheduler, stop::Stop},
    units::Nanos,
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
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// It outlives the [`Scheduler`] that it was made of, should it have to.
pub(super) struct KernelPort {
    ring: RingBuffer<'static>,
    received: Arc<Mutex<Vec<Event>>>,
    decisions: Mapped<decision>,
    states: Mapped<cpu_ctx>,
    apply: Program,
    idle_cpu: Program,
    /// The clock of events, at the last call.
    clock: (Nanos, Instant),
}

impl KernelPort {
    pub fn open(scheduler: &Scheduler<'_>) -> Result<Self> {
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
        Ok(Self {
            ring: builder.build().context("reading the ring of events")?,
            received,
            decisions: Mapped::map(&MapHandle::try_from(&skel.maps.decisions)?, true)?,
            states: Mapped::map(&MapHandle::try_from(&skel.maps.cpus)?, false)?,
            apply: Program::of(&skel.progs.relay_apply)?,
            idle_cpu: Program::of(&skel.progs.relay_idle_cpu)?,
            clock: (Nanos(0), Instant::now()),
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
}

impl Port for KernelPort {
    fn now(&self) -> Nanos {
        let (kernel, then) = self.clock;
        Nanos(kernel.0.saturating_add(Nanos::from(then.elapsed()).0))
    }

    fn write_decision(&mut self, index: usize, decision: decision) {
        self.decisions.elements.write(index, decision);
    }

    fn verdict(&self, index: usize) -> u16 {
        self.decisions.elements.read(index).verdict
    }

    fn cpu(&self, index: usize) -> cpu_ctx {
        self.states.elements.read(index)
    }

    fn apply(&mut self, call: &mut relay_call) -> Result<()> {
        self.apply.call(call)?;
        self.clock = (Nanos(call.now_at), Instant::now());
        Ok(())
    }

    fn idle_cpu(&mut self, call: &mut relay_call) -> Result<()> {
        self.idle_cpu.call(call)
    }
}

/// An array map that is mapped into memory.
struct Mapped<T: Wire> {
    at: NonNull<c_void>,
    bytes: NonZeroUsize,
    elements: Elements<T>,
}

// SAFETY: memory of the process like any other; all access is by copies.
unsafe impl<T: Wire> Send for Mapped<T> {}

impl<T: Wire> Mapped<T> {
    /// Maps the elements, to be written, too, if that is asked for.
    fn map(map: &MapHandle, writable: bool) -> Result<Self> {
        let elements = map.max_entries() as usize;
        ensure!(map.value_size() as usize == size_of::<T>(), "an array of other elements");
        let bytes =
            NonZeroUsize::new(Elements::<T>::STRIDE * elements).ok_or_else(|| anyhow!("empty"))?;
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
        // SAFETY: the mapping has that many and stays until this is dropped; only one that may be written to is ever written to.
        let elements = unsafe { Elements::new(at.cast(), elements) };
        Ok(Self { at, bytes, elements })
    }
}

impl<T: Wire> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which no reference is left. An error would leave it, until the process ends.
        let _ = unsafe { munmap(self.at, self.bytes.get()) };
    }
}

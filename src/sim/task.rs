//! A task, as the virtual kernel keeps it: the `task_struct` that the kernel's half sees, and what it does not.

use super::{
    abi,
    dsq::Spot,
    mask::{Bits, Mask},
};
use crate::units::{Pid, Weight};
use std::ptr::NonNull;

/// Index of a task in the machine's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(pub u32);

impl TaskId {
    /// The index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueId {
    /// Of a CPU.
    Local(u32),
    /// The kernel's own, one a node.
    Global(u32),
    /// One that the scheduler made.
    Custom(u64),
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Asleep, or not born yet.
    Asleep,
    /// Runnable and in no queue: the scheduler was given it and has not inserted it.
    Held,
    /// In a queue.
    Queued(QueueId, Spot),
    /// It has the CPU that its `task_struct` names.
    Running,
    /// Gone.
    Dead,
}

/// An insertion that takes place when the callback has returned.
#[derive(Debug, Clone, Copy)]
pub struct Insertion {
    /// The queue's id, as the scheduler gave it.
    pub dsq: u64,
    /// `SCX_ENQ_*`.
    pub enq_flags: u64,
    /// By the task's vtime, not at the end.
    pub by_vtime: bool,
}

/// What a task is like when it is born.
#[derive(Debug, Clone, Copy)]
pub struct Birth {
    /// Number.
    pub pid: Pid,
    /// -20 to 19.
    pub nice: i32,
    /// `SCHED_*`.
    pub policy: u32,
}

/// A task.
pub struct Task {
    p: NonNull<abi::task_struct>,
    /// Where it may run.
    pub allowed: Mask,
    /// Where it is.
    pub place: Place,
    /// Its number in the queue that it is in, by arrival.
    pub dsq_seq: u32,
    /// Set between an insertion by `select_cpu` or `enqueue` and its taking place.
    pub direct: Option<Insertion>,
    /// Since when it waits for a CPU.
    pub runnable_at: u64,
    /// Up to when its run time is charged.
    pub charged_at: u64,
    /// Whether it waits because it woke, not because its slice was over.
    pub woke: bool,
    storage: Option<Box<[u64]>>,
}

/// Readers and writers of fields that the kernel's half shares.
macro_rules! shared {
    ($($(#[$doc:meta])* $get:ident $(, $set:ident)?: $kind:ty = $($field:ident).+;)*) => {$(
        $(#[$doc])*
        pub fn $get(&self) -> $kind {
            // SAFETY: the allocation of new(), which lives as long as self; no reference to it exists.
            unsafe { (*self.p.as_ptr()).$($field).+ }
        }
        shared!(@set $($set)?, $kind, $($field).+);
    )*};
    (@set $set:ident, $kind:ty, $($field:ident).+) => {
        /// Its writer.
        pub fn $set(&mut self, value: $kind) {
            // SAFETY: as above.
            unsafe { (*self.p.as_ptr()).$($field).+ = value }
        }
    };
    (@set , $kind:ty, $($field:ident).+) => {};
}

impl Task {
    /// A task that is not born yet. `allowed` is not empty.
    pub fn new(id: TaskId, birth: Birth, allowed: Mask) -> Self {
        // SAFETY: integers and pointers only, for which zero is a value.
        let mut p: Box<abi::task_struct> = Box::new(unsafe { std::mem::zeroed() });
        p.pid = birth.pid.0;
        p.tgid = birth.pid.0;
        p.static_prio = 120 + birth.nice;
        p.policy = birth.policy;
        p.nr_cpus_allowed = allowed.bits().count() as i32;
        p.cpus_ptr = allowed.as_ptr();
        p.index = id.0;
        p.__state = abi::TASK_INTERRUPTIBLE;
        Self {
            p: NonNull::from(Box::leak(p)),
            allowed,
            place: Place::Asleep,
            dsq_seq: 0,
            direct: None,
            runnable_at: 0,
            charged_at: 0,
            woke: false,
            storage: None,
        }
    }

    shared! {
        /// Rest of its slice in nanoseconds.
        slice, set_slice: u64 = scx.slice;
        /// What queues by vtime order it by.
        vtime, set_vtime: u64 = scx.dsq_vtime;
        /// `SCX_TASK_*`.
        scx_flags, set_scx_flags: u32 = scx.flags;
        /// `PF_*`.
        flags, set_flags: u32 = flags;
        /// Whose runqueue it is on.
        cpu, set_cpu: i32 = cpu;
        /// Run time in nanoseconds.
        run_ns, set_run_ns: u64 = se.sum_exec_runtime;
        /// Number of CPUs that it may run on.
        nr_allowed: i32 = nr_cpus_allowed;
        /// Number.
        pid: i32 = pid;
    }

    /// Sets its state, `TASK_*`.
    pub fn set_state(&mut self, state: u32) {
        // SAFETY: as above.
        unsafe { (*self.p.as_ptr()).__state = state }
    }

    /// Gives it another nice value.
    pub fn set_nice(&mut self, nice: i32) {
        // SAFETY: as above.
        unsafe { (*self.p.as_ptr()).static_prio = 120 + nice }
    }

    /// Whether the kernel's half keeps state of it: from its birth to its end.
    pub fn is_known(&self) -> bool {
        self.storage.is_some()
    }

    /// As the kernel's half takes it.
    pub fn as_ptr(&self) -> *mut abi::task_struct {
        self.p.as_ptr()
    }

    /// Its load weight, by nice and policy.
    pub fn weight(&self) -> Weight {
        // SAFETY: as for the fields above.
        let (prio, policy) = unsafe { ((*self.p.as_ptr()).static_prio, (*self.p.as_ptr()).policy) };
        Weight(crate::bpf::policy::weight_of(prio - 120, policy))
    }

    /// Whether it may run on a CPU.
    pub fn may_run(&self, cpu: u32) -> bool {
        self.bits().has(cpu)
    }

    /// The CPUs that it may run on.
    pub fn bits(&self) -> Bits<'_> {
        self.allowed.bits()
    }

    /// Gives it room for the state that the kernel's half keeps of it, zeroed. That room is its own until it dies.
    pub fn create_storage(&mut self, bytes: usize) -> *mut u64 {
        self.storage.insert(vec![0; bytes.div_ceil(8)].into()).as_mut_ptr()
    }

    /// The task is gone: frees what the kernel's half kept of it.
    pub fn free_storage(&mut self) {
        self.storage = None;
        // SAFETY: as for the fields above.
        unsafe { (*self.p.as_ptr()).storage = std::ptr::null_mut() }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: it came from a box, in new(), and nobody else frees it.
        drop(unsafe { Box::from_raw(self.p.as_ptr()) });
    }
}

//! A task, as the virtual kernel keeps it: the `task_struct` that the kernel's half sees, and what it does not.

use super::{
    abi,
    dsq::Spot,
    mask::{Bits, Mask},
};
use crate::units::{Pid, Weight};
use std::{ptr::NonNull, rc::Rc};

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
pub struct Birth<'a> {
    /// Number.
    pub pid: Pid,
    /// -20 to 19.
    pub nice: i32,
    /// `SCHED_*`.
    pub policy: u32,
    /// What it calls itself; the kernel keeps 15 bytes of it.
    pub name: &'a str,
}

/// A task.
pub struct Task {
    p: NonNull<abi::task_struct>,
    /// The affinity that was asked for: the kernel's `cpus_mask`. Of a thousand CPUs it is 128 bytes, so tasks that are born with
    /// the same share it.
    allowed: Rc<Mask>,
    /// The one CPU of a task that was switched out with migration disabled: `cpus_ptr` then.
    pinned: Option<Mask>,
    /// It runs where it may not any more, until the stopper moves it.
    pub migration_pending: bool,
    /// Since when its affinity and its weight, and whether it may migrate, are what they are.
    pub movable_at: u64,
    /// Since when it reads under RCU.
    pub reads_at: u64,
    /// Where it is.
    pub place: Place,
    /// Its number in the queue that it is in, by arrival.
    pub dsq_seq: u32,
    /// Set between an insertion by `select_cpu` or `enqueue` and its taking place.
    pub direct: Option<Insertion>,
    /// Since when it waits for a CPU.
    pub runnable_at: u64,
    /// What higher classes had taken of its CPU by then, in nanoseconds.
    pub taken_before: u64,
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
    pub fn new(id: TaskId, birth: Birth<'_>, allowed: Rc<Mask>) -> Self {
        // SAFETY: integers and pointers only, for which zero is a value.
        let mut p: Box<abi::task_struct> = Box::new(unsafe { std::mem::zeroed() });
        p.pid = birth.pid.0;
        p.tgid = birth.pid.0;
        p.static_prio = 120 + birth.nice;
        p.policy = birth.policy;
        p.nr_cpus_allowed = allowed.bits().count() as i32;
        p.cpus_ptr = allowed.as_ptr();
        let room = p.comm.len() - 1;
        for (to, from) in p.comm[..room].iter_mut().zip(birth.name.bytes()) {
            *to = from as _;
        }
        p.index = id.0;
        p.__state = abi::TASK_INTERRUPTIBLE;
        Self {
            p: NonNull::from(Box::leak(p)),
            allowed,
            pinned: None,
            migration_pending: false,
            movable_at: 0,
            reads_at: 0,
            place: Place::Asleep,
            dsq_seq: 0,
            direct: None,
            runnable_at: 0,
            taken_before: 0,
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
        /// Depth of the sections in which it may not migrate.
        migration_disabled, set_migration_disabled: u16 = migration_disabled;
        /// Depth of the sections in which it reads under RCU.
        rcu_nesting, set_rcu_nesting: i32 = rcu_read_lock_nesting;
        /// Number.
        pid: i32 = pid;
        /// How often it gave up its CPU to sleep.
        voluntary_switches, set_voluntary_switches: u64 = nvcsw;
        /// How often that was taken from it.
        involuntary_switches, set_involuntary_switches: u64 = nivcsw;
    }

    /// Puts it down that the task is in a queue, or in none and given to the scheduler.
    pub fn set_queue(&mut self, queue: Option<(QueueId, Spot)>) {
        let dsq = match queue {
            None => None,
            Some((QueueId::Local(_), _)) => Some(abi::SCX_DSQ_LOCAL),
            Some((QueueId::Global(_), _)) => Some(abi::SCX_DSQ_GLOBAL),
            Some((QueueId::Custom(id), _)) => Some(id),
        };
        self.place = queue.map_or(Place::Held, |(queue, spot)| Place::Queued(queue, spot));
        let p = self.p.as_ptr();
        // SAFETY: as for the fields above; the pointer is to the same allocation.
        unsafe {
            (*p).at.id = dsq.unwrap_or_default();
            (*p).scx.dsq = dsq.map_or(std::ptr::null_mut(), |_| &raw mut (*p).at);
        }
    }

    /// Its static priority: 120 is nice 0.
    pub fn prio(&self) -> i32 {
        // SAFETY: as for the fields above.
        unsafe { (*self.p.as_ptr()).static_prio }
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
        self.bits().has(cpu) && (self.migration_disabled() == 0 || self.cpu() == cpu as i32)
    }

    /// The CPUs that it may run on: the kernel's `cpus_ptr`.
    pub fn bits(&self) -> Bits<'_> {
        self.pinned.as_ref().unwrap_or(&self.allowed).bits()
    }

    /// The affinity that was asked for.
    pub fn allowed(&self) -> Bits<'_> {
        self.allowed.bits()
    }

    /// Gives it another affinity, which is not empty. It counts once migration is enabled.
    pub fn set_allowed(&mut self, allowed: Mask) {
        let nr = allowed.bits().count() as i32;
        self.allowed = Rc::new(allowed);
        let cpus_ptr = self.cpus_ptr();
        // SAFETY: as for the fields above; the mask that it names lives as long as self has it.
        unsafe {
            (*self.p.as_ptr()).nr_cpus_allowed = nr;
            (*self.p.as_ptr()).cpus_ptr = cpus_ptr;
        }
    }

    /// Binds it to a CPU while migration is disabled, or ends that.
    pub fn pin(&mut self, cpu: Option<Mask>) {
        self.pinned = cpu;
        let cpus_ptr = self.cpus_ptr();
        // SAFETY: as in set_allowed().
        unsafe { (*self.p.as_ptr()).cpus_ptr = cpus_ptr }
    }

    /// Whether [`Self::pin`] bound it.
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// The mask of [`Self::bits`], as the kernel's half takes it.
    pub fn cpus_ptr(&self) -> *const abi::cpumask {
        self.pinned.as_ref().unwrap_or(&self.allowed).as_ptr()
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

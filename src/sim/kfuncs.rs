//! The edge to the kernel's half: the callbacks that the engine calls, and the functions that they call back.
//!
//! While a callback runs, the machine's pointer in `sim_world` stands for the `&mut Kernel` that it was called with, and
//! nothing in Rust uses that reference. Functions that are called back make a reference of it for as long as they
//! last. None of them calls a callback, so there is never more than one.

use super::{
    abi::{self, cpumask, sim_kfuncs, task_struct},
    kernel::{Dispatch, Kernel},
    mask::{Bits, Mask},
    object::Program,
    task::{Insertion, TaskId},
};
use crate::{bpf::intf::relay_call, units::Nanos};
use std::{
    ffi::{CStr, c_char, c_void},
    ptr,
};

static KFUNCS: sim_kfuncs = sim_kfuncs {
    dsq_insert: Some(dsq_insert),
    dsq_nr_queued: Some(dsq_nr_queued),
    dsq_move_to_local: Some(dsq_move_to_local),
    create_dsq: Some(create_dsq),
    iter_new: Some(iter_new),
    iter_next: Some(iter_next),
    dsq_move: Some(dsq_move),
    pick_idle_cpu: Some(pick_idle_cpu),
    test_and_clear_cpu_idle: Some(test_and_clear_cpu_idle),
    any_distribute: Some(any_distribute),
    kick_cpu: Some(kick_cpu),
    reenqueue_local: Some(reenqueue_local),
    cpumask_create: Some(cpumask_create),
    cpumask_release: Some(cpumask_release),
    storage_create: Some(storage_create),
    ringbuf_reserve: Some(ringbuf_reserve),
    ringbuf_submit: Some(ringbuf_submit),
    ringbuf_query: Some(ringbuf_query),
    timer_start: Some(timer_start),
    task_from_pid: Some(task_from_pid),
    refuse: Some(refuse),
};

/// How long the machine has been up at the beginning: instants are never 0 in a kernel, and the kernel's half relies on it.
const BOOTED_NS: u64 = 60_000_000_000;

/// What the call of an operation needs: its function, and the arguments.
macro_rules! op {
    ($kernel:ident, $cpu:expr, $op:ident($($arg:expr),*)) => {{
        let op = $kernel.object.ops.$op;
        op.map(|op| {
            let current = $kernel.enter($cpu);
            // SAFETY: a callback of the open object with the arguments that it has in the kernel; $kernel is not
            // used until it returns.
            let answer = unsafe { op($($arg),*) };
            $kernel.leave(current);
            answer
        })
    }};
}

/// The callbacks. `cpu` is where each runs.
impl Kernel {
    pub(super) fn set_up_world(&mut self) {
        let world = self.object.world();
        // SAFETY: data of the open object. The masks live as long as self, and so does the object.
        unsafe {
            (*world).kfuncs = &KFUNCS;
            (*world).idle = self.idle.cpus.as_ptr();
            (*world).idle_smt = self.idle.cores.as_ptr();
            (*world).online = self.online.as_ptr();
            (*world).nr_cpu_ids = self.cpus.len() as u32;
        }
    }

    /// Sets the clock to this time after the beginning.
    pub fn set_now(&mut self, now: u64) {
        // SAFETY: data of the open object, which no callback uses at the moment.
        unsafe { (*self.object.world()).now = BOOTED_NS + now }
    }

    /// Time since the beginning.
    pub fn uptime(&self) -> u64 {
        self.now().0 - BOOTED_NS
    }

    /// The clock of the kernel's half.
    pub fn now(&self) -> Nanos {
        // SAFETY: data of the open object.
        Nanos(unsafe { (*self.object.world()).now })
    }

    /// Begins a callback on a CPU. As `__bpf_prog_enter()` does, the task that runs there reads under RCU and may not
    /// migrate meanwhile.
    fn enter(&mut self, cpu: u32) -> Option<TaskId> {
        let curr = self.cpus[cpu as usize].curr;
        self.count_entry(curr, 1);
        let current = curr.map_or(&self.swapper, |id| &self.tasks[id.index()]).as_ptr();
        self.enter_as(cpu, current);
        curr
    }

    fn enter_as(&mut self, cpu: u32, current: *mut task_struct) {
        self.calls += 1;
        let world = self.object.world();
        // SAFETY: as above.
        unsafe {
            (*world).machine = ptr::from_mut(self).cast();
            (*world).cpu = cpu as i32;
            (*world).current = current;
        }
    }

    /// Ends it.
    fn leave(&mut self, current: Option<TaskId>) {
        self.count_entry(current, -1);
    }

    /// A program is entered (1) or left (-1) while that task is current.
    pub(super) fn count_entry(&mut self, current: Option<TaskId>, by: i16) {
        if let Some(id) = current {
            let task = self.task(id);
            task.set_migration_disabled(task.migration_disabled().wrapping_add_signed(by));
            task.set_rcu_nesting(task.rcu_nesting() + i32::from(by));
        }
    }

    /// `ops.init`: 0, or a Linux error.
    pub fn init(&mut self) -> i32 {
        op!(self, 0, init()).unwrap_or(0)
    }

    /// `ops.exit`: the end, for this reason (`SCX_EXIT_*`).
    pub fn exit(&mut self, kind: i32) {
        let mut info = abi::scx_exit_info { kind };
        let info = &raw mut info;
        op!(self, 0, exit(info));
    }

    /// The callback of the timer of this number.
    pub fn timer_due(&mut self, number: u32, cpu: u32) {
        let timer = self.timers[number as usize];
        // SAFETY: in the memory of the open object, whose map the timer is in.
        let (callback, map) = unsafe { ((*timer).callback, (*timer).map) };
        let Some(callback) = callback else { return };
        let (mut key, element) = (0u32, timer.cast());
        let key = &raw mut key;
        let current = self.enter(cpu);
        // SAFETY: as for the operations; the timer is the first of its element.
        unsafe { callback(map, key, element) };
        self.leave(current);
    }

    /// `relay_apply` (or `relay_idle_cpu`), run by the process of the policy in user space.
    pub fn run_program(&mut self, cpu: u32, program: Program, call: &mut relay_call) -> i32 {
        let current = self.process.as_ptr();
        self.enter_as(cpu, current);
        let call = ptr::from_mut(call);
        // SAFETY: as for the operations.
        unsafe { program(call) }
    }

    /// `ops.select_cpu`, or none if the scheduler has none.
    pub fn select_cpu(&mut self, cpu: u32, id: TaskId, prev: i32, flags: u64) -> Option<i32> {
        let p = self.tasks[id.index()].as_ptr();
        self.asked_about = Some(id);
        let answer = op!(self, cpu, select_cpu(p, prev, flags));
        self.asked_about = None;
        answer
    }

    /// `ops.enqueue`.
    pub fn enqueue(&mut self, cpu: u32, id: TaskId, flags: u64) {
        let p = self.tasks[id.index()].as_ptr();
        self.asked_about = Some(id);
        op!(self, cpu, enqueue(p, flags));
        self.asked_about = None;
    }

    /// `ops.dispatch`, and what it inserted. Returns how many tasks it moved.
    pub fn dispatch(&mut self, cpu: u32, prev: Option<TaskId>) -> u32 {
        let p = prev.map_or(ptr::null_mut(), |id| self.tasks[id.index()].as_ptr());
        self.dispatch = Some(Dispatch { cpu, buffer: Vec::new(), nr_tasks: 0 });
        op!(self, cpu, dispatch(cpu as i32, p));
        self.flush_dispatch_buf();
        self.dispatch.take().map_or(0, |dispatch| dispatch.nr_tasks)
    }

    /// `ops.running`.
    pub fn running(&mut self, cpu: u32, id: TaskId) {
        let p = self.tasks[id.index()].as_ptr();
        op!(self, cpu, running(p));
    }

    /// `ops.stopping`.
    pub fn stopping(&mut self, cpu: u32, id: TaskId, runnable: bool) {
        let p = self.tasks[id.index()].as_ptr();
        op!(self, cpu, stopping(p, runnable));
    }

    /// `ops.tick`.
    pub fn tick(&mut self, cpu: u32, id: TaskId) {
        let p = self.tasks[id.index()].as_ptr();
        op!(self, cpu, tick(p));
    }

    /// `ops.yield`, for a task that gives way to no one in particular.
    pub fn yields(&mut self, cpu: u32, id: TaskId) {
        let p = self.tasks[id.index()].as_ptr();
        op!(self, cpu, yield_(p, ptr::null_mut()));
    }

    /// `ops.update_idle`.
    pub fn update_idle(&mut self, cpu: u32, idle: bool) {
        op!(self, cpu, update_idle(cpu as i32, idle));
    }

    /// `ops.init_task` of a fork: 0, or a Linux error.
    pub fn init_task(&mut self, cpu: u32, id: TaskId) -> i32 {
        let p = self.tasks[id.index()].as_ptr();
        let mut args = abi::scx_init_task_args { fork: true };
        let args = &raw mut args;
        op!(self, cpu, init_task(p, args)).unwrap_or(0)
    }

    /// `ops.enable`, and the weight that follows it.
    pub fn enable(&mut self, cpu: u32, id: TaskId) {
        let p = self.tasks[id.index()].as_ptr();
        op!(self, cpu, enable(p));
        self.set_weight(cpu, id);
    }

    /// `ops.set_weight`.
    pub fn set_weight(&mut self, cpu: u32, id: TaskId) {
        let task = &self.tasks[id.index()];
        // sched_weight_to_cgroup(): nice 0 is 100.
        let weight = ((task.weight().0 * 100 + 512) / 1024).clamp(1, 10_000);
        let p = task.as_ptr();
        op!(self, cpu, set_weight(p, weight));
    }

    /// `ops.set_cpumask`, with the mask that is in force.
    pub fn set_cpumask(&mut self, cpu: u32, id: TaskId) {
        let task = &self.tasks[id.index()];
        let (p, mask) = (task.as_ptr(), task.cpus_ptr());
        op!(self, cpu, set_cpumask(p, mask));
    }

    /// `ops.cpu_release`: a higher class has taken the CPU. True: what is in its local queue is to be enqueued anew.
    pub fn cpu_release(&mut self, cpu: u32) -> bool {
        self.releases = Some(false);
        op!(self, cpu, cpu_release(cpu as i32, ptr::null_mut()));
        self.releases.take() == Some(true)
    }

    /// `ops.cpu_acquire`: it has given it back.
    pub fn cpu_acquire(&mut self, cpu: u32) {
        op!(self, cpu, cpu_acquire(cpu as i32, ptr::null_mut()));
    }

    /// `ops.cpu_online` or `ops.cpu_offline`.
    pub fn hotplug(&mut self, cpu: u32, online: bool) {
        if online {
            op!(self, cpu, cpu_online(cpu as i32));
        } else {
            op!(self, cpu, cpu_offline(cpu as i32));
        }
    }

    /// `ops.exit_task`: the task is gone.
    pub fn exit_task(&mut self, cpu: u32, id: TaskId) {
        let p = self.tasks[id.index()].as_ptr();
        let mut args = abi::scx_exit_task_args { cancelled: false };
        let args = &raw mut args;
        op!(self, cpu, exit_task(p, args));
        self.task(id).free_storage();
    }

    fn mask_at(&self, mask: *const cpumask) -> Bits<'static> {
        // SAFETY: callbacks pass masks of this machine only, which live longer than the call that passes them.
        unsafe { Bits::at(mask, self.cpus.len()) }
    }

    fn here(&self) -> u32 {
        // SAFETY: data of the open object.
        unsafe { (*self.object.world()).cpu as u32 }
    }
}

/// The machine that a callback is running on.
fn kernel<'a>(machine: *mut c_void) -> &'a mut Kernel {
    // SAFETY: set by Kernel::enter() from the one reference, which is at rest until the callback returns.
    unsafe { &mut *machine.cast() }
}

/// The index of a task that a callback names.
fn id_of(p: *mut task_struct) -> TaskId {
    // SAFETY: callbacks have pointers to tasks from the machine only.
    TaskId(unsafe { (*p).index })
}

extern "C" fn dsq_insert(
    machine: *mut c_void,
    p: *mut task_struct,
    dsq: u64,
    slice: u64,
    vtime: u64,
    enq_flags: u64,
    by_vtime: bool,
) {
    let insertion = Insertion { dsq, enq_flags, by_vtime };
    kernel(machine).dsq_insert(id_of(p), slice, vtime, insertion);
}

extern "C" fn dsq_nr_queued(machine: *mut c_void, dsq: u64) -> i32 {
    let kernel = kernel(machine);
    kernel.dsq_nr_queued(dsq, kernel.here())
}

extern "C" fn dsq_move_to_local(machine: *mut c_void, dsq: u64) -> bool {
    kernel(machine).dsq_move_to_local(dsq)
}

extern "C" fn create_dsq(machine: *mut c_void, dsq: u64) -> i32 {
    kernel(machine).create_dsq(dsq)
}

extern "C" fn iter_new(machine: *mut c_void, it: *mut abi::bpf_iter_scx_dsq) -> i32 {
    let kernel = kernel(machine);
    // SAFETY: on the callback's stack.
    let it = unsafe { &mut *it };
    let queue = kernel.resolve(it.dsq, kernel.here());
    let Some(dsq) = kernel.queue(queue) else { return -(abi::ENOENT as i32) };
    it.seq = dsq.seq();
    it.open = true;
    0
}

extern "C" fn iter_next(machine: *mut c_void, it: *mut abi::bpf_iter_scx_dsq) -> *mut task_struct {
    let kernel = kernel(machine);
    let here = kernel.here();
    // SAFETY: on the callback's stack.
    let next = kernel.iter_next(unsafe { &mut *it }, here);
    next.map_or(ptr::null_mut(), |id| kernel.tasks[id.index()].as_ptr())
}

extern "C" fn dsq_move(
    machine: *mut c_void,
    it: *mut abi::bpf_iter_scx_dsq,
    p: *mut task_struct,
    dsq: u64,
    enq_flags: u64,
    by_vtime: bool,
) -> bool {
    let kernel = kernel(machine);
    let here = kernel.here();
    // SAFETY: on the callback's stack.
    let it = unsafe { &*it };
    kernel.dsq_move(it, id_of(p), Insertion { dsq, enq_flags, by_vtime }, here)
}

extern "C" fn pick_idle_cpu(machine: *mut c_void, allowed: *const cpumask, flags: u64) -> i32 {
    let kernel = kernel(machine);
    let (allowed, here) = (kernel.mask_at(allowed), kernel.here());
    let whole_core = flags & u64::from(abi::SCX_PICK_IDLE_CORE) != 0;
    kernel.idle.pick(allowed, whole_core, here).map_or(-(abi::EBUSY as i32), |cpu| cpu as i32)
}

extern "C" fn test_and_clear_cpu_idle(machine: *mut c_void, cpu: i32) -> bool {
    let kernel = kernel(machine);
    if cpu < 0 || cpu as usize >= kernel.cpus.len() {
        kernel.eject(format!("invalid CPU {cpu} in scx_bpf_test_and_clear_cpu_idle()"));
        return false;
    }
    kernel.idle.test_and_clear(cpu as u32)
}

extern "C" fn any_distribute(machine: *mut c_void, a: *const cpumask, b: *const cpumask) -> i32 {
    let kernel = kernel(machine);
    let (a, b, here) = (kernel.mask_at(a), kernel.mask_at(b), kernel.here());
    let none = kernel.cpus.len() as u32;
    kernel.idle.any_distribute(a, b, here).unwrap_or(none) as i32
}

extern "C" fn kick_cpu(machine: *mut c_void, cpu: i32, flags: u64) {
    kernel(machine).kick_cpu(cpu, flags);
}

extern "C" fn reenqueue_local(machine: *mut c_void) {
    let kernel = kernel(machine);
    match &mut kernel.releases {
        Some(asked) => *asked = true,
        None => kernel.eject("scx_bpf_reenqueue_local() outside of ops.cpu_release()".into()),
    }
}

extern "C" fn cpumask_create(machine: *mut c_void) -> *mut abi::bpf_cpumask {
    let kernel = kernel(machine);
    let mask = Mask::new(kernel.cpus.len());
    let at = mask.as_ptr();
    kernel.masks.insert(at.addr(), mask);
    at.cast()
}

extern "C" fn cpumask_release(machine: *mut c_void, mask: *mut abi::bpf_cpumask) {
    let kernel = kernel(machine);
    if kernel.masks.remove(&mask.addr()).is_none() {
        kernel.eject("a mask is released that is not there".into());
    }
}

extern "C" fn storage_create(machine: *mut c_void, p: *mut task_struct, bytes: u64) -> *mut c_void {
    kernel(machine).task(id_of(p)).create_storage(bytes as usize).cast()
}

extern "C" fn ringbuf_reserve(machine: *mut c_void, bytes: u64) -> *mut c_void {
    kernel(machine).ring.reserve(bytes).map_or(ptr::null_mut(), <*mut u64>::cast)
}

extern "C" fn ringbuf_submit(machine: *mut c_void, _record: *mut c_void) {
    kernel(machine).ring.submit();
}

extern "C" fn ringbuf_query(machine: *mut c_void, flags: u64) -> u64 {
    let ring = &kernel(machine).ring;
    if flags == u64::from(abi::BPF_RB_RING_SIZE) { ring.size() } else { ring.used() }
}

extern "C" fn timer_start(machine: *mut c_void, timer: *mut abi::bpf_timer, delay_ns: u64) -> i32 {
    let kernel = kernel(machine);
    let number = kernel.timers.iter().position(|known| *known == timer).unwrap_or_else(|| {
        kernel.timers.push(timer);
        kernel.timers.len() - 1
    });
    kernel.started_timers.push((number as u32, kernel.here(), delay_ns));
    0
}

extern "C" fn task_from_pid(machine: *mut c_void, pid: i32) -> *mut task_struct {
    let kernel = kernel(machine);
    kernel.task_from_pid(pid).map_or(ptr::null_mut(), |id| kernel.tasks[id.index()].as_ptr())
}

extern "C" fn refuse(machine: *mut c_void, name: *const c_char) {
    // SAFETY: a constant string of the object.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    kernel(machine).eject(format!("{name}() is not simulated"));
}

//! The virtual kernel: tasks, queues and idle CPUs, and what the kernel's half asks of them. It knows no time to come:
//! what a call sets off on other CPUs is left in `rescheds` and `kicks`, for the engine.
//!
//! Source: `kernel/sched/ext.c` and `ext_idle.c`; functions here are named after those there.

use super::{
    abi,
    dsq::{Dsq, Spot},
    idle::Idle,
    mask::Mask,
    object::Object,
    ring::Ring,
    task::{Birth, Insertion, Place, QueueId, Task, TaskId},
};
use crate::{
    machine::topology::Topology,
    units::{CpuId, Pid},
};
use std::collections::BTreeMap;

/// Queue ids of the scheduler go by pages of this many, so that finding one is an index.
const PAGE_BITS: u32 = 16;

/// The number of the first task; the next ones have the next numbers. The one before is that of a policy in user space.
pub const PID_FIRST: i32 = 2;

/// From here on queues are of one CPU each, for what a policy in user space decided to run there: `relay.h`.
const DECIDED_DSQ_BASE: u64 = 1 << 18;

/// What the virtual kernel keeps of a CPU.
#[derive(Debug, Default)]
pub struct Rq {
    /// The running task.
    pub curr: Option<TaskId>,
    /// It is looking for what to run next.
    pub in_balance: bool,
    /// Tasks that it runs next.
    pub local: Dsq,
    /// Dense index of its node.
    pub node: u32,
    /// The scheduler has it: `SCX_RQ_ONLINE` and `cpu_active()`.
    pub online: bool,
    /// A higher class took it from a task, and `ops.cpu_acquire` has not been called since.
    pub released: bool,
}

/// What `dispatch` has under way.
#[derive(Debug)]
pub struct Dispatch {
    /// For which CPU.
    pub cpu: u32,
    /// Insertions that were asked for.
    pub buffer: Vec<(TaskId, Insertion)>,
    /// Tasks that it moved or inserted.
    pub nr_tasks: u32,
}

/// The virtual kernel of a machine.
pub struct Kernel {
    pub(super) object: Object,
    /// All tasks, by [`TaskId`].
    pub tasks: Vec<Task>,
    /// All CPUs.
    pub cpus: Vec<Rq>,
    /// Which are idle.
    pub idle: Idle,
    /// CPUs that are there: `cpu_online_mask`.
    pub(super) online: Mask,
    /// CPUs that tasks may be placed on: `cpu_active_mask`.
    pub(super) active: Mask,
    globals: Vec<Dsq>,
    pages: BTreeMap<u64, Vec<Option<Dsq>>>,
    pub(super) masks: BTreeMap<usize, Mask>,
    pub(super) dispatch: Option<Dispatch>,
    /// The task that select_cpu or enqueue is asked about.
    pub(super) asked_about: Option<TaskId>,
    /// Within `cpu_release`: whether scx_bpf_reenqueue_local() was called.
    pub(super) releases: Option<bool>,
    /// Stands for what an idle CPU runs.
    pub(super) swapper: Task,
    /// The process of the policy in user space. It has no CPU: see `relay.rs`.
    pub(super) process: Task,
    /// Its ring of events.
    pub(super) ring: Ring,
    /// BPF timers that were started: the number of each, on which CPU, after how many nanoseconds it is due.
    pub started_timers: Vec<(u32, u32, u64)>,
    /// All BPF timers by number: where each is in the memory of the kernel's half.
    pub(super) timers: Vec<*mut abi::bpf_timer>,
    /// CPUs that have to choose anew.
    pub rescheds: Vec<u32>,
    /// Kicks: whom, and `SCX_KICK_*`.
    pub kicks: Vec<(u32, u64)>,
    /// A task that was put into the local queue of a CPU that is not online, of which the scheduler knows.
    pub to_offline: Option<(TaskId, u32)>,
    /// Until then CPUs may be idle beside tasks that were sent away from CPUs on their way out.
    pub displaced_until: u64,
    /// When a kick last reached a CPU that a higher class took on the way, or that is about to leave: the scheduler
    /// could not know, and whoever waited then waits for another occasion.
    pub missed_at: Option<u64>,
    /// Why the kernel ejects the scheduler.
    pub fault: Option<String>,
    /// Callbacks so far.
    pub calls: u64,
}

impl Kernel {
    /// A kernel without tasks, all CPUs of the topology online and busy with nothing.
    pub fn new(object: Object, topology: &Topology) -> Self {
        let nr_cpus = topology.places.len();
        let ring_bytes = object.ring_bytes();
        let everywhere = || Mask::of(nr_cpus, (0..nr_cpus as u32).map(CpuId));
        let nobody = |pid| {
            let birth = Birth { pid: Pid(pid), nice: 0, policy: 0, name: "" };
            Task::new(TaskId(u32::MAX), birth, everywhere().into())
        };
        let node = |place: &crate::machine::topology::Place| place.node;
        let mut kernel = Self {
            object,
            tasks: Vec::new(),
            cpus: topology
                .places
                .iter()
                .map(|place| Rq { node: node(place), online: true, ..Rq::default() })
                .collect(),
            idle: Idle::new(topology),
            online: everywhere(),
            active: everywhere(),
            globals: (0..topology.nr_nodes).map(|_| Dsq::default()).collect(),
            pages: BTreeMap::new(),
            masks: BTreeMap::new(),
            dispatch: None,
            asked_about: None,
            releases: None,
            swapper: nobody(0),
            process: nobody(PID_FIRST - 1),
            ring: Ring::new(ring_bytes),
            started_timers: Vec::new(),
            timers: Vec::new(),
            rescheds: Vec::new(),
            kicks: Vec::new(),
            to_offline: None,
            displaced_until: 0,
            missed_at: None,
            fault: None,
            calls: 0,
        };
        kernel.set_up_world();
        kernel
    }

    /// The kernel ejects the scheduler; the first reason counts.
    pub fn eject(&mut self, reason: String) {
        self.fault.get_or_insert(reason);
    }

    /// A task of the table.
    pub fn task(&mut self, id: TaskId) -> &mut Task {
        &mut self.tasks[id.index()]
    }

    /// The queue, if it exists.
    pub fn queue(&mut self, id: QueueId) -> Option<&mut Dsq> {
        match id {
            QueueId::Local(cpu) => self.cpus.get_mut(cpu as usize).map(|rq| &mut rq.local),
            QueueId::Global(node) => self.globals.get_mut(node as usize),
            QueueId::Custom(id) => {
                let page = self.pages.get_mut(&(id >> PAGE_BITS))?;
                page.get_mut((id & ((1 << PAGE_BITS) - 1)) as usize)?.as_mut()
            }
        }
    }

    /// Makes a queue. A Linux error if it exists, or the id is not one for schedulers.
    pub fn create_dsq(&mut self, id: u64) -> i32 {
        if id & abi::SCX_DSQ_FLAG_BUILTIN != 0 {
            return -(abi::EINVAL as i32);
        }
        let page = self.pages.entry(id >> PAGE_BITS).or_default();
        let index = (id & ((1 << PAGE_BITS) - 1)) as usize;
        if page.len() <= index {
            page.resize_with(index + 1, || None);
        }
        if page[index].is_some() {
            return -(abi::EEXIST as i32);
        }
        page[index] = Some(Dsq::default());
        0
    }

    /// The queue that an id means to a task, or to the CPU `here`.
    pub fn resolve(&self, id: u64, here: u32) -> QueueId {
        if id & abi::SCX_DSQ_LOCAL_ON == abi::SCX_DSQ_LOCAL_ON {
            QueueId::Local((id & abi::SCX_DSQ_LOCAL_CPU_MASK) as u32)
        } else if id == abi::SCX_DSQ_LOCAL {
            QueueId::Local(here)
        } else if id == abi::SCX_DSQ_GLOBAL {
            QueueId::Global(self.cpus.get(here as usize).map_or(0, |rq| rq.node))
        } else {
            QueueId::Custom(id)
        }
    }

    /// All queues that have tasks, in a fixed order.
    pub fn queues(&self) -> impl Iterator<Item = &Dsq> {
        let local = self.cpus.iter().map(|rq| &rq.local);
        let custom = self.pages.values().flatten().flatten();
        local.chain(&self.globals).chain(custom).filter(|dsq| !dsq.is_empty())
    }

    /// `dispatch_enqueue()`: puts a task into a queue. The task is in none.
    pub fn dispatch_enqueue(&mut self, id: TaskId, queue: QueueId, flags: u64, by_vtime: bool) {
        if by_vtime && !matches!(queue, QueueId::Custom(_)) {
            return self.eject("cannot use vtime ordering for built-in DSQs".into());
        }
        let vtime = self.tasks[id.index()].vtime();
        let in_front = flags & (abi::SCX_ENQ_HEAD | abi::SCX_ENQ_PREEMPT) != 0;
        let Some(dsq) = self.queue(queue) else {
            return self.eject(format!("{queue:?}: there is no such DSQ"));
        };
        let put = if by_vtime { dsq.push_vtime(id, vtime) } else { dsq.push(id, in_front) };
        let seq = dsq.seq();
        let Ok(spot) = put else {
            return self.eject(format!("{queue:?} already had tasks in another order"));
        };
        let task = self.task(id);
        task.set_queue(Some((queue, spot)));
        task.dsq_seq = seq;
        if let QueueId::Local(cpu) = queue {
            self.task(id).set_cpu(cpu as i32);
            self.local_dsq_post_enq(cpu, flags);
        }
    }

    fn local_dsq_post_enq(&mut self, cpu: u32, flags: u64) {
        match self.cpus[cpu as usize].curr {
            Some(curr) if flags & abi::SCX_ENQ_PREEMPT != 0 => {
                self.task(curr).set_slice(0);
                self.rescheds.push(cpu);
            }
            Some(_) => {}
            None => self.rescheds.push(cpu),
        }
    }

    /// Takes a task out of the queue that it is in, if it is in one.
    pub fn dispatch_dequeue(&mut self, id: TaskId) {
        if let Place::Queued(queue, spot) = self.tasks[id.index()].place {
            if let Some(dsq) = self.queue(queue) {
                dsq.remove(spot);
            }
            self.task(id).set_queue(None);
        }
    }

    /// `direct_dispatch()` and `finish_dispatch()`: an insertion that was asked for takes place.
    pub fn insert(&mut self, id: TaskId, insertion: Insertion, flags: u64, here: u32) {
        let Insertion { dsq, enq_flags, by_vtime } = insertion;
        let queue = self.resolve(dsq, here);
        let pid = self.tasks[id.index()].pid();
        match queue {
            QueueId::Local(cpu) if cpu as usize >= self.cpus.len() => {
                return self.eject(format!("invalid CPU {cpu} in SCX_DSQ_LOCAL_ON for task {pid}"));
            }
            QueueId::Local(cpu)
                if !self.is_home(id, cpu) && !self.tasks[id.index()].may_run(cpu) =>
            {
                return self.eject(format!(
                    "SCX_DSQ_LOCAL[_ON] target CPU {cpu} not allowed for task {pid}"
                ));
            }
            QueueId::Local(cpu) if !self.is_home(id, cpu) && !self.cpus[cpu as usize].online => {
                self.to_offline.get_or_insert((id, cpu));
                let node = self.cpus[self.tasks[id.index()].cpu() as usize].node;
                return self.dispatch_enqueue(id, QueueId::Global(node), enq_flags | flags, false);
            }
            _ => {}
        }
        self.dispatch_enqueue(id, queue, enq_flags | flags, by_vtime);
    }

    /// `scx_bpf_dsq_insert[_vtime]()`.
    pub fn dsq_insert(&mut self, id: TaskId, slice: u64, vtime: u64, insertion: Insertion) {
        let task = self.task(id);
        let slice = if slice > 0 { slice } else { task.slice().max(1) };
        task.set_slice(slice);
        if insertion.by_vtime {
            task.set_vtime(vtime);
        }
        let pid = task.pid();
        match (self.asked_about, &mut self.dispatch) {
            (Some(asked), _) if asked == id => {
                if self.task(id).direct.replace(insertion).is_some() {
                    self.eject(format!("task {pid} already direct-dispatched"));
                }
            }
            (None, Some(dispatch)) => {
                dispatch.nr_tasks += 1;
                dispatch.buffer.push((id, insertion));
            }
            _ => self.eject(format!("task {pid} inserted from where it may not be")),
        }
    }

    /// `flush_dispatch_buf()`.
    pub fn flush_dispatch_buf(&mut self) {
        let Some(dispatch) = &mut self.dispatch else { return };
        let cpu = dispatch.cpu;
        for (id, insertion) in std::mem::take(&mut dispatch.buffer) {
            if self.tasks[id.index()].place == Place::Held {
                self.insert(id, insertion, 0, cpu);
            }
        }
    }

    /// `scx_bpf_dsq_move_to_local()`.
    pub fn dsq_move_to_local(&mut self, dsq: u64) -> bool {
        self.flush_dispatch_buf();
        let Some(cpu) = self.dispatch.as_ref().map(|dispatch| dispatch.cpu) else {
            self.eject("scx_bpf_dsq_move_to_local() outside of ops.dispatch()".into());
            return false;
        };
        let queue = QueueId::Custom(dsq);
        if self.queue(queue).is_none() {
            self.eject(format!("invalid DSQ ID {dsq:#x}"));
            return false;
        }
        let moved = self.consume_dispatch_q(queue, cpu);
        if let Some(dispatch) = &mut self.dispatch {
            dispatch.nr_tasks += u32::from(moved);
        }
        moved
    }

    /// `consume_dispatch_q()`: the first task of a queue that may run on a CPU goes to its local queue.
    pub fn consume_dispatch_q(&mut self, queue: QueueId, cpu: u32) -> bool {
        let mut at: Option<Spot> = None;
        while let Some((spot, id)) = self.queue(queue).and_then(|dsq| dsq.next(at, false)) {
            let rq = &self.cpus[cpu as usize];
            if self.is_home(id, cpu) || rq.online && self.tasks[id.index()].may_run(cpu) {
                self.dispatch_dequeue(id);
                self.dispatch_enqueue(id, QueueId::Local(cpu), 0, false);
                return true;
            }
            at = Some(spot);
        }
        false
    }

    /// Whether the task is on the runqueue of that CPU: it can get there without a question.
    fn is_home(&self, id: TaskId, cpu: u32) -> bool {
        self.tasks[id.index()].cpu() == cpu as i32
    }

    /// `is_cpu_allowed()`: may the task be woken there?
    pub fn is_cpu_allowed(&self, id: TaskId, cpu: u32) -> bool {
        let task = &self.tasks[id.index()];
        let there = if task.migration_disabled() > 0 { &self.online } else { &self.active };
        task.may_run(cpu) && there.bits().has(cpu)
    }

    /// `consume_global_dsq()`.
    pub fn consume_global_dsq(&mut self, cpu: u32) -> bool {
        self.consume_dispatch_q(QueueId::Global(self.cpus[cpu as usize].node), cpu)
    }

    /// `scx_bpf_dsq_nr_queued()`.
    pub fn dsq_nr_queued(&mut self, dsq: u64, here: u32) -> i32 {
        let queue = self.resolve(dsq, here);
        self.queue(queue).map_or(-(abi::ENOENT as i32), |dsq| dsq.len() as i32)
    }

    /// `scx_bpf_dsq_move[_vtime]()`: false if the task is not where the iterator looks any more.
    pub fn dsq_move(
        &mut self,
        it: &abi::bpf_iter_scx_dsq,
        id: TaskId,
        insertion: Insertion,
        here: u32,
    ) -> bool {
        let Place::Queued(from, _) = self.tasks[id.index()].place else { return false };
        let came_later = (it.seq.wrapping_sub(self.tasks[id.index()].dsq_seq) as i32) < 0;
        if !it.open || from != self.resolve(it.dsq, here) || came_later {
            return false;
        }
        self.dispatch_dequeue(id);
        if Self::decided_for(from).is_some() {
            // From here on other CPUs may take it.
            let now = self.uptime();
            self.task(id).movable_at = now;
        }
        if it.has_slice {
            self.task(id).set_slice(it.slice);
        }
        if it.has_vtime {
            self.task(id).set_vtime(it.vtime);
        }
        let home = self.tasks[id.index()].cpu() as u32;
        self.insert(id, insertion, 0, home);
        true
    }

    /// The CPU that a policy in user space chose for the tasks of a queue, where no other one serves it: `relay.h`.
    pub fn decided_for(queue: QueueId) -> Option<u32> {
        let QueueId::Custom(dsq) = queue else { return None };
        dsq.checked_sub(DECIDED_DSQ_BASE).map(|cpu| cpu as u32)
    }

    /// `bpf_iter_scx_dsq_next()`.
    pub fn iter_next(&mut self, it: &mut abi::bpf_iter_scx_dsq, here: u32) -> Option<TaskId> {
        if !it.open {
            return None;
        }
        let queue = self.resolve(it.dsq, here);
        loop {
            let at = it.started.then_some(Spot { order: it.order, turn: it.turn });
            let (spot, id) = self.queue(queue)?.next(at, it.rev)?;
            (it.started, it.order, it.turn) = (true, spot.order, spot.turn);
            if (it.seq.wrapping_sub(self.tasks[id.index()].dsq_seq) as i32) >= 0 {
                return Some(id);
            }
        }
    }

    /// How many tasks run on a core that they share, while one that they may use is idle as a whole.
    pub fn nr_sharing(&self) -> u64 {
        let idle = self.idle.cores.bits();
        if idle.next_and(idle, 0).is_none() {
            return 0;
        }
        let runs = |cpu: u32| self.cpus[cpu as usize].curr;
        let shares = |&cpu: &u32| {
            let others = self.idle.siblings(cpu).iter().filter(|&&other| other != cpu);
            let is_shared = others.into_iter().any(|&other| runs(other).is_some());
            let may_move = |id: TaskId| {
                let task = &self.tasks[id.index()];
                task.migration_disabled() == 0 && idle.next_and(task.bits(), 0).is_some()
            };
            is_shared && runs(cpu).is_some_and(may_move)
        };
        (0..self.cpus.len() as u32).filter(shares).count() as u64
    }

    /// `bpf_task_from_pid()`.
    pub fn task_from_pid(&self, pid: i32) -> Option<TaskId> {
        let id = TaskId(u32::try_from(pid.checked_sub(PID_FIRST)?).ok()?);
        self.tasks.get(id.index()).filter(|task| task.is_known()).map(|_| id)
    }

    /// `scx_bpf_kick_cpu()`.
    pub fn kick_cpu(&mut self, cpu: i32, flags: u64) {
        let Some(rq) = usize::try_from(cpu).ok().and_then(|cpu| self.cpus.get(cpu)) else {
            return self.eject(format!("invalid CPU {cpu} from ops.kick_cpu()"));
        };
        if flags & abi::SCX_KICK_IDLE != 0 && rq.curr.is_some() && !rq.in_balance {
            return;
        }
        self.kicks.push((cpu as u32, flags));
    }
}

//! A machine made of memory: for unit tests of policies.
//!
//! ```
//! use scheduler::policy::{Fifo, fake::Fake};
//! let mut fake = Fake::with_cpus(2);
//! let mut policy = Fifo::default();
//! fake.enqueue(&mut policy, &fake.task(7));
//! fake.enqueue(&mut policy, &fake.task(3));
//! assert_eq!(fake.order(), [7, 3]);
//! ```

use super::{Comm, Context, Cpu, CpuSet, Desk, Load, Machine, Order, Policy, Task, Verdict};
use crate::units::{CpuId, Nanos, Pid, Vtime, Weight};
use std::collections::BTreeMap;

/// A machine that keeps what it is told. Tasks do not run: a test says when.
#[derive(Debug, Default)]
pub struct Fake {
    board: Board,
    desk: Desk,
}

#[derive(Debug, Default)]
struct Board {
    now: Nanos,
    cpus: Vec<Cpu>,
    /// What waits for a decision.
    offered: BTreeMap<Pid, Task>,
    /// What is decided and waits to run.
    decided: Vec<Order>,
    verdicts: Vec<Verdict>,
    figures: BTreeMap<String, f64>,
}

impl Fake {
    /// One with so many CPUs, each a core of its own, all busy and of one cache.
    pub fn with_cpus(nr_cpus: u32) -> Self {
        let cpu = |id| Cpu { id, core: id, llc: 0, node: 0, online: true, idle: false };
        let cpus = (0..nr_cpus).map(CpuId).map(cpu).collect();
        Self { board: Board { cpus, ..Board::default() }, desk: Desk::new(Nanos::from_millis(3)) }
    }

    /// A task of nice 0 that may run anywhere and never did. A test changes what matters to it.
    pub fn task(&self, pid: i32) -> Task {
        Task {
            pid: Pid(pid),
            tgid: Pid(pid),
            comm: Comm::new(format!("task {pid}")),
            cpu: None,
            cpus: self.board.cpus.iter().map(|cpu| cpu.id).collect(),
            weight: Weight::NICE_0,
            nice: 0,
            policy: 0,
            cgroup: 1,
            enq_flags: 0,
            enqueued_at: self.board.now,
            started_at: Nanos(0),
            stopped_at: Nanos(0),
            run_since_sleep: Nanos(0),
            voluntary_switches: 0,
            involuntary_switches: 0,
            vruntime: Vtime(0),
            offer: 1,
        }
    }

    /// Lets the policy see a runnable task, and carries out what it decides.
    ///
    /// # Panics
    /// Never: a fake can always be reached.
    pub fn enqueue(&mut self, policy: &mut dyn Policy, task: &Task) {
        self.board.offered.insert(task.pid, task.clone());
        self.call(|cx| policy.enqueue(task, cx));
    }

    /// Tells the policy that a CPU has nothing to run.
    pub fn dispatch(&mut self, policy: &mut dyn Policy, cpu: CpuId) {
        self.call(|cx| policy.dispatch(cpu, cx));
    }

    /// Tells the policy that a task is gone.
    pub fn exit(&mut self, policy: &mut dyn Policy, pid: i32) {
        self.board.offered.remove(&Pid(pid));
        self.board.decided.retain(|order| order.pid != Some(Pid(pid)));
        self.desk.forget(Pid(pid));
        self.call(|cx| policy.exited(Pid(pid), cx));
    }

    /// Lets time pass, and a tick.
    pub fn tick(&mut self, policy: &mut dyn Policy, span: Nanos) {
        self.board.now.0 += span.0;
        self.desk.expire(self.board.now);
        self.call(|cx| policy.tick(cx));
    }

    /// Calls anything with a context, and carries out what it decides.
    pub fn call(&mut self, f: impl FnOnce(&mut Context<'_>)) {
        f(&mut self.desk.context(&mut self.board));
        // A fake can always be reached.
        let _ = self.desk.hand_over(&mut self.board);
    }

    /// Makes a CPU idle or busy.
    pub fn set_idle(&mut self, cpu: CpuId, idle: bool) {
        if let Some(cpu) = self.board.cpus.get_mut(cpu.index()) {
            cpu.idle = idle;
        }
    }

    /// The pids of what is decided and waits, in the order in which one CPU that all of them may use would run them.
    pub fn order(&self) -> Vec<i32> {
        let mut orders: Vec<&Order> = self.board.decided.iter().collect();
        // Stable: among equals the first decided.
        orders.sort_by(|a, b| {
            let (a, b) = (a.decision.vtime, b.decision.vtime);
            b.is_before(a).cmp(&a.is_before(b))
        });
        orders.iter().filter_map(|order| Some(order.pid?.0)).collect()
    }

    /// What is decided and waits, in the order of the decisions.
    pub fn decided(&self) -> &[Order] {
        &self.board.decided
    }

    /// What became of each order, from the first on.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.board.verdicts
    }

    /// The pids of the tasks that wait for a decision, ascending.
    pub fn undecided(&self) -> Vec<i32> {
        self.board.offered.keys().map(|pid| pid.0).collect()
    }

    /// The figures that the policy shows.
    pub fn figures(&self) -> &BTreeMap<String, f64> {
        &self.board.figures
    }

    /// All that is decided runs, and no longer waits.
    pub fn run_all(&mut self) {
        self.board.decided.clear();
    }
}

impl Machine for Board {
    fn now(&self) -> Nanos {
        self.now
    }

    fn cpus(&self) -> Vec<Cpu> {
        self.cpus.clone()
    }

    fn pick_idle_cpu(&mut self, pid: Pid) -> Option<CpuId> {
        let allowed = self.offered.get(&pid).map_or_else(CpuSet::default, |t| t.cpus.clone());
        let cpu = self.cpus.iter_mut().find(|cpu| cpu.idle && allowed.contains(cpu.id))?;
        cpu.idle = false;
        Some(cpu.id)
    }

    fn apply(&mut self, orders: &[Order]) -> anyhow::Result<(Vec<Verdict>, Load)> {
        let verdicts: Vec<Verdict> = orders.iter().map(|order| self.judge(order)).collect();
        self.verdicts.extend(&verdicts);
        let (queued, decided) = (self.offered.len() as u64, self.decided.len() as u64);
        Ok((verdicts, Load { queued, decided, late: false }))
    }

    fn show(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    fn shown(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }
}

impl Board {
    fn judge(&mut self, order: &Order) -> Verdict {
        let there = |cpu: CpuId| self.cpus.get(cpu.index()).is_some_and(|cpu| cpu.online);
        let Some(pid) = order.pid else {
            return if order.decision.cpu.is_some_and(there) {
                Verdict::Applied
            } else {
                Verdict::Malformed
            };
        };
        let Some(task) = self.offered.get(&pid).filter(|task| task.offer == order.offer) else {
            return Verdict::Stale;
        };
        if order.decision.cpu.is_some_and(|cpu| !there(cpu) || !task.cpus.contains(cpu)) {
            return Verdict::Malformed;
        }
        self.offered.remove(&pid);
        self.decided.push(*order);
        Verdict::Applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Decision;

    /// Decides by whatever a test puts into it.
    struct By<F>(F);

    impl<F: FnMut(&Task, &mut Context<'_>) + Send> Policy for By<F> {
        fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
            (self.0)(task, cx);
        }
    }

    #[test]
    fn decisions_that_cannot_be_are_told_apart() {
        let mut fake = Fake::with_cpus(2);
        let mut policy = By(|task: &Task, cx: &mut Context<'_>| {
            cx.decide(task, Decision::on(CpuId(9)));
            cx.decide(task, Decision::on(CpuId(1)));
            cx.decide(task, Decision::any_cpu());
        });
        fake.enqueue(&mut policy, &fake.task(1));
        assert_eq!(fake.verdicts(), [Verdict::Malformed, Verdict::Applied, Verdict::Stale]);
        assert!(fake.undecided().is_empty());
    }

    #[test]
    fn priorities_are_bounded_and_end() {
        let mut fake = Fake::with_cpus(1);
        fake.call(|cx| {
            cx.set_priority(Pid(1), 99, None);
            cx.set_priority(Pid(2), 5, Some(Nanos::from_millis(10)));
            assert_eq!([1, 2, 3].map(|pid| cx.priority(Pid(pid))), [PRIORITY, 5, 0]);
        });
        let mut nothing = By(|_: &Task, _: &mut Context<'_>| ());
        fake.tick(&mut nothing, Nanos::from_millis(10));
        fake.call(|cx| assert_eq!([1, 2].map(|pid| cx.priority(Pid(pid))), [PRIORITY, 0]));
        fake.exit(&mut nothing, 1);
        fake.call(|cx| assert_eq!(cx.priority(Pid(1)), 0));
    }
    const PRIORITY: u8 = crate::policy::PRIORITY_MAX;

    #[test]
    fn an_idle_cpu_is_given_once() {
        let mut fake = Fake::with_cpus(2);
        fake.set_idle(CpuId(1), true);
        let mut found = Vec::new();
        let mut policy = By(|task: &Task, cx: &mut Context<'_>| found.push(cx.pick_idle_cpu(task)));
        fake.enqueue(&mut policy, &fake.task(1));
        fake.enqueue(&mut policy, &fake.task(2));
        assert_eq!(found, [Some(CpuId(1)), None]);
    }

    #[test]
    fn figures_add_up() {
        let mut fake = Fake::with_cpus(1);
        fake.call(|cx| cx.add("seen", 2.0));
        fake.call(|cx| cx.add("seen", 1.0));
        assert_eq!(fake.figures()["seen"], 3.0);
    }
}

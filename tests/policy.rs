//! The decision core (`src/bpf/policy.h`) as native code: properties that must hold for any input,
//! and small machines made of it alone that must be fair.
#![allow(missing_docs)]

use proptest::prelude::*;
use scheduler::bpf::{
    intf,
    policy::{
        base_slice, boost_adopted, boost_is_on, boost_renewed, burst_average, carry_lag, charge,
        class_policy, clock_advance, deadline, early_by, head_start, hist_slot, is_patient,
        place_requeue, place_uncontended, place_wakeup, preempts, request, reweigh, ruled_weight,
        task_hist_slot, task_slice, to_virtual, vtime_before as before, weight_of,
    },
};

const NICE0: u32 = 1024;
const MS: u64 = 1_000_000;
const SEC: u64 = 1000 * MS;

const NO_BOOST: intf::boost = intf::boost {
    budget_ns: 0,
    period_ns: 0,
    used_ns: 0,
    period_at: 0,
    expires_ns: 0,
    expires_at: 0,
};
const VIRTUAL_MAX: u64 = 1 << 60;

fn weights() -> impl Strategy<Value = u32> {
    prop_oneof![1u32..=10_000, Just(1), Just(3), Just(15), Just(NICE0), Just(88_761)]
}

/// Times from nothing to beyond what a machine can run: 2^63 ns is 292 years.
fn times() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..100 * MS, any::<u64>(), Just(1 << 63), Just(u64::MAX), Just(0)]
}

proptest! {
    #[test]
    fn charge_is_monotone(v in any::<u64>(), a in times(), b in times(), w in weights()) {
        let (less, more) = (a.min(b), a.max(b));
        prop_assert!(to_virtual(less, w) <= to_virtual(more, w));
        prop_assert!(!before(charge(v, more, w), charge(v, less, w)));
        prop_assert!(!before(charge(v, less, w), v), "running never earns virtual time");
    }

    #[test]
    fn charge_is_by_weight(ran in 0u64..1 << 40, w in weights()) {
        let exact = u128::from(ran) * u128::from(NICE0) / u128::from(w);
        prop_assert_eq!(u128::from(to_virtual(ran, w)), exact.min(u128::from(VIRTUAL_MAX)));
    }

    #[test]
    fn heavier_is_charged_less(ran in times(), a in weights(), b in weights()) {
        let (light, heavy) = (a.min(b), a.max(b));
        prop_assert!(to_virtual(ran, heavy) <= to_virtual(ran, light));
    }

    #[test]
    fn nothing_overflows(ran in times(), w in any::<u32>()) {
        prop_assert!(to_virtual(ran, w) <= VIRTUAL_MAX);
    }

    #[test]
    fn early_service_costs_nobody_more_than_at_nice_0(
        early in 0u64..1000 * MS, own in weights(), running in weights(),
    ) {
        let by = early_by(early, own, running);
        prop_assert!(by <= early);
        // In service, as it is taken and as it is had, rounded up.
        for weight in [own, running] {
            prop_assert!(by * u64::from(weight) <= early * u64::from(NICE0), "of {}", weight);
        }
        prop_assert_eq!(early_by(early, NICE0, NICE0), early);
    }

    #[test]
    fn deadlines_follow_weight_and_request(
        v in any::<u64>(), r in 1_000u64..100 * MS, s in 1_000u64..100 * MS,
        a in 1u32..=10_000, b in 1u32..=10_000,
    ) {
        let (light, heavy) = (a.min(b), a.max(b));
        prop_assert!(!before(deadline(v, r, light), deadline(v, r, heavy)));
        let (short, long) = (r.min(s), r.max(s));
        prop_assert!(!before(deadline(v, long, a), deadline(v, short, a)));
        prop_assert!(before(v, deadline(v, r, a)), "a request always lies ahead");
    }

    #[test]
    fn sleepers_are_owed_a_bounded_lag(
        v in any::<u64>(), ahead in 0u64..1 << 58, lag in 0u64..1_000 * MS, w in weights(),
    ) {
        let clock = v.wrapping_add(ahead);
        let placed = place_wakeup(v, clock, lag, w);
        prop_assert!(clock.wrapping_sub(placed) <= to_virtual(lag, w));
        prop_assert!(!before(placed, v), "sleeping never moves a task forward");
    }

    #[test]
    fn waking_does_not_forgive_what_was_run_ahead(
        clock in any::<u64>(), ahead in 0u64..1 << 58, lag in 0u64..1_000 * MS, w in weights(),
    ) {
        let v = clock.wrapping_add(ahead);
        prop_assert_eq!(place_wakeup(v, clock, lag, w), v);
    }

    #[test]
    fn uncontended_lag_ends_between_nothing_and_the_maximum(
        v in any::<u64>(), clock in any::<u64>(), lag in 0u64..1_000 * MS, w in weights(),
    ) {
        // Only lags that vtime_before can tell apart: half the circle.
        prop_assume!((v.wrapping_sub(clock) as i64).unsigned_abs() < 1 << 61);
        let placed = place_uncontended(v, clock, lag, w);
        prop_assert!(clock.wrapping_sub(placed) <= to_virtual(lag, w));
    }

    #[test]
    fn requeued_lag_is_bounded(
        v in any::<u64>(), ahead in 0u64..1 << 58, lag in MS..200 * MS, w in weights(),
    ) {
        let clock = v.wrapping_add(ahead);
        let placed = place_requeue(v, clock, lag, w);
        prop_assert!(clock.wrapping_sub(placed) <= to_virtual(lag, w));
    }

    #[test]
    fn the_clock_keeps_to_the_pace_of_its_driver(
        now_vns in any::<u64>(), set_at in 0u64..1 << 60, passed in 0u64..1 << 40, v in any::<u64>(),
        w in weights(),
    ) {
        let old = intf::vclock { now_vns, set_at };
        let new = clock_advance(old, v, set_at + passed, w);
        let step = new.now_vns.wrapping_sub(now_vns);
        let fastest = passed.max(to_virtual(passed, w));
        prop_assert!(step <= fastest, "never faster than its driver can be served, never back");
        if before(now_vns, v) {
            prop_assert!(!before(v, new.now_vns), "never beyond the task that drives it");
        } else {
            prop_assert_eq!(step, 0);
        }
    }

    #[test]
    fn lag_is_carried_between_clocks(v in any::<u64>(), from in any::<u64>(), to in any::<u64>()) {
        let moved = carry_lag(v, from, to);
        prop_assert_eq!(to.wrapping_sub(moved), from.wrapping_sub(v));
    }

    #[test]
    fn a_new_weight_keeps_the_service_owed(
        clock in any::<u64>(), lag in -(1i64 << 39)..1 << 39, a in 15u32..=88_761, b in 15u32..=88_761,
    ) {
        let v = clock.wrapping_sub(lag as u64);
        let after = clock.wrapping_sub(reweigh(v, clock, a, b)) as i64;
        let owed = i128::from(lag) * i128::from(a) / i128::from(NICE0);
        let kept = i128::from(after) * i128::from(b) / i128::from(NICE0);
        prop_assert!((owed - kept).abs() <= 1 + i128::from(b) / i128::from(NICE0), "{owed} {kept}");
    }

    #[test]
    fn slices_stay_within_their_limits(
        max in MS..200 * MS, min in 100_000u64..MS, waiting in any::<u32>(), cpus in 0u32..8192,
        w in weights(),
    ) {
        let base = base_slice(max, min, waiting, cpus);
        prop_assert!((min..=max).contains(&base));
        let more = base_slice(max, min, waiting.saturating_add(100), cpus);
        prop_assert!(more <= base, "more waiting, shorter slices");
        let own = task_slice(base, min, w);
        prop_assert!((min..=max).contains(&own));
    }

    #[test]
    fn requests_are_bounded_and_not_gameable(
        burst in any::<u64>(), min in 1u64..MS, slice in MS..100 * MS, spent in any::<bool>(),
    ) {
        let r = request(burst, spent, min, slice);
        prop_assert!((min..=slice).contains(&r));
        prop_assert_eq!(request(burst, true, min, slice), slice, "whoever runs on asks for it all");
    }

    #[test]
    fn preemption_needs_the_granularity(d in any::<u64>(), ahead in 0u64..1 << 58, gran in 0u64..MS) {
        let yes = preempts(d, d.wrapping_add(ahead), gran);
        prop_assert_eq!(yes, ahead > gran);
    }

    #[test]
    fn histogram_slots_grow_with_time(a in any::<u64>(), b in any::<u64>()) {
        let (less, more) = (a.min(b), a.max(b));
        let (x, y) = (hist_slot(less), hist_slot(more));
        prop_assert!(x <= y && y < intf::hist_HIST_SLOTS);
        let (x, y) = (task_hist_slot(less), task_hist_slot(more));
        prop_assert!(x <= y && y < intf::hist_TASK_HIST_SLOTS);
    }
}

#[test]
fn weights_are_the_kernels() {
    assert_eq!(weight_of(-20, 0), 88_761);
    assert_eq!(weight_of(0, 0), 1024);
    assert_eq!(weight_of(5, 0), 335);
    assert_eq!(weight_of(19, 0), 15);
    assert_eq!(weight_of(0, 5), 3, "SCHED_IDLE");
    assert_eq!(weight_of(-100, 0), 88_761, "clamped");
    assert_eq!(weight_of(100, 0), 15, "clamped");
    for nice in -20..19 {
        assert!(weight_of(nice, 0) > weight_of(nice + 1, 0), "each step weighs less: {nice}");
    }
}

#[test]
fn histogram_slots_are_at_most_an_eighth_wide() {
    let mut last = (0, 0);
    for us in 1u64..2_000_000 {
        let slot = hist_slot(us << 10);
        assert!(slot == last.0 || slot == last.0 + 1, "no slot is skipped at {us}");
        if slot != last.0 {
            last = (slot, us);
        }
        assert!(us < 8 || us - last.1 <= last.1 / 8, "slot {slot} from {} to {us}", last.1);
    }
}

/// One CPU, nothing but the decision core: hogs by deadline, slices enforced at ticks of 4 ms.
struct Cpu {
    tasks: Vec<Task>,
    clock: intf::vclock,
    now: u64,
}

#[derive(Clone)]
struct Task {
    weight: u32,
    vruntime: u64,
    deadline: u64,
    spent: bool,
    ran: u64,
    /// Runs this long and then sleeps that long; a hog has none.
    rhythm: Option<(u64, u64)>,
    burst: u64,
    average: u64,
    sleeps_until: u64,
}

const TICK: u64 = 4 * MS;
const SLICE: u64 = 3 * MS;
const LAG: u64 = 3 * MS;
const LAG_RUNNABLE: u64 = 40 * MS;
const SLICE_MIN: u64 = MS;

impl Task {
    fn hog(weight: u32) -> Self {
        Self {
            weight,
            vruntime: 0,
            deadline: 0,
            spent: false,
            ran: 0,
            rhythm: None,
            burst: 0,
            average: SLICE,
            sleeps_until: 0,
        }
    }

    fn gamer(weight: u32, run: u64, sleep: u64) -> Self {
        Self { rhythm: Some((run, sleep)), ..Self::hog(weight) }
    }

    fn ask(&mut self, slice: u64) {
        let r = request(self.average, self.spent, 100_000, slice);
        self.deadline = deadline(self.vruntime, r, self.weight);
    }
}

impl Cpu {
    fn new(mut tasks: Vec<Task>) -> Self {
        for task in &mut tasks {
            task.ask(SLICE);
        }
        Self { tasks, clock: intf::vclock { now_vns: 0, set_at: 0 }, now: 0 }
    }

    fn slice(&self, task: &Task) -> u64 {
        let waiting = self.tasks.iter().filter(|t| t.sleeps_until <= self.now).count() as u32 - 1;
        task_slice(base_slice(SLICE, SLICE_MIN, waiting, 1), SLICE_MIN, task.weight)
    }

    /// One turn: the earliest deadline runs until the tick that ends its slice, until it sleeps, or
    /// until another wakes, who may preempt it.
    fn turn(&mut self) {
        let now = self.now;
        let next =
            (0..self.tasks.len()).filter(|&i| self.tasks[i].sleeps_until <= now).reduce(|a, b| {
                if before(self.tasks[b].deadline, self.tasks[a].deadline) { b } else { a }
            });
        let Some(i) = next else {
            self.now = self.tasks.iter().map(|t| t.sleeps_until).min().unwrap_or(now);
            self.wake(now);
            return;
        };
        self.clock = clock_advance(self.clock, self.tasks[i].vruntime, now, self.tasks[i].weight);
        let slice = self.slice(&self.tasks[i]);
        let task = &mut self.tasks[i];
        let mut run = slice.div_ceil(TICK) * TICK;
        if let Some((burst, _)) = task.rhythm {
            run = run.min(burst - task.burst);
        }
        let next_wakeup = self.tasks.iter().map(|t| t.sleeps_until).filter(|&t| t > now).min();
        let run = next_wakeup.map_or(run, |at| run.min(at - now));
        let task = &mut self.tasks[i];
        task.ran += run;
        task.burst += run;
        task.vruntime = charge(task.vruntime, run, task.weight);
        self.now += run;
        match task.rhythm {
            Some((burst, sleep)) if task.burst == burst => {
                task.average = burst_average(task.average, task.burst);
                task.burst = 0;
                task.spent = false;
                task.sleeps_until = self.now + sleep;
            }
            _ => {
                task.vruntime =
                    place_requeue(task.vruntime, self.clock.now_vns, LAG_RUNNABLE, task.weight);
                if !before(task.vruntime, task.deadline) {
                    task.spent = true;
                    task.ask(slice);
                }
            }
        }
        self.wake(now);
    }

    /// Places whoever woke since `then`.
    fn wake(&mut self, then: u64) {
        let clock = self.clock.now_vns;
        for i in 0..self.tasks.len() {
            let task = &self.tasks[i];
            if task.sleeps_until > then && task.sleeps_until <= self.now {
                let slice = self.slice(task);
                let task = &mut self.tasks[i];
                task.vruntime = place_wakeup(task.vruntime, clock, LAG, task.weight);
                task.ask(slice);
            }
        }
    }

    fn run(mut self, time: u64) -> Vec<f64> {
        while self.now < time {
            self.turn();
        }
        let total: u64 = self.tasks.iter().map(|t| t.ran).sum();
        self.tasks.iter().map(|t| t.ran as f64 / total as f64).collect()
    }
}

fn assert_by_weight(weights: &[u32], tolerance: f64) {
    let total: u32 = weights.iter().sum();
    let shares = Cpu::new(weights.iter().map(|&w| Task::hog(w)).collect()).run(20_000 * MS);
    for (weight, share) in weights.iter().zip(&shares) {
        let due = f64::from(*weight) / f64::from(total);
        assert!(
            (share / due - 1.0).abs() < tolerance,
            "{weights:?}: {share} of {due}, all {shares:?}"
        );
    }
}

#[test]
fn hogs_share_by_weight() {
    assert_by_weight(&[1024; 4], 0.01);
    assert_by_weight(&[1024, 335], 0.01);
    assert_by_weight(&[3121, 1024, 335], 0.02);
    assert_by_weight(&[1024, 1024, 1024, 15], 0.10);
    assert_by_weight(&[9548, 110], 0.05);
}

#[test]
fn sleeping_before_the_slice_ends_wins_nothing() {
    for (run, sleep) in [
        (3_900_000, 100_000),
        (7_900_000, 100_000),
        (19_900_000, 50_000),
        (90_000, 10_000),
        (900_000, 50_000),
        (50 * MS, 20 * MS),
        (20 * MS, 20 * MS),
    ] {
        let shares =
            Cpu::new(vec![Task::gamer(NICE0, run, sleep), Task::hog(NICE0)]).run(20_000 * MS);
        assert!(shares[0] <= 0.5 * 1.02, "{run} ns on, {sleep} ns off: share {}", shares[0]);
        // And what it sleeps is not held against it either: while it is awake it has half, and up to LAG of
        // each sleep is made up for.
        let awake_half = run as f64 / (2 * run + sleep.saturating_sub(LAG)) as f64;
        let wanted = (run as f64 / (run + sleep) as f64).min(awake_half);
        assert!(shares[0] >= wanted * 0.90, "{run} ns on, {sleep} ns off: only {}", shares[0]);
    }
}

#[test]
fn lag_stays_within_a_request_and_a_tick() {
    let mut cpu = Cpu::new(vec![Task::hog(NICE0), Task::hog(335), Task::hog(3121), Task::hog(15)]);
    let total: u32 = cpu.tasks.iter().map(|t| t.weight).sum();
    for _ in 0..100_000 {
        cpu.turn();
        for task in &cpu.tasks {
            let due = cpu.now as f64 * f64::from(task.weight) / f64::from(total);
            let lag = (due - task.ran as f64).abs();
            let bound = (SLICE + TICK) as f64;
            assert!(lag <= bound, "weight {}: {lag} ns after {} ns", task.weight, cpu.now);
        }
    }
}

/// A boost of this budget in periods of 100 ms, of a task that takes all that it gets: `share` of the CPU while it is not
/// boosted, and all of it while it is. What it takes of a second.
fn taken_by_a_boosted_hog(budget: u64, share: u64) -> u64 {
    let mut boost = intf::boost {
        budget_ns: budget,
        period_ns: 100 * MS,
        used_ns: 0,
        period_at: 7,
        expires_ns: 0,
        expires_at: 0,
    };
    let (mut taken, mut counted) = (0, 0);
    // Ticks of 4 ms, from the third period on.
    for tick in 0..325 {
        let now = 7 + tick * 4 * MS;
        boost = boost_renewed(boost, now);
        let ran = if boost_is_on(boost, now) { 4 * MS } else { 4 * MS * share / 100 };
        boost.used_ns += ran;
        taken += ran;
        if tick == 74 {
            counted = taken;
        }
    }
    taken - counted
}

#[test]
fn a_boost_gives_its_budget_and_no_more() {
    // A tenth by its weight: it is boosted up to the budget.
    for percent in [20, 30, 60] {
        let taken = taken_by_a_boosted_hog(percent * MS, 10);
        let due = percent * 10 * MS;
        assert!(taken.abs_diff(due) <= 12 * MS, "{percent} %: {taken} of {due}");
    }
    // More than the budget by its weight: nothing is added to that.
    let taken = taken_by_a_boosted_hog(20 * MS, 50);
    assert!(taken.abs_diff(500 * MS) <= 4 * MS, "{taken}");
}

/// What a hog takes of ten seconds whose rule changes each 10 ms between two boosts.
fn taken_between_two_boosts(one: (u64, u64), other: (u64, u64)) -> u64 {
    let mut boost = intf::boost {
        budget_ns: 0,
        period_ns: 0,
        used_ns: 5 * MS,
        period_at: 0,
        expires_ns: 0,
        expires_at: 0,
    };
    let mut taken = 0;
    for tick in 0..10_000 {
        let now = 7 + tick * MS;
        if tick % 10 == 0 {
            let (budget, period) = if tick % 20 == 0 { one } else { other };
            boost = boost_adopted(boost, budget * MS, period * MS, 0, now);
        }
        boost = boost_renewed(boost, now);
        if boost_is_on(boost, now) {
            boost.used_ns += MS;
            taken += MS;
        }
    }
    taken
}

#[test]
fn who_changes_between_boosts_has_one_budget() {
    let same = taken_between_two_boosts((25, 100), (25, 100));
    assert!(same.abs_diff(2500 * MS) <= 25 * MS, "{same}");
    let less = taken_between_two_boosts((25, 100), (0, 0));
    assert!(less <= 2525 * MS, "a rule without a boost renews none: {less}");
    // A quarter each: what the longer period gives may begin anew with each of the shorter.
    let unlike = taken_between_two_boosts((250, 1000), (25, 100));
    assert!(unlike <= 4000 * MS, "{unlike}");
}

/// Who leaves its boost for a moment at the begin of each period owes what it overran all the same.
#[test]
fn who_leaves_a_boost_for_a_moment_keeps_its_debt() {
    let mut boost = boost_adopted(NO_BOOST, 25 * MS, 100 * MS, 0, 7);
    let mut taken = 0;
    for tick in 0..10_000 {
        let now = 7 + tick * MS;
        if tick % 100 == 0 {
            boost = boost_renewed(boost_adopted(boost, 0, 0, 0, now), now);
            boost = boost_adopted(boost, 25 * MS, 100 * MS, 0, now);
        }
        boost = boost_renewed(boost, now);
        // A fifth is its share by weight.
        let ran = if boost_is_on(boost, now) { MS } else { MS / 5 };
        boost.used_ns += ran;
        taken += ran;
    }
    assert!(taken.abs_diff(2500 * MS) <= 100 * MS, "{taken}");
}

#[test]
fn a_boost_ends_when_its_rule_says() {
    let hour = boost_adopted(NO_BOOST, MS, 100 * MS, 3600 * SEC, 5);
    assert_eq!(hour.expires_at, 3600 * SEC + 5);
    let again = boost_adopted(hour, 2 * MS, 100 * MS, 3600 * SEC, 9);
    assert_eq!(
        (again.expires_at, again.budget_ns),
        (3600 * SEC + 5, 2 * MS),
        "the file was read again"
    );
    let other = boost_adopted(again, MS, 100 * MS, 60 * SEC, 9);
    assert_eq!(other.expires_at, 60 * SEC + 9, "another end, of the same period");
    assert_eq!(boost_adopted(other, MS, 100 * MS, 0, 9).expires_at, 0);
}

proptest! {
    #[test]
    fn boosts_stay_in_bounds(
        budget in times(), period in times(), used in times(), began in times(), now in times(),
        expires in times(),
    ) {
        let budget = budget.min(period);
        let old = intf::boost {
            budget_ns: budget, period_ns: period, used_ns: used, period_at: began, expires_ns: 0,
            expires_at: expires,
        };
        let after = boost_renewed(old, now);
        prop_assert!(after.used_ns <= used);
        if after.period_at != began {
            prop_assert!(after.used_ns <= budget, "what it overran costs one period at most");
            prop_assert!(now.wrapping_sub(after.period_at) < period);
        }
        if boost_is_on(after, now) {
            prop_assert!(after.used_ns < budget);
            prop_assert!(expires == 0 || before(now, expires));
        }
        let none = intf::boost { budget_ns: 0, ..after };
        prop_assert!(!boost_is_on(none, now));
    }

    #[test]
    fn factors_keep_weights_in_bounds(nice in -20i32..=19, factor in 10u32..=102_400, on: bool) {
        let own = weight_of(nice, 0);
        let ruled = ruled_weight(own, factor, on);
        prop_assert!((4..=1 << 20).contains(&ruled), "never that of SCHED_IDLE");
        if factor > 1024 {
            prop_assert!(ruled >= own && (on || ruled == own), "a boost that is off changes nothing");
        } else {
            prop_assert!(ruled <= own.max(4));
        }
        prop_assert_eq!(ruled_weight(own, 1024, on), own);
        prop_assert_eq!(ruled_weight(3, factor, on), 3);
    }
}

#[test]
fn classes_are_as_the_policies_of_the_kernel() {
    let [own, latency, normal, batch, idle] = [0, 1, 2, 3, 4];
    for (class, policy, is) in [
        (own, 0, 0),
        (own, 3, 3),
        (own, 5, 5),
        (latency, 5, 0),
        (normal, 3, 0),
        (normal, 5, 0),
        (batch, 0, 3),
        (idle, 0, 5),
    ] {
        assert_eq!(class_policy(class, policy), is, "class {class}, policy {policy}");
        assert_eq!(is_patient(class, policy), is == 3 || is == 5);
    }
    // A head start is for a boosted task of the class latency alone, and by its weight.
    assert_eq!(head_start(latency, true, 3 * MS, NICE0), 3 * MS);
    assert_eq!(head_start(latency, true, 3 * MS, 2 * NICE0), 3 * MS / 2);
    for (class, on) in [(latency, false), (own, true), (normal, true), (batch, true), (idle, true)]
    {
        assert_eq!(head_start(class, on, 3 * MS, NICE0), 0);
    }
}

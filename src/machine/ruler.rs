//! Rules on a real machine: tells the kernel's half what each task's is, and again when it may be another one. What is
//! known of tasks is in the kernel, so nothing grows here with their number.

use super::{program::Program, scheduler::Scheduler};
use crate::{
    bpf::{
        intf::{self, cpu_set, described, rule_call, task_key},
        rules::{RulesSkel, RulesSkelBuilder},
        wire,
    },
    rules::{
        RULES_MAX, Rule,
        matcher::{Key, Matcher},
    },
    units::CpuId,
};
use anyhow::{Context, Result, anyhow, ensure};
use libbpf_rs::{
    Iter, Link, MapCore, MapFlags, OpenObject, RingBuffer, RingBufferBuilder,
    skel::{OpenSkel, SkelBuilder},
};
use nix::errno::Errno;
use std::{
    io::Read,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A turn of looking at tasks is over after this, and takes so many at once: names and paths that a user made for it may
/// take half a millisecond each to be held against a thousand rules.
const TURN: Duration = Duration::from_millis(5);
const TOLD_MAX: usize = 16;
/// After a turn nobody is looked at for this many times as long as it took: whatever tasks do to be told of, it takes a
/// tenth of one CPU.
const REST: u32 = 9;
/// Longer would be felt by who waits for its rule.
const REST_MAX: Duration = Duration::from_millis(50);
/// Of what is told of tasks, read at once; room for some of those that have most.
const SCAN_BYTES: usize = 16 * size_of::<described>();
const GENERATION_BITS: u32 = u32::BITS - intf::RULE_INDEX_BITS;

/// Keeps the rules of tasks.
pub struct Ruler<'obj> {
    /// Where the object of the rules is to be, until it is.
    storage: Option<&'obj mut MaybeUninit<OpenObject>>,
    tracker: Option<Tracker<'obj>>,
    matcher: Option<Matcher>,
    /// Of the rules in force; those of the other kind of number, odd or even, have the other half of all tables.
    generation: u32,
    rest_until: Option<Instant>,
}

/// The object in the kernel.
struct Tracker<'obj> {
    skel: RulesSkel<'obj>,
    /// To the kernel's tracepoints, while there are rules.
    links: Vec<Link>,
    ring: RingBuffer<'static>,
    told: Arc<Mutex<Vec<i32>>>,
    describe: Program,
    apply: Program,
    hurry: Program,
    lost: u64,
}

impl<'obj> Ruler<'obj> {
    /// Without rules. `storage` is where an object lives from the first of them on.
    pub fn new(storage: &'obj mut MaybeUninit<OpenObject>) -> Self {
        Self {
            storage: Some(storage),
            tracker: None,
            matcher: None,
            generation: 0,
            rest_until: None,
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.matcher.iter().flat_map(Matcher::rules)
    }

    /// The rule that the kernel's half calls by that number, with its own number from 1.
    pub fn rule(&self, index: u32) -> Option<(usize, &Rule)> {
        let index = (index as usize).checked_sub(1)? % RULES_MAX;
        Some((index + 1, self.matcher.as_ref()?.rule(index)?))
    }

    /// Puts these rules in force, and tells all tasks.
    ///
    /// # Errors
    /// When the kernel does not take them. Those before stay in force then, unless tasks were being told already.
    pub fn set(&mut self, rules: &[Rule], scheduler: &Scheduler<'_>) -> Result<()> {
        if self.rules().eq(rules) {
            return Ok(());
        }
        let mut matcher = Matcher::new(rules).map_err(|why| anyhow!("the globs: {why}"))?;
        if self.tracker.is_none() {
            let storage = self.storage.take().context("the rules could not be loaded before")?;
            self.tracker = Some(Tracker::load(storage, scheduler)?);
        }
        let Some(tracker) = &mut self.tracker else { return Ok(()) };
        let next = (self.generation + 1) % (1 << GENERATION_BITS);
        let generation = next.max(1);
        write_tables(rules, generation, scheduler)?;
        tracker.set_generation(if rules.is_empty() { 0 } else { generation }, scheduler)?;
        self.generation = generation;
        tracker.attach(!rules.is_empty())?;
        let begin = Instant::now();
        let matched = tracker.scan(&mut matcher, generation, scheduler)?;
        log::info!(
            "{} rules are in force; {} tasks looked at in {:?}",
            rules.len(),
            matched.tasks,
            begin.elapsed()
        );
        self.matcher = Some(matcher);
        self.warn_of_nothing(&matched);
        self.warn_of_absent_cpus(scheduler);
        Ok(())
    }

    fn warn_of_nothing(&self, matched: &Matched) {
        let idle = (1..).zip(self.rules()).filter(|(number, _)| !matched.rules[number - 1]);
        let idle: Vec<String> =
            idle.map(|(number, rule)| format!("{number} ({})", rule.at)).collect();
        const TOLD_MAX: usize = 10;
        if let Some(told) = idle.get(..idle.len().min(TOLD_MAX)).filter(|told| !told.is_empty()) {
            let more = if idle.len() > TOLD_MAX { ", …" } else { "" };
            let list = told.join(", ");
            log::warn!("no task is there now that these rules match: {list}{more}");
        }
    }

    /// The machine has so many CPUs, and the file may be of another.
    fn warn_of_absent_cpus(&self, scheduler: &Scheduler<'_>) {
        let Some(last) = scheduler.topology().possible.last() else { return };
        for (number, rule) in (1..).zip(self.rules()) {
            let first = rule.effect.cpus.as_ref().and_then(|cpus| cpus.first());
            if first.is_some_and(|first| first > last) {
                let CpuId(last) = last;
                let at = &rule.at;
                log::warn!("{at}: rule {number} prefers CPUs above {last}, the last one here");
            }
        }
    }

    /// Readable when tasks are to be looked at; none while nobody is.
    pub fn told(&self) -> Option<BorrowedFd<'_>> {
        let tracker = self.tracker.as_ref().filter(|tracker| !tracker.links.is_empty())?;
        if self.rest_left().is_some() {
            return None;
        }
        // SAFETY: the ring is alive, and so is the descriptor that it owns.
        Some(unsafe { BorrowedFd::borrow_raw(tracker.ring.epoll_fd()) })
    }

    /// For how long nobody is looked at; none if somebody may be.
    pub fn rest_left(&self) -> Option<Duration> {
        let left = self.rest_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Looks at the tasks that the kernel told of, if it did.
    ///
    /// # Errors
    /// When the kernel does not take their rules.
    pub fn tend(&mut self, scheduler: &Scheduler<'_>) -> Result<()> {
        if self.rest_left().is_some() {
            return Ok(());
        }
        let (Some(tracker), Some(matcher)) = (&mut self.tracker, &mut self.matcher) else {
            return Ok(());
        };
        if tracker.links.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        let mut nr = tracker.look(matcher, self.generation)?;
        while nr > 0 && nr % TOLD_MAX == 0 && begin.elapsed() < TURN {
            match tracker.look(matcher, self.generation)? {
                0 => break,
                more => nr += more,
            }
        }
        if tracker.has_lost(scheduler)? {
            log::info!("more tasks changed at once than are told of: looking at all");
            tracker.scan(matcher, self.generation, scheduler)?;
        } else if nr == 0 {
            return Ok(());
        }
        self.rest_until = Some(Instant::now() + (begin.elapsed() * REST).min(REST_MAX));
        Ok(())
    }
}

/// What a look at all tasks has found.
struct Matched {
    tasks: usize,
    /// Whether it matched one, a rule each.
    rules: Vec<bool>,
}

impl<'obj> Tracker<'obj> {
    fn load(storage: &'obj mut MaybeUninit<OpenObject>, scheduler: &Scheduler<'_>) -> Result<Self> {
        let skel = load(storage, scheduler)
            .context("loading the BPF programs of the rules into the kernel")?;
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let mut builder = RingBufferBuilder::new();
        let pid = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?) as i32);
        builder.add(&scheduler.skel().maps.rule_events, move |bytes| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).extend(pid(bytes));
            0
        })?;
        Ok(Self {
            ring: builder.build().context("reading the ring of tasks that changed")?,
            describe: Program::of(&skel.progs.rule_describe)?,
            apply: Program::of(&skel.progs.rule_apply)?,
            hurry: Program::of(&scheduler.skel().progs.rule_hurry)?,
            links: Vec::new(),
            lost: 0,
            told,
            skel,
        })
    }

    /// Listens to what happens to tasks, or no longer.
    fn attach(&mut self, on: bool) -> Result<()> {
        if !on {
            self.links.clear();
        } else if self.links.is_empty() {
            let progs = &self.skel.progs;
            let all = [&progs.rule_exec, &progs.rule_rename, &progs.rule_fork, &progs.rule_cgroup];
            let links = all.into_iter().map(|program| program.attach());
            self.links = links
                .collect::<libbpf_rs::Result<_>>()
                .context("attaching the rules to the kernel's tracepoints")?;
        }
        Ok(())
    }

    fn set_generation(&self, generation: u32, scheduler: &Scheduler<'_>) -> Result<()> {
        let value = u64::from(generation).to_ne_bytes();
        let key = intf::ruling_index_RULING_GENERATION.to_ne_bytes();
        let map = &scheduler.skel().maps.ruling;
        map.update(&key, &value, MapFlags::ANY).context("putting rules in force")
    }

    /// Whether the kernel could not tell of a task since the last call.
    fn has_lost(&mut self, scheduler: &Scheduler<'_>) -> Result<bool> {
        let key = intf::ruling_index_RULING_LOST.to_ne_bytes();
        let mut value = [0; 8];
        scheduler.skel().maps.ruling.lookup_into(&key, &mut value, MapFlags::ANY)?;
        let lost = u64::from_ne_bytes(value);
        let before = std::mem::replace(&mut self.lost, lost);
        Ok(before != lost)
    }

    /// Looks at all tasks.
    fn scan(
        &mut self,
        matcher: &mut Matcher,
        generation: u32,
        scheduler: &Scheduler<'_>,
    ) -> Result<Matched> {
        // What is lost from here on is looked at again.
        self.has_lost(scheduler)?;
        if let Some(bss) = &mut self.skel.maps.bss_data {
            // SAFETY: a valid, aligned field of mapped memory, which the programs only read.
            unsafe { std::ptr::write_volatile(&mut bss.wants_exe, matcher.wants_exe().into()) }
        }
        let link =
            self.skel.progs.rule_scan.attach().context("attaching the iterator over tasks")?;
        let mut keys = Iter::new(&link).context("reading what rules go by")?;
        let mut matched = Matched { tasks: 0, rules: vec![false; matcher.rules().len()] };
        let mut bytes = vec![0; SCAN_BYTES];
        let mut len = 0;
        loop {
            let n = keys.read(&mut bytes[len..]).context("reading what rules go by")?;
            len += n;
            let mut at = 0;
            while let Some((key, exe, cgroup, size)) = record(&bytes[at..len]) {
                matched.tasks += 1;
                let about = Key::of(&key, exe, cgroup);
                if let Some(rule) = self.decide(&key, &about, matcher, generation)? {
                    matched.rules[rule] = true;
                }
                at += size;
            }
            bytes.copy_within(at..len, 0);
            len -= at;
            if n == 0 {
                return Ok(matched);
            }
        }
    }

    /// Looks at those that the kernel told of, up to a number; how many that were.
    fn look(&mut self, matcher: &mut Matcher, generation: u32) -> Result<usize> {
        let code = self.ring.consume_raw_n(TOLD_MAX);
        ensure!(code >= 0, "reading the ring of tasks that changed: {}", Errno::from_raw(-code));
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        for &pid in &told {
            let mut call = rule_call { pid, ..wire::zero() };
            self.describe.call(&mut call).context("reading what rules go by")?;
            if call.done == 0 {
                continue;
            }
            let mut bytes = [0; size_of::<described>()];
            self.skel.maps.described.lookup_into(&[0; 4], &mut bytes, MapFlags::ANY)?;
            if let Some(told) = wire::value::<described>(&bytes) {
                let (exe, cgroup) = (told.exe.map(|c| c as u8), told.cgroup.map(|c| c as u8));
                let about = Key::of(&told.key, &exe, &cgroup);
                self.decide(&told.key, &about, matcher, generation)?;
            }
        }
        Ok(told.len())
    }

    /// Gives a task its rule; which that is.
    fn decide(
        &self,
        key: &task_key,
        about: &Key,
        matcher: &mut Matcher,
        generation: u32,
    ) -> Result<Option<usize>> {
        let rule = matcher.first(about);
        let index = rule.map_or(0, |rule| first_of(generation, RULES_MAX) + rule as u32 + 1);
        let mut call = rule_call {
            born_at: key.born_at,
            pid: key.pid,
            asked: key.asked,
            rule: generation << intf::RULE_INDEX_BITS | index,
            ..wire::zero()
        };
        self.apply.call(&mut call).context("giving a task its rule")?;
        if call.waits != 0 {
            self.hurry.call(&mut call).context("giving a task that waits its rule")?;
        }
        Ok(rule.filter(|_| call.done != 0))
    }
}

/// The first task of what `rule_scan` has written, the names of its paths, and the bytes of all that; none if it is not
/// all there.
fn record(bytes: &[u8]) -> Option<(task_key, &[u8], &[u8], usize)> {
    let (key, rest) = bytes.split_at_checked(size_of::<task_key>())?;
    let key: task_key = wire::value(key)?;
    let (exe, rest) = rest.split_at_checked(key.exe_len as usize)?;
    let (cgroup, rest) = rest.split_at_checked(key.cgroup_len as usize)?;
    Some((key, exe, cgroup, bytes.len() - rest.len()))
}

fn load<'obj>(
    storage: &'obj mut MaybeUninit<OpenObject>,
    scheduler: &Scheduler<'_>,
) -> Result<RulesSkel<'obj>> {
    let mut skel = RulesSkelBuilder::default().open(storage)?;
    let shared = &scheduler.skel().maps;
    skel.maps.task_ctxs.reuse_fd(shared.task_ctxs.as_fd())?;
    skel.maps.ruling.reuse_fd(shared.ruling.as_fd())?;
    skel.maps.rule_events.reuse_fd(shared.rule_events.as_fd())?;
    Ok(skel.load()?)
}

/// Where the half of a table begins that a generation has, of which it takes so many elements.
fn first_of(generation: u32, half: usize) -> u32 {
    generation % 2 * half as u32
}

/// Writes what rules do into the half of the tables that no task has a rule of.
fn write_tables(rules: &[Rule], generation: u32, scheduler: &Scheduler<'_>) -> Result<()> {
    let maps = &scheduler.skel().maps;
    let mut sets: Vec<&[CpuId]> = Vec::new();
    let first_set = first_of(generation, crate::rules::CPU_SETS_MAX);
    for (index, rule) in (first_of(generation, RULES_MAX)..).zip(rules) {
        let set = rule.effect.cpus.as_deref().map_or(0, |cpus| {
            let known = sets.iter().position(|set| *set == cpus).unwrap_or_else(|| {
                sets.push(cpus);
                sets.len() - 1
            });
            first_set + known as u32 + 1
        });
        let effect = rule.effect.wire(set);
        maps.effects
            .update(&index.to_ne_bytes(), wire::bytes(&effect), MapFlags::ANY)
            .context("writing what rules do")?;
    }
    for (index, cpus) in (first_set..).zip(&sets) {
        let mut set: cpu_set = wire::zero();
        for cpu in *cpus {
            if let Some(word) = set.cpus.get_mut(cpu.index() / 64) {
                *word |= 1 << (cpu.0 % 64);
            }
        }
        maps.cpu_sets
            .update(&index.to_ne_bytes(), wire::bytes(&set), MapFlags::ANY)
            .context("writing which CPUs rules prefer")?;
    }
    if !sets.is_empty() {
        scheduler.refresh_cpu_sets()?;
    }
    Ok(())
}

//! Reading the statistics of a loaded scheduler out of the kernel.

use super::scheduler::{self, Scheduler};
use crate::{
    bpf::{
        intf::{cpu_ctx, cpu_stats, llc_ctx, task_sample},
        wire::{self, Wire},
    },
    stats::sample::{CpuSample, LlcSample, Sample},
};
use anyhow::{Context, Result, anyhow};
use libbpf_rs::{Iter, Link, MapCore, MapFlags};
use std::{
    collections::BTreeMap,
    io::Read,
    time::{Instant, SystemTime},
};

/// Counters and states are read one after the other. A CPU that starts another task in between is
/// read again, this often at most.
const ATTEMPTS: usize = 4;

impl Scheduler<'_> {
    /// The state of the scheduler at this instant.
    ///
    /// # Errors
    /// When the kernel does not give it, which is not expected of a loaded scheduler.
    pub fn sample(&self) -> Result<Sample> {
        self.read_sample().context("reading the statistics of the scheduler")
    }

    fn read_sample(&self) -> Result<Sample> {
        let maps = &self.skel().maps;
        let topology = self.topology();
        let nr_cpus = topology.places.len() as u32;

        scheduler::run(&self.skel().progs.snapshot)?;
        let (at, time) = (Instant::now(), SystemTime::now());
        let llcs: Vec<llc_ctx> = read_all(&maps.llcs, topology.llcs.len() as u32)?;
        let mut states: Vec<cpu_ctx> = read_all(&maps.cpus, nr_cpus)?;
        let mut stats = self.read_stats()?;
        let mut unsettled: Vec<usize> = (0..topology.possible.len()).collect();
        for _ in 0..ATTEMPTS {
            let states_after: Vec<cpu_ctx> = read_all(&maps.cpus, nr_cpus)?;
            unsettled.retain(|&i| {
                let cpu = topology.possible[i].index();
                !same_run(&states[cpu], &states_after[cpu])
            });
            if unsettled.is_empty() {
                break;
            }
            let stats_again = self.read_stats()?;
            for &i in &unsettled {
                let cpu = topology.possible[i].index();
                states[cpu] = states_after[cpu];
                stats[i] = stats_again[i];
            }
        }

        let cpus = topology.possible.iter().zip(stats).map(|(&cpu, stats)| {
            let place = topology.places[cpu.index()];
            let state = states[cpu.index()];
            CpuSample { cpu, node: place.node, llc: place.llc, core: place.core, stats, state }
        });
        Ok(Sample {
            at,
            time,
            cpus: cpus.collect(),
            llcs: topology
                .llcs
                .iter()
                .zip(llcs)
                .map(|(llc, now)| LlcSample { node: llc.node, nr_queued: now.nr_queued })
                .collect(),
            kernel_events: self.kernel_events(),
            policy: None,
        })
    }

    /// All tasks that the scheduler knows, cumulative since the first call: from there on the kernel's half keeps
    /// figures of each, until [`forget_tasks`](Self::forget_tasks).
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn task_samples(&mut self) -> Result<Vec<task_sample>> {
        read_tasks(self.keep_tasks()?)
    }

    /// All tasks that the scheduler knows, for whoever wants none of the figures that are kept for
    /// [`task_samples`](Self::task_samples).
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn list_tasks(&self) -> Result<Vec<task_sample>> {
        let link = self.skel().progs.tasks.attach().context("attaching the iterator over tasks")?;
        read_tasks(&link)
    }

    /// The kernel's own counts of what it had to do in our place. Kernels before 6.15 have none.
    fn kernel_events(&self) -> BTreeMap<String, u64> {
        let text = self.host().read("sys/kernel/sched_ext/root/events").unwrap_or_default();
        let line = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    /// The counters of all possible CPUs, ascending.
    fn read_stats(&self) -> Result<Vec<cpu_stats>> {
        let values = self
            .skel()
            .maps
            .stats
            .lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?
            .ok_or_else(|| anyhow!("the map of counters is empty"))?;
        values
            .iter()
            .map(|bytes| wire::value(bytes).ok_or_else(|| anyhow!("short counters")))
            .collect()
    }
}

fn read_tasks(link: &Link) -> Result<Vec<task_sample>> {
    let mut bytes = Vec::new();
    Iter::new(link)
        .map_err(anyhow::Error::from)
        .and_then(|mut iter| Ok(iter.read_to_end(&mut bytes)?))
        .context("reading the list of tasks from the kernel")?;
    Ok(bytes.chunks(size_of::<task_sample>()).filter_map(wire::value).collect())
}

/// Whether no run began or ended on a CPU between two reads of its state.
fn same_run(a: &cpu_ctx, b: &cpu_ctx) -> bool {
    (a.running_pid, a.running_at, a.released_at) == (b.running_pid, b.running_at, b.released_at)
}

/// The first `count` elements of an array map.
fn read_all<T: Wire>(map: &impl MapCore, count: u32) -> Result<Vec<T>> {
    let mut bytes = vec![0; map.value_size() as usize];
    (0..count)
        .map(|key| {
            map.lookup_into(&key.to_ne_bytes(), &mut bytes, MapFlags::ANY)?;
            wire::value(&bytes).ok_or_else(|| anyhow!("short element"))
        })
        .collect()
}

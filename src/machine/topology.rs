//! Where the CPUs are: cores, last-level caches (LLCs) and NUMA nodes, read from sysfs.
//!
//! LLCs and nodes get dense indices, since the kernel's half has an array element for each. They
//! are fixed at the first reading: the maps are sized by it. A CPU that shows up later joins the
//! LLC of a CPU it shares a cache with, or else one of its node.

use super::{cpulist, preflight::Host};
use crate::{
    bpf::intf::{self, cpu_topo, llc_topo},
    units::CpuId,
};
use anyhow::{Context, Result, ensure};
use std::{cmp::Reverse, collections::BTreeMap, fs};

const MAX_CPUS: usize = intf::limits_MAX_CPUS as usize;
const MAX_LLCS: usize = intf::limits_MAX_LLCS as usize;
const MAX_NODES: usize = intf::limits_MAX_NODES as usize;
const PARTS: usize = intf::limits_LLC_PARTS as usize;

/// The place of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Dense index of its last-level cache.
    pub llc: u32,
    /// Dense index of its NUMA node.
    pub node: u32,
    /// One CPU that stands for its core: the same for all SMT siblings.
    pub core: CpuId,
    /// Whether the CPU has been seen online. If not, the rest is a guess.
    pub present: bool,
}

/// A last-level cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Llc {
    /// Dense index of its node. An LLC that spans nodes is treated as one for each.
    pub node: u32,
    /// The other LLCs, nearest first: same node, then by distance of the node. Among equals the
    /// order starts behind the LLC itself, so that not all of them turn to the same one first.
    pub nearest: Vec<u16>,
}

/// The CPUs of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Every CPU that may ever appear, ascending. Per-CPU maps have one value for each, in
    /// this order.
    pub possible: Vec<CpuId>,
    /// By CPU number, up to the highest possible one.
    pub places: Vec<Place>,
    /// By dense index; at least one.
    pub llcs: Vec<Llc>,
    /// Number of nodes; at least 1.
    pub nr_nodes: u32,
    /// Whether cores may have more than one thread.
    pub smt: bool,
}

/// What sysfs says of a CPU that is online. Lists hold the CPU itself if they hold anything.
struct Seen {
    cpu: CpuId,
    /// As numbered by the kernel.
    node: usize,
    siblings: Vec<CpuId>,
    sharing: Vec<CpuId>,
}

impl Topology {
    /// Reads the topology of `host`.
    ///
    /// # Errors
    /// When there is no list of possible CPUs, or it goes beyond [`intf::limits_MAX_CPUS`]. All
    /// else may be missing: a machine that tells nothing has one LLC and one node.
    pub fn read(host: &Host) -> Result<Self> {
        let list = host
            .read("sys/devices/system/cpu/possible")
            .context("reading the list of CPUs, /sys/devices/system/cpu/possible")?;
        // One beyond the limit, to notice it.
        let possible = cpulist::parse(&list, MAX_CPUS + 1);
        let nr_cpu_ids = possible.last().map_or(0, |cpu| cpu.index() + 1);
        ensure!(nr_cpu_ids > 0, "/sys/devices/system/cpu/possible lists no CPU: {list:?}");
        ensure!(nr_cpu_ids <= MAX_CPUS, "this machine has more than {MAX_CPUS} CPUs ({list})");

        let seen = online(host, nr_cpu_ids);
        let nodes = dense(seen.iter().map(|s| s.node), MAX_NODES);
        let node_of = |number| nodes.get(&number).copied().unwrap_or(0);
        // An LLC is named by its node and the first of the CPUs that share it.
        let name = |s: &Seen| (node_of(s.node), s.sharing.first().copied());
        let mut caches = dense(seen.iter().map(name), usize::MAX);
        if caches.len() > MAX_LLCS {
            log::warn!("more than {MAX_LLCS} last-level caches: going by NUMA nodes instead");
            let by_node = caches.keys().map(|&name| (name, name.0)).collect();
            caches = by_node;
        }

        let mut places: Vec<_> = (0..nr_cpu_ids as u32)
            .map(|cpu| Place { llc: 0, node: 0, core: CpuId(cpu), present: false })
            .collect();
        for s in &seen {
            places[s.cpu.index()] = Place {
                llc: caches.get(&name(s)).copied().unwrap_or(0),
                node: node_of(s.node),
                core: s.siblings.first().copied().unwrap_or(s.cpu),
                present: true,
            };
        }

        let llc_nodes: BTreeMap<u32, u32> =
            caches.iter().map(|(&(node, _), &llc)| (llc, node)).collect();
        let llc_nodes: Vec<_> =
            if llc_nodes.is_empty() { vec![0] } else { llc_nodes.into_values().collect() };
        let llcs = Self::llcs(&llc_nodes, &distances(host, &nodes));
        let smt = seen.iter().any(|s| s.siblings.len() > 1)
            // Threads that are switched off for now.
            || host.read("sys/devices/system/cpu/smt/control").is_ok_and(|v| v == "off");
        Ok(Self { possible, places, llcs, nr_nodes: nodes.len().max(1) as u32, smt })
    }

    /// The LLCs, given the node of each and the distances between nodes, with the order of the others. Nodes whose
    /// distance is unknown are equally far.
    pub fn llcs(llc_nodes: &[u32], distances: &BTreeMap<(u32, u32), u32>) -> Vec<Llc> {
        let count = llc_nodes.len();
        (0..count)
            .map(|own| {
                let node = llc_nodes[own];
                let mut others: Vec<_> = (0..count).filter(|&llc| llc != own).collect();
                others.sort_by_key(|&llc| {
                    let to = llc_nodes[llc];
                    let distance = distances.get(&(node, to)).copied().unwrap_or(u32::MAX);
                    (to != node, distance, (llc + count - own) % count)
                });
                Llc { node, nearest: others.into_iter().map(|llc| llc as u16).collect() }
            })
            .collect()
    }

    /// Finds places for CPUs that are online for the first time. True if there were any.
    pub fn refresh(&mut self, host: &Host) -> bool {
        let mut changed = false;
        for s in online(host, self.places.len()) {
            if self.places[s.cpu.index()].present {
                continue;
            }
            let known = |list: &[CpuId]| {
                list.iter().map(|cpu| self.places[cpu.index()]).find(|place| place.present)
            };
            let in_node = cpulist::parse(&node_list(host, s.node), self.places.len());
            let near = known(&s.sharing).or_else(|| known(&in_node));
            self.places[s.cpu.index()] = Place {
                llc: near.map_or(0, |place| place.llc),
                node: near.map_or(0, |place| place.node),
                core: known(&s.siblings).map_or(s.cpu, |sibling| sibling.core),
                present: true,
            };
            changed = true;
        }
        changed
    }

    /// How many parts all LLCs have: the size of the map `parts`.
    pub fn nr_parts(&self) -> usize {
        self.llcs.len() * PARTS
    }

    /// The elements of the map `topo`.
    pub fn cpu_elements(&self) -> impl Iterator<Item = cpu_topo> {
        let present = |llc| self.places.iter().filter(move |p| p.present && p.llc == llc).count();
        let sizes: Vec<usize> = (0..self.llcs.len() as u32).map(present).collect();
        let mut seen = vec![0; sizes.len()];
        self.places.iter().enumerate().map(move |(cpu, place)| {
            let llc = place.llc as usize;
            let rank = seen[llc];
            seen[llc] += usize::from(place.present);
            cpu_topo {
                llc: place.llc,
                node: place.node,
                sibling: self.next_one(cpu, |other| other.core == place.core) as u32,
                in_llc: self.next_one(cpu, |other| other.llc == place.llc) as u32,
                part: (rank * PARTS / sizes[llc].max(1)).min(PARTS - 1) as u32,
                present: place.present.into(),
            }
        })
    }

    /// The next CPU after `cpu` that is like it, and after the last one the first: itself if it is alone.
    fn next_one(&self, cpu: usize, alike: impl Fn(&Place) -> bool) -> usize {
        let count = self.places.len();
        let found = |&other: &usize| self.places[other].present && alike(&self.places[other]);
        (cpu + 1..cpu + count).map(|other| other % count).find(found).unwrap_or(cpu)
    }

    /// The elements of the map `llc_topo`.
    pub fn llc_elements(&self) -> impl Iterator<Item = llc_topo> {
        self.llcs.iter().enumerate().map(|(index, llc)| {
            let mut nearest = [0; MAX_LLCS];
            nearest[..llc.nearest.len()].copy_from_slice(&llc.nearest);
            let first = self.places.iter().position(|p| p.present && p.llc as usize == index);
            llc_topo {
                node: llc.node,
                first: first.unwrap_or(0) as u32,
                nr_nearest: llc.nearest.len() as u32,
                nearest,
            }
        })
    }
}

/// Dense indices, in order; what is beyond `limit` shares the last one.
fn dense<T: Ord>(items: impl Iterator<Item = T>, limit: usize) -> BTreeMap<T, u32> {
    let mut indices: BTreeMap<T, u32> = items.map(|item| (item, 0)).collect();
    for (i, index) in indices.values_mut().enumerate() {
        *index = i.min(limit - 1) as u32;
    }
    indices
}

/// The CPUs that are online, ascending.
fn online(host: &Host, nr_cpu_ids: usize) -> Vec<Seen> {
    let list = |path: &str| cpulist::parse(&host.read(path).unwrap_or_default(), nr_cpu_ids);
    // The file is missing where CPUs cannot go offline.
    let mut cpus = list("sys/devices/system/cpu/online");
    if cpus.is_empty() {
        cpus = list("sys/devices/system/cpu/possible");
    }
    let nodes = node_numbers(host);
    let node_cpus: Vec<_> =
        nodes.iter().map(|&n| (n, cpulist::parse(&node_list(host, n), nr_cpu_ids))).collect();
    cpus.into_iter()
        .map(|cpu| {
            let dir = format!("sys/devices/system/cpu/cpu{cpu}");
            let of_node = node_cpus.iter().find(|(_, cpus)| cpus.contains(&cpu));
            let siblings = list(&format!("{dir}/topology/thread_siblings_list"));
            let mut sharing = llc_sharing(host, &dir, nr_cpu_ids);
            if sharing.is_empty() {
                sharing = list(&format!("{dir}/topology/package_cpus_list"));
            }
            Seen { cpu, node: of_node.map_or(0, |&(n, _)| n), siblings, sharing }
        })
        .collect()
}

/// The CPUs that share the last-level data cache of the CPU in `dir`; empty if unknown.
fn llc_sharing(host: &Host, dir: &str, nr_cpu_ids: usize) -> Vec<CpuId> {
    (0..16)
        .filter_map(|index| {
            let file = |name| host.read(&format!("{dir}/cache/index{index}/{name}")).ok();
            let level = file("level")?.parse::<u32>().ok()?;
            (file("type")? != "Instruction")
                .then(|| Some((level, cpulist::parse(&file("shared_cpu_list")?, nr_cpu_ids))))?
        })
        // First-level caches belong to a core. Taken for the last level they would make
        // every core an island.
        .filter(|(level, _)| *level >= 2)
        .max_by_key(|(level, cpus)| (*level, Reverse(cpus.first().copied())))
        .map_or_else(Vec::new, |(_, cpus)| cpus)
}

fn node_numbers(host: &Host) -> Vec<usize> {
    let entries = fs::read_dir(host.path("sys/devices/system/node"));
    let mut numbers: Vec<_> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("node")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn node_list(host: &Host, node: usize) -> String {
    host.read(&format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default()
}

/// Distances between nodes by their dense indices; the same everywhere where they are unknown.
fn distances(host: &Host, nodes: &BTreeMap<usize, u32>) -> BTreeMap<(u32, u32), u32> {
    // The n-th number in the file is for the n-th online node, which may have no CPU.
    let all = node_numbers(host);
    let mut table = BTreeMap::new();
    for (&number, &from) in nodes {
        let path = format!("sys/devices/system/node/node{number}/distance");
        let text = host.read(&path).unwrap_or_default();
        for (column, distance) in all.iter().zip(text.split_whitespace()) {
            if let (Some(&to), Ok(distance)) = (nodes.get(column), distance.parse()) {
                table.insert((from, to), distance);
            }
        }
    }
    table
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;

//! Topologies in a line: `2 nodes x 4 llcs x 8 cores x 2 threads`, `16 cores`, `host`.

use crate::{
    bpf::intf,
    machine::{
        preflight::Host,
        topology::{Place, Topology},
    },
    units::CpuId,
};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

/// The CPUs of a simulated machine at most: beyond the largest that are sold.
const CPUS_MAX: u64 = 2048;

/// Reads a topology. `host` is that of this machine. Levels are `nodes`, `llcs`, `cores` and `threads`, each a number
/// within the level before it; what is left out is 1. A bare number is one of cores. CPUs are numbered as most x86
/// machines do: the first threads of all cores, then the second ones.
///
/// # Errors
/// When the text is of another shape, or there are no CPUs, too many, or too many caches or nodes.
pub fn parse(text: &str) -> Result<Topology> {
    if text.trim() == "host" {
        return Topology::read(&Host::real()).context("reading the topology of this machine");
    }
    let shape = "such as \"2 nodes x 4 llcs x 8 cores x 2 threads\", \"16 cores\" or \"host\"";
    let mut counts = [1u64; 4];
    let mut last = None;
    for part in text.split(['x', '×', '*']) {
        let mut words = part.split_whitespace();
        let (number, unit) = (words.next().unwrap_or(""), words.next().unwrap_or("cores"));
        let level = ["node", "llc", "core", "thread"]
            .iter()
            .position(|&name| unit.to_lowercase().trim_end_matches('s') == name);
        let (Some(level), Ok(count), None) = (level, number.parse::<u64>(), words.next()) else {
            bail!("'{}' is no part of a topology: {shape}", part.trim().escape_default());
        };
        ensure!(
            last.is_none_or(|last| last < level),
            "the levels of a topology go from nodes to threads, each once: {shape}"
        );
        ensure!((1..=CPUS_MAX).contains(&count), "{count} {unit}: 1 to {CPUS_MAX} are possible");
        counts[level] = count;
        last = Some(level);
    }
    let [nodes, llcs, cores, threads] = counts;
    ensure!(
        counts.iter().product::<u64>() <= CPUS_MAX,
        "more than {CPUS_MAX} CPUs cannot be simulated"
    );
    let (nodes_max, llcs_max) = (intf::limits_MAX_NODES.into(), intf::limits_MAX_LLCS.into());
    ensure!(nodes <= nodes_max, "more than {nodes_max} nodes are not possible");
    ensure!(nodes * llcs <= llcs_max, "more than {llcs_max} last-level caches are not possible");
    let nr_cores = (nodes * llcs * cores) as u32;
    let places: Vec<_> = (0..nr_cores * threads as u32)
        .map(|cpu| {
            let core = cpu % nr_cores;
            let llc = core / cores as u32;
            Place { llc, node: llc / llcs as u32, core: CpuId(core), present: true }
        })
        .collect();
    Ok(Topology {
        possible: (0..places.len() as u32).map(CpuId).collect(),
        places,
        llcs: Topology::llcs(
            &(0..nodes * llcs).map(|llc| (llc / llcs) as u32).collect::<Vec<_>>(),
            &BTreeMap::new(),
        ),
        nr_nodes: nodes as u32,
        smt: threads > 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let t = parse("2 nodes x 2 LLCs × 3 cores x 2 threads").expect("a topology");
        assert_eq!((t.places.len(), t.llcs.len(), t.nr_nodes, t.smt), (24, 4, 2, true));
        assert_eq!((t.places[23].llc, t.places[23].node, t.places[23].core), (3, 1, CpuId(11)));
        assert_eq!(t.llcs[1].nearest[0], 0);
        let flat = parse("16").expect("a number");
        assert_eq!((flat.places.len(), flat.llcs.len(), flat.smt), (16, 1, false));
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "x",
            "0 cores",
            "-1",
            "2 towers",
            "4 cores x 2 nodes",
            "2 cores x 2 cores",
            "4096 cores",
            "64 nodes x 64 llcs",
            "99999999999999999999",
            "2048 cores x 2048 threads",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}

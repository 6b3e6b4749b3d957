//! Made-up machines for the topology reader.

use super::*;
use std::path::Path;
use tempfile::TempDir;

/// A machine in a temporary directory.
struct Machine(TempDir);

impl Machine {
    fn new(possible: &str, online: &str) -> Self {
        let machine = Self(tempfile::tempdir().expect("a temporary directory"));
        machine.file("cpu/possible", possible).file("cpu/online", online)
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join("sys/devices/system").join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("mkdir");
        fs::write(path, format!("{text}\n")).expect("write");
        self
    }

    /// CPUs of one LLC, one node list each for cores.
    fn llc(mut self, cpus: &str, cores: &[&str]) -> Self {
        for core in cores {
            for cpu in cpulist::parse(core, 64) {
                let dir = format!("cpu/cpu{cpu}");
                self = self
                    .file(&format!("{dir}/topology/thread_siblings_list"), core)
                    .file(&format!("{dir}/cache/index0/level"), "1")
                    .file(&format!("{dir}/cache/index0/type"), "Data")
                    .file(&format!("{dir}/cache/index0/shared_cpu_list"), core)
                    .file(&format!("{dir}/cache/index3/level"), "3")
                    .file(&format!("{dir}/cache/index3/type"), "Unified")
                    .file(&format!("{dir}/cache/index3/shared_cpu_list"), cpus);
            }
        }
        self
    }

    fn node(self, number: usize, cpus: &str, distances: &str) -> Self {
        self.file(&format!("node/node{number}/cpulist"), cpus)
            .file(&format!("node/node{number}/distance"), distances)
    }

    fn host(&self) -> Host {
        Host::at(self.0.path())
    }

    fn read(&self) -> Topology {
        Topology::read(&self.host()).expect("a topology")
    }
}

fn llcs(t: &Topology) -> Vec<u32> {
    t.places.iter().map(|place| place.llc).collect()
}

fn cores(t: &Topology) -> Vec<u32> {
    t.places.iter().map(|place| place.core.0).collect()
}

#[test]
fn one_socket() {
    let t =
        Machine::new("0-3", "0-3").llc("0-3", &["0", "1", "2", "3"]).node(0, "0-3", "10").read();
    assert_eq!((llcs(&t), cores(&t)), (vec![0; 4], vec![0, 1, 2, 3]));
    assert!(t.cpu_elements().map(|e| e.sibling).eq(0..4), "a core of one thread");
    assert_eq!((t.llcs.len(), t.nr_nodes, t.smt), (1, 1, false));
    assert!(t.places.iter().all(|place| place.present));
}

#[test]
fn two_sockets_with_threads() {
    let t = Machine::new("0-7", "0-7")
        .llc("0-1,4-5", &["0,4", "1,5"])
        .llc("2-3,6-7", &["2,6", "3,7"])
        .node(0, "0-1,4-5", "10 20")
        .node(1, "2-3,6-7", "20 10")
        .read();
    assert_eq!(llcs(&t), [0, 0, 1, 1, 0, 0, 1, 1]);
    assert_eq!(cores(&t), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(t.cpu_elements().map(|e| e.sibling).collect::<Vec<_>>(), [4, 5, 6, 7, 0, 1, 2, 3]);
    assert!(t.smt);
    assert_eq!(t.llcs, [Llc { node: 0, nearest: vec![1] }, Llc { node: 1, nearest: vec![0] }]);
}

#[test]
fn nearest_is_the_own_node_then_the_nearer_one() {
    let mut machine = Machine::new("0-5", "0-5");
    for cpu in ["0", "1", "2", "3", "4", "5"] {
        machine = machine.llc(cpu, &[cpu]);
    }
    // Node 1 has memory only: it takes a column of the distances, but no index.
    let t = machine
        .node(0, "0-1", "10 99 30 20")
        .node(1, "", "99 10 99 99")
        .node(2, "2-3", "30 99 10 25")
        .node(3, "4-5", "20 99 25 10")
        .read();
    assert_eq!(t.nr_nodes, 3);
    assert_eq!(t.llcs[0].nearest, [1, 4, 5, 2, 3]);
    assert_eq!(t.llcs[1].nearest, [0, 4, 5, 2, 3]);
    assert_eq!(t.llcs[3].nearest, [2, 4, 5, 0, 1]);
}

#[test]
fn an_llc_across_nodes_is_split() {
    let t = Machine::new("0-3", "0-3")
        .llc("0-3", &["0", "1", "2", "3"])
        .node(0, "0-1", "10 20")
        .node(1, "2-3", "20 10")
        .read();
    assert_eq!(llcs(&t), [0, 0, 1, 1]);
    assert_eq!(t.llcs[1].node, 1);
}

#[test]
fn a_machine_that_tells_nothing() {
    let t = Machine::new("0-3", "0-3").read();
    assert_eq!((llcs(&t), cores(&t)), (vec![0; 4], vec![0, 1, 2, 3]));
    assert_eq!((t.llcs.len(), t.nr_nodes, t.smt), (1, 1, false));
}

#[test]
fn without_caches_the_package_stands_in() {
    let mut machine = Machine::new("0-3", "0-3");
    for (cpu, package) in ["0-1", "0-1", "2-3", "2-3"].iter().enumerate() {
        machine = machine.file(&format!("cpu/cpu{cpu}/topology/package_cpus_list"), package);
    }
    assert_eq!(llcs(&machine.read()), [0, 0, 1, 1]);
}

#[test]
fn a_cpu_that_comes_later_joins_its_cache_and_core() {
    let machine =
        Machine::new("0-3", "0-2").llc("0", &["0"]).llc("1-2", &["1", "2"]).node(0, "0-2", "10");
    let mut t = machine.read();
    assert!(!t.places[3].present);
    let before = t.clone();
    assert!(!t.refresh(&machine.host()));
    assert_eq!(t, before);

    let machine = machine.file("cpu/online", "0-3").llc("1-3", &["1", "2-3"]).node(0, "0-3", "10");
    assert!(t.refresh(&machine.host()));
    assert_eq!(t.places[3], Place { llc: 1, node: 0, core: CpuId(2), present: true });
    assert_eq!(t.places[..3], before.places[..3]);
}

#[test]
fn a_cpu_that_comes_later_with_an_unknown_cache_joins_its_node() {
    let machine = Machine::new("0-2", "0-1").llc("0", &["0"]).llc("1", &["1"]);
    let machine = machine.node(0, "0", "10 20").node(1, "1", "20 10");
    let mut t = machine.read();
    let machine = machine.file("cpu/online", "0-2").llc("2", &["2"]).node(1, "1-2", "20 10");
    assert!(t.refresh(&machine.host()));
    assert_eq!(t.places[2], Place { llc: 1, node: 1, core: CpuId(2), present: true });
}

#[test]
fn gaps_between_possible_cpus() {
    let t = Machine::new("0,4", "0,4").read();
    assert_eq!(t.possible, [CpuId(0), CpuId(4)]);
    assert_eq!(t.places.len(), 5);
    assert!(!t.places[2].present && t.places[4].present);
}

#[test]
fn no_list_of_cpus_is_an_error() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let error = Topology::read(&Host::at(empty.path())).expect_err("no CPUs");
    assert!(format!("{error:#}").contains("cpu/possible"), "{error:#}");
    let crowd = Machine::new("0-8192", "0");
    let error = Topology::read(&crowd.host()).expect_err("too many CPUs");
    assert!(error.to_string().contains("more than 8192"), "{error:#}");
}

#[test]
fn this_machine_can_be_read() {
    let t = Topology::read(&Host::real()).expect("a topology");
    assert!(t.places.iter().any(|place| place.present));
    assert!(t.cpu_elements().all(|c| (c.llc as usize) < t.llcs.len() && c.node < t.nr_nodes));
    assert!(t.llc_elements().all(|l| l.nr_nearest as usize == t.llcs.len() - 1));
}

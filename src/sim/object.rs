//! The kernel's half as native code: a copy of its own for each machine, opened from memory.
//!
//! The globals of the object are the machine's, so machines share nothing, and several can run at once.

use super::abi;
use crate::{
    bpf::{
        intf::{cpu_ctx, cpu_stats, decision, event, relay, relay_call},
        skel::types,
        wire::{self, Elements, Wire},
    },
    machine::topology::Topology,
    settings::{Relayed, Tuning},
};
use anyhow::{Context, Result, anyhow, ensure};
use libloading::os::unix::Library;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::{collections::BTreeMap, ffi::CStr, fs::File, io::Write, os::fd::AsRawFd, ptr::NonNull};

/// The object that comes along, compiled from `src/bpf/main.bpf.c` by the build script.
pub const BUILTIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sim.so"));

/// A program that user space runs.
pub type Program = unsafe extern "C" fn(*mut relay_call) -> i32;

/// An open copy, set up for a machine.
pub struct Object {
    table: NonNull<abi::sim_object>,
    /// The callbacks.
    pub ops: abi::sched_ext_ops,
    /// What a policy in user space calls.
    pub relay_apply: Option<Program>,
    /// Likewise.
    pub relay_idle_cpu: Option<Program>,
    /// The array `decisions`.
    pub decisions: Elements<decision>,
    /// The array `cpus`.
    pub states: Elements<cpu_ctx>,
    /// The map `stats`, an element a CPU.
    stats: Elements<cpu_stats>,
    /// The state of the relay.
    relay: Elements<relay>,
    ring_bytes: u64,
    /// What the maps hold, by name.
    _values: BTreeMap<String, Value>,
    // Dropped after all that is in it or refers to it.
    _library: Library,
    // Dropped last: the linker knows objects by their path, which names this descriptor. Another one of the same number
    // would be taken for the same object, and two machines would share their globals.
    _memory: File,
}

impl Object {
    /// Opens a copy and sets what user space sets before load: the same values, by the same code, as on a real machine.
    /// `relayed`: how a policy in user space is listened to.
    ///
    /// # Errors
    /// When the system has no memory for it, or `code` is no such object.
    pub fn open(
        code: &[u8],
        topology: &Topology,
        tuning: Tuning,
        relayed: Option<&Relayed>,
    ) -> Result<Self> {
        let memory = memfd_create(c"scheduler-sim", MFdFlags::MFD_CLOEXEC)
            .context("making room for a copy of the simulated kernel's half")?;
        let mut memory = File::from(memory);
        memory.write_all(code).context("copying the simulated kernel's half")?;
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        // SAFETY: an object of ours: it imports memcpy() at most, and runs nothing when it is opened.
        let library = unsafe { Library::open(Some(&path), nix::libc::RTLD_NOW) }
            .context("opening the simulated kernel's half")?;
        // SAFETY: the symbol, where it exists, is of that type; its size of the world is checked below.
        let table = unsafe { library.get::<*mut abi::sim_object>(b"sim_object\0") }
            .context("looking for the table of the simulated kernel's half")?;
        let table = NonNull::new(*table).ok_or_else(|| anyhow!("the table is nowhere"))?;
        // SAFETY: the object's own constant, read before anybody else knows of it.
        let object = unsafe { *table.as_ptr() };
        ensure!(
            object.world_bytes == size_of::<abi::sim_world>() as u64,
            "the simulated kernel's half was compiled against another kernel.h"
        );
        let nr_cpus = topology.places.len();
        let mask_bytes = nr_cpus.div_ceil(64) as u32 * 8;
        // SAFETY: pointers into the object's own data, of these types by the declaration of the table.
        let mut ops = unsafe {
            *object.rodata.nr_cpu_ids = nr_cpus as u32;
            *object.rodata.nr_llcs = topology.llcs.len() as u32;
            *object.rodata.nr_nodes = topology.nr_nodes;
            *object.rodata.smt_enabled = topology.smt;
            *object.rodata.relayed = relayed.is_some();
            *object.rodata.event_mask_bytes = mask_bytes;
            *object.rodata.event_bytes = size_of::<event>() as u32 + mask_bytes;
            *object.knobs.cast::<types::knobs>() = tuning.knobs(relayed);
            *object.ops
        };
        // As on a real machine whose kernel has it.
        ops.flags |= abi::SCX_OPS_ENQ_MIGRATION_DISABLED;
        let mut values = BTreeMap::new();
        for i in 0..object.nr_maps as usize {
            // SAFETY: the table has that many.
            let map = unsafe { *object.maps.add(i) };
            // SAFETY: a constant string of the object.
            let name = unsafe { CStr::from_ptr(map.name) }.to_str().unwrap_or_default();
            let (entries, bytes) = match name {
                "topo" => (nr_cpus, elements(topology.cpu_elements())),
                "llc_topo" => (topology.llcs.len(), elements(topology.llc_elements())),
                "cpus" => (nr_cpus, Vec::new()),
                "llcs" => (topology.llcs.len(), Vec::new()),
                "parts" => (topology.nr_parts(), Vec::new()),
                _ => (map.entries as usize, Vec::new()),
            };
            let copies = if map.type_ == abi::BPF_MAP_TYPE_PERCPU_ARRAY { nr_cpus } else { 1 };
            let value = Value::new(entries * copies * map.value_bytes as usize, &bytes);
            // SAFETY: two fields of the map's own declaration, which nobody else writes.
            unsafe {
                *map.values = value.0.as_ptr().cast();
                *map.max_entries = std::ptr::without_provenance_mut(entries);
            }
            values.insert(name.to_owned(), value);
        }
        let relay = NonNull::new(object.relay).ok_or_else(|| anyhow!("no state of the relay"))?;
        Ok(Self {
            table,
            ops,
            relay_apply: object.relay_apply,
            relay_idle_cpu: object.relay_idle_cpu,
            decisions: elements_of(&values, "decisions")?,
            states: elements_of(&values, "cpus")?,
            stats: elements_of(&values, "stats")?,
            // SAFETY: one of the object's own data, which goes after this.
            relay: unsafe { Elements::new(relay, 1) },
            ring_bytes: relayed.map_or(0, |relayed| relayed.ring_bytes.into()),
            _values: values,
            _library: library,
            _memory: memory,
        })
    }

    /// Room for events to a policy in user space, in bytes; 0 without one.
    pub fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// The state of the relay.
    pub fn relay(&self) -> relay {
        self.relay.read(0)
    }

    /// What each CPU has counted.
    pub fn stats(&self) -> impl Iterator<Item = cpu_stats> {
        (0..self.stats.len()).map(|cpu| self.stats.read(cpu))
    }

    /// What the callbacks look at: the clock, the CPU, the way back.
    pub fn world(&self) -> *mut abi::sim_world {
        // SAFETY: the table is a constant of the open object.
        unsafe { (*self.table.as_ptr()).world }
    }

    /// How long a runnable task may wait before the kernel ejects the scheduler, in nanoseconds.
    pub fn timeout_ns(&self) -> u64 {
        u64::from(self.ops.timeout_ms) * 1_000_000
    }
}

/// What a map holds: eight bytes aligned, as all of `intf.h`.
struct Value(NonNull<[u64]>);

impl Value {
    /// Zeros, but for what it begins with.
    fn new(size: usize, begins: &[u8]) -> Self {
        let mut value = vec![0u64; size.div_ceil(8)].into_boxed_slice();
        for (to, from) in value.iter_mut().zip(begins.chunks(8)) {
            let mut word = [0; 8];
            word[..from.len()].copy_from_slice(from);
            *to = u64::from_ne_bytes(word);
        }
        Self(NonNull::from(Box::leak(value)))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: it came from a box, in new(), and nobody else frees it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The elements of a map, which go before its value does: both are an object's.
fn elements_of<T: Wire>(values: &BTreeMap<String, Value>, name: &str) -> Result<Elements<T>> {
    let value = values.get(name).ok_or_else(|| anyhow!("there is no map '{name}'"))?;
    // SAFETY: the value is made of that many, aligned, and nobody has a reference to it.
    Ok(unsafe { Elements::new(value.0.cast(), value.0.len() * 8 / Elements::<T>::STRIDE) })
}

fn elements<T: Wire>(elements: impl Iterator<Item = T>) -> Vec<u8> {
    elements.flat_map(|element| wire::bytes(&element).to_vec()).collect()
}

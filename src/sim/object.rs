//! The kernel's half as native code: a copy of its own for each machine, opened from memory.
//!
//! The globals of the object are the machine's, so machines share nothing, and several can run at once.

use super::abi;
use crate::{
    bpf::{
        skel::types,
        wire::{self, Wire},
    },
    machine::topology::Topology,
    settings::Tuning,
};
use anyhow::{Context, Result, anyhow, ensure};
use libloading::os::unix::Library;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::{ffi::CStr, fs::File, io::Write, os::fd::AsRawFd, ptr::NonNull};

/// The object that comes along, compiled from `src/bpf/main.bpf.c` by the build script.
pub const BUILTIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sim.so"));

/// An open copy, set up for a machine.
pub struct Object {
    table: NonNull<abi::sim_object>,
    /// The callbacks.
    pub ops: abi::sched_ext_ops,
    /// What the maps hold. Eight bytes aligned, as all of `intf.h`.
    _values: Vec<Box<[u64]>>,
    // Dropped after all that is in it or refers to it.
    _library: Library,
    // Dropped last: the linker knows objects by their path, which names this descriptor. Another one of the same number
    // would be taken for the same object, and two machines would share their globals.
    _memory: File,
}

impl Object {
    /// Opens a copy and sets what user space sets before load: the same values, by the same code, as on a real machine.
    ///
    /// # Errors
    /// When the system has no memory for it, or `code` is no such object.
    pub fn open(code: &[u8], topology: &Topology, tuning: Tuning) -> Result<Self> {
        let memory = memfd_create(c"scheduler-sim", MFdFlags::MFD_CLOEXEC)
            .context("making room for a copy of the simulated kernel's half")?;
        let mut memory = File::from(memory);
        memory.write_all(code).context("copying the simulated kernel's half")?;
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        // SAFETY: an object of ours: it imports nothing and runs nothing when it is opened.
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
        // SAFETY: pointers into the object's own data, of these types by the declaration of the table.
        let mut ops = unsafe {
            *object.rodata.nr_cpu_ids = topology.places.len() as u32;
            *object.rodata.nr_llcs = topology.llcs.len() as u32;
            *object.rodata.nr_nodes = topology.nr_nodes;
            *object.rodata.smt_enabled = topology.smt;
            *object.knobs.cast::<types::knobs>() = tuning.knobs(None);
            *object.ops
        };
        // As on a real machine whose kernel has it.
        ops.flags |= abi::SCX_OPS_ENQ_MIGRATION_DISABLED;
        let mut values = Vec::new();
        for i in 0..object.nr_maps as usize {
            // SAFETY: the table has that many.
            let map = unsafe { *object.maps.add(i) };
            // SAFETY: a constant string of the object.
            let name = unsafe { CStr::from_ptr(map.name) }.to_str().unwrap_or_default();
            let (entries, bytes) = match name {
                "topo" => (topology.places.len(), elements(topology.cpu_elements())),
                "llc_topo" => (topology.llcs.len(), elements(topology.llc_elements())),
                "cpus" => (topology.places.len(), Vec::new()),
                "llcs" => (topology.llcs.len(), Vec::new()),
                "parts" => (topology.nr_parts(), Vec::new()),
                _ => (map.entries as usize, Vec::new()),
            };
            let copies =
                if map.type_ == abi::BPF_MAP_TYPE_PERCPU_ARRAY { topology.places.len() } else { 1 };
            let size = entries * copies * map.value_bytes as usize;
            let mut value = vec![0u64; size.div_ceil(8)].into_boxed_slice();
            for (to, from) in value.iter_mut().zip(bytes.chunks(8)) {
                let mut word = [0; 8];
                word[..from.len()].copy_from_slice(from);
                *to = u64::from_ne_bytes(word);
            }
            // SAFETY: two fields of the map's own declaration, which nobody else writes.
            unsafe {
                *map.values = value.as_mut_ptr().cast();
                *map.max_entries = std::ptr::without_provenance_mut(entries);
            }
            values.push(value);
        }
        Ok(Self { table, ops, _values: values, _library: library, _memory: memory })
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

fn elements<T: Wire>(elements: impl Iterator<Item = T>) -> Vec<u8> {
    elements.flat_map(|element| wire::bytes(&element).to_vec()).collect()
}

//! The recorder in the kernel: tracepoints, and what the running scheduler keeps of tasks and CPUs.

use crate::{
    bpf::{
        intf::traced,
        recorder::{RecorderSkel, RecorderSkelBuilder},
        wire,
    },
    exit::Failure,
    machine::preflight::{self, Host},
};
use anyhow::{Context, Result};
use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, OpenObject, RingBuffer, RingBufferBuilder,
    query::{MapInfoIter, ProgInfoIter, ProgInfoQueryOptions},
    skel::{OpenSkel, SkelBuilder},
};
use std::{cell::RefCell, collections::HashMap, mem::MaybeUninit, os::fd::AsFd, rc::Rc};

/// How the kernel calls the scheduler, before its version.
const OURS: &str = "scheduler_";

/// A program of the scheduler, by which its maps are found.
const OF_SCHEDULER: &str = "sched_running";

/// On the tracepoints until it is dropped.
pub struct Recorder<'obj> {
    skel: RecorderSkel<'obj>,
    links: Vec<Link>,
    /// Whether it knows why tasks run where they do.
    pub with_reasons: bool,
}

impl<'obj> Recorder<'obj> {
    /// Loads it; nothing is recorded yet. `ring_bytes` is a power of two, a page or more.
    ///
    /// # Errors
    /// As a load of the scheduler.
    pub fn load(
        host: &Host,
        ring_bytes: u32,
        storage: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Self, Failure> {
        load(host, ring_bytes, storage)
            .context("loading the recorder")
            .map_err(|error| preflight::explain(error, &preflight::tracing(host)))
    }

    /// Puts it on the tracepoints. What is recorded is given to `take` by [`Records::read`].
    ///
    /// # Errors
    /// When a tracepoint is not to be had.
    pub fn attach<'a>(&mut self, take: impl FnMut(&traced) + 'a) -> Result<Records<'a>> {
        let take = Rc::new(RefCell::new(take));
        let mut builder = RingBufferBuilder::new();
        builder.add(&self.skel.maps.ring, move |bytes| {
            if let Some(event) = wire::value(bytes) {
                (take.borrow_mut())(&event);
            }
            0
        })?;
        let ring = builder.build().context("mapping the recorder's ring")?;
        let programs = &mut self.skel.progs;
        for program in [
            &mut programs.record_switch,
            &mut programs.record_waking,
            &mut programs.record_wakeup_new,
            &mut programs.record_migrate,
        ] {
            let name = program.name().to_string_lossy().into_owned();
            let link = program.attach().with_context(|| format!("attaching {name}"))?;
            self.links.push(link);
        }
        Ok(Records(ring))
    }

    /// Begins or ends to record; what is in the ring can still be read then.
    pub fn set_recording(&mut self, on: bool) {
        if let Some(bss) = &mut self.skel.maps.bss_data {
            // SAFETY: a valid, aligned field of mapped memory, which the programs only read.
            unsafe { std::ptr::write_volatile(&mut bss.recording, on) }
        }
    }

    /// Events that the ring had no room for.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn lost(&self) -> Result<u64> {
        let cpus = self.skel.maps.lost.lookup_percpu(&[0; 4], MapFlags::ANY)?;
        let counts = cpus.context("the map of lost events is empty")?;
        Ok(counts
            .iter()
            .filter_map(|bytes| bytes.first_chunk().copied())
            .map(u64::from_ne_bytes)
            .sum())
    }
}

/// The ring.
pub struct Records<'a>(RingBuffer<'a>);

impl Records<'_> {
    /// Takes all that is there.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn read(&self) -> Result<()> {
        self.0.consume().context("reading the recorder's ring")
    }
}

fn load<'obj>(
    host: &Host,
    ring_bytes: u32,
    storage: &'obj mut MaybeUninit<OpenObject>,
) -> Result<Recorder<'obj>> {
    let mut skel = RecorderSkelBuilder::default().open(storage)?;
    let maps = &mut skel.maps;
    maps.ring.set_max_entries(ring_bytes)?;
    // Of rules, in a header that is shared.
    maps.ruling.set_autocreate(false)?;
    maps.rule_events.set_autocreate(false)?;
    // Programs of one that ended just now may still be there.
    let ours = preflight::attached_scheduler(host).is_some_and(|name| name.starts_with(OURS));
    let running = if ours { maps_of_scheduler() } else { HashMap::new() };
    let mut shared = [&mut maps.topo, &mut maps.cpus, &mut maps.llcs, &mut maps.task_ctxs];
    // All of them, and as this version has them, or none.
    let with_reasons = shared.iter().all(|map| {
        let name = map.name().to_string_lossy().into_owned();
        running.get(&name).is_some_and(|handle| handle.value_size() == map.value_size())
    });
    if with_reasons {
        for map in &mut shared {
            let name = map.name().to_string_lossy().into_owned();
            if let Some(handle) = running.get(&name) {
                map.reuse_fd(handle.as_fd()).with_context(|| format!("sharing the map {name}"))?;
            }
        }
    }
    let rodata = skel.maps.rodata_data.as_mut().context("no .rodata")?;
    rodata.with_reasons = with_reasons;
    Ok(Recorder { skel: skel.load()?, links: Vec::new(), with_reasons })
}

/// The maps of the scheduler that was loaded last, by name; none where we may not look.
fn maps_of_scheduler() -> HashMap<String, MapHandle> {
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let ids: Vec<u32> = ProgInfoIter::with_query_opts(options)
        .filter(|program| program.name == OF_SCHEDULER)
        .flat_map(|program| program.map_ids)
        .collect();
    MapInfoIter::default()
        .filter(|map| ids.contains(&map.id))
        .filter_map(|map| {
            Some((map.name.to_string_lossy().into_owned(), MapHandle::from_map_id(map.id).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_without_privileges() {
        let mut storage = MaybeUninit::uninit();
        let skel = RecorderSkelBuilder::default().open(&mut storage).expect("opens");
        assert_eq!(skel.open_object().progs().count(), 4);
    }
}

//! The observer in the kernel: how long tasks wait for a CPU, by tracepoints.

use crate::{
    bpf::{
        intf::{self, waits},
        observer::{ObserverSkel, ObserverSkelBuilder},
        wire,
    },
    exit::Failure,
    machine::preflight::{self, Host},
    stats::hist,
    units::Nanos,
};
use anyhow::{Context, Result, anyhow};
use libbpf_rs::{
    MapCore, MapFlags, OpenObject,
    skel::{OpenSkel, Skel, SkelBuilder},
};
use std::{mem::MaybeUninit, process};

/// Attached to the tracepoints until it is dropped.
pub struct Observer<'obj> {
    skel: ObserverSkel<'obj>,
}

impl<'obj> Observer<'obj> {
    /// Loads and attaches it. What this process starts from here on is the command.
    pub fn attach(
        host: &Host,
        storage: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Self, Failure> {
        let skel = load(storage)
            .context("attaching the observer to the kernel's scheduling tracepoints")
            .map_err(|error| preflight::explain(error, &preflight::full(host)))?;
        Ok(Self { skel })
    }

    /// Waits so far, of the command's tasks and of all others.
    pub fn waits(&self) -> Result<[Waits; intf::waiters_NR_WAITERS as usize]> {
        let mut all = [Waits::default(), Waits::default()];
        for (key, sum) in (0u32..).zip(&mut all) {
            let map = &self.skel.maps.waits;
            let cpus = map.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)?;
            for bytes in cpus.context("the map of waits is empty")? {
                let cpu: waits = wire::value(&bytes).context("short counts")?;
                for (slot, count) in sum.0.iter_mut().zip(cpu.hist) {
                    *slot += count;
                }
            }
        }
        Ok(all)
    }
}

fn load(storage: &mut MaybeUninit<OpenObject>) -> Result<ObserverSkel<'_>> {
    let mut skel = ObserverSkelBuilder::default().open(storage)?;
    let rodata = skel.maps.rodata_data.as_mut().ok_or_else(|| anyhow!("no .rodata"))?;
    rodata.starter_tgid = i32::try_from(process::id())?;
    let mut skel = skel.load()?;
    skel.attach()?;
    Ok(skel)
}

/// A histogram of waits for a CPU.
#[derive(Debug, Clone)]
pub struct Waits(Vec<u64>);

impl Default for Waits {
    fn default() -> Self {
        Self(vec![0; hist::SLOTS])
    }
}

impl Waits {
    /// What came since an earlier reading.
    pub fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// The wait that a share of all (0 to 1) stays below, rounded up to the end of its slot; none
    /// if nobody waited.
    pub fn percentile(&self, share: f64) -> Option<Nanos> {
        hist::percentile(&self.0, share, hist::slot_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_since_counts() {
        let mut before = Waits::default();
        before.0[200] = 7;
        let mut after = before.clone();
        after.0[3] += 99;
        after.0[9] += 1;
        let waits = after.since(&before);
        assert_eq!(waits.percentile(0.99), Some(hist::slot_end(3)));
        assert_eq!(waits.percentile(1.0), Some(hist::slot_end(9)));
        assert_eq!(before.since(&before).percentile(0.5), None);
    }

    #[test]
    fn it_opens_without_privileges() {
        let mut storage = MaybeUninit::uninit();
        let skel = ObserverSkelBuilder::default().open(&mut storage).expect("opens");
        assert_eq!(skel.open_object().progs().count(), 4);
    }
}

//! The scheduler in the kernel: open → configure → load → attach → exit report.

use super::{
    ejection::ExitReport,
    enums::KernelEnums,
    preflight::{self, Host},
    program::Program,
    topology::Topology,
};
use crate::{
    bpf::{
        self,
        intf::{event, explained},
        skel::{BpfSkel, BpfSkelBuilder, OpenBpfSkel, types},
        wire::{self, Wire},
    },
    exit::{Exit, Failure},
    settings::Settings,
};
use anyhow::{Context, Result, anyhow, ensure};
use libbpf_rs::{
    Link, MapCore, MapFlags, OpenObject, ProgramInput, ProgramMut,
    skel::{OpenSkel, SkelBuilder},
};
use std::{
    fs::File,
    mem::MaybeUninit,
    os::unix::fs::FileExt,
    ptr,
    time::{Duration, Instant},
};

/// `SCX_EXIT_DUMP_DFL_LEN`: the size of the dump where none is asked for.
const DUMP_LEN_DEFAULT: u32 = 32_768;
/// How long the kernel may take to call ops.exit after it was told to detach.
const EXIT_WAIT: Duration = Duration::from_millis(500);

/// A loaded scheduler; attached between [`attach`](Self::attach) and [`detach`](Self::detach).
/// Dropping it detaches it, too.
pub struct Scheduler<'obj> {
    // Dropped first: the programs go when nothing uses them.
    link: Option<Link>,
    tasks: Option<Link>,
    skel: BpfSkel<'obj>,
    host: Host,
    topology: Topology,
    hotplug: Hotplug,
}

impl<'obj> Scheduler<'obj> {
    /// Loads the programs for this machine, without attaching them. `storage` is where libbpf's
    /// object lives.
    ///
    /// # Errors
    /// With the result of the preflight checks, if one of them explains it.
    pub fn load(
        settings: &Settings,
        host: &Host,
        storage: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Self, Failure> {
        // Read before the topology: a change in between is then seen as one to follow.
        let hotplug = Hotplug::watch(host);
        let topology = Topology::read(host)?;

        let skel = open(settings, &topology, storage)
            .and_then(|skel| skel.load().context("loading the BPF programs into the kernel"))
            .map_err(|error| preflight::explain(error, &preflight::full(host)))?;
        let scheduler =
            Self { link: None, tasks: None, skel, host: host.clone(), topology, hotplug };
        scheduler.associate_programs();
        scheduler.write_topology()?;
        Ok(scheduler)
    }

    /// Attaches it. When this returns, the kernel has it enabled.
    ///
    /// # Errors
    /// [`Exit::Busy`] when another scheduler was faster, otherwise with the kernel's report.
    pub fn attach(&mut self) -> Result<(), Failure> {
        match self.skel.maps.scheduler_ops.attach_struct_ops() {
            Ok(link) => self.link = Some(link),
            Err(error) => {
                let error = anyhow::Error::from(error).context("attaching the scheduler");
                return Err(preflight::explain(error, &preflight::full(&self.host)));
            }
        }
        if self.is_ejected() {
            return Err(Failure::new(Exit::Failed, self.detach().to_string()));
        }
        let state = self.host.read("sys/kernel/sched_ext/state")?;
        ensure_enabled(&state)?;
        Ok(())
    }

    /// Whether the kernel has detached it.
    pub fn is_ejected(&self) -> bool {
        self.exit_kind() != 0
    }

    /// Detaches it and returns why it ended.
    pub fn detach(&mut self) -> ExitReport {
        self.link = None;
        let deadline = Instant::now() + EXIT_WAIT;
        while self.exit_kind() == 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let Some(data) = &self.skel.maps.data_data else { return ExitReport::default() };
        let uei = &data.uei;
        let dump = self.skel.maps.data_uei_dump.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        ExitReport::decode(
            self.exit_kind(),
            uei.exit_code,
            uei.exit_cpu,
            &uei.reason.map(|c| c as u8),
            &uei.msg.map(|c| c as u8),
            &dump.ok().flatten().unwrap_or_default(),
        )
    }

    /// Follows CPUs that came online for the first time. Cheap when nothing happened.
    ///
    /// # Errors
    /// When the kernel does not take the new topology.
    pub fn follow_hotplug(&mut self) -> Result<()> {
        if !self.hotplug.happened() || !self.topology.refresh(&self.host) {
            return Ok(());
        }
        log::info!("CPUs came online for the first time: telling the kernel where they are");
        self.write_topology()?;
        run(&self.skel.progs.refresh_topology).context("telling the kernel of new CPUs")
    }

    /// How it stands with the policy in user space.
    pub fn relay_state(&self) -> RelayState {
        self.skel.maps.data_data.as_ref().map_or_else(RelayState::default, |data| {
            // SAFETY: valid, aligned fields of mapped memory; the kernel writes them at any time.
            unsafe {
                RelayState {
                    late_since: ptr::read_volatile(&data.relay.late_at),
                    late_ns: ptr::read_volatile(&data.relay.late_ns),
                }
            }
        })
    }

    /// Has the kernel's half take over the sets of CPUs that rules prefer.
    pub(super) fn refresh_cpu_sets(&self) -> Result<()> {
        run(&self.skel.progs.refresh_cpu_sets).context("telling the kernel which CPUs rules prefer")
    }

    /// How it stands with a task; none if there is none of that number.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn explain(&self, pid: i32) -> Result<Option<explained>> {
        let mut call = explained { pid, ..wire::zero() };
        let program = Program::of(&self.skel.progs.explain_task)?;
        program.call(&mut call).context("asking the kernel about a task")?;
        Ok((call.found != 0).then_some(call))
    }

    /// Where the CPUs are.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Makes the kernel's half keep figures of each task, and returns the link of the iterator over them.
    pub(super) fn keep_tasks(&mut self) -> Result<&Link> {
        self.set_task_stats(true);
        let link = match self.tasks.take() {
            Some(link) => link,
            None => self.skel.progs.tasks.attach().context("attaching the iterator over tasks")?,
        };
        Ok(self.tasks.insert(link))
    }

    /// Nobody reads figures of tasks any more: the kernel's half need not keep them.
    pub fn forget_tasks(&mut self) {
        self.set_task_stats(false);
        self.tasks = None;
    }

    /// Gives the kernel's half other figures to decide by. Each is good beside those that it replaces: a callback under
    /// way may see some of both. Whether figures of tasks are kept is for those who read them to say.
    pub fn tune(&mut self, knobs: types::knobs) {
        let Some(data) = &mut self.skel.maps.data_data else { return };
        let to = &mut data.knobs;
        for (to, value) in [
            (&mut to.slice_max_ns, knobs.slice_max_ns),
            (&mut to.slice_min_ns, knobs.slice_min_ns),
            (&mut to.lag_max_ns, knobs.lag_max_ns),
            (&mut to.lag_runnable_ns, knobs.lag_runnable_ns),
            (&mut to.request_min_ns, knobs.request_min_ns),
            (&mut to.preempt_gran_vns, knobs.preempt_gran_vns),
            (&mut to.preempt_gap_ns, knobs.preempt_gap_ns),
            (&mut to.grace_ns, knobs.grace_ns),
            (&mut to.idle_direct, knobs.idle_direct),
        ] {
            // SAFETY: a valid, aligned field of mapped memory, which the kernel's half only reads.
            unsafe { ptr::write_volatile(to, value) }
        }
    }

    fn set_task_stats(&mut self, on: bool) {
        if let Some(data) = &mut self.skel.maps.data_data {
            // SAFETY: a valid, aligned field of mapped memory, which the kernel's half only reads.
            unsafe { ptr::write_volatile(&mut data.knobs.task_stats, on.into()) }
        }
    }

    /// The machine that it is loaded on.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The programs and maps.
    pub(crate) fn skel(&self) -> &BpfSkel<'obj> {
        &self.skel
    }

    fn exit_kind(&self) -> i32 {
        self.skel.maps.data_data.as_ref().map_or(0, |data| {
            // SAFETY: a valid, aligned field of mapped memory; the kernel writes it at any time.
            unsafe { ptr::read_volatile(&data.uei.kind) }
        })
    }

    /// Kernels that have nested schedulers want to know which one a program belongs to.
    fn associate_programs(&self) {
        let programs = &self.skel.progs;
        let called = [
            &programs.snapshot,
            &programs.refresh_topology,
            &programs.tasks,
            &programs.explain_task,
            &programs.refresh_cpu_sets,
            &programs.rule_hurry,
            &programs.relay_apply,
            &programs.relay_idle_cpu,
        ];
        for program in called {
            if !program.autoload() {
                continue;
            }
            if let Err(error) = program.assoc_struct_ops(&self.skel.maps.scheduler_ops) {
                log::debug!("{:?} stays without association: {error:#}", program.name());
            }
        }
    }

    fn write_topology(&self) -> Result<()> {
        write_all(&self.skel.maps.topo, self.topology.cpu_elements())
            .and_then(|()| write_all(&self.skel.maps.llc_topo, self.topology.llc_elements()))
            .context("telling the kernel where the CPUs are")
    }
}

/// Whether the kernel's half has taken over from the policy in user space.
#[derive(Debug, Clone, Copy, Default)]
pub struct RelayState {
    /// Since when, in nanoseconds of its clock; 0: it has not.
    pub late_since: u64,
    /// How long it had, all together, without the spell under way.
    pub late_ns: u64,
}

/// Opens the object and sets everything that is fixed from load on.
fn open<'obj>(
    settings: &Settings,
    topology: &Topology,
    storage: &'obj mut MaybeUninit<OpenObject>,
) -> Result<OpenBpfSkel<'obj>> {
    let mut skel = BpfSkelBuilder::default().open(storage).context("opening the BPF object")?;

    let enums = KernelEnums::read()?;
    let dump_len = match settings.exit_dump_len {
        0 => DUMP_LEN_DEFAULT,
        len => len,
    };
    skel.maps.data_uei_dump.set_value_size(dump_len).context("sizing the dump")?;

    let nr_cpu_ids = topology.places.len() as u32;
    let nr_llcs = topology.llcs.len() as u32;
    let rodata = skel.maps.rodata_data.as_mut().ok_or_else(|| anyhow!("no .rodata"))?;
    bpf::enums::set(rodata, |name| enums.value(name));
    rodata.uei_dump_len = dump_len;
    rodata.nr_cpu_ids = nr_cpu_ids;
    rodata.nr_llcs = nr_llcs;
    rodata.nr_nodes = topology.nr_nodes;
    rodata.smt_enabled = topology.smt;
    rodata.relayed = settings.relayed.is_some();
    let mask_bytes = nr_cpu_ids.div_ceil(64) * 8;
    rodata.event_mask_bytes = mask_bytes;
    rodata.event_bytes = size_of::<event>() as u32 + mask_bytes;
    let data = skel.maps.data_data.as_mut().ok_or_else(|| anyhow!("no .data"))?;
    data.knobs = settings.tuning.knobs(settings.relayed.as_ref());

    skel.maps.cpus.set_max_entries(nr_cpu_ids).context("sizing the map of CPUs")?;
    skel.maps.topo.set_max_entries(nr_cpu_ids).context("sizing the map of CPUs")?;
    skel.maps.llcs.set_max_entries(nr_llcs).context("sizing the map of LLCs")?;
    let nr_parts = topology.nr_parts() as u32;
    skel.maps.parts.set_max_entries(nr_parts).context("sizing the map of parts of LLCs")?;
    skel.maps.llc_topo.set_max_entries(nr_llcs).context("sizing the map of LLCs")?;

    if let Some(relayed) = settings.relayed {
        skel.maps
            .events
            .set_max_entries(relayed.ring_bytes)
            .context("sizing the ring of events")?;
    } else {
        // What is only for a policy in user space is unreachable, and need not be there.
        let maps = &mut skel.maps;
        for map in [&mut maps.events, &mut maps.decisions, &mut maps.relay_timers] {
            map.set_autocreate(false).context("leaving a map out")?;
        }
        skel.progs.relay_apply.set_autoload(false);
        skel.progs.relay_idle_cpu.set_autoload(false);
        skel.struct_ops.scheduler_ops_mut().exit_task = ptr::null_mut();
    }

    if settings.verbosity >= 2 {
        // Among libbpf's debug messages is then what each program cost the verifier.
        const VERIFIER_STATISTICS: u32 = 4;
        for mut program in skel.open_object_mut().progs_mut() {
            program.set_log_level(VERIFIER_STATISTICS);
        }
    }

    // Comes with the common header for a function that we do not use, and needs
    // CONFIG_FUNCTION_TRACER.
    skel.progs.scx_lib_init_probe.set_autoload(false);

    let ops = skel.struct_ops.scheduler_ops_mut();
    // ops.hotplug_seq stays 0, "do not check": we follow hotplug.
    ops.exit_dump_len = settings.exit_dump_len;
    // Where the kernel can, it would keep these tasks on their CPU by itself, and takes for one
    // whomever a real-time task displaces, whose count BPF's own entry code has raised.
    ops.flags |= enums.value("SCX_OPS_ENQ_MIGRATION_DISABLED");
    if settings.partial {
        ops.flags |= enums.value("SCX_OPS_SWITCH_PARTIAL");
    }
    // The last byte stays NUL.
    let room = ops.name.len() - 1;
    for (to, from) in ops.name[..room].iter_mut().zip(ops_name().bytes()) {
        *to = from as _;
    }
    Ok(skel)
}

/// What `/sys/kernel/sched_ext/root/ops` reads: letters, digits, `_` and `.` only.
fn ops_name() -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    format!("scheduler_{}", env!("CARGO_PKG_VERSION")).chars().map(allowed).collect()
}

fn ensure_enabled(state: &str) -> Result<()> {
    ensure!(
        state == "enabled",
        "attached, but /sys/kernel/sched_ext/state reads {state:?} instead of \"enabled\"; \
         dmesg may say why"
    );
    Ok(())
}

/// Writes the elements of an array map, from index 0.
fn write_all<T: Wire>(map: &impl MapCore, elements: impl Iterator<Item = T>) -> Result<()> {
    for (key, element) in (0u32..).zip(elements) {
        map.update(&key.to_ne_bytes(), wire::bytes(&element), MapFlags::ANY)?;
    }
    Ok(())
}

/// Runs a SYSCALL program.
pub(super) fn run(program: &ProgramMut<'_>) -> Result<()> {
    let output = program.test_run(ProgramInput::default())?;
    let code = output.return_value as i32;
    ensure!(code == 0, "the BPF program returned {code}");
    Ok(())
}

/// Notices CPU hotplug by the kernel's own counter of such events.
struct Hotplug {
    /// Kept open: it is read several times a second.
    counter: Option<File>,
    seen: Option<Vec<u8>>,
}

impl Hotplug {
    fn watch(host: &Host) -> Self {
        let counter = File::open(host.path("sys/kernel/sched_ext/hotplug_seq")).ok();
        let mut hotplug = Self { counter, seen: None };
        hotplug.seen = hotplug.read();
        hotplug
    }

    fn read(&self) -> Option<Vec<u8>> {
        let mut text = [0; 32];
        let n = self.counter.as_ref()?.read_at(&mut text, 0).ok()?;
        Some(text[..n].to_vec())
    }

    /// Whether there was an event since the last call.
    fn happened(&mut self) -> bool {
        let now = self.read();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_name_is_one_that_the_kernel_takes() {
        let name = ops_name();
        assert!(name.starts_with("scheduler_") && name.len() < 128);
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c)), "{name}");
    }

    #[test]
    fn hotplug_is_seen_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("sys/kernel/sched_ext");
        fs::create_dir_all(&path).expect("mkdir");
        fs::write(path.join("hotplug_seq"), "7\n").expect("write");
        let mut hotplug = Hotplug::watch(&Host::at(dir.path()));
        assert!(!hotplug.happened());
        fs::write(path.join("hotplug_seq"), "8\n").expect("write");
        assert!(hotplug.happened());
        assert!(!hotplug.happened());
    }

    #[test]
    fn the_object_needs_no_kernel_configuration() {
        // libbpf would read /boot/config or /proc/config.gz for a CONFIG_ extern, and fail the
        // load where neither is there.
        let mut storage = MaybeUninit::uninit();
        let skel = BpfSkelBuilder::default().open(&mut storage).expect("opens without privileges");
        let kconfig =
            skel.open_object().maps().any(|map| map.name().to_string_lossy().ends_with(".kconfig"));
        assert!(!kconfig);
    }

    #[test]
    fn state_must_be_enabled() {
        assert!(ensure_enabled("enabled").is_ok());
        let error = ensure_enabled("disabling").expect_err("not enabled");
        assert!(error.to_string().contains("disabling"));
    }
}

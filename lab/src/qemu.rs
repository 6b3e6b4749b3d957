//! One boot of a guest under QEMU, without hardware virtualization.

use crate::{initramfs::Initramfs, kernel::Kernel};
use anyhow::{Context, Result};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = "qemu-system-x86_64";

/// How virtual CPUs share time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// A host thread for each virtual CPU: real parallelism, real races, the host's noise.
    Parallel,
    /// Time is the count of executed instructions, and CPUs take turns: one run is every run.
    Deterministic,
}

/// The processors of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topology<'a> {
    /// QEMU's `-smp`.
    pub smp: &'a str,
    /// The CPUs of each NUMA node, as `FIRST-LAST`; none: one node, as the kernel sees it by default.
    pub nodes: &'a [&'a str],
}

impl Topology<'static> {
    /// One socket of four cores.
    pub const FOUR: Self = Self { smp: "4", nodes: &[] };
    /// One core: in a deterministic guest, times are then this CPU's alone.
    pub const ONE: Self = Self { smp: "1", nodes: &[] };
    /// Two cores: in a deterministic guest all CPUs share one stream of instructions, so fewer are faster.
    pub const TWO: Self = Self { smp: "2", nodes: &[] };
    /// Two sockets of two cores: two last-level caches.
    pub const TWO_SOCKETS: Self = Self { smp: "4,sockets=2,cores=2", nodes: &[] };
    /// Two cores of two hardware threads.
    pub const THREADS: Self = Self { smp: "4,cores=2,threads=2", nodes: &[] };
    /// Two NUMA nodes, a socket of two cores each.
    pub const TWO_NODES: Self = Self { smp: "4,sockets=2,cores=2", nodes: &["0-1", "2-3"] };
}

/// A guest that can be booted.
pub struct Guest<'a> {
    /// The kernel to boot.
    pub kernel: &'a Kernel,
    /// Its processors.
    pub topology: Topology<'a>,
    /// How they share time.
    pub mode: Mode,
    /// Memory in MiB, all nodes together.
    pub memory_mib: u32,
    /// Words for the kernel's command line.
    pub append: &'a str,
}

/// Distance of the virtual timer that narrows the turns of virtual CPUs, in ticks of 10 ns (100 µs).
/// See `init::narrow_turns`.
pub const TURN_TICKS: u32 = 10_000;

/// A booted guest. It dies with this value.
pub struct Running {
    qemu: Child,
    results: File,
    partial: String,
    console: PathBuf,
    log: PathBuf,
}

impl Guest<'_> {
    /// Boots. `folder` receives the archive, the console's text and the results.
    pub fn boot(&self, initramfs: &Initramfs, folder: &Path) -> Result<Running> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let archive = folder.join("initramfs.cpio");
        let console = folder.join("console.log");
        let results = folder.join("results.log");
        let log = folder.join("qemu.log");
        let mut out = BufWriter::new(File::create(&archive)?);
        initramfs.write(&mut out).and_then(|()| out.flush()).context("writing the initramfs")?;
        File::create(&results).context("creating the file of results")?;

        let mut command = self.command(&archive, &console, &results);
        // SAFETY: between fork and exec, this only makes a system call.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting qemu-system-x86_64: run scripts/setup.sh")?;
        Ok(Running { qemu, results: File::open(results)?, partial: String::new(), console, log })
    }

    /// All that QEMU is told, but for the paths of files.
    pub fn fingerprint(&self) -> String {
        let nowhere = Path::new("");
        let command = self.command(nowhere, nowhere, nowhere);
        let args = command.get_args().filter(|arg| *arg != self.kernel.image.as_os_str());
        args.map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn command(&self, archive: &Path, console: &Path, results: &Path) -> Command {
        let mut qemu = Command::new(PROGRAM);
        qemu.args(["-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot"]);
        qemu.args(["-m", &self.memory_mib.to_string(), "-smp", self.topology.smp]);
        for (id, cpus) in self.topology.nodes.iter().enumerate() {
            let size_mib = self.memory_mib as usize / self.topology.nodes.len();
            qemu.args(["-object", &format!("memory-backend-ram,id=m{id},size={size_mib}M")]);
            qemu.args(["-numa", &format!("node,nodeid={id},cpus={cpus},memdev=m{id}")]);
        }
        // The crypto self-tests would hog CPUs through the first seconds.
        let mut append = "console=ttyS0 quiet panic=-1 cryptomgr.notests".to_owned();
        match self.mode {
            Mode::Parallel => {
                qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
                // The kernel waits ten ticks for the timer's interrupt and panics without it; on a busy host it is late.
                append += " no_timer_check";
            }
            Mode::Deterministic => {
                qemu.args([
                    "-accel",
                    "tcg",
                    "-icount",
                    "shift=1,sleep=off",
                    "-cpu",
                    "max,-rdrand,-rdseed",
                ]);
                qemu.args([
                    "-rtc",
                    "base=2026-01-01,clock=vm",
                    "-global",
                    "hpet.hpet-intcap=0xf00004",
                ]);
                append += " nokaslr random.trust_cpu=off norandmaps tsc=reliable iomem=relaxed";
                append += &format!(" lab.turn={TURN_TICKS}");
            }
        }
        append += &format!(" {}", self.append);
        qemu.arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(archive)
            .args(["-append", &append]);
        for port in [console, results] {
            qemu.arg("-serial").arg(format!("file:{}", port.display()));
        }
        qemu
    }
}

/// The version of the QEMU that boots guests, as `10.0.2`.
pub fn version() -> Result<String> {
    let out = Command::new(PROGRAM)
        .arg("--version")
        .output()
        .context("starting qemu-system-x86_64: run scripts/setup.sh")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let word = text.split_whitespace().nth(3).context("asking QEMU for its version")?;
    Ok(word.to_owned())
}

/// What [`Running::next_line`] came back with.
pub enum Event {
    /// A line from the guest.
    Line(String),
    /// The guest is off. How QEMU ended, and what it said.
    Off(String),
    /// Nothing came within the limit.
    Silence,
}

impl Running {
    /// Waits for the next line on the port of results.
    pub fn next_line(&mut self, limit: Duration) -> Result<Event> {
        const POLL: Duration = Duration::from_millis(50);
        let end = Instant::now() + limit;
        loop {
            let off = self.qemu.try_wait().context("waiting for QEMU")?;
            let mut bytes = Vec::new();
            self.results.read_to_end(&mut bytes).context("reading results")?;
            self.partial += &String::from_utf8_lossy(&bytes);
            if let Some((line, rest)) = self.partial.split_once('\n') {
                let line = line.trim_end_matches('\r').to_owned();
                self.partial = rest.to_owned();
                return Ok(Event::Line(line));
            }
            if let Some(status) = off {
                let said = fs::read(&self.log).unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                return Ok(Event::Off(format!("QEMU ended with {status}: {}", said.trim())));
            }
            if Instant::now() >= end {
                return Ok(Event::Silence);
            }
            thread::sleep(POLL);
        }
    }

    /// What the guest's console has shown.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }
}

/// The last lines of a console.
pub fn tail(console: &str, lines: usize) -> String {
    let all: Vec<&str> = console.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

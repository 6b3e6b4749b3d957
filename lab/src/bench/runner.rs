//! Runs cells: one guest for each scheduler, scenario, number of CPUs and sample. What a guest reported is
//! kept under a hash of all that decides it, so that nothing is run twice.

use super::{candidate::Candidate, progress::Progress, scenario::Scenario};
use crate::{
    boot::EMULATOR_FAULT,
    initramfs::Initramfs,
    kernel::Kernel,
    qemu::{self, Event, Guest, Mode, Topology},
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use lab_guest::plan::{Idle, Message, PLAN, Plan, Record, SAMPLE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// What all cells of a run share.
pub struct Runner {
    /// The kernel that boots.
    pub kernel: Kernel,
    /// How virtual CPUs share time.
    pub mode: Mode,
    /// Samples of each cell.
    pub samples: u64,
    /// Guests at a time.
    pub jobs: usize,
    /// `qemu-system-x86_64 --version`.
    pub qemu: String,
    kernel_hash: String,
    /// The program that is process 1 in the guests.
    guest: PathBuf,
    /// Where samples are kept and guests leave their files.
    cache: PathBuf,
}

/// A scheduler in a scenario on a number of CPUs.
pub struct Cell<'a> {
    /// What runs.
    pub scenario: &'a Scenario,
    /// One of the scenario's `cpus`.
    pub cpus: &'a str,
    /// Under which scheduler.
    pub candidate: &'a Candidate,
}

/// A kept sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// What the guest reported.
    pub record: Record,
    /// What it took on the host.
    pub host_s: f64,
}

/// A sample to be taken.
struct Job<'a> {
    cell: &'a Cell<'a>,
    files: &'a Files,
    number: u64,
}

/// The files of a cell's guests and their hash: made for its first sample, dropped after its last.
struct Files {
    made: Mutex<Option<Arc<(Initramfs, String)>>>,
    left: AtomicU64,
}

/// The samples of a cell that succeeded, in order.
pub struct Finished<'a> {
    /// The cell.
    pub cell: Cell<'a>,
    /// Its samples.
    pub samples: Vec<Sample>,
}

impl Cell<'_> {
    fn title(&self) -> String {
        format!("{} · {} CPUs · {}", self.scenario.name, self.cpus, self.candidate.name)
    }
}

impl Files {
    fn new(samples: u64) -> Self {
        Self { made: Mutex::new(None), left: AtomicU64::new(samples) }
    }

    fn of(&self, runner: &Runner, cell: &Cell<'_>) -> Result<Arc<(Initramfs, String)>> {
        let mut made = lock(&self.made);
        if let Some(files) = &*made {
            return Ok(files.clone());
        }
        let initramfs = runner.initramfs(cell.scenario, cell.candidate)?;
        let mut hash = Sha256::new();
        initramfs.write(&mut Hashing(&mut hash)).context("hashing the initramfs")?;
        let files = Arc::new((initramfs, hex(&hash.finalize())));
        *made = Some(files.clone());
        Ok(files)
    }

    fn release(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            *lock(&self.made) = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// Looks for QEMU and takes the kernel's hash. `guest` is the program `lab-guest`.
    pub fn new(kernel: Kernel, mode: Mode, guest: &Path, cache: PathBuf) -> Result<Self> {
        const OLDEST: u32 = 10;
        let qemu = qemu::version()?;
        let major = qemu.split('.').next().and_then(|word| word.parse().ok());
        ensure!(
            mode == Mode::Parallel || major >= Some(OLDEST),
            "deterministic guests need QEMU {OLDEST} or later, this is {qemu}: run scripts/setup.sh"
        );
        ensure!(guest.is_file(), "{} is missing: build the whole lab crate", guest.display());
        let image = fs::read(&kernel.image)
            .with_context(|| format!("reading {}", kernel.image.display()))?;
        let kernel_hash = hex(&Sha256::digest(image));
        let guest = guest.to_owned();
        Ok(Self { kernel, mode, samples: 1, jobs: 1, qemu, kernel_hash, guest, cache })
    }

    /// Runs these cells, `jobs` guests at a time, and returns what succeeded. `failures` receives a line for each
    /// sample that did not.
    pub fn run<'a>(&self, cells: Vec<Cell<'a>>, failures: &mut Vec<String>) -> Vec<Finished<'a>> {
        let progress = Progress::new(cells.len() as u64 * self.samples);
        let files: Vec<Files> = cells.iter().map(|_| Files::new(self.samples)).collect();
        let queue = cells.iter().zip(&files).flat_map(|(cell, files)| {
            (0..self.samples).map(move |number| Job { cell, files, number })
        });
        let queue = Mutex::new(queue.enumerate().collect::<VecDeque<_>>());
        let results = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    loop {
                        let next = lock(&queue).pop_front();
                        let Some((place, job)) = next else { break };
                        let title = format!("{} · sample {}", job.cell.title(), job.number + 1);
                        let result = self.sample(&job, &progress, &title);
                        job.files.release();
                        let result = result.map_err(|error| format!("{title}: {error:#}"));
                        if let Err(line) = &result {
                            progress.line(&format!("FAIL  {line}"));
                        }
                        progress.done();
                        lock(&results).insert(place, result);
                    }
                });
            }
        });
        let mut results =
            results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values();
        let finished = cells.into_iter().map(|cell| {
            let mut samples = Vec::new();
            for result in results.by_ref().take(self.samples as usize) {
                match result {
                    Ok(sample) => samples.push(sample),
                    Err(line) => failures.push(line),
                }
            }
            Finished { cell, samples }
        });
        finished.collect()
    }

    /// The guest's files: process 1, busybox, the tools of the scenario, the scheduler and its plan. Equal for
    /// all samples, and without anything that another scheduler needs.
    pub fn initramfs(&self, scenario: &Scenario, candidate: &Candidate) -> Result<Initramfs> {
        let mut initramfs = Initramfs::default();
        initramfs.program("init", &self.guest)?.link("bin/probe", "/init");
        initramfs.tool("busybox")?.link("bin/sh", "busybox");
        initramfs.file("etc/passwd", "root:x:0:0:root:/:/bin/sh\n");
        initramfs.file("etc/group", "root:x:0:\n");
        for tool in &scenario.tools {
            initramfs.tool(tool)?;
        }
        if let Some((host, guest)) = &candidate.program {
            ensure!(
                self.kernel.has_sched_ext(),
                "Linux {} has no sched_ext (CONFIG_SCHED_CLASS_EXT)",
                self.kernel.release
            );
            initramfs.program(guest.trim_start_matches('/'), host)?;
            // Some schedulers look there for the kernel's options.
            let config = fs::read(&self.kernel.config)
                .with_context(|| format!("reading {}", self.kernel.config.display()))?;
            initramfs.file(&format!("boot/config-{}", self.kernel.release), config);
        }
        let parts = scenario.parts.iter().map(|part| (part.name.clone(), part.run.clone()));
        let plan = Plan { scheduler: candidate.command(), parts: parts.collect() };
        initramfs.file(PLAN, serde_json::to_vec(&plan)?);
        Ok(initramfs)
    }

    /// What the kernel's command line says of a sample.
    pub fn append(sample: u64) -> String {
        format!("{SAMPLE}={sample}")
    }

    /// A sample: the kept one, or a guest's.
    fn sample(&self, job: &Job<'_>, progress: &Progress, title: &str) -> Result<Sample> {
        let cell = job.cell;
        let (initramfs, archive_hash) = &*job.files.of(self, cell)?;
        let append = Self::append(job.number);
        let guest = Guest {
            kernel: &self.kernel,
            topology: Topology { smp: cell.cpus, nodes: &[] },
            mode: self.mode,
            memory_mib: cell.scenario.memory_mib,
            append: &append,
        };
        let fingerprint = guest.fingerprint();
        let key = [&*fingerprint, &self.qemu, &self.kernel_hash, archive_hash].join("\n");
        let key = hex(&Sha256::digest(key));
        let kept = self.cache.join("samples").join(format!("{}.json", &key[..32]));
        if let Ok(text) = fs::read(&kept)
            && let Ok(sample) = serde_json::from_slice(&text)
        {
            progress.line(&format!("kept  {title}"));
            return Ok(sample);
        }
        let folder = self.cache.join("guests").join(&key[..32]);
        let begin = Instant::now();
        let record = self
            .boot(&guest, initramfs, cell.scenario, &folder, |part| progress.running(title, part));
        progress.ended(title);
        let record = record.map_err(|error| anyhow!("{error:#}; see {}", folder.display()))?;
        let sample = Sample { record, host_s: begin.elapsed().as_secs_f64() };
        progress.line(&format!("ok    {title}, {:.0} s", sample.host_s));
        store(&kept, &serde_json::to_vec(&sample)?)?;
        fs::remove_dir_all(&folder).ok();
        Ok(sample)
    }

    /// Boots a guest, again where the emulator and not the guest went wrong.
    pub fn boot(
        &self,
        guest: &Guest<'_>,
        initramfs: &Initramfs,
        scenario: &Scenario,
        folder: &Path,
        at_part: impl Fn(&str),
    ) -> Result<Record> {
        const TRIES: usize = 4;
        let mut tries = 1;
        loop {
            match self.boot_once(guest, initramfs, scenario, folder, &at_part) {
                Err(error) if tries < TRIES && is_emulator_fault(folder) => {
                    tries += 1;
                    at_part(&format!("again, QEMU ran stale code ({error})"));
                }
                done => return done,
            }
        }
    }

    fn boot_once(
        &self,
        guest: &Guest<'_>,
        initramfs: &Initramfs,
        scenario: &Scenario,
        folder: &Path,
        at_part: impl Fn(&str),
    ) -> Result<Record> {
        at_part("boot");
        let limit = Duration::from_secs(scenario.limit_s);
        let mut running = guest.boot(initramfs, folder)?;
        let mut idle: Option<Idle> = None;
        let (mut parts, mut part) = (Vec::new(), "boot".to_owned());
        loop {
            let line = match running.next_line(limit)? {
                Event::Line(line) => line,
                Event::Off(how) => bail!("the guest died during {part:?}, {how}"),
                Event::Silence => {
                    bail!("the guest hangs: no end of {part:?} within {} s", limit.as_secs())
                }
            };
            match serde_json::from_str(&line) {
                Ok(Message::Idle(proof)) => idle = Some(proof),
                Ok(Message::Begin(name)) => {
                    at_part(&name);
                    part = name;
                }
                Ok(Message::Part(record)) => parts.push(record),
                Ok(Message::Failed(why)) => bail!("{part:?} failed: {}", why.replace('\n', " ")),
                Ok(Message::Done) => break,
                Err(error) => bail!("the guest wrote nonsense during {part:?}: {error}"),
            }
        }
        Ok(Record { idle: idle.context("the guest did not say that it was idle")?, parts })
    }
}

fn is_emulator_fault(folder: &Path) -> bool {
    let console = fs::read(folder.join("console.log")).unwrap_or_default();
    String::from_utf8_lossy(&console).contains(EMULATOR_FAULT)
}

/// Writes a file whole or not at all.
pub fn store(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let partial = path.with_extension("partial");
        fs::write(&partial, content)?;
        fs::rename(partial, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A writer that keeps nothing but a hash.
struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

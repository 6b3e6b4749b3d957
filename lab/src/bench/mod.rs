//! Benchmarks: scenarios as data, one guest for each sample, results beside those of other schedulers.
//!
//! On the host, [`scenario`] says what runs, [`candidate`] under which schedulers, [`runner`] boots and keeps
//! samples, [`figure`] reads numbers from them, [`results`] collects, [`report`] and [`chart`] show,
//! [`gate`] judges. In the guest, [`lab_guest::bench`] carries out a [`lab_guest::plan`].

pub mod candidate;
pub mod chart;
pub mod figure;
pub mod gate;
pub mod progress;
pub mod report;
pub mod results;
pub mod runner;
pub mod scenario;

use crate::{
    kernel::{Kernel, SERIES},
    qemu::Mode,
};
use anyhow::{Context, Result, bail, ensure};
use candidate::{Candidate, Peer};
use clap::{Args, ValueEnum};
use results::{Entry, Results, Setting};
use runner::{Cell, Runner};
use scenario::Scenario;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Below the root of the repository.
const SCENARIOS: &str = "lab/scenarios";
const GATE: &str = "lab/gate.toml";
const RESULTS: &str = "lab/results";
const BASELINE: &str = "lab/results/baseline.json";
const PEERS: &str = "lab/peers.toml";
const CACHE: &str = ".cache/bench";

/// What `lab bench` and `lab gate` have in common.
#[derive(Args, Debug)]
pub struct Common {
    /// The scheduler under test
    #[arg(long, value_name = "PATH", default_value = "target/release/scheduler")]
    scheduler: PathBuf,
    /// Kernel series in .cache/kernels; $KERNEL names an image instead
    #[arg(long, value_name = "SERIES", default_value = SERIES[SERIES.len() - 1])]
    kernel: String,
    /// Guests at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
}

/// `lab bench`
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Names of files in lab/scenarios, without .toml; all if none is named
    scenarios: Vec<String>,
    /// Also run the schedulers of lab/peers.toml, or only those named here
    #[arg(long, value_name = "NAME,…", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Samples of each cell
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    samples: u64,
    /// How virtual CPUs share time
    #[arg(long, value_enum, default_value_t = ModeArg::Deterministic)]
    mode: ModeArg,
    /// Arguments for the scheduler under test, in one word
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    args: String,
    /// Where the report goes; results that are there already are kept where they can be compared
    #[arg(long, value_name = "FOLDER", default_value = RESULTS)]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// `lab gate`
#[derive(Args, Debug)]
pub struct GateArgs {
    /// Write the baseline instead of comparing with it
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Time is the count of instructions: one run is every run
    Deterministic,
    /// A host thread for each CPU
    Parallel,
}

impl Common {
    fn runner(&self, root: &Path, mode: Mode, samples: u64) -> Result<Runner> {
        let kernel = Kernel::from_env()?.map_or_else(|| Kernel::find(&self.kernel, root), Ok)?;
        let guest = env::current_exe().context("finding this program")?.with_file_name("lab-guest");
        let mut runner = Runner::new(kernel, mode, &guest, root.join(CACHE))?;
        (runner.samples, runner.jobs) = (samples, self.jobs.into());
        Ok(runner)
    }
}

/// Runs scenarios and writes the report. An error if anything failed, after all the rest is done.
pub fn bench(args: &BenchArgs) -> Result<()> {
    let root = env::current_dir().context("finding the repository")?;
    let all = Scenario::load_all(&root.join(SCENARIOS))?;
    let scenarios = Scenario::select(all, &args.scenarios)?;
    let mode = match args.mode {
        ModeArg::Deterministic => Mode::Deterministic,
        ModeArg::Parallel => Mode::Parallel,
    };
    let runner = args.common.runner(&root, mode, args.samples)?;
    let mut failures = Vec::new();
    let mut candidates = vec![Candidate::default_of_kernel()];
    let flags = args.args.split_whitespace().map(String::from).collect();
    candidates.push(Candidate::ours(&args.common.scheduler, flags)?);
    if let Some(named) = &args.peers {
        candidates.extend(peers(&root, named, &mut failures)?);
    }
    println!(
        "bench: Linux {}, QEMU {}, {} samples a cell",
        runner.kernel.release, runner.qemu, runner.samples
    );
    let cells = scenarios.iter().flat_map(|scenario| {
        let candidates = &candidates;
        scenario.cpus.iter().flat_map(move |cpus| {
            candidates.iter().map(move |candidate| Cell { scenario, cpus, candidate })
        })
    });
    let entries = measure(&runner, cells.collect(), &root, &mut failures)?;
    if !entries.is_empty() {
        write_report(&root, &args.out, entries)?;
    }
    conclude(&failures)
}

fn peers(root: &Path, named: &[String], failures: &mut Vec<String>) -> Result<Vec<Candidate>> {
    let all = Peer::load_all(&root.join(PEERS))?;
    let unknown = named.iter().find(|name| !all.iter().any(|peer| peer.name() == name.as_str()));
    ensure!(unknown.is_none(), "no peer {:?} in {PEERS}", unknown.map_or("", |name| name));
    let mut candidates = Vec::new();
    for peer in all {
        if !named.is_empty() && !named.iter().any(|name| name == peer.name()) {
            continue;
        }
        println!("bench: {} (built once)", peer.name());
        match peer.build(root) {
            Ok(candidate) => candidates.push(candidate),
            Err(error) => {
                println!("FAIL  {error:#}");
                failures.push(format!("{error:#}"));
            }
        }
    }
    Ok(candidates)
}

fn measure(
    runner: &Runner,
    cells: Vec<Cell<'_>>,
    root: &Path,
    failures: &mut Vec<String>,
) -> Result<Vec<Entry>> {
    let (setting, commit) = (Setting::of(runner), results::commit(root));
    let finished = runner.run(cells, failures);
    Ok(finished.iter().filter_map(|cell| Entry::read(cell, &setting, &commit, failures)).collect())
}

fn write_report(root: &Path, folder: &Path, entries: Vec<Entry>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let file = folder.join("results.json");
    let mut results = Results::load(&file)?;
    let new = Results { entries: entries.clone() };
    results.merge(entries);
    runner::store(&file, &serde_json::to_vec_pretty(&results)?)?;
    let scenarios = Scenario::load_all(&root.join(SCENARIOS))?;
    let charts = chart::draw_all(&results, folder).context("drawing the charts")?;
    let report = folder.join("README.md");
    runner::store(&report, report::markdown(&results, &scenarios, &charts).as_bytes())?;
    let readme = root.join("README.md");
    if folder == Path::new(RESULTS) || folder == root.join(RESULTS) {
        let text = fs::read_to_string(&readme).context("reading README.md")?;
        let text =
            report::replace_block(&text, report::README_BLOCK, &report::for_readme(&results));
        runner::store(&readme, text.context("README.md has no block of results")?.as_bytes())?;
    }
    println!("\n{}", report::plain(&new));
    println!("bench: {}", report.display());
    Ok(())
}

/// Runs the gate's scenario under ours and compares it with the baseline.
pub fn gate(args: &GateArgs) -> Result<()> {
    const SAMPLES: u64 = 3;
    let root = env::current_dir().context("finding the repository")?;
    let text = fs::read_to_string(root.join(GATE)).with_context(|| format!("reading {GATE}"))?;
    let scenario = Scenario::parse("gate", &text).with_context(|| format!("reading {GATE}"))?;
    let runner = args.common.runner(&root, Mode::Deterministic, SAMPLES)?;
    let candidate = Candidate::ours(&args.common.scheduler, Vec::new())?;
    let cells = scenario.cpus.iter();
    let cells = cells.map(|cpus| Cell { scenario: &scenario, cpus, candidate: &candidate });
    let mut failures = Vec::new();
    let new = measure(&runner, cells.collect(), &root, &mut failures)?;
    let file = root.join(BASELINE);
    if args.record {
        conclude(&failures)?;
        let baseline = Results { entries: new };
        runner::store(&file, &serde_json::to_vec_pretty(&baseline)?)?;
        println!("gate: wrote {BASELINE}");
        return Ok(());
    }
    let baseline = Results::load(&file)?;
    ensure!(!baseline.entries.is_empty(), "no {BASELINE}: write it with `lab gate --record`");
    for old in &baseline.entries {
        let Some(entry) = new.iter().find(|entry| entry.cpus == old.cpus) else {
            failures.push(format!("gate · {} CPUs was not measured", old.cpus));
            continue;
        };
        if old.setting != entry.setting {
            println!(
                "gate: the baseline is of Linux {} and QEMU {}, this is Linux {} and QEMU {}",
                old.setting.kernel, old.setting.qemu, entry.setting.kernel, entry.setting.qemu
            );
        }
        for verdict in gate::judge(old, entry) {
            let word = if verdict.passed { "ok   " } else { "WORSE" };
            println!("{word} {}: {}", verdict.name, verdict.text);
            if !verdict.passed {
                failures.push(format!("{}: {}", verdict.name, verdict.text));
            }
        }
    }
    conclude(&failures)
}

/// An error if there are failures, which are listed before.
fn conclude(failures: &[String]) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    println!("\nfailed:");
    for failure in failures {
        println!("  {failure}");
    }
    bail!("{} failed", failures.len())
}

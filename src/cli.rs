//! The command line: every flag, once. Help text and errors come from here.

use crate::{
    compare::{Metric, Plan},
    exit::{Exit, Failure},
    machine::topology::Topology,
    manual::{self, Shell},
    policy::builtin,
    settings::{
        Format, GRACE_US_DEFAULT, RING_KIB_DEFAULT, Report, SLICE_MIN_US_DEFAULT, SLICE_US,
        SLICE_US_DEFAULT, SOCKET_DEFAULT, Settings, Tuning,
    },
    sim,
    stats::text,
    top,
    units::Nanos,
};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

/// What the user asked for.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// Schedule until stopped.
    Schedule(Settings, Choice),
    /// Check the machine.
    Doctor,
    /// Run a command under the kernel's default and under this scheduler.
    Compare(Plan),
    /// Run a scenario on a simulated machine.
    Simulate(sim::Plan),
    /// Show what a running scheduler does.
    Top(top::Options),
    /// Print this text: the help, the version, a man page, or a shell's completions.
    Print(String),
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// A name of [`builtin::BUILTIN`], or that of the program's own policy.
    pub policy: String,
    /// Its options: keys and values.
    pub options: Vec<(String, String)>,
    /// How long a CPU waits for it.
    pub grace: Nanos,
    /// Room for events to it, in bytes.
    pub ring_bytes: u32,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SCHEDULER_REVISION"), ")");

const EXIT_CODES: &str = "\
Exit codes:
   0  stopped by the user
   1  ejected by the kernel, or failed at run time
   2  wrong command line
  75  another sched_ext scheduler is attached
  77  not permitted: CAP_BPF or CAP_PERFMON is missing, or a policy's memory cannot be locked
  78  this kernel cannot run it; `scheduler doctor` says why";

const SIMULATE_EXIT_CODES: &str = "\
Exit codes: 0 simulated; 1 the scheduler did what it must not do; 2 wrong command line or scenario.";

const COMPARE_EXIT_CODES: &str = "\
Exit codes: 0 compared; 1 the command failed, or you stopped it; others as without a command.";

/// Schedule the CPUs of this machine until SIGINT, SIGTERM or SIGHUP.
///
/// Needs a kernel with sched_ext and the capabilities CAP_BPF and CAP_PERFMON (root has them).
/// When it ends, in any way, the kernel's default scheduler takes over.
#[derive(Debug, Parser)]
#[command(name = "scheduler", version = VERSION, after_help = EXIT_CODES)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Cli {
    /// Print a table of statistics at each interval: a row a CPU, and the totals
    #[arg(short, long)]
    stats: bool,

    /// Time between two reports, in seconds, 0.01 to 86400 [default: 1]
    #[arg(short, long, value_name = "SECONDS", value_parser = interval, allow_hyphen_values = true)]
    interval: Option<Duration>,

    /// Print what is done, and below the table all counters; twice: also libbpf's debug messages
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Print one JSON object at each interval instead of the table
    #[arg(long)]
    json: bool,

    /// List the N busiest tasks of each interval, 1 to 1000
    #[arg(long, value_name = "N", value_parser = ranged(TASKS), allow_hyphen_values = true)]
    tasks: Option<u64>,

    #[command(flatten)]
    tuning: TuningArgs,

    /// Who decides: `kernel`, or a policy in this process; `list` describes all [default: kernel]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// An option of the policy; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    set: Vec<(String, String)>,

    /// How long a CPU with nothing else to run waits for the policy, in microseconds, 100 to 50000
    #[arg(long, value_name = "MICROSECONDS", default_value_t = GRACE_US_DEFAULT)]
    #[arg(value_parser = ranged(GRACE_US), allow_hyphen_values = true)]
    grace_us: u64,

    /// Room for tasks that wait for the policy to hear of them, in KiB, a power of two from 4 to 65536
    ///
    /// What finds no room goes the way of the kernel's half.
    #[arg(long, value_name = "KIB", default_value_t = RING_KIB_DEFAULT)]
    #[arg(value_parser = ring_kib, allow_hyphen_values = true)]
    ring_kib: u32,

    /// Where to make the socket that tells statistics to other programs
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,

    /// Tell metrics over HTTP, for Prometheus: a port of the loopback, or ADDRESS:PORT
    #[arg(long, value_name = "ADDR", value_parser = metrics, allow_hyphen_values = true)]
    metrics: Option<SocketAddr>,

    /// Schedule only tasks that chose the policy SCHED_EXT
    #[arg(short, long)]
    partial: bool,

    /// Size of the kernel's debug dump at an ejection in bytes, up to 16777216; 0: its default
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    #[arg(value_parser = ranged(DUMP_LEN), allow_hyphen_values = true)]
    exit_dump_len: u64,

    #[command(subcommand)]
    command: Option<Command>,
}

/// How it decides.
#[derive(Debug, Args)]
struct TuningArgs {
    /// Longest slice, for a task that nothing waits for, in microseconds, 100 to 100000
    #[arg(long, value_name = "MICROSECONDS", default_value_t = SLICE_US_DEFAULT)]
    #[arg(value_parser = ranged(SLICE_US), allow_hyphen_values = true)]
    slice_us: u64,

    /// Shortest slice, however many tasks wait, in microseconds, 100 to the value of --slice-us
    ///
    /// [default: 1000, or --slice-us if that is less]
    #[arg(long, value_name = "MICROSECONDS", value_parser = slice_min, allow_hyphen_values = true)]
    slice_min_us: Option<u64>,
}

impl TuningArgs {
    fn tuning(&self) -> Result<Tuning, Failure> {
        let slice_min_us = self.slice_min_us.unwrap_or(SLICE_MIN_US_DEFAULT.min(self.slice_us));
        if slice_min_us > self.slice_us {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "invalid value '{slice_min_us}' for '--slice-min-us <MICROSECONDS>': must be \
                     a whole number from {} to the value of --slice-us, {} (see --help)",
                    SLICE_US.start(),
                    self.slice_us
                ),
            ));
        }
        Ok(Tuning {
            slice_max: Nanos::from_micros(self.slice_us),
            slice_min: Nanos::from_micros(slice_min_us),
        })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check everything that a load needs: a line a check. Exit code 0, or 78 if one fails
    Doctor,
    /// Show what the running scheduler does: CPUs, tasks, wakeup latencies, events
    ///
    /// Asks the scheduler over its socket, so it is for root and for the user that the scheduler runs as. Without one it
    /// shows what the kernel tells. Keys: h shows them.
    Top {
        /// Show a made-up machine
        #[arg(long)]
        demo: bool,

        /// The socket of the scheduler
        #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
        socket: PathBuf,

        /// Time between two looks, in seconds, 0.01 to 86400 [default: 1]
        #[arg(short, long, value_name = "SECONDS", value_parser = interval, allow_hyphen_values = true)]
        interval: Option<Duration>,
    },
    /// Run a command alternately under the kernel's default and this scheduler, and compare
    ///
    /// Wall and CPU time, context switches, how long the command's tasks and all others waited for a CPU, and a figure
    /// of the command's own: medians, their ratio with its 95 % interval, and in words whether there is a difference.
    /// The order of the runs is ABBA, so that a machine that warms up favours neither.
    #[command(after_help = COMPARE_EXIT_CODES)]
    Compare {
        /// Runs of the command under each of the two, 2 to 1000
        #[arg(long, value_name = "N", default_value_t = 5)]
        #[arg(value_parser = ranged(RUNS), allow_hyphen_values = true)]
        runs: u64,

        /// Runs before that, which do not count, under the kernel's default, 0 to 100
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = ranged(WARMUP), allow_hyphen_values = true)]
        warmup: u64,

        /// A figure in the command's output: the number in the first group of this regular expression, or in all of
        /// it; the last match counts
        #[arg(long, value_name = "REGEX", value_parser = Metric::parse, allow_hyphen_values = true)]
        metric: Option<Metric>,

        /// Print one JSON object instead of the table
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        tuning: TuningArgs,

        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print the completions of this command line for a shell
    ///
    /// An installation has them.
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, as roff
    ///
    /// An installation has it.
    Man,
    /// Run a scenario on a simulated machine: the same policy, any number of CPUs, exactly repeatable
    ///
    /// Prints for each group of tasks wakeup latencies, share of the CPUs, missed deadlines and migrations. Watches for
    /// what a scheduler must not do (an idle CPU beside a task that waits, starvation, unfair shares, whatever the
    /// kernel ejects for), and names the instant and the seed.
    #[command(after_help = SIMULATE_EXIT_CODES)]
    Simulate {
        /// The scenario, a TOML file; see scenarios/
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Seed of the random numbers of the first run, 0 to 18446744073709551615
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = ranged(SEEDS), allow_hyphen_values = true)]
        seed: u64,

        /// Runs, each with the seed after the last one's, 1 to 100000
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = ranged(SIM_RUNS), allow_hyphen_values = true)]
        runs: u64,

        /// CPUs instead of the scenario's: "2 nodes x 4 llcs x 8 cores x 2 threads", "16 cores", or "host"
        #[arg(long, value_name = "CPUS", value_parser = sim_topology)]
        topology: Option<Topology>,

        /// A setting of the policy, slice_us or slice_min_us; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
        set: Vec<(String, String)>,

        /// Run it under ten values of a setting, slice_us or slice_min_us, and print a row for each
        #[arg(long, value_name = "KEY=LOW..HIGH", value_parser = option, conflicts_with = "perfetto")]
        sweep: Option<(String, String)>,

        /// Draw what the sweep found to this file
        #[arg(long, value_name = "OUT", requires = "sweep")]
        svg: Option<PathBuf>,

        /// Write what runs where in the first run to this file, for ui.perfetto.dev
        #[arg(long, value_name = "OUT")]
        perfetto: Option<PathBuf>,

        /// Print one JSON object instead of the table
        #[arg(long)]
        json: bool,
    },
}

const INTERVAL_S: RangeInclusive<f64> = 0.01..=86_400.0;
const TASKS: RangeInclusive<u64> = 1..=1000;
/// One run of each compares nothing.
const RUNS: RangeInclusive<u64> = 2..=1000;
const WARMUP: RangeInclusive<u64> = 0..=100;
const SEEDS: RangeInclusive<u64> = 0..=u64::MAX;
const SIM_RUNS: RangeInclusive<u64> = 1..=100_000;
const DUMP_LEN: RangeInclusive<u64> = 0..=1 << 24;
/// Below, no process answers; above, a policy that fails is felt.
const GRACE_US: RangeInclusive<u64> = 100..=50_000;

const RING_KIB: RangeInclusive<u32> = 4..=65_536;

/// Parses the room for events.
fn ring_kib(text: &str) -> Result<u32, String> {
    let (low, high) = (RING_KIB.start(), RING_KIB.end());
    text.parse()
        .ok()
        .filter(|kib: &u32| kib.is_power_of_two() && RING_KIB.contains(kib))
        .ok_or_else(|| format!("must be a power of two from {low} to {high}"))
}

/// Parses the address for metrics: a port of the loopback, or an address with its port.
fn metrics(text: &str) -> Result<SocketAddr, String> {
    let of_port = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address = text.parse().ok().or_else(|| text.parse().ok().map(of_port));
    address.filter(|address| address.port() != 0).ok_or_else(|| {
        "must be a port from 1 to 65535, or an address with its port, as in 0.0.0.0:9100 or [::1]:9100"
            .to_owned()
    })
}

/// Parses an option of a policy.
fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// Parses the CPUs of a simulated machine.
fn sim_topology(text: &str) -> Result<Topology, String> {
    sim::parse_topology(text).map_err(|error| format!("{error:#}"))
}

/// The figures of a simulated policy, from what was set of them.
fn sim_tuning(set: &[(String, String)]) -> Result<Tuning, Failure> {
    let mut args = TuningArgs { slice_us: SLICE_US_DEFAULT, slice_min_us: None };
    for (key, value) in set {
        let parsed = match key.as_str() {
            "slice_us" => ranged(SLICE_US)(value).map(|us| args.slice_us = us),
            "slice_min_us" => slice_min(value).map(|us| args.slice_min_us = Some(us)),
            _ => Err("the settings are slice_us and slice_min_us".to_owned()),
        };
        parsed.map_err(|reason| {
            let option = text::printable(format!("{key}={value}").as_bytes());
            Failure::new(Exit::Usage, format!("invalid '--set {option}': {reason} (see --help)"))
        })?;
    }
    args.tuning()
}

/// The values of a sweep, beside what was set of the other settings.
fn sim_sweep(
    (key, range): (String, String),
    set: &[(String, String)],
    svg: Option<PathBuf>,
) -> Result<sim::Sweep, Failure> {
    let bounds = range
        .split_once("..")
        .and_then(|(low, high)| Some((low.parse::<u64>().ok()?, high.parse::<u64>().ok()?)));
    let Some((low, high)) = bounds.filter(|(low, high)| 0 < *low && low < high) else {
        let option = text::printable(format!("{key}={range}").as_bytes());
        let text =
            format!("invalid '--sweep {option}': must be KEY=LOW..HIGH, as in slice_us=500..20000");
        return Err(Failure::new(Exit::Usage, text + " (see --help)"));
    };
    let point = |value: u64| {
        let set = [set, &[(key.clone(), value.to_string())]].concat();
        Ok((value, sim_tuning(&set)?))
    };
    let points = sim::Sweep::values(low, high).into_iter().map(point);
    let points = points.collect::<Result<Vec<_>, Failure>>()?;
    Ok(sim::Sweep { key, points, svg })
}

/// The policy that is asked for, among those that there are.
fn choice(cli: &Cli, own: Option<&str>) -> Result<Choice, Failure> {
    let refuse = |text: String| Err(Failure::new(Exit::Usage, text + " (see --help)"));
    let policy = match (own, &cli.policy) {
        (Some(own), None) => own.to_owned(),
        (Some(own), Some(_)) => {
            return refuse(format!("this program runs the policy {own}: it takes no '--policy'"));
        }
        (None, name) => name.clone().unwrap_or_else(|| builtin::KERNEL.to_owned()),
    };
    if own.is_none() && builtin::find(&policy).is_none() {
        let names: Vec<_> = builtin::BUILTIN.iter().map(|builtin| builtin.name).collect();
        return refuse(format!(
            "invalid value '{}' for '--policy <NAME>': must be {} or list",
            text::printable(policy.as_bytes()),
            names.join(", ")
        ));
    }
    if policy == builtin::KERNEL
        && own.is_none()
        && let Some((key, _)) = cli.set.first()
    {
        let key = text::printable(key.as_bytes());
        return refuse(format!(
            "'--set {key}=...' is an option of a policy: choose one by --policy"
        ));
    }
    Ok(Choice {
        policy,
        options: cli.set.clone(),
        grace: Nanos::from_micros(cli.grace_us),
        ring_bytes: cli.ring_kib * 1024,
    })
}

/// A parser of whole numbers in a range; its error names the range.
fn ranged(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        text.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
            format!("must be a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// Parses the shortest slice; [`TuningArgs::tuning`] knows the longest.
fn slice_min(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|n| SLICE_US.contains(n)).ok_or_else(|| {
        format!("must be a whole number from {} to the value of --slice-us", SLICE_US.start())
    })
}

/// Parses the interval: seconds, with a fraction.
fn interval(text: &str) -> Result<Duration, String> {
    // NaN is in no range.
    text.parse().ok().filter(|s| INTERVAL_S.contains(s)).map(Duration::from_secs_f64).ok_or_else(
        || {
            let (low, high) = (INTERVAL_S.start(), INTERVAL_S.end());
            format!("must be a number of seconds from {low} to {high}")
        },
    )
}

/// Reads a command line, the program's name first. `own` is the name of the policy that the program is made of, if it
/// is not this crate's own program.
///
/// # Errors
/// [`Exit::Usage`], with one line that names the flag and its range.
pub fn parse<I, T>(args: I, own: Option<&str>) -> Result<Request, Failure>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let compares = args.get(1).is_some_and(|arg| arg == "compare");
    let definition = definition(args.first(), own);
    let cli = match parse_cli(definition.clone(), args) {
        Ok(cli) => cli,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Request::Print(e.render().to_string()));
        }
        Err(e) => {
            let mut line = one_line(&e.render().to_string());
            if compares && e.kind() == ErrorKind::UnknownArgument {
                line += "; the command comes after --, as in: scheduler compare -- make -j8";
            }
            return Err(Failure::new(Exit::Usage, line));
        }
    };
    if let (Some(own), Some(Command::Compare { .. } | Command::Simulate { .. })) =
        (own, &cli.command)
    {
        let text =
            format!("compare and simulate know decisions in the kernel, not the policy {own}");
        return Err(Failure::new(Exit::Usage, text + " (see --help)"));
    }
    match cli.command {
        Some(Command::Doctor) => return Ok(Request::Doctor),
        Some(Command::Top { demo, socket, interval }) => {
            let interval = interval.unwrap_or(Duration::from_secs(1));
            return Ok(Request::Top(top::Options { socket, interval, demo }));
        }
        Some(Command::Compare { runs, warmup, metric, json, tuning, command }) => {
            let (runs, warmup) = (runs as usize, warmup as usize);
            let tuning = tuning.tuning()?;
            return Ok(Request::Compare(Plan { runs, warmup, metric, json, tuning, command }));
        }
        Some(Command::Completions { shell }) => {
            return Ok(Request::Print(manual::completions(definition, shell)));
        }
        Some(Command::Man) => return Ok(Request::Print(manual::page(definition)?)),
        Some(Command::Simulate { file, seed, runs, topology, set, sweep, svg, perfetto, json }) => {
            let tuning = sim_tuning(&set)?;
            let sweep = sweep.map(|sweep| sim_sweep(sweep, &set, svg)).transpose()?;
            return Ok(Request::Simulate(sim::Plan {
                file,
                seed,
                runs,
                topology,
                tuning,
                sweep,
                perfetto,
                json,
            }));
        }
        None => {}
    }
    if own.is_none() && cli.policy.as_deref() == Some("list") {
        return Ok(Request::Print(builtin::list()));
    }
    let tuning = cli.tuning.tuning()?;
    let choice = choice(&cli, own)?;
    let report = (cli.stats || cli.json || cli.tasks.is_some()).then(|| Report {
        interval: cli.interval.unwrap_or(Duration::from_secs(1)),
        format: if cli.json { Format::Json } else { Format::Table },
        tasks: cli.tasks.map_or(0, |n| n as usize),
        all_counters: cli.verbose > 0,
    });
    if report.is_none() && cli.interval.is_some() {
        crate::commands::complain(
            "warning: --interval has no effect without --stats, --json or --tasks",
        );
    }
    let settings = Settings {
        tuning,
        relayed: None,
        partial: cli.partial,
        // The range keeps it in 32 bits.
        exit_dump_len: cli.exit_dump_len as u32,
        verbosity: cli.verbose,
        report,
        socket: cli.socket,
        metrics: cli.metrics,
    };
    Ok(Request::Schedule(settings, choice))
}

/// The definition of the command line. A program of another's policy has its own name and description in it, and no flag
/// that chooses a policy.
fn definition(program: Option<&OsString>, own: Option<&str>) -> clap::Command {
    let command = Cli::command();
    let Some(own) = own else { return command };
    let name = program.map(Path::new).and_then(Path::file_name).map(OsStr::to_string_lossy);
    let name = name.map_or_else(|| own.to_owned(), Cow::into_owned);
    command
        .bin_name(name.clone())
        .display_name(name)
        .about(format!("Schedule the CPUs of this machine by the policy {own}"))
        .long_about(format!(
            "Schedule the CPUs of this machine by the policy {own} until SIGINT, SIGTERM or SIGHUP."
        ))
        .mut_arg("policy", |arg| arg.hide(true))
        .mut_subcommand("compare", |command| command.hide(true))
        .mut_subcommand("simulate", |command| command.hide(true))
}

fn parse_cli(definition: clap::Command, args: Vec<OsString>) -> Result<Cli, clap::Error> {
    definition.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches))
}

/// clap's message and its tip as one line, without the usage block. The user's own text in it
/// may hold anything.
fn one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let end = ["\n\nUsage:", "\n\nFor more"].iter().filter_map(|m| text.find(m)).min();
    let text = text[..end.unwrap_or(text.len())].replace("\n\n  tip: ", "; ");
    let words: Vec<_> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    format!("{line} (see --help)")
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;

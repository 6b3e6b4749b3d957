//! The command line: every flag, once. Help text and errors come from here. Those flags that are settings are in
//! `cli/flags.rs`, for the configuration file, too.

mod config;
mod file;
mod flags;
mod place;
mod rules;

pub use config::{Adopted, Effective, Origin, Shown};
pub use file::CONFIG_DEFAULT;
pub use place::Place;

use crate::{
    compare::{Metric, Plan},
    exit::{Exit, Failure},
    machine::topology::Topology,
    manual::{self, Shell},
    policy::builtin,
    profile, record,
    settings::{Format, Report, SOCKET_DEFAULT, Settings, Tuning},
    sim,
    stats::text,
    top,
    units::Nanos,
};
use clap::{
    ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, builder::PossibleValuesParser,
    error::ErrorKind,
};
use config::ConfigArgs;
use flags::{SettingArgs, TuningArgs, option, ranged};
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

/// What the user asked for.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// Schedule until stopped.
    Schedule(Effective),
    /// Say whether a configuration file is good, and it is as far as it was read.
    Check(PathBuf, Effective),
    /// Check the machine.
    Doctor,
    /// Run a command under the kernel's default and under this scheduler.
    Compare(Plan),
    /// Run a scenario on a simulated machine.
    Simulate(sim::Plan),
    /// Show what a running scheduler does.
    Top(top::Options),
    /// Tell of the tasks of that number or name, or of all rules, of the scheduler that has its socket there.
    Explain(PathBuf, Option<String>),
    /// Record what runs where.
    Record(record::Plan),
    /// Switch the running scheduler, which has its socket there, to this profile, or say which it has.
    Profile(PathBuf, Option<String>),
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
   2  wrong command line or configuration file
  75  another sched_ext scheduler is attached
  77  not permitted: CAP_BPF or CAP_PERFMON is missing, or a policy's memory cannot be locked
  78  this kernel cannot run it; the command `doctor` says why";

const SIMULATE_EXIT_CODES: &str = "\
Exit codes: 0 simulated; 1 the scheduler did what it must not do; 2 wrong command line or scenario.";

const COMPARE_EXIT_CODES: &str = "\
Exit codes: 0 compared; 1 the command failed, or you stopped it; others as without a command.";

/// Schedule the CPUs of this machine until SIGINT or SIGTERM.
///
/// At SIGHUP it reads its settings again, and changes those that can be changed while it schedules. If the terminal that it was
/// started from has gone, it ends.
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
    settings: SettingArgs,

    #[command(flatten)]
    config: ConfigArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check everything that a load needs: a line a check. Exit code 0, or 78 if one fails
    Doctor,
    /// Check a configuration file, or show the settings in effect
    #[command(subcommand, arg_required_else_help = false)]
    Config(ConfigCommand),
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
    /// Switch the running scheduler to another profile, until it reads its settings again; without a name: say which is in effect
    ///
    /// For root and for the user that the scheduler runs as. Prints the figures in effect.
    Profile {
        /// The profile
        #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(profile::names()))]
        name: Option<String>,

        /// The socket of the scheduler
        #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
        socket: PathBuf,
    },
    /// Say which rule a task has, how it stands with it, and why it ran where it ran last
    ///
    /// Weight, slice, what it is owed and when it is due; of all threads of a process. Asks the scheduler over its socket, so
    /// it is for root and for the user that the scheduler runs as.
    Explain {
        /// A number, or a name, in which * is any text
        #[arg(
            value_name = "PID|NAME",
            required_unless_present = "rules",
            conflicts_with = "rules"
        )]
        of: Option<String>,

        /// All rules in the order in which they are tried, and the tasks that each has now
        #[arg(long)]
        rules: bool,

        /// The socket of the scheduler
        #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
        socket: PathBuf,
    },
    /// Record every switch, wakeup and migration of this machine as a trace for ui.perfetto.dev
    ///
    /// Under whatever scheduler. Where this one runs the trace has its reasons, too: why a task got its CPU, what it was owed
    /// and when it was due. Needs root, or CAP_BPF and CAP_PERFMON. Memory is bounded by the ring; what finds no room there is counted.
    Record {
        /// The trace
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,

        /// For how long, in seconds, 0.1 to 3600; Ctrl-C ends it before
        #[arg(long, value_name = "SECONDS", default_value = "5")]
        #[arg(value_parser = record_seconds, allow_hyphen_values = true)]
        seconds: Duration,

        /// Ring between the kernel and the recorder in KiB, 64 to 1048576, rounded up to a power of two
        #[arg(long, value_name = "KIB", default_value_t = 16_384)]
        #[arg(value_parser = ranged(RECORD_RING_KIB), allow_hyphen_values = true)]
        ring_kib: u64,
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

        /// Who decides: `kernel`, or a policy in user space, of which `scheduler --policy list` describes all
        #[arg(long, value_name = "NAME", default_value = builtin::KERNEL)]
        policy: Option<String>,

        /// A setting of the scheduler: profile, slice_us, slice_min_us, lag_us or preempt_gran_us; or policy.KEY, an option
        /// of the policy in user space; may be repeated, and of the same key the last counts
        #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
        set: Vec<(String, String)>,

        /// Run it under ten values of a setting of a number, as slice_us, and print a row for each
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

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum ConfigCommand {
    /// Check a configuration file. Exit code 0, or 2 and what is wrong with it
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show all settings with their values, and where each is from: default, file or flag
    ///
    /// With the flags that it is given, and the file that the scheduler would read. What it prints is a file of the same
    /// settings.
    Show {
        #[command(flatten)]
        settings: Box<SettingArgs>,

        #[command(flatten)]
        config: ConfigArgs,
    },
}

const INTERVAL_S: RangeInclusive<f64> = 0.01..=86_400.0;
const RECORD_S: RangeInclusive<f64> = 0.1..=3_600.0;
const RECORD_RING_KIB: RangeInclusive<u64> = 64..=1 << 20;
const TASKS: RangeInclusive<u64> = 1..=1000;
/// One run of each compares nothing.
const RUNS: RangeInclusive<u64> = 2..=1000;
const WARMUP: RangeInclusive<u64> = 0..=100;
const SEEDS: RangeInclusive<u64> = 0..=u64::MAX;
const SIM_RUNS: RangeInclusive<u64> = 1..=100_000;
/// What `--set` of a simulation begins with where it is an option of a policy in user space.
const OF_POLICY: &str = "policy.";

/// Parses the CPUs of a simulated machine.
fn sim_topology(text: &str) -> Result<Topology, String> {
    sim::parse_topology(text).map_err(|error| format!("{error:#}"))
}

/// The figures of a simulated policy, from what was set of them.
fn sim_tuning(set: &[(String, String)]) -> Result<Tuning, Failure> {
    TuningArgs::set(set).map_err(|((key, value), must)| refuse_sim("--set", &key, &value, &must))
}

/// A refusal of a flag of `simulate` that takes a key and a value.
fn refuse_sim(flag: &str, key: &str, value: &str, must: &str) -> Failure {
    let option = text::printable(format!("{key}={value}").as_bytes());
    Failure::new(Exit::Usage, format!("invalid '{flag} {option}': {must} (see --help)"))
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
    let refuse = |must: &str| refuse_sim("--sweep", &key, &range, must);
    let Some((low, high)) = bounds.filter(|(low, high)| 0 < *low && low < high) else {
        return Err(refuse(
            "must be KEY=LOW..HIGH with whole numbers, LOW from 1 and HIGH above it, as in slice_us=500..20000",
        ));
    };
    let point = |value: u64| {
        let set = [set, &[(key.clone(), value.to_string())]].concat();
        let tuning = TuningArgs::set(&set).map_err(|((of, value), must)| match of == key {
            true => refuse(&must),
            false => refuse(&format!("{of}={value}: {must}")),
        });
        Ok((value, tuning?))
    };
    let points = sim::Sweep::values(low, high).into_iter().map(point);
    let points = points.collect::<Result<Vec<_>, Failure>>()?;
    Ok(sim::Sweep { key, points, svg })
}

/// Parses a time: seconds, with a fraction.
fn seconds(text: &str, range: &RangeInclusive<f64>) -> Result<Duration, String> {
    // NaN is in no range.
    text.parse().ok().filter(|s| range.contains(s)).map(Duration::from_secs_f64).ok_or_else(|| {
        format!("must be a number of seconds from {} to {}", range.start(), range.end())
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    seconds(text, &INTERVAL_S)
}

fn record_seconds(text: &str) -> Result<Duration, String> {
    seconds(text, &RECORD_S)
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
    let parsed = definition.clone().try_get_matches_from(args);
    let cli = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match cli {
        Ok(cli) => cli,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Request::Print(e.render().to_string()));
        }
        Err(e) => {
            let mut line = one_line(&e.render().to_string()) + " (see --help)";
            if compares && e.kind() == ErrorKind::UnknownArgument {
                line += "; the command comes after --, as in: scheduler compare -- make -j8";
            }
            return Err(Failure::new(Exit::Usage, line));
        }
    };
    if let (Some(own), Some(Command::Compare { .. })) = (own, &cli.command) {
        let text = format!("compare knows decisions in the kernel, not the policy {own}");
        return Err(Failure::new(Exit::Usage, text + " (see --help)"));
    }
    match cli.command {
        Some(Command::Doctor) => return Ok(Request::Doctor),
        Some(Command::Config(ConfigCommand::Check { file })) => {
            let effective = Effective::of_file(&file, own)?;
            return Ok(Request::Check(file, effective));
        }
        Some(Command::Config(ConfigCommand::Show { config, .. })) => {
            let given = matches.subcommand_matches("config");
            let given = given.and_then(|matches| matches.subcommand_matches("show"));
            let effective = Effective::of(given.unwrap_or(&matches), &config, own)?;
            return Ok(Request::Print(effective.text()));
        }
        Some(Command::Explain { of, socket, .. }) => return Ok(Request::Explain(socket, of)),
        Some(Command::Profile { name, socket }) => return Ok(Request::Profile(socket, name)),
        Some(Command::Top { demo, socket, interval }) => {
            let interval = interval.unwrap_or(Duration::from_secs(1));
            return Ok(Request::Top(top::Options { socket, interval, demo }));
        }
        Some(Command::Compare { runs, warmup, metric, json, tuning, command }) => {
            let (runs, warmup) = (runs as usize, warmup as usize);
            let tuning = tuning.tuning().map_err(|refusal| refusal.of_flag())?;
            return Ok(Request::Compare(Plan { runs, warmup, metric, json, tuning, command }));
        }
        Some(Command::Record { output, seconds, ring_kib }) => {
            let ring_kib = (ring_kib as u32).next_power_of_two();
            return Ok(Request::Record(record::Plan { out: output, seconds, ring_kib }));
        }
        Some(Command::Completions { shell }) => {
            return Ok(Request::Print(manual::completions(definition, shell)));
        }
        Some(Command::Man) => return Ok(Request::Print(manual::page(definition)?)),
        Some(Command::Simulate {
            file,
            seed,
            runs,
            topology,
            policy,
            set,
            sweep,
            svg,
            perfetto,
            json,
        }) => {
            let (options, set): (Vec<_>, Vec<_>) =
                set.into_iter().partition(|(key, _)| key.starts_with(OF_POLICY));
            let policy = flags::policy(own, policy.as_deref(), options.first());
            let policy = policy.map_err(|refusal| refusal.of_flag())?;
            let bare = |(key, value): (String, String)| (key[OF_POLICY.len()..].to_owned(), value);
            let options = options.into_iter().map(bare).collect();
            let tuning = sim_tuning(&set)?;
            let sweep = sweep.map(|sweep| sim_sweep(sweep, &set, svg)).transpose()?;
            return Ok(Request::Simulate(sim::Plan {
                file,
                seed,
                runs,
                topology,
                policy,
                options,
                tuning,
                sweep,
                perfetto,
                json,
            }));
        }
        None => {}
    }
    if own.is_none() && cli.settings.policy.as_deref() == Some("list") {
        return Ok(Request::Print(builtin::list()));
    }
    let mut effective = Effective::of(&matches, &cli.config, own)?;
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
    for flag in effective.without_effect() {
        crate::commands::complain(&format!(
            "warning: --{flag} has no effect without a policy in user space (see --policy)"
        ));
    }
    effective.settings = Settings { verbosity: cli.verbose, report, ..effective.settings };
    Ok(Request::Schedule(effective))
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
            "Schedule the CPUs of this machine by the policy {own} until SIGINT or SIGTERM."
        ))
        .mut_arg("policy", no_choice)
        .mut_arg("config", no_default_file)
        .mut_subcommand("config", |config| {
            config.mut_subcommand("show", |show| {
                show.mut_arg("policy", no_choice).mut_arg("config", no_default_file)
            })
        })
        .mut_subcommand("compare", |command| command.hide(true))
        .mut_subcommand("simulate", |simulate| simulate.mut_arg("policy", no_choice))
}

/// The flag that chooses a policy, of a program that has one.
fn no_choice(arg: clap::Arg) -> clap::Arg {
    arg.hide(true).default_value(None)
}

/// The flag that names the configuration file, of a program that looks for none by itself.
fn no_default_file(arg: clap::Arg) -> clap::Arg {
    arg.help("Take the settings that no flag gives from this file")
}

/// clap's message and its tip as one line, without the usage block. The user's own text in it
/// may hold anything.
fn one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let end = ["\n\nUsage:", "\n\nFor more"].iter().filter_map(|m| text.find(m)).min();
    let text = text[..end.unwrap_or(text.len())].replace("\n\n  tip: ", "; ");
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;

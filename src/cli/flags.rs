//! The settings: each is a flag of the command line and, with `_` for `-`, a key of the configuration file. This is their
//! one definition; [`super::file`] reads it, too.

use super::{Choice, file};
use crate::{
    exit::{Exit, Failure},
    policy::builtin,
    profile::{self, AUTO},
    settings::{
        GRACE_US_DEFAULT, LAG_US, PREEMPT_GRAN_US, RING_KIB_DEFAULT, SLICE_US, SOCKET_DEFAULT,
        Settings, Tuning,
    },
    stats::text,
    units::Nanos,
};
use clap::{ArgAction, Args, Command, FromArgMatches, builder::PossibleValuesParser};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

/// All settings.
#[derive(Debug, Args)]
pub(super) struct SettingArgs {
    #[command(flatten)]
    pub tuning: TuningArgs,

    /// Who decides: `kernel`, or a policy in this process; `list` describes all
    #[arg(long, value_name = "NAME", default_value = builtin::KERNEL)]
    pub policy: Option<String>,

    /// An option of the policy; may be repeated, and of the same key the last counts
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

    /// Schedule only tasks that chose the policy SCHED_EXT; `--partial=false` undoes it where a file says so
    #[arg(short, long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true)]
    #[arg(hide_possible_values = true)]
    partial: bool,

    /// Size of the kernel's debug dump at an ejection in bytes, up to 16777216; 0: its default
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    #[arg(value_parser = ranged(DUMP_LEN), allow_hyphen_values = true)]
    exit_dump_len: u64,
}

/// How it decides.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct TuningArgs {
    /// What it is for: a name for the values of the next four, each of which overrides it
    #[arg(long, value_name = "NAME", default_value = AUTO.name)]
    #[arg(value_parser = PossibleValuesParser::new(profile::names()))]
    pub profile: String,

    /// Longest slice, for a task that nothing waits for, in microseconds, 100 to 100000 [default: 3000]
    #[arg(long, value_name = "MICROSECONDS", value_parser = ranged(SLICE_US), allow_hyphen_values = true)]
    pub slice_us: Option<u64>,

    /// Shortest slice, however many tasks wait, in microseconds, 100 to the value of --slice-us
    ///
    /// [default: 1000, or --slice-us if that is less]
    #[arg(long, value_name = "MICROSECONDS", value_parser = slice_min, allow_hyphen_values = true)]
    pub slice_min_us: Option<u64>,

    /// Most service that a task is owed when it wakes, in microseconds, 100 to 40000 [default: 3000]
    ///
    /// More lets tasks go first that sleep often and run for longer.
    #[arg(long, value_name = "MICROSECONDS", value_parser = ranged(LAG_US), allow_hyphen_values = true)]
    pub lag_us: Option<u64>,

    /// How much earlier than the running task one that wakes must be due to preempt it, in microseconds, 0 to 10000
    /// [default: 100]
    #[arg(long, value_name = "MICROSECONDS", value_parser = ranged(PREEMPT_GRAN_US), allow_hyphen_values = true)]
    pub preempt_gran_us: Option<u64>,
}

/// Those that can change while the kernel schedules: the figures of `struct knobs`.
pub(super) const LIVE: [&str; 6] =
    ["profile", "slice_us", "slice_min_us", "lag_us", "preempt_gran_us", "grace_us"];

/// Those that only a policy in user space goes by. Options are refused without one.
pub(super) const OF_POLICY: [&str; 2] = ["grace_us", "ring_kib"];

const DUMP_LEN: RangeInclusive<u64> = 0..=1 << 24;
/// Below, no process answers; above, a policy that fails is felt.
const GRACE_US: RangeInclusive<u64> = 100..=50_000;
const RING_KIB: RangeInclusive<u32> = 4..=65_536;

/// Why a value cannot be, although it is right by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The setting.
    pub id: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub must: String,
    /// The other setting that says so, if one does.
    pub by: Option<&'static str>,
}

impl Refusal {
    /// As the error of a flag.
    pub fn of_flag(&self) -> Failure {
        let mut definition = definition();
        definition.build();
        let flag = definition.get_arguments().find(|arg| arg.get_id() == self.id);
        let flag = flag.map_or_else(|| self.id.to_owned(), ToString::to_string);
        let text =
            format!("invalid value '{}' for '{flag}': {} (see --help)", self.value, self.must);
        Failure::new(Exit::Usage, text)
    }
}

/// A command line of settings alone, without the program's name.
pub(super) fn definition() -> Command {
    SettingArgs::augment_args(Command::new("settings").no_binary_name(true))
}

impl SettingArgs {
    /// What they become. `own` is the name of the policy that the program is made of, if it is not this crate's own.
    pub fn settings(&self, own: Option<&str>) -> Result<(Settings, Choice), Refusal> {
        let tuning = self.tuning.tuning()?;
        let choice = self.choice(own)?;
        let settings = Settings {
            tuning,
            partial: self.partial,
            // The range keeps it in 32 bits.
            exit_dump_len: self.exit_dump_len as u32,
            socket: self.socket.clone(),
            metrics: self.metrics,
            ..Settings::default()
        };
        Ok((settings, choice))
    }

    /// The policy that is asked for, among those that there are.
    fn choice(&self, own: Option<&str>) -> Result<Choice, Refusal> {
        Ok(Choice {
            policy: policy(own, self.policy.as_deref(), self.set.first())?,
            options: self.set.clone(),
            grace: Nanos::from_micros(self.grace_us),
            ring_bytes: self.ring_kib * 1024,
        })
    }
}

/// The name of the policy that decides: the program's own, or the one that was given, if there is such a one. `option` is one
/// that it was given.
pub(super) fn policy(
    own: Option<&str>,
    given: Option<&str>,
    option: Option<&(String, String)>,
) -> Result<String, Refusal> {
    let printable = |text: &str| text::printable(text.as_bytes());
    let refuse =
        |id, value: &str, must| Err(Refusal { id, value: printable(value), must, by: None });
    let policy = match (own, given) {
        (Some(own), None) => return Ok(own.to_owned()),
        (Some(own), Some(other)) => {
            let must = format!("this program runs the policy {own} and takes no other");
            return refuse("policy", other, must);
        }
        (None, name) => name.unwrap_or(builtin::KERNEL),
    };
    if builtin::find(policy).is_none() {
        let names: Vec<_> = builtin::BUILTIN.iter().map(|builtin| builtin.name).collect();
        let must =
            format!("must be {} ('scheduler --policy list' describes them)", names.join(", "));
        return refuse("policy", policy, must);
    }
    if policy == builtin::KERNEL
        && let Some((key, value)) = option
    {
        let must = "it is an option of a policy: choose one by --policy".to_owned();
        return refuse("set", &format!("{key}={value}"), must);
    }
    Ok(policy.to_owned())
}

impl TuningArgs {
    /// The figures that nobody gave are those of the profile.
    pub fn tuning(&self) -> Result<Tuning, Refusal> {
        let profile = profile::find(&self.profile).unwrap_or(&AUTO);
        let slice_us = self.slice_us.unwrap_or(profile.slice_us);
        let slice_min_us = self.slice_min_us.unwrap_or(profile.slice_min_us.min(slice_us));
        if slice_min_us > slice_us {
            return Err(Refusal {
                id: "slice_min_us",
                value: slice_min_us.to_string(),
                must: format!(
                    "must be a whole number from {} to the value of --slice-us, {slice_us}",
                    SLICE_US.start()
                ),
                by: Some("slice_us"),
            });
        }
        Ok(Tuning {
            slice_max: Nanos::from_micros(slice_us),
            slice_min: Nanos::from_micros(slice_min_us),
            lag_max: Nanos::from_micros(self.lag_us.unwrap_or(profile.lag_us)),
            preempt_gran: Nanos::from_micros(
                self.preempt_gran_us.unwrap_or(profile.preempt_gran_us),
            ),
        })
    }

    /// From keys and values, the last of each; the error is of one of them, and what it must be.
    pub fn set(pairs: &[(String, String)]) -> Result<Tuning, ((String, String), String)> {
        let definition = Self::augment_args(Command::new("set").no_binary_name(true));
        let arg = |key: &str| definition.get_arguments().find(|arg| arg.get_id() == key);
        for pair in pairs {
            let refuse = |must| (pair.clone(), must);
            let unknown = || refuse(file::unknown(&pair.0, &definition, None));
            let arg = arg(&pair.0).ok_or_else(unknown)?;
            file::check(arg, std::slice::from_ref(&pair.1)).map_err(refuse)?;
        }
        let last: BTreeMap<_, _> = pairs.iter().cloned().collect();
        let words = last.iter().filter_map(|(key, value)| file::as_flag(arg(key)?, value.as_ref()));
        let all = || (String::new(), String::new());
        let matches = definition.clone().try_get_matches_from(words);
        let args = matches.and_then(|matches| Self::from_arg_matches(&matches));
        let args = args.map_err(|error| (all(), error.to_string()))?;
        args.tuning().map_err(|refusal| ((refusal.id.to_owned(), refusal.value), refusal.must))
    }
}

/// The figures of [`TuningArgs`] by the names of their settings, in microseconds.
pub(super) fn figures(tuning: &Tuning) -> [(&'static str, u64); 4] {
    let us = |span: Nanos| span.0 / 1000;
    [
        ("slice_us", us(tuning.slice_max)),
        ("slice_min_us", us(tuning.slice_min)),
        ("lag_us", us(tuning.lag_max)),
        ("preempt_gran_us", us(tuning.preempt_gran)),
    ]
}

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
pub(super) fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// A parser of whole numbers in a range; its error names the range.
pub(super) fn ranged(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        text.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
            format!("must be a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// Parses the shortest slice; [`TuningArgs::tuning`] knows the longest.
pub(super) fn slice_min(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|n| SLICE_US.contains(n)).ok_or_else(|| {
        format!("must be a whole number from {} to the value of --slice-us", SLICE_US.start())
    })
}

//! Which settings are in effect: flags over the configuration file over defaults.

use super::{
    Choice,
    file::{CONFIG_DEFAULT, Entry, File, Kind, as_flag},
    flags::{self, LIVE, OF_POLICY, Refusal, SettingArgs, TuningArgs},
    one_line,
    place::Place,
};
use crate::{
    exit::{Exit, Failure},
    policy::builtin,
    profile::{self, AUTO},
    rules::{Rule, lint},
    settings::Settings,
    stats::text,
};
use clap::{Arg, ArgMatches, Args, FromArgMatches, parser::ValueSource};
use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Write},
    path::{Path, PathBuf},
};

/// Where the file is.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Take the settings that no flag gives from this file [default: /etc/scheduler/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Read the settings again whenever that file changes, as SIGHUP has it do
    #[arg(long)]
    pub watch_config: bool,
}

/// The settings in effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// As the scheduler takes them. What is told while it runs is not among them.
    pub settings: Settings,
    /// Who decides.
    pub choice: Choice,
    /// Each with where it is from, in the order of the help.
    pub shown: Vec<Shown>,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
    /// The file whose changes are followed.
    pub watched: Option<PathBuf>,
    /// What was asked for of the figures that a profile has.
    tuning: TuningArgs,
}

/// A setting in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its key in the file.
    pub key: String,
    /// As TOML; none if it is not set.
    pub value: Option<String>,
    /// Who set it.
    pub origin: Origin,
}

/// Where a setting is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The program.
    Default,
    /// The configuration file.
    File(Place),
    /// The command line.
    Flag,
    /// The profile in effect.
    Profile(String),
    /// `scheduler profile`, of this one while it runs.
    Request,
}

impl Shown {
    fn said(&self) -> &str {
        self.value.as_deref().unwrap_or("not set")
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key, self.said(), self.origin)
    }
}

/// What became of settings that were read again, each in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// They are in effect.
    pub changed: Vec<String>,
    /// They will be at the next start.
    pub pending: Vec<String>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(at) => write!(f, "{at}"),
            Origin::Flag => f.write_str("flag"),
            Origin::Profile(name) => write!(f, "profile {name}"),
            Origin::Request => f.write_str("scheduler profile"),
        }
    }
}

impl Origin {
    fn refuse(&self, refusal: &Refusal) -> Failure {
        let Refusal { id, value, must, .. } = refusal;
        match self {
            Origin::File(at) => at.refuse(&format!("{id} = {value}: {must}")),
            _ => refusal.of_flag(),
        }
    }
}

/// A setting that somebody gave.
struct Given {
    id: String,
    values: Vec<OsString>,
    origin: Origin,
}

impl Effective {
    /// Of a command line: `matches` is what clap made of it, `own` the name of the policy that the program is made of, if
    /// it is not this crate's own program. That one alone looks for the file at its default place.
    pub(super) fn of(
        matches: &ArgMatches,
        config: &ConfigArgs,
        own: Option<&str>,
    ) -> Result<Self, Failure> {
        let default = own.is_none().then(|| Path::new(CONFIG_DEFAULT));
        let path = config.config.as_deref().or(default);
        let file = match (&config.config, default) {
            (Some(path), _) => Self::file(path)?,
            (None, Some(default)) => File::read(default)?.unwrap_or_default(),
            (None, None) => File::default(),
        };
        let watched = match path {
            Some(path) if config.watch_config => Some(path.to_owned()),
            None if config.watch_config => {
                let text = "--watch-config: there is no file to watch without --config FILE";
                return Err(Failure::new(Exit::Usage, text));
            }
            _ => None,
        };
        Ok(Self { watched, ..Self::layered(file, Some(matches), own)? })
    }

    /// Of a file alone.
    pub(super) fn of_file(path: &Path, own: Option<&str>) -> Result<Self, Failure> {
        Self::layered(Self::file(path)?, None, own)
    }

    fn file(path: &Path) -> Result<File, Failure> {
        File::read(path)?.ok_or_else(|| {
            let path = text::printable(path.as_os_str().as_encoded_bytes());
            Failure::new(Exit::Usage, format!("reading the settings {path}: there is no such file"))
        })
    }

    fn layered(file: File, flags: Option<&ArgMatches>, own: Option<&str>) -> Result<Self, Failure> {
        let mut definition = flags::definition();
        if own.is_some() {
            // There is no choice.
            definition = definition.mut_arg("policy", super::no_choice);
        }
        let mut given = Vec::new();
        let mut other_policy = false;
        for arg in definition.get_arguments() {
            let of_file = file.entries.iter().find(|entry| arg.get_id() == entry.id.as_str());
            let of_flag = flags.and_then(|matches| of_flag(arg, matches));
            if let (Some(flag), Some(file), "policy") = (&of_flag, of_file, arg.get_id().as_str()) {
                other_policy = flag.values != file.values;
            }
            // The file's options are of the policy that it names.
            let of_file = of_file.filter(|entry| !(other_policy && entry.id == "set"));
            given.extend(of_flag.or_else(|| of_file.map(of_entry)));
        }
        let words = definition.get_arguments().flat_map(|arg| {
            let given = given.iter().find(|given| arg.get_id() == given.id.as_str());
            let values = given.into_iter().flat_map(|given| &given.values);
            values.filter_map(|value| as_flag(arg, value)).collect::<Vec<_>>()
        });
        let parsed = definition.clone().try_get_matches_from(words);
        let matches = parsed.map_err(not_taken)?;
        let args = SettingArgs::from_arg_matches(&matches).map_err(not_taken)?;
        let origin = |id: &str| {
            let given = given.iter().find(|given| given.id == id);
            given.map_or(Origin::Default, |given| given.origin.clone())
        };
        let (settings, choice) = args.settings(own).map_err(|mut refusal| {
            let by = refusal.by.map(|id| format!(" ({})", origin(id)));
            refusal.must += by.as_deref().unwrap_or_default();
            origin(refusal.id).refuse(&refusal)
        })?;
        let shown = definition
            .get_arguments()
            .filter(|arg| !arg.is_hide_set())
            .map(|arg| Shown {
                key: arg.get_id().to_string(),
                value: value(arg, &matches),
                origin: origin(arg.get_id().as_str()),
            })
            .collect();
        let mut effective =
            Self { settings, choice, shown, rules: file.rules, watched: None, tuning: args.tuning };
        effective.show_figures();
        Ok(effective)
    }

    /// The figures that nobody gave are those of the profile.
    fn show_figures(&mut self) {
        let profile = &self.tuning.profile;
        let of_profile = match profile == AUTO.name {
            true => Origin::Default,
            false => Origin::Profile(profile.clone()),
        };
        let figures = flags::figures(&self.settings.tuning);
        for shown in &mut self.shown {
            let Some((_, us)) = figures.iter().find(|(id, _)| *id == shown.key) else { continue };
            shown.value = Some(us.to_string());
            if !matches!(shown.origin, Origin::File(_) | Origin::Flag) {
                shown.origin = of_profile.clone();
            }
        }
    }

    /// As these are, with another profile: what was given by itself stays.
    ///
    /// # Errors
    /// What does not go together with it, in words.
    pub fn with_profile(&self, name: &str) -> Result<Self, String> {
        if profile::find(name).is_none() {
            return Err(format!(
                "there is no such profile: there are {}",
                profile::names().join(", ")
            ));
        }
        let mut now = self.clone();
        now.tuning.profile = name.to_owned();
        now.settings.tuning =
            now.tuning.tuning().map_err(|Refusal { id, value, must, .. }| {
                format!("the profile {name} does not go with {id} = {value}: {must}")
            })?;
        for shown in now.shown.iter_mut().filter(|shown| shown.key == "profile") {
            shown.value = Some(toml::Value::from(name).to_string());
            shown.origin = Origin::Request;
        }
        now.show_figures();
        Ok(now)
    }

    /// The profile and its figures, a line each.
    pub fn tuned(&self) -> Vec<String> {
        let keys = flags::figures(&self.settings.tuning).map(|(id, _)| id);
        let is_one = |shown: &&Shown| shown.key == "profile" || keys.contains(&shown.key.as_str());
        self.shown.iter().filter(is_one).map(Shown::to_string).collect()
    }

    /// Takes of `now` what can change while the kernel schedules.
    pub fn adopt(&mut self, now: Self) -> Adopted {
        let mut adopted = Adopted::default();
        for (ours, theirs) in self.shown.iter_mut().zip(now.shown) {
            let is_live = LIVE.contains(&ours.key.as_str());
            if ours.value != theirs.value {
                let change = format!("{theirs}, was {}", ours.said());
                if is_live { &mut adopted.changed } else { &mut adopted.pending }.push(change);
            }
            if is_live {
                *ours = theirs;
            }
        }
        if self.rules != now.rules {
            let (before, after) = (self.rules.len(), now.rules.len());
            adopted.changed.push(format!("{after} rules, there were {before}"));
            self.rules = now.rules;
        }
        self.settings.tuning = now.settings.tuning;
        self.tuning = now.tuning;
        self.choice.grace = now.choice.grace;
        if let Some(relayed) = &mut self.settings.relayed {
            relayed.grace = now.choice.grace;
        }
        adopted
    }

    /// The settings as a file that has them all, and behind each where it is from.
    pub fn text(&self) -> String {
        let lines = self.shown.iter().map(|shown| match &shown.value {
            Some(value) => (format!("{} = {value}", shown.key), shown.origin.to_string()),
            None => (format!("# {} is not set", shown.key), String::new()),
        });
        let lines: Vec<_> = lines.collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        for (line, origin) in lines {
            let comment = if origin.is_empty() { origin } else { format!("  # {origin}") };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", format!("{line:<width$}{comment}").trim_end());
        }
        for (number, rule) in (1..).zip(&self.rules) {
            let fields = rule.lines().join("\n");
            let _ = write!(text, "\n# rule {number}, {}\n[[rule]]\n{fields}\n", rule.at);
        }
        text
    }

    /// What a user should know of these settings, which are good, a line each.
    pub fn warnings(&self) -> Vec<String> {
        lint::warnings(&self.rules)
    }

    /// Flags that were given and that only a policy in user space goes by, where the kernel's half decides.
    pub(super) fn without_effect(&self) -> impl Iterator<Item = String> {
        let kernel_decides = self.choice.policy == builtin::KERNEL;
        let of_policy =
            |shown: &&Shown| shown.origin == Origin::Flag && OF_POLICY.contains(&&*shown.key);
        let given = self.shown.iter().filter(of_policy);
        given.filter(move |_| kernel_decides).map(|shown| shown.key.replace('_', "-"))
    }

    /// A refusal of an option of the policy, which only that can judge.
    ///
    /// `option` is as `--set` has it.
    pub fn refuse_option(&self, option: &str, must: &str) -> Failure {
        let (value, must) = (text::printable(option.as_bytes()), must.to_owned());
        let refusal = Refusal { id: "set", value, must, by: None };
        let set = self.shown.iter().find(|shown| shown.key == refusal.id);
        set.map_or(&Origin::Flag, |shown| &shown.origin).refuse(&refusal)
    }
}

/// What the file says of a setting.
fn of_entry(entry: &Entry) -> Given {
    let Entry { id, values, at } = entry.clone();
    Given { id, values, origin: Origin::File(at) }
}

/// What the command line says of a setting.
fn of_flag(arg: &Arg, matches: &ArgMatches) -> Option<Given> {
    let id = arg.get_id().as_str();
    if matches.value_source(id) != Some(ValueSource::CommandLine) {
        return None;
    }
    let values = matches.get_raw(id)?.map(OsStr::to_owned).collect();
    Some(Given { id: id.to_owned(), values, origin: Origin::Flag })
}

/// What each of these words was taken for by itself, they are not all together.
fn not_taken(error: clap::Error) -> Failure {
    Failure::new(Exit::Usage, one_line(&error.render().to_string()))
}

/// The value of a setting as TOML.
fn value(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let mut raw =
        matches.get_raw(arg.get_id().as_str())?.map(|value| value.to_string_lossy().into_owned());
    let string = |text: String| toml::Value::from(text).to_string();
    match Kind::of(arg) {
        Kind::Switch | Kind::Number => raw.next(),
        Kind::Address => {
            raw.next().map(|text| if text.parse::<u16>().is_ok() { text } else { string(text) })
        }
        Kind::Text => raw.next().map(string),
        Kind::Options => {
            let pair = |text: String| {
                let (key, value) = text.split_once('=')?;
                Some((key.to_owned(), toml::Value::from(value)))
            };
            Some(toml::Value::Table(raw.filter_map(pair).collect()).to_string())
        }
    }
}

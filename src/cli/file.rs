//! The configuration file: TOML, whose keys are the settings of [`super::flags`]. What is wrong with it is told with its
//! line and column, and what is allowed there.

use super::{
    flags, one_line,
    place::{Place, Source, printable_path},
    rules,
};
use crate::{
    exit::{Exit, Failure},
    rules::Rule,
    stats::text,
};
use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction};
use std::{
    any::TypeId,
    error::Error,
    ffi::{OsStr, OsString},
    fs::OpenOptions,
    io::{self, Read},
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};
use toml::de::{DeTable, DeValue};

/// Where settings are looked for unless `--config` names another place.
pub const CONFIG_DEFAULT: &str = "/etc/scheduler/config.toml";

/// A file of all settings with a comment on each has some KiB.
const BYTES_MAX: u64 = 1 << 20;
/// A word is taken for another one from this likeness on, as clap does.
const LIKENESS: f64 = 0.7;

/// What a file sets.
#[derive(Debug, Default)]
pub(super) struct File {
    pub entries: Vec<Entry>,
    pub rules: Vec<Rule>,
}

/// A setting of a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub id: String,
    /// As the values of its flag, of which there may be several.
    pub values: Vec<OsString>,
    pub at: Place,
}

impl File {
    /// The file at `path`; none if there is nothing.
    ///
    /// # Errors
    /// [`Exit::Usage`], with the place in the file.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let bytes = match read_bounded(path) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => {
                let text = format!("reading the settings {}: {error:#}", printable_path(path));
                return Err(Failure::new(Exit::Usage, text));
            }
        };
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse(path, text).map(Some),
            Err(error) => {
                let text = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let source = Source::new(path, &text);
                Err(source.refuse(text.len(), "this is no text in UTF-8"))
            }
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let source = Source::new(path, text);
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            source.refuse(at, &one_line(error.message()))
        })?;
        let mut settings: Vec<_> = table.get_ref().iter().collect();
        // The first mistake is told, from above.
        settings.sort_by_key(|(key, _)| key.span().start);
        let definition = flags::definition();
        let mut file = Self::default();
        for (key, value) in settings {
            let at = key.span().start;
            let id = key.get_ref().as_ref();
            if id == rules::KEY {
                file.rules = rules::parse(&source, value)?;
                continue;
            }
            let arg = definition.get_arguments().find(|arg| arg.get_id() == id);
            let arg =
                arg.ok_or_else(|| source.refuse(at, &unknown(id, &definition, Some(rules::KEY))))?;
            let said = source.shown(value.span());
            let values = values(arg, value.get_ref())
                .and_then(|values| check(arg, &values).map(|()| values))
                .map_err(|must| {
                    source.refuse(value.span().start, &format!("{id} = {said}: {must}"))
                })?;
            let values = values.into_iter().map(OsString::from).collect();
            file.entries.push(Entry { id: id.to_owned(), values, at: source.place(at) });
        }
        Ok(file)
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What is in a file, if that is not too much. Waits for nobody.
fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata().context("asking what it is")?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        bail!("this is no file");
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        bail!("it has more than {} KiB", BYTES_MAX >> 10);
    }
    Ok(bytes)
}

/// What is said to a key that is no setting. `tables`: what else there may be.
pub(super) fn unknown(key: &str, definition: &clap::Command, tables: Option<&str>) -> String {
    let names: Vec<_> = definition.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    let meant = match likely(key, names.iter().copied().chain(tables)).trim_end() {
        "" => String::new(),
        meant => format!("; {meant}"),
    };
    let key = text::printable(key.as_bytes());
    let names = names.join(", ");
    let tables = tables.map_or_else(String::new, |name| format!(", and tables [[{name}]]"));
    format!("there is no setting '{key}'{meant} (there are {names}{tables})")
}

/// A question whether that one of these was meant that is most like `word`; nothing where none is.
pub(super) fn likely<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let like = names
        .into_iter()
        .map(|name| (strsim::jaro(word, name), name))
        .filter(|(likeness, _)| *likeness > LIKENESS)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    like.map_or_else(String::new, |(_, name)| format!("did you mean '{name}'? "))
}

/// What a setting is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// true or false.
    Switch,
    /// A whole number.
    Number,
    /// A port, or a string with an address.
    Address,
    /// A string.
    Text,
    /// A table of strings and numbers.
    Options,
}

impl Kind {
    /// By the definition of its flag.
    pub fn of(arg: &Arg) -> Self {
        let is = |id: TypeId| arg.get_value_parser().type_id() == id;
        match arg.get_action() {
            ArgAction::Append => Kind::Options,
            _ if is(TypeId::of::<bool>()) => Kind::Switch,
            _ if is(TypeId::of::<u64>()) || is(TypeId::of::<u32>()) => Kind::Number,
            _ if is(TypeId::of::<SocketAddr>()) => Kind::Address,
            _ => Kind::Text,
        }
    }
}

/// A value as the file says it, as values of the flag.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wanted = match (Kind::of(arg), value) {
        (Kind::Switch, DeValue::Boolean(_))
        | (Kind::Number | Kind::Address, DeValue::Integer(_))
        | (Kind::Text | Kind::Address, DeValue::String(_)) => {
            return Ok(scalar(value).into_iter().collect());
        }
        (Kind::Options, DeValue::Table(table)) => {
            return table
                .iter()
                .map(|(key, value)| option(key.get_ref(), value.get_ref()))
                .collect();
        }
        (Kind::Switch, _) => "true or false",
        (Kind::Number, _) => "a whole number",
        (Kind::Address, _) => "a port, or a string with an address",
        (Kind::Text, _) => "a string",
        (Kind::Options, _) => "a table, as in { slice_us = 5000 }",
    };
    Err(format!("must be {wanted}, not {} ({})", name_of(value), meaning(arg)))
}

/// An option of a policy, as `--set` has it.
fn option(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    let text = scalar(value).map(|value| format!("{key}={value}"));
    let key = text::printable(key.as_bytes());
    text.ok_or_else(|| format!("{key} must be a number or a string, not {}", name_of(value)))
}

/// What the help says of a setting.
fn meaning(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

pub(super) fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        // One that is too large for this is too large for any setting.
        DeValue::Integer(n) => Some(
            i128::from_str_radix(n.as_str(), n.radix())
                .map_or_else(|_| n.as_str().to_owned(), |n| n.to_string()),
        ),
        DeValue::Float(n) => Some(n.as_str().to_owned()),
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(on) => Some(on.to_string()),
        _ => None,
    }
}

pub(super) fn name_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether the flag takes these values.
pub(super) fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    let flags = values.iter().filter_map(|value| as_flag(arg, OsStr::new(value)));
    let taken = flags::definition().try_get_matches_from(flags);
    taken.map(drop).map_err(|error| match error.source() {
        Some(why) => one_line(&why.to_string()),
        None => one_line(&error.render().to_string()),
    })
}

/// A value of a setting as a word of the command line.
pub(super) fn as_flag(arg: &Arg, value: &OsStr) -> Option<OsString> {
    let mut word = OsString::from(format!("--{}", arg.get_long()?));
    if arg.get_action().takes_values() {
        word.push("=");
        word.push(value);
    }
    Some(word)
}

//! The protocol of the crate `scx_stats`, which `scxtop` and scripts speak: a request is a line of JSON, `{"req": …,
//! "args": {…}}`, and so is the answer, `{"errno": …, "args": {"resp": …}}`.
//!
//! Requests:
//! - `stats_meta` describes the fields of `stats`;
//! - `stats` gives what happened since the last such request of this connection, or since the scheduler began. Its
//!   argument `target` is `top`, numbers by name ([`flat`]), or `interval`, what `--json` prints; with that one, the
//!   argument `tasks` asks for the busiest tasks, so many of them;
//! - `profile` gives the profile in effect with its figures, lines of text, after a switch to the profile that the argument
//!   `name` names, if it is there. It is a request of ours;
//! - `explain`, likewise, tells of tasks: the argument `of` is their number or name. Without it, of all rules.
//!
//! That crate's own server reads lines of any length, has a thread for each connection, as many as come, and waits for
//! them for ever; so this is a server of our own.

use super::{
    Samples,
    client::{Answer, Protocol},
};
use crate::stats::{flat, interval::Interval, sample::Sample, tasks::TaskTracker};
use anyhow::Result;
use nix::libc;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, rc::Rc, time::Duration};

/// A client that keeps its connection asks more often than this: beyond it nobody is there.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Tasks that may be asked for, as with `--tasks`.
const TASKS_MAX: usize = 1000;

/// A request.
#[derive(Debug, Deserialize)]
struct Request {
    req: String,
    #[serde(default)]
    args: BTreeMap<String, String>,
}

/// Why a request is not answered.
#[derive(Debug)]
struct Refusal {
    errno: i32,
    why: String,
}

impl Refusal {
    fn invalid(why: String) -> Self {
        Self { errno: libc::EINVAL, why }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self { errno: libc::EIO, why: format!("{error:#}") }
    }
}

/// The protocol, with what a connection was told last.
pub struct ScxStats {
    before: Rc<Sample>,
    tasks: Option<TaskTracker>,
}

impl ScxStats {
    /// For a connection whose first answer is of the time since `start`.
    pub fn since(start: Rc<Sample>) -> Self {
        Self { before: start, tasks: None }
    }

    fn respond(&mut self, request: &[u8], samples: &mut Samples<'_>) -> Result<String, Refusal> {
        let request: Request = serde_json::from_slice(request)
            .map_err(|error| Refusal::invalid(format!("no request: {error}")))?;
        match request.req.as_str() {
            "stats_meta" => Ok(flat::meta().to_string()),
            "stats" => match request.args.get("target").map_or("top", String::as_str) {
                "top" => Ok(Value::from(flat::of(&self.interval(samples, 0)?)).to_string()),
                "interval" => {
                    let interval = self.interval(samples, tasks_of(&request)?)?;
                    Ok(serde_json::to_string(&interval).map_err(anyhow::Error::from)?)
                }
                _ => Err(Refusal::invalid("unknown target: there are top and interval".to_owned())),
            },
            "profile" => {
                let name = request.args.get("name").map(String::as_str);
                Ok(Value::from(samples.profile(name).map_err(Refusal::invalid)?).to_string())
            }
            "explain" => {
                let of = request.args.get("of").map(String::as_str);
                Ok(Value::from(samples.explain(of).map_err(Refusal::invalid)?).to_string())
            }
            _ => Err(Refusal::invalid(
                "unknown request: there are stats, stats_meta, profile and explain".into(),
            )),
        }
    }

    /// What happened since the last one.
    fn interval(&mut self, samples: &mut Samples<'_>, tasks: usize) -> Result<Interval> {
        let now = samples.now()?;
        let span = now.at - self.before.at;
        let rows = match tasks {
            0 => Vec::new(),
            _ => self.tasks.get_or_insert_default().busiest(samples.tasks()?, span, tasks),
        };
        let mut interval = Interval::between(&self.before, &now, rows);
        if let Some(tracker) = self.tasks.as_ref().filter(|_| tasks > 0) {
            interval.rules = tracker.rules(samples.rules(), span);
        }
        self.before = now;
        Ok(interval)
    }
}

/// How many tasks are asked for.
fn tasks_of(request: &Request) -> Result<usize, Refusal> {
    let Some(text) = request.args.get("tasks") else { return Ok(0) };
    let number = text.parse().ok().filter(|n| *n <= TASKS_MAX);
    number.ok_or_else(|| Refusal::invalid(format!("tasks must be a number up to {TASKS_MAX}")))
}

/// A response as a line. `json` is a JSON value.
fn line(errno: i32, json: &str) -> Vec<u8> {
    format!("{{\"errno\":{errno},\"args\":{{\"resp\":{json}}}}}\n").into_bytes()
}

fn refuse(refusal: Refusal) -> Vec<u8> {
    line(refusal.errno, &Value::from(refusal.why).to_string())
}

impl Protocol for ScxStats {
    fn request_len(&self, input: &[u8]) -> Option<usize> {
        Some(input.iter().position(|&byte| byte == b'\n')? + 1)
    }

    fn answer(&mut self, request: &[u8], samples: &mut Samples<'_>) -> Answer {
        let told = self.respond(request, samples).map(|json| line(0, &json));
        Answer { bytes: told.unwrap_or_else(refuse), is_last: false }
    }

    fn too_long(&self) -> Vec<u8> {
        refuse(Refusal { errno: libc::EMSGSIZE, why: "the request is too long".to_owned() })
    }

    fn silence_max(&self) -> Duration {
        SILENCE_MAX
    }

    fn wants_tasks(&self) -> bool {
        self.tasks.is_some()
    }
}

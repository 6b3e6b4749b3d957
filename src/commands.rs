//! The commands, and how each ends.

use crate::{
    cli::{self, Effective, Request},
    compare::{self, Plan},
    endpoint::{Endpoints, ask::Connection, http::MetricsSocket},
    exit::{Exit, Failure},
    machine::{
        changes::Changes,
        notify::{Event, Notifier},
        output::{self, terminal_width},
        preflight::{self, Host},
        ruler::Ruler,
        scheduler::Scheduler,
        stop::{Hangup, Stop},
    },
    policy::{Own, Policy, builtin},
    record,
    relay::{self, Relay},
    reload::Reloader,
    settings::Relayed,
    sim,
    stats::text,
    top,
    watch::{self, Beside},
};
use anyhow::{Context, anyhow};
use libbpf_rs::{PrintLevel, set_print};
use log::LevelFilter;
use serde_json::json;
use simplelog::{ConfigBuilder, WriteLogger};
use std::{
    ffi::OsString,
    io::{self, LineWriter, Write},
    mem::MaybeUninit,
    path::Path,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

/// The whole program: from the command line, the program's name first, to the exit code. `own` is the policy that it is
/// made of; none for this crate's own program, which has a choice.
pub fn main(args: impl IntoIterator<Item = OsString>, own: Option<Own>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let (own, name) = (own.as_ref(), own.as_ref().map(Own::name));
    let parse = || cli::parse(args.clone(), name.as_deref());
    let result = parse().and_then(|request| match request {
        Request::Schedule(effective) => schedule(effective, own, &|| match parse()? {
            Request::Schedule(again) => set_up(&again, None).map(|_| again),
            _ => Err(anyhow!("the command line does not schedule any more").into()),
        }),
        Request::Check(file, effective) => check(&file, &effective, own),
        Request::Doctor => doctor(),
        Request::Compare(plan) => compare(&plan),
        Request::Simulate(plan) => simulate(&plan, own),
        Request::Record(plan) => record(&plan),
        Request::Top(options) => top::run(&options),
        Request::Profile(socket, name) => ask(&socket, "profile", "name", name.as_deref()),
        Request::Explain(socket, of) => ask(&socket, "explain", "of", of.as_deref()),
        Request::Print(text) => print(&text).map(|()| Exit::Stopped),
    });
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            complain(&format!("{:#}", failure.error));
            failure.exit.into()
        }
    }
}

/// One message to the user. A closed standard error is no reason to end otherwise.
pub fn complain(message: &str) {
    // In one write: it may be one of several who write there.
    let _ = io::stderr().write_all(format!("scheduler: {message}\n").as_bytes());
}

/// Prints a text and is done. A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("writing to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// `scheduler doctor`: 0, or 78 when a load would fail for whatever reason.
fn doctor() -> Result<Exit, Failure> {
    let report = preflight::full(&Host::real());
    print(&format!("{report}\n"))?;
    Ok(if report.fault().is_some() { Exit::Unsupported } else { Exit::Stopped })
}

/// `scheduler compare`: runs a command under both schedulers.
fn compare(plan: &Plan) -> Result<Exit, Failure> {
    set_up_log(0);
    let host = Host::real();
    preflight::require(&preflight::quick(&host))?;
    let results = compare::run(plan, &host, &Stop::on_signals()?)?;
    print(&if plan.json { results.json()? } else { results.text() })?;
    Ok(Exit::Stopped)
}

/// `scheduler record`: a trace of this machine.
fn record(plan: &record::Plan) -> Result<Exit, Failure> {
    set_up_log(0);
    let summary = record::run(plan, &Host::real(), &Stop::on_signals()?)?;
    print(&format!("{}: {summary}\n", text::printable(plan.out.as_os_str().as_encoded_bytes())))?;
    Ok(Exit::Stopped)
}

/// `scheduler simulate`: 0, or 1 after a line for each run that the oracles found fault with.
fn simulate(plan: &sim::Plan, own: Option<&Own>) -> Result<Exit, Failure> {
    set_up_log(0);
    let scenario = plan.scenario()?;
    let refuse = |option: &str, must: &str| {
        let option = text::printable(option.as_bytes());
        let text = format!("invalid '--set policy.{option}': {must} (see --help)");
        Failure::new(Exit::Usage, text)
    };
    let policy = || policy_of(&plan.policy, &plan.options, own, &refuse);
    if (plan.runs > 1 || plan.sweep.is_some()) && matches!(own, Some(Own::Once(_))) {
        let text = "the policy of this program is good for one run: where its main() says \
                    scheduler::run_made(), each run has one of its own";
        return Err(Failure::new(Exit::Usage, text));
    }
    // Refused before anything is simulated; the first run gets it.
    let first = policy()?;
    let has_policy = first.is_some();
    let first = Mutex::new(first);
    let policies = || {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let policy = first.map_or_else(policy, |policy| Ok(Some(policy)));
        Ok(policy.map_err(|failure| failure.error)?.map(sim::Hosted::new))
    };
    for warning in scenario.without_effect(has_policy) {
        complain(&format!("warning: {warning}"));
    }
    let stop = Stop::on_signals_or_end()?;
    if let Some(sweep) = &plan.sweep {
        return run_sweep(sweep, plan, &scenario, &policies, &stop);
    }
    let results = plan.run(&scenario, &policies, &stop)?;
    let summary = &results.summary;
    print(&if plan.json {
        format!("{}\n", summary.json())
    } else {
        summary.text(terminal_width())
    })?;
    for violation in &results.violations {
        complain(&violation.to_string());
    }
    if stop.is_triggered() {
        complain("interrupted: this is what there was by then");
    }
    if let Some(error) = results.untraced {
        return Err(error.into());
    }
    Ok(exit_of(&results.violations))
}

/// What a user is told by the exit code: the scheduler did what it must not do, or the scenario cannot be.
fn exit_of(violations: &[sim::Violation]) -> Exit {
    match violations {
        [] => Exit::Stopped,
        _ if violations.iter().all(|violation| violation.oracle == sim::OF_SCENARIO) => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// `scheduler simulate --sweep`: ends as a simulation does.
fn run_sweep(
    sweep: &sim::Sweep,
    plan: &sim::Plan,
    scenario: &sim::Scenario,
    policies: &sim::Policies<'_>,
    stop: &Stop,
) -> Result<Exit, Failure> {
    // Before all else: it may take long until there is something to draw.
    let chart = sweep.svg.as_deref().map(|path| output::create("--svg", path)).transpose()?;
    let mut results = sweep.run(plan, scenario, policies, stop)?;
    if stop.is_triggered() {
        // Figures of the beginning of a run compare with none of a whole one.
        results.retain(|(_, results)| results.is_whole(plan.runs));
        let (whole, all) = (results.len(), sweep.points.len());
        complain(&format!("interrupted: {whole} of {all} values were simulated to their end"));
    }
    print(&if plan.json { format!("{}\n", sweep.json(&results)) } else { sweep.text(&results) })?;
    if let Some(file) = chart {
        sweep.draw(&results, file)?;
    }
    let mut violations = Vec::new();
    for (value, results) in results {
        for violation in results.violations {
            complain(&format!("{}={value}: {violation}", sweep.key));
            violations.push(violation);
        }
    }
    Ok(exit_of(&violations))
}

/// `scheduler profile` and `scheduler explain`: asks the running scheduler, and prints the lines of its answer.
fn ask(socket: &Path, request: &str, argument: &str, value: Option<&str>) -> Result<Exit, Failure> {
    let args = value.map_or_else(|| json!({}), |value| json!({argument: value}));
    let answer = Connection::open(socket)?.ask(&json!({"req": request, "args": args}))?;
    let lines: Vec<String> =
        serde_json::from_value(answer).context("understanding the scheduler's answer")?;
    let lines = lines.iter().map(|line| text::printable(line.as_bytes()) + "\n");
    print(&lines.collect::<String>())?;
    Ok(Exit::Stopped)
}

/// `scheduler config check`: what the parser does not know, the policy does.
fn check(file: &Path, effective: &Effective, own: Option<&Own>) -> Result<Exit, Failure> {
    set_up(effective, own)?;
    for warning in effective.warnings() {
        complain(&format!("warning: {warning}"));
    }
    print(&format!("{}: good\n", text::printable(file.as_os_str().as_encoded_bytes())))?;
    Ok(Exit::Stopped)
}

/// The policy in user space that the settings ask for.
fn set_up(effective: &Effective, own: Option<&Own>) -> Result<Option<Box<dyn Policy>>, Failure> {
    let refuse = |option: &str, must: &str| effective.refuse_option(option, must);
    policy_of(&effective.choice.policy, &effective.choice.options, own, &refuse)
}

/// The policy in user space of that name, or the program's own, with its options. `refuse` makes the error of one of these,
/// from what it is and what it must be.
fn policy_of(
    name: &str,
    options: &[(String, String)],
    own: Option<&Own>,
    refuse: &dyn Fn(&str, &str) -> Failure,
) -> Result<Option<Box<dyn Policy>>, Failure> {
    let made = || builtin::find(name).and_then(|builtin| Some(builtin.make?()));
    let Some(mut policy) = own.map_or_else(made, Own::make) else { return Ok(None) };
    relay::check_interface(&*policy)?;
    for (key, value) in options {
        policy.set(key, value).map_err(|reason| {
            let must = format!("the policy {}: {reason}", policy.name());
            refuse(&format!("{key}={value}"), &must)
        })?;
    }
    Ok(Some(policy))
}

/// `scheduler`: schedules until it is stopped or ejected.
fn schedule(
    mut effective: Effective,
    own: Option<&Own>,
    reread: &dyn Fn() -> Result<Effective, Failure>,
) -> Result<Exit, Failure> {
    set_up_log(effective.settings.verbosity);
    // Early: a change before this one is missed.
    let changes = effective.watched.as_deref().map(Changes::of).transpose();
    let changes =
        changes.map_err(|error| Failure::new(Exit::Usage, format!("--watch-config: {error:#}")))?;
    let policy = set_up(&effective, own)?;
    let Effective { settings, choice, .. } = &mut effective;
    settings.relayed = policy.as_ref().map(|policy| Relayed {
        grace: choice.grace,
        ring_bytes: choice.ring_bytes,
        idle_direct: policy.takes_idle_cpus(),
    });
    let host = Host::real();
    preflight::require(&preflight::quick(&host))?;
    let mut endpoints = Endpoints::default();
    if let Some(address) = settings.metrics {
        endpoints.add(MetricsSocket::listen(address)?);
    }
    let stop = Stop::but_hangup()?;
    let hangup = Hangup::on_signal()?;
    let notifier = Notifier::from_env();
    let (mut storage, mut storage_of_rules) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let mut scheduler = Scheduler::load(settings, &host, &mut storage)?;
    log::info!("loaded");
    if stop.is_triggered() {
        return Ok(Exit::Stopped);
    }
    release_memory();
    let mut relay = match policy {
        None => None,
        Some(policy) => {
            relay::lock_memory()?;
            Some(Relay::start(&scheduler, policy, settings.tuning.slice_max, stop.clone())?)
        }
    };
    scheduler.attach()?;
    log::info!("attached");
    let ruler = Ruler::new(&mut storage_of_rules);
    let mut reloader = Reloader::new(effective, reread, hangup, changes, ruler);
    reloader.start(&scheduler)?;
    notifier.tell_or_warn(Event::Ready);

    let beside = Beside { relay: relay.as_ref(), endpoints, notifier: &notifier };
    let watched = watch::until_the_end(&mut scheduler, &mut reloader, beside, &stop);
    notifier.tell_or_warn(Event::Stopping);
    let report = scheduler.detach();
    let ended = relay.as_mut().map_or(Ok(()), Relay::end);
    if !report.is_by_us() {
        return Err(Failure::new(Exit::Failed, report.to_string()));
    }
    watched?;
    ended?;
    Ok(Exit::Stopped)
}

fn set_up_log(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    // Fails only when there is a logger, and then there is one.
    let _ = log::set_boxed_logger(logger(level, io::stderr())).map(|()| log::set_max_level(level));
    // libbpf warns of much that is harmless. What is not comes back as an error, too.
    set_print(Some((PrintLevel::Debug, |level, text| match level {
        PrintLevel::Debug => log::debug!("{}", text.trim_end()),
        PrintLevel::Info | PrintLevel::Warn => log::info!("{}", text.trim_end()),
    })));
}

/// A logger that writes each line at once: who reads beside it, or writes to the same terminal, meets no halves.
fn logger<W: Write + Send + 'static>(level: LevelFilter, to: W) -> Box<WriteLogger<LineWriter<W>>> {
    let config = ConfigBuilder::new().set_time_format_rfc3339().build();
    WriteLogger::new(level, config, LineWriter::new(to))
}

/// Gives back what loading took: mostly the kernel's type information, several megabytes.
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition; it releases free memory only.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::{Level, Log, Record};
    use std::sync::Arc;

    /// What was written, write by write.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("no panic beside it")
                .push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_the_log_is_one_write() {
        let writes = Writes::default();
        let logger = logger(LevelFilter::Info, writes.clone());
        for number in 1..=2 {
            let what = format_args!("{number} rules are in force; looked at in {:?}", "3 ms");
            logger.log(&Record::builder().level(Level::Info).args(what).build());
        }
        let writes = writes.0.lock().expect("no panic beside it");
        assert_eq!(writes.len(), 2, "{writes:?}");
        assert!(writes.iter().all(|line| line.ends_with("3 ms\"\n")), "{writes:?}");
    }
}

//! `make run`: the scheduler under load, live, for 20 s; on this machine with consent, else in a guest.

use crate::{
    init,
    kernel::{Kernel, SERIES},
    process::Running,
    qemu::{Event, Guest, Mode, Topology},
    suite::base_initramfs,
    vm::{SCHEDULER, Scheduler, sched_ext, wait_for},
};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        utsname::uname,
    },
    unistd::{Pid, geteuid},
};
use serde_json::Value;
use std::{
    convert::Infallible,
    env,
    fs::File,
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// How long the live table runs.
const LIVE: Duration = Duration::from_secs(16);

/// Two workers a CPU that compute, and some that switch, sleep and wake.
const LOAD: &str = "stress-ng --quiet --cpu 8 --switch 2 --nanosleep 2 --timeout 60s";

/// The guest's last line.
const DONE: &str = "lab: done";

/// Says where it runs, and runs there.
pub fn run(scheduler: &Path) -> Result<()> {
    let here = Path::new("/sys/kernel/sched_ext").exists();
    if here && geteuid().is_root() && consents()? {
        println!("run: on this machine, for {} s; Ctrl-C ends it", LIVE.as_secs());
        return show(scheduler, &io::stdout());
    }
    let why = match here {
        false => "this machine's kernel has no sched_ext",
        true if !geteuid().is_root() => "you are not root",
        true => "without your consent",
    };
    let newest = SERIES.last().context("no kernel is supported")?;
    let root = env::current_dir().context("finding the repository")?;
    let kernel = Kernel::from_env()?.map_or_else(|| Kernel::find(newest, &root), Ok)?;
    println!(
        "run: in a virtual machine on Linux {}, because {why}; nothing here is touched",
        kernel.release
    );
    println!("run: QEMU without hardware virtualization, so it takes some seconds to boot");
    in_guest(scheduler, &kernel, &root.join(".cache/run"))
}

/// Asks before the user's own machine is scheduled. No terminal, no consent.
fn consents() -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("run: schedule THIS machine for {} s, under stress-ng? [y/N] ", LIVE.as_secs());
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn in_guest(scheduler: &Path, kernel: &Kernel, folder: &Path) -> Result<()> {
    const MEMORY_MIB: u32 = 2048;
    const LIMIT: Duration = Duration::from_secs(120);
    const CONSOLE_LINES: usize = 40;
    let initramfs = base_initramfs(&[(SCHEDULER, scheduler.into())], &["stress-ng"])?;
    let guest = Guest {
        kernel,
        topology: Topology::FOUR,
        mode: Mode::Parallel,
        memory_mib: MEMORY_MIB,
        append: "",
    };
    let mut running = guest.boot(&initramfs, folder)?;
    loop {
        match running.next_line(LIMIT)? {
            Event::Line(line) if line == DONE => return Ok(()),
            Event::Line(line) => writeln!(io::stdout(), "{line}")?,
            Event::Off => {
                bail!("the guest went off early:\n{}", running.console_tail(CONSOLE_LINES))
            }
            Event::Silence => bail!("the guest hangs:\n{}", running.console_tail(CONSOLE_LINES)),
        }
    }
}

/// Process 1 of the guest.
pub fn guest() -> Result<Infallible> {
    let shown = init::set_up().and_then(|()| {
        let mut port = File::options()
            .write(true)
            .open("/dev/ttyS1")
            .context("opening the port of results")?;
        if let Err(error) = show(Path::new(SCHEDULER), &port) {
            writeln!(port, "run: {error:#}")?;
            return Err(error);
        }
        Ok(writeln!(port, "{DONE}")?)
    });
    if let Err(error) = shown {
        eprintln!("lab: {error:#}");
    }
    init::power_off()
}

/// A stream that a child can write to as well.
trait Screen: Write {
    fn for_child(&self) -> io::Result<Stdio>;
}

impl Screen for &File {
    fn for_child(&self) -> io::Result<Stdio> {
        Ok(self.try_clone()?.into())
    }
}

impl Screen for &io::Stdout {
    fn for_child(&self) -> io::Result<Stdio> {
        Ok(Stdio::inherit())
    }
}

/// The show itself: load, live table, figures, end.
fn show(scheduler: &Path, mut screen: impl Screen) -> Result<()> {
    let kernel =
        uname().context("asking for the kernel's name")?.release().to_string_lossy().into_owned();
    let cpus = thread::available_parallelism()?;
    writeln!(screen, "run: {cpus} CPUs, under `{LOAD}`")?;
    let mut live = Command::new(scheduler)
        .arg("--stats")
        .stdin(Stdio::null())
        .stdout(screen.for_child()?)
        .stderr(screen.for_child()?)
        .spawn()
        .with_context(|| format!("starting {}", scheduler.display()))?;
    // The load comes last: to load the scheduler under it would take longer than the show.
    const START_LIMIT: Duration = Duration::from_secs(60);
    wait_for(START_LIMIT, || Ok(live.try_wait()?.is_some() || sched_ext("state")? == "enabled"))
        .context("waiting for the scheduler to be enabled")?;
    let load = start_load()?;
    thread::sleep(LIVE);
    if live.try_wait()?.is_none() {
        kill(Pid::from_raw(live.id().cast_signed()), Signal::SIGINT)
            .context("ending the live table")?;
    }
    let ended = live.wait()?;
    ensure!(ended.success(), "the scheduler ended with {ended}");

    drop(load);
    let figures = figures(scheduler)?;
    writeln!(screen, "\nSummary")?;
    writeln!(screen, "  kernel             Linux {kernel}")?;
    writeln!(screen, "  CPUs               {cpus}")?;
    for (name, value) in figures {
        writeln!(screen, "  {name:<18} {value}")?;
    }
    writeln!(screen, "  state after exit   {}", sched_ext("state")?)?;
    ensure!(sched_ext("state")? == "disabled", "sched_ext is not off after the end");
    Ok(())
}

fn start_load() -> Result<Running> {
    let mut words = LOAD.split(' ');
    Running::start(Command::new(words.next().unwrap_or_default()).args(words))
        .context("starting the load: run scripts/setup.sh")
}

/// Another interval under the same load, read by machine.
fn figures(scheduler: &Path) -> Result<Vec<(&'static str, String)>> {
    const INTERVAL: &str = "2";
    const LIMIT: Duration = Duration::from_secs(30);
    let mut running =
        Scheduler::start(&mut Command::new(scheduler), &["--json", "--interval", INTERVAL])?;
    let _load = start_load()?;
    // The first interval has the load only in part.
    wait_for(LIMIT, || Ok(running.process().stdout().lines().count() > 2))
        .context("waiting for statistics")?;
    let text = running.process().stdout();
    running.finish()?;
    let sample: Value = serde_json::from_str(text.lines().nth(1).unwrap_or_default())
        .context("reading statistics")?;
    let number = |path: &str| sample.pointer(path).and_then(Value::as_f64);
    let show = |path: &str, unit: &str| {
        number(path).map_or("not reported".into(), |n| format!("{n:.0}{unit}"))
    };
    Ok(vec![
        ("wakeup latency p50", show("/total/wakeup_latency/p50_us", " µs")),
        ("wakeup latency p99", show("/total/wakeup_latency/p99_us", " µs")),
        ("switches/s", show("/total/switches_per_s", "")),
    ])
}

//! `make run`: the scheduler under load, live, for 20 s; on this machine with consent, else in a guest.

use crate::{
    boot::EMULATOR_FAULT,
    init,
    kernel::{Kernel, SERIES},
    process::Running,
    qemu::{self, Event, Guest, Mode, Topology},
    suite::base_initramfs,
    vm::{SCHEDULER, sched_ext, wait_for},
};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        termios::tcdrain,
        utsname::uname,
    },
    unistd::{Pid, geteuid},
};
use serde_json::Value;
use std::{
    convert::Infallible,
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, IsTerminal, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// How long the live table runs.
const LIVE: Duration = Duration::from_secs(16);

/// Two workers a CPU that compute, and some that switch, sleep and wake.
const LOAD: &str = "stress-ng --quiet --cpu 8 --switch 2 --nanosleep 2 --timeout 60s";

/// On the guest's command line: the output does not go to a terminal,
const PLAIN: &str = "lab.plain";

/// or to one of so many columns, which its serial line does not tell.
const COLUMNS: &str = "lab.columns=";

/// The guest's last line.
const DONE: &str = "lab: done";

/// Says where it runs, and runs there.
pub fn run(scheduler: &Path) -> Result<()> {
    let here = Path::new("/sys/kernel/sched_ext").exists();
    if here && geteuid().is_root() && consents()? {
        writeln!(io::stdout(), "run: on this machine, for {} s; Ctrl-C ends it", LIVE.as_secs())?;
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
    let shown = in_guest(scheduler, &kernel, why, &root.join(".cache/run"));
    // `make run | head` is a way to end it, too.
    let closed = |error: &anyhow::Error| {
        let kind = error.downcast_ref().map(io::Error::kind);
        kind == Some(io::ErrorKind::BrokenPipe)
    };
    shown.or_else(|error| if closed(&error) { Ok(()) } else { Err(error) })
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

fn in_guest(scheduler: &Path, kernel: &Kernel, why: &str, folder: &Path) -> Result<()> {
    const MEMORY_MIB: u32 = 2048;
    // It boots in 7 s on an idle machine.
    const LIMIT: Duration = Duration::from_secs(90);
    const BOOTS: u32 = 3;
    const CONSOLE_LINES: usize = 40;
    let mut out = io::stdout();
    writeln!(
        out,
        "run: in a virtual machine on Linux {}, because {why}; nothing here is touched",
        kernel.release
    )?;
    writeln!(out, "run: QEMU without hardware virtualization, so it takes some seconds to boot")?;
    let initramfs = base_initramfs(&[(SCHEDULER, scheduler.into())], &["stress-ng"])?;
    let terminal = match terminal_size::terminal_size_of(&out) {
        Some((width, _)) => format!("{COLUMNS}{}", width.0),
        None if out.is_terminal() => String::new(),
        None => PLAIN.to_owned(),
    };
    let guest = Guest {
        kernel,
        topology: Topology::FOUR,
        mode: Mode::Parallel,
        memory_mib: MEMORY_MIB,
        append: &terminal,
    };
    let (mut boots, mut begun) = (1, false);
    let mut running = guest.boot(&initramfs, folder)?;
    loop {
        let what = match running.next_line(LIMIT)? {
            Event::Line(line) if line == DONE => return Ok(()),
            Event::Line(line) => {
                begun = true;
                writeln!(out, "{line}")?;
                continue;
            }
            Event::Off(_) => "went off early",
            Event::Silence => "hangs",
        };
        // QEMU's threads sometimes run stale code while a kernel patches itself: as it boots, and as the scheduler attaches.
        let console = running.console();
        let spoiled = console.contains(EMULATOR_FAULT);
        if (!begun || spoiled) && boots < BOOTS {
            let why = if spoiled { "over a fault of QEMU" } else { "before it has booted" };
            (boots, begun) = (boots + 1, false);
            writeln!(out, "run: the guest {what} {why}; once more")?;
            drop(running);
            running = guest.boot(&initramfs, folder)?;
            continue;
        }
        bail!(
            "the guest {what}; the end of {}:\n{}",
            folder.join("console.log").display(),
            qemu::tail(&console, CONSOLE_LINES)
        )
    }
}

/// Process 1 of the guest.
pub fn guest() -> Result<Infallible> {
    let shown = init::set_up().and_then(|()| {
        let mut port = File::options()
            .write(true)
            .open("/dev/ttyS1")
            .context("opening the port of results")?;
        let shown = show(Path::new(SCHEDULER), &port);
        match &shown {
            Ok(()) => writeln!(port, "{DONE}")?,
            Err(error) => writeln!(port, "run: {error:#}")?,
        }
        // What the port has not sent when the guest goes off is lost.
        tcdrain(&port).context("waiting until the last line is out")?;
        shown
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
    let terminal = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut live = Command::new(scheduler);
    for word in terminal.split_whitespace() {
        if word == PLAIN {
            live.env("NO_COLOR", "1");
        } else if let Some(width) = word.strip_prefix(COLUMNS) {
            live.env("COLUMNS", width);
        }
    }
    let mut live = live
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
    let mut asked = Figures::new()?;
    thread::sleep(LIVE);
    let figures = asked.lines()?;
    if live.try_wait()?.is_none() {
        kill(Pid::from_raw(live.id().cast_signed()), Signal::SIGINT)
            .context("ending the live table")?;
    }
    let ended = live.wait()?;
    ensure!(ended.success(), "the scheduler ended with {ended}");

    drop(load);
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

/// The scheduler's statistics, asked for beside the table: over all of the load, read by machine.
struct Figures(BufReader<UnixStream>);

impl Figures {
    /// Where it answers (`scheduler --help`: --socket).
    const SOCKET: &str = "/var/run/scx/root/stats";

    fn new() -> Result<Self> {
        const LIMIT: Duration = Duration::from_secs(10);
        // It listens once it is attached; before that there may be the socket of one that was killed.
        let mut asked = UnixStream::connect(Self::SOCKET);
        wait_for(LIMIT, || {
            if asked.is_err() {
                asked = UnixStream::connect(Self::SOCKET);
            }
            Ok(asked.is_ok())
        })
        .ok();
        let socket = asked.with_context(|| format!("asking the scheduler at {}", Self::SOCKET))?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut figures = Self(BufReader::new(socket));
        figures.ask()?;
        Ok(figures)
    }

    /// What happened since it was asked last.
    fn ask(&mut self) -> Result<Value> {
        self.0.get_mut().write_all(b"{\"req\":\"stats\",\"args\":{\"target\":\"interval\"}}\n")?;
        let mut line = String::new();
        self.0.read_line(&mut line).context("waiting for statistics")?;
        let answer: Value = serde_json::from_str(&line).context("reading statistics")?;
        Ok(answer.pointer("/args/resp").cloned().unwrap_or(Value::Null))
    }

    /// The lines of the summary.
    fn lines(&mut self) -> Result<Vec<(&'static str, String)>> {
        let sample = self.ask()?;
        let number = |path: &str| sample.pointer(path).and_then(Value::as_f64);
        let show = |path: &str, text: fn(f64) -> String| {
            number(path).map_or_else(|| "not reported".to_owned(), text)
        };
        // As in the table above it.
        let time =
            |us: f64| if us < 1e3 { format!("{us:.0}us") } else { format!("{:.1}ms", us / 1e3) };
        Ok(vec![
            ("wakeup latency p50", show("/total/wakeup_latency/p50_us", time)),
            ("wakeup latency p99", show("/total/wakeup_latency/p99_us", time)),
            ("wakeup latency max", show("/total/wakeup_latency/max_us", time)),
            ("switches/s", show("/total/switches_per_s", |n| format!("{n:.0}"))),
        ])
    }
}

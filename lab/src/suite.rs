//! Cases and their runs: the host plans boots and reports, the guest runs the functions.

use crate::{
    init,
    initramfs::Initramfs,
    kernel::{Kernel, SERIES, STOCK},
    process::HogPlan,
    qemu::{Event, Guest, Mode, Topology},
    vm::{BpfObjects, Vm, sched_ext, wait_for},
};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    env,
    fs::{self, File},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Which kernels a case runs on when nobody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Every,
    Newest,
    Stock,
}

/// One test on a real kernel: a function that runs inside a guest.
#[derive(Clone, Copy)]
pub struct Case {
    number: u32,
    name: &'static str,
    body: fn(&mut Vm) -> Result<()>,
    scope: Scope,
    mode: Mode,
    topology: Topology<'static>,
    limit: Duration,
}

impl Case {
    /// A case for the newest kernel on four parallel CPUs, with five minutes of the host's time.
    pub const fn new(number: u32, name: &'static str, body: fn(&mut Vm) -> Result<()>) -> Self {
        let (scope, mode, topology) = (Scope::Newest, Mode::Parallel, Topology::FOUR);
        Self { number, name, body, scope, mode, topology, limit: Duration::from_secs(300) }
    }

    /// Runs on every kernel, always.
    pub const fn core(mut self) -> Self {
        self.scope = Scope::Every;
        self
    }

    /// Runs only on the kernel without sched_ext.
    pub const fn stock(mut self) -> Self {
        self.scope = Scope::Stock;
        self
    }

    /// Runs in a guest whose time is its count of instructions.
    pub const fn deterministic(mut self) -> Self {
        self.mode = Mode::Deterministic;
        self
    }

    /// Runs on these processors.
    pub const fn on(mut self, topology: Topology<'static>) -> Self {
        self.topology = topology;
        self
    }

    /// May take this long on the host.
    pub const fn limit_secs(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    fn runs_on(&self, series: &str, newest: &str, all: bool) -> bool {
        match self.scope {
            Scope::Stock => series == STOCK,
            Scope::Every => series != STOCK,
            Scope::Newest => series == newest || all && series != STOCK,
        }
    }
}

/// The cases of a test binary and what they need in the guest.
pub struct Suite {
    /// All cases, in the order they run in.
    pub cases: Vec<Case>,
    /// Programs of the build: path in the guest and on the host.
    pub programs: Vec<(&'static str, PathBuf)>,
    /// Tools of the host that the cases call.
    pub tools: &'static [&'static str],
    /// The repository.
    pub root: PathBuf,
    /// Where boots leave their files.
    pub folder: PathBuf,
}

/// What the guest writes, one JSON object a line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Begin(String),
    End(Outcome),
    AllDone,
}

/// The result of a case.
#[derive(Serialize, Deserialize)]
struct Outcome {
    name: String,
    seconds: f64,
    said: String,
    /// Why it failed; none if it passed.
    failure: Option<String>,
}

/// What a guest's console says when QEMU, not the kernel, went wrong: a breakpoint where none is.
///
/// The kernel switches its static branches by way of an `int3` that it removes again. Threads of QEMU that
/// translate code can see the byte before the store and file their translation after the store has thrown
/// old ones away: that `int3` is met for ever. Attaching a scheduler switches about a dozen branches in code
/// that runs all the time. Such a guest is repeated. Guests in deterministic mode have one thread.
pub(crate) const EMULATOR_FAULT: &str = "Oops: int3";

/// Guests of a boot that may be repeated for [`EMULATOR_FAULT`].
const REPEATS_MAX: usize = 3;

/// How a guest ended, and how many of its cases have a result.
enum GuestEnd {
    Done(usize),
    /// [`EMULATOR_FAULT`]: the next case has no result, and none is its fault.
    EmulatorFault(usize),
}

/// Where the guest finds the names of the cases to run.
const PLAN: &str = "lab/cases";

impl Suite {
    /// The whole program: a hog, the guest, or the host, as it was started.
    pub fn main(self) -> ExitCode {
        if init::is_guest() {
            return match self.guest() {
                Err(error) => {
                    eprintln!("lab: {error:#}");
                    let _: Result<Infallible> = init::power_off();
                    ExitCode::FAILURE
                }
                Ok(never) => match never {},
            };
        }
        match HogPlan::act().and_then(|()| self.host()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("vm: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    // ---- in the guest ----

    fn guest(&self) -> Result<Infallible> {
        init::set_up()?;
        let mut port = File::options()
            .write(true)
            .open("/dev/ttyS1")
            .context("opening the port of results")?;
        let plan = fs::read_to_string(format!("/{PLAN}")).context("reading the plan")?;
        let mut send = |message: &Message| -> Result<()> {
            let line = serde_json::to_string(message)? + "\n";
            port.write_all(line.as_bytes()).context("writing results")
        };
        for name in plan.lines() {
            let case = self
                .cases
                .iter()
                .find(|case| case.name == name)
                .context("an unknown case in the plan")?;
            send(&Message::Begin(name.into()))?;
            send(&Message::End(run(case)))?;
        }
        send(&Message::AllDone)?;
        init::power_off()
    }

    // ---- on the host ----

    fn host(&self) -> Result<bool> {
        let Some(request) = Request::parse(env::args().skip(1))? else {
            println!(
                "vm: {} cases not run: they boot kernels. `make test` runs them, `make vm` some.",
                self.cases.len()
            );
            return Ok(true);
        };
        let (boots, missing) = self.plan(&request)?;
        if request.list {
            for boot in &boots {
                for case in &boot.cases {
                    println!("{:10} {:>2} {}", boot.kernel.series, case.number, case.name);
                }
            }
            return Ok(true);
        }
        let total: usize = boots.iter().map(|boot| boot.cases.len()).sum();
        println!("vm: {total} runs of cases in {} boots", boots.len());
        let begin = Instant::now();
        // Read once, so that a build meanwhile changes nothing.
        let base = base_initramfs(&self.programs, self.tools)?;
        let report = Mutex::new(Report::default());
        for problem in &missing {
            lock(&report).fail(problem, "");
        }
        let queue = Mutex::new(boots.into_iter().enumerate().collect::<VecDeque<_>>());
        thread::scope(|scope| {
            for worker in 0..request.jobs {
                let (queue, report, base) = (&queue, &report, &base);
                scope.spawn(move || {
                    loop {
                        // From both ends: next to a guest of many threads runs one of a single thread.
                        let next = match worker % 2 {
                            0 => lock(queue).pop_front(),
                            _ => lock(queue).pop_back(),
                        };
                        let Some((number, boot)) = next else { break };
                        self.run_boot(number, &boot, base, report);
                    }
                });
            }
        });
        let report = lock(&report);
        println!(
            "\nvm: {} passed, {} failed in {:.0} s",
            report.passed,
            report.failed.len(),
            begin.elapsed().as_secs_f64()
        );
        for failed in &report.failed {
            println!("  {failed}");
        }
        if total == 0 && missing.is_empty() {
            bail!("no case matches");
        }
        Ok(report.failed.is_empty())
    }

    /// The boots that a request needs, and the kernels that it lacks.
    fn plan(&self, request: &Request) -> Result<(Vec<Boot<'_>>, Vec<String>)> {
        let named = Kernel::from_env()?;
        let series: Vec<String> = match (&named, request.kernels.is_empty()) {
            (_, false) => request.kernels.clone(),
            (Some(kernel), true) => vec![kernel.series.clone()],
            (None, true) => SERIES.iter().rev().copied().chain([STOCK]).map(String::from).collect(),
        };
        let newest = series.first().cloned().unwrap_or_default();
        let (mut boots, mut missing) = (Vec::new(), Vec::new());
        for series in series {
            let mut groups: BTreeMap<(Mode, Topology), Vec<&Case>> = BTreeMap::new();
            let wanted = |case: &&Case| {
                case.runs_on(&series, &newest, request.all || !request.kernels.is_empty())
                    && request.matches(case)
            };
            for case in self.cases.iter().filter(wanted) {
                groups.entry((case.mode, case.topology)).or_default().push(case);
            }
            if groups.is_empty() {
                continue;
            }
            let kernel = match &named {
                Some(kernel) if kernel.series == series => Ok(kernel.clone()),
                _ => Kernel::find(&series, &self.root),
            };
            match kernel {
                Ok(kernel) => boots.extend(groups.into_iter().map(|((mode, topology), cases)| {
                    Boot { kernel: kernel.clone(), mode, topology, cases }
                })),
                Err(error) => missing.push(format!("{error:#}")),
            }
        }
        boots.sort_by_key(|boot| boot.mode);
        Ok((boots, missing))
    }

    fn run_boot(&self, number: usize, boot: &Boot<'_>, base: &Initramfs, report: &Mutex<Report>) {
        let mut left = boot.cases.as_slice();
        let mut part = 0;
        let mut repeats_left = REPEATS_MAX;
        // A guest that dies takes one case with it; the others get a new guest.
        while let Some(first) = left.first() {
            let folder = self.folder.join(format!("{number}-{}-{part}", boot.kernel.series));
            let mut initramfs = base.clone();
            let names: Vec<&str> = left.iter().map(|case| case.name).collect();
            initramfs.file(PLAN, names.join("\n"));
            match run_guest(boot, left, &initramfs, &folder, report) {
                Ok(GuestEnd::Done(done)) => left = &left[done.min(left.len())..],
                Ok(GuestEnd::EmulatorFault(done)) => {
                    left = &left[done.min(left.len())..];
                    let Some(first) = left.first() else { break };
                    let text = "QEMU ran stale code (see EMULATOR_FAULT in lab/src/suite.rs)";
                    if repeats_left == 0 {
                        lock(report).fail(&boot.title(first), &format!("{text}, again and again"));
                        left = &left[1..];
                    } else {
                        println!("again {}: {text}", boot.title(first));
                        repeats_left -= 1;
                    }
                }
                Err(error) => {
                    lock(report).fail(&boot.title(first), &format!("{error:#}"));
                    left = &left[1..];
                }
            }
            part += 1;
        }
    }
}

/// Boots once and runs cases until all are done or the guest is lost.
fn run_guest(
    boot: &Boot<'_>,
    cases: &[&Case],
    initramfs: &Initramfs,
    folder: &Path,
    report: &Mutex<Report>,
) -> Result<GuestEnd> {
    const BOOT_LIMIT: Duration = Duration::from_secs(180);
    const CONSOLE_LINES: usize = 60;
    const MEMORY_MIB: u32 = 2048;
    let guest = Guest {
        kernel: &boot.kernel,
        topology: boot.topology,
        mode: boot.mode,
        memory_mib: MEMORY_MIB,
        append: "",
    };
    let mut running = guest.boot(initramfs, folder)?;
    let mut done = 0;
    let mut limit = BOOT_LIMIT;
    let mut begin = Instant::now();
    loop {
        let reason = match running.next_line(limit)? {
            Event::Line(line) => match serde_json::from_str(&line) {
                Ok(Message::Begin(_)) => {
                    limit = cases.get(done).map_or(BOOT_LIMIT, |case| case.limit);
                    begin = Instant::now();
                    continue;
                }
                Ok(Message::End(outcome)) => {
                    let case = cases.get(done).context("more results than cases")?;
                    lock(report).add(&boot.title(case), &outcome, begin.elapsed());
                    (done, limit) = (done + 1, BOOT_LIMIT);
                    continue;
                }
                Ok(Message::AllDone) => return Ok(GuestEnd::Done(cases.len())),
                Err(_) => continue,
            },
            Event::Off => "the guest went off in the middle".to_owned(),
            Event::Silence => format!("hang: no end within {} s", limit.as_secs()),
        };
        let case = cases.get(done).context("a guest that does not end after its last case")?;
        let console = running.console_tail(CONSOLE_LINES);
        if console.contains(EMULATOR_FAULT) {
            return Ok(GuestEnd::EmulatorFault(done));
        }
        lock(report)
            .fail(&boot.title(case), &format!("{reason}; the console's last lines:\n{console}"));
        return Ok(GuestEnd::Done(done + 1));
    }
}

/// This program as process 1, a static busybox, and these programs and tools.
pub fn base_initramfs(programs: &[(&str, PathBuf)], tools: &[&str]) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    initramfs.program("init", &env::current_exe().context("finding this program")?)?;
    initramfs.tool("busybox")?.link("bin/sh", "busybox");
    initramfs.file("etc/passwd", "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n");
    initramfs.file("etc/group", "root:x:0:\nuser:x:1000:\n");
    for (path, host) in programs {
        initramfs.program(path.trim_start_matches('/'), host)?;
    }
    for tool in tools {
        initramfs.tool(tool)?;
    }
    Ok(initramfs)
}

/// Runs a case here, in the guest, and leaves no process behind.
fn run(case: &Case) -> Outcome {
    let begin = Instant::now();
    let (said, failure) = match Vm::new().and_then(|vm| Ok((vm, BpfObjects::count()?))) {
        Err(error) => (String::new(), Some(format!("{error:#}"))),
        Ok((mut vm, before)) => {
            let result = catch_unwind(AssertUnwindSafe(|| (case.body)(&mut vm)));
            end_all_processes();
            let mut failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(panic) => Some(panic_text(&*panic)),
            };
            if let Err(error) = nothing_is_left(before) {
                failure.get_or_insert(format!("{error:#}"));
            }
            let faults = vm.faults();
            if !faults.is_empty() {
                failure
                    .get_or_insert_default()
                    .push_str(&format!("\nfaults in the kernel's log: {}", faults.join("\n")));
            }
            if let Some(failure) = &mut failure {
                *failure += &format!("\n--- the kernel's log\n{}", tail(vm.kernel_log()));
            }
            (tail(vm.said()).to_owned(), failure)
        }
    };
    Outcome { name: case.name.into(), seconds: begin.elapsed().as_secs_f64(), said, failure }
}

/// After a case no scheduler is attached, and the kernel holds no BPF object more than before.
fn nothing_is_left(before: BpfObjects) -> Result<()> {
    // The kernel frees in the background.
    const LIMIT: Duration = Duration::from_secs(20);
    if let Ok(state) = sched_ext("state") {
        ensure!(state == "disabled", "sched_ext is left {state}");
    }
    wait_for(LIMIT, || Ok(BpfObjects::count()? == before)).with_context(|| {
        format!("left loaded: {before:?} before, {:?} after", BpfObjects::count())
    })?;
    Ok(())
}

/// The end of a long text.
fn tail(text: &str) -> &str {
    const BYTES: usize = 16 * 1024;
    let from = text.ceil_char_boundary(text.len().saturating_sub(BYTES));
    &text[from..]
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic without words").to_owned()
}

/// Kills and reaps everything but this process.
fn end_all_processes() {
    // Nobody left to kill is what is wanted.
    kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Err(_) => break,
            Ok(WaitStatus::StillAlive) if Instant::now() >= end => break,
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(5)),
            Ok(_) => {}
        }
    }
}

/// Cases that share a guest.
struct Boot<'a> {
    kernel: Kernel,
    mode: Mode,
    topology: Topology<'static>,
    cases: Vec<&'a Case>,
}

impl Boot<'_> {
    fn title(&self, case: &Case) -> String {
        let clock = if self.mode == Mode::Deterministic { " deterministic" } else { "" };
        format!(
            "{:10} {:>2} {} (smp {}{clock})",
            self.kernel.series, case.number, case.name, self.topology.smp
        )
    }
}

/// Results so far.
#[derive(Default)]
struct Report {
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    fn add(&mut self, title: &str, outcome: &Outcome, on_host: Duration) {
        let host_s = on_host.as_secs_f64();
        let title = format!("{title} {:.1} s, {host_s:.0} s of the host", outcome.seconds);
        match &outcome.failure {
            None => {
                self.passed += 1;
                println!("ok    {title}");
                print_indented(&outcome.said);
            }
            Some(failure) => self.fail(&title, &format!("{}{failure}", outcome.said)),
        }
    }

    fn fail(&mut self, title: &str, text: &str) {
        println!("FAIL  {title}");
        print_indented(text);
        self.failed.push(title.into());
    }
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("      {line}");
    }
}

/// What the user asks for.
#[derive(Default)]
struct Request {
    words: Vec<String>,
    kernels: Vec<String>,
    all: bool,
    list: bool,
    jobs: usize,
}

impl Request {
    /// None: the user did not ask for virtual machines (`VM=1`, `--all` or `--kernel` does).
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        const JOBS: usize = 2;
        let mut request = Self { jobs: JOBS, ..Self::default() };
        let mut asked = env::var_os("VM").is_some_and(|value| !value.is_empty());
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--all" => (request.all, asked) = (true, true),
                "--list" => (request.list, asked) = (true, true),
                "--kernel" | "--kernels" => {
                    let series = args.next().context("--kernel needs a series, as 7.3")?;
                    request.kernels.extend(
                        series.split([',', ' ']).filter(|s| !s.is_empty()).map(String::from),
                    );
                    asked = true;
                }
                "--jobs" => request.jobs = args.next().context("--jobs needs a number")?.parse()?,
                // What cargo passes on to every test binary.
                flag if flag.starts_with('-') => {}
                word => request.words.push(word.into()),
            }
        }
        Ok(asked.then_some(request))
    }

    fn matches(&self, case: &Case) -> bool {
        let hit =
            |word: &String| word.parse() == Ok(case.number) || case.name.contains(word.as_str());
        self.words.is_empty() || self.words.iter().any(hit)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Cases and their runs: the host plans boots and reports, the guest runs the functions.

use crate::{
    boot::{Boot, Message, Outcome, PLAN, Report, lock},
    init,
    initramfs::Initramfs,
    kernel::{Kernel, SERIES, STOCK, UNPACKAGED},
    process::HogPlan,
    qemu::{Mode, Topology},
    vm::{BpfObjects, Vm, sched_ext, wait_for},
};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        termios::tcdrain,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    env,
    fs::{self, File},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Which kernels a case runs on when nobody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Every,
    Newest,
    Stock,
    /// On the newest with `--all` only.
    Thorough,
}

/// One test on a real kernel: a function that runs inside a guest.
#[derive(Clone, Copy)]
pub struct Case {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) body: fn(&mut Vm) -> Result<()>,
    scope: Scope,
    pub(crate) mode: Mode,
    pub(crate) topology: Topology<'static>,
    pub(crate) limit: Duration,
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

    /// Takes long, and runs only where all cases do.
    pub const fn thorough(mut self) -> Self {
        self.scope = Scope::Thorough;
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
            Scope::Thorough => all && series != STOCK,
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
            port.write_all(line.as_bytes()).context("writing results")?;
            // What the port has not sent when the guest goes off is lost: it was, of a line of 8 KiB.
            tcdrain(&port).context("waiting until the results are out")
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
        request.check(&self.cases)?;
        if request.missing {
            let named = Kernel::from_env()?;
            for (series, _) in self.wanted(&request, named.as_ref()) {
                let is_named = named.as_ref().is_some_and(|kernel| kernel.series == series);
                if !is_named && series != UNPACKAGED && Kernel::find(&series, &self.root).is_err() {
                    println!("{series}");
                }
            }
            return Ok(true);
        }
        let Planned { boots, missing, left_out } = self.plan(&request)?;
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
        for line in &left_out {
            println!("vm: NOT RUN: {line}");
        }
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
                        boot.run(report, |cases, part| {
                            let name = format!("{number}-{}-{part}", boot.kernel.series);
                            boot.guest(cases, base, &self.folder.join(name), report)
                        });
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
        for line in &left_out {
            println!("  NOT RUN: {line}");
        }
        if total == 0 && missing.is_empty() {
            bail!("none of these cases runs on these kernels");
        }
        Ok(report.failed.is_empty())
    }

    /// The cases of a request by series of kernels, newest first. `named` is the kernel in `$KERNEL`.
    fn wanted(&self, request: &Request, named: Option<&Kernel>) -> Vec<(String, Groups<'_>)> {
        let series: Vec<String> = match (named, request.kernels.is_empty()) {
            (_, false) => request.kernels.clone(),
            (Some(kernel), true) => vec![kernel.series.clone()],
            (None, true) => SERIES.iter().rev().copied().chain([STOCK]).map(String::from).collect(),
        };
        let newest = series.first().cloned().unwrap_or_default();
        let all = request.all || !request.kernels.is_empty();
        let groups = |series: &String| {
            let mut groups = Groups::new();
            let runs = |case: &&Case| case.runs_on(series, &newest, all) && request.matches(case);
            for case in self.cases.iter().filter(runs) {
                groups.entry((case.mode, case.topology)).or_default().push(case);
            }
            groups
        };
        let by_series = series.iter().map(|series| (series.clone(), groups(series)));
        by_series.filter(|(_, groups)| !groups.is_empty()).collect()
    }

    /// What a request needs.
    fn plan(&self, request: &Request) -> Result<Planned<'_>> {
        let named = Kernel::from_env()?;
        let mut planned = Planned::default();
        for (series, groups) in self.wanted(request, named.as_ref()) {
            let kernel = match &named {
                Some(kernel) if kernel.series == series => Ok(kernel.clone()),
                _ => Kernel::find(&series, &self.root),
            };
            match kernel {
                Ok(kernel) => {
                    for ((mode, topology), cases) in groups {
                        planned.boots.extend(cases.chunks(CASES_PER_BOOT).map(|cases| Boot {
                            kernel: kernel.clone(),
                            mode,
                            topology,
                            cases: cases.to_vec(),
                        }));
                    }
                }
                // Nobody packages it, and it takes long to build: it must be asked for.
                Err(error) if series == UNPACKAGED && request.kernels.is_empty() => {
                    let cases: usize = groups.values().map(Vec::len).sum();
                    planned.left_out.push(format!("{cases} cases on {series}: {error:#}"));
                }
                Err(error) => planned.missing.push(format!("{error:#}")),
            }
        }
        planned.boots.sort_by_key(|boot| boot.mode);
        // Those of the newest kernel, which are the most, first: the other end is taken from the back.
        let parallel = planned.boots.partition_point(|boot| boot.mode == Mode::Parallel);
        planned.boots[parallel..].reverse();
        Ok(planned)
    }
}

/// A boot takes ten seconds, and what is left for one worker at the end nobody shares.
const CASES_PER_BOOT: usize = 8;

/// Cases that may share a guest.
type Groups<'a> = BTreeMap<(Mode, Topology<'static>), Vec<&'a Case>>;

/// What a request comes to.
#[derive(Default)]
struct Planned<'a> {
    boots: Vec<Boot<'a>>,
    /// Kernels that there should be: failures.
    missing: Vec<String>,
    /// Cases on a kernel that nobody is expected to have: said, at the beginning and at the end.
    left_out: Vec<String>,
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
            let threads = own_threads_have_ended();
            let mut failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(panic) => Some(panic_text(&*panic)),
            };
            if let Err(error) = threads.and_then(|()| nothing_is_left(before)) {
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

/// The threads of a case take no pid and no CPU time from the next one. A scope of threads is left when their work is
/// done, which may be long before the kernel is rid of thousands of them.
fn own_threads_have_ended() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(120);
    let threads = || -> Result<usize> { Ok(fs::read_dir("/proc/self/task")?.count()) };
    wait_for(LIMIT, || Ok(threads()? == 1))
        .with_context(|| format!("a case leaves threads: {:?}", threads()))?;
    Ok(())
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

/// What the user asks for.
#[derive(Default)]
struct Request {
    words: Vec<String>,
    kernels: Vec<String>,
    all: bool,
    list: bool,
    missing: bool,
    jobs: usize,
}

impl Request {
    /// None: the user did not ask for virtual machines (`VM=1`, `--all` or `--kernel` does).
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        const JOBS: usize = 2;
        /// `cargo test -- FLAG` passes it on to every test binary, so these mean nothing here.
        const OF_LIBTEST: [&str; 9] = [
            "--nocapture",
            "--no-capture",
            "--show-output",
            "--quiet",
            "-q",
            "--exact",
            "--test-threads",
            "--color",
            "--format",
        ];
        let mut request = Self { jobs: JOBS, ..Self::default() };
        let mut asked = env::var_os("VM").is_some_and(|value| !value.is_empty());
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--all" => (request.all, asked) = (true, true),
                "--list" => (request.list, asked) = (true, true),
                "--missing" => (request.missing, asked) = (true, true),
                "--kernel" | "--kernels" => {
                    let series = args.next().context("--kernel needs a series, as 7.3")?;
                    request.kernels.extend(
                        series.split([',', ' ']).filter(|s| !s.is_empty()).map(String::from),
                    );
                    asked = true;
                }
                "--jobs" => {
                    let jobs = args.next().and_then(|word| word.parse().ok());
                    request.jobs = jobs
                        .filter(|jobs| (1..=64).contains(jobs))
                        .context("--jobs needs a number of guests from 1 to 64")?;
                }
                flag if flag.starts_with('-') => {
                    let name = flag.split('=').next().unwrap_or(flag);
                    ensure!(
                        OF_LIBTEST.contains(&name),
                        "unknown option {flag}: there are --all, --kernel SERIES, --jobs N, --list, and --missing, \
                         which prints the kernels to fetch for these cases"
                    );
                }
                word => request.words.push(word.into()),
            }
        }
        Ok(asked.then_some(request))
    }

    fn matches(&self, case: &Case) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| means(word, case))
    }

    /// Every word is of some case.
    fn check(&self, cases: &[Case]) -> Result<()> {
        let unknown = |word: &&String| !cases.iter().any(|case| means(word, case));
        if let Some(word) = self.words.iter().find(unknown) {
            let mut names: Vec<_> =
                cases.iter().map(|case| format!("{:2} {}", case.number, case.name)).collect();
            names.sort();
            bail!(
                "no case has '{word}' in its name or as its number; there are\n{}",
                names.join("\n")
            );
        }
        Ok(())
    }
}

fn means(word: &str, case: &Case) -> bool {
    word.parse() == Ok(case.number) || case.name.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(_: &mut Vm) -> Result<()> {
        Ok(())
    }

    const CASES: [Case; 4] = [
        Case::new(1, "starts", body).core(),
        Case::new(2, "shares", body),
        Case::new(12, "unit", body).thorough(),
        Case::new(10, "refused", body).stock(),
    ];

    fn needed(args: &[&str]) -> Result<Vec<String>> {
        let args = args.iter().chain(&["--missing"]).map(|arg| (*arg).to_owned());
        let request = Request::parse(args)?.context("it was asked for")?;
        request.check(&CASES)?;
        let suite = Suite {
            cases: CASES.to_vec(),
            programs: Vec::new(),
            tools: &[],
            root: PathBuf::new(),
            folder: PathBuf::new(),
        };
        let wanted = suite.wanted(&request, None);
        Ok(wanted.into_iter().map(|(series, _)| series).collect())
    }

    #[test]
    fn cases_need_the_kernels_that_they_run_on() {
        for (args, series) in [
            (&[][..], &["7.3", "6.18", "6.16", "6.12", "6.12-stock"][..]),
            (&["starts"], &["7.3", "6.18", "6.16", "6.12"]),
            (&["2"], &["7.3"]),
            (&["share", "10"], &["7.3", "6.12-stock"]),
            (&["shares", "--kernel", "6.18 6.16"], &["6.18", "6.16"]),
            (&["unit"], &[]),
            (&["unit", "--all"], &["7.3", "6.18", "6.16", "6.12"]),
        ] {
            assert_eq!(needed(args).expect("good words"), series, "{args:?}");
        }
    }

    #[test]
    fn a_word_of_no_case_is_refused_with_the_names() {
        for args in [&["sharse"][..], &["shares", "3"]] {
            let error = needed(args).expect_err("no such case").to_string();
            assert!(error.contains(args[args.len() - 1]), "{error}");
            assert!(CASES.iter().all(|case| error.contains(case.name)), "{error}");
        }
    }
}

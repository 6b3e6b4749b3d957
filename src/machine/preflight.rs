//! Preflight: why a load would fail on this machine, said before the kernel says "Invalid
//! argument". A check is a line: ok, or a fault and its mend.

use crate::exit::{Exit, Failure};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Capabilities by number, from linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// A machine as its files show it: below `/`, or below a directory that a test made up.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This machine.
    pub fn real() -> Self {
        Self::at("/")
    }

    /// The machine whose `sys` and `proc` lie in `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The place of `path`, which is relative to the root: `sys/kernel`.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file, without the blanks around it.
    ///
    /// # Errors
    /// As [`fs::read_to_string`].
    pub fn read(&self, path: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.path(path))?.trim().to_owned())
    }

    fn is_real(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// One thing that a load needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    /// What was found.
    pub finding: Finding,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it should be, with what is worth knowing.
    Ok(String),
    /// Not looked at: it takes what another check found missing.
    Skipped(String),
    /// A load would fail.
    Fault {
        /// What it would end the program with.
        exit: Exit,
        /// What is wrong.
        what: String,
        /// What the user can do.
        mend: String,
    },
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Finding::Ok(what) => write!(f, "ok     {}: {what}", self.subject),
            Finding::Skipped(why) => write!(f, "skip   {}: {why}", self.subject),
            Finding::Fault { what, mend, .. } => {
                write!(f, "fault  {}: {what}; mend: {mend}", self.subject)
            }
        }
    }
}

/// The checks, the most fundamental first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(pub Vec<Check>);

impl Report {
    /// The first fault: what to tell the user if one line is all there is.
    pub fn fault(&self) -> Option<&Check> {
        self.0.iter().find(|c| matches!(c.finding, Finding::Fault { .. }))
    }

    /// The first fault as a sentence, and the other faults below it.
    pub fn headline(&self) -> String {
        let mut faults = self.0.iter().filter_map(|check| match &check.finding {
            Finding::Fault { what, mend, .. } => Some((what, mend, check)),
            Finding::Ok(_) | Finding::Skipped(_) => None,
        });
        let mut text = faults.next().map(|(what, mend, _)| format!("{what}; {mend}"));
        for (_, _, check) in faults {
            text.get_or_insert_default().push_str(&format!("\n{check}"));
        }
        text.unwrap_or_default()
    }

    /// The exit code of the first fault.
    pub fn exit(&self) -> Option<Exit> {
        self.fault().and_then(|check| match check.finding {
            Finding::Fault { exit, .. } => Some(exit),
            Finding::Ok(_) | Finding::Skipped(_) => None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Check::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The checks that cost next to nothing, made before every load.
pub fn quick(host: &Host) -> Report {
    Report(vec![
        sched_ext(host),
        btf(host),
        user_namespace(host),
        capabilities(host),
        lockdown(host),
        jit(host),
        other_scheduler(host),
    ])
}

/// The checks of what tracing programs need, which any kernel with BTF may have.
pub fn tracing(host: &Host) -> Report {
    Report(vec![btf(host), user_namespace(host), capabilities(host), lockdown(host)])
}

/// Refuses a machine on which nothing can be loaded, before anything is. `report`: [`quick`], or [`tracing`].
///
/// # Errors
/// With the exit code and the headline of the report.
pub fn require(report: &Report) -> Result<(), Failure> {
    report.exit().map_or(Ok(()), |exit| Err(Failure::new(exit, report.headline())))
}

/// Turns the kernel's refusal into what is wrong with the machine, if that can be told: `report` says, [`full`] or
/// [`tracing`].
pub fn explain(error: anyhow::Error, report: &Report) -> Failure {
    if let Some(exit) = report.exit() {
        return Failure { exit, error: error.context(report.headline()) };
    }
    // EPERM though the capabilities are there. (EACCES is the verifier's, and libbpf-rs
    // gives the number in the text only.)
    if format!("{error:#}").contains("(os error 1)") {
        return Failure {
            exit: Exit::NotPermitted,
            error: error.context(
                "not permitted, with CAP_BPF and CAP_PERFMON: a seccomp filter or a security \
                 module forbids bpf(); run it outside the container or sandbox",
            ),
        };
    }
    let hint = "the kernel refused our BPF programs, and `scheduler doctor` finds no fault: \
                run `scheduler -v` for the verifier's log and report that";
    Failure { exit: Exit::Failed, error: error.context(hint) }
}

/// All checks: the quick ones, and those that search the kernel's type information.
pub fn full(host: &Host) -> Report {
    let Report(mut checks) = quick(host);
    // scx_utils panics without BTF, so ask it nothing then. And it knows this machine only.
    let found = |check: Check| matches!(check.finding, Finding::Ok(_));
    if host.is_real() && found(sched_ext(host)) && found(btf(host)) {
        checks.extend([kernel_interface(), kfunc_prototypes()]);
    } else {
        let skipped = |subject| Check {
            subject,
            finding: Finding::Skipped("needs sched_ext and type information".into()),
        };
        checks.extend([KERNEL_INTERFACE, KFUNC_PROTOTYPES].map(skipped));
    }
    Report(checks)
}

fn ok(subject: &'static str, what: impl Into<String>) -> Check {
    Check { subject, finding: Finding::Ok(what.into()) }
}

fn fault(
    subject: &'static str,
    exit: Exit,
    what: impl Into<String>,
    mend: impl Into<String>,
) -> Check {
    Check { subject, finding: Finding::Fault { exit, what: what.into(), mend: mend.into() } }
}

fn sched_ext(host: &Host) -> Check {
    const SUBJECT: &str = "sched_ext";
    let release = host.read("proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".into());
    if host.path("sys/kernel/sched_ext/state").exists() {
        return ok(SUBJECT, format!("the kernel, {release}, has it"));
    }
    if !host.path("sys/kernel").exists() {
        return fault(
            SUBJECT,
            Exit::Unsupported,
            "/sys/kernel is missing: sysfs is not mounted",
            "mount -t sysfs sysfs /sys",
        );
    }
    fault(
        SUBJECT,
        Exit::Unsupported,
        format!("the kernel, {release}, has no /sys/kernel/sched_ext"),
        "boot a kernel 6.12 or later that is built with CONFIG_SCHED_CLASS_EXT=y",
    )
}

fn btf(host: &Host) -> Check {
    const SUBJECT: &str = "kernel type information";
    const PATH: &str = "sys/kernel/btf/vmlinux";
    match fs::File::open(host.path(PATH)) {
        Ok(_) => ok(SUBJECT, format!("/{PATH} is readable")),
        Err(e) => fault(
            SUBJECT,
            Exit::Unsupported,
            format!("/{PATH} cannot be read ({e})"),
            "boot a kernel that is built with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

fn user_namespace(host: &Host) -> Check {
    const SUBJECT: &str = "user namespace";
    let map = host.read("proc/self/uid_map").unwrap_or_default();
    let fields: Vec<_> = map.split_whitespace().collect();
    if fields.is_empty() || fields == ["0", "0", "4294967295"] {
        return ok(SUBJECT, "the initial one");
    }
    fault(
        SUBJECT,
        Exit::NotPermitted,
        "not the initial one, where capabilities count for nothing here",
        "run it outside the container, or in a privileged one without user namespaces",
    )
}

fn capabilities(host: &Host) -> Check {
    const SUBJECT: &str = "capabilities";
    let status = host.read("proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let Some(effective) = effective else {
        return ok(SUBJECT, "unknown: /proc/self/status does not list them");
    };
    let has = |cap: u32| effective & (1 << cap | 1 << CAP_SYS_ADMIN) != 0;
    let missing: Vec<_> = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|&(cap, _)| !has(cap))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return ok(SUBJECT, "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN for both");
    }
    fault(
        SUBJECT,
        Exit::NotPermitted,
        format!("not permitted: {} missing", missing.join(" and ")),
        "run it as root (sudo), or: setcap cap_bpf,cap_perfmon+ep on the binary",
    )
}

fn lockdown(host: &Host) -> Check {
    const SUBJECT: &str = "lockdown";
    let modes = host.read("sys/kernel/security/lockdown").unwrap_or_default();
    if modes.contains("[confidentiality]") {
        return fault(
            SUBJECT,
            Exit::Unsupported,
            "mode confidentiality, which forbids BPF programs to read kernel memory",
            "boot with lockdown=integrity or without lockdown",
        );
    }
    ok(SUBJECT, "BPF may read kernel memory")
}

fn jit(host: &Host) -> Check {
    const SUBJECT: &str = "BPF JIT";
    // Readable by root only. Where it cannot be read, the load itself will tell.
    if host.read("proc/sys/net/core/bpf_jit_enable").is_ok_and(|v| v == "0") {
        return fault(
            SUBJECT,
            Exit::Unsupported,
            "off, and sched_ext programs are not interpreted",
            "sysctl net.core.bpf_jit_enable=1",
        );
    }
    ok(SUBJECT, "not switched off")
}

/// The name of the attached sched_ext scheduler, if there is one.
pub fn attached_scheduler(host: &Host) -> Option<String> {
    let state = host.read("sys/kernel/sched_ext/state").ok()?;
    if state == "disabled" {
        return None;
    }
    let name = host.read("sys/kernel/sched_ext/root/ops").unwrap_or_default();
    Some(if name.is_empty() { format!("an unnamed one ({state})") } else { name })
}

fn other_scheduler(host: &Host) -> Check {
    const SUBJECT: &str = "other schedulers";
    match attached_scheduler(host) {
        None => ok(SUBJECT, "none attached"),
        Some(name) => fault(
            SUBJECT,
            Exit::Busy,
            format!("another sched_ext scheduler is attached: {name}"),
            "stop it first (systemctl stop scx, or end its process); the kernel runs one at a time",
        ),
    }
}

const KERNEL_INTERFACE: &str = "kernel interface";
const KFUNC_PROTOTYPES: &str = "kfunc prototypes";

fn kernel_interface() -> Check {
    const SUBJECT: &str = KERNEL_INTERFACE;
    // Whatever this program needs that a sched_ext kernel may lack.
    let needed = ["select_cpu", "enqueue", "dispatch", "cpu_online", "init_task", "dump"];
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|op| !scx_utils::compat::struct_has_field("sched_ext_ops", op).unwrap_or(false))
        .collect();
    if missing.is_empty() {
        return ok(SUBJECT, "struct sched_ext_ops is as needed");
    }
    fault(
        SUBJECT,
        Exit::Unsupported,
        format!("struct sched_ext_ops has no {}", missing.join(", ")),
        "boot a kernel 6.12 or later",
    )
}

fn kfunc_prototypes() -> Check {
    const SUBJECT: &str = KFUNC_PROTOTYPES;
    let malformed = scx_utils::compat::malformed_scx_kfuncs();
    if malformed.is_empty() {
        return ok(SUBJECT, "well-formed");
    }
    fault(
        SUBJECT,
        Exit::Unsupported,
        format!("malformed for {}", malformed.join(", ")),
        "boot a kernel that was built with pahole 1.26 or later",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &[(&str, &str)] = &[
        ("sys/kernel/sched_ext/state", "disabled\n"),
        ("sys/kernel/btf/vmlinux", ""),
        ("proc/sys/kernel/osrelease", "6.16.12\n"),
        ("proc/self/uid_map", "         0          0 4294967295\n"),
        ("proc/self/status", "Name:\tx\nCapEff:\t000000c000000000\nSeccomp:\t0\n"),
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
    ];

    /// The first fault of a machine that is ready but for `changes` (no text: file removed).
    fn first_fault(changes: &[(&str, Option<&str>)]) -> Option<(Exit, String)> {
        fault_of(full, changes)
    }

    fn fault_of(
        checks: fn(&Host) -> Report,
        changes: &[(&str, Option<&str>)],
    ) -> Option<(Exit, String)> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = Host::at(dir.path());
        let files = READY.iter().map(|&(path, text)| (path, Some(text)));
        for (path, text) in files.chain(changes.iter().copied()) {
            let path = host.path(path);
            match text {
                Some(text) => {
                    fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
                    fs::write(path, text).expect("write");
                }
                None => fs::remove_file(path).expect("remove"),
            }
        }
        let report = checks(&host);
        report.exit().zip(report.fault().map(Check::to_string))
    }

    #[track_caller]
    fn expect(changes: &[(&str, Option<&str>)], exit: Exit, words: &[&str]) {
        let (found, line) = first_fault(changes).expect("a fault");
        assert_eq!(found, exit, "{line}");
        assert!(words.iter().all(|w| line.contains(w)), "{line}");
    }

    #[test]
    fn a_recording_needs_no_sched_ext_and_the_capabilities() {
        let no_sched_ext = ("sys/kernel/sched_ext/state", None);
        assert_eq!(fault_of(tracing, &[no_sched_ext]), None);
        let status = ("proc/self/status", Some("CapEff:\t0000000000000000\n"));
        let fault = fault_of(tracing, &[no_sched_ext, status]);
        let (exit, line) = fault.expect("no capabilities");
        assert_eq!(exit, Exit::NotPermitted, "{line}");
        assert!(line.contains("capabilities"), "{line}");
    }

    #[test]
    fn a_ready_machine_has_no_fault() {
        assert_eq!(first_fault(&[]), None);
    }

    #[test]
    fn kernel_faults() {
        expect(
            &[("sys/kernel/sched_ext/state", None)],
            Exit::Unsupported,
            &["6.16.12", "CONFIG_SCHED_CLASS_EXT"],
        );
        expect(&[("sys/kernel/btf/vmlinux", None)], Exit::Unsupported, &["CONFIG_DEBUG_INFO_BTF"]);
        let locked = Some("none integrity [confidentiality]");
        expect(&[("sys/kernel/security/lockdown", locked)], Exit::Unsupported, &["lockdown="]);
        expect(
            &[("proc/sys/net/core/bpf_jit_enable", Some("0\n"))],
            Exit::Unsupported,
            &["bpf_jit_enable=1"],
        );
    }

    #[test]
    fn missing_capabilities_are_named_exactly() {
        let status = |hex: &str| format!("CapEff:\t{hex}\n");
        let none = status("0000000000000000");
        expect(
            &[("proc/self/status", Some(&none))],
            Exit::NotPermitted,
            &["CAP_BPF and CAP_PERFMON missing"],
        );
        let bpf_only = status("0000008000000000");
        expect(
            &[("proc/self/status", Some(&bpf_only))],
            Exit::NotPermitted,
            &["permitted: CAP_PERFMON missing"],
        );
        let sys_admin = status("0000000000200000");
        assert_eq!(first_fault(&[("proc/self/status", Some(&sys_admin))]), None);
    }

    #[test]
    fn a_container_with_a_user_namespace_is_named() {
        expect(
            &[("proc/self/uid_map", Some("0 100000 65536\n"))],
            Exit::NotPermitted,
            &["container"],
        );
    }

    #[test]
    fn another_scheduler_is_named() {
        expect(
            &[
                ("sys/kernel/sched_ext/state", Some("enabled\n")),
                ("sys/kernel/sched_ext/root/ops", Some("rival_1.0\n")),
            ],
            Exit::Busy,
            &["rival_1.0"],
        );
    }

    #[test]
    fn an_empty_machine_is_no_panic() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let report = full(&Host::at(dir.path()));
        assert_eq!(report.exit(), Some(Exit::Unsupported));
        assert!(report.to_string().contains("sysfs is not mounted"));
    }
}

//! The unit under a real service manager.

use anyhow::{Context, Result, ensure};
use lab::{
    Case, Vm,
    process::{Running, hog},
    vm::{SCHEDULER, sched_ext, wait_for},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use scheduler::cli::CONFIG_DEFAULT;
use std::{collections::BTreeMap, fs, os::unix::fs::symlink, thread, time::Duration};

pub const CASES: &[Case] = &[Case::new(12, "under_systemd", under_systemd).limit_secs(300)];

/// Where the suite puts the service manager, and where the host has it.
pub const MANAGER: &str = "/usr/lib/systemd/systemd";
/// Later releases start services through this; in a place that is compiled in.
pub const EXECUTOR: &str = "/usr/lib/systemd/systemd-executor";

const UNIT: &str = include_str!("../../packaging/scheduler.service");
const OF_POLICY: &str = include_str!("../../packaging/policy.conf");
/// What the unit and its default dependencies ask for.
const TARGETS: [&str; 4] =
    ["sysinit.target", "basic.target", "shutdown.target", "multi-user.target"];

/// As a container would: another tree of processes and of mounts, in which the root is a mount that can be
/// exchanged, what the first file system of a kernel is not.
const CONTAINER: &str = "mkdir -p /tree && mount --rbind / /tree && mount -t proc proc /tree/proc \
    && exec env container=lab chroot /tree";

/// Runs systemctl where systemd is, and returns what it printed.
fn systemctl(vm: &Vm, args: &[&str]) -> Result<String> {
    let target = process_of(MANAGER)?.to_string();
    let line = ["busybox", "nsenter", "-t", &target, "-m", "-p", "chroot", "/tree", "systemctl"];
    let end = vm.run(&[&line[..], args].concat(), Duration::from_secs(30))?;
    ensure!(end.code == 0, "systemctl {args:?}: {}{}", end.stdout, end.stderr);
    Ok(end.stdout)
}

/// What systemd says of the service.
fn shown(vm: &Vm) -> Result<BTreeMap<String, String>> {
    let names = "ActiveState,SubState,Result,NRestarts,StatusText";
    let text = systemctl(vm, &["show", "scheduler.service", "--property", names])?;
    let words = text.lines().filter_map(|line| line.split_once('='));
    Ok(words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Waits until systemd calls the service active and the kernel has it enabled.
fn wait_until_active(vm: &Vm) -> Result<Duration> {
    wait_for(Duration::from_secs(60), || {
        Ok(sched_ext("state")? == "enabled" && shown(vm)?["ActiveState"] == "active")
    })
}

/// The process that runs this program.
fn process_of(program: &str) -> Result<Pid> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        path.ends_with(program.trim_start_matches('/')).then_some(Pid::from_raw(pid))
    });
    pids.into_iter().next().with_context(|| format!("no process runs {program}"))
}

/// A policy in user space is refused by the unit, which has no room for its memory, and runs with the drop-in.
fn with_a_policy(vm: &mut Vm) -> Result<()> {
    const FOLDER: &str = "/etc/systemd/system/scheduler.service.d";
    fs::write(CONFIG_DEFAULT, "policy = \"vruntime\"\n")?;
    ensure!(
        systemctl(vm, &["start", "scheduler.service"]).is_err(),
        "it locks memory without room"
    );
    fs::create_dir_all(FOLDER)?;
    fs::write(format!("{FOLDER}/policy.conf"), OF_POLICY)?;
    systemctl(vm, &["daemon-reload"])?;
    systemctl(vm, &["start", "scheduler.service"])?;
    wait_until_active(vm)?;
    let status = fs::read_to_string(format!("/proc/{}/status", process_of(SCHEDULER)?))?;
    ensure!(status.contains("CapEff:\t000000c000000000"), "more capabilities:\n{status}");
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap_or_default();
    ensure!(
        !locked.ends_with("\t       0 kB") && !locked.is_empty(),
        "nothing is locked: {locked}"
    );
    let load = hog().start()?;
    thread::sleep(Duration::from_secs(1));
    ensure!(!load.cpu_time()?.is_zero(), "nothing runs");
    vm.say(format!("a policy in user space: {locked}"));
    systemctl(vm, &["stop", "scheduler.service"])?;
    Ok(())
}

/// Started by a real systemd with all of the unit's restrictions, started again after it was killed, stopped.
fn under_systemd(vm: &mut Vm) -> Result<()> {
    ensure!(fs::exists(MANAGER)?, "the host has no {MANAGER} to put into the guest");
    fs::create_dir_all("/etc/systemd/system")?;
    for target in TARGETS {
        fs::write(format!("/etc/systemd/system/{target}"), "[Unit]\nDefaultDependencies=no\n")?;
    }
    fs::write("/etc/systemd/system/scheduler.service", UNIT)?;
    fs::write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")?;
    fs::create_dir_all("/usr/bin")?;
    symlink(SCHEDULER, "/usr/bin/scheduler")?;

    let script = format!("{CONTAINER} {MANAGER} --system --unit=scheduler.service");
    let unshare = ["busybox", "unshare", "-m", "-p", "-f", "sh", "-c"];
    let manager: Running = vm.start(&[&unshare[..], &[&script]].concat())?;
    let began = wait_until_active(vm).with_context(|| manager.stdout() + &manager.stderr())?;
    let status = fs::read_to_string(format!("/proc/{}/status", process_of(SCHEDULER)?))?;
    // By linux/capability.h: CAP_PERFMON is 38, CAP_BPF is 39.
    for word in
        ["CapBnd:\t000000c000000000", "CapEff:\t000000c000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        ensure!(status.contains(word), "not {word}:\n{status}");
    }
    ensure!(!status.contains("Uid:\t0"), "it is root:\n{status}");
    vm.say(format!("active after {began:?}"));

    let attached = sched_ext("enable_seq")?;
    fs::create_dir_all("/etc/scheduler")?;
    fs::write(CONFIG_DEFAULT, "slice_us = 7\n")?;
    systemctl(vm, &["reload", "scheduler.service"])?;
    wait_for(Duration::from_secs(10), || Ok(shown(vm)?["StatusText"].contains("slice_us = 7")))?;
    fs::remove_file(CONFIG_DEFAULT)?;
    systemctl(vm, &["reload", "scheduler.service"])?;
    wait_for(Duration::from_secs(10), || Ok(shown(vm)?["StatusText"] == "scheduling"))?;
    wait_until_active(vm)?;
    ensure!(sched_ext("enable_seq")? == attached, "reloaded, and attached again");

    kill(process_of(SCHEDULER)?, Signal::SIGKILL)?;
    vm.wait_for_state("disabled", Duration::from_secs(10))?;
    let again = wait_until_active(vm)?;
    let load = hog().start()?;
    thread::sleep(Duration::from_secs(1));
    ensure!(!load.cpu_time()?.is_zero(), "nothing runs");
    ensure!(shown(vm)?["NRestarts"] == "1", "{:?}", shown(vm)?);
    vm.say(format!("active again {again:?} after kill -9"));

    systemctl(vm, &["stop", "scheduler.service"])?;
    ensure!(vm.state()? == "disabled", "still attached after the stop");
    let end = shown(vm)?;
    ensure!(end["ActiveState"] == "inactive" && end["Result"] == "success", "{end:?}");
    with_a_policy(vm)
}

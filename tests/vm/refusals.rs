//! Where it cannot or must not run, it says why, with the right exit code, and leaves nothing loaded.

use anyhow::{Context, Result, ensure};
use lab::{Case, Vm, process::Finished, vm::SCHEDULER};
use nix::mount::{MsFlags, mount, umount};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

pub const CASES: &[Case] = &[
    Case::new(10, "second_instance", second_instance).core(),
    Case::new(10, "no_privileges", no_privileges).core(),
    Case::new(10, "no_kernel_config", no_kernel_config).core(),
    Case::new(10, "full_disk", full_disk).core(),
    Case::new(10, "bad_usage", bad_usage).core(),
    Case::new(10, "kernel_without_sched_ext", kernel_without_sched_ext).stock(),
];

const LIMIT: Duration = Duration::from_secs(60);

/// It ended with this code and says this. That nothing is left loaded, the suite checks after each case.
fn check(end: &Finished, code: i32, words: &[&str]) -> Result<()> {
    ensure!(
        end.code == code,
        "exit code {} instead of {code}:\n{}{}",
        end.code,
        end.stdout,
        end.stderr
    );
    for word in words {
        ensure!(end.stderr.contains(word), "the message does not say {word:?}:\n{}", end.stderr);
    }
    ensure!(!end.stderr.contains("panicked"), "a panic:\n{}", end.stderr);
    Ok(())
}

fn second_instance(vm: &mut Vm) -> Result<()> {
    let mut first = vm.scheduler(&[])?;
    let second = vm.run(&[SCHEDULER], LIMIT)?;
    vm.say(second.stderr.trim());
    check(&second, 75, &["attached", "scheduler"])?;
    first.check_alive()?;
    first.finish()?;
    Ok(())
}

fn no_privileges(vm: &mut Vm) -> Result<()> {
    let user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all"];
    let end = vm.run(&[&user[..], &[SCHEDULER]].concat(), LIMIT)?;
    vm.say(end.stderr.trim());
    check(&end, 77, &["CAP_BPF", "CAP_PERFMON"])?;
    // Whoever may not record has no empty file of it.
    let dir = Path::new("/run/anybody");
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?;
    let line = [&user[..], &[SCHEDULER, "record", "-o", "/run/anybody/trace", "--seconds", "0.1"]];
    check(&vm.run(&line.concat(), LIMIT)?, 77, &["CAP_BPF", "CAP_PERFMON"])?;
    ensure!(fs::read_dir(dir)?.next().is_none(), "a file was made");
    Ok(())
}

fn no_kernel_config(vm: &mut Vm) -> Result<()> {
    let in_proc = Path::new("/proc/config.gz");
    ensure!(!Path::new("/boot").exists(), "the guest has a /boot");
    let hide = in_proc.exists();
    if hide {
        fs::write("/run/empty", "")?;
        mount(Some("/run/empty"), in_proc, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("hiding config.gz")?;
    }
    let result = vm.scheduler(&[]).and_then(|scheduler| scheduler.finish());
    if hide {
        umount(in_proc).context("showing config.gz")?;
    }
    result.map(|_| ())
}

fn full_disk(vm: &mut Vm) -> Result<()> {
    let line = format!("exec {SCHEDULER} --stats --interval 0.2 >/dev/full");
    let end = vm.run(&["sh", "-c", &line], LIMIT)?;
    vm.say(end.stderr.trim());
    check(&end, 1, &["No space left"])?;
    ensure!(vm.state()? == "disabled", "{}", vm.state()?);
    Ok(())
}

fn bad_usage(vm: &mut Vm) -> Result<()> {
    let lines: [(&[&str], &str); 6] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--stats", "--interval", "0"], "--interval"),
        (&["--stats", "--interval", "-1"], "--interval"),
        (&["--stats", "--interval", "nan"], "--interval"),
        (&["--slice-us", "0"], "--slice-us"),
        (&["--slice-min-us", "-5"], "--slice-min-us"),
    ];
    for (flags, name) in lines {
        let end = vm.run(&[&[SCHEDULER], flags].concat(), LIMIT)?;
        check(&end, 2, &[name]).with_context(|| format!("flags {flags:?}"))?;
    }
    Ok(())
}

fn kernel_without_sched_ext(vm: &mut Vm) -> Result<()> {
    let end = vm.run(&[SCHEDULER], LIMIT)?;
    vm.say(end.stderr.trim());
    check(&end, 78, &["CONFIG_SCHED_CLASS_EXT"])?;
    let doctor = vm.run(&[SCHEDULER, "doctor"], LIMIT)?;
    ensure!(doctor.code == 78, "doctor: {doctor:?}");
    Ok(())
}

//! Process 1 of a guest: makes it habitable, and switches it off.

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};
use std::{convert::Infallible, env, fs, os::unix::fs::symlink, process::Command};

/// Whether this process is the first one of a guest.
pub fn is_guest() -> bool {
    std::process::id() == 1
}

/// Mounts what programs expect, and links busybox's applets where no tool of the same name lies.
pub fn set_up() -> Result<()> {
    const NONE: Option<&str> = None;
    let mounts = [
        ("proc", "/proc", true),
        ("sysfs", "/sys", true),
        ("devtmpfs", "/dev", true),
        ("tmpfs", "/dev/shm", true),
        ("tmpfs", "/tmp", true),
        ("tmpfs", "/run", true),
        ("cgroup2", "/sys/fs/cgroup", true),
        ("bpf", "/sys/fs/bpf", true),
        ("debugfs", "/sys/kernel/debug", false),
        ("tracefs", "/sys/kernel/tracing", false),
    ];
    for (kind, path, needed) in mounts {
        fs::create_dir_all(path).ok();
        let done = mount(Some(kind), path, Some(kind), MsFlags::empty(), NONE);
        if needed {
            done.with_context(|| format!("mounting {kind} on {path}"))?;
        }
    }
    fs::create_dir_all("/var").context("creating /var")?;
    symlink("/run", "/var/run").context("linking /var/run")?;
    symlink("/proc/self/fd", "/dev/fd").context("linking /dev/fd")?;
    // SAFETY: process 1 has one thread here, and nothing reads the environment yet.
    unsafe {
        env::set_var("PATH", "/bin");
        env::set_var("HOME", "/");
    }
    let linked = Command::new("/bin/busybox").args(["--install", "-s", "/bin"]).output();
    linked.context("installing busybox")?;
    if let Some(ticks) = parameter("lab.turn") {
        narrow_turns(&ticks)?;
    }
    Ok(())
}

/// The value of a word `NAME=VALUE` on the kernel's command line.
pub fn parameter(name: &str) -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    let value =
        line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.to_owned())
}

/// Starts a frequent timer that interrupts nobody: HPET timer 2, periodic, on a masked pin.
///
/// Under `-icount` QEMU lets the virtual CPUs run in turn, for an even part each of the time to the next
/// virtual timer. With nothing but 4 ms ticks, a wakeup on another busy CPU is seen up to a millisecond
/// late. This timer makes the turns short and costs the guest nothing.
fn narrow_turns(ticks: &str) -> Result<()> {
    const COUNTER: &str = "0xfed000f0";
    const TIMER_CONFIG: &str = "0xfed00140";
    const TIMER_COMPARATOR: &str = "0xfed00148";
    // Enabled, periodic, settable, 32 bits, routed to pin 20.
    const PERIODIC: &str = "0x294c";
    const FIRST_AFTER_TICKS: u32 = 20_000_000;
    let devmem = |args: &[&str]| -> Result<String> {
        let out = Command::new("devmem").args(args).output().context("running devmem")?;
        if !out.status.success() {
            bail!("devmem {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let now = devmem(&[COUNTER, "32"])?;
    let now = u32::from_str_radix(now.trim_start_matches("0x"), 16)
        .context("reading the HPET's counter")?;
    devmem(&[TIMER_CONFIG, "32", PERIODIC])?;
    devmem(&[TIMER_COMPARATOR, "32", &now.wrapping_add(FIRST_AFTER_TICKS).to_string()])?;
    devmem(&[TIMER_COMPARATOR, "32", ticks])?;
    Ok(())
}

/// Switches the guest off.
pub fn power_off() -> Result<Infallible> {
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF).context("powering off")
}

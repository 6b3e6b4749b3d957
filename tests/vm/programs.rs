//! What the kernel's half costs: the verifier's work at load, and the callbacks' time at run.

use anyhow::{Result, ensure};
use lab::{Case, Vm, process::cpu_time, qemu::Topology, vm::wait_for};
use libbpf_rs::query::{ProgInfoIter, ProgramInfo};
use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    Case::new(1, "verifier_effort", verifier_effort).core(),
    Case::new(11, "cost_of_a_switch", cost_of_a_switch).core().deterministic().on(Topology::ONE),
    Case::new(11, "sleeps_when_nobody_asks", sleeps_when_nobody_asks)
        .deterministic()
        .on(Topology::TWO),
];

/// Instructions that the verifier may walk for each program, as the kernel reports them, with decisions in the kernel and
/// with a policy in user space; 0: not loaded. About 1.5 times what the kernel with the highest number needed when
/// this was written, with two LLCs. A program that grows beyond was made harder to verify than its author knows; the
/// kernel's own limit is a million.
const VERIFIED_MAX: &[(&str, u32, u32)] = &[
    ("explain_task", 520, 520),
    ("refresh_cpu_set", 580, 580),
    ("rule_apply", 75, 75),
    ("rule_cgroup", 470, 470),
    ("rule_describe", 2_600, 2_600),
    ("rule_exec", 66, 66),
    ("rule_fork", 260, 260),
    ("rule_hurry", 1_200, 1_200),
    ("rule_rename", 85, 85),
    ("rule_scan", 2_600, 2_600),
    ("refresh_topolog", 3_800, 2_600),
    ("relay_apply", 0, 15_500),
    ("relay_idle_cpu", 0, 70),
    ("sched_cpu_acqui", 60, 50),
    ("sched_cpu_offli", 350, 750),
    ("sched_cpu_onlin", 120, 110),
    ("sched_cpu_relea", 60, 40),
    ("sched_dispatch", 13_000, 18_000),
    ("sched_enable", 400, 450),
    ("sched_enqueue", 5_500, 10_500),
    ("sched_exit", 60, 50),
    ("sched_exit_task", 0, 450),
    ("sched_init", 2_600, 28_000),
    ("sched_init_task", 100, 100),
    ("sched_running", 15_000, 23_500),
    ("sched_select_cp", 3_300, 1_500),
    ("sched_set_cpuma", 1_000, 1_200),
    ("sched_set_weigh", 420, 850),
    ("sched_stopping", 650, 700),
    ("sched_tick", 2_500, 2_500),
    ("sched_update_id", 400, 400),
    ("sched_yield", 160, 140),
    ("snapshot", 2_700, 900),
    ("tasks", 120, 120),
];

/// A file of a rule.
const RULES: &str = "/run/verifier-effort.toml";

/// What the programs of the scheduler are called, as far as the kernel keeps it.
fn is_ours(program: &ProgramInfo) -> bool {
    let name = program.name.to_string_lossy();
    name.starts_with("sched_") || VERIFIED_MAX.iter().any(|(known, ..)| *known == name)
}

fn verifier_effort(vm: &mut Vm) -> Result<()> {
    check_effort(vm, &[], |&(_, kernel, _)| kernel)?;
    check_effort(vm, &["--policy", "vruntime"], |&(.., policy)| policy)
}

/// Loads with these flags and compares what the verifier walked with this column of the table.
fn check_effort(
    vm: &mut Vm,
    flags: &[&str],
    max_of: fn(&(&'static str, u32, u32)) -> u32,
) -> Result<()> {
    // With rules, so that what those load is there, too.
    fs::write(RULES, "[[rule]]\nname = \"a\"\nclass = \"batch\"\n")?;
    let flags =
        [flags, &["--config", RULES, "--json", "--tasks", "1", "--interval", "60"]].concat();
    let scheduler = vm.scheduler(&flags)?;
    let loaded = || -> BTreeMap<String, u32> {
        let ours = ProgInfoIter::default().filter(is_ours);
        ours.map(|program| (program.name.to_string_lossy().into_owned(), program.verified_insns))
            .collect()
    };
    // Those of the rules come when it is attached, this last.
    wait_for(Duration::from_secs(20), || Ok(loaded().contains_key("rule_cgroup")))?;
    let programs = loaded();
    scheduler.finish()?;
    vm.say(flags.join(" "));
    for (name, count) in &programs {
        vm.say(format!("{name:16} {count:>6} instructions verified"));
    }
    for row in VERIFIED_MAX {
        let (name, max) = (row.0, max_of(row));
        let Some(count) = programs.get(name) else {
            ensure!(max == 0, "{name} is not loaded");
            continue;
        };
        ensure!(*count > 0, "{name}: the kernel reports nothing");
        ensure!(*count <= max, "{name}: {count} instructions verified, {max} are allowed");
    }
    for name in programs.keys() {
        let known = VERIFIED_MAX.iter().any(|(known, ..)| known == name);
        ensure!(known, "{name} is loaded, and VERIFIED_MAX does not know it");
    }
    Ok(())
}

/// Beside `hackbench`, where next to nothing but switches happens. On one CPU: the clock of a deterministic guest
/// goes on while other virtual CPUs have their turn.
fn cost_of_a_switch(vm: &mut Vm) -> Result<()> {
    // Of a machine that executes an instruction in 2 ns, without caches.
    const MAX: Duration = Duration::from_micros(15);
    let scheduler = vm.scheduler(&[])?;
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "1")?;
    let end =
        vm.run(&["hackbench", "-g", "2", "-l", "200", "-T", "-p"], Duration::from_secs(60))?;
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "0")?;
    let programs: Vec<ProgramInfo> =
        ProgInfoIter::default().filter(is_ours).filter(|program| program.run_cnt > 0).collect();
    scheduler.finish()?;
    ensure!(end.code == 0, "hackbench: {end:?}");
    let mut switches = 0;
    let mut sum = Duration::ZERO;
    for program in programs {
        let name = program.name.to_string_lossy();
        let (time, count) = (Duration::from_nanos(program.run_time_ns), program.run_cnt);
        vm.say(format!("{name:16} {count:>7} calls of {:>5} ns", program.run_time_ns / count));
        sum += time;
        if name == "sched_running" {
            switches = count;
        }
    }
    ensure!(switches > 1000, "{switches} switches");
    let cost = sum / u32::try_from(switches)?;
    vm.say(format!("all callbacks, for each of {switches} switches: {cost:.2?}"));
    ensure!(cost < MAX, "{cost:?} for a switch, {MAX:?} are allowed");
    Ok(())
}

/// Without statistics the process takes next to no CPU time and little memory.
fn sleeps_when_nobody_asks(vm: &mut Vm) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(20);
    const SHARE_MAX: f64 = 0.001;
    const RESIDENT_MAX_KIB: u64 = 20 * 1024;
    let mut scheduler = vm.scheduler(&[])?;
    let pid = scheduler.process().pid();
    thread::sleep(Duration::from_secs(1));
    let (begin, before) = (Instant::now(), cpu_time(pid)?);
    thread::sleep(WINDOW);
    let share = (cpu_time(pid)? - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |field: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or(u64::MAX)
    };
    let (resident, file) = (kib("VmRSS"), kib("RssFile"));
    vm.say(format!("{:.3} % of a CPU, {resident} KiB resident ({file} of files)", share * 100.0));
    ensure!(share < SHARE_MAX, "{:.3} % of a CPU", share * 100.0);
    ensure!(resident < RESIDENT_MAX_KIB, "{resident} KiB resident");
    scheduler.finish()?;
    Ok(())
}

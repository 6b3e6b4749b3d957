//! Builds the kernel's half. Everything generated goes to `OUT_DIR`:
//! - `bpf_skel.rs`, `observer_skel.rs`, `recorder_skel.rs` and `rules_skel.rs`, the skeletons of `src/bpf/main.bpf.c` and of
//!   those beside it, compiled by clang for BPF;
//! - `intf.rs`, the Rust view of `src/bpf/intf.h`;
//! - `counters.rs`, the names and texts of the counters in `src/bpf/intf.h`;
//! - `enums.rs`, a setter of the values of the kernel's enums in the skeleton;
//! - `policy.rs` and a static library: `src/bpf/policy.h` as native code;
//! - `sim.so` and `sim_abi.rs`: `src/bpf/main.bpf.c` as native code for the simulator, and what it asks of that.

use anyhow::{Context, Result, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> Result<()> {
    let out_dir = PathBuf::from(env::var("OUT_DIR").context("OUT_DIR is set by cargo")?);

    let builder = || {
        scx_cargo::BpfBuilder::new().context(
            "preparing the BPF build (clang 18 or later is needed; BPF_CLANG names another)",
        )
    };
    builder()?
        .enable_intf("src/bpf/intf.h", "intf.rs")
        .enable_skel("src/bpf/main.bpf.c", "bpf")
        .build()
        .context("building src/bpf/main.bpf.c")?;
    builder()?
        .enable_skel("src/bpf/observer.bpf.c", "observer")
        .build()
        .context("building src/bpf/observer.bpf.c")?;
    builder()?
        .enable_skel("src/bpf/rules.bpf.c", "rules")
        .build()
        .context("building src/bpf/rules.bpf.c")?;
    builder()?
        .enable_skel("src/bpf/recorder.bpf.c", "recorder")
        .build()
        .context("building src/bpf/recorder.bpf.c")?;

    let intf = fs::read_to_string("src/bpf/intf.h").context("reading src/bpf/intf.h")?;
    fs::write(out_dir.join("counters.rs"), counter_table(&intf)?)
        .context("writing the table of counters")?;
    let skeleton =
        fs::read_to_string(out_dir.join("bpf_skel.rs")).context("reading the skeleton back")?;
    fs::write(out_dir.join("enums.rs"), enum_setter(&skeleton))
        .context("writing the setter of enums")?;

    cc::Build::new()
        .file("src/bpf/policy.c")
        .warnings_into_errors(true)
        .extra_warnings(true)
        .compile("policy");
    // Pure functions of plain values that touch no memory: safe to call, whatever the arguments.
    let policy = bindgen::Builder::default()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .header("src/bpf/policy.h")
        .clang_args(["-DPOLICY_FN=", "-x", "c"])
        .allowlist_file(".*/policy.h")
        .blocklist_type("vclock|boost|effect|cpu_set|task_key|described|rule_call|explained|cpu_stats|cpu_ctx|llc_ctx|knobs|task_sample|waits|traced")
        .generate()
        .context("generating bindings of src/bpf/policy.h")?
        .to_string()
        .replace("pub fn ", "pub safe fn ");
    fs::write(out_dir.join("policy.rs"), policy)?;

    simulated(&out_dir)?;

    let revision = git(&["describe", "--always", "--dirty", "--abbrev=10"]);
    println!("cargo:rustc-env=SCHEDULER_REVISION={revision}");
    println!("cargo:rustc-env=SCHEDULER_DATE={}", git(&["log", "-1", "--format=%cs"]));
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs");
    Ok(())
}

/// How the kernel's half is compiled for the simulator. Tests that compile changed copies of it do it the same way, by the
/// environment variable `SIM_CFLAGS`.
const SIM_CFLAGS: &str = "-std=gnu23 -O2 -fPIC -shared -fvisibility=hidden -fno-strict-aliasing -Wall -Werror \
                          -Wno-unused-function";

/// Builds the kernel's half for the simulator: a shared object that imports memcpy() at most, of which each simulated machine
/// opens a copy of its own.
fn simulated(out_dir: &Path) -> Result<()> {
    let clang = env::var("BPF_CLANG").unwrap_or_else(|_| "clang".into());
    let mut command = Command::new(&clang);
    let (host, target) = (env::var("HOST")?, env::var("TARGET")?);
    if host != target {
        command.arg(format!("--target={target}"));
    }
    let status = command
        .args(SIM_CFLAGS.split_whitespace())
        .args(["-I", "src/sim/include", "-I", "src/bpf", "src/sim/host.c", "-o"])
        .arg(out_dir.join("sim.so"))
        .status()
        .with_context(|| format!("running {clang} (clang 18 or later; BPF_CLANG names another)"))?;
    ensure!(status.success(), "{clang} failed on src/sim/host.c");
    bindgen::Builder::default()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .header("src/sim/include/kernel.h")
        .clang_args(["-std=gnu23", "-x", "c"])
        .prepend_enum_name(false)
        .blocklist_type("knobs|relay|relay_call")
        .generate()
        .context("generating bindings of src/sim/include/kernel.h")?
        .write_to_file(out_dir.join("sim_abi.rs"))
        .context("writing those bindings")?;
    println!("cargo:rustc-env=SIM_CFLAGS={SIM_CFLAGS}");
    println!("cargo:rustc-env=SIM_CLANG={clang}");
    println!("cargo:rerun-if-changed=src/sim/host.c");
    println!("cargo:rerun-if-changed=src/sim/include");
    println!("cargo:rerun-if-changed=src/bpf");
    Ok(())
}

/// The lines of the list `COUNTERS(X)` as a Rust table of names and texts. bindgen knows the
/// enum that the list makes, but nothing of its strings.
fn counter_table(intf: &str) -> Result<String> {
    let (_, list) = intf.split_once("#define COUNTERS(X)").context("intf.h has no COUNTERS(X)")?;
    let mut entries = Vec::new();
    for line in list.lines().map(|line| line.trim_end_matches('\\').trim()) {
        let Some(fields) = line.strip_prefix("X(").and_then(|line| line.strip_suffix(')')) else {
            if entries.is_empty() {
                continue;
            }
            break;
        };
        let mut fields = fields.splitn(3, ',').skip(1).map(str::trim);
        let name = fields.next().context("a counter without a name")?;
        let text = fields.next().context("a counter without a text")?;
        entries.push(format!("    Counter {{ name: {name:?}, text: {text} }},\n"));
    }
    Ok(format!("&[\n{}]", entries.concat()))
}

/// A function that sets every variable `__SCX_*` of the kernel's half. Those stand for values of
/// the kernel's enums, which differ from release to release.
fn enum_setter(skeleton: &str) -> String {
    let names = skeleton.lines().filter_map(|line| {
        line.trim().strip_prefix("pub __")?.strip_suffix(": u64,").filter(|n| n.starts_with("SCX_"))
    });
    let lines = names.map(|name| format!("    rodata.__{name} = value({name:?});\n"));
    format!(
        "/// Sets every variable that stands for an enumerator of the kernel, by its name.\n\
         pub fn set(rodata: &mut rodata, value: impl Fn(&str) -> u64) {{\n{}}}\n",
        lines.collect::<String>()
    )
}

/// What git says of the revision that this is built from; "unknown" outside a checkout.
fn git(args: &[&str]) -> String {
    Command::new("git")
        .args(args)
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map_or_else(|| "unknown".into(), |s| s.trim().to_owned())
}

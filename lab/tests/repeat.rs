//! The same sample run twice gives the same bytes. It boots guests, so it runs where `VM` is set: `make gate`.

use anyhow::{Context, Result, ensure};
use lab::{
    bench::{candidate::Candidate, runner::Runner, scenario::Scenario},
    kernel::{Kernel, SERIES},
    qemu::{Guest, Mode, Topology},
};
use lab_guest::plan::Record;
use std::{env, path::Path, thread};

/// All that could differ: many tasks on several CPUs, timers, forks, pipes, and times in the output.
const SCENARIO: &str = r#"
    about = "What could differ, does it?"
    cpus = ["4"]
    tools = ["stress-ng", "cyclictest", "hackbench"]
    [[part]]
    name = "all at once"
    load = ["exec stress-ng --cpu 4 --fork 1 --timeout 0 --metrics-brief"]
    settle_ms = 100
    probe = "cyclictest --policy=other -t2 -i 1000 -l 200 -q --default-system -h 20000; hackbench -l 10 -g 1"
    figures = [{ name = "time", unit = "s", better = "less", regex = '^Time: (\S+)' }]
"#;

/// The record of one boot, as the bytes that the report is made of.
fn boot(number: u64, sample: u64, scheduler: &Candidate) -> Result<(Vec<u8>, Record)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    let kernel = Kernel::find(SERIES[SERIES.len() - 1], root)?;
    // target/release/lab-guest beside target/release/deps.
    let this = env::current_exe().context("finding this program")?;
    let guest_program = this.ancestors().nth(2).context("the target folder")?.join("lab-guest");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("repeat-{number}"));
    let runner = Runner::new(kernel, Mode::Deterministic, &guest_program, folder.clone())?;
    let scenario = Scenario::parse("repeat", SCENARIO)?;
    let guest = Guest {
        kernel: &runner.kernel,
        topology: Topology::FOUR,
        mode: runner.mode,
        memory_mib: scenario.memory_mib,
        append: &Runner::append(sample),
    };
    let initramfs = runner.initramfs(&scenario, scheduler)?;
    let record = runner.boot(&guest, &initramfs, &scenario, &folder, |_| {})?;
    Ok((serde_json::to_vec(&record)?, record))
}

#[test]
fn the_same_sample_twice_is_the_same_bytes() -> Result<()> {
    if env::var_os("VM").is_none_or(|value| value.is_empty()) {
        println!("not run: it boots guests, and VM is not set");
        return Ok(());
    }
    let default = Candidate::default_of_kernel();
    let (one, two) = thread::scope(|scope| {
        let boots = [0, 1].map(|number| {
            scope.spawn({
                let default = &default;
                move || boot(number, 0, default)
            })
        });
        let [one, two] = boots.map(|boot| boot.join().ok().context("a thread panicked")?);
        Ok::<_, anyhow::Error>((one?, two?))
    })?;
    ensure!(one.1.parts[0].probe.stdout.lines().count() > 20, "too little output: {:?}", one.1);
    ensure!(one.0 == two.0, "two boots differ:\n{:?}\n{:?}", one.1, two.1);
    // If another sample were the same as well, equality would prove nothing.
    let (other, _) = boot(2, 1, &default)?;
    ensure!(other != one.0, "another sample is the same, byte for byte");
    Ok(())
}

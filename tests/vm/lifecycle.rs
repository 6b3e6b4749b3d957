//! Start, stop, leave nothing behind.

use anyhow::{Result, ensure};
use lab::{Case, Vm, vm::sched_ext};

pub const CASES: &[Case] = &[Case::new(0, "guest_is_habitable", guest_is_habitable).core()];

fn guest_is_habitable(vm: &mut Vm) -> Result<()> {
    let out = vm.run(
        &[
            "sh",
            "-c",
            "uname -r; ls /sys/kernel/sched_ext; ls /proc/config.gz; nproc; cat /proc/uptime",
        ],
        std::time::Duration::from_secs(10),
    )?;
    vm.say(format!("{}{}", out.stdout, out.stderr));
    ensure!(vm.state()? == "disabled");
    vm.say(sched_ext("nr_rejected")?);
    vm.say(format!("{:?}", vm.bpf_objects()?));
    let hogs = [
        lab::process::hog().on(&[1]).start()?,
        lab::process::hog().on(&[1]).nice(5).start()?,
    ];
    vm.say(format!(
        "{:?}",
        lab::process::cpu_times_over(&hogs, std::time::Duration::from_secs(2))?
    ));
    Ok(())
}

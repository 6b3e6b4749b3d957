//! A list of CPUs is ascending, without doubles and below its limit, whatever the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scheduler::machine::cpulist;

fuzz_target!(|text: &str| {
    for limit in [0, 1, 64, 2048] {
        let cpus = cpulist::parse(text, limit);
        assert!(cpus.is_sorted_by(|a, b| a.0 < b.0), "{cpus:?}");
        assert!(cpus.iter().all(|cpu| cpu.index() < limit), "{cpus:?}");
    }
});

//! Large machines: what a task costs, and that as many of both run as are promised.

use crate::program;
use serde_json::Value;
use std::fs;

/// Tasks that sleep for most of the time, on 1,024 CPUs.
fn machine(tasks: u32) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("large.toml");
    let text = format!(
        "about = \"large\"\nduration = \"40ms\"\ntopology = \"4 nodes x 16 llcs x 8 cores x 2 threads\"\n\
         [[group]]\nname = \"tasks\"\ntasks = {tasks}\nstart = \"0s..20ms\"\n\
         phases = [{{ run = \"exp 500us\" }}, {{ sleep = \"exp 60ms\" }}]\n"
    );
    fs::write(&path, text).expect("written");
    let (code, out, err) = program(&["--json", path.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{err}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["groups"][0]["tasks"].as_u64(), Some(u64::from(tasks)));
    report["machine"].clone()
}

#[test]
fn a_hundred_thousand_tasks_take_less_than_a_kib_each() {
    const FEW: u32 = 1_000;
    const MANY: u32 = 100_000;
    let kib = |machine: &Value| machine["peak_memory_kib"].as_u64().expect("a number");
    let (few, many) = (machine(FEW), machine(MANY));
    assert_eq!(many["cpus"].as_u64(), Some(1024));
    assert!(many["busy_percent"].as_f64() > Some(40.0), "{many}");
    // 933 as it is. All else is in both.
    let bytes = (kib(&many) - kib(&few)) * 1024 / u64::from(MANY - FEW);
    assert!((200..1024).contains(&bytes), "{bytes} bytes a task");
}

//! A scenario is read, or refused in one line of printable text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scheduler::sim::Scenario;

fuzz_target!(|text: &str| {
    match Scenario::parse(text, None) {
        Ok(scenario) => {
            for group in &scenario.group {
                assert!(!scenario.allowed(group).is_empty(), "{}", group.name);
            }
        }
        Err(error) => assert!(!error.chars().any(char::is_control), "{error:?}"),
    }
});

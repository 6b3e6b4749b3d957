//! A topology in a line becomes that many CPUs, or is refused in one line of printable text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scheduler::sim::parse_topology;

fuzz_target!(|text: &str| {
    match parse_topology(text) {
        Ok(topology) => {
            let nr_llcs = topology.llcs.len() as u32;
            assert!((1..=2048).contains(&topology.places.len()));
            for place in &topology.places {
                assert!(place.llc < nr_llcs && place.node < topology.nr_nodes);
            }
        }
        Err(error) => {
            let error = format!("{error:#}");
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }
});

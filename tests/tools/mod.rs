//! Programs that a test checks with, and that a machine may not have.

use std::{
    env,
    process::{Command, Output},
};

/// Runs a tool. None where it is not installed, which is a failure under CI=true and under REQUIRE_TOOLS=1.
pub fn run(tool: &mut Command) -> Option<Output> {
    match tool.output() {
        Ok(out) => Some(out),
        Err(error) => {
            let is = |name: &str, value: &str| env::var(name).is_ok_and(|v| v == value);
            let tool = tool.get_program().display();
            assert!(
                !is("CI", "true") && !is("REQUIRE_TOOLS", "1"),
                "{tool} is needed (scripts/setup.sh test installs it): {error}"
            );
            eprintln!("skipped: {tool} does not run: {error}");
            None
        }
    }
}

/// All that a program said.
pub fn text(out: &Output) -> String {
    [&out.stdout[..], &out.stderr[..]].map(String::from_utf8_lossy).concat()
}

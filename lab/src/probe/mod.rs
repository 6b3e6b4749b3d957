//! The lab's own probes, for what no packaged tool measures. In a guest they are called `probe`.

use anyhow::Result;

/// Runs the probe that the command line names.
pub fn main() -> Result<()> {
    anyhow::bail!("no probe")
}

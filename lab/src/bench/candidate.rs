//! The schedulers that are compared: the kernel's default, ours, and peers at pinned versions.

use crate::vm::SCHEDULER;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The name of the kernel's default.
pub const DEFAULT: &str = "EEVDF";

/// The name of the scheduler of this repository.
pub const OURS: &str = "scheduler";

/// A scheduler as a guest starts it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Short and unique.
    pub name: String,
    /// What it says of itself, or is pinned to.
    pub version: String,
    /// The program on the host, and its path in the guest. None: the kernel's default.
    pub program: Option<(PathBuf, String)>,
    /// The program's arguments.
    pub args: Vec<String>,
}

/// `lab/peers.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    #[serde(rename = "peer")]
    peers: Vec<Peer>,
}

/// A scheduler from the registry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The package, and its program.
    name: String,
    /// The exact version.
    version: String,
    /// How it is started.
    #[serde(default)]
    args: Vec<String>,
}

impl Candidate {
    /// The scheduler that the kernel comes with.
    pub fn default_of_kernel() -> Self {
        Self { name: DEFAULT.into(), version: String::new(), program: None, args: Vec::new() }
    }

    /// The scheduler of this repository, as it was built.
    pub fn ours(program: &Path, args: Vec<String>) -> Result<Self> {
        let out = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("starting {}: run `make build`", program.display()))?;
        ensure!(out.status.success(), "{} --version ended with {}", program.display(), out.status);
        let text = String::from_utf8_lossy(&out.stdout);
        let version = text.trim().trim_start_matches("scheduler ").to_owned();
        let program = Some((program.to_owned(), SCHEDULER.to_owned()));
        Ok(Self { name: OURS.into(), version, program, args })
    }

    /// The scheduler and its arguments on the guest's command line; nothing for the kernel's default.
    pub fn command(&self) -> Vec<String> {
        let program = self.program.iter().map(|(_, guest)| guest.clone());
        program.chain(self.args.iter().cloned()).collect()
    }
}

impl Peer {
    /// Reads the list of peers.
    pub fn load_all(file: &Path) -> Result<Vec<Self>> {
        let read =
            || -> Result<_> { Ok(toml::from_str::<Peers>(&fs::read_to_string(file)?)?.peers) };
        read().with_context(|| format!("reading the peers in {}", file.display()))
    }

    /// The peer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Builds the peer in `.cache/peers` unless it is there, with cargo's output in a log file.
    pub fn build(&self, repository: &Path) -> Result<Candidate> {
        let cache = repository.join(".cache/peers");
        let root = cache.join(format!("{}-{}", self.name, self.version));
        let program = root.join("bin").join(&self.name);
        if !program.is_file() {
            fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
            let log = root.join("build.log");
            let file = fs::File::create(&log)?;
            let status = Command::new("cargo")
                .args(["install", "--locked", "--quiet", "--version", &self.version, "--root"])
                .arg(&root)
                .arg("--target-dir")
                .arg(cache.join("target"))
                .arg(&self.name)
                // `cargo install` does not read the repository's .cargo/config.toml.
                .env("BPF_CLANG", repository.join("scripts/bpf-clang"))
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .status()
                .context("starting cargo")?;
            ensure!(
                status.success() && program.is_file(),
                "building {} {} failed, see {}",
                self.name,
                self.version,
                log.display()
            );
        }
        let guest = format!("/bin/{}", self.name);
        Ok(Candidate {
            name: self.name.clone(),
            version: self.version.clone(),
            program: Some((program, guest)),
            args: self.args.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_peers_are_pinned() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers.toml");
        let peers = Peer::load_all(&file).expect("the list parses");
        assert_eq!(peers.len(), 5);
        for peer in peers {
            assert_eq!(peer.version.split('.').count(), 3, "{}", peer.name);
        }
    }
}

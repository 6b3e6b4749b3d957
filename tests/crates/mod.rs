//! Crates that stand beside this repository, as a user's own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds a crate of one file, and returns its program: with the versions and the artefacts of this build, so that nothing
/// but what its manifest has otherwise is built.
pub fn build(name: &str, manifest: &str, source: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(folder.join("src")).expect("a folder");
    let manifest = manifest.replace("../scheduler", &repository.to_string_lossy());
    // Where a user's crate is outside, this one is below another workspace.
    fs::write(folder.join("Cargo.toml"), manifest + "\n[workspace]\n").expect("a manifest");
    fs::write(folder.join("src/main.rs"), source).expect("a source");
    fs::copy(repository.join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let out = Command::new(env!("CARGO"))
        .args(["build", "--release", "--offline"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
        .env("BPF_CLANG", repository.join("scripts/bpf-clang"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    target.join("release").join(name)
}

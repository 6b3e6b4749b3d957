//! Initial RAM file systems: a "newc" cpio archive, written so that equal content makes equal bytes
//! (sorted names, one date, numbered inodes), because in a deterministic guest every byte counts.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Clone)]
enum Entry {
    Folder,
    Link(String),
    File(Vec<u8>),
}

/// What the guest finds at `/`. Paths are given without the leading slash.
#[derive(Clone, Default)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// Adds an executable file with this content, and the folders above it.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.insert(path, Entry::File(content.into()))
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.insert(path, Entry::Link(target.into()))
    }

    /// Adds a program of the host at `path`, without its symbols, and the shared libraries
    /// it needs at the host's own paths.
    pub fn program(&mut self, path: &str, host: &Path) -> Result<&mut Self> {
        let content = stripped(host)?;
        for library in libraries(host)? {
            let bytes =
                fs::read(&library).with_context(|| format!("reading {}", library.display()))?;
            self.file(library.to_string_lossy().trim_start_matches('/'), bytes);
        }
        Ok(self.file(path, content))
    }

    /// Adds a tool of the host as `/bin/NAME`, found in its `PATH`.
    pub fn tool(&mut self, name: &str) -> Result<&mut Self> {
        let host = find_in_path(name)
            .with_context(|| format!("{name} is not installed: run scripts/setup.sh"))?;
        self.program(&format!("bin/{name}"), &host)
    }

    fn insert(&mut self, path: &str, entry: Entry) -> &mut Self {
        for (slash, _) in path.match_indices('/') {
            self.entries.entry(path[..slash].into()).or_insert(Entry::Folder);
        }
        self.entries.insert(path.into(), entry);
        self
    }

    /// Writes the archive.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut inode = 0;
        for (path, entry) in &self.entries {
            inode += 1;
            let (mode, content): (u32, &[u8]) = match entry {
                Entry::Folder => (0o040_755, &[]),
                Entry::Link(target) => (0o120_777, target.as_bytes()),
                Entry::File(content) => (0o100_755, content),
            };
            write_record(out, inode, mode, path, content)?;
        }
        write_record(out, 0, 0, "TRAILER!!!", &[])
    }
}

fn write_record(
    out: &mut impl Write,
    inode: u32,
    mode: u32,
    path: &str,
    content: &[u8],
) -> io::Result<()> {
    const LINKS: usize = 1;
    const HEADER_BYTES: usize = 110;
    let size = content.len();
    let name_size = path.len() + 1;
    // magic, inode, mode, user, group, links, date, size, device and special device (two numbers each),
    // size of the name, checksum
    write!(out, "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{LINKS:08x}{0:08x}{size:08x}", 0)?;
    write!(out, "{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}{path}\0", 0)?;
    pad(out, HEADER_BYTES + name_size)?;
    out.write_all(content)?;
    pad(out, size)
}

/// Fills up to a multiple of four bytes.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.wrapping_neg() % 4])
}

/// The program's bytes without symbols and debug information; as they are if there is no `objcopy`.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    // A file, because objcopy cannot write into a pipe.
    let slim = tempfile::NamedTempFile::new().context("creating a temporary file")?;
    let done = Command::new("objcopy").arg("--strip-all").arg(program).arg(slim.path()).output();
    let source = match done {
        Ok(out) if out.status.success() => slim.path(),
        _ => program,
    };
    fs::read(source).with_context(|| format!("reading {}", program.display()))
}

/// The shared libraries of a program, its loader among them. None for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(!text.contains("not found"), "{} lacks a library:\n{text}", program.display());
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// The full path of a program of the host.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_stripped() {
        let this = std::env::current_exe().expect("this program");
        if find_in_path("objcopy").is_some() {
            let size = fs::metadata(&this).expect("its size").len();
            assert!((stripped(&this).expect("its bytes").len() as u64) < size);
        }
    }

    #[test]
    fn archive_is_reproducible_and_aligned() {
        let mut archive = Initramfs::default();
        archive.file("etc/b", "hello").link("etc/a", "b");
        let (mut first, mut second) = (Vec::new(), Vec::new());
        archive.write(&mut first).expect("memory");
        archive.write(&mut second).expect("memory");
        assert_eq!(first, second);
        assert_eq!(first.len() % 4, 0);
        assert!(first.starts_with(b"070701"));
    }
}

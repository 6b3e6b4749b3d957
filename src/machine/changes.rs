//! Changes of a file, however it is changed: written in place, replaced by another of its name, or reached by a link that
//! leads elsewhere now, as the volumes of Kubernetes do.

use anyhow::{Context, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    fs,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

/// What tells one content of a file from another: device, inode, size and time of the last write.
type Stamp = (u64, u64, u64, (i64, i64));

/// A file that is watched.
#[derive(Debug)]
pub struct Changes {
    inotify: Inotify,
    file: PathBuf,
    stamp: Option<Stamp>,
}

impl Changes {
    /// Watches a file, which need not be there, from here on. Its folder has to be.
    ///
    /// # Errors
    /// When the folder cannot be watched.
    pub fn of(file: &Path) -> Result<Self> {
        // The file itself is another one after each change by an editor.
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE;
        let watch = || {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            inotify.add_watch(folder, events)?;
            nix::Result::Ok(inotify)
        };
        let inotify = watch().with_context(|| format!("watching {}", folder.display()))?;
        Ok(Self { inotify, file: file.to_owned(), stamp: stamp(file) })
    }

    /// Whether the file is another one than at the last call, and there.
    pub fn take(&mut self) -> bool {
        let mut told = false;
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {
            told = true;
        }
        if !told {
            return false;
        }
        let now = stamp(&self.file);
        let changed = now.is_some() && now != self.stamp;
        // One that is away for a moment, and comes back as it was, has not changed.
        self.stamp = now.or(self.stamp);
        changed
    }
}

/// Readable when there is something to take.
impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let at = fs::metadata(file).ok()?;
    Some((at.dev(), at.ino(), at.len(), (at.mtime(), at.mtime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_that_is_written_replaced_or_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config.toml");
        let mut changes = Changes::of(&file).expect("watched");
        assert!(!changes.take());
        fs::write(&file, "a").expect("written");
        assert!(changes.take() && !changes.take(), "it came");
        fs::write(&file, "ab").expect("written");
        assert!(changes.take(), "in place");
        fs::write(dir.path().join("other"), "a").expect("written");
        assert!(!changes.take(), "another one is none of its business");
        fs::rename(dir.path().join("other"), &file).expect("renamed");
        assert!(changes.take(), "by a rename");
        fs::remove_file(&file).expect("removed");
        assert!(!changes.take(), "what is not there cannot be read");
        assert!(Changes::of(Path::new("/nowhere/config.toml")).is_err());
    }

    /// The kubelet makes a new folder, and renames a link to it over the old one.
    #[test]
    fn a_volume_of_kubernetes() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let publish = |version: &str| {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("config.toml"), version).expect("written");
            symlink(version, at("..data_tmp")).expect("linked");
            fs::rename(at("..data_tmp"), at("..data")).expect("renamed");
        };
        publish("..1");
        symlink("..data/config.toml", at("config.toml")).expect("linked");
        let mut changes = Changes::of(&at("config.toml")).expect("watched");
        assert!(!changes.take());
        publish("..2");
        assert!(changes.take() && !changes.take());
    }
}

//! The statistics socket: for root and for the user that the scheduler runs as.

use super::{Accepted, Listener, client::Client, scx_stats::ScxStats};
use crate::stats::sample::Sample;
use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket,
            sockopt::PeerCredentials,
        },
        stat::{Mode, fchmod},
    },
    unistd::geteuid,
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
};

/// Connections that the kernel holds until they are taken.
const BACKLOG: i32 = 64;

/// A UNIX socket in the file system, which goes with it.
pub struct StatsSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: somebody else's socket of the same path is not removed.
    file: (u64, u64),
    start: Rc<Sample>,
}

impl StatsSocket {
    /// Makes it at `path`, and the folder that it is in. A socket that is there already is of a scheduler that has gone,
    /// because the kernel runs one at a time: so call this when ours is attached. `start` is when it was.
    ///
    /// # Errors
    /// When it cannot be made there, or if there is something that is no socket.
    pub fn listen(path: &Path, start: Rc<Sample>) -> Result<Self> {
        make(path, start).with_context(|| {
            format!("making the socket {}; --socket names another place", path.display())
        })
    }
}

fn make(path: &Path, start: Rc<Sample>) -> Result<StatsSocket> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).context("making its folder")?;
    }
    is_socket(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Before it has a name, so that nobody else ever finds it open.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Nor before it listens: whoever finds it is heard.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    if is_socket(new).with_context(|| new.display().to_string())? {
        fs::remove_file(new)?;
    }
    bind(fd.as_raw_fd(), &UnixAddr::new(new)?)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    fs::rename(new, path)?;
    let made = fs::symlink_metadata(path)?;
    Ok(StatsSocket {
        listener: fd.into(),
        path: path.to_owned(),
        file: (made.dev(), made.ino()),
        start,
    })
}

/// Whether a socket is there already; an error if anything else is.
fn is_socket(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => Ok(true),
        Ok(_) => bail!("something is there that is no socket"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Drop for StatsSocket {
    fn drop(&mut self) {
        let is_ours = |there: fs::Metadata| (there.dev(), there.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // What cannot be removed is replaced by the next scheduler.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for StatsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for StatsSocket {
    fn accept(&self) -> io::Result<Accepted> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => return super::not_accepted(error),
        };
        stream.set_nonblocking(true)?;
        // The mode keeps others out as long as nobody changes it.
        let peer = getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?;
        if !may_ask(peer.uid(), geteuid().as_raw()) {
            log::info!("the user {} may not ask for statistics", peer.uid());
            return Ok(Accepted::Refused);
        }
        let protocol = ScxStats::since(self.start.clone());
        Ok(Accepted::Client(Box::new(Client::new(stream, protocol))))
    }
}

/// Root and ourselves.
fn may_ask(user: u32, own: u32) -> bool {
    user == 0 || user == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_may_ask() {
        assert!(may_ask(0, 1000) && may_ask(1000, 1000) && may_ask(0, 0));
        assert!(!may_ask(1000, 0) && !may_ask(1001, 1000));
    }
}

//! Signals, and waiting that a stop ends at once: for time to pass, or for a slow reader to take our output.

use crate::exit::Exit;
use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    low_level::pipe,
};
use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The terminal of the process, if it has one.
const TERMINAL: &str = "/dev/tty";

/// Readable from the first ring on: a reader and a writer, neither of which blocks.
#[derive(Debug)]
struct Bell(UnixStream, UnixStream);

impl Bell {
    fn new() -> Result<Self> {
        let make = || {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            writer.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(Self(reader, writer))
        };
        make().context("making a pair of sockets for signals")
    }

    /// Has a signal ring it.
    fn on(&self, signal: i32) -> Result<()> {
        let registered = self.1.try_clone().and_then(|writer| pipe::register(signal, writer));
        registered.map(drop).context("installing a signal handler")
    }
}

/// Turns true when the user wants the program to stop, and stays so.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Bell>);

/// Readable when it is true: for a wait on more than this.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// SIGHUP, with which a user asks to read settings again, and a terminal says that it has gone.
#[derive(Debug)]
pub struct Hangup {
    bell: Bell,
    /// That of the start.
    terminal: Option<PathBuf>,
}

/// What a SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hung {
    /// Settings are to be read again.
    Asked,
    /// The terminal that the program was started from is gone, and nobody is there to stop it.
    Gone,
}

impl Hangup {
    /// Listens to the signal from here on.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn on_signal() -> Result<Self> {
        Self::of(TERMINAL.into())
    }

    fn of(terminal: PathBuf) -> Result<Self> {
        let bell = Bell::new()?;
        bell.on(SIGHUP)?;
        // Without one it cannot be opened.
        let terminal = File::open(&terminal).is_ok().then_some(terminal);
        Ok(Self { bell, terminal })
    }

    /// What the signals that came since the last call mean; none came if absent.
    pub fn take(&self) -> Option<Hung> {
        let mut rings = [0; 64];
        if !matches!((&self.bell.0).read(&mut rings), Ok(1..)) {
            return None;
        }
        let gone = self.terminal.as_ref().is_some_and(|terminal| File::open(terminal).is_err());
        Some(if gone { Hung::Gone } else { Hung::Asked })
    }
}

/// Readable when there is something to take.
impl AsFd for Hangup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.0.as_fd()
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The user wants the program to stop.
    Stop,
    /// What was waited for can be read, or written to.
    Ready,
    /// Nothing happened in time.
    Timeout,
}

impl Stop {
    /// One that nothing triggers by itself.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Bell::new()?)))
    }

    /// One that SIGINT, SIGTERM and SIGHUP trigger from here on.
    ///
    /// # Errors
    /// As [`Self::but_hangup`].
    pub fn on_signals() -> Result<Self> {
        let stop = Self::but_hangup()?;
        stop.0.on(SIGHUP)?;
        Ok(stop)
    }

    /// One that SIGINT and SIGTERM trigger from here on.
    ///
    /// # Errors
    /// When the process is out of file descriptors or threads, or handles Ctrl-C by itself.
    pub fn but_hangup() -> Result<Self> {
        let stop = Self::new()?;
        on_ctrl_c(&stop)?;
        stop.0.on(SIGTERM)?;
        Ok(stop)
    }

    /// One that SIGINT, SIGTERM and SIGHUP trigger, the second of which ends the process at once: for work that may be
    /// somebody else's endless loop, and leaves nothing behind. One that comes with the first is the same wish: `timeout`
    /// sends each signal to the process and to its group.
    ///
    /// # Errors
    /// As [`Self::but_hangup`].
    pub fn on_signals_or_end() -> Result<Self> {
        const SAME_WISH: Duration = Duration::from_millis(300);
        const LONG: Duration = Duration::from_secs(3600);
        let wished = Arc::new(AtomicBool::new(false));
        let stop = Self::new()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, Exit::Failed as i32, wished.clone())
                .context("installing a signal handler")?;
            stop.0.on(signal)?;
        }
        let stopped = stop.clone();
        let watch = move || {
            while stopped.wait(LONG) != Wake::Stop {}
            thread::sleep(SAME_WISH);
            wished.store(true, Ordering::Relaxed);
        };
        thread::Builder::new().spawn(watch).context("starting a thread for signals")?;
        Ok(stop)
    }

    /// Makes it true.
    pub fn trigger(&self) {
        // Fails only when it is full of triggers.
        let _ = (&self.0.1).write(&[1]);
    }

    /// Whether it is true.
    pub fn is_triggered(&self) -> bool {
        self.wait(Duration::ZERO) == Wake::Stop
    }

    /// Waits for `timeout` or a stop.
    pub fn wait(&self, timeout: Duration) -> Wake {
        self.wait_on(&[], timeout)
    }

    /// Waits until one of `others` is ready for what it is waited for, for `timeout`, or for a stop.
    pub fn wait_ready(&self, others: &[(BorrowedFd<'_>, PollFlags)], timeout: Duration) -> Wake {
        self.wait_on(others, timeout)
    }

    /// Waits until `output` takes at least PIPE_BUF bytes, for `timeout`, or for a stop.
    pub fn wait_writable(&self, output: BorrowedFd<'_>, timeout: Duration) -> Wake {
        self.wait_on(&[(output, PollFlags::POLLOUT)], timeout)
    }

    fn wait_on(&self, others: &[(BorrowedFd<'_>, PollFlags)], timeout: Duration) -> Wake {
        // Rounded up: a wait must not end before its time, and 0 would be a busy loop.
        let ms = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
        let mut fds = vec![PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        fds.extend(others.iter().map(|&(fd, what)| PollFd::new(fd, what)));
        match poll(&mut fds, PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => Wake::Timeout,
            Ok(_) if fds[0].any() == Some(true) => Wake::Stop,
            // An error, too: reading or writing tells which.
            Ok(_) => Wake::Ready,
            Err(_) => Wake::Timeout,
        }
    }
}

/// Has Ctrl-C trigger it. The handler is the process's only one, and is for all that there are by then.
fn on_ctrl_c(stop: &Stop) -> Result<()> {
    static ALL: Mutex<Vec<Weak<Bell>>> = Mutex::new(Vec::new());
    let all = || ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bells = all();
    if bells.is_empty() {
        // Its feature "termination" would take SIGHUP along with SIGTERM.
        let ring =
            move || all().iter().filter_map(Weak::upgrade).for_each(|bell| Stop(bell).trigger());
        ctrlc::set_handler(ring).context("installing a handler of Ctrl-C")?;
    }
    bells.push(Arc::downgrade(&stop.0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, time::Instant};

    #[test]
    fn a_stop_ends_a_wait_at_once() {
        let stop = Stop::new().expect("an event");
        assert_eq!(stop.wait(Duration::from_millis(1)), Wake::Timeout);
        let trigger = stop.clone();
        let started = Instant::now();
        let thread = std::thread::spawn(move || trigger.trigger());
        assert_eq!(stop.wait(Duration::from_secs(20)), Wake::Stop);
        assert!(started.elapsed() < Duration::from_secs(10));
        thread.join().expect("joined");
        assert!(stop.is_triggered() && stop.is_triggered());
    }

    #[test]
    fn ctrl_c_stops_all() {
        let stops = [(); 2].map(|()| Stop::but_hangup().expect("a handler"));
        nix::sys::signal::raise(nix::sys::signal::SIGINT).expect("raised");
        for stop in stops {
            assert_eq!(stop.wait(Duration::from_secs(20)), Wake::Stop);
        }
    }

    #[test]
    fn a_hangup_is_taken_once_and_ends_what_has_lost_its_terminal() {
        let terminal = tempfile::NamedTempFile::new().expect("a file");
        let nowhere = terminal.path().join("none");
        let daemon = Hangup::of(nowhere).expect("a handler");
        let at_terminal = Hangup::of(terminal.path().into()).expect("a handler");
        assert_eq!((daemon.take(), at_terminal.take()), (None, None));
        nix::sys::signal::raise(nix::sys::signal::SIGHUP).expect("raised");
        nix::sys::signal::raise(nix::sys::signal::SIGHUP).expect("raised");
        let stop = Stop::new().expect("sockets");
        let fds = [(daemon.as_fd(), PollFlags::POLLIN)];
        assert_eq!(stop.wait_ready(&fds, Duration::from_secs(20)), Wake::Ready);
        assert_eq!((daemon.take(), at_terminal.take()), (Some(Hung::Asked), Some(Hung::Asked)));
        assert_eq!((daemon.take(), at_terminal.take()), (None, None));
        drop(terminal);
        nix::sys::signal::raise(nix::sys::signal::SIGHUP).expect("raised");
        assert_eq!((daemon.take(), at_terminal.take()), (Some(Hung::Asked), Some(Hung::Gone)));
    }

    #[test]
    fn a_full_pipe_is_not_writable() {
        let stop = Stop::new().expect("an event");
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        assert_eq!(stop.wait_writable(writer.as_fd(), Duration::ZERO), Wake::Ready);
        while stop.wait_writable(writer.as_fd(), Duration::ZERO) == Wake::Ready {
            writer.write_all(&[0; 4096]).expect("there is room");
        }
        stop.trigger();
        assert_eq!(stop.wait_writable(writer.as_fd(), Duration::from_secs(20)), Wake::Stop);
        drop(reader);
    }
}

//! Stop signals, and waiting that a stop signal ends at once: for time to pass, or for a slow
//! reader to take our output.

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

/// Turns true when the user wants the program to stop, and stays so.
#[derive(Debug, Clone)]
pub struct Stop(Arc<EventFd>);

/// Readable when it is true: for a wait on more than this.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("creating an event for stop signals")?;
        Ok(Self(Arc::new(event)))
    }

    /// One that SIGINT, SIGTERM and SIGHUP trigger from here on.
    ///
    /// # Errors
    /// When handlers are installed already.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::new()?;
        let trigger = stop.clone();
        ctrlc::set_handler(move || trigger.trigger()).context("installing signal handlers")?;
        Ok(stop)
    }

    /// Makes it true.
    pub fn trigger(&self) {
        // Fails only when it has been triggered 2^64 times.
        let _ = self.0.write(1);
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
        let mut fds = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
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

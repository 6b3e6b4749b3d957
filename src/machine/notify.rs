//! Telling the service manager how it goes: the sd_notify protocol, which is one datagram of
//! `KEY=VALUE` text to the socket that the environment names.

use nix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    process,
    time::Duration,
};

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Attached, and the kernel has it enabled. After [`Self::Reloading`]: the settings are taken.
    Ready,
    /// About to read settings again.
    Reloading,
    /// Done with that: they stay as they were, for this reason.
    Kept(&'a str),
    /// The scheduler has made progress since the last one.
    Alive,
    /// About to detach.
    Stopping,
}

/// The service manager, or nobody.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The one that the environment names: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_env() -> Self {
        let var = |name| env::var(name).ok();
        Self::new(
            env::var_os("NOTIFY_SOCKET").as_deref(),
            var("WATCHDOG_USEC").as_deref(),
            var("WATCHDOG_PID").as_deref(),
        )
    }

    /// A name that starts with `@` is abstract. What cannot be used is as if it were not there:
    /// a scheduler must not fail over its supervisor.
    fn new(socket: Option<&OsStr>, watchdog_us: Option<&str>, watchdog_pid: Option<&str>) -> Self {
        let address = socket.and_then(|name| match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            [b'/', ..] => SocketAddr::from_pathname(Path::new(name)).ok(),
            _ => None,
        });
        let mine = watchdog_pid.is_none_or(|pid| pid.parse() == Ok(process::id()));
        let watchdog = watchdog_us
            .filter(|_| mine)
            .and_then(|us| us.parse().ok())
            .filter(|&us| us > 0)
            .map(Duration::from_micros);
        Self { socket: UnixDatagram::unbound().ok().zip(address), watchdog }
    }

    /// How often [`Event::Alive`] is due: at half of the time after which the manager would give
    /// up. None if it does not watch.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog.map(|span| span / 2)
    }

    /// Tells it.
    ///
    /// # Errors
    /// When the datagram cannot be sent. Nobody to tell is no error.
    pub fn tell(&self, event: Event<'_>) -> io::Result<()> {
        let text = match event {
            Event::Ready => "READY=1\nSTATUS=scheduling".to_owned(),
            Event::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()?),
            Event::Kept(why) => {
                let why = why.replace('\n', " ");
                format!("READY=1\nSTATUS=scheduling, with the settings as they were: {why}")
            }
            Event::Alive => "WATCHDOG=1".to_owned(),
            Event::Stopping => "STOPPING=1".to_owned(),
        };
        match &self.socket {
            Some((socket, address)) => socket.send_to_addr(text.as_bytes(), address).map(drop),
            None => Ok(()),
        }
    }

    /// Tells it, and leaves it at a warning if that fails.
    pub fn tell_or_warn(&self, event: Event<'_>) {
        if let Err(error) = self.tell(event) {
            log::warn!("telling the service manager {event:?}: {error}");
        }
    }
}

/// The time by which the manager tells this reload from an earlier one.
fn monotonic_us() -> io::Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(server: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let n = server.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn path_and_abstract_sockets() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let server = UnixDatagram::bind(&path).expect("bind");
        let notifier = Notifier::new(Some(path.as_os_str()), None, None);
        notifier.tell(Event::Ready).expect("sent");
        assert!(received(&server).lines().any(|line| line == "READY=1"));

        let name = format!("scheduler-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let server = UnixDatagram::bind_addr(&address).expect("bind");
        let notifier = Notifier::new(Some(OsStr::new(&format!("@{name}"))), None, None);
        notifier.tell(Event::Alive).expect("sent");
        assert_eq!(received(&server), "WATCHDOG=1");
        notifier.tell(Event::Stopping).expect("sent");
        assert_eq!(received(&server), "STOPPING=1");
        let before = monotonic_us().expect("a time");
        notifier.tell(Event::Reloading).expect("sent");
        let told = received(&server);
        let at = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
        assert!(at.parse::<i64>().is_ok_and(|at| at >= before), "{told}");
        notifier.tell(Event::Kept("one\ntwo")).expect("sent");
        let told = received(&server);
        assert!(told.starts_with("READY=1\nSTATUS=") && told.ends_with(": one two"), "{told}");
    }

    #[test]
    fn watchdog_is_for_this_process_only() {
        let socket = Some(OsStr::new("@x"));
        let period = |us, pid| Notifier::new(socket, us, pid).watchdog_period();
        assert_eq!(period(Some("3000000"), None), Some(Duration::from_millis(1500)));
        let mine = process::id().to_string();
        assert_eq!(period(Some("3000000"), Some(&mine)), Some(Duration::from_millis(1500)));
        assert_eq!(period(Some("3000000"), Some("1")), None);
        assert_eq!(period(Some("0"), None), None);
        assert_eq!(period(Some("soon"), None), None);
        assert_eq!(Notifier::new(None, Some("3000000"), None).watchdog_period(), None);
    }

    #[test]
    fn nobody_to_tell_is_fine() {
        Notifier::new(None, None, None).tell(Event::Ready).expect("nothing to do");
        Notifier::new(Some(OsStr::new("relative")), None, None)
            .tell(Event::Ready)
            .expect("ignored");
    }
}

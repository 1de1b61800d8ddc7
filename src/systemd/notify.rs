//! What the service manager is told: one datagram each, of lines `KEY=value`; sd_notify(3) defines the keys.
//!
//! A datagram that cannot be sent is dropped: the relay does its work, whoever watches it.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// To the service manager that the environment names (`NOTIFY_SOCKET`); without one nothing is sent.
    pub fn from_environment() -> Self {
        Self(env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name)))
    }

    /// Whether anybody is told.
    pub fn has_listener(&self) -> bool {
        self.0.is_some()
    }

    /// The relay has started, or has finished a reload; `status` is for people.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A reload begins; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        // systemd compares the stamp with the time at which it asked for the reload.
        let now = clock_gettime(ClockId::Monotonic);
        let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// The relay stops; `status` is for people.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// What `systemctl status` shows from now on. Whether the service manager has it: its socket may be full.
    pub fn status(&self, status: &str) -> bool {
        self.send(&format!("STATUS={}", one_line(status)))
    }

    /// The relay is well: the service manager waits for the next such message, and restarts the relay if none comes in time.
    pub fn feed_watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, lines: &str) -> bool {
        let socket = self.0.as_ref();
        socket.is_some_and(|socket| socket.send(lines.as_bytes()).is_ok())
    }
}

/// How long the service manager waits for [`Notifier::feed_watchdog`]; `None`: it does not.
pub fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let for_another =
        number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    let us = number("WATCHDOG_USEC").filter(|us| *us > 0 && !for_another)?;
    Some(Duration::from_micros(us))
}

/// A name that begins with @ is in the abstract namespace, any other is a path.
fn connect(name: &OsStr) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    let addr = match name.as_bytes().split_first()? {
        (b'@', name) => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    };
    socket.connect_addr(&addr.ok()?).ok()?;
    // A service manager that does not read must not hold the relay up.
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// A line end would begin another key.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}

//! The service manager: sockets that it opened for the relay, and what it is told of the relay.
//!
//! Everything is in the environment (sd_listen_fds(3), sd_notify(3)). Without systemd the environment has none of it, and then
//! nothing here does anything. Nothing here knows what a relay is.

mod notify;
mod sockets;

pub use self::notify::{Notifier, watchdog};
pub use self::sockets::{BadSocket, Sockets};

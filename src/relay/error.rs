//! Why the relay does not run, in words for whoever starts it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::bus;
use crate::http::{PoolError, WorkerLinkError};
use crate::outbox::OpenError;
use crate::tls::BadIdentity;

/// Why the relay does not run.
#[derive(Debug)]
pub enum StartError {
    /// A listener cannot be opened: the key in the file, its address, and why.
    Listen(&'static str, SocketAddr, io::Error),
    /// The service manager handed over a socket with this address, which no listener has.
    NoListener(SocketAddr),
    /// A certificate or its key is not to be had.
    Tls(BadIdentity),
    /// There is no way to the HTTP workers, or the process may not open enough files for one.
    Pool(PoolError),
    /// The outbox cannot be used.
    Outbox(OpenError),
    /// The bus cannot be used.
    Bus(bus::BusStartError),
    /// The system has no room for a thread or a descriptor, or gives no random bytes.
    System(&'static str, io::Error),
}

impl StartError {
    /// 78 if the file can mend it, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(..)
            | Self::NoListener(_)
            | Self::Tls(_)
            | Self::Pool(PoolError::Link(WorkerLinkError::Descriptors { .. }))
            | Self::Bus(bus::BusStartError::Config(_)) => 78,
            Self::Outbox(error) if error.needs_a_person() => 78,
            Self::Pool(_)
            | Self::Outbox(_)
            | Self::Bus(bus::BusStartError::Thread(_))
            | Self::System(..) => 1,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(key, addr, error) => {
                write!(f, "{key} = \"{addr}\": cannot listen there: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "; another process has that port (a second payrelay?), choose another or stop it"
                    ),
                    io::ErrorKind::PermissionDenied => {
                        write!(
                            f,
                            "; ports below 1024 need a privilege, choose a higher one"
                        )
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "; no interface of this machine has that address")
                    }
                    _ => Ok(()),
                }
            }
            Self::NoListener(addr) => write!(
                f,
                "the service manager handed over a socket on {addr}, and no listen = … has that address; \
                 give the socket unit (ListenStream=) and this file the same addresses"
            ),
            Self::Tls(error) => write!(f, "{error}"),
            Self::Pool(PoolError::Link(error)) => write!(f, "{error}"),
            Self::Pool(PoolError::Thread(error)) => {
                write!(f, "cannot start the HTTP workers: {error}")
            }
            Self::Outbox(error) => write!(f, "{error}"),
            Self::Bus(error) => write!(f, "{error}"),
            Self::System(what, error) => write!(f, "cannot start {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

//! What a running relay can take over from a changed file, and what it cannot.

use std::fmt;

use super::Config;
use super::address::is_loopback;
use super::declare::{Declared, restart};

/// A running relay's configuration after a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The configuration in force from now on: what can change is the new file's, the rest as before.
    pub config: Config,
    /// What the new file changes and only a restart can take over, each as `needs a restart: http.listen`.
    pub needs_restart: Vec<String>,
}

/// Why nothing of a new file was taken over.
///
/// The new file keeps promise 7 (nobody in by default) for the listeners that it names. The sockets that are open now are
/// others, and for those it would be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadRefused {
    /// The file has no `tcp.secrets`, and backends connect to an address that is not loopback.
    TcpWouldBeOpen,
    /// The file moves `http.listen` to loopback, where unverified routes need no leave; the open socket is not there.
    HttpWouldBeOpen,
    /// The file has no `admin.token`, and the admin address is not loopback.
    AdminWouldBeOpen,
}

impl fmt::Display for ReloadRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcpWouldBeOpen => {
                "the new file has no tcp.secrets, and the TCP listener that is open is not on loopback; \
                 nothing was changed, restart to move it"
            }
            Self::HttpWouldBeOpen => {
                "the new file moves http.listen to loopback, and its routes were only checked for there; \
                 nothing was changed, restart to move it"
            }
            Self::AdminWouldBeOpen => {
                "the new file has no admin.token, and the admin listener that is open is not on loopback; \
                 nothing was changed, restart to move it"
            }
        })
    }
}

impl std::error::Error for ReloadRefused {}

impl Config {
    /// What a relay that runs with `self` shall run with when its file has become `new`.
    ///
    /// Taken over are the routes, the warnings and every key that is declared `live`. Everything else stays as it is and is listed.
    ///
    /// # Errors
    /// The new keys would let anybody in through a listener that is open now. Then nothing is taken over.
    pub fn reload(&self, new: &Config) -> Result<Reloaded, ReloadRefused> {
        let open = |listen| !is_loopback(listen);
        let sealed = self.tcp.tls.as_ref().map(|tls| tls.listen);
        if (open(self.tcp.listen) || sealed.is_some_and(open)) && new.tcp.secrets.is_empty() {
            return Err(ReloadRefused::TcpWouldBeOpen);
        }
        if open(self.http.listen) && !open(new.http.listen) {
            return Err(ReloadRefused::HttpWouldBeOpen);
        }
        if open(self.admin.listen) && new.admin.token.is_none() {
            return Err(ReloadRefused::AdminWouldBeOpen);
        }
        let (mut config, mut left) = (self.clone(), Vec::new());
        restart("node", &mut config.node, &new.node, &mut left);
        config.http.take_over(&new.http, &mut left);
        config.tcp.take_over(&new.tcp, &mut left);
        config.delivery.take_over(&new.delivery, &mut left);
        config.outbox.take_over(&new.outbox, &mut left);
        restart("redis", &mut config.redis, &new.redis, &mut left);
        config.admin.take_over(&new.admin, &mut left);
        config.log.take_over(&new.log, &mut left);
        config.routes.clone_from(&new.routes);
        config.warnings.clone_from(&new.warnings);
        let needs_restart = left.iter().map(|key| format!("needs a restart: {key}"));
        Ok(Reloaded {
            config,
            needs_restart: needs_restart.collect(),
        })
    }
}

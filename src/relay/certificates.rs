//! The certificates of all listeners, read together and replaced together.

use std::sync::Arc;

use crate::config::Config;
use crate::tls::{BadIdentity, Identity};

/// What providers may speak inside TLS.
const HTTP_PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// What the listeners show.
#[derive(Debug)]
pub struct Certificates {
    http: Option<Arc<Identity>>,
    tcp: Option<Arc<Identity>>,
}

impl Certificates {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// One cannot be read or used.
    pub fn load(config: &Config) -> Result<Self, BadIdentity> {
        let load = |files, key, protocols| Identity::load(files, key, protocols).map(Arc::new);
        let http = config.http.tls.as_ref();
        let tcp = config.tcp.tls.as_ref().map(|tls| &tls.files);
        Ok(Self {
            http: http
                .map(|files| load(files, "http.tls", HTTP_PROTOCOLS))
                .transpose()?,
            tcp: tcp.map(|files| load(files, "tcp.tls", &[])).transpose()?,
        })
    }

    /// What providers are shown; `None`: they come in the clear.
    pub(super) fn http(&self) -> Option<Arc<Identity>> {
        self.http.clone()
    }

    /// What backends are shown at `tcp.tls.listen`; `None`: there is no such listener.
    pub(super) fn tcp(&self) -> Option<Arc<Identity>> {
        self.tcp.clone()
    }

    /// Reads the files again, one result for each listener with TLS.
    pub(super) fn reload(&self, config: &Config) -> [Result<(), BadIdentity>; 2] {
        let reload = |identity: &Option<Arc<Identity>>, files| match (identity, files) {
            (Some(identity), Some(files)) => identity.reload(files),
            _ => Ok(()),
        };
        let tcp = config.tcp.tls.as_ref().map(|tls| &tls.files);
        [
            reload(&self.http, config.http.tls.as_ref()),
            reload(&self.tcp, tcp),
        ]
    }
}

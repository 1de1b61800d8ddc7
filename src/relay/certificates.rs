//! The certificates of all listeners, read together and replaced together.

use std::sync::Arc;

use crate::config::Config;
use crate::tls::{BadIdentity, Identity};

/// What providers may speak inside TLS.
const HTTP_PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// A certificate with fewer days left draws a warning: renewals that work come at 30.
const WARN_DAYS: i64 = 14;

const DAY_S: i64 = 86_400;

/// What the listeners show.
#[derive(Clone, Debug)]
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

    /// The key of each listener's files in relay.toml, and the end of its certificate in Unix seconds.
    pub fn not_after(&self) -> Vec<(&'static str, i64)> {
        let both = [&self.http, &self.tcp];
        both.into_iter()
            .flatten()
            .map(|identity| identity.not_after())
            .collect()
    }

    /// A sentence for each certificate that ends soon, or has ended; `now` in Unix seconds.
    pub fn warnings(&self, now: i64) -> Vec<String> {
        let ends_soon = |(key, end): (&'static str, i64)| {
            let days = end.saturating_sub(now).div_euclid(DAY_S);
            match end.saturating_sub(now) {
                left if left <= 0 => Some(format!(
                    "{key}: the certificate has ended; clients will refuse it"
                )),
                _ if days < WARN_DAYS => Some(format!(
                    "{key}: the certificate ends in {days} days; put a new one in its place, then reload"
                )),
                _ => None,
            }
        };
        self.not_after().into_iter().filter_map(ends_soon).collect()
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

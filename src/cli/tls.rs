//! Whom subcommands believe to be the relay, as their arguments say.

use std::path::PathBuf;

use payrelay::config::TlsFiles;

use super::Failure;
use crate::client::tls::{Roots, Trust, TrustError};

#[derive(Debug, Default, clap::Args)]
pub struct TlsArgs {
    /// Speak TLS [default: if the relay of the configuration does]
    #[arg(long)]
    pub tls: bool,

    /// Believe certificates that lead to one in FILE [default: the system's authorities; or, if the address comes from the
    /// configuration, the relay's own certificate and no other]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The name that the certificate must have [default: the host that is connected to]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

impl TlsArgs {
    /// Whether anything of TLS was asked for.
    pub fn wanted(&self) -> bool {
        self.tls || self.ca.is_some() || self.server_name.is_some()
    }

    /// Whom to believe at `place`, `host:port`; `own`: the relay's files, if it is this configuration's relay.
    ///
    /// # Errors
    /// A file that cannot be read, or a host that is no name.
    pub fn trust(&self, place: &str, own: Option<&TlsFiles>) -> Result<Trust, Failure> {
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let roots = match (&self.ca, own) {
            (None, Some(files)) if self.server_name.is_none() => Roots::Exactly(&files.cert),
            (Some(file), _) => Roots::File(file),
            (None, _) => Roots::System,
        };
        let name = self.server_name.as_deref().unwrap_or(host);
        Trust::new(roots, name).map_err(|error| match error {
            TrustError::Arguments(words) => Failure::usage(words),
            TrustError::Unusable(words) => Failure::new(words),
        })
    }
}

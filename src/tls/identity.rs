//! Who a listener says it is: certificate and key, read from their files and replaced while running.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};

use super::{Records, expiry};
use crate::config::TlsFiles;

/// The longest file that is taken for a certificate or a key, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Tickets that a client gets to come back with. A provider resumes one connection at a time.
const TICKETS: usize = 1;

/// What a listener shows, and how it seals.
pub struct Identity {
    /// The key in relay.toml: `http.tls`.
    key: &'static str,
    /// What may be spoken inside, for ALPN; empty: it is not asked.
    protocols: &'static [&'static [u8]],
    config: RwLock<Arc<ServerConfig>>,
    /// The end of the certificate, in Unix seconds; `i64::MAX` if it names none that can be read.
    not_after: AtomicI64,
}

/// Why certificate and key are not taken.
#[derive(Debug)]
pub enum BadIdentity {
    /// A file could not be read.
    Unreadable(NamedFile, io::ErrorKind),
    /// A file is longer than 1 MiB.
    TooLong(NamedFile),
    /// There is no PEM in it, or broken PEM.
    Pem(NamedFile, String),
    /// The two are read, but do not work: they do not belong together, or are of a kind that is not known here.
    Unfit(NamedFile, rustls::Error),
    /// The system gives no random bytes for the key of resumed sessions.
    Random(rustls::Error),
}

/// A file that relay.toml names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// `http.tls.cert`
    key: String,
    file: PathBuf,
}

impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = \"{}\"", self.key, self.file.display())
    }
}

impl fmt::Display for BadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(place, io::ErrorKind::NotFound) => {
                write!(f, "{place}: there is no such file")
            }
            Self::Unreadable(place, io::ErrorKind::PermissionDenied) => {
                write!(f, "{place}: this user may not read it")
            }
            Self::Unreadable(place, kind) => write!(f, "{place}: cannot be read ({kind})"),
            Self::TooLong(place) => {
                write!(f, "{place}: longer than {} KiB", FILE_BYTES_MAX >> 10)
            }
            Self::Pem(place, words) => write!(f, "{place}: {words}"),
            Self::Unfit(place, rustls::Error::InconsistentKeys(_)) => write!(
                f,
                "{place}: the key is not that of the first certificate in the file beside it"
            ),
            Self::Unfit(place, error) => write!(f, "{place}: {error}"),
            Self::Random(error) => write!(f, "no key for resumed TLS sessions: {error}"),
        }
    }
}

impl std::error::Error for BadIdentity {}

impl Identity {
    /// Reads the two files; `key` names them in errors (`http.tls`), `protocols` is what ALPN may choose.
    ///
    /// # Errors
    /// A file that cannot be read or used; no error quotes what is in it.
    pub fn load(
        files: &TlsFiles,
        key: &'static str,
        protocols: &'static [&'static [u8]],
    ) -> Result<Self, BadIdentity> {
        let (config, not_after) = read(files, key, protocols)?;
        Ok(Self {
            key,
            protocols,
            config: RwLock::new(Arc::new(config)),
            not_after: not_after.into(),
        })
    }

    /// Reads them again, for the connections that come from now on.
    ///
    /// # Errors
    /// As [`Identity::load`]; then what was in use stays.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), BadIdentity> {
        let (config, not_after) = read(files, self.key, self.protocols)?;
        *self.config.write() = Arc::new(config);
        self.not_after.store(not_after, Ordering::Relaxed);
        Ok(())
    }

    /// The key of relay.toml with the files, and the end of the certificate in Unix seconds.
    pub fn not_after(&self) -> (&'static str, i64) {
        (self.key, self.not_after.load(Ordering::Relaxed))
    }

    /// The records of a connection that has just been accepted; `None` only if rustls does not take its own configuration.
    pub fn records(&self) -> Option<Records> {
        let config = Arc::clone(&self.config.read());
        ServerConnection::new(config).ok().map(Records::new)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.key)
    }
}

/// What a connection needs, and the end of the certificate.
fn read(
    files: &TlsFiles,
    key: &str,
    protocols: &[&[u8]],
) -> Result<(ServerConfig, i64), BadIdentity> {
    let cert = NamedFile {
        key: format!("{key}.cert"),
        file: files.cert.clone(),
    };
    let private = NamedFile {
        key: format!("{key}.key"),
        file: files.key.clone(),
    };
    let chain = CertificateDer::pem_slice_iter(&contents(&cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad_pem(&cert, error))?;
    if chain.is_empty() {
        return Err(bad_pem(&cert, pem::Error::NoItemsFound));
    }
    let not_after = chain.first().and_then(|first| expiry::not_after(first));
    warn_if_others_can_read(&private);
    let secret = PrivateKeyDer::from_pem_slice(&contents(&private)?)
        .map_err(|error| bad_pem(&private, error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| BadIdentity::Unfit(cert.clone(), error))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| BadIdentity::Unfit(private, error))?;
    // What is needed to resume goes to the client, sealed under a key that changes every six hours: nothing is kept here,
    // however many come.
    config.ticketer = Ticketer::new().map_err(BadIdentity::Random)?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok((config, not_after.unwrap_or(i64::MAX)))
}

fn bad_pem(place: &NamedFile, error: pem::Error) -> BadIdentity {
    // Chosen here, not the crate's own words: those can quote the file.
    let words = match error {
        pem::Error::NoItemsFound if place.key.ends_with("key") => {
            "no private key in PEM form (-----BEGIN PRIVATE KEY-----) in it"
        }
        pem::Error::NoItemsFound => {
            "no certificate in PEM form (-----BEGIN CERTIFICATE-----) in it"
        }
        _ => "the PEM in it is broken",
    };
    BadIdentity::Pem(place.clone(), words.to_owned())
}

fn contents(place: &NamedFile) -> Result<Vec<u8>, BadIdentity> {
    let unreadable = |error: io::Error| BadIdentity::Unreadable(place.clone(), error.kind());
    let bytes = read_some(&place.file).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(BadIdentity::TooLong(place.clone()));
    }
    Ok(bytes)
}

fn warn_if_others_can_read(key: &NamedFile) {
    let mode = std::fs::metadata(&key.file).map_or(0, |metadata| metadata.mode());
    // Not the group: systems have one for those who may read keys.
    if mode & 0o004 != 0 {
        log::warn!("{key}: every user of this system can read it; make it yours with: chmod 600");
    }
}

fn read_some(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! The other end of TLS: an authority of the tests' own, certificates that it signs, and a client that trusts it alone.
//!
//! The certificates are made by `openssl`, so the relay reads files as operators have them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use tempfile::TempDir;

/// How a provider comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Clear,
    Tls,
}

/// Who signs the certificates of the tests.
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    /// The one of this run.
    pub fn get() -> &'static Self {
        static ONE: OnceLock<Authority> = OnceLock::new();
        ONE.get_or_init(|| {
            let dir = TempDir::with_prefix("payrelay-ca-").expect("a folder for the authority");
            let authority = Self { dir };
            authority.openssl(&format!(
                "req -x509 {} -keyout ca.key -out ca.pem -days 2 -subj /CN=tests",
                key_kind("P-256")
            ));
            authority
        })
    }

    /// Its own certificate, which clients trust.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes `cert.pem` and `key.pem` for localhost into `dir`.
    pub fn issue(&self, dir: &Path) {
        self.issue_kind(dir, "P-256");
    }

    /// The same, with a key of `kind`: an elliptic curve, or `rsa`.
    pub fn issue_kind(&self, dir: &Path, kind: &str) {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        let (cert, key) = (cert.display(), key.display());
        self.openssl(&format!(
            "req -x509 -CA ca.pem -CAkey ca.key {} -keyout {key} -out {cert} -days 2 -subj /CN=localhost \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,DNS:other.example,IP:127.0.0.1",
            key_kind(kind)
        ));
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace());
        let done = command.current_dir(self.dir.path()).output();
        let done = done.unwrap_or_else(|e| panic!("openssl: {e}; tests/run installs it"));
        let words = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {arguments}: {words}");
    }

    /// This authority alone.
    pub fn roots(&self) -> RootCertStore {
        let pem = fs::read(self.file()).expect("the authority's certificate");
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(&pem) {
            roots.add(cert.expect("PEM")).expect("a certificate");
        }
        roots
    }

    /// What a server with a certificate of this authority speaks.
    pub fn server(&self) -> Arc<ServerConfig> {
        let dir = TempDir::with_prefix("payrelay-").expect("a folder for the certificate");
        self.issue(dir.path());
        let cert = CertificateDer::from_pem_file(dir.path().join("cert.pem")).expect("PEM");
        let key = PrivateKeyDer::from_pem_file(dir.path().join("key.pem")).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that there are")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("a certificate and its key");
        Arc::new(config)
    }

    /// What a client that trusts this authority speaks.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that there are")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn key_kind(kind: &str) -> String {
    match kind {
        "rsa" => "-newkey rsa:4096 -nodes".to_owned(),
        curve => format!("-newkey ec -pkeyopt ec_paramgen_curve:{curve} -nodes"),
    }
}

/// A client's socket, plain or sealed.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

impl Wire {
    /// Seals `stream`, whatever becomes of the handshake: a relay that refuses it says so to whoever reads.
    pub fn seal(stream: TcpStream, config: &Arc<ClientConfig>) -> Self {
        Self::seal_as(stream, config, "localhost")
    }

    /// The same, asking for the server called `name`.
    pub fn seal_as(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        let mut wire = Self::Tls(Box::new(tls), stream);
        if let Self::Tls(tls, stream) = &mut wire {
            while tls.is_handshaking() && tls.complete_io(stream).is_ok() {}
        }
        wire
    }

    /// The socket beneath.
    pub fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) | Self::Tls(_, stream) => stream,
        }
    }

    /// What was agreed, if it is sealed.
    pub fn tls(&self) -> Option<&ClientConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls, _) => Some(tls),
        }
    }

    /// Says "no more from me" inside TLS, if there is any.
    pub fn say_end(&mut self) {
        if let Self::Tls(tls, stream) = self {
            tls.send_close_notify();
            while tls.wants_write() && tls.write_tls(stream).is_ok() {}
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls, stream) => {
                if tls.is_handshaking() && !tls.wants_read() {
                    return Ok(0); // it failed
                }
                rustls::Stream::new(&mut **tls, stream).read(buffer)
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls, stream) => rustls::Stream::new(&mut **tls, stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls, stream) => rustls::Stream::new(&mut **tls, stream).flush(),
        }
    }
}

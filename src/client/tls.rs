//! TLS as a client: whom it believes to be the relay, and the connection with or without it.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct,
    RootCertStore, SignatureScheme, WantsVerifier,
};

/// Where systems keep the certificates of the authorities they trust.
const SYSTEM_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// How much is read off a socket at once.
const READ_BYTES: usize = 16 * 1024;

/// Whom to believe, and under what name.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({})", self.name.to_str())
    }
}

/// Which certificates are believed.
#[derive(Clone, Copy, Debug)]
pub enum Roots<'a> {
    /// The first in this file and no other, whatever names are in it: on its own machine a relay is reached under a name
    /// that its certificate need not have.
    Exactly(&'a Path),
    /// Those that lead to one in this file, and those in it.
    File(&'a Path),
    /// Those that lead to an authority of the system.
    System,
}

/// Why there is nobody to believe, in words.
#[derive(Debug)]
pub enum TrustError {
    /// The arguments do not say whom.
    Arguments(String),
    /// A file, or TLS itself, cannot be used.
    Unusable(String),
}

impl Trust {
    /// Believes `roots` under the name `name`, a host's name or address.
    ///
    /// # Errors
    /// A file that cannot be used, or a name that is none.
    pub fn new(roots: Roots<'_>, name: &str) -> Result<Self, TrustError> {
        let server = ServerName::try_from(name.to_owned());
        let server = server
            .map_err(|error| TrustError::Arguments(format!("--server-name {name:?}: {error}")))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| TrustError::Unusable(format!("TLS: {error}")))?;
        let builder = match roots {
            Roots::Exactly(file) => believing(builder, GivenVerifier::exactly(file, provider)?),
            Roots::File(file) => {
                believing(builder, GivenVerifier::authority_or_self(file, provider)?)
            }
            Roots::System => {
                let mut files = SYSTEM_AUTHORITIES.iter().map(Path::new);
                let file = files.find(|file| file.exists());
                let file = file.ok_or_else(|| {
                    let words = "this system lists no authorities; name a file with --ca";
                    TrustError::Arguments(words.to_owned())
                })?;
                builder.with_root_certificates(authorities(file)?)
            }
        };
        Ok(Self {
            config: Arc::new(builder.with_no_client_auth()),
            name: server,
        })
    }
}

fn believing(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    verifier: GivenVerifier,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let builder = builder.dangerous();
    builder.with_custom_certificate_verifier(Arc::new(verifier))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = fs::read(file).map_err(|error| {
        TrustError::Unusable(format!("cannot read {}: {error}", file.display()))
    })?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| none_in(file))
}

fn none_in(file: &Path) -> TrustError {
    TrustError::Unusable(format!(
        "{}: no certificate in PEM form (-----BEGIN CERTIFICATE-----) in it",
        file.display()
    ))
}

fn authorities(file: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    // Some bundles have certificates that nobody can use any more.
    let (added, _) = roots.add_parsable_certificates(certificates(file)?);
    if added == 0 {
        return Err(none_in(file));
    }
    Ok(roots)
}

/// Believes the certificates that it was given, and with `authorities` those that lead to one of theirs.
#[derive(Debug)]
struct GivenVerifier {
    given: Vec<CertificateDer<'static>>,
    /// `None`: a given one is believed whatever names are in it.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl GivenVerifier {
    /// The first certificate in `file` and no other.
    fn exactly(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let first = certificates(file)?.into_iter().next();
        Ok(Self {
            given: vec![first.ok_or_else(|| none_in(file))?],
            authorities: None,
            provider,
        })
    }

    /// Certificates that lead to one in `file`, and those in it: a self-signed one is both.
    fn authority_or_self(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let roots = authorities(file)?.into();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Ok(Self {
            given: certificates(file)?,
            authorities: Some(verifier.build().map_err(|_| none_in(file))?),
            provider,
        })
    }
}

impl ServerCertVerifier for GivenVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match (self.given.contains(end_entity), &self.authorities) {
            (true, None) => {}
            (false, None) => return Err(CertificateError::ApplicationVerificationFailure.into()),
            (false, Some(authorities)) => {
                return authorities.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                );
            }
            // webpki lets no authority's certificate be a server's, which a self-signed one usually is.
            (true, Some(_)) => {
                let ends = payrelay::tls::not_after(end_entity).unwrap_or(0);
                if i64::try_from(now.as_secs()).is_ok_and(|now| now > ends) {
                    return Err(CertificateError::Expired.into());
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// A connection, or one of its handles: one thread may read while another writes.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    tls: Option<Arc<Mutex<ClientConnection>>>,
    /// Received and not opened yet.
    sealed: Vec<u8>,
}

impl Wire {
    /// Over `socket`, sealed if there is a `trust`; the handshake may take `within`, for each of its steps.
    ///
    /// # Errors
    /// The other side speaks no TLS, or is not who is believed.
    pub fn over(socket: TcpStream, trust: Option<&Trust>, within: Duration) -> io::Result<Self> {
        let mut wire = Self {
            socket,
            tls: None,
            sealed: Vec::new(),
        };
        if let Some(trust) = trust {
            let config = Arc::clone(&trust.config);
            let tls = ClientConnection::new(config, trust.name.clone());
            let mut tls = tls.map_err(io::Error::other)?;
            wire.socket.set_read_timeout(Some(within))?;
            wire.socket.set_write_timeout(Some(within))?;
            while tls.is_handshaking() {
                tls.complete_io(&mut wire.socket).map_err(explained)?;
            }
            wire.socket.set_read_timeout(None)?;
            wire.tls = Some(Arc::new(Mutex::new(tls)));
        }
        Ok(wire)
    }

    /// Another handle. Of all, only one may read.
    pub fn handle(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            tls: self.tls.clone(),
            sealed: Vec::new(),
        })
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

/// What a person can do about it.
fn explained(error: io::Error) -> io::Error {
    let words = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        )) => "TLS: what listens there does not show the certificate of the configuration's file; \
             was the relay reloaded after the file was changed?"
            .to_owned(),
        Some(rustls::Error::InvalidMessage(_)) => {
            "what listens there does not speak TLS".to_owned()
        }
        Some(error) => format!("TLS: {error}"),
        None => return error,
    };
    io::Error::new(error.kind(), words)
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.socket.read(buffer);
        };
        loop {
            {
                let mut tls = tls.lock();
                match tls.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => return done,
                }
                if !self.sealed.is_empty() {
                    let used = tls.read_tls(&mut &self.sealed[..])?;
                    self.sealed.drain(..used);
                    tls.process_new_packets().map_err(io::Error::other)?;
                    while tls.wants_write() {
                        tls.write_tls(&mut self.socket)?;
                    }
                    continue;
                }
            }
            // Not under the lock: the other handle may have something to say meanwhile.
            self.sealed.resize(READ_BYTES, 0);
            let read = self.socket.read(&mut self.sealed);
            self.sealed.truncate(*read.as_ref().unwrap_or(&0));
            if read? == 0 {
                // The records say whether this end was announced, or something is missing.
                tls.lock().read_tls(&mut io::empty())?;
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.socket.write(bytes);
        };
        let mut tls = tls.lock();
        let sealed = tls.writer().write(bytes)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(sealed)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

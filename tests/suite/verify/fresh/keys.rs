//! The key pairs of the callbacks that are signed here.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;

use super::{base64, unhex};

/// A merchant's view of Alipay's and WeChat Pay's key pairs: here they are one.
struct Signer {
    pair: RsaKeyPair,
    pem: String,
}

fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(new_signer)
}

fn new_signer() -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key pair");
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a public key");
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        base64(der.as_ref())
    );
    Signer { pair, pem }
}

/// The public key of the signatures here, in PEM.
pub fn public_key() -> &'static str {
    &signer().pem
}

/// The same as a JSON Web Key Set, in which it is called `kid`.
pub fn key_set(kid: &str) -> String {
    let shown = openssl(
        &["rsa", "-pubin", "-noout", "-modulus"],
        public_key().as_bytes(),
    );
    let shown = String::from_utf8(shown).expect("ASCII");
    let (_, modulus) = shown.trim().split_once('=').expect("Modulus=");
    let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(unhex(modulus));
    let e = "AQAB"; // 65537, as aws-lc makes them
    let other = r#"{"kty":"EC","kid":"ec","crv":"P-256","x":"AA","y":"AA"}"#;
    format!(
        r#"{{"keys":[{other},{{"kty":"RSA","alg":"RS256","use":"sig","kid":"{kid}","n":"{n}","e":"{e}"}}]}}"#
    )
}

/// A public key that signed nothing here.
pub fn other_public_key() -> &'static str {
    static OTHER: OnceLock<Signer> = OnceLock::new();
    &OTHER.get_or_init(new_signer).pem
}

pub fn rsa(message: &[u8]) -> String {
    let pair = &signer().pair;
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message,
        &mut signature,
    )
    .expect("a signature");
    base64(&signature)
}

/// A key pair of 1,024 bits, which aws-lc-rs does not sign with: where the private key is, and the public key in PEM.
pub fn weak_key() -> &'static (tempfile::TempDir, String) {
    static KEY: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    KEY.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key.pem");
        let path = path.to_str().expect("UTF-8");
        openssl(&["genrsa", "-out", path, "1024"], b"");
        let public = openssl(&["rsa", "-in", path, "-pubout"], b"");
        (directory, String::from_utf8(public).expect("PEM"))
    })
}

/// What the key of 1,024 bits signs, with this hash.
pub fn openssl_sign(hash: &str, message: &[u8]) -> Vec<u8> {
    let path = weak_key().0.path().join("key.pem");
    openssl(
        &["dgst", hash, "-sign", path.to_str().expect("UTF-8")],
        message,
    )
}

pub fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("taken");
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

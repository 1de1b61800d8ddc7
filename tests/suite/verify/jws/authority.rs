//! Certificates as Apple has them, made here, and what they sign.

use std::process::Command;
use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::fresh;

/// The two extensions that Apple's certificates have.
pub const LEAF_OID: &str = "1.2.840.113635.100.6.11.1=DER:0500";

pub const ISSUER_OID: &str = "1.2.840.113635.100.6.2.1=DER:0500";

/// A folder with certificates and keys: `root`, and what it issued.
pub struct JwsAuthority {
    folder: TempDir,
}

impl JwsAuthority {
    pub fn new() -> Self {
        let authority = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        authority.key("root");
        let (key, pem) = (authority.path("root.key"), authority.path("root.pem"));
        let usual = "req -x509 -days 3650 -subj /CN=root -addext basicConstraints=critical,CA:true -addext keyUsage=keyCertSign";
        run(&[&words(usual)[..], &["-key", &key, "-out", &pem]].concat());
        authority
    }

    pub fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    pub fn key(&self, name: &str) {
        let key = self.path(&format!("{name}.key"));
        let usual = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        run(&[&words(usual)[..], &["-out", &key]].concat());
    }

    /// A certificate called `name` that `by` issues, with these extensions.
    pub fn issue(&self, name: &str, by: &str, extensions: &[&str], days: &str) {
        self.key(name);
        let file = |suffix: &str| self.path(&format!("{name}.{suffix}"));
        let subject = format!("/CN={name}");
        let (key, csr, pem, ext) = (file("key"), file("csr"), file("pem"), file("ext"));
        std::fs::write(&ext, extensions.join("\n")).expect("written");
        run(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &csr]);
        let (ca, ca_key) = (
            self.path(&format!("{by}.pem")),
            self.path(&format!("{by}.key")),
        );
        run(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            &ext,
            "-out",
            &pem,
        ]);
    }

    pub fn leaf(&self, name: &str, by: &str, oid: &str, days: &str) {
        let usual = [
            "basicConstraints=critical,CA:false",
            "keyUsage=digitalSignature",
            oid,
        ];
        self.issue(name, by, &usual, days);
    }

    pub fn issuer(&self, name: &str, by: &str, oid: &str) {
        let usual = [
            "basicConstraints=critical,CA:true",
            "keyUsage=keyCertSign",
            oid,
        ];
        self.issue(name, by, &usual, "3650");
    }

    pub fn pem(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pem"))).expect("a certificate")
    }

    pub fn der(&self, name: &str) -> String {
        let pem = self.pem(name);
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        lines.collect()
    }

    pub fn pair(&self, name: &str) -> EcdsaKeyPair {
        let key = self.path(&format!("{name}.key"));
        let der = fresh::openssl(
            &[
                "pkcs8", "-topk8", "-nocrypt", "-in", &key, "-outform", "DER",
            ],
            b"",
        );
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("a key")
    }

    /// `payload` signed by `signer`, with these certificates in the header.
    pub fn sign(&self, signer: &str, chain: &[&str], payload: &Value) -> String {
        let chain: Vec<String> = chain.iter().map(|name| self.der(name)).collect();
        self.sign_with(signer, &json!({ "alg": "ES256", "x5c": chain }), payload)
    }

    pub fn sign_with(&self, signer: &str, header: &Value, payload: &Value) -> String {
        let text = signing_input(header, payload);
        let signature = self
            .pair(signer)
            .sign(&SystemRandom::new(), text.as_bytes());
        format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(signature.expect("signed").as_ref())
        )
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn run(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("openssl");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn signing_input(header: &Value, payload: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(payload))
}

/// Certificates as Apple has them, and some that only look like those.
pub fn authority() -> &'static JwsAuthority {
    static ONE: OnceLock<JwsAuthority> = OnceLock::new();
    ONE.get_or_init(|| {
        let authority = JwsAuthority::new();
        authority.issuer("issuer", "root", ISSUER_OID);
        authority.leaf("leaf", "issuer", LEAF_OID, "30");
        authority.issuer("plain-issuer", "root", "");
        authority.leaf("leaf-of-plain", "plain-issuer", LEAF_OID, "30");
        authority.leaf("plain-leaf", "issuer", "", "30");
        authority.leaf("leaf-of-root", "root", LEAF_OID, "30");
        authority.leaf("leaf-of-leaf", "leaf", LEAF_OID, "30");
        authority
    })
}

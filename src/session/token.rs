//! The tokens that backends show: hex HMAC-SHA256 of the backend id, compared in constant time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::hmac;

use crate::config::{Secret, TcpConfig};
use crate::escape::{hex, unhex};
use crate::notification::BackendId;
use crate::thread;

const TAG_BYTES: usize = 32; // SHA-256

/// The stack of a token's check, in bytes; measured: 9,700. Smaller than a session's, so that no session gets a stack that a
/// check has used: glibc keeps stacks with their upper pages, and reuses any that is large enough.
const CHECK_STACK_BYTES: usize = 48 * 1024;

/// The token of `backend` under `secret`, in lower-case hex.
pub fn sign(secret: &Secret, backend: &BackendId) -> String {
    hex(hmac::sign(&key(secret), backend.as_str().as_bytes()).as_ref())
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

/// Which backends may connect. Built from the configuration, and again on every reload.
#[derive(Debug)]
pub struct Access {
    keys: Vec<hmac::Key>,
    backends: HashSet<BackendId>,
}

impl Access {
    /// What `[tcp]` allows.
    pub fn new(tcp: &TcpConfig) -> Self {
        Self {
            keys: tcp.secrets.iter().map(key).collect(),
            backends: tcp.backends.iter().cloned().collect(),
        }
    }

    /// Whether `token` is `backend`'s under one of the secrets. Without secrets, everything is.
    pub fn verifies(&self, backend: &BackendId, token: Option<&str>) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        // A token that is no hex costs the same work as a wrong one.
        let tag = token
            .and_then(unhex)
            .and_then(|tag| tag.try_into().ok())
            .unwrap_or([0; TAG_BYTES]);
        let mut verified = false;
        for key in &self.keys {
            verified |= hmac::verify(key, backend.as_str().as_bytes(), &tag).is_ok();
        }
        verified
    }

    /// [`Access::verifies`], on a thread that ends afterwards: the check needs two pages of stack more than anything else that a
    /// session does, and a stack keeps every page that it once used.
    pub fn verifies_apart(self: &Arc<Self>, backend: &BackendId, token: Option<&str>) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        let verified = Arc::new(AtomicBool::new(false));
        let (told, access) = (Arc::clone(&verified), Arc::clone(self));
        let (id, shown) = (backend.clone(), token.map(str::to_owned));
        let check = move || told.store(access.verifies(&id, shown.as_deref()), Ordering::Release);
        match thread::spawn("token", CHECK_STACK_BYTES, check) {
            Ok(done) => drop(done), // waits for it
            // Out of threads: checked here then. The session has its thread already.
            Err(_) => return self.verifies(backend, token),
        }
        verified.load(Ordering::Acquire)
    }

    /// Whether `backend` is among the allowed ids. An empty list allows all.
    pub fn allows(&self, backend: &BackendId) -> bool {
        self.backends.is_empty() || self.backends.contains(backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(secrets: &[&str], backends: &[&str]) -> Arc<Access> {
        Arc::new(Access {
            keys: secrets.iter().map(|s| key(&Secret::new(s))).collect(),
            backends: backends
                .iter()
                .filter_map(|b| BackendId::parse(b).ok())
                .collect(),
        })
    }

    fn id(text: &str) -> BackendId {
        BackendId::parse(text).expect("a backend id")
    }

    #[test]
    fn a_token_is_the_hmac_that_openssl_computes() {
        // printf game-01 | openssl dgst -sha256 -hmac "correct horse battery staple"
        assert_eq!(
            sign(&Secret::new("correct horse battery staple"), &id("game-01")),
            "de023237f3126b5b649249082b6250462f8429cb4ba4f1a2cb56cc36babf1079"
        );
    }

    #[test]
    fn any_secret_verifies_its_own_tokens_and_no_other() {
        let access = tcp(&["new secret 0123456", "old secret 0123456"], &[]);
        for secret in ["new secret 0123456", "old secret 0123456"] {
            let token = sign(&Secret::new(secret), &id("a"));
            assert!(access.verifies(&id("a"), Some(&token)));
            assert!(access.verifies(&id("a"), Some(&token.to_uppercase())));
            assert!(!access.verifies(&id("b"), Some(&token)));
            assert!(access.verifies_apart(&id("a"), Some(&token)));
            assert!(!access.verifies_apart(&id("b"), Some(&token)));
        }
        let strange = sign(&Secret::new("another secret 0123"), &id("a"));
        for token in [None, Some(""), Some("xyz"), Some(strange.as_str())] {
            assert!(!access.verifies(&id("a"), token));
        }
        assert!(!access.verifies(&id("a"), Some(&"0".repeat(64))));
    }

    #[test]
    fn without_secrets_every_token_passes_and_an_empty_list_allows_all() {
        let access = tcp(&[], &[]);
        assert!(access.verifies(&id("a"), None) && access.allows(&id("a")));
        let access = tcp(&[], &["a"]);
        assert!(access.allows(&id("a")) && !access.allows(&id("b")));
    }
}

//! The engine `token`: a password that the provider sends along. It signs nothing; whoever has it may say anything.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::MacKey;
use super::{Refused, Request};
use crate::request::form;

/// Where the token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The value of a header, its name in lower case.
    Header(Box<str>),
    /// A field of the query, decoded.
    Query(Box<str>),
    /// `Authorization: Basic`, as `user:password`.
    Basic,
}

/// Where the token stands, and what it may be.
#[derive(Clone)]
pub struct Token {
    place: Place,
    keys: Vec<MacKey>,
    /// Their SHA-256: compared instead, so that not even the length of a secret shows.
    digests: Vec<digest::Digest>,
}

/// Does not show the digests either: a short secret could be found by trying.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?}, …)", self.place)
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && self.keys == other.keys
    }
}

impl Token {
    /// Any of `keys` is the token.
    pub fn new(place: Place, keys: Vec<MacKey>) -> Self {
        let digests = keys.iter().map(|key| sha256(key.secret())).collect();
        Self {
            place,
            keys,
            digests,
        }
    }

    /// Whether `request` carries one of the tokens.
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let given = match &self.place {
            Place::Header(name) => request.header(name)?.as_bytes().to_vec(),
            Place::Query(name) => query_field(request.query, name)?,
            Place::Basic => basic(request.header("authorization")?)?,
        };
        let given = sha256(&given);
        let mut verified = false;
        for digest in &self.digests {
            verified |= verify_slices_are_equal(digest.as_ref(), given.as_ref()).is_ok();
        }
        verified.then_some(()).ok_or(Refused::Mismatch)
    }

    /// Whether the header called `name`, in lower case, is looked at.
    pub(super) fn reads_header(&self, name: &str) -> bool {
        match &self.place {
            Place::Header(its) => **its == *name,
            Place::Query(_) => false,
            Place::Basic => name == "authorization",
        }
    }

    /// `query` without the token, if that is where it stands.
    pub(super) fn query_without_token(&self, query: &str) -> Option<String> {
        let Place::Query(name) = &self.place else {
            return None;
        };
        let others = query.split('&').filter(|pair| {
            let (key, _) = pair.split_once('=').unwrap_or((pair, ""));
            form::decode(key.as_bytes()).as_deref() != Some(name.as_bytes())
        });
        Some(others.collect::<Vec<_>>().join("&"))
    }
}

fn query_field(query: &str, name: &str) -> Result<Vec<u8>, Refused> {
    let mut values = form::fields(query.as_bytes())
        .filter(|(key, _)| form::decode(key).as_deref() == Some(name.as_bytes()))
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Err(Refused::Missing(format!("{name} in the query").into())),
        (Some(_), Some(_)) => Err(Refused::Repeated(format!("{name} in the query").into())),
        (Some(value), None) => form::decode(value)
            .map(|value| value.into_owned())
            .ok_or(Refused::Malformed("its query has a % without two digits")),
    }
}

fn basic(authorization: &str) -> Result<Vec<u8>, Refused> {
    const NOT_BASIC: Refused =
        Refused::Malformed("its authorization header has no Basic credentials");
    let (scheme, credentials) = authorization.split_once(' ').ok_or(NOT_BASIC)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(NOT_BASIC);
    }
    STANDARD.decode(credentials).map_err(|_| NOT_BASIC)
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

//! `verify = "token"`: a password, and where in a request it stands.

use aws_lc_rs::hmac::HMAC_SHA256;

use super::{TEXT_BYTES_MAX, required, secrets};
use crate::config::reader::Section;
use crate::request::{Selector, header_name};
use crate::verify::{Algorithm, Encoding, Engine, MacKey, Part, SignatureAt, Signed, Template};

const MISSING: &str =
    "says where the token stands in the request: \"header:NAME\", \"query:NAME\" or \"basic\"";

/// The engine, if all of it is right.
pub fn read(s: &mut Section<'_>) -> Option<Engine> {
    let secrets = secrets(s, |text| MacKey::from_text(HMAC_SHA256, text));
    let signature = required(s, "token", MISSING, |field| {
        place(field.text("a string")?)
            .ok_or_else(|| "allowed: \"header:NAME\", \"query:NAME\", \"basic\"".into())
    });
    Some(Engine::Signed(Box::new(Signed {
        fields: None,
        text: Template(vec![Part::Secret]),
        algorithm: Algorithm::Password,
        hash_first: false,
        url: None,
        signature: signature?,
        time: None,
        secrets: secrets?,
        keys: Vec::new(),
    })))
}

fn place(text: &str) -> Option<SignatureAt> {
    let at = |place| SignatureAt {
        place,
        separator: None,
        prefix: "".into(),
        any_case: false,
        encoding: Encoding::Hex, // as it stands: nothing of a password is encoded
        unescape: false,
    };
    if text == "basic" {
        return Some(SignatureAt {
            prefix: "Basic ".into(),
            any_case: true,
            encoding: Encoding::Base64,
            ..at(Selector::Header(vec!["authorization".into()]))
        });
    }
    let (kind, name) = text.split_once(':')?;
    let plain = |name: &str| {
        (1..=TEXT_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
    };
    match kind {
        "header" => Some(at(Selector::Header(vec![header_name(name)?]))),
        "query" if plain(name) => Some(at(Selector::Query(name.into()))),
        _ => None,
    }
}

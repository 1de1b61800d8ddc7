//! What a route tells its provider: `ok` when the notification is safe, `fail` when it is not.
//!
//! The point of every rule here is that the provider tries again exactly when it should.

use std::fmt;
use std::ops::Range;

use super::Answer;
use super::Proof;
use super::problem::Problem;
use super::reader::{Field, Section};
use super::selector;
use super::verify;
use crate::request::Selector;
use crate::verify::presets::{Preset, Words};

/// What a provider reads as ok where nothing else is said.
const OK: Words = (200, "text/plain", "success");

/// What it reads as not ok.
const FAIL: Words = (503, "text/plain", "fail");

/// The longest body of an answer, in bytes. Providers read a word or a small document.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest `Content-Type`, in bytes.
const TYPE_BYTES_MAX: usize = 128;

/// The rule for `fail.status`, for errors.
const FAIL_STATUS: &str = "allowed: 200 to 299, 400 to 599 but 410";

/// Why something cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadAnswer {
    /// A success with a status that does not say so.
    OkStatus,
    /// A failure with what is no final status.
    FailStatus,
    /// A redirect as the failure.
    Redirect,
    /// 410 as the failure.
    Gone,
    /// The body is longer than 16 KiB; the number is its length.
    BodyTooLong(usize),
    /// 204 and 205 have no body.
    BodyForbidden(u16),
    /// Not a media type.
    Type,
    /// The failure reads like the success.
    SameAsOk,
    /// `proof` where every GET is a notification.
    ProofAndGet,
    /// A proof that gives back what anybody asks it to.
    ProofUnsigned,
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OkStatus => f.write_str("not a status of success; allowed: 200 to 299"),
            Self::FailStatus => write!(f, "not a final status; {FAIL_STATUS}"),
            Self::Redirect => {
                write!(f, "providers do not follow redirects, and some take them for success; {FAIL_STATUS}")
            }
            Self::Gone => write!(f, "providers stop sending for good on 410; {FAIL_STATUS}"),
            Self::BodyTooLong(bytes) => write!(f, "{bytes} bytes are too many; at most {BODY_BYTES_MAX}"),
            Self::BodyForbidden(status) => write!(f, "an answer with status {status} has no body; set body = \"\""),
            Self::Type => write!(
                f,
                "not a media type; allowed: 1 to {TYPE_BYTES_MAX} printable ASCII characters, such as \"text/plain\""
            ),
            Self::ProofAndGet => f.write_str(
                "contradicts methods: a GET is a notification of this route; remove one of the two",
            ),
            Self::ProofUnsigned => f.write_str(
                "a value of the request is given back to its sender only if it is signed; add signed and secrets to proof, as in \
                 signed = { text = \"{ordered(secret,query:timestamp,query:nonce)}\", algorithm = \"sha1\", signature = \"query:signature\" }",
            ),
            Self::SameAsOk => f.write_str(
                "with a status of 2xx and the body of ok the provider would take a failure for success; change one of them",
            ),
        }
    }
}

/// Reads a route's `ok` and `fail`, for which its preset has the defaults.
pub fn both(route: &mut Section<'_>, preset: Option<&Preset>) -> (Answer, Answer) {
    let (ok, fail) = preset.map_or((OK, FAIL), |preset| (preset.ok, preset.fail));
    let mut section = route.section("ok");
    let ok = one(&mut section, status_of_ok, answer(ok));
    section.close();
    let given = route.field("fail");
    let mut section = route.section("fail");
    let fail = one(&mut section, status_of_fail, answer(fail));
    section.close();
    if !(200..=299).contains(&fail.status) {
        return (ok, fail);
    }
    if fail.body == ok.body {
        if let Some(field) = given.or(route.field("ok")) {
            field.refuse(Problem::Answer(BadAnswer::SameAsOk));
        }
    } else if let (Some(given), false) = (given, preset.is_some_and(|preset| preset.reads_fail)) {
        given.warn(
            "a failure with a status of 2xx is a success to every provider that does not read the body",
        );
    }
    (ok, fail)
}

/// Reads a route's `proof`; without one a GET is refused. `by_get`: notifications come by GET.
pub fn proof(route: &mut Section<'_>, by_get: bool) -> Option<Proof> {
    let given = route.field("proof")?;
    if by_get {
        given.refuse(Problem::Answer(BadAnswer::ProofAndGet));
    }
    let mut section = route.section("proof");
    let answer = one(&mut section, status_of_ok, answer(OK));
    let is_signed = section.field("signed").is_some();
    let verifier = match is_signed {
        true => verify::signed_proof(&mut section),
        false => {
            section.field("secrets");
            section.field("keys");
            None
        }
    };
    section.close();
    if !is_signed && !answer.values.is_empty() {
        given.refuse(Problem::Answer(BadAnswer::ProofUnsigned));
    }
    Some(Proof { answer, verifier })
}

fn answer((status, content_type, body): Words) -> Answer {
    Answer {
        status,
        content_type: content_type.to_owned(),
        body: body.as_bytes().to_vec(),
        values: values(body),
    }
}

/// The placeholders of a body, such as `{json:/message_id}`. Other braces stand for themselves: many answers are JSON.
fn values(body: &str) -> Vec<(Range<usize>, Selector)> {
    const KINDS: [&str; 6] = ["query:", "form:", "param:", "json:/", "xml:", "header:"];
    let mut found = Vec::new();
    for (at, _) in body.match_indices('{') {
        let rest = &body[at + 1..];
        let Some((name, _)) = rest.split_once('}') else {
            break;
        };
        if KINDS.iter().any(|kind| name.starts_with(kind))
            && let Some(selector) = selector::of_preset(name)
        {
            found.push((at..at + name.len() + 2, selector));
        }
    }
    found
}

fn one(
    s: &mut Section<'_>,
    status: impl Fn(&Field<'_>) -> Result<u16, Problem>,
    default: Answer,
) -> Answer {
    let status = s.read("status", status).unwrap_or(default.status);
    let no_body = matches!(status, 204 | 205);
    let given = s.field("body");
    let body = given.as_ref().and_then(|field| field.read(body));
    if let (true, Some(field), Some(false)) = (no_body, &given, body.as_ref().map(Vec::is_empty)) {
        field.refuse(Problem::Answer(BadAnswer::BodyForbidden(status)));
    }
    Answer {
        status,
        content_type: s
            .read("content_type", content_type)
            .unwrap_or(default.content_type),
        values: match &body {
            Some(body) => values(&String::from_utf8_lossy(body)),
            None => default.values,
        },
        body: body.unwrap_or(if no_body { Vec::new() } else { default.body }),
    }
}

fn status_of_ok(field: &Field<'_>) -> Result<u16, Problem> {
    match field.whole()? {
        Some(status @ 200..=299) => Ok(status as u16),
        _ => Err(Problem::Answer(BadAnswer::OkStatus)),
    }
}

fn status_of_fail(field: &Field<'_>) -> Result<u16, Problem> {
    let bad = match field.whole()? {
        Some(300..=399) => BadAnswer::Redirect,
        Some(410) => BadAnswer::Gone,
        Some(status @ 200..=599) => return Ok(status as u16),
        _ => BadAnswer::FailStatus,
    };
    Err(Problem::Answer(bad))
}

fn body(field: &Field<'_>) -> Result<Vec<u8>, Problem> {
    let text = field.text("a string")?;
    if text.len() > BODY_BYTES_MAX {
        return Err(Problem::Answer(BadAnswer::BodyTooLong(text.len())));
    }
    Ok(text.as_bytes().to_vec())
}

fn content_type(field: &Field<'_>) -> Result<String, Problem> {
    let text = field.text("a string")?;
    // A line end in here would let the file write headers of its own.
    let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let halves = text
        .split_once('/')
        .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    if !printable || !halves || text.len() > TYPE_BYTES_MAX || text.trim() != text {
        return Err(Problem::Answer(BadAnswer::Type));
    }
    Ok(text.to_owned())
}

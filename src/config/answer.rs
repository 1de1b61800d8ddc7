//! What a route tells its provider: `ok` when the notification is safe, `fail` when it is not.
//!
//! The point of every rule here is that the provider tries again exactly when it should.

use std::ops::Range;
use std::sync::Arc;

use super::reader::{Field, Problem, Section};
use super::verify;
use crate::request::Selector;
use crate::verify::Verifier;
use crate::verify::preset::{AnswerWords, Preset};

/// What a provider is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedAnswer {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: String,
    /// The body, at most 16 KiB.
    pub body: Vec<u8>,
    /// Where in the body a value of the request stands in place of what is there: `{json:/id}`.
    pub values: Vec<(std::ops::Range<usize>, Selector)>,
}

/// What a GET or HEAD is answered that is no notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofConfig {
    /// The answer.
    pub answer: FixedAnswer,
    /// What checks who asks; `None`: anybody is answered.
    pub verifier: Option<Arc<Verifier>>,
}

/// What a provider reads as ok where nothing else is said.
const OK: AnswerWords = (200, "text/plain", "success");

/// What it reads as not ok.
const FAIL: AnswerWords = (503, "text/plain", "fail");

/// The longest body of an answer, in bytes. Providers read a word or a small document.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest `Content-Type`, in bytes.
const TYPE_BYTES_MAX: usize = 128;

/// Reads a route's `ok` and `fail`, for which its preset has the defaults.
pub fn both(route: &mut Section<'_>, preset: Option<&Preset>) -> (FixedAnswer, FixedAnswer) {
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
            field.refuse(
                "with a status of 2xx and the body of ok the provider would take a failure for success; change one of them",
            );
        }
    } else if let (Some(given), false) = (given, preset.is_some_and(|preset| preset.reads_fail)) {
        given.warn(
            "a failure with a status of 2xx is a success to every provider that does not read the body",
        );
    }
    (ok, fail)
}

/// Reads a route's `proof`; without one a GET is refused. `by_get`: notifications come by GET.
pub fn proof(route: &mut Section<'_>, by_get: bool) -> Option<ProofConfig> {
    let given = route.field("proof")?;
    if by_get {
        given.refuse(
            "contradicts methods: a GET is a notification of this route; remove one of the two",
        );
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
        given.refuse(
            "a value of the request is given back to its sender only if it is signed; add signed and secrets to proof, as in \
             signed = { text = \"{ordered(secret,query:timestamp,query:nonce)}\", algorithm = \"sha1\", signature = \"query:signature\" }",
        );
    }
    Some(ProofConfig { answer, verifier })
}

fn answer((status, content_type, body): AnswerWords) -> FixedAnswer {
    FixedAnswer {
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
            && let Some(selector) = Selector::of_preset(name)
        {
            found.push((at..at + name.len() + 2, selector));
        }
    }
    found
}

fn one(
    s: &mut Section<'_>,
    status: impl Fn(&Field<'_>) -> Result<u16, Problem>,
    default: FixedAnswer,
) -> FixedAnswer {
    let status = s.read("status", status).unwrap_or(default.status);
    let no_body = matches!(status, 204 | 205);
    let given = s.field("body");
    let body = given.as_ref().and_then(|field| field.read(body));
    if let (true, Some(field), Some(false)) = (no_body, &given, body.as_ref().map(Vec::is_empty)) {
        field.refuse(format!(
            "an answer with status {status} has no body; set body = \"\""
        ));
    }
    FixedAnswer {
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
        _ => Err("not a status of success; allowed: 200 to 299".into()),
    }
}

fn status_of_fail(field: &Field<'_>) -> Result<u16, Problem> {
    let why = match field.whole()? {
        Some(300..=399) => "providers do not follow redirects, and some take them for success",
        Some(410) => "providers stop sending for good on 410",
        Some(status @ 200..=599) => return Ok(status as u16),
        _ => "not a final status",
    };
    Err(format!("{why}; allowed: 200 to 299, 400 to 599 but 410"))
}

fn body(field: &Field<'_>) -> Result<Vec<u8>, Problem> {
    let text = field.text("a string")?;
    let bytes = text.len();
    if bytes > BODY_BYTES_MAX {
        return Err(format!(
            "{bytes} bytes are too many; at most {BODY_BYTES_MAX}"
        ));
    }
    Ok(text.as_bytes().to_vec())
}

fn content_type(field: &Field<'_>) -> Result<String, Problem> {
    let text = field.text("a string")?;
    // A line end in here would let the file write headers of its own.
    let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let halves = text.split_once('/');
    let halves = halves.is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    if !printable || !halves || text.len() > TYPE_BYTES_MAX || text.trim() != text {
        return Err(format!(
            "not a media type; allowed: 1 to {TYPE_BYTES_MAX} printable ASCII characters, such as \"text/plain\""
        ));
    }
    Ok(text.to_owned())
}

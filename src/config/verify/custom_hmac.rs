//! `verify = "hmac"`: the table `hmac`, in which a route says itself what its provider signs, and how.

use super::message;
use super::{required, required_url, secrets, text, tolerance};
use crate::config::path::PathTemplate;
use crate::config::reader::{Field, Problem, Section};
use crate::config::values::{header as header_name, one_of, some};
use crate::request::Selector;
use crate::verify::preset::KeyText;
use crate::verify::{
    Algorithm, Encoding, Engine, Part, SignatureAt, Signed, Template, Time, TimeUnit,
};

const MISSING_TABLE: &str = "says what the provider signs, as in \
    hmac = { header = \"X-Signature\", message = \"{body}\", encoding = \"hex\" }";

const MISSING_HEADER: &str = "names the header with the signature, as in header = \"X-Signature\"";

const MISSING_TIME: &str = "is missing; the message has {timestamp}, so this must name the header with the time; \
    or timestamp_prefix, what the item of the signature header with the time begins with";

const MISSING_ID: &str = "the message has {id}, so this must name the header with the id";

/// The engine, if all of it is right.
pub fn read(s: &mut Section<'_>, path: Option<&PathTemplate>) -> Option<Engine> {
    s.field("secrets");
    let table = s.required("hmac", MISSING_TABLE, Field::section).map(table);
    // If the message is not known, neither is which of these belong to it.
    let message = table.as_ref().and_then(|table| table.message.as_ref());
    let may_have = |part| message.is_none_or(|message| message.has(part));
    let (mut url, mut time) = (Some(None), Some(None));
    if may_have(&Part::Url) {
        s.field("url");
        if message.is_some() {
            url = required_url(s, path).map(Some);
        }
    }
    if may_have(&Part::Timestamp) {
        time = tolerance(s);
    }
    let given = table.as_ref();
    let key = given.and_then(|table| table.key).unwrap_or(KeyText::Text);
    let digest = given.and_then(|table| table.digest);
    let digest = digest.unwrap_or(Algorithm::HmacSha256);
    let keys = secrets(s, |text| key.read(digest.of_key(), text));
    let table = table?;
    table.key?;
    let (message, timestamp, unit, tolerance) =
        (table.message?, table.timestamp?, table.unit?, time?);
    let has_time = message.has(&Part::Timestamp);
    Some(Engine::Signed(Box::new(Signed {
        fields: None,
        algorithm: table.digest?,
        hash_first: false,
        url: url?,
        signature: SignatureAt {
            place: Selector::Header(vec![table.header?]),
            separator: table.separator?,
            prefix: table.prefix?.into(),
            any_case: false,
            encoding: table.encoding?,
            unescape: false,
        },
        time: timestamp.filter(|_| has_time).map(|at| Time {
            unit,
            tolerance,
            ..at
        }),
        text: message::with_id_header(message, table.id_header?),
        secrets: keys?,
        keys: Vec::new(),
    })))
}

/// The table's values; `None` is what is wrong, and noted.
struct Table {
    header: Option<String>,
    separator: Option<Option<char>>,
    prefix: Option<String>,
    encoding: Option<Encoding>,
    message: Option<Template>,
    timestamp: Option<Option<Time>>,
    unit: Option<TimeUnit>,
    id_header: Option<Option<String>>,
    digest: Option<Algorithm>,
    key: Option<KeyText>,
}

fn table(mut t: Section<'_>) -> Table {
    let header = required(&mut t, "header", MISSING_HEADER, header_name);
    let separator = t.or("separator", None, some(separator));
    let message = t.or("message", Template(vec![Part::Body]), |field| {
        Ok(message::parse(&text(field)?)?)
    });
    let has_time = message
        .as_ref()
        .is_some_and(|message| message.has(&Part::Timestamp));
    let timestamp = timestamp(&mut t, separator, has_time);
    let id_header = match message.as_ref().is_some_and(message::has_id) {
        true => required(&mut t, "id_header", MISSING_ID, header_name).map(Some),
        false => t.or("id_header", None, some(header_name)),
    };
    let table = Table {
        header,
        separator,
        prefix: t.or("prefix", String::new(), text),
        encoding: t.or("encoding", Encoding::HexLower, encoding),
        message,
        timestamp,
        unit: t.or("timestamp_unit", TimeUnit::Seconds, unit),
        id_header,
        digest: t.or("digest", Algorithm::HmacSha256, digest),
        key: t.or("key", KeyText::Text, key),
    };
    t.close();
    table
}

fn timestamp(
    t: &mut Section<'_>,
    separator: Option<Option<char>>,
    is_needed: bool,
) -> Option<Option<Time>> {
    let place = t.field("timestamp_header");
    let item = t.field("timestamp_prefix");
    match (place, item) {
        (Some(_), Some(item)) => {
            item.refuse("contradicts timestamp_header; remove one of the two");
            None
        }
        (Some(place), None) => {
            let name = place.read(header_name)?;
            Some(Some(time(Some(Selector::Header(vec![name])), "")))
        }
        (None, Some(item)) => {
            let prefix = item.read(text)?;
            if separator == Some(None) {
                item.refuse("needs separator, which divides the header into items");
                return None;
            }
            Some(Some(time(None, &prefix)))
        }
        (None, None) if is_needed => {
            t.refuse("timestamp_header", MISSING_TIME);
            None
        }
        (None, None) => Some(None),
    }
}

/// A time in this place, or in the item that begins so; its unit and tolerance stand elsewhere.
fn time(place: Option<Selector>, prefix: &str) -> Time {
    Time {
        place,
        prefix: prefix.into(),
        unit: TimeUnit::Seconds,
        tolerance: None,
    }
}

pub fn separator(field: &Field<'_>) -> Result<char, Problem> {
    let mut chars = field.text("a string")?.chars();
    match (chars.next(), chars.next()) {
        (Some(c @ ' '..='~'), None) => Ok(c),
        _ => Err("one printable ASCII character is needed, such as \",\"".into()),
    }
}

pub fn encoding(field: &Field<'_>) -> Result<Encoding, Problem> {
    one_of(&[
        ("hex", Encoding::HexLower),
        ("hex-upper", Encoding::HexUpper),
        ("base64", Encoding::Base64),
    ])(field)
}

pub fn unit(field: &Field<'_>) -> Result<TimeUnit, Problem> {
    one_of(&[("s", TimeUnit::Seconds), ("ms", TimeUnit::Milliseconds)])(field)
}

fn digest(field: &Field<'_>) -> Result<Algorithm, Problem> {
    one_of(&[
        ("sha256", Algorithm::HmacSha256),
        ("sha512", Algorithm::HmacSha512),
    ])(field)
}

pub fn key(field: &Field<'_>) -> Result<KeyText, Problem> {
    one_of(&[
        ("text", KeyText::Text),
        ("hex", KeyText::Hex),
        ("base64", KeyText::Base64),
    ])(field.hide()) // by its name somebody may take it for the key
}

//! `verify = "hmac"`: the table `hmac`, in which a route says itself what its provider signs, and how.

use super::message::Message;
use super::{optional, required, required_url, secrets, text, tolerance};
use crate::config::path::PathTemplate;
use crate::config::problem::Problem;
use crate::config::reader::{Field, Section};
use crate::config::values::{header as header_name, one_of};
use crate::request::Selector;
use crate::verify::presets::KeyText;
use crate::verify::{Algorithm, Encoding, Engine, SignatureAt, Signed, Time, TimeUnit};

const MISSING_TABLE: &str = "says what the provider signs, as in \
    hmac = { header = \"X-Signature\", message = \"{body}\", encoding = \"hex\" }";

const MISSING_HEADER: &str = "names the header with the signature, as in header = \"X-Signature\"";

const MISSING_TIME: &str = "is missing; the message has {timestamp}, so this must name the header with the time; \
    or timestamp_prefix, what the item of the signature header with the time begins with";

const MISSING_ID: &str = "the message has {id}, so this must name the header with the id";

/// The engine, if all of it is right, and which keys of the route it takes.
pub fn read(
    s: &mut Section<'_>,
    path: Option<&PathTemplate>,
) -> (Option<Engine>, Vec<&'static str>) {
    let mut takes = vec!["secrets", "hmac"];
    let table = s.required("hmac", MISSING_TABLE, Field::section).map(table);
    // If the message is not known, neither is which of these belong to it.
    let message = table.as_ref().and_then(|table| table.message.as_ref());
    let may_have = |has: Option<bool>| has.unwrap_or(true);
    let (mut url, mut time) = (Some(None), Some(None));
    if may_have(message.map(Message::has_url)) {
        takes.push("url");
        if message.is_some() {
            url = required_url(s, path).map(Some);
        }
    }
    if may_have(message.map(Message::has_timestamp)) {
        takes.push("tolerance");
        time = tolerance(s);
    }
    let (key, digest) = table
        .as_ref()
        .map_or((None, None), |table| (table.key, table.digest));
    let keys = secrets(s, |text| {
        key.unwrap_or(KeyText::Text)
            .read(digest.unwrap_or(Algorithm::HmacSha256).of_key(), text)
    });
    let engine = || {
        let table = table?;
        (table.key.is_some() && table.digest.is_some()).then_some(())?;
        let (message, timestamp, unit) = (table.message?, table.timestamp?, table.unit?);
        let tolerance = time?;
        let has_time = message.has_timestamp();
        Some(Signed {
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
            text: message.template(table.id_header?),
            secrets: keys?,
            keys: Vec::new(),
        })
    };
    (
        engine().map(|engine| Engine::Signed(Box::new(engine))),
        takes,
    )
}

/// The table's values; `None` is what is wrong, and noted.
struct Table {
    header: Option<String>,
    separator: Option<Option<char>>,
    prefix: Option<String>,
    encoding: Option<Encoding>,
    message: Option<Message>,
    timestamp: Option<Option<Time>>,
    unit: Option<TimeUnit>,
    id_header: Option<Option<String>>,
    digest: Option<Algorithm>,
    key: Option<KeyText>,
}

fn table(mut t: Section<'_>) -> Table {
    let header = required(&mut t, "header", MISSING_HEADER, header_name);
    let separator = optional(&mut t, "separator", separator);
    let message = optional(&mut t, "message", |field| {
        Ok(Message::parse(&text(field)?)?)
    });
    let message = message.map(|message| message.or_else(|| Message::parse("{body}").ok()));
    let message = message.flatten();
    let has = |what: fn(&Message) -> bool| message.as_ref().is_some_and(what);
    let timestamp = timestamp(&mut t, separator, has(Message::has_timestamp));
    let id_header = match has(Message::has_id) {
        true => required(&mut t, "id_header", MISSING_ID, header_name).map(Some),
        false => optional(&mut t, "id_header", header_name),
    };
    let table = Table {
        header,
        separator,
        prefix: optional(&mut t, "prefix", text).map(Option::unwrap_or_default),
        encoding: optional(&mut t, "encoding", encoding)
            .map(|encoding| encoding.unwrap_or(Encoding::HexLower)),
        message,
        timestamp,
        unit: optional(&mut t, "timestamp_unit", unit)
            .map(|unit| unit.unwrap_or(TimeUnit::Seconds)),
        id_header,
        digest: optional(&mut t, "digest", digest)
            .map(|digest| digest.unwrap_or(Algorithm::HmacSha256)),
        key: optional(&mut t, "key", key).map(|key| key.unwrap_or(KeyText::Text)),
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
    ])(field)
}

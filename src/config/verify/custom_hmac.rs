//! `verify = "hmac"`: the table `hmac`, in which a route says itself what its provider signs, and how.

use super::message::Message;
use super::{BadVerify, TEXT_BYTES_MAX, required, required_url, secrets, tolerance};
use crate::config::PathTemplate;
use crate::config::problem::{BadHeader, Problem};
use crate::config::reader::{Field, Section};
use crate::config::selector::header_name;
use crate::request::Selector;
use crate::verify::presets::KeyText;
use crate::verify::{Algorithm, Encoding, Engine, SignatureAt, Signed, Time, TimeUnit};

const MISSING_TABLE: &str = "says what the provider signs, as in \
    hmac = { header = \"X-Signature\", message = \"{body}\", encoding = \"hex\" }";

const MISSING_HEADER: &str = "names the header with the signature, as in header = \"X-Signature\"";

const MISSING_TIME: &str = "the message has {timestamp}, so this must name the header with the time; \
    or timestamp_prefix, what the item of the signature header with the time begins with";

const MISSING_ID: &str = "the message has {id}, so this must name the header with the id";

/// The engine, if all of it is right, and which keys of the route it takes.
pub fn read(
    s: &mut Section<'_>,
    path: Option<&PathTemplate>,
) -> (Option<Engine>, Vec<&'static str>) {
    let mut takes = vec!["secrets", "hmac"];
    let table = match s.field("hmac") {
        Some(field) => field.read(Field::section),
        None => {
            s.refuse("hmac", Problem::Missing(MISSING_TABLE));
            None
        }
    };
    let table = table.map(self::table);
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
    let header = required(&mut t, "header", MISSING_HEADER, header_field);
    let separator = optional(&mut t, "separator", separator);
    let message = optional(&mut t, "message", |field| {
        Message::parse(text(field)?).map_err(|bad| BadVerify::Message(bad).into())
    });
    let message = message.map(|message| message.or_else(|| Message::parse("{body}").ok()));
    let message = message.flatten();
    let has = |what: fn(&Message) -> bool| message.as_ref().is_some_and(what);
    let timestamp = timestamp(&mut t, separator, has(Message::has_timestamp));
    let id_header = match has(Message::has_id) {
        true => required(&mut t, "id_header", MISSING_ID, header_field).map(Some),
        false => optional(&mut t, "id_header", header_field),
    };
    let table = Table {
        header,
        separator,
        prefix: optional(&mut t, "prefix", |field| text(field).map(str::to_owned))
            .map(Option::unwrap_or_default),
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

/// The value of `key` if it is there; `None` if it is wrong, which is noted.
fn optional<'a, T>(
    t: &mut Section<'a>,
    key: &'static str,
    read: impl Fn(&Field<'a>) -> Result<T, Problem>,
) -> Option<Option<T>> {
    match t.field(key) {
        None => Some(None),
        Some(field) => field.read(read).map(Some),
    }
}

fn timestamp(
    t: &mut Section<'_>,
    separator: Option<Option<char>>,
    is_needed: bool,
) -> Option<Option<Time>> {
    let header = t.field("timestamp_header");
    let item = t.field("timestamp_prefix");
    match (header, item) {
        (Some(_), Some(item)) => {
            item.refuse(BadVerify::TwoTimes);
            None
        }
        (Some(header), None) => {
            let name = header.read(header_field)?;
            Some(Some(time(Some(Selector::Header(vec![name])), "")))
        }
        (None, Some(item)) => {
            let prefix = item.read(|field| text(field).map(str::to_owned))?;
            if separator == Some(None) {
                item.refuse(BadVerify::ItemWithoutSeparator);
                return None;
            }
            Some(Some(time(None, &prefix)))
        }
        (None, None) if is_needed => {
            t.refuse("timestamp_header", Problem::Missing(MISSING_TIME));
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

fn header_field(field: &Field<'_>) -> Result<String, Problem> {
    header_name(field.text("a string")?).ok_or(Problem::Header(BadHeader::Name))
}

fn text<'a>(field: &Field<'a>) -> Result<&'a str, Problem> {
    let text = field.text("a string")?;
    let plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let right = plain && (1..=TEXT_BYTES_MAX).contains(&text.len());
    right.then_some(text).ok_or(BadVerify::Text.into())
}

pub fn separator(field: &Field<'_>) -> Result<char, Problem> {
    let mut chars = field.text("a string")?.chars();
    match (chars.next(), chars.next()) {
        (Some(c @ ' '..='~'), None) => Ok(c),
        _ => Err(BadVerify::Separator.into()),
    }
}

pub fn encoding(field: &Field<'_>) -> Result<Encoding, Problem> {
    match field.text("a string")? {
        "hex" => Ok(Encoding::HexLower),
        "hex-upper" => Ok(Encoding::HexUpper),
        "base64" => Ok(Encoding::Base64),
        _ => Err(Problem::NotOneOf(&["hex", "hex-upper", "base64"])),
    }
}

pub fn unit(field: &Field<'_>) -> Result<TimeUnit, Problem> {
    match field.text("a string")? {
        "s" => Ok(TimeUnit::Seconds),
        "ms" => Ok(TimeUnit::Milliseconds),
        _ => Err(Problem::NotOneOf(&["s", "ms"])),
    }
}

fn digest(field: &Field<'_>) -> Result<Algorithm, Problem> {
    match field.text("a string")? {
        "sha256" => Ok(Algorithm::HmacSha256),
        "sha512" => Ok(Algorithm::HmacSha512),
        _ => Err(Problem::NotOneOf(&["sha256", "sha512"])),
    }
}

pub fn key(field: &Field<'_>) -> Result<KeyText, Problem> {
    match field.text("a string")? {
        "text" => Ok(KeyText::Text),
        "hex" => Ok(KeyText::Hex),
        "base64" => Ok(KeyText::Base64),
        _ => Err(Problem::NotOneOf(&["text", "hex", "base64"])),
    }
}

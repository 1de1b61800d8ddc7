//! `verify = "signed"`: the table `signed`, in which a route says itself what its provider signs, and how; and the presets that
//! are such tables.

use super::keys::{keys, rsa_keys, secrets};
use super::{BadVerify, TEXT_BYTES_MAX, required, required_url, tolerance};
use crate::config::PathTemplate;
use crate::config::problem::Problem;
use crate::config::reader::{Field, Section};
use crate::config::selector;
use crate::verify::presets::KeyText;
use crate::verify::signed_presets::SignedPreset;
use crate::verify::{
    Algorithm, BadText, Encoding, Engine, FieldSource, Part, RsaBits, RsaKey, Shape, SignatureAt,
    Signed, Template, Time, TimeUnit,
};

const MISSING_TABLE: &str = "says what the provider signs, as in \
    signed = { fields = \"form\", skip = [\"sign\"], text = \"{fields}{secret}\", algorithm = \"md5\", signature = \"form:sign\" }";

const MISSING_TEXT: &str = "what is signed, as in text = \"{fields}&key={secret}\"";

const MISSING_ALGORITHM: &str = "how it is signed, as in algorithm = \"hmac-sha256\"";

const MISSING_SIGNATURE: &str = "where the signature stands, as in signature = \"form:sign\"";

/// What a table or a preset says, its words read.
pub struct Words {
    fields: Option<FieldSource>,
    text: Template,
    algorithm: Algorithm,
    hash_first: bool,
    signature: SignatureAt,
    timestamp: Option<Time>,
    is_timed: bool,
    key: KeyText,
    has_secret: bool,
}

/// The engine of a preset, if its keys are right, and which keys of the route it takes.
pub fn of_preset(
    s: &mut Section<'_>,
    preset: &SignedPreset,
    path: Option<&PathTemplate>,
) -> (Option<Engine>, Vec<&'static str>) {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let words = || {
        let fields = match preset.fields {
            "" => None,
            from => Some(FieldSource {
                from: shape(from)?,
                skip: owned(preset.skip),
                skips_empty: !preset.keeps_empty,
                join: preset.join.into(),
                values_only: preset.values_only,
                always: owned(preset.always),
                free_text: owned(preset.free_text),
            }),
        };
        let has_time = preset.text.contains("{timestamp}");
        let place = match preset.timestamp {
            "" => None,
            place => Some(selector::of_preset(place)?),
        };
        Some(Words {
            fields,
            text: template(preset.text).ok()?,
            algorithm: preset.algorithm,
            hash_first: preset.hash_first,
            signature: SignatureAt {
                place: selector::of_preset(preset.signature)?,
                separator: preset.separator,
                prefix: preset.prefix.into(),
                any_case: false,
                encoding: preset.encoding,
                unescape: preset.unescape,
            },
            timestamp: has_time.then(|| Time {
                place,
                prefix: preset.timestamp_prefix.into(),
                unit: preset.unit,
                tolerance: None,
            }),
            is_timed: preset.is_timed,
            key: preset.key,
            has_secret: preset.has_secret,
        })
    };
    engine(s, words(), path, Vec::new())
}

/// The engine of the route's own table, if all is right, and which keys of the route it takes.
pub fn read(
    s: &mut Section<'_>,
    path: Option<&PathTemplate>,
) -> (Option<Engine>, Vec<&'static str>) {
    let table = match s.field("signed") {
        Some(field) => field.read(Field::section).map(|table| (field, table)),
        None => {
            s.refuse("signed", Problem::Missing(MISSING_TABLE));
            None
        }
    };
    let words = table.and_then(|(field, table)| {
        let words = self::table(table)?;
        if words.algorithm.is_weak() {
            field.warn("MD5 and SHA-1 can be broken at a price; use them only where the provider has nothing better");
        }
        if words.text.has_open_seam() {
            field.warn(
                "nothing in the signed text says where one value ends and the next begins; whoever has one genuine \
                 callback can shift their border",
            );
        }
        Some(words)
    });
    engine(s, words, path, vec!["signed"])
}

fn engine(
    s: &mut Section<'_>,
    words: Option<Words>,
    path: Option<&PathTemplate>,
    mut takes: Vec<&'static str>,
) -> (Option<Engine>, Vec<&'static str>) {
    let Some(words) = words else {
        // What else belongs to the table is not known.
        for key in ["secrets", "keys", "url", "tolerance"] {
            s.field(key);
        }
        takes.extend(["secrets", "keys", "url", "tolerance"]);
        return (None, takes);
    };
    let needs_secret = words.algorithm.rsa().is_none() || words.has_secret;
    let secrets = needs_secret.then(|| {
        takes.push("secrets");
        secrets(s, |text| words.key.read(words.algorithm.of_key(), text))
    });
    let keys = words.algorithm.rsa().map(|_| {
        takes.push("keys");
        let bits = match words.algorithm {
            Algorithm::RsaSha1 => RsaBits::Weak,
            _ => RsaBits::Usual,
        };
        keys(s, RsaKey::eq, |field| rsa_keys(field, bits))
    });
    let url = words.text.has(&Part::Url).then(|| {
        takes.push("url");
        required_url(s, path)
    });
    let tolerance = words.is_timed.then(|| {
        takes.push("tolerance");
        tolerance(s)
    });
    let engine = || {
        let mut time = words.timestamp;
        if let (Some(time), Some(tolerance)) = (&mut time, tolerance) {
            time.tolerance = tolerance?;
        }
        Some(Signed {
            fields: words.fields,
            text: words.text,
            algorithm: words.algorithm,
            hash_first: words.hash_first,
            url: url.map_or(Some(None), |url| url.map(Some))?,
            signature: words.signature,
            time,
            secrets: secrets.unwrap_or(Some(Vec::new()))?,
            keys: keys.unwrap_or(Some(Vec::new()))?,
        })
    };
    (
        engine().map(|engine| Engine::Signed(Box::new(engine))),
        takes,
    )
}

/// What the table says; `None` if something is wrong, which is noted.
fn table(mut t: Section<'_>) -> Option<Words> {
    let algorithm = required(&mut t, "algorithm", MISSING_ALGORITHM, |field| {
        let text = field.text("a string")?;
        let mut all = Algorithm::ALL.iter();
        let found = all.find(|(word, _)| *word == text).map(|(_, found)| *found);
        found.ok_or(Problem::NotOneOf(&[
            "md5",
            "sha1",
            "sha256",
            "sha512",
            "hmac-sha1",
            "hmac-sha256",
            "hmac-sha512",
            "rsa-sha1",
            "rsa-sha256",
        ]))
    });
    let text = required(&mut t, "text", MISSING_TEXT, |field| {
        let text = template(field.text("a string")?).map_err(BadVerify::SignedText)?;
        if let Some(algorithm) = algorithm {
            text.check(algorithm).map_err(BadVerify::SignedText)?;
        }
        Ok(text)
    });
    let place = required(&mut t, "signature", MISSING_SIGNATURE, selector::selector);
    let rsa = algorithm.is_some_and(|algorithm| algorithm.rsa().is_some());
    let default = if rsa { Encoding::Base64 } else { Encoding::Hex };
    let signature = SignatureAt {
        place: place?,
        separator: optional(&mut t, "separator", super::custom_hmac::separator)?,
        prefix: optional(&mut t, "prefix", words)?
            .unwrap_or_default()
            .into(),
        any_case: false,
        encoding: optional(&mut t, "encoding", super::custom_hmac::encoding)?
            // Senders of one scheme write their hex in one case or the other.
            .map_or(default, |encoding| match encoding {
                Encoding::Base64 => Encoding::Base64,
                _ => Encoding::Hex,
            }),
        unescape: optional(&mut t, "unescape", Field::flag)?.unwrap_or(false),
    };
    let fields = fields(&mut t)?;
    let text = text?;
    if text.has(&Part::Fields) != fields.is_some() {
        t.refuse("fields", Problem::Verify(BadVerify::Fields));
        return None;
    }
    let timestamp = optional(&mut t, "timestamp", selector::selector)?;
    let prefix = optional(&mut t, "timestamp_prefix", words)?;
    let unit = optional(&mut t, "timestamp_unit", super::custom_hmac::unit)?;
    let has_time = text.has(&Part::Timestamp);
    if has_time && timestamp.is_none() && prefix.is_none() {
        t.refuse("timestamp", Problem::Missing(MISSING_TIME));
        return None;
    }
    let words = Words {
        fields,
        timestamp: has_time.then(|| Time {
            place: timestamp,
            prefix: prefix.unwrap_or_default().into(),
            unit: unit.unwrap_or(TimeUnit::Seconds),
            tolerance: None,
        }),
        is_timed: has_time,
        has_secret: text.has(&Part::Secret) || text.has(&Part::SecretMd5),
        text,
        algorithm: algorithm?,
        hash_first: optional(&mut t, "hash_first", Field::flag)?.unwrap_or(false),
        signature,
        key: optional(&mut t, "key", super::custom_hmac::key)?.unwrap_or(KeyText::Text),
    };
    t.close();
    Some(words)
}

const MISSING_TIME: &str = "the text has {timestamp}, so this must say where the time stands, as in \
    timestamp = \"header:X-Time\"; or timestamp_prefix, what the item of the signature with the time begins with";

fn fields(t: &mut Section<'_>) -> Option<Option<FieldSource>> {
    let from = optional(t, "fields", |field| {
        shape(field.text("a string")?).ok_or(Problem::Verify(BadVerify::Shape))
    })?;
    let skip = optional(t, "skip", names)?.unwrap_or_default();
    let empty = optional(t, "empty", |field| match field.text("a string")? {
        "skip" => Ok(true),
        "keep" => Ok(false),
        _ => Err(Problem::NotOneOf(&["skip", "keep"])),
    })?;
    let join = optional(t, "join", |field| match field.text("a string")? {
        join @ ("&" | "") => Ok(join.to_owned()),
        _ => Err(Problem::NotOneOf(&["&", ""])),
    })?;
    let always = optional(t, "always", names)?.unwrap_or_default();
    let free_text = optional(t, "free_text", names)?.unwrap_or_default();
    let Some(from) = from else {
        return Some(None);
    };
    Some(Some(FieldSource {
        from,
        skip,
        skips_empty: empty.unwrap_or(true),
        join: join.as_deref().unwrap_or("&").into(),
        values_only: false,
        always,
        free_text,
    }))
}

fn names(field: &Field<'_>) -> Result<Vec<String>, Problem> {
    let fields = field.list("a list of strings", crate::request::FIELDS_MAX)?;
    let names = fields
        .iter()
        .filter_map(|field| field.read(|field| field.text("a string")));
    Ok(names.map(str::to_owned).collect())
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

fn words(field: &Field<'_>) -> Result<String, Problem> {
    let text = field.text("a string")?;
    let plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let right = plain && (1..=TEXT_BYTES_MAX).contains(&text.len());
    right.then(|| text.to_owned()).ok_or(BadVerify::Text.into())
}

/// What `fields` says.
fn shape(text: &str) -> Option<Shape> {
    match text {
        "query" => Some(Shape::Query),
        "form" => Some(Shape::Form),
        "param" => Some(Shape::Param),
        "xml" => Some(Shape::Xml),
        "json" => Some(Shape::Json(Vec::new())),
        other => match selector::of_preset(other)? {
            crate::request::Selector::Json(pointer) => Some(Shape::Json(pointer)),
            place => Some(Shape::Inner(place)),
        },
    }
}

/// Reads a text with placeholders.
pub fn template(text: &str) -> Result<Template, BadText> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(['{', '}']).unwrap_or(rest.len());
        let (literal, after) = rest.split_at(at);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        rest = after;
        if rest.is_empty() {
            break;
        }
        let (name, after) = rest.split_once('}').ok_or(BadText::Unknown)?;
        let name = name.strip_prefix('{').ok_or(BadText::Unknown)?;
        parts.push(placeholder(name)?);
        rest = after;
    }
    Ok(Template(parts))
}

fn placeholder(name: &str) -> Result<Part, BadText> {
    let ordered = name
        .strip_prefix("ordered(")
        .and_then(|list| list.strip_suffix(')'));
    if let Some(list) = ordered {
        let parts = list.split(',').map(placeholder).collect::<Result<_, _>>()?;
        return Ok(Part::Ordered(parts));
    }
    Ok(match name {
        "fields" => Part::Fields,
        "body" => Part::Body,
        "body|crc32" => Part::BodyCrc32,
        "secret" => Part::Secret,
        "secret|md5" => Part::SecretMd5,
        "method" => Part::Method,
        "target" => Part::Target,
        "url" => Part::Url,
        "timestamp" => Part::Timestamp,
        other => {
            let (place, may_be_missing) = match other.strip_suffix('?') {
                Some(place) => (place, true),
                None => (other, false),
            };
            let selector = selector::of_preset(place).ok_or(BadText::Unknown)?;
            Part::Value(selector, may_be_missing)
        }
    })
}

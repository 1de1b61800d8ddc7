//! `verify = "signed"`: the table `signed`, in which a route says itself what its provider signs, and how; and the presets that
//! are such tables.

use super::braces::parts;
use super::keys::{keys, more_fields, names, rsa_keys, secrets};
use super::{required, required_url, tolerance};
use crate::config::path::PathTemplate;
use crate::config::reader::{Field, Section};
use crate::config::values::{one_of, selector, some};
use crate::request::Selector;
use crate::verify::preset::{KeyText, SignedPreset};
use crate::verify::{
    Algorithm, Encoding, Engine, FieldSource, Part, RsaBits, RsaKey, Shape, SignatureAt, Signed,
    Template, Time, TimeUnit, ValueForm,
};

const MISSING_TABLE: &str = "says what the provider signs, as in \
    signed = { fields = \"form\", skip = [\"sign\"], text = \"{fields}{secret}\", algorithm = \"md5\", signature = \"form:sign\" }";

const MISSING_TEXT: &str = "what is signed, as in text = \"{fields}&key={secret}\"";

const MISSING_ALGORITHM: &str = "how it is signed, as in algorithm = \"hmac-sha256\"";

const MISSING_SIGNATURE: &str = "where the signature stands, as in signature = \"form:sign\"";

/// What a table or a preset says, its words read.
pub struct SignedTable {
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

/// The engine of a preset, if its keys are right.
pub fn of_preset(
    s: &mut Section<'_>,
    preset: &SignedPreset,
    path: Option<&PathTemplate>,
) -> Option<Engine> {
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
                sometimes: owned(preset.sometimes),
                free_text: owned(preset.free_text),
            }),
        };
        let has_time = preset.text.contains("{timestamp}");
        let place = match preset.timestamp {
            "" => None,
            place => Some(Selector::of_preset(place)?),
        };
        Some(SignedTable {
            fields,
            text: template(preset.text).ok()?,
            algorithm: preset.algorithm,
            hash_first: preset.hash_first,
            signature: SignatureAt {
                place: Selector::of_preset(preset.signature)?,
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
    engine(s, words(), path)
}

/// The engine of the route's own table, if all is right.
pub fn read(s: &mut Section<'_>, path: Option<&PathTemplate>) -> Option<Engine> {
    let table = s.required("signed", MISSING_TABLE, Field::section);
    let words = table.zip(s.field("signed")).and_then(|(table, field)| {
        let words = self::table(table)?;
        if words.algorithm.is_weak() {
            field.warn("MD5 and SHA-1 can be broken at a price; use them only where the provider has nothing better");
        }
        if !words.hash_first && words.text.can_be_continued(words.algorithm) {
            field.warn(
                "the signed text goes on after the secret, and a digest can be continued without it; whoever has one genuine \
                 callback can append to it, unless the provider signs with an HMAC or has the secret at the end",
            );
        }
        if words.text.has_open_seam() {
            field.warn(
                "nothing in the signed text says where one value ends and the next begins; whoever has one genuine \
                 callback can shift their border",
            );
        }
        Some(words)
    });
    engine(s, words, path)
}

fn engine(
    s: &mut Section<'_>,
    words: Option<SignedTable>,
    path: Option<&PathTemplate>,
) -> Option<Engine> {
    let Some(words) = words else {
        // What else belongs to the table is not known.
        for key in ["secrets", "keys", "url", "tolerance", "more_fields"] {
            s.field(key);
        }
        return None;
    };
    let needs_secret = words.algorithm.rsa().is_none() || words.has_secret;
    let secrets = match needs_secret {
        true => secrets(s, |text| words.key.read(words.algorithm.of_key(), text)),
        false => Some(Vec::new()),
    };
    let keys = match words.algorithm {
        algorithm if algorithm.rsa().is_none() => Some(Vec::new()),
        Algorithm::RsaSha1 => keys(s, RsaKey::eq, |field| rsa_keys(field, RsaBits::Weak)),
        _ => keys(s, RsaKey::eq, |field| rsa_keys(field, RsaBits::Usual)),
    };
    let url = match words.text.has(&Part::Url) {
        true => required_url(s, path).map(Some),
        false => Some(None),
    };
    let tolerance = match words.is_timed {
        true => tolerance(s),
        false => Some(None),
    };
    let more = match &words.fields {
        Some(fields) if !fields.values_only => more_fields(s),
        _ => Some(Vec::new()),
    };
    let more = more?;
    let fields = words.fields.map(|mut fields| {
        fields.sometimes.extend(more);
        fields
    });
    let tolerance = tolerance?;
    Some(Engine::Signed(Box::new(Signed {
        fields,
        text: words.text,
        algorithm: words.algorithm,
        hash_first: words.hash_first,
        url: url?,
        signature: words.signature,
        time: words.timestamp.map(|time| Time { tolerance, ..time }),
        secrets: secrets?,
        keys: keys?,
    })))
}

/// What the table says; `None` if something is wrong, which is noted.
fn table(mut t: Section<'_>) -> Option<SignedTable> {
    let algorithm = required(&mut t, "algorithm", MISSING_ALGORITHM, |field| {
        one_of(&Algorithm::ALL)(field)
    });
    let text = required(&mut t, "text", MISSING_TEXT, |field| {
        let text = template(field.text("a string")?)?;
        if let Some(algorithm) = algorithm {
            text.check(algorithm)?;
        }
        Ok(text)
    });
    let place = required(&mut t, "signature", MISSING_SIGNATURE, selector);
    let rsa = algorithm.is_some_and(|algorithm| algorithm.rsa().is_some());
    let default = if rsa { Encoding::Base64 } else { Encoding::Hex };
    let signature = SignatureAt {
        place: place?,
        separator: t.or("separator", None, some(super::custom_hmac::separator))?,
        prefix: t.or("prefix", String::new(), super::text)?.into(),
        any_case: false,
        encoding: t.or("encoding", default, |field| {
            // Senders of one scheme write their hex in one case or the other.
            Ok(match super::custom_hmac::encoding(field)? {
                Encoding::Base64 => Encoding::Base64,
                _ => Encoding::Hex,
            })
        })?,
        unescape: t.or("unescape", false, Field::flag)?,
    };
    let fields = fields(&mut t)?;
    let text = text?;
    if text.has(&Part::Fields) != fields.is_some() {
        t.refuse(
            "fields",
            "fields says what {fields} in text stands for: one is there, and the other is not",
        );
        return None;
    }
    let timestamp = t.or("timestamp", None, some(selector))?;
    let prefix = t.or("timestamp_prefix", None, some(super::text))?;
    let unit = t.or(
        "timestamp_unit",
        TimeUnit::Seconds,
        super::custom_hmac::unit,
    )?;
    let has_time = text.has(&Part::Timestamp);
    if has_time && timestamp.is_none() && prefix.is_none() {
        t.refuse("timestamp", MISSING_TIME);
        return None;
    }
    let words = SignedTable {
        fields,
        timestamp: has_time.then(|| Time {
            place: timestamp,
            prefix: prefix.unwrap_or_default().into(),
            unit,
            tolerance: None,
        }),
        is_timed: has_time,
        has_secret: text.has(&Part::Secret) || text.has(&Part::SecretMd5),
        text,
        algorithm: algorithm?,
        hash_first: t.or("hash_first", false, Field::flag)?,
        signature,
        key: t.or("key", KeyText::Text, super::custom_hmac::key)?,
    };
    t.close();
    Some(words)
}

const MISSING_TIME: &str = "is missing; the text has {timestamp}, so this must say where the time stands, as in \
    timestamp = \"header:X-Time\"; or timestamp_prefix, what the item of the signature with the time begins with";

fn fields(t: &mut Section<'_>) -> Option<Option<FieldSource>> {
    let from = t.or("fields", None, |field| {
        shape(field.text("a string")?).map(Some).ok_or_else(|| {
            "allowed: \"query\", \"form\", \"param\" (the query if there is no body, else the form), \"xml\", \"json\", \
             \"json:/pointer\", or the place of a text that is JSON, such as \"form:data\""
                .into()
        })
    })?;
    let rest = FieldSource {
        from: Shape::Query,
        skip: t.or("skip", Vec::new(), names)?,
        skips_empty: t.or("empty", true, one_of(&[("skip", true), ("keep", false)]))?,
        join: t.or("join", "&", one_of(&[("&", "&"), ("", "")]))?.into(),
        values_only: false,
        always: t.or("always", Vec::new(), names)?,
        sometimes: Vec::new(),
        free_text: t.or("free_text", Vec::new(), names)?,
    };
    Some(from.map(|from| FieldSource { from, ..rest }))
}

/// What `fields` says.
fn shape(text: &str) -> Option<Shape> {
    match text {
        "query" => Some(Shape::Query),
        "form" => Some(Shape::Form),
        "param" => Some(Shape::Param),
        "xml" => Some(Shape::Xml),
        "json" => Some(Shape::Json(Vec::new())),
        other => match Selector::of_preset(other)? {
            Selector::Json(pointer) => Some(Shape::Json(pointer)),
            place => Some(Shape::Inner(place)),
        },
    }
}

const UNKNOWN: &str = "a placeholder is one of {fields} {body} {body|crc32} {secret} {secret|md5} {method} {target} {url} {timestamp} \
    {header:NAME} {query:NAME} {form:NAME} {json:/pointer} {xml:NAME}, with ? before the } if it may be missing, \
    with |lower if it is signed in lower case, or {ordered(secret,json:/a,…)}";

/// Reads a text with placeholders.
fn template(text: &str) -> Result<Template, &'static str> {
    parts(text, UNKNOWN, placeholder).map(Template)
}

fn placeholder(name: &str) -> Result<Part, &'static str> {
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
            let (place, is_lower_case) = match place.strip_suffix("|lower") {
                Some(place) => (place, true),
                None => (place, false),
            };
            let form = ValueForm {
                may_be_missing,
                is_lower_case,
            };
            let selector = Selector::of_preset(place).ok_or(UNKNOWN)?;
            Part::Value(selector, form)
        }
    })
}

//! The secrets and keys of a route: read, prepared, and none given twice.

use super::{MISSING_KEYS, MISSING_SECRETS, SECRET_BYTES_MAX, required};
use crate::config::reader::{Field, Problem, Section};
use crate::config::secret::{public_text, secret_text};
use crate::config::values::{list, one_of, text_of, text_within};
use crate::verify::{BadKey, KEYS_MAX, MacKey, RsaBits, RsaKey};

/// Every one of `secrets`, as `read` takes it; `None` if one is wrong, or there is none.
pub fn secrets(
    s: &mut Section<'_>,
    read: impl Fn(&str) -> Result<MacKey, BadKey>,
) -> Option<Vec<MacKey>> {
    required(s, "secrets", MISSING_SECRETS, |field| {
        each(field, MISSING_SECRETS, MacKey::eq, |field| {
            let text = secret_text(field)?;
            let bytes = text.len();
            if bytes > SECRET_BYTES_MAX {
                return Err(format!(
                    "{bytes} bytes are too many; at most {SECRET_BYTES_MAX}"
                ));
            }
            read(&text).map_err(|bad| bad.to_string())
        })
    })?
}

/// Every one of `keys`, as `read` takes it; `None` if one is wrong, or there is none. An entry may have several keys; one without
/// any is wrong, which `read` has noted.
pub fn keys<T>(
    s: &mut Section<'_>,
    same: impl Fn(&T, &T) -> bool,
    read: impl Fn(&Field<'_>) -> Result<Vec<T>, Problem>,
) -> Option<Vec<T>> {
    let same = |a: &Vec<T>, b: &Vec<T>| a.iter().any(|a| b.iter().any(|b| same(a, b)));
    let keys = required(s, "keys", MISSING_KEYS, |field| {
        each(field, MISSING_KEYS, same, &read)
    })??;
    let right = !keys.iter().any(Vec::is_empty);
    right.then(|| keys.into_iter().flatten().collect())
}

/// What `read` makes of every entry of the list `field`; `None` if one was wrong, or the same as another, which is noted.
fn each<T>(
    field: &Field<'_>,
    missing: &'static str,
    same: impl Fn(&T, &T) -> bool,
    read: impl Fn(&Field<'_>) -> Result<T, Problem>,
) -> Result<Option<Vec<T>>, Problem> {
    let fields = field.list("a list of strings", KEYS_MAX)?;
    if fields.is_empty() {
        return Err(format!("is missing; {missing}"));
    }
    let mut all: Vec<(T, usize)> = Vec::new();
    let mut right = true;
    for field in &fields {
        match field.read(&read) {
            None => right = false,
            Some(one) => match all.iter().find(|(earlier, _)| same(earlier, &one)) {
                Some(&(_, at)) => {
                    field.refuse(field.again(at));
                    right = false;
                }
                None => all.push((one, field.at())),
            },
        }
    }
    Ok(right.then(|| all.into_iter().map(|(one, _)| one).collect()))
}

/// `allow_sha1`, no if it is not there; `None` if it is wrong.
pub fn allow_sha1(s: &mut Section<'_>) -> Option<bool> {
    const WEAK: &str = "SHA-1 and RSA keys of less than 2048 bits can be broken at a price; set the application to RSA2 and remove this";
    s.or(
        "allow_sha1",
        false,
        warned(|field: &Field<'_>| field.flag(), WEAK),
    )
}

/// `more_fields`: names of fields that the provider sends beside those that are known; `None` if it is wrong.
pub fn more_fields(s: &mut Section<'_>) -> Option<Vec<String>> {
    s.or("more_fields", Vec::new(), names)
}

/// Names of fields.
pub fn names(field: &Field<'_>) -> Result<Vec<String>, Problem> {
    list(crate::request::FIELDS_MAX, text_of)(field)
}

/// `unsigned_items`: whether items that nobody signed go to the dead letters, or are refused as any forgery; `None` if it is
/// wrong.
pub fn unsigned_items(s: &mut Section<'_>) -> Option<bool> {
    const OPEN: &str = "whoever reaches this route can put dead letters into the outbox; let only the provider's addresses in, with allow";
    let keeps = one_of(&[("refuse", false), ("dead-letter", true)]);
    s.or("unsigned_items", false, warned(keeps, OPEN))
}

/// What `read` reads; says `warning` if that is yes.
fn warned(
    read: impl Fn(&Field<'_>) -> Result<bool, Problem>,
    warning: &'static str,
) -> impl Fn(&Field<'_>) -> Result<bool, Problem> {
    move |field| {
        read(field).inspect(|&yes| {
            if yes {
                field.warn(warning)
            }
        })
    }
}

pub fn rsa_keys(field: &Field<'_>, bits: RsaBits) -> Result<Vec<RsaKey>, Problem> {
    RsaKey::read_all(&public_text(field)?, bits).map_err(|bad| bad.to_string())
}

fn rsa_key(field: &Field<'_>) -> Result<RsaKey, Problem> {
    let mut keys = rsa_keys(field, RsaBits::Usual)?;
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok(key),
        _ => Err(BadKey::NotOne.to_string()),
    }
}

/// A key and the serial that requests name it by.
pub type Named = (Box<str>, RsaKey);

/// Certificates, or `{ serial, key }`; none if a part of the table is wrong, which is noted.
pub fn rsa_keys_with_serial(field: &Field<'_>) -> Result<Vec<Named>, Problem> {
    if !field.is_table() {
        let keys = rsa_keys(field, RsaBits::Usual)?;
        let with_serial = keys.into_iter().map(|key| {
            let serial = key.serial().ok_or(
                "a public key does not say which it is; write { serial = \"PUB_KEY_ID_…\", key = \"…\" }, as the provider's console shows",
            )?.into();
            Ok((serial, key))
        });
        return with_serial.collect();
    }
    let mut table = field.section()?;
    let serial = required(
        &mut table,
        "serial",
        "the key's name, as the header Wechatpay-Serial has it",
        serial,
    );
    let key = required(&mut table, "key", MISSING_KEYS, rsa_key);
    table.close();
    Ok(serial.map(Box::from).zip(key).into_iter().collect())
}

fn serial(field: &Field<'_>) -> Result<String, Problem> {
    const RULE: &str =
        "a serial is 1 to 128 of A-Z a-z 0-9 _ -, as the header Wechatpay-Serial has it";
    text_within(
        field,
        128,
        |b| b.is_ascii_alphanumeric() || b"_-".contains(&b),
        RULE,
    )
}

//! Secrets: long enough to protect something, and never shown.
//!
//! Whoever reads a field here must have hidden it first, so that no error carries its value.

use std::ops::RangeInclusive;

use super::Secret;
use super::problem::{BadSecret, Problem};
use super::reader::Field;

/// How many characters a secret has. 16 random ones are beyond guessing over a network; 1,024 fit in any header.
pub const SECRET_CHARS: RangeInclusive<usize> = 16..=1024;

/// The most secrets at once: a rotation needs two.
const SECRETS_MAX: usize = 16;

/// Reads `secrets`, and whether the list has any entries, be they right or wrong.
pub fn list(field: &Field<'_>) -> Result<(Vec<Secret>, bool), Problem> {
    let fields = field.list("a list of strings", SECRETS_MAX)?;
    let mut secrets: Vec<(Secret, usize)> = Vec::new();
    for field in &fields {
        let Some(secret) = field.read(one) else {
            continue;
        };
        match secrets.iter().find(|(earlier, _)| *earlier == secret) {
            Some(&(_, at)) => field.refuse(field.again(at)),
            None => secrets.push((secret, field.at())),
        }
    }
    let secrets = secrets.into_iter().map(|(secret, _)| secret).collect();
    Ok((secrets, !fields.is_empty()))
}

/// Reads a token that callers send in an `Authorization` header.
pub fn token(field: &Field<'_>) -> Result<Secret, Problem> {
    let secret = one(field)?;
    if !secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Problem::Secret(BadSecret::NotPrintable));
    }
    Ok(secret)
}

fn one(field: &Field<'_>) -> Result<Secret, Problem> {
    let text = field.text("a string")?;
    let chars = text.chars().count();
    if chars < *SECRET_CHARS.start() {
        return Err(Problem::Secret(BadSecret::TooShort(chars)));
    }
    if chars > *SECRET_CHARS.end() {
        return Err(Problem::Secret(BadSecret::TooLong(chars)));
    }
    Ok(Secret::new(text))
}

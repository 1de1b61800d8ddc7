//! Secrets: long enough to protect something, and never shown. They stand in the file itself, or `env:NAME`, `file:PATH`
//! or `credential:NAME` stands there and says where else they are.
//!
//! Whoever reads a field here must have hidden it first, so that no error carries its value.

use std::env::{self, VarError};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use rustix::fs::OFlags;

use super::Secret;
use super::problem::{BadSecret, Problem};
use super::reader::Field;

/// How many characters a secret has. 16 random ones are beyond guessing over a network; 1,024 fit in any header.
pub const SECRET_CHARS: RangeInclusive<usize> = 16..=1024;

/// The most secrets at once: a rotation needs two.
const SECRETS_MAX: usize = 16;

/// The most that is read of a file with a secret, in bytes; a chain of certificates fits.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The variable with the folder of the service's credentials; systemd.exec(5).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Why a secret is not where the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSource {
    /// The environment has no such variable.
    NoVariable(String),
    /// The variable is no UTF-8.
    VariableNotText(String),
    /// Not the name of a credential.
    CredentialName(String),
    /// Nobody gave this process credentials.
    NoCredentials(String),
    /// The file cannot be read.
    Unreadable(String, io::ErrorKind),
    /// It is a directory, a pipe or a device.
    NoFile(String),
    /// The file is larger than 64 KiB.
    FileTooBig(String),
    /// The file is no UTF-8.
    FileNotText(String),
}

impl fmt::Display for BadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVariable(name) => write!(
                f,
                "the environment has no variable {name}; it must be set where the relay (or this check) is started"
            ),
            Self::VariableNotText(name) => write!(f, "the variable {name} is not UTF-8"),
            Self::CredentialName(name) => write!(
                f,
                "{name} is not a credential's name; write credential:NAME, with NAME as in LoadCredential=NAME:PATH of the unit"
            ),
            Self::NoCredentials(name) => write!(
                f,
                "the service manager gave no credentials; add LoadCredential={name}:PATH to the unit \
                 ($CREDENTIALS_DIRECTORY must be set where the relay, or this check, is started)"
            ),
            Self::Unreadable(path, kind) => write!(f, "the file {path} cannot be read ({kind})"),
            Self::NoFile(path) => write!(f, "{path} is not a regular file"),
            Self::FileTooBig(path) => {
                write!(
                    f,
                    "the file {path} is too big for a key; at most {} KiB",
                    FILE_BYTES_MAX >> 10
                )
            }
            Self::FileNotText(path) => write!(f, "the file {path} is not text"),
        }
    }
}

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
    let text = secret_text(field)?;
    let chars = text.chars().count();
    if chars < *SECRET_CHARS.start() {
        return Err(Problem::Secret(BadSecret::TooShort(chars)));
    }
    if chars > *SECRET_CHARS.end() {
        return Err(Problem::Secret(BadSecret::TooLong(chars)));
    }
    Ok(Secret::new(&text))
}

/// The secret that `field` holds or points to, of whatever length.
pub fn secret_text(field: &Field<'_>) -> Result<String, Problem> {
    let (text, is_here) = text(field, Kind::Secret)?;
    if is_here {
        field.note_secret();
        if let Some(meant) = looks_like(&text) {
            field.warn(format_args!(
                "this looks like {meant}, and not like a secret; write \"env:NAME\", \"file:PATH\" or the secret itself"
            ));
        }
    }
    Ok(text)
}

/// What a text is that was probably not meant as the secret itself. It is not quoted: it may be one all the same.
fn looks_like(text: &str) -> Option<&'static str> {
    let of = |set: fn(u8) -> bool| !text.is_empty() && text.bytes().all(set);
    let is_name = of(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let is_path = of(|b| b.is_ascii_graphic())
        && (["/", "./", "../", "~/"]
            .iter()
            .any(|start| text.starts_with(start))
            && !text.ends_with('=')
            || [".pem", ".key", ".txt", ".crt"]
                .iter()
                .any(|end| text.ends_with(end)));
    match text {
        text if text.starts_with("${") || text.starts_with("$(") => Some("a variable of a shell"),
        _ if is_name && text.contains('_') => Some("the name of a variable"),
        text if text.starts_with("-----BEGIN") => Some("a key of another kind, in PEM"),
        _ if is_path && !text[1..].contains("//") => Some("the path of a file"),
        _ => None,
    }
}

/// What `field` holds or points to and may be secret; and whether it stands in the field itself.
pub fn text_and_place(field: &Field<'_>) -> Result<(String, bool), Problem> {
    text(field, Kind::Secret)
}

/// The public key that `field` holds or points to; anybody may read it.
pub fn public_text(field: &Field<'_>) -> Result<String, Problem> {
    text(field, Kind::Public).map(|(text, _)| text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    Public,
}

fn text(field: &Field<'_>, kind: Kind) -> Result<(String, bool), Problem> {
    let given = field.text("a string")?;
    if let Some(name) = given.strip_prefix("env:") {
        return match env::var(name) {
            Ok(text) => Ok((text, false)),
            Err(VarError::NotPresent) => Err(BadSource::NoVariable(shown(name))),
            Err(VarError::NotUnicode(_)) => Err(BadSource::VariableNotText(shown(name))),
        }
        .map_err(Problem::Source);
    }
    if let Some(name) = given.strip_prefix("credential:") {
        let path = credential(name).map_err(Problem::Source)?;
        // systemd lets the service's user alone read it, whatever the mode.
        let (text, _) = contents(&path).map_err(Problem::Source)?;
        return Ok((text, false));
    }
    let Some(path) = given.strip_prefix("file:") else {
        return Ok((given.to_owned(), true));
    };
    let (text, mode) = contents(path).map_err(Problem::Source)?;
    if kind == Kind::Secret && mode & 0o044 != 0 {
        field.warn(format_args!(
            "other users can read {0}; make it yours alone with: chmod 600 {0}",
            shown(path)
        ));
    }
    Ok((text, false))
}

/// Where systemd has put what the unit calls `name` (`LoadCredential=`).
fn credential(name: &str) -> Result<String, BadSource> {
    if name.is_empty() || name.contains('/') {
        return Err(BadSource::CredentialName(shown(name)));
    }
    match env::var(CREDENTIALS) {
        Ok(folder) => Ok(format!("{folder}/{name}")),
        Err(_) => Err(BadSource::NoCredentials(shown(name))),
    }
}

/// The text of the file at `path` without its last line end, and its mode bits.
fn contents(path: &str) -> Result<(String, u32), BadSource> {
    let unreadable = |error: io::Error| BadSource::Unreadable(shown(path), error.kind());
    // A name with NUL would be another to the system.
    if path.is_empty() || path.contains('\0') {
        return Err(BadSource::Unreadable(
            shown(path),
            io::ErrorKind::InvalidInput,
        ));
    }
    // Without waiting: a pipe that nobody writes to must not hold up a start, or a reload.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(BadSource::NoFile(shown(path)));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(BadSource::FileTooBig(shown(path)));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| BadSource::FileNotText(shown(path)))?;
    // Editors and echo end the last line; no provider's secret does.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok((text, metadata.mode()))
}

/// A name as errors show it: on one line, and short.
fn shown(name: &str) -> String {
    super::spelling::quoted(name)
}

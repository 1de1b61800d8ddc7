//! Secrets: long enough to protect something, and never shown. They stand in the file itself, or `env:NAME`, `file:PATH`
//! or `credential:NAME` stands there and says where else they are.
//!
//! Every field that is read here is hidden, so that no error carries its value.

use std::env::{self, VarError};
use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::reader::{Field, Problem};
use super::spelling::quoted;
use super::values::distinct;

/// How many characters a secret has. 16 random ones are beyond guessing over a network; 1,024 fit in any header.
const SECRET_CHARS: RangeInclusive<usize> = 16..=1024;

/// The most secrets at once: a rotation needs two.
const SECRETS_MAX: usize = 16;

/// The most that is read of a file with a secret, in bytes; a chain of certificates fits.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The variable with the folder of the service's credentials; systemd.exec(5).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A text that is never shown: not by `Debug`, not in a log, not in an error.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads `secrets`: none is there twice.
pub fn list(field: &Field<'_>) -> Result<Vec<Secret>, Problem> {
    distinct(SECRETS_MAX, one)(field.hide())
}

/// Reads a token that callers send in an `Authorization` header.
pub fn token(field: &Field<'_>) -> Result<Secret, Problem> {
    let secret = one(field)?;
    if !secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
        let what = "only printable ASCII without spaces can be sent as a token";
        return Err(format!("{what}; {MAKE_ONE}"));
    }
    Ok(secret)
}

/// What keys and certificates in PEM begin with.
const PEM: &str = "-----BEGIN";

const MAKE_ONE: &str = "make one with: openssl rand -hex 32";

fn one(field: &Field<'_>) -> Result<Secret, Problem> {
    let text = secret_text(field)?;
    let (chars, least, most) = (
        text.chars().count(),
        SECRET_CHARS.start(),
        SECRET_CHARS.end(),
    );
    if chars < *least {
        let what = format!("{chars} characters are too few, at least {least} are needed");
        return Err(format!("{what}; {MAKE_ONE}"));
    }
    if chars > *most {
        return Err(format!("{chars} characters are too many; at most {most}"));
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
        text if text.starts_with(PEM) => Some("a key of another kind, in PEM"),
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
    let (text, is_here) = text(field, Kind::Public)?;
    match looks_like(&text).filter(|_| is_here && !text.starts_with(PEM)) {
        Some(meant @ "the path of a file") => {
            let path = quoted(&format!("file:{text}"));
            Err(format!(
                "this looks like {meant}, and not like a key; write {path}"
            ))
        }
        Some(meant) => Err(format!(
            "this looks like {meant}, and not like a key; write \"env:NAME\", \"file:PATH\" or the key itself"
        )),
        None => Ok(text),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    Public,
}

fn text(field: &Field<'_>, kind: Kind) -> Result<(String, bool), Problem> {
    let given = field.hide().text("a string")?;
    if let Some(name) = given.strip_prefix("env:") {
        return match env::var(name) {
            Ok(text) => Ok((text, false)),
            Err(VarError::NotPresent) => Err(format!(
                "the environment has no variable {}; it must be set where the relay (or this check) is started",
                quoted(name)
            )),
            Err(VarError::NotUnicode(_)) => {
                Err(format!("the variable {} is not UTF-8", quoted(name)))
            }
        };
    }
    if let Some(name) = given.strip_prefix("credential:") {
        // systemd lets the service's user alone read it, whatever the mode.
        let (text, _) = contents(&credential(name)?)?;
        return Ok((text, false));
    }
    let Some(path) = given.strip_prefix("file:") else {
        return Ok((given.to_owned(), true));
    };
    let (text, metadata) = contents(path)?;
    if let (Kind::Secret, Some(close)) = (kind, closing(&metadata)) {
        let path = quoted(path);
        field.warn(format_args!(
            "other users can read {path}; close it to them with: {close} {path}"
        ));
    }
    Ok((text, false))
}

/// Where systemd has put what the unit calls `name` (`LoadCredential=`).
fn credential(name: &str) -> Result<String, Problem> {
    let shown = quoted(name);
    if name.is_empty() || name.contains('/') {
        return Err(format!(
            "{shown} is not a credential's name; write credential:NAME, with NAME as in LoadCredential=NAME:PATH of the unit"
        ));
    }
    let folder = env::var(CREDENTIALS).map_err(|_| {
        format!(
            "the service manager gave no credentials; add LoadCredential={shown}:PATH to the unit \
             ($CREDENTIALS_DIRECTORY must be set where the relay, or this check, is started)"
        )
    })?;
    Ok(format!("{folder}/{name}"))
}

/// The command that closes a file to users who should not read it, if there are such. A file of root may be its group's to read, as the
/// packages have it for the relay's; any other user's group may have anybody in it.
pub fn closing(file: &Metadata) -> Option<&'static str> {
    let (closed, command) = match file.uid() {
        0 => (0o004, "chmod o="),
        _ => (0o044, "chmod go="),
    };
    (file.mode() & closed != 0).then_some(command)
}

/// The text of the file at `path` without its last line end, and what there is to know of the file.
fn contents(path: &str) -> Result<(String, Metadata), Problem> {
    let shown = quoted(path);
    let unreadable = |kind: io::ErrorKind| match kind {
        io::ErrorKind::NotFound if !path.starts_with('/') => {
            format!("there is no file {shown} below the folder in which payrelay is started")
        }
        io::ErrorKind::NotFound => format!("there is no file {shown}"),
        io::ErrorKind::PermissionDenied => format!("this user may not read the file {shown}"),
        kind => format!("the file {shown} cannot be read ({kind})"),
    };
    // A name with NUL would be another to the system.
    if path.is_empty() || path.contains('\0') {
        return Err(unreadable(io::ErrorKind::InvalidInput));
    }
    // Without waiting: a pipe that nobody writes to must not hold up a start, or a reload.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options
        .open(path)
        .map_err(|error| unreadable(error.kind()))?;
    let metadata = file.metadata().map_err(|error| unreadable(error.kind()))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    let mut bytes = Vec::new();
    let mut file = file.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes)
        .map_err(|error| unreadable(error.kind()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let most = FILE_BYTES_MAX >> 10;
        return Err(format!(
            "the file {shown} is too big for a key; at most {most} KiB"
        ));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| format!("the file {shown} is not text"))?;
    // Editors and echo end the last line; no provider's secret does.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok((text, metadata))
}

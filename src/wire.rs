//! The codec of backends and of the bus: bytes to lines, lines to bytes. Pure; no socket, no clock, no policy.
//!
//! ```text
//! frame = line LF [ data LF ]        line: at most 1,024 bytes, printable ASCII
//! line  = VERB *( SP key=value ) [ SP "=" length ]
//! ```
//!
//! A bare number may stand directly after HELLO (`HELLO 1`). The data that a line announces is the caller's to wait
//! for, so that it can refuse or skip it without having it in memory. `doc/protocol.md` is normative.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use crate::escape::percent_decode;

/// The longest line, without its LF (and without a CR before that).
pub const LINE_BYTES_MAX: usize = 1024;

/// The most `key=value` tokens in a line; it bounds the search for a repeated key.
pub const TOKENS_MAX: usize = 32;

const VERB_BYTES_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 16;
const DIGITS_MAX: usize = 10;

/// Why bytes are no line. Each is fatal to the connection: where the next line begins can no longer be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// More than [`LINE_BYTES_MAX`] bytes and no LF among them.
    TooLong,
    /// Nothing between two LF.
    EmptyLine,
    /// A byte outside printable ASCII, at this place of the line, from 1.
    BadByte(usize),
    /// The verb is not 1 to 16 capital letters.
    BadVerb,
    /// A token that is neither `key=value` nor `=length`, counted from 1 after the verb.
    BadToken(usize),
    /// A `%` that two hexadecimal digits do not follow, in this token.
    BadEscape(usize),
    /// This token's key was there before.
    RepeatedKey(usize),
    /// More than [`TOKENS_MAX`] tokens.
    TooManyTokens,
    /// The byte after the data is not LF.
    UnendedData,
}

impl FrameError {
    /// The word for the `code` of an ERR frame.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::EmptyLine
            | Self::BadByte(_)
            | Self::BadVerb
            | Self::BadToken(_)
            | Self::BadEscape(_)
            | Self::RepeatedKey(_)
            | Self::TooManyTokens
            | Self::UnendedData => "bad-frame",
        }
    }
}

impl Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a line has at most {LINE_BYTES_MAX} bytes"),
            Self::EmptyLine => write!(f, "an empty line"),
            Self::BadByte(at) => write!(f, "byte {at} of the line is not printable ASCII"),
            Self::BadVerb => write!(f, "a verb is 1 to {VERB_BYTES_MAX} capital letters"),
            Self::BadToken(at) => {
                write!(
                    f,
                    "token {at} is neither key=value nor =length, one space before each"
                )
            }
            Self::BadEscape(at) => write!(f, "token {at} has a % without two hex digits"),
            Self::RepeatedKey(at) => write!(f, "token {at} repeats a key"),
            Self::TooManyTokens => write!(f, "a line has at most {TOKENS_MAX} tokens"),
            Self::UnendedData => write!(f, "the data is not followed by LF"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A line that has been found well-formed.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// What is wanted.
    pub verb: &'a str,
    /// The bare number directly after HELLO, if there is one.
    pub number: Option<&'a str>,
    /// How many bytes of data follow the line (and then one LF); `None`: no data, and no LF for it.
    pub data_bytes: Option<usize>,
    tokens: &'a str,
}

/// Shows no values: one of them may be a token.
impl fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({})", self.verb)
    }
}

impl<'a> Line<'a> {
    /// Finds the first line of `input` and says how many bytes it takes with its LF; `None`: it has not come whole yet.
    ///
    /// # Errors
    /// The line is malformed, or too long whether or not its end has come.
    pub fn find(input: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let window = &input[..input.len().min(LINE_BYTES_MAX + 2)]; // CR and LF
        let Some(end) = window.iter().position(|&b| b == b'\n') else {
            // A CR may still turn out to be the end's, so it does not count yet.
            let whole = window.strip_suffix(b"\r").unwrap_or(window);
            return if whole.len() > LINE_BYTES_MAX {
                Err(FrameError::TooLong)
            } else {
                Ok(None)
            };
        };
        let line = &window[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        Self::parse(line).map(|line| Some((line, end + 1)))
    }

    fn parse(line: &'a [u8]) -> Result<Self, FrameError> {
        if line.is_empty() {
            return Err(FrameError::EmptyLine);
        }
        if let Some(at) = line.iter().position(|b| !(b' '..=b'~').contains(b)) {
            return Err(FrameError::BadByte(at + 1));
        }
        // Cannot fail after the check above; an empty text would be a bad verb.
        let text = std::str::from_utf8(line).unwrap_or_default();
        let (verb, mut tokens) = text.split_once(' ').unwrap_or((text, ""));
        let verb_is_fine = (1..=VERB_BYTES_MAX).contains(&verb.len())
            && verb.bytes().all(|b| b.is_ascii_uppercase());
        if !verb_is_fine {
            return Err(FrameError::BadVerb);
        }
        let mut parsed = Self {
            verb,
            number: None,
            data_bytes: None,
            tokens: "",
        };
        if verb.len() == text.len() {
            return Ok(parsed);
        }
        if verb == "HELLO"
            && let (first, rest) = cut(tokens, b' ')
            && is_number(first)
        {
            parsed.number = Some(first);
            match rest {
                Some(rest) => tokens = rest,
                None => return Ok(parsed),
            }
        }
        parsed.tokens = tokens;
        parsed.data_bytes = check_tokens(tokens, 1 + usize::from(parsed.number.is_some()))?;
        Ok(parsed)
    }

    /// The value of `key` as it stands in the line, escapes and all.
    pub fn raw(&self, key: &str) -> Option<&'a str> {
        tokens(self.tokens).find_map(|token| token.strip_prefix(key)?.strip_prefix('='))
    }

    /// The value of `key`, unescaped; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        let raw = self.raw(key)?;
        if !raw.contains('%') {
            return Some(Cow::Borrowed(raw));
        }
        let bytes = percent_decode(raw.as_bytes(), false)?; // never fails: the line was checked
        Some(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn is_number(text: &str) -> bool {
    (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// What stands between the spaces of `text`. Byte by byte: the library's search is made for longer texts, and took
/// 4 % of what a notification cost between two nodes, with the search for repeated keys.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let (token, after) = cut(rest?, b' ');
        rest = after;
        Some(token)
    })
}

/// What stands before the first `separator`, which is ASCII, and behind it, if there is one.
fn cut(text: &str, separator: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == separator) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Checks every token, the first of which is the line's `first`, and returns the length that the last one may announce.
fn check_tokens(line: &str, first: usize) -> Result<Option<usize>, FrameError> {
    let has_escapes = line.contains('%');
    // A bit for each key so far: two keys may share one, but a bit that is not set says that the key is new.
    let mut seen = 0u64;
    let mut rest = Some(line);
    let mut at = 0;
    while let Some(text) = rest {
        let (token, after) = cut(text, b' ');
        rest = after;
        let place = at + first;
        let (key, Some(value)) = cut(token, b'=') else {
            return Err(FrameError::BadToken(place));
        };
        if key.is_empty() {
            if rest.is_some() || !is_number(value) {
                return Err(FrameError::BadToken(place));
            }
            // Ten digits do not fit where addresses have 32 bits; as much as there can be is too much as well.
            return Ok(Some(value.parse().unwrap_or(usize::MAX)));
        }
        let key_is_fine =
            key.len() <= KEY_BYTES_MAX && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if !key_is_fine {
            return Err(FrameError::BadToken(place));
        }
        if at >= TOKENS_MAX {
            return Err(FrameError::TooManyTokens);
        }
        let hash = key
            .bytes()
            .fold(0u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte));
        let bit = 1 << (hash % 64);
        // Looked for again in what was read, not kept in a list: this runs on thousands of small stacks.
        if seen & bit != 0 && tokens(line).take(at).any(|token| cut(token, b'=').0 == key) {
            return Err(FrameError::RepeatedKey(place));
        }
        seen |= bit;
        if has_escapes {
            let mut escapes = value.split('%');
            escapes.next();
            if !escapes.all(|after| {
                after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)
            }) {
                return Err(FrameError::BadEscape(place));
            }
        }
        at += 1;
    }
    Ok(None)
}

/// Writes one line; made by [`line`], ended by [`LineWriter::end`] or [`LineWriter::end_with_data`].
#[must_use = "a line must be ended"]
#[derive(Debug)]
pub struct LineWriter<'a> {
    out: &'a mut Vec<u8>,
}

/// Begins a line with `verb` at the end of `out`.
pub fn line<'a>(out: &'a mut Vec<u8>, verb: &str) -> LineWriter<'a> {
    out.extend_from_slice(verb.as_bytes());
    LineWriter { out }
}

impl LineWriter<'_> {
    /// The bare number directly after a verb.
    pub fn number(self, number: u32) -> Self {
        self.out.push(b' ');
        let _ = write!(Plain(self.out), "{number}"); // a Vec takes everything
        self
    }

    /// `key=value`, the value escaped.
    pub fn arg(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        for &byte in value.as_bytes() {
            let plain = byte.is_ascii_alphanumeric() || b"-._~/:,+@".contains(&byte);
            if plain {
                self.out.push(byte);
            } else {
                let _ = write!(Plain(self.out), "%{byte:02X}");
            }
        }
        self
    }

    /// `key=value` for a value whose text needs no escape: numbers, notification ids.
    pub fn plain(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        let _ = write!(Plain(self.out), "{value}");
        self
    }

    /// A duration in whole seconds, or with a fraction where it has one.
    pub fn seconds(self, key: &str, value: Duration) -> Self {
        self.plain(key, value.as_secs_f64())
    }

    /// Ends the line.
    pub fn end(self) {
        self.out.push(b'\n');
    }

    /// Ends the line, announcing `bytes` of data; the data and its LF are the caller's to write.
    pub fn end_with_data(self, bytes: usize) {
        let _ = write!(Plain(self.out), " ={bytes}");
        self.out.push(b'\n');
    }

    fn key(&mut self, key: &str) {
        self.out.push(b' ');
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'=');
    }
}

struct Plain<'a>(&'a mut Vec<u8>);

impl fmt::Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;

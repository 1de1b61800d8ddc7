//! Commands as bytes, and what is read out of replies. Pure.

use std::io::Write as _;

use redis::Value;

/// Appends a command in RESP: an array of byte strings.
pub fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    // A Vec takes everything.
    let _ = write!(out, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(out, "${}\r\n", part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// `verb channel payload`: the channel in parts, the payload is what `write` appends.
pub fn publish(verb: &str, channel: &[&str], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::new();
    write(&mut payload);
    let mut out = Vec::with_capacity(payload.len() + 128);
    let name_bytes: usize = channel.iter().map(|part| part.len()).sum();
    let _ = write!(out, "*3\r\n${}\r\n{verb}\r\n${name_bytes}\r\n", verb.len());
    for part in channel {
        out.extend_from_slice(part.as_bytes());
    }
    let _ = write!(out, "\r\n${}\r\n", payload.len());
    out.extend_from_slice(&payload);
    out.extend_from_slice(b"\r\n");
    out
}

/// How many received a PUBLISH.
pub fn count(value: &Value) -> u64 {
    match value {
        Value::Int(count) => u64::try_from(*count).unwrap_or(0),
        _ => 0,
    }
}

/// A reply as text, if it is text.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The reply to INFO.
pub fn info(value: &Value) -> String {
    match value {
        Value::VerbatimString { text, .. } => text.clone(),
        value => text(value).unwrap_or_default().to_owned(),
    }
}

/// The names in a list of channels, without what they all begin with.
pub fn names(value: &Value, prefix: &str) -> Vec<String> {
    let Value::Array(channels) = value else {
        return Vec::new();
    };
    let name = |channel| Some(text(channel)?.strip_prefix(prefix)?.to_owned());
    channels.iter().filter_map(name).collect()
}

/// The three parts of what a connection receives that has subscribed: the kind, the channel, and the payload or a number.
pub fn message(value: &Value) -> Option<(&[u8], &str, &Value)> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [Value::BulkString(kind), Value::BulkString(channel), last] = &parts[..] else {
        return None;
    };
    Some((kind, std::str::from_utf8(channel).ok()?, last))
}

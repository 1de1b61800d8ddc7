//! The tests' own reading of the wire protocol, so that a fault of the relay's codec cannot hide behind itself.
//!
//! Stricter than a client has to be: whatever the relay writes must be a perfect frame, in every test. It never prints
//! data bytes; a body that differs is described by its lengths and the place of the first difference.

use std::collections::BTreeMap;

/// The longest line the protocol allows, without its LF.
pub const LINE_BYTES_MAX: usize = 1024;

/// One frame as it came from the relay.
#[derive(Clone)]
pub struct Frame {
    /// `MSG`, `OK`, `ERR` …
    pub verb: String,
    /// The line as it was, without its LF.
    pub line: String,
    /// What follows the line, if it announced any.
    pub data: Option<Vec<u8>>,
    fields: BTreeMap<String, String>,
}

impl Frame {
    /// Takes one frame off the front of `bytes`: the frame and how many bytes it took, or `None` if it is not whole yet.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
            return match bytes.len() > LINE_BYTES_MAX {
                true => Err(format!("{} bytes without an LF", bytes.len())),
                false => Ok(None),
            };
        };
        if end > LINE_BYTES_MAX {
            return Err(format!("a line of {end} bytes"));
        }
        let mut frame = Self::parse_line(&bytes[..end])?;
        let Some(length) = frame.data.as_ref().map(Vec::len) else {
            return Ok(Some((frame, end + 1)));
        };
        let Some(data) = bytes.get(end + 1..end + 1 + length) else {
            return Ok(None);
        };
        match bytes.get(end + 1 + length) {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(other) => return Err(format!("byte {other:#04x}, not LF, after the data")),
        }
        frame.data = Some(data.to_vec());
        Ok(Some((frame, end + 2 + length)))
    }

    /// Reads a line without its LF. Announced data is there as so many zero bytes, to be filled in.
    fn parse_line(line: &[u8]) -> Result<Self, String> {
        if let Some(byte) = line.iter().find(|b| !matches!(b, 0x20..=0x7e)) {
            return Err(format!("byte {byte:#04x} in a line"));
        }
        let line = String::from_utf8_lossy(line).into_owned();
        let mut tokens = line.split(' ');
        let verb = tokens.next().unwrap_or_default().to_owned();
        if verb.is_empty() || !verb.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(format!("no verb at the start of {line:?}"));
        }
        let mut fields = BTreeMap::new();
        let mut length = None;
        for token in tokens {
            let Some((key, value)) = token.split_once('=') else {
                return Err(format!("{token:?} is no key=value in {line:?}"));
            };
            if length.is_some() {
                return Err(format!("something after the length in {line:?}"));
            }
            if key.is_empty() {
                length = Some(
                    value
                        .parse::<usize>()
                        .map_err(|e| format!("{line:?}: {e}"))?,
                );
            } else if fields.insert(key.to_owned(), unescape(value)?).is_some() {
                return Err(format!("{key} twice in {line:?}"));
            }
        }
        let data = length.map(|length| vec![0; length]);
        Ok(Self {
            verb,
            line,
            data,
            fields,
        })
    }

    /// The value of `key`, unescaped.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(String::as_str)
    }

    /// The value of `key`, which must be there.
    pub fn field(&self, key: &str) -> &str {
        self.get(key)
            .unwrap_or_else(|| panic!("no {key}= in {:?}", self.line))
    }

    /// A MSG's first `h` bytes: the request line and the forwarded headers.
    pub fn head(&self) -> &[u8] {
        &self.data.as_deref().unwrap_or_default()[..self.head_bytes()]
    }

    /// The data after the head.
    pub fn body(&self) -> &[u8] {
        &self.data.as_deref().unwrap_or_default()[self.head_bytes()..]
    }

    fn head_bytes(&self) -> usize {
        self.get("h")
            .map_or(0, |h| h.parse().expect("h is a number"))
    }

    /// Whether this is what `pattern` describes: the same verb, every key of the pattern with the same value (`*`: any
    /// but an empty one), and data exactly if the pattern ends in `=<length>` (`=*`: any length). Further keys may be there.
    pub fn matches(&self, pattern: &str) -> Result<(), String> {
        let mut tokens = pattern.split(' ');
        let verb = tokens.next().unwrap_or_default();
        if verb != self.verb {
            return Err(format!("expected {verb}, got {:?}", self.line));
        }
        let mut wants_data = false;
        for token in tokens {
            let (key, wanted) = token
                .split_once('=')
                .expect("patterns are made of key=value");
            let got = match key {
                "" => {
                    wants_data = true;
                    self.data.as_ref().map(|data| data.len().to_string())
                }
                _ => self.get(key).map(str::to_owned),
            };
            let matches = match (wanted, &got) {
                ("*", Some(got)) => !got.is_empty(),
                (wanted, Some(got)) => unescape(wanted)? == *got,
                (_, None) => false,
            };
            if !matches {
                return Err(format!(
                    "expected {pattern:?}, got {:?} ({key} differs)",
                    self.line
                ));
            }
        }
        match wants_data == self.data.is_some() {
            true => Ok(()),
            false => Err(format!("expected {pattern:?}, got {:?} (data)", self.line)),
        }
    }
}

/// Says where two bodies differ, without showing either; `None` if they are the same.
pub fn difference(wanted: &[u8], got: &[u8]) -> Option<String> {
    if wanted == got {
        return None;
    }
    let at = wanted.iter().zip(got).take_while(|(a, b)| a == b).count();
    Some(format!(
        "{} bytes wanted, {} got, the first difference at {at}",
        wanted.len(),
        got.len()
    ))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|d| d.map(char::from));
                let hex = digits.map(|d| d.and_then(|d| d.to_digit(16)));
                let [Some(high), Some(low)] = hex else {
                    return Err(format!("a bad escape in {value:?}"));
                };
                bytes.push((high * 16 + low) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("{value:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Frame {
        let (frame, taken) = Frame::parse(bytes).expect("a frame").expect("whole");
        assert_eq!(taken, bytes.len());
        frame
    }

    #[test]
    fn a_frame_is_whole_or_waited_for() {
        let whole = b"MSG id=1 route=%2Fa%20b h=2 =4\nxyAB\n";
        for cut in 0..whole.len() {
            assert!(
                Frame::parse(&whole[..cut])
                    .expect("so far so good")
                    .is_none()
            );
        }
        let frame = frame(whole);
        assert_eq!(frame.field("route"), "/a b");
        assert_eq!((frame.head(), frame.body()), (&b"xy"[..], &b"AB"[..]));
    }

    #[test]
    fn what_is_no_perfect_frame_is_an_error() {
        let long = [vec![b'A'; 1100], b"\n".to_vec()].concat();
        let bad: [&[u8]; 8] = [
            b"\n",
            b"msg\n",
            b"OK  a=1\n",
            b"OK a=1 a=2\n",
            b"OK\r\n",
            b"M =1\nabc",
            b"OK a=%4\n",
            &long,
        ];
        for bytes in bad {
            assert!(
                Frame::parse(bytes).is_err(),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn a_pattern_is_the_least_that_must_be_there() {
        let msg = frame(b"MSG id=7 try=1 route=%2Fx =1\nA\n");
        for good in [
            "MSG =1",
            "MSG id=* =*",
            "MSG route=/x =1",
            "MSG route=%2Fx try=1 =1",
        ] {
            assert_eq!(msg.matches(good), Ok(()), "{good}");
        }
        for bad in ["MSG", "MSG id=8 =1", "MSG at=* =1", "MSG =2", "OK =1"] {
            assert!(msg.matches(bad).is_err(), "{bad}");
        }
    }
}

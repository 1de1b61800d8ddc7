//! Reads Redis's replies and messages (RESP2) out of what comes over a connection.
//!
//! Into the crate's values, but not by the crate's parser. That one can stop within every token, and pays for it with allocations
//! for each value, on the way of every notification.

use std::io::{self, Read};

use redis::{RedisError, Value};

/// What a connection keeps for input, in bytes.
const ROOM: usize = 16 * 1024;

/// The longest string that Redis takes, unless its operator says otherwise (`proto-max-bulk-len`).
const STRING_BYTES_MAX: usize = 512 << 20;

/// The longest line: of an error, a status or a number.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How deep arrays lie in each other at most; EVAL, PUBSUB and the rest answer with two.
const DEPTH_MAX: usize = 8;

/// How many values an array gets room for in advance: what is announced has not come yet.
const IN_ADVANCE: usize = 64;

/// What has come and was not read yet.
#[derive(Default)]
pub struct Replies {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Replies {
    /// Reads one value, for which it waits on `stream`. When that fails, what has come of the value is kept.
    ///
    /// # Errors
    /// The stream's, that it has ended, or that this is not Redis. What Redis refuses is a value.
    pub fn next(&mut self, stream: &mut impl Read) -> Result<Value, RedisError> {
        loop {
            let mut input = Input {
                bytes: &self.bytes[self.start..self.end],
                at: 0,
            };
            match input.value(0) {
                Ok(value) => {
                    self.start += input.at;
                    self.tidy();
                    return Ok(value);
                }
                Err(Stop::Short(missing)) => self.receive(stream, missing)?,
                Err(Stop::Strange) => {
                    let words = "what came is no reply of Redis's";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, words).into());
                }
            }
        }
    }

    /// Receives once, into room for `missing` bytes, or for as much again as there is: memory follows what has come.
    fn receive(&mut self, stream: &mut impl Read, missing: usize) -> io::Result<()> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let wanted = self.end + missing.min(self.end.max(ROOM));
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.next_power_of_two().max(ROOM), 0);
        }
        match stream.read(&mut self.bytes[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.end += read;
                Ok(())
            }
        }
    }

    fn tidy(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // A large value was an exception.
            if self.bytes.len() > 4 * ROOM {
                self.bytes = Vec::new();
            }
        }
    }
}

/// Why there is no value.
enum Stop {
    /// At least so many bytes have not come yet.
    Short(usize),
    /// This is not RESP2.
    Strange,
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        let line = self.line()?;
        let Some((kind, rest)) = line.split_first() else {
            return Err(Stop::Strange);
        };
        Ok(match kind {
            b'$' => match length(rest)? {
                None => Value::Nil,
                Some(bytes) if bytes <= STRING_BYTES_MAX => {
                    Value::BulkString(self.string(bytes)?.to_vec())
                }
                Some(_) => return Err(Stop::Strange),
            },
            b'*' => match length(rest)? {
                None => Value::Nil,
                Some(_) if depth == DEPTH_MAX => return Err(Stop::Strange),
                Some(count) => {
                    let mut values = Vec::with_capacity(count.min(IN_ADVANCE));
                    for _ in 0..count {
                        values.push(self.value(depth + 1)?);
                    }
                    Value::Array(values)
                }
            },
            b':' => Value::Int(number(rest)?),
            // The crate knows what errors mean.
            b'+' | b'-' => {
                let whole = [line, b"\r\n"].concat();
                redis::parse_redis_value(&whole).map_err(|_| Stop::Strange)?
            }
            _ => return Err(Stop::Strange),
        })
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(match rest.len() > LINE_BYTES_MAX {
                true => Stop::Strange,
                false => Stop::Short(1),
            });
        };
        self.at += end + 1;
        rest[..end].strip_suffix(b"\r").ok_or(Stop::Strange)
    }

    fn string(&mut self, bytes: usize) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let Some((string, end)) = rest.get(..bytes + 2).map(|both| both.split_at(bytes)) else {
            return Err(Stop::Short(bytes + 2 - rest.len()));
        };
        self.at += bytes + 2;
        match end {
            b"\r\n" => Ok(string),
            _ => Err(Stop::Strange),
        }
    }
}

/// A length; `None`: there is nothing, not even an empty string or array.
fn length(digits: &[u8]) -> Result<Option<usize>, Stop> {
    match number(digits)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Stop::Strange),
    }
}

fn number(digits: &[u8]) -> Result<i64, Stop> {
    let text = std::str::from_utf8(digits).map_err(|_| Stop::Strange)?;
    text.parse().map_err(|_| Stop::Strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces; between two of them a read fails, as one that has waited for long.
    struct Pieces<'a> {
        left: &'a [u8],
        piece: usize,
        fails: bool,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.fails = !self.fails;
            if self.fails {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let (now, later) = self.left.split_at(self.piece.min(self.left.len()));
            let (now, rest) = now.split_at(now.len().min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            self.left = &self.left[now.len()..];
            assert_eq!(rest.len() + later.len(), self.left.len());
            Ok(now.len())
        }
    }

    const ALL: &[&str] = &[
        "+OK\r\n",
        "+PONG\r\n",
        ":0\r\n",
        ":-12\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "$0\r\n\r\n",
        "$7\r\na\r\nb\r\nc\r\n",
        "*0\r\n",
        "*3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n$5\r\nhello\r\n",
        "*2\r\n*2\r\n:1\r\n$-1\r\n*1\r\n+x\r\n",
        "-ERR unknown command\r\n",
        "-MOVED 7 127.0.0.1:7001\r\n",
        "*2\r\n-READONLY no\r\n:1\r\n",
    ];

    #[test]
    fn values_are_those_of_the_crate_however_they_are_cut() {
        let large = format!("$100000\r\n{}\r\n", "x".repeat(100_000));
        let all: Vec<&str> = ALL.iter().copied().chain([&*large, ":1\r\n"]).collect();
        let stream = all.concat();
        for piece in [1, 2, 3, 7, 4096, 1 << 20] {
            let mut pieces = Pieces {
                left: stream.as_bytes(),
                piece,
                fails: false,
            };
            let mut replies = Replies::default();
            for text in &all {
                let value = loop {
                    match replies.next(&mut pieces) {
                        Ok(value) => break value,
                        Err(error) => assert!(error.is_timeout(), "{error}"),
                    }
                };
                let of_crate = redis::parse_redis_value(text.as_bytes()).expect("a value");
                assert_eq!(value, of_crate, "{piece}");
            }
            assert_eq!(replies.start, replies.end);
            assert!(replies.bytes.len() <= 4 * ROOM, "{}", replies.bytes.len());
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_and_nothing_is_kept_for_what_is_only_announced() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 2);
        let line = "+".repeat(LINE_BYTES_MAX + 2);
        for text in [
            "\r\n",
            "HTTP/1.1 200 OK\r\n",
            "$x\r\n",
            "$-2\r\n",
            ":\r\n",
            ":1\n",
            "*-2\r\n",
            "$3\r\nabcde",
            "$9999999999\r\n",
            ">1\r\n:1\r\n",
            &deep,
            &line,
        ] {
            let error = Replies::default().next(&mut text.as_bytes());
            let error = error.expect_err(text).to_string();
            assert!(error.contains("no reply of Redis's"), "{text:?}: {error}");
        }
        for announced in ["$500000000\r\nabc", "*2000000000\r\n:1\r\n", "$5\r\nab", ""] {
            let mut replies = Replies::default();
            let error = replies.next(&mut announced.as_bytes());
            let error = error.expect_err(announced);
            assert!(error.is_connection_dropped(), "{announced:?}: {error}");
            assert!(replies.bytes.len() <= 2 * ROOM, "{}", replies.bytes.len());
        }
    }
}

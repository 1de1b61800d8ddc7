//! What a relay says to a backend: frames out of a stream of bytes, however it is cut.
//!
//! No socket, no thread, and no opinion on what to do about a frame.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use payrelay::notification::BackendId;
use payrelay::wire::{self, FrameError, Line};

/// What a MSG may have beyond the relay's `max_body`: the forwarded head. The relay takes heads of at most 16 KiB.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The longest time a relay can ask for: an hour. What it says is added to clocks.
const SECONDS_MAX: Duration = Duration::from_secs(3600);

/// One `read(2)` asks for this much.
const READ_BYTES: usize = 64 * 1024;

/// One thing the relay said.
#[derive(Clone, Debug, PartialEq)]
pub enum RelayFrame {
    /// The HELLO was accepted.
    Ok(Accepted),
    /// A notification.
    Msg(Box<Message>),
    /// PING: answer PONG.
    Ping,
    /// PONG.
    Pong,
    /// Something was refused.
    Err(ErrFrame),
    /// The relay ends the session.
    Bye {
        /// takeover, drain, idle, slow, protocol
        reason: String,
        /// Not to come back before this has passed.
        retry: Option<Duration>,
    },
    /// A verb of a later version: skipped, with its data.
    Other(String),
}

/// What OK tells about the session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// The instance that answered.
    pub node: String,
    /// The session's number there.
    pub session: String,
    /// The relay PINGs after this much silence; `None` if it did not say.
    pub heartbeat: Option<Duration>,
}

/// What ERR says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrFrame {
    /// The word a program acts on.
    pub code: String,
    /// The words a person reads.
    pub msg: String,
    /// The connection is over.
    pub fatal: bool,
}

/// A notification as it came over the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The notification's id, as it stands in the frame.
    pub id: String,
    /// Which delivery this is.
    pub tries: String,
    /// The route it came in by.
    pub route: String,
    /// Which preset verified its signature.
    pub verified: String,
    /// What makes a provider's retry the same event; empty if the route does not say.
    pub event: String,
    /// When the relay took it, in Unix milliseconds.
    pub at: String,
    /// The request line and the forwarded headers.
    pub head: Vec<u8>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

/// Why no more can be read.
#[derive(Debug)]
pub enum FrameReadError {
    /// The relay closed the connection, between two frames or within one.
    Closed,
    /// The system's reason.
    Io(io::Error),
    /// What came is no frame of this protocol.
    Frame(FrameError),
    /// A frame announces more than the relay said it would send.
    TooBig(usize),
    /// A MSG without an id, or with more head than data.
    BadMsg,
}

impl fmt::Display for FrameReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the relay closed the connection"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Frame(error) => write!(f, "the other side does not speak this protocol: {error}"),
            Self::TooBig(bytes) => write!(f, "the relay announced {bytes} bytes of data, too many"),
            Self::BadMsg => f.write_str("the relay sent a MSG without an id or with a wrong h"),
        }
    }
}

impl std::error::Error for FrameReadError {}

/// Writes who is here, and how many MSG may be unacknowledged.
pub fn hello(out: &mut Vec<u8>, id: &BackendId, token: Option<&str>, max: u32) {
    let mut line = wire::line(out, "HELLO").number(1).arg("id", id.as_str());
    if let Some(token) = token {
        line = line.arg("token", token);
    }
    line.plain("max", max).end();
}

/// Reads frames off a stream of bytes, however it is cut into pieces.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    next: usize,
    /// Grows with the OK: until then the relay has no reason to send data.
    data_bytes_max: usize,
}

impl<R: Read> FrameReader<R> {
    /// A reader at the beginning of `source`.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            next: 0,
            data_bytes_max: 0,
        }
    }

    /// Waits for one whole frame.
    ///
    /// # Errors
    /// The stream ended or broke, or what came is no frame; nothing more can be read then.
    pub fn read(&mut self) -> Result<RelayFrame, FrameReadError> {
        loop {
            if let Some(heard) = self.take()? {
                return Ok(heard);
            }
            self.fill()?;
        }
    }

    /// The next frame, if the buffer holds the whole of it.
    fn take(&mut self) -> Result<Option<RelayFrame>, FrameReadError> {
        let input = &self.buffer[self.next..];
        let Some((line, used)) = Line::find(input).map_err(FrameReadError::Frame)? else {
            return Ok(None);
        };
        let data_bytes = line.data_bytes.unwrap_or(0);
        if data_bytes > self.data_bytes_max {
            return Err(FrameReadError::TooBig(data_bytes));
        }
        let whole = used.saturating_add(line.data_bytes.map_or(0, |bytes| bytes.saturating_add(1)));
        if input.len() < whole {
            return Ok(None);
        }
        if line.data_bytes.is_some() && input[whole - 1] != b'\n' {
            return Err(FrameReadError::Frame(FrameError::UnendedData));
        }
        let heard = RelayFrame::of(&line, &input[used..used + data_bytes])?;
        if let (RelayFrame::Ok(_), Some(max_body)) = (&heard, number(&line, "max_body")) {
            self.data_bytes_max = max_body.saturating_add(HEAD_BYTES_MAX);
        }
        self.next += whole;
        Ok(Some(heard))
    }

    fn fill(&mut self) -> Result<(), FrameReadError> {
        self.buffer.drain(..self.next);
        self.next = 0;
        let have = self.buffer.len();
        self.buffer.resize(have + READ_BYTES, 0);
        let came = loop {
            match self.source.read(&mut self.buffer[have..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                came => break came,
            }
        };
        self.buffer.truncate(have + *came.as_ref().unwrap_or(&0));
        match came {
            Ok(0) => Err(FrameReadError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(FrameReadError::Io(error)),
        }
    }
}

impl RelayFrame {
    /// What a line with its data says.
    ///
    /// # Errors
    /// [`FrameReadError::BadMsg`].
    pub fn of(line: &Line<'_>, data: &[u8]) -> Result<Self, FrameReadError> {
        Ok(match line.verb {
            "OK" => Self::Ok(Accepted {
                node: text(line, "node"),
                session: text(line, "session"),
                heartbeat: seconds(line, "heartbeat"),
            }),
            "MSG" => Self::Msg(Box::new(message(line, data)?)),
            "PING" => Self::Ping,
            "PONG" => Self::Pong,
            "ERR" => Self::Err(ErrFrame {
                code: text(line, "code"),
                msg: text(line, "msg"),
                fatal: line.raw("fatal") == Some("1"),
            }),
            "BYE" => Self::Bye {
                reason: text(line, "reason"),
                retry: seconds(line, "retry"),
            },
            other => Self::Other(other.to_owned()),
        })
    }
}

fn message(line: &Line<'_>, data: &[u8]) -> Result<Message, FrameReadError> {
    let id = text(line, "id");
    let head_bytes = match line.raw("h") {
        None => 0,
        Some(_) => number(line, "h").ok_or(FrameReadError::BadMsg)?,
    };
    let (head, body) = data
        .split_at_checked(head_bytes)
        .ok_or(FrameReadError::BadMsg)?;
    if id.is_empty() {
        return Err(FrameReadError::BadMsg);
    }
    Ok(Message {
        id,
        tries: text(line, "try"),
        route: text(line, "route"),
        verified: text(line, "verified"),
        event: text(line, "event"),
        at: text(line, "at"),
        head: head.to_vec(),
        body: body.to_vec(),
    })
}

fn text(line: &Line<'_>, key: &str) -> String {
    line.text(key).unwrap_or_default().into_owned()
}

fn number(line: &Line<'_>, key: &str) -> Option<usize> {
    line.raw(key)?.parse().ok()
}

fn seconds(line: &Line<'_>, key: &str) -> Option<Duration> {
    let seconds = Duration::try_from_secs_f64(line.raw(key)?.parse().ok()?).ok()?;
    Some(seconds.min(SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of one size.
    struct Drip<'a> {
        rest: &'a [u8],
        piece: usize,
    }

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.piece.min(self.rest.len()).min(into.len());
            let (now, later) = self.rest.split_at(count);
            into[..count].copy_from_slice(now);
            self.rest = later;
            Ok(count)
        }
    }

    fn read_in_pieces(bytes: &[u8], piece: usize) -> (Vec<RelayFrame>, FrameReadError) {
        let mut frames = FrameReader::new(Drip { rest: bytes, piece });
        let mut all = Vec::new();
        loop {
            match frames.read() {
                Ok(heard) => all.push(heard),
                Err(error) => return (all, error),
            }
        }
    }

    const OK: &[u8] = b"OK id=game-01 node=pay-1-0a1b2c session=3 heartbeat=20 max_body=1048576\n";

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let mut bytes = OK.to_vec();
        bytes.extend_from_slice(
            b"MSG id=01A try=2 route=/notify/%7Bid%7D verified=none event=a%20b at=17 h=4 =9\nX\r\n\r\n\0\xff\nM\nPING\n",
        );
        bytes.extend_from_slice(b"MSG id=01B try=1 route=r verified=none at=18 h=0 =0\n\n");
        bytes.extend_from_slice(b"EVENT ch=x =3\nabc\nERR code=unknown-id id=01A msg=no%20such\n");
        bytes.extend_from_slice(b"BYE reason=drain retry=1.5\nBYE reason=x retry=1e19\n");
        let expected = vec![
            RelayFrame::Ok(Accepted {
                node: "pay-1-0a1b2c".into(),
                session: "3".into(),
                heartbeat: Some(Duration::from_secs(20)),
            }),
            RelayFrame::Msg(Box::new(Message {
                id: "01A".into(),
                tries: "2".into(),
                route: "/notify/{id}".into(),
                verified: "none".into(),
                event: "a b".into(),
                at: "17".into(),
                head: b"X\r\n\r".to_vec(),
                body: b"\n\0\xff\nM".to_vec(),
            })),
            RelayFrame::Ping,
            RelayFrame::Msg(Box::new(Message {
                id: "01B".into(),
                tries: "1".into(),
                route: "r".into(),
                verified: "none".into(),
                at: "18".into(),
                ..Message::default()
            })),
            RelayFrame::Other("EVENT".into()),
            RelayFrame::Err(ErrFrame {
                code: "unknown-id".into(),
                msg: "no such".into(),
                fatal: false,
            }),
            RelayFrame::Bye {
                reason: "drain".into(),
                retry: Some(Duration::from_millis(1500)),
            },
            RelayFrame::Bye {
                reason: "x".into(),
                retry: Some(SECONDS_MAX),
            },
        ];
        for piece in 1..bytes.len() + 1 {
            let (all, end) = read_in_pieces(&bytes, piece);
            assert_eq!(all, expected, "in pieces of {piece}");
            assert!(matches!(end, FrameReadError::Closed));
        }
    }

    #[test]
    fn a_relay_that_breaks_the_protocol_is_found_out() {
        let after_ok = |bytes: &[u8]| {
            let mut all = OK.to_vec();
            all.extend_from_slice(bytes);
            read_in_pieces(&all, 7).1
        };
        assert!(matches!(
            after_ok(b"MSG id=1 =2\nabc"),
            FrameReadError::Frame(FrameError::UnendedData)
        ));
        assert!(matches!(
            after_ok(b"MSG id=1 =1081345\n"),
            FrameReadError::TooBig(1_081_345)
        ));
        assert!(matches!(
            after_ok(b"MSG h=0 =0\n\n"),
            FrameReadError::BadMsg
        ));
        let boasts = b"OK max_body=18446744073709551615\nMSG id=1 =9999999999\n";
        assert!(matches!(
            read_in_pieces(boasts, 99).1,
            FrameReadError::Closed
        ));
        assert!(matches!(
            after_ok(b"MSG id=1 h=3 =2\nab\n"),
            FrameReadError::BadMsg
        ));
        assert!(matches!(
            after_ok(b"HTTP/1.1 400 Bad Request\r\n"),
            FrameReadError::Frame(_)
        ));
        assert!(matches!(
            read_in_pieces(b"MSG id=1 =1\na\n", 99).1,
            FrameReadError::TooBig(1)
        ));
    }
}

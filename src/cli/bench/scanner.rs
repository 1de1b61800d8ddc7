//! What a relay says to one of thousands of backends, out of bytes however they are cut. Bodies are looked at as they
//! pass and never held: a backend keeps a part of a line at most.

use payrelay::wire::{FrameError, Line};

use super::stamp::{BodyStamp, END, FILLING, STAMP_BYTES};
use crate::client::frames::RelayFrame;

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    /// A notification, whole.
    Arrival(Arrival),
    /// Any other line; of one with data, whose data is skipped, nothing is told.
    Line(RelayFrame),
}

/// A notification that has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The relay's id for it.
    pub id: String,
    /// What its body says of itself; `None`: it is no benchmark's.
    pub stamp: Option<BodyStamp>,
    /// How long its body was.
    pub body_bytes: usize,
    /// Whether every byte after the stamp was what a benchmark posts.
    pub intact: bool,
}

/// The bytes of one connection.
#[derive(Debug, Default)]
pub struct FrameScanner {
    /// A part of a line.
    rest: Vec<u8>,
    /// A frame whose data is passing.
    passing: Option<Passing>,
}

/// Data on its way past.
#[derive(Debug)]
struct Passing {
    /// The notification's id; `None`: data of a verb that means nothing here.
    id: Option<String>,
    /// Forwarded headers that stand before the body.
    head_bytes: usize,
    /// Head and body.
    data_bytes: usize,
    /// How much has passed, the LF behind the data included.
    at: usize,
    stamp: [u8; STAMP_BYTES],
    intact: bool,
}

impl FrameScanner {
    /// Takes `bytes` and tells what they complete.
    ///
    /// # Errors
    /// What came is no frame; nothing after it can be understood.
    pub fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(Came)) -> Result<(), FrameError> {
        let mut kept = std::mem::take(&mut self.rest);
        let all = match kept.is_empty() {
            true => bytes,
            false => {
                kept.extend_from_slice(bytes);
                &kept
            }
        };
        let mut input = all;
        while !input.is_empty() {
            if let Some(passing) = &mut self.passing {
                input = passing.pass(input)?;
                if passing.is_past() {
                    if let Some(arrival) = passing.arrival() {
                        tell(Came::Arrival(arrival));
                    }
                    self.passing = None;
                }
                continue;
            }
            let Some((line, used)) = Line::find(input)? else {
                break;
            };
            input = &input[used..];
            match (line.data_bytes, RelayFrame::of(&line, &[])) {
                (Some(data_bytes), _) => self.passing = Some(Passing::after(&line, data_bytes)),
                (None, Ok(heard)) => tell(Came::Line(heard)),
                (None, Err(_)) => {} // a MSG without data is none
            }
        }
        self.rest = input.to_vec();
        Ok(())
    }
}

impl Passing {
    fn after(line: &Line<'_>, data_bytes: usize) -> Self {
        let head_bytes = line.raw("h").and_then(|h| h.parse().ok()).unwrap_or(0);
        Self {
            id: (line.verb == "MSG").then(|| line.text("id").unwrap_or_default().into_owned()),
            head_bytes,
            data_bytes,
            at: 0,
            stamp: [0; STAMP_BYTES],
            intact: head_bytes <= data_bytes,
        }
    }

    fn is_past(&self) -> bool {
        self.at == self.data_bytes + 1
    }

    /// Looks at what of `input` belongs to the data, piece by piece, and gives back what follows.
    fn pass<'a>(&mut self, mut input: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let stamp_at = self.head_bytes.min(self.data_bytes);
        let filling_at = (stamp_at + STAMP_BYTES).min(self.data_bytes);
        let end_at = self.data_bytes.saturating_sub(END.len()).max(filling_at);
        while !input.is_empty() && !self.is_past() {
            let at = self.at;
            let mut take_until = |until: usize| {
                let (piece, rest) = input.split_at(input.len().min(until - at));
                self.at += piece.len();
                input = rest;
                piece
            };
            if at < stamp_at {
                take_until(stamp_at);
            } else if at < filling_at {
                let piece = take_until(filling_at);
                self.stamp[at - stamp_at..][..piece.len()].copy_from_slice(piece);
            } else if at < end_at {
                let piece = take_until(end_at.min(at + FILLING.len()));
                self.intact &= piece == &FILLING[..piece.len()];
            } else if at < self.data_bytes {
                let piece = take_until(self.data_bytes);
                self.intact &= END[at - end_at..].starts_with(piece);
            } else if take_until(at + 1) != b"\n" {
                return Err(FrameError::UnendedData);
            }
        }
        Ok(input)
    }

    fn arrival(&mut self) -> Option<Arrival> {
        Some(Arrival {
            id: self.id.take()?,
            stamp: BodyStamp::read(&self.stamp),
            body_bytes: self.data_bytes.saturating_sub(self.head_bytes),
            intact: self.intact,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::stamp::BODY_BYTES_MIN;
    use crate::client::frames::{Accepted, ErrFrame};
    use std::time::Duration;

    fn body(n: u64, filling: usize) -> Vec<u8> {
        let mut body = Vec::new();
        BodyStamp {
            run: 9,
            n,
            at_ns: n,
        }
        .write(&mut body);
        body.extend(vec![b'x'; filling]);
        body.extend_from_slice(END);
        body
    }

    fn frame(id: &str, head: &[u8], body: &[u8]) -> Vec<u8> {
        let (h, bytes) = (head.len(), head.len() + body.len());
        let line = format!("MSG id={id} try=1 route=r at=1 h={h} ={bytes}\n");
        [line.as_bytes(), head, body, b"\n"].concat()
    }

    fn in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Came>, FrameError> {
        let (mut scanner, mut all) = (FrameScanner::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            scanner.take(piece, |came| all.push(came))?;
            assert!(
                scanner.rest.len() <= 1024,
                "{} bytes kept",
                scanner.rest.len()
            );
        }
        Ok(all)
    }

    fn arrival(id: &str, n: u64, filling: usize) -> Came {
        Came::Arrival(Arrival {
            id: id.into(),
            stamp: Some(BodyStamp {
                run: 9,
                n,
                at_ns: n,
            }),
            body_bytes: BODY_BYTES_MIN + filling,
            intact: true,
        })
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let mut bytes = b"OK id=bench-1 node=x max_body=9\n".to_vec();
        bytes.extend(frame("A", b"", &body(0, 0)));
        bytes.extend(frame("B", b"POST / HTTP/1.1\r\n", &body(1, 1)));
        bytes.extend_from_slice(b"DATA =3\na\nb\nPING\n");
        bytes.extend(frame("C", b"", &body(2, 500)));
        bytes.extend_from_slice(b"ERR code=limit msg=a%20b fatal=1\nBYE reason=drain retry=1\n");
        let expected = [
            Came::Line(RelayFrame::Ok(Accepted {
                node: "x".into(),
                ..Accepted::default()
            })),
            arrival("A", 0, 0),
            arrival("B", 1, 1),
            Came::Line(RelayFrame::Ping),
            arrival("C", 2, 500),
            Came::Line(RelayFrame::Err(ErrFrame {
                code: "limit".into(),
                msg: "a b".into(),
                fatal: true,
            })),
            Came::Line(RelayFrame::Bye {
                reason: "drain".into(),
                retry: Some(Duration::from_secs(1)),
            }),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(
                in_pieces(&bytes, piece).expect("frames"),
                expected,
                "{piece}"
            );
        }
    }

    #[test]
    fn a_body_larger_than_the_filling_passes_and_every_changed_byte_is_seen() {
        let large = body(3, 3 * FILLING.len() + 7);
        let all = in_pieces(&frame("L", b"", &large), 50_000).expect("a frame");
        assert_eq!(all, [arrival("L", 3, 3 * FILLING.len() + 7)]);

        let good = body(4, 40);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let heard = in_pieces(&frame("M", b"h", &bad), 33).expect("a frame");
            let [Came::Arrival(message)] = &heard[..] else {
                panic!("{heard:?}");
            };
            let same = message.stamp
                == Some(BodyStamp {
                    run: 9,
                    n: 4,
                    at_ns: 4,
                });
            assert!(!(same && message.intact), "byte {at} was changed");
        }
    }

    #[test]
    fn foreign_bodies_are_no_benchmarks_and_no_harm() {
        for body in [&b""[..], b"x", b"hello", &[0xff; 300]] {
            let heard = in_pieces(&frame("F", b"", body), 7).expect("a frame");
            assert!(matches!(&heard[..], [Came::Arrival(message)] if message.stamp.is_none()));
        }
        let lying = b"MSG id=A h=9 =2\nab\nPING\n";
        let heard = in_pieces(lying, 3).expect("frames");
        assert!(
            matches!(&heard[..], [Came::Arrival(message), Came::Line(RelayFrame::Ping)] if !message.intact)
        );
        assert!(in_pieces(b"MSG id=A h=0 =2\nabc\n", 99).is_err());
        assert!(in_pieces(b"HTTP/1.1 400 Bad\r\n", 5).is_err());
    }
}

//! Chunked bodies, decoded as they come in. Pure: bytes in, bytes or a refusal out.

use super::is_token;
use crate::edge::limits::{TRAILER_BYTES_MAX, TRAILERS_MAX};
use crate::edge::refusal::{Malformed, Refusal};

/// The longest extension of one chunk, in bytes. Nobody uses them; whoever sends more is up to something.
const CHUNK_EXTENSION_BYTES_MAX: usize = 256;

/// The most hex digits of a chunk's size: 4 GiB, far beyond any `max_body`, and no overflow in any parser.
const CHUNK_SIZE_DIGITS_MAX: u32 = 8;

/// Decodes a chunked body in place, piece by piece as it comes in.
#[derive(Debug)]
pub struct Chunks {
    place: ChunkState,
    body_max: usize,
    decoded: usize,
    trailer_bytes: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug)]
enum ChunkState {
    Size { digits: u32, size: u64 },
    Extension { size: u64, bytes: usize },
    SizeLf { size: u64 },
    Data { left: usize },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// What one piece of a chunked body came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of the piece belong to this body; all of them unless it is `done`.
    pub consumed: usize,
    /// How many bytes of data there were; they lie at the front of the piece now.
    pub kept: usize,
    /// Whether the body has ended.
    pub done: bool,
}

impl Chunks {
    /// A decoder for one body of at most `body_max` bytes.
    pub fn new(body_max: usize) -> Self {
        Self {
            place: ChunkState::Size { digits: 0, size: 0 },
            body_max,
            decoded: 0,
            trailer_bytes: 0,
            trailers: 0,
        }
    }

    /// Decodes `piece`, the bytes that followed the last piece, moving its data to its front.
    ///
    /// # Errors
    /// What is not chunked, or would come to more than the limit. The decoder is useless after that.
    pub fn decode(&mut self, piece: &mut [u8]) -> Result<Decoded, Refusal> {
        let mut at = 0;
        let mut kept = 0;
        while at < piece.len() {
            if let ChunkState::Data { left } = self.place {
                let run = left.min(piece.len() - at);
                piece.copy_within(at..at + run, kept);
                at += run;
                kept += run;
                self.place = match left - run {
                    0 => ChunkState::DataCr,
                    left => ChunkState::Data { left },
                };
                continue;
            }
            let byte = piece[at];
            at += 1;
            match self.step(byte)? {
                Some(next) => self.place = next,
                None => {
                    return Ok(Decoded {
                        consumed: at,
                        kept,
                        done: true,
                    });
                }
            }
        }
        Ok(Decoded {
            consumed: at,
            kept,
            done: false,
        })
    }

    /// Takes one byte that is not data; `None`: it was the last.
    fn step(&mut self, byte: u8) -> Result<Option<ChunkState>, Refusal> {
        let bad = || Err(Refusal::from(Malformed::Chunk));
        let next = match self.place {
            ChunkState::Size { digits, size } => match (char::from(byte).to_digit(16), byte) {
                (Some(_), _) if digits == CHUNK_SIZE_DIGITS_MAX => return bad(),
                (Some(digit), _) => ChunkState::Size {
                    digits: digits + 1,
                    size: size * 16 + u64::from(digit),
                },
                (None, b';') if digits > 0 => ChunkState::Extension { size, bytes: 1 },
                (None, b'\r') if digits > 0 => ChunkState::SizeLf { size },
                (None, _) => return bad(),
            },
            ChunkState::Extension { size, bytes } => match byte {
                b'\r' => ChunkState::SizeLf { size },
                b'\t' | b' '..=b'~' if bytes < CHUNK_EXTENSION_BYTES_MAX => ChunkState::Extension {
                    size,
                    bytes: bytes + 1,
                },
                _ => return bad(),
            },
            ChunkState::SizeLf { size } if byte == b'\n' => self.begin(size)?,
            ChunkState::DataCr if byte == b'\r' => ChunkState::DataLf,
            ChunkState::DataLf if byte == b'\n' => ChunkState::Size { digits: 0, size: 0 },
            ChunkState::TrailerStart if byte == b'\r' => ChunkState::EndLf,
            ChunkState::TrailerStart | ChunkState::TrailerName => {
                self.count_trailer_byte()?;
                match byte {
                    b':' if matches!(self.place, ChunkState::TrailerName) => {
                        ChunkState::TrailerValue
                    }
                    _ if is_token(byte) => ChunkState::TrailerName,
                    _ => return bad(),
                }
            }
            ChunkState::TrailerValue => {
                self.count_trailer_byte()?;
                match byte {
                    b'\r' => ChunkState::TrailerLf,
                    b'\t' | b' '..=b'~' => ChunkState::TrailerValue,
                    _ => return bad(),
                }
            }
            ChunkState::TrailerLf if byte == b'\n' => {
                self.trailers += 1;
                if self.trailers > TRAILERS_MAX {
                    return Err(Refusal::TooManyTrailers);
                }
                ChunkState::TrailerStart
            }
            ChunkState::EndLf if byte == b'\n' => return Ok(None),
            ChunkState::SizeLf { .. }
            | ChunkState::Data { .. }
            | ChunkState::DataCr
            | ChunkState::DataLf
            | ChunkState::TrailerLf
            | ChunkState::EndLf => return bad(),
        };
        Ok(Some(next))
    }

    fn begin(&mut self, size: u64) -> Result<ChunkState, Refusal> {
        let Ok(size) = usize::try_from(size) else {
            return Err(self.too_long());
        };
        if size == 0 {
            return Ok(ChunkState::TrailerStart);
        }
        self.decoded = self.decoded.saturating_add(size);
        if self.decoded > self.body_max {
            return Err(self.too_long());
        }
        Ok(ChunkState::Data { left: size })
    }

    fn too_long(&self) -> Refusal {
        Refusal::BodyTooLong {
            length: None,
            most: self.body_max,
        }
    }

    fn count_trailer_byte(&mut self) -> Result<(), Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Refusal::TooManyTrailers);
        }
        Ok(())
    }
}

//! The limits of a request's head and trailers, which no configuration changes.

/// The longest head (request line, headers and the empty line), in bytes. Beyond it 431; larger than any provider sends.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most headers in a request. Beyond it 431; larger than any provider sends.
pub const HEADERS_MAX: usize = 64;

/// The longest trailer section, in bytes.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The most trailer lines.
pub const TRAILERS_MAX: usize = 32;

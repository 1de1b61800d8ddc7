//! TLS: the certificate that listeners show, and the records of one connection.
//!
//! TLS 1.2 and 1.3 by rustls; the cryptography is the crate's that signs tokens. Nothing here waits, owns a socket or knows
//! what is said inside: the edge and the sessions receive and send, each in its own way.
//!
//! | part | what lives there |
//! |---|---|
//! | `expiry` | until when a certificate is good. Pure |
//! | `identity` | certificate and key from their files, replaced while running |
//! | `offer` | what a client offers, for the log. Pure |
//! | `records` | one connection: sealed bytes to plain ones and back |

mod expiry;
mod identity;
mod offer;
mod records;

pub use expiry::not_after;
pub use identity::{BadIdentity, Identity};
pub use offer::Offer;
pub use records::{Alert, Opened, PIECES_MAX, Records};

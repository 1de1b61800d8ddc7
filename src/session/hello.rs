//! The first line of a connection: which backend it is, and whether it may connect. The session acts on the result.

use std::sync::Arc;

use super::token::Access;
use crate::notification::BackendId;
use crate::wire::Line;

/// The protocol version this relay speaks.
pub const PROTOCOL: &str = "1";

/// The most credit a session can ask for.
pub const CREDIT_MAX: usize = 1024;

/// The credit of a session that does not say.
pub const CREDIT_DEFAULT: usize = 16;

/// A HELLO that is accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Hello {
    /// The backend.
    pub id: BackendId,
    /// How many MSG it takes before it acknowledges one.
    pub credit: usize,
}

/// A HELLO that is refused: the error code, and the text for the person at the other end.
#[derive(Debug, PartialEq, Eq)]
pub struct HelloRefusal {
    /// `bad-hello`, `bad-token` or `not-allowed`.
    pub code: &'static str,
    /// What is wrong. Never says which ids exist.
    pub words: String,
    /// Who it says it is.
    pub id: Option<BackendId>,
}

fn bad_hello(words: impl Into<String>) -> HelloRefusal {
    HelloRefusal {
        code: "bad-hello",
        words: words.into(),
        id: None,
    }
}

/// Judges the first line of a connection.
///
/// # Errors
/// It is no HELLO, or one that is refused. All of them end the connection.
pub fn judge(line: &Line<'_>, access: &Arc<Access>) -> Result<Hello, HelloRefusal> {
    if line.verb != "HELLO" {
        return Err(bad_hello("the first line must be HELLO 1 id=<backend id>"));
    }
    if line.data_bytes.is_some() {
        return Err(bad_hello("HELLO has no data"));
    }
    match line.number {
        Some(PROTOCOL) => {}
        Some(other) => {
            return Err(bad_hello(format!(
                "protocol version {other} is not spoken here; this relay speaks {PROTOCOL}"
            )));
        }
        None => return Err(bad_hello("HELLO needs the protocol version: HELLO 1 id=…")),
    }
    let id = line
        .text("id")
        .ok_or_else(|| bad_hello("HELLO needs id=<backend id>"))?;
    let id = BackendId::parse(&id).map_err(|bad| bad_hello(bad.to_string()))?;
    let credit = match line.raw("max") {
        None => CREDIT_DEFAULT,
        Some(text) => credit(text)
            .ok_or_else(|| bad_hello(format!("max is a number from 0 to {CREDIT_MAX}")))?,
    };
    if !access.verifies_apart(&id, line.text("token").as_deref()) {
        return Err(HelloRefusal {
            code: "bad-token",
            words: "the token does not fit the id; payrelay token ID prints the right one".into(),
            id: Some(id),
        });
    }
    if !access.allows(&id) {
        return Err(HelloRefusal {
            code: "not-allowed",
            words: "this id is not in tcp.backends".into(),
            id: Some(id),
        });
    }
    Ok(Hello { id, credit })
}

/// Reads a credit: 0 to [`CREDIT_MAX`].
pub fn credit(text: &str) -> Option<usize> {
    let credit = text.parse().ok()?;
    (text.bytes().all(|b| b.is_ascii_digit()) && credit <= CREDIT_MAX).then_some(credit)
}

//! What the provider reads: prepared bytes, written once, by whichever thread learns the outcome.
//!
//! Through `Request::into_writer`, since tiny_http's own `Response` costs half as much again and can panic on a `TE`
//! header.

use std::io::Write;
use std::sync::Arc;

use tiny_http::Request;

use super::Refusal;
use super::route::Route;
use crate::notification::{NotificationId, Outcome};

/// An answer owed to a provider. Dropping it unpaid pays `fail`: the provider keeps the notification and tries again.
pub struct Owed {
    writer: Option<Box<dyn Write + Send>>,
    route: Arc<Route>,
    id: NotificationId,
}

impl Owed {
    /// The answer to `request`, which came in by `route` and became the notification `id`.
    pub fn new(request: Request, route: Arc<Route>, id: NotificationId) -> Self {
        Self {
            writer: Some(request.into_writer()),
            route,
            id,
        }
    }

    /// Answers as the route says for `outcome`.
    pub fn pay(mut self, outcome: Outcome) {
        self.write(outcome);
    }

    fn write(&mut self, outcome: Outcome) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        // Counted first: whoever has read the answer finds it in the figures.
        self.route.metrics.answered(outcome);
        let prepared = if outcome.is_ok() {
            &self.route.ok
        } else {
            &self.route.fail
        };
        let mut out = Vec::with_capacity(prepared.head.len() + prepared.body.len() + 96);
        out.extend_from_slice(&prepared.head);
        // A Vec takes everything.
        let _ = write!(
            out,
            "X-Payrelay-Id: {}\r\nX-Payrelay-Outcome: {}\r\n\r\n",
            self.id,
            outcome.as_str()
        );
        out.extend_from_slice(&prepared.body);
        send(writer, &out);
        log::debug!("{} for {}: {}", self.id, self.route.name, outcome.as_str());
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        // Only a panic on the way drops an answer unpaid.
        self.write(Outcome::Offline);
    }
}

/// Answers a request that made no notification.
pub fn refuse(request: Request, refusal: &Refusal) {
    let words = refusal.words();
    let allow = match refusal {
        Refusal::Method => "Allow: POST\r\n",
        Refusal::NoRoute | Refusal::NoId(_) | Refusal::BadId(_) | Refusal::NotAllowed => "",
    };
    let status = refusal.status();
    let out = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{allow}X-Payrelay-Outcome: {}\r\n\r\n{words}\n",
        reason(status),
        words.len() + 1,
        refusal.outcome(),
    );
    send(request.into_writer(), out.as_bytes());
}

/// Answers the edge's proof of a new lane.
pub fn probe(request: Request) {
    send(
        request.into_writer(),
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    );
}

/// Writes to the lane. Its other end is the edge, which waits to read just this; if it does not, nobody can be told.
fn send(mut writer: Box<dyn Write + Send>, bytes: &[u8]) {
    if let Err(error) = writer.write_all(bytes).and_then(|()| writer.flush()) {
        log::debug!("an answer was not taken: {error}");
    }
}

/// The reason phrase of the statuses that are answered here; the edge writes its own.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "-",
    }
}

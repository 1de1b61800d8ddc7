//! The provider's answer to one notification: how an outcome reads, by the route's `ok` and `fail`.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use crate::edge::{Responder, Response};
use crate::metrics::RouteMetrics;
use crate::notification::{NotificationId, Outcome};

/// Both answers of a route, and what counts them.
#[derive(Debug)]
pub struct AnswerForms {
    /// The route's name, for the log.
    pub route: Arc<str>,
    /// `ok`: delivered or stored.
    pub ok: PreparedReply,
    /// `fail`: the provider keeps the notification and tries again.
    pub fail: PreparedReply,
    /// What counts the answers.
    pub metrics: RouteMetrics,
}

/// A reply up to the headers that differ each time.
#[derive(Debug)]
pub struct PreparedReply {
    /// The status.
    pub status: u16,
    /// Header lines, CRLF after each.
    pub head: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

impl PreparedReply {
    /// The whole reply, with `extra` header lines.
    pub fn with_head(&self, extra: fmt::Arguments<'_>) -> Response {
        let mut head = Vec::with_capacity(self.head.len() + 96);
        head.extend_from_slice(&self.head);
        let _ = head.write_fmt(extra); // a Vec takes everything
        Response {
            status: self.status,
            head,
            body: self.body.clone(),
        }
    }
}

/// The answer that a provider waits for. Dropped unsent, the provider is answered 503 and tries again.
#[derive(Debug)]
pub struct Answer {
    responder: Responder,
    forms: Arc<AnswerForms>,
    id: NotificationId,
    ok_body: Option<Vec<u8>>,
}

impl Answer {
    /// The answer to the request that became the notification `id`. `ok_body` takes the place of the body of `ok` where that
    /// has values of the request in it.
    pub fn new(
        responder: Responder,
        forms: Arc<AnswerForms>,
        id: NotificationId,
        ok_body: Option<Vec<u8>>,
    ) -> Self {
        Self {
            responder,
            forms,
            id,
            ok_body,
        }
    }

    /// Answers as the route says for `outcome`. Does not wait, whatever the provider does.
    pub fn send(self, outcome: Outcome) {
        let Self {
            responder,
            forms,
            id,
            ok_body,
        } = self;
        // Counted first: a client that has read the answer finds it in the metrics.
        forms.metrics.answered(outcome);
        let word = outcome.as_str();
        let form = if outcome.is_ok() {
            &forms.ok
        } else {
            &forms.fail
        };
        let mut reply = form.with_head(format_args!(
            "X-Payrelay-Id: {id}\r\nX-Payrelay-Outcome: {word}\r\n"
        ));
        if let (true, Some(body)) = (outcome.is_ok(), ok_body) {
            reply.body = body;
        }
        responder.answer(&reply);
        log::debug!("{id} for {}: {word}", forms.route);
    }
}

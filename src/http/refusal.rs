//! Why a request makes no notification, and what its sender is answered.

use std::sync::Arc;
use std::time::Duration;

use super::route::Route;
use crate::edge::Response;
use crate::request::Missing;

/// Why a request made no notification.
#[derive(Debug)]
pub enum RequestRefusal {
    NoRoute,
    /// It does not come from where this route's requests may.
    Forbidden,
    Method(Arc<Route>),
    /// No notification, but the provider's question whether this address answers.
    Proof {
        route: Arc<Route>,
        /// The body, where it has values of the request in it.
        body: Option<Vec<u8>>,
    },
    /// A header that the route needs has bytes outside ASCII in it; names it.
    NotAscii(String),
    /// The signature is not the provider's.
    Forged(Arc<Route>),
    /// A false signature of the provider's own, sent to see it refused.
    Probe(Arc<Route>),
    /// It failed to prove who it is, once too often.
    TooMany {
        left: Duration,
    },
    NoId(Missing),
    BadId(String),
    NotAllowed,
    /// The route's backends get what the body holds sealed, and it could not be opened; says why.
    NotOpened(&'static str),
}

impl RequestRefusal {
    /// The status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoRoute | Self::NotAllowed => 404,
            Self::Forbidden => 403,
            Self::Method(_) => 405,
            Self::Proof { .. } => 200,
            Self::NotAscii(_) => 400,
            Self::Forged(_) | Self::Probe(_) => 401,
            Self::TooMany { .. } => 429,
            Self::NoId(_) | Self::BadId(_) => 400,
            // The provider is right, and sends it again until the key is.
            Self::NotOpened(_) => 503,
        }
    }

    /// The word in `X-Payrelay-Outcome` and in the metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NotAllowed => "not-allowed",
            Self::Forbidden => "forbidden",
            Self::Method(_) => "method",
            Self::Proof { .. } => "proof",
            Self::NotAscii(_) => "not-ascii",
            Self::Forged(_) | Self::Probe(_) => "bad-signature",
            Self::TooMany { .. } => "too-many",
            Self::NoId(_) | Self::BadId(_) => "no-id",
            Self::NotOpened(_) => "not-opened",
        }
    }

    /// Whether it has a line in the log by its route and reason: not where the signature is judged, which has its own.
    pub fn is_logged_as_refused(&self) -> bool {
        !matches!(
            self,
            Self::Proof { .. } | Self::Forged(_) | Self::Probe(_) | Self::TooMany { .. }
        )
    }

    /// What to tell whoever reads the answer. Never a part of the body.
    pub fn sentence(&self) -> String {
        match self {
            Self::NoRoute => "no route has this path".into(),
            Self::NotAllowed => "this backend id is not in tcp.backends".into(),
            Self::Forbidden => "this route's allow does not have your address".into(),
            Self::Method(route) => {
                format!(
                    "this route takes no such method; allowed: {}",
                    route.allowed()
                )
            }
            Self::Proof { .. } => String::new(),
            Self::NotAscii(name) => {
                format!("the header {name}, which this route needs, has bytes outside ASCII in it")
            }
            // Not why: that would help nobody but a forger. The log says it.
            Self::Forged(_) | Self::Probe(_) => "the signature is not right".into(),
            Self::TooMany { left } => format!(
                "too many requests from your address have failed; come again in {} s",
                left.as_secs() + 1
            ),
            Self::NoId(missing) => format!("no backend id: {missing}"),
            Self::BadId(bad) => bad.clone(),
            Self::NotOpened(why) => (*why).into(),
        }
    }

    /// The whole answer.
    pub fn reply(&self) -> Response {
        let word = self.word();
        let extra = match self {
            Self::Method(route) => &format!("Allow: {}\r\n", route.allowed()),
            Self::Proof { route, body } => {
                if let Some(proof) = &route.proof {
                    let outcome = format_args!("X-Payrelay-Outcome: {word}\r\n");
                    let mut reply = proof.reply.with_head(outcome);
                    if let Some(body) = body {
                        reply.body.clone_from(body);
                    }
                    return reply;
                }
                ""
            }
            // A provider that reads bodies gets the one that it knows for failure.
            Self::Forged(route) | Self::Probe(route) if route.config.forged_gets_fail => {
                let fail = &route.answers.fail;
                return fail.with_head(format_args!("X-Payrelay-Outcome: {word}\r\n"));
            }
            Self::TooMany { left } => &format!("Retry-After: {}\r\n", left.as_secs() + 1),
            Self::NoRoute
            | Self::Forbidden
            | Self::Forged(_)
            | Self::Probe(_)
            | Self::NotAscii(_)
            | Self::NoId(_)
            | Self::BadId(_)
            | Self::NotAllowed => "",
            Self::NotOpened(_) => "Retry-After: 1\r\n",
        };
        let head = format!("Content-Type: text/plain\r\n{extra}X-Payrelay-Outcome: {word}\r\n");
        Response {
            status: self.status(),
            head: head.into_bytes(),
            body: format!("{}\n", self.sentence()).into_bytes(),
        }
    }
}

//! What the provider reads, prepared; sent by whichever thread learns the outcome.

use std::io::Write;
use std::sync::Arc;

use super::Refusal;
use super::route::{Prepared, Route};
use crate::claims::{Claim, Reply};
use crate::notification::{NotificationId, Outcome};

/// An answer owed to a provider. Dropping it unpaid pays `fail`: the provider keeps the notification and tries again.
pub struct Owed {
    claim: Option<Claim>,
    route: Arc<Route>,
    id: NotificationId,
}

impl Owed {
    /// The answer to a request that came in by `route` and became the notification `id`.
    pub fn new(claim: Claim, route: Arc<Route>, id: NotificationId) -> Self {
        Self {
            claim: Some(claim),
            route,
            id,
        }
    }

    /// Answers as the route says for `outcome`.
    pub fn pay(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        // Counted first: whoever has read the answer finds it in the figures.
        self.route.metrics.answered(outcome);
        let prepared = if outcome.is_ok() {
            &self.route.ok
        } else {
            &self.route.fail
        };
        let mut head = Vec::with_capacity(prepared.head.len() + 96);
        head.extend_from_slice(&prepared.head);
        // A Vec takes everything.
        let _ = write!(
            head,
            "X-Payrelay-Id: {}\r\nX-Payrelay-Outcome: {}\r\n",
            self.id,
            outcome.as_str()
        );
        claim(Reply {
            status: prepared.status,
            head,
            body: prepared.body.clone(),
        });
        log::debug!("{} for {}: {}", self.id, self.route.name, outcome.as_str());
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        // Only a panic on the way drops an answer unpaid.
        self.settle(Outcome::Offline);
    }
}

/// The answer to a request that made no notification.
pub fn refused(refusal: &Refusal) -> Reply {
    let extra = match refusal {
        Refusal::Method(route) => &format!("Allow: {}\r\n", route.allowed()),
        Refusal::Proof(route) => {
            if let Some(proof) = &route.proof {
                return prepared(refusal, proof);
            }
            ""
        }
        // A provider that reads bodies gets the one that it knows for failure.
        Refusal::Forged(route) | Refusal::Probe(route) if route.forged_gets_fail => {
            return prepared(refusal, &route.fail);
        }
        Refusal::TooMany { left } => &format!("Retry-After: {}\r\n", left.as_secs() + 1),
        Refusal::NoRoute
        | Refusal::Forbidden
        | Refusal::Forged(_)
        | Refusal::Probe(_)
        | Refusal::NotAscii(_)
        | Refusal::NoId(_)
        | Refusal::BadId(_)
        | Refusal::NotAllowed => "",
    };
    let head = format!(
        "Content-Type: text/plain\r\n{extra}X-Payrelay-Outcome: {}\r\n",
        refusal.outcome()
    );
    Reply {
        status: refusal.status(),
        head: head.into_bytes(),
        body: format!("{}\n", refusal.words()).into_bytes(),
    }
}

fn prepared(refusal: &Refusal, answer: &Prepared) -> Reply {
    let mut head = answer.head.clone();
    head.extend_from_slice(format!("X-Payrelay-Outcome: {}\r\n", refusal.outcome()).as_bytes());
    Reply {
        status: answer.status,
        head,
        body: answer.body.clone(),
    }
}

/// The answer to the edge's proof of a new lane.
pub fn probed() -> Reply {
    Reply {
        status: 204,
        head: Vec::new(),
        body: Vec::new(),
    }
}

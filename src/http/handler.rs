//! What a request comes to: its route, whether it is genuine, the notification, and who is answered what.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::refusal::RequestRefusal;
use super::request::RequestView;
use super::route::{self, Route, RouteMatch, Routes};
use crate::answer::Answer;
use crate::delivery::Delivery;
use crate::edge::{RefusedRequest, Responder};
use crate::log_once::LogOncePer;
use crate::metrics::Metrics;
use crate::notification::{BackendId, IdMint, Notification, unix_ms};
use crate::peers::{Failures, Judged};
use crate::request::{Parts, Selector};
use crate::session::token::Access;
use crate::verify::{self, Believed, Verifier};

/// Whose the dead letter is of a request that says nothing of a backend.
const UNSIGNED_ID: &str = "unsigned";

/// Why a request is a dead letter of which nothing is signed.
const UNSIGNED: &str = "unverified: nothing of it is signed (unsigned_items)";

/// How long a request of a peer that has failed too often waits for its turn to be verified: far longer than it takes to
/// verify one for each connection of a forger, and shorter than providers wait for an answer.
const TURN_MAX: Duration = Duration::from_secs(3);

/// How much of a refused request's path the log shows.
const LOGGED_PATH_CHARS_MAX: usize = 100;

/// Judges requests and hands notifications to the delivery.
pub struct RequestHandler {
    /// `[[route]]`; replaced on reload.
    pub routes: RwLock<Arc<Routes>>,
    /// Which ids may be notified; replaced on reload.
    pub access: RwLock<Arc<Access>>,
    /// How often each peer has failed to prove who it is.
    pub failures: Failures,
    /// Held while a request of a peer is verified that has failed too often.
    pub suspect: Mutex<()>,
    /// Refused requests by their route and reason; those whose signature is wrong have lines of their own.
    pub refused: LogOncePer<(Option<Arc<str>>, &'static str)>,
    pub delivery: Arc<Delivery>,
    pub mint: IdMint,
    pub metrics: Arc<Metrics>,
}

impl RequestHandler {
    /// Judges `request`; answers a refusal, or hands the notification to the delivery with the right to answer. Waits for
    /// nothing but, for [`TURN_MAX`] at most, for the turn of a peer that has failed too often.
    pub fn handle(&self, request: &RequestView<'_>, body: Vec<u8>, responder: Responder) {
        let routes = self.routes();
        match self.judge(&routes, request, body) {
            Err(refusal) => {
                if !matches!(refusal, RequestRefusal::Proof { .. }) {
                    self.metrics.http_refused(refusal.word());
                }
                if refusal.is_logged_as_refused() {
                    self.log_refused(&routes, &refused(request, &refusal));
                }
                responder.answer(&refusal.reply());
            }
            Ok(taken) => {
                let notification = taken.notification;
                let answers = Arc::clone(&taken.route.answers);
                let answer = Answer::new(responder, answers, notification.id, taken.ok_body);
                match taken.unsigned {
                    false => self.delivery.deliver(notification, answer),
                    true => self.delivery.set_aside(notification, answer, UNSIGNED),
                }
            }
        }
    }

    /// One line a route and reason in ten seconds, for whoever asks why a provider's callback does not arrive.
    #[cold]
    pub fn log_refused(&self, routes: &Routes, request: &RefusedRequest<'_>) {
        let RefusedRequest {
            method,
            path,
            status,
            word,
            sentence,
            ..
        } = request;
        let route = routes
            .find(path)
            .map(|found| Arc::clone(&found.route.answers.route));
        let what = match (*method, *path) {
            ("", _) | (_, "") => "a request".to_owned(),
            (method, path) => {
                let shown: String = path.chars().take(LOGGED_PATH_CHARS_MAX).collect();
                format!("{} {shown:?}", method.escape_debug())
            }
        };
        let from = request
            .peer
            .map(|peer| format!(" from {peer}"))
            .unwrap_or_default();
        let line = format_args!("http: {what}{from} was answered {status} {word}: {sentence}");
        self.refused.log(Level::Info, &(route, word), line);
    }

    /// The routes, as of now.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read())
    }

    /// How long `peer` still counts as one that has failed too often; `None`: it has not.
    pub fn suspected(&self, peer: IpAddr) -> Option<Duration> {
        self.failures.left(peer, Instant::now())
    }

    /// The turn to check the signature of a request from this peer, if it needs one.
    ///
    /// Peers that have failed too often are checked one request at a time, all of them together: so forgeries cost one thread
    /// at most. A genuine callback from the same address waits for its turn among them; if none comes, 429 says when to come
    /// again.
    fn turn_to_verify(
        &self,
        request: &RequestView<'_>,
    ) -> Result<Option<MutexGuard<'_, ()>>, RequestRefusal> {
        let Some(left) = request.peer.and_then(|peer| self.suspected(peer)) else {
            return Ok(None);
        };
        match self.suspect.try_lock_for(TURN_MAX) {
            Some(turn) => Ok(Some(turn)),
            None => Err(RequestRefusal::TooMany { left }),
        }
    }

    /// What a peer is answered that fails to prove who it is: 401, or, after too many times, 429.
    fn forged(&self, route: &Arc<Route>, request: &RequestView<'_>) -> RequestRefusal {
        let forged = RequestRefusal::Forged(Arc::clone(route));
        let Some(peer) = request.peer else {
            return forged;
        };
        match self.failures.count(peer, Instant::now()) {
            Judged::Within => forged,
            Judged::Beyond { first, left } => {
                if first {
                    let most = self.failures.most();
                    log::warn!(
                        "{peer} has failed more than http.failures_per_minute = {most} times; \
                         it is answered 429 for {} s",
                        left.as_secs()
                    );
                }
                RequestRefusal::TooMany { left }
            }
        }
    }

    /// Whether the provider that `verifier` knows, the route's or its proof's, sent `signed`.
    fn verify(
        &self,
        route: &Arc<Route>,
        verifier: Option<&Verifier>,
        request: &RequestView<'_>,
        signed: &verify::Request<'_>,
        at_unix_ms: u64,
    ) -> Result<Believed, RequestRefusal> {
        let Some(verifier) = verifier else {
            return Ok(Believed::default());
        };
        let _turn = self.turn_to_verify(request)?;
        let now_unix_s = at_unix_ms / 1000;
        verifier.verify(signed, now_unix_s).map_err(|refused| {
            route.bad_signature(&refused, request.peer);
            match refused {
                // The provider's own test is no reason to slow the provider down.
                verify::Refused::Probe => RequestRefusal::Probe(Arc::clone(route)),
                _ => self.forged(route, request),
            }
        })
    }

    /// What a request by a method that the route does not take is answered: 405, or, if it asks whether the address is the
    /// merchant's, the proof.
    fn prove(
        &self,
        route: &Arc<Route>,
        request: &RequestView<'_>,
        signed: &verify::Request<'_>,
    ) -> RequestRefusal {
        let (Some(proof), "GET" | "HEAD") = (&route.proof, request.method) else {
            return RequestRefusal::Method(Arc::clone(route));
        };
        let verifier = proof.verifier.as_deref();
        match self.verify(route, verifier, request, signed, unix_ms()) {
            Err(refusal) => refusal,
            Ok(_) => RequestRefusal::Proof {
                route: Arc::clone(route),
                body: route.proof_body_for(proof, &signed.parts()),
            },
        }
    }

    /// Counts a request of which nothing is signed as one that has proven nothing, so that strangers cannot fill the outbox.
    fn count_unsigned(
        &self,
        route: &Arc<Route>,
        request: &RequestView<'_>,
    ) -> Result<(), RequestRefusal> {
        match self.forged(route, request) {
            refusal @ RequestRefusal::TooMany { .. } => Err(refusal),
            _ => Ok(()),
        }
    }

    /// The backend that a believed request is for, if it may be notified.
    fn allowed_backend(
        &self,
        route: &Route,
        parts: &Parts<'_>,
    ) -> Result<BackendId, RequestRefusal> {
        let backend = backend(route, parts)?;
        match self.access.read().allows(&backend) {
            true => Ok(backend),
            false => Err(RequestRefusal::NotAllowed),
        }
    }

    /// What is believed of a request that may come from where it comes from, is asked as `route` is asked, and is signed, if it
    /// has to be.
    fn believe(
        &self,
        route: &Arc<Route>,
        request: &RequestView<'_>,
        signed: &verify::Request<'_>,
        at_unix_ms: u64,
    ) -> Result<Believed, RequestRefusal> {
        let allow = &route.config.allow;
        if !allow.is_empty() && !request.peer.is_some_and(|ip| allow.contains(ip)) {
            return Err(RequestRefusal::Forbidden);
        }
        if !route.config.methods.allow(request.method) {
            return Err(self.prove(route, request, signed));
        }
        if let Some(name) = route.unreadable_header(request) {
            return Err(RequestRefusal::NotAscii(name.to_owned()));
        }
        let verifier = route.config.verifier.as_deref();
        let believed = self.verify(route, verifier, request, signed, at_unix_ms)?;
        if believed.is_unsigned {
            self.count_unsigned(route, request)?;
        }
        Ok(believed)
    }

    /// Makes a notification of a request.
    fn judge<'r>(
        &self,
        routes: &'r Routes,
        request: &RequestView<'_>,
        body: Vec<u8>,
    ) -> Result<Taken<'r>, RequestRefusal> {
        let (path, query) = path_and_query(request.target);
        let RouteMatch { route, id } = routes.find(path).ok_or(RequestRefusal::NoRoute)?;
        let signed = verify::Request {
            method: request.method,
            target: request.target,
            headers: request.headers,
            path_id: id,
            query,
            body: &body,
        };
        let at_unix_ms = unix_ms();
        let believed = self.believe(route, request, &signed, at_unix_ms)?;
        let unsigned = believed.is_unsigned;
        let opened = open(route, &body)?;
        let parts = Parts {
            opened: opened.as_ref(),
            ..signed.parts()
        };
        let (backend, event) = match unsigned {
            false => (
                self.allowed_backend(route, &parts)?,
                event(route, &parts, believed),
            ),
            // Anybody could have made it, and a genuine one of that event is not to be a duplicate of it.
            true => (backend_of_unsigned(route, &parts)?, None),
        };
        let ok_body = route.ok_body_for(&parts);
        let (is_opened, body) = match opened {
            Some(Ok(opened)) if route.config.deliver_opened => (true, opened),
            _ => (false, body),
        };
        let verified = match unsigned {
            false => route.verified(is_opened),
            true => verify::NONE.into(),
        };
        let notification = Notification {
            id: self.mint.mint(at_unix_ms),
            backend,
            route: Arc::clone(&route.answers.route),
            verified,
            event,
            event_proven: route.config.event_proven,
            at_unix_ms,
            tries: 1,
            head: route.head(request, path, query),
            body,
        };
        Ok(Taken {
            route,
            notification,
            ok_body,
            unsigned,
        })
    }
}

/// What `body` holds sealed, if anything of the route needs it opened.
fn open(
    route: &Route,
    body: &[u8],
) -> Result<Option<Result<Vec<u8>, &'static str>>, RequestRefusal> {
    let opened = route.open(body);
    match opened {
        // Not handed over sealed: the backend could not read it. The provider sends it again until the key is right.
        Some(Err(why)) if route.config.deliver_opened => {
            route.not_opened(why);
            Err(RequestRefusal::NotOpened(why))
        }
        opened => Ok(opened),
    }
}

fn path_and_query(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// What the log says of `request`.
fn refused<'r>(request: &RequestView<'r>, refusal: &RequestRefusal) -> RefusedRequest<'r> {
    let (path, _query) = path_and_query(request.target);
    RefusedRequest {
        method: request.method,
        path,
        peer: request.peer,
        status: refusal.status(),
        word: refusal.word(),
        sentence: refusal.sentence(),
    }
}

/// A request that has become a notification.
struct Taken<'r> {
    route: &'r Arc<Route>,
    notification: Notification,
    /// What is answered if it is safe, where that has values of the request in it.
    ok_body: Option<Vec<u8>>,
    /// Nothing of it is signed: it goes to the dead letters, and to no backend.
    unsigned: bool,
}

/// Nobody is to get it, so it need not be anybody's.
fn backend_of_unsigned(route: &Route, parts: &Parts<'_>) -> Result<BackendId, RequestRefusal> {
    backend(route, parts).or_else(|refusal| BackendId::parse(UNSIGNED_ID).map_err(|_| refusal))
}

/// The backend that the request of `parts` is for.
fn backend(route: &Route, parts: &Parts<'_>) -> Result<BackendId, RequestRefusal> {
    let found = parts
        .select(&route.config.id)
        .map_err(RequestRefusal::NoId)?;
    let id = route.id_part(&found);
    BackendId::parse(id).map_err(|bad| RequestRefusal::BadId(bad.to_string()))
}

/// The event key, if there is one.
fn event(route: &Route, parts: &Parts<'_>, believed: Believed) -> Option<Box<str>> {
    let found = match &route.config.event {
        None => return None,
        Some(Selector::OfSignature) => believed.event.map(Into::into),
        Some(selector) => parts
            .select(selector)
            // Delivered all the same: a payment is worth more than the key to its retries.
            .inspect_err(|missing| route.no_event_key(missing))
            .ok(),
    };
    found.map(route::event_key)
}

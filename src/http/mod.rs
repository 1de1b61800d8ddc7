//! The counter and the tiny_http pool: requests in, notifications out, and the answer to the provider.
//!
//! A request is judged where it is, on the thread that has received it, while one of `http.workers` places is free; else it
//! goes through tiny_http to the pool's workers, who judge it in the same way. So a flood of costly requests takes no more
//! of the machine than is meant for it, and in the usual case no other thread must wake.
//!
//! A worker never waits for a backend: it hands the notification to [`Delivery`] together with the means to answer, and
//! takes the next request. The head that it gets has been read whole and re-written by the edge, and the body has been
//! left for it whole, so nothing here is hostile in its framing; its content may be.

mod answer;
mod forged;
mod places;
mod route;
mod select;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tiny_http::{Request, Server};

use self::answer::Owed;
pub use self::places::Places;
pub use self::route::Routes;
use self::route::{Found, Route};
use self::select::{Missing, Parts};
use crate::claims::{Asked, Claims, Counter, Kept};
use crate::config::Selector;
use crate::delivery::Delivery;
use crate::metrics::Metrics;
use crate::notification::{BackendId, IdMint, Notification, unix_ms};
use crate::peers::{Failures, Judged};
use crate::session::token::Access;
use crate::thread::{self, JoinOnDrop};
use crate::verify::{self, Believed};

/// The header by which the edge proves a new lane; no request from outside can carry it.
const PROBE_HEADER: &str = "x-payrelay-lane";

/// The header with the peer's address, of the edge's making; no request from outside can carry it.
const PEER_HEADER: &str = "x-payrelay-peer";

/// The header with the number of the request's claim; no request from outside can carry it.
const CLAIM_HEADER: &str = "x-payrelay-claim";

/// The status of requests that do not prove who they are from.
const UNPROVEN: u16 = 401;

/// Workers parse JSON, at a bounded depth.
const STACK_BYTES: usize = 256 * 1024;

/// What the workers share.
pub struct Desk {
    /// `[[route]]`; replaced on reload.
    pub routes: RwLock<Arc<Routes>>,
    /// Which ids may be notified; replaced on reload.
    pub access: RwLock<Arc<Access>>,
    /// How often each peer has failed to prove who it is.
    pub failures: Failures,
    /// The bodies and the means to answer, left by the edge.
    pub claims: Arc<Claims>,
    pub delivery: Arc<Delivery>,
    pub mint: IdMint,
    pub metrics: Arc<Metrics>,
    /// How many requests may be judged by the threads that bring them, at once: as many as there are workers.
    pub places: Places,
}

/// The workers. Dropping the pool ends them.
pub struct Pool {
    server: Arc<Server>,
    stopping: Arc<AtomicBool>,
    workers: Vec<JoinOnDrop>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} workers)", self.workers.len())
    }
}

impl Pool {
    /// Starts `workers` threads on `server`.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(server: Arc<Server>, workers: usize, desk: &Arc<Desk>) -> io::Result<Self> {
        let mut pool = Self {
            server,
            stopping: Arc::new(AtomicBool::new(false)),
            workers: Vec::with_capacity(workers),
        };
        for number in 0..workers {
            let server = Arc::clone(&pool.server);
            let stopping = Arc::clone(&pool.stopping);
            let desk = Arc::clone(desk);
            pool.workers.push(thread::spawn(
                format!("http-{number}"),
                STACK_BYTES,
                move || {
                    work(&server, &stopping, &desk);
                },
            )?);
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        for _ in &self.workers {
            self.server.unblock(); // wakes one
        }
    }
}

fn work(server: &Server, stopping: &AtomicBool, desk: &Desk) {
    while !stopping.load(Ordering::SeqCst) {
        match server.recv() {
            Ok(request) => {
                // The claim is dropped in the unwinding, which tells the peer.
                if catch_unwind(AssertUnwindSafe(|| desk.take(&request))).is_err() {
                    log::error!("a request made this worker panic; it goes on with the next");
                }
                // Just dropped, it would answer 500 into its lane, and this worker wait for the requests before it to do so.
                drop(request.into_writer());
            }
            Err(error) => {
                if !stopping.load(Ordering::SeqCst) {
                    log::error!("tiny_http: {error}");
                }
            }
        }
    }
}

impl Counter for Desk {
    fn serve(&self, asked: &Asked<'_>, kept: Kept) -> Result<(), Kept> {
        let Some(_place) = self.places.take() else {
            return Err(kept);
        };
        // The claim is dropped in the unwinding, which tells the peer.
        if catch_unwind(AssertUnwindSafe(|| self.handle(asked, kept))).is_err() {
            log::error!("a request made its handler panic; its connection goes on with the next");
        }
        Ok(())
    }
}

impl Desk {
    /// A request that came through the pool.
    fn take(&self, request: &Request) {
        let headers: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .map(|header| (header.field.as_str().as_str(), header.value.as_str()))
            .collect();
        let kept = header(&headers, CLAIM_HEADER)
            .and_then(|number| number.parse().ok())
            .and_then(|number| self.claims.take(number));
        let Some(kept) = kept else {
            return; // its peer's deadline was first
        };
        if header(&headers, PROBE_HEADER).is_some() {
            return (kept.claim)(answer::probed());
        }
        let asked = Asked {
            method: request.method().as_str(),
            target: request.url(),
            headers: &headers,
            peer: header(&headers, PEER_HEADER).and_then(ip),
        };
        self.handle(&asked, kept);
    }

    fn handle(&self, request: &Asked<'_>, kept: Kept) {
        let Kept { body, claim } = kept;
        let routes = Arc::clone(&self.routes.read());
        match self.judge(&routes, request, body) {
            Err(refusal) => {
                let refusal = self.slowed_down(refusal, request);
                if !matches!(refusal, Refusal::Proof(_)) {
                    self.metrics.http_refused(refusal.outcome());
                }
                claim(answer::refused(&refusal));
            }
            Ok((route, notification)) => {
                let owed = Owed::new(claim, Arc::clone(route), notification.id);
                self.delivery
                    .deliver(notification, Box::new(move |outcome| owed.pay(outcome)));
            }
        }
    }

    /// What a peer is told that fails to prove who it is: that, or, after too many times, to come again later. Nobody else is
    /// slowed down: who proves it comes in, however often others failed from the same address.
    fn slowed_down(&self, refusal: Refusal, request: &Asked<'_>) -> Refusal {
        if !matches!(refusal, Refusal::Forged(_)) {
            return refusal;
        }
        let Some(peer) = request.peer else {
            return refusal;
        };
        match self.failures.count(peer, Instant::now()) {
            Judged::Within => refusal,
            Judged::Beyond { first, left } => {
                if first {
                    let most = self.failures.most();
                    log::warn!(
                        "{peer} has failed more than http.failures_per_minute = {most} times; \
                         it is answered 429 for {} s",
                        left.as_secs()
                    );
                }
                Refusal::TooMany { left }
            }
        }
    }

    fn judge<'r>(
        &self,
        routes: &'r Routes,
        request: &Asked<'_>,
        body: Vec<u8>,
    ) -> Result<(&'r Arc<Route>, Notification), Refusal> {
        let target = request.target;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Found { route, id } = routes.find(path).ok_or(Refusal::NoRoute)?;
        if !route.allow.is_empty() && !request.peer.is_some_and(|ip| route.allow.contains(ip)) {
            return Err(Refusal::Forbidden);
        }
        if !route.methods.allow(request.method) {
            return Err(match (request.method, &route.proof) {
                ("GET" | "HEAD", Some(_)) => Refusal::Proof(Arc::clone(route)),
                _ => Refusal::Method(Arc::clone(route)),
            });
        }
        if let Some(name) = route.unreadable_header(request) {
            return Err(Refusal::NotAscii(name.to_owned()));
        }
        let at_unix_ms = unix_ms();
        let believed = route
            .verify(request, id, query, &body, at_unix_ms / 1000)
            .map_err(|refused| {
                route.complain(&refused, request.peer, at_unix_ms);
                match refused {
                    // The provider's own test is no reason to slow the provider down.
                    verify::Refused::Probe => Refusal::Probe(Arc::clone(route)),
                    _ => Refusal::Forged(Arc::clone(route)),
                }
            })?;
        let opened = route.open(&body);
        let parts = Parts {
            path_id: id,
            query,
            headers: request.headers,
            body: &body,
            opened: opened.as_ref(),
        };
        let backend = parts.select(&route.id).map_err(Refusal::NoId)?;
        let backend = BackendId::parse(&backend).map_err(|bad| Refusal::BadId(bad.to_string()))?;
        if !self.access.read().allows(&backend) {
            return Err(Refusal::NotAllowed);
        }
        let event = event(route, &parts, believed);
        let notification = Notification {
            id: self.mint.mint(at_unix_ms),
            backend,
            route: Arc::clone(&route.name),
            verified: route
                .verifier
                .as_ref()
                .map_or(verify::NONE, |verifier| verifier.name)
                .into(),
            event,
            event_proven: route.event_proven,
            at_unix_ms,
            tries: 1,
            head: route.head(request, path, query),
            body,
        };
        Ok((route, notification))
    }
}

/// The event key, if there is one.
fn event(route: &Route, parts: &Parts<'_>, believed: Believed) -> Option<Box<str>> {
    let found = match &route.event {
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

/// The address in the edge's own header, which has a port unless a proxy said the address alone.
fn ip(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|both: SocketAddr| both.ip());
    text.parse().ok().or_else(with_port)
}

fn header<'r>(headers: &[(&'r str, &'r str)], name: &str) -> Option<&'r str> {
    let named = |(found, _): &&(&str, &str)| found.eq_ignore_ascii_case(name);
    headers.iter().find(named).map(|(_, value)| *value)
}

/// Why a request made no notification.
#[derive(Debug)]
enum Refusal {
    NoRoute,
    /// It does not come from where this route's requests may.
    Forbidden,
    Method(Arc<Route>),
    /// No notification, but the provider's question whether this address answers.
    Proof(Arc<Route>),
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
}

impl Refusal {
    fn status(&self) -> u16 {
        match self {
            Self::NoRoute | Self::NotAllowed => 404,
            Self::Forbidden => 403,
            Self::Method(_) => 405,
            Self::Proof(_) => 200,
            Self::NotAscii(_) => 400,
            Self::Forged(_) | Self::Probe(_) => UNPROVEN,
            Self::TooMany { .. } => 429,
            Self::NoId(_) | Self::BadId(_) => 400,
        }
    }

    /// The word in `X-Payrelay-Outcome` and in the metrics.
    fn outcome(&self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NotAllowed => "not-allowed",
            Self::Forbidden => "forbidden",
            Self::Method(_) => "method",
            Self::Proof(_) => "proof",
            Self::NotAscii(_) => "not-ascii",
            Self::Forged(_) | Self::Probe(_) => "bad-signature",
            Self::TooMany { .. } => "too-many",
            Self::NoId(_) | Self::BadId(_) => "no-id",
        }
    }

    /// What to tell whoever reads the answer. Never a part of the body.
    fn words(&self) -> String {
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
            Self::Proof(_) => String::new(),
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
        }
    }
}

//! The admin room: is it alive, is it ready, what has it counted, who is connected, what lies in the outbox.
//!
//! Pure answers to requests that the edge has read whole; no socket and no thread of its own. What is asked about is handed
//! in by whoever wires the relay. Only the outbox can be changed from here.

mod outbox;
mod query;

mod status;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::RwLock;
use serde::Serialize;

pub use self::outbox::AdminState;
use self::status::{BusState, Status};
use crate::bus::{Bus, Presence};
use crate::config::Secret;
use crate::edge::{Handler, Reply, Request, Responder};
use crate::metrics::{self, Metrics, Readings};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "payrelay\n\
    \n\
    /livez    200 while the process answers\n\
    /readyz   200 while it can relay, else 503 and the reasons\n\
    /metrics  counters for Prometheus\n\
    /outbox   what is stored (payrelay outbox)\n\
    /trace    what became of a notification (payrelay trace)\n\
    /status   who is connected, on all nodes (payrelay status)\n";

/// Says why this node cannot relay just now, one word or short phrase each; empty: it can.
pub type NotReady = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// Reads what is not counted as it happens.
pub type ReadNow = Box<dyn Fn() -> Readings + Send + Sync>;

/// Answers the requests of the admin listener.
pub struct Admin {
    node: String,
    metrics: Arc<Metrics>,
    not_ready: NotReady,
    read_now: ReadNow,
    bus: Arc<dyn Bus>,
    state: AdminState,
    token: RwLock<Option<Secret>>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What is asked, as far as this room cares.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    method: &'a str,
    target: &'a str,
    /// The `Authorization` header; `None` if there is none, or more than one.
    authorization: Option<&'a [u8]>,
    /// Whether the body says that it is JSON.
    is_json: bool,
    body: &'a [u8],
}

/// What is answered.
#[derive(Debug)]
struct Told {
    status: u16,
    content_type: &'static str,
    /// One more header line, without its CRLF.
    extra: Option<&'static str>,
    body: Vec<u8>,
}

#[derive(Serialize)]
struct Readiness<'a> {
    ready: bool,
    node: &'a str,
    reasons: Vec<String>,
    bus: BusState,
}

impl Admin {
    /// An admin room for the instance called `node`.
    pub fn new(
        node: String,
        token: Option<Secret>,
        metrics: Arc<Metrics>,
        not_ready: NotReady,
        read_now: ReadNow,
        bus: Arc<dyn Bus>,
        state: AdminState,
    ) -> Self {
        Self {
            node,
            metrics,
            not_ready,
            read_now,
            bus,
            state,
            token: RwLock::new(token),
        }
    }

    /// From now on this token is asked for; `None`: none is.
    pub fn set_token(&self, token: Option<Secret>) {
        *self.token.write() = token;
    }

    fn answer(&self, asked: Asked<'_>) -> Told {
        let path = asked.target.split(['?', '#']).next().unwrap_or_default();
        // Probes of load balancers cannot carry a token; these two tell a stranger nothing but up or down, and why.
        let open = matches!(path, "/livez" | "/readyz");
        if !open && !self.admits(asked.authorization) {
            return Told {
                extra: Some("WWW-Authenticate: Bearer realm=\"payrelay\""),
                ..Told::text(401, "the admin token is needed: Authorization: Bearer …\n")
            };
        }
        if let Some(told) = self.state.answer(asked) {
            return told;
        }
        let found: fn(&Self) -> Told = match path {
            "/" => |_| Told::text(200, INDEX),
            "/livez" => |_| Told::text(200, "ok"),
            "/readyz" => Self::readyz,
            "/metrics" => Self::metrics,
            "/status" => |admin| {
                status(
                    &admin.node,
                    &BusState::of(&*admin.bus),
                    &Presence::default(),
                )
            },
            _ => return Told::text(404, "no such page; / lists what is here\n"),
        };
        if !matches!(asked.method, "GET" | "HEAD") {
            return Told {
                extra: Some("Allow: GET, HEAD"),
                ..Told::text(405, "only GET and HEAD are answered here\n")
            };
        }
        found(self)
    }

    /// Whether `authorization` carries the token, if one is asked for.
    fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some(token) = self.token.read().clone() else {
            return true;
        };
        authorization
            .and_then(bearer)
            .is_some_and(|shown| verify_slices_are_equal(shown, token.expose().as_bytes()).is_ok())
    }

    fn readyz(&self) -> Told {
        let reasons = (self.not_ready)();
        let ready = reasons.is_empty();
        let readiness = Readiness {
            ready,
            node: &self.node,
            reasons,
            bus: BusState::of(&*self.bus),
        };
        Told::json(if ready { 200 } else { 503 }, &readiness)
    }

    fn metrics(&self) -> Told {
        Told {
            status: 200,
            content_type: metrics::CONTENT_TYPE,
            extra: None,
            body: self.metrics.text(&(self.read_now)()).into_bytes(),
        }
    }
}

/// Which backends are connected where, as far as `presence` says.
fn status(node: &str, bus: &BusState, presence: &Presence) -> Told {
    Told::json(
        200,
        &Status {
            node,
            bus,
            presence,
        },
    )
}

impl Told {
    fn json(status: u16, value: &impl Serialize) -> Self {
        // What is said here, texts and numbers, always becomes JSON.
        let mut body = serde_json::to_vec(value).unwrap_or_default();
        body.push(b'\n');
        Self {
            status,
            content_type: JSON,
            extra: None,
            body,
        }
    }

    fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            extra: None,
            body: body.as_bytes().to_vec(),
        }
    }

    /// The header lines, CRLF after each.
    fn head(&self) -> Vec<u8> {
        // A cached readiness would be a lie about the present.
        let mut head = format!(
            "Content-Type: {}\r\nCache-Control: no-store\r\n",
            self.content_type
        );
        if let Some(extra) = self.extra {
            head.push_str(extra);
            head.push_str("\r\n");
        }
        head.into_bytes()
    }

    fn pay(self, responder: Responder) {
        responder.answer(&Reply {
            status: self.status,
            head: self.head(),
            body: self.body,
        });
    }
}

impl Handler for Admin {
    fn handle(&self, request: &Request<'_>, responder: Responder) {
        let told = self.answer(Asked {
            method: request.method,
            target: request.target,
            authorization: the_only(request.headers, "authorization"),
            is_json: the_only(request.headers, "content-type").is_some_and(|kind| {
                let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
                kind.trim_ascii().eq_ignore_ascii_case(JSON.as_bytes())
            }),
            body: request.body,
        });
        let path = request.target.split(['?', '#']).next().unwrap_or_default();
        if (path, told.status) != ("/status", 200) {
            return told.pay(responder);
        }
        // It may be asked; the other nodes take a moment.
        let (node, bus) = (self.node.clone(), BusState::of(&*self.bus));
        self.bus.presence(Box::new(move |presence| {
            status(&node, &bus, &presence).pay(responder);
        }));
    }
}

/// The value of the header called `name`; `None` if there is none, or more than one.
fn the_only<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut named = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name));
    match (named.next(), named.next()) {
        (Some(header), None) => Some(header.value),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::MemoryBus;
    use crate::session::Registry;

    const BUS: &str = "{\"kind\":\"memory\",\"up\":true,\"reason\":null,\"canary_age_ms\":null,\
        \"subscriptions_wanted\":0,\"subscriptions_standing\":0}";

    fn admin(token: Option<&str>, reasons: &'static [&'static str]) -> Admin {
        Admin::new(
            "pay-1-0a1b2c".into(),
            token.map(Secret::new),
            Arc::new(Metrics::new()),
            Box::new(|| reasons.iter().map(|&reason| reason.to_owned()).collect()),
            Box::new(|| Readings {
                queue_depth: 7,
                ..Readings::default()
            }),
            Arc::new(MemoryBus::new(
                "pay-1-0a1b2c".into(),
                Arc::new(Registry::default()),
                Arc::default(),
                Arc::new(()),
            )),
            AdminState {
                outbox: None,
                trace: Arc::default(),
                under_way: Box::new(|_| Vec::new()),
                forget: Box::new(|_| {}),
            },
        )
    }

    fn ask(admin: &Admin, method: &str, target: &str, authorization: Option<&str>) -> Told {
        admin.answer(Asked {
            method,
            target,
            authorization: authorization.map(str::as_bytes),
            is_json: false,
            body: b"",
        })
    }

    fn body(told: &Told) -> &str {
        std::str::from_utf8(&told.body).unwrap_or("not UTF-8")
    }

    #[test]
    fn alive_is_ok() {
        let told = ask(&admin(None, &["draining"]), "GET", "/livez", None);
        assert_eq!((told.status, body(&told)), (200, "ok"));
    }

    #[test]
    fn readiness_names_its_reasons() {
        let told = ask(&admin(None, &[]), "GET", "/readyz?verbose", None);
        assert_eq!(told.status, 200);
        assert_eq!(
            body(&told),
            format!("{{\"ready\":true,\"node\":\"pay-1-0a1b2c\",\"reasons\":[],\"bus\":{BUS}}}\n")
        );
        let told = ask(&admin(None, &["draining"]), "HEAD", "/readyz", None);
        assert_eq!(told.status, 503);
        assert_eq!(
            body(&told),
            format!(
                "{{\"ready\":false,\"node\":\"pay-1-0a1b2c\",\"reasons\":[\"draining\"],\"bus\":{BUS}}}\n"
            )
        );
    }

    #[test]
    fn metrics_carry_the_readings_and_the_right_type() {
        let told = ask(&admin(None, &[]), "GET", "/metrics", None);
        assert_eq!(told.status, 200);
        assert!(body(&told).contains("\npayrelay_queue_depth 7\n"));
        let head = String::from_utf8(told.head()).unwrap_or_default();
        assert_eq!(
            head,
            "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nCache-Control: no-store\r\n"
        );
    }

    #[test]
    fn what_is_not_here_is_404_and_what_changes_is_405() {
        let admin = admin(None, &[]);
        assert_eq!(ask(&admin, "GET", "/", None).status, 200);
        for target in ["/nothing", "/livez/", "//", "", "*", "http://x/livez"] {
            assert_eq!(ask(&admin, "GET", target, None).status, 404, "{target}");
        }
        for method in ["POST", "DELETE", "OPTIONS", "get"] {
            let told = ask(&admin, method, "/livez", None);
            assert_eq!(told.status, 405, "{method}");
            let head = String::from_utf8(told.head()).unwrap_or_default();
            assert!(head.ends_with("Allow: GET, HEAD\r\n"), "{head}");
        }
    }

    #[test]
    fn the_token_opens_all_but_the_probes() {
        let admin = admin(Some("a-token-of-some-length"), &[]);
        for target in ["/livez", "/readyz"] {
            assert_eq!(ask(&admin, "GET", target, None).status, 200, "{target}");
        }
        for shown in [
            None,
            Some(""),
            Some("a-token-of-some-length"),
            Some("Basic a-token-of-some-length"),
            Some("Bearer "),
            Some("Bearer a-token-of-some-lengtH"),
            Some("Bearer a-token-of-some-length2"),
            Some("Bearer a-token-of-some-lengt"),
        ] {
            for target in [
                "/",
                "/metrics",
                "/status",
                "/outbox",
                "/trace?key=x",
                "/nothing",
            ] {
                let told = ask(&admin, "GET", target, shown);
                assert_eq!(told.status, 401, "{target} {shown:?}");
                let head = String::from_utf8(told.head()).unwrap_or_default();
                assert!(head.contains("WWW-Authenticate: Bearer"), "{head}");
            }
        }
        for shown in [
            "Bearer a-token-of-some-length",
            "bearer  a-token-of-some-length",
        ] {
            assert_eq!(ask(&admin, "GET", "/metrics", Some(shown)).status, 200);
        }
    }

    #[test]
    fn two_authorizations_are_none() {
        let one = |value| httparse::Header {
            name: "AUTHORIZATION",
            value,
        };
        assert_eq!(the_only(&[one(b"a")], "authorization"), Some(&b"a"[..]));
        assert_eq!(the_only(&[one(b"a"), one(b"a")], "authorization"), None);
        assert_eq!(the_only(&[], "authorization"), None);
    }

    #[test]
    fn a_reload_changes_the_token() {
        let admin = admin(Some("the-old-token-0123"), &[]);
        admin.set_token(Some(Secret::new("the-new-token-0123")));
        let old = Some("Bearer the-old-token-0123");
        assert_eq!(ask(&admin, "GET", "/metrics", old).status, 401);
        let new = Some("Bearer the-new-token-0123");
        assert_eq!(ask(&admin, "GET", "/metrics", new).status, 200);
        admin.set_token(None);
        assert_eq!(ask(&admin, "GET", "/metrics", None).status, 200);
    }
}

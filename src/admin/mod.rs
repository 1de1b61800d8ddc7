//! The admin port: is it alive, is it ready, what has it counted, who is connected, what became of a notification; and the page
//! that shows it to people. doc/api.md describes every request.
//!
//! Pure answers to requests that the edge has read whole; no thread of its own. What is asked about is handed in by whoever
//! wires the relay.
//!
//! | part | what lives there |
//! |---|---|
//! | `auth` | tokens, logins, who may do what |
//! | `reply`, `query` | requests and answers as this module sees them |
//! | `wanted` | what a path asks for, and who gets it |
//! | `api`, `entries` | what stands in the answers, for the command line too; how it is made |
//! | `notifications`, `trace`, `outbox`, `backends`, `health`, `status` | what is asked for |
//! | `changes` | what operators did to it lately |
//! | `nodes` | asking another node |
//! | `page` | the files of the page |

pub mod api;
mod auth;
mod backends;
mod changes;
mod entries;
mod health;
mod nodes;
mod notifications;
mod outbox;
mod page;
mod query;
mod reply;
mod status;
mod trace;
mod wanted;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use self::api::{RouteInfo, SessionInfo};
use self::auth::{AuthError, Caller, Gate};
use self::changes::Changes;
use self::nodes::Nodes;
use self::reply::{AdminAnswer, AdminReply, AdminRequest};
use self::status::{BusState, Status};
use self::wanted::{Wanted, check_action, check_rights};
use crate::bus::{Bus, Presence};
use crate::config::Config;
use crate::delivery::Delivery;
use crate::edge::{Handler, HttpRequest, Responder, Response};
use crate::heartbeat;
use crate::metrics::{self, Metrics, Readings};
use crate::outbox::Outbox;
use crate::session::Registry;
use crate::trace::Trace;

/// What goes with a 401 (RFC 9110, 11.6.1).
const CHALLENGE: &str = "WWW-Authenticate: Bearer realm=\"payrelay\"";

/// How long the other nodes have to say who is connected to them. The bus itself answers within two seconds.
const PRESENCE_WITHIN: Duration = Duration::from_secs(5);

/// Says why this node cannot relay just now, one word or short phrase each; empty: it can.
pub type NotReady = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// Reads what is not counted as it happens.
pub type ReadNow = Box<dyn Fn() -> Readings + Send + Sync>;

/// Where notifications are looked for, and what is to be told of changes.
pub struct Sources {
    /// `None`: nothing is stored here.
    pub outbox: Option<Arc<Outbox>>,
    pub trace: Arc<Trace>,
    pub registry: Arc<Registry>,
    pub delivery: Arc<Delivery>,
}

/// Answers the requests of the admin listener.
pub struct Admin {
    node: String,
    gate: Gate,
    nodes: Nodes,
    metrics: Arc<Metrics>,
    not_ready: NotReady,
    read_now: ReadNow,
    bus: Arc<dyn Bus>,
    sources: Sources,
    changes: Changes,
    started: Instant,
    /// Of the configuration in force.
    warnings: RwLock<Vec<String>>,
    routes: RwLock<Vec<RouteInfo>>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Readiness<'a> {
    ready: bool,
    node: &'a str,
    reasons: Vec<String>,
    /// What a person should look at, and what keeps nobody from relaying.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    bus: BusState,
}

/// What `POST /login` carries.
#[derive(Deserialize)]
struct LogIn {
    token: String,
}

impl Admin {
    /// The admin port of the instance called `node`.
    pub fn new(
        node: String,
        config: &Config,
        metrics: Arc<Metrics>,
        not_ready: NotReady,
        read_now: ReadNow,
        bus: Arc<dyn Bus>,
        sources: Sources,
    ) -> Self {
        let admin = &config.admin;
        let (token, readers) = (admin.token.clone(), admin.read_tokens.clone());
        Self {
            gate: Gate::new(&node, token, readers),
            nodes: Nodes::new(node.clone(), admin.nodes.clone()),
            node,
            metrics,
            not_ready,
            read_now,
            bus,
            sources,
            changes: Changes::default(),
            started: Instant::now(),
            warnings: RwLock::new(config.warnings.clone()),
            routes: RwLock::new(health::routes(config)),
        }
    }

    /// Takes over what can change while running: tokens, other nodes, and what is to be warned of.
    pub fn set(&self, config: &Config) {
        let admin = &config.admin;
        self.gate
            .set(admin.token.clone(), admin.read_tokens.clone());
        self.nodes.set(admin.nodes.clone());
        self.warnings.write().clone_from(&config.warnings);
        *self.routes.write() = health::routes(config);
    }

    /// Answers `request`; may wait for a disk, or for another node.
    pub fn respond(&self, request: &HttpRequest<'_>) -> Response {
        self.answer(&AdminRequest::of(request)).into()
    }

    fn answer(&self, asked: &AdminRequest<'_>) -> AdminReply {
        let (Ok(told) | Err(told)) = self.judge(asked);
        told
    }

    fn judge(&self, asked: &AdminRequest<'_>) -> AdminAnswer {
        let path = asked.path();
        // Probes of load balancers cannot carry a token; these tell a stranger nothing but up or down, and why. And the
        // page has nothing in it.
        let open = match path {
            "/livez" => Some(AdminReply::text(200, "ok")),
            "/readyz" => Some(self.readyz()),
            "/login" => return self.log_in(asked),
            "/logout" => return self.log_out(asked),
            path => page::file(path),
        };
        if let Some(told) = open {
            return match asked.reads() {
                true => Ok(told),
                false => Err(AdminReply::not_allowed("GET, HEAD")),
            };
        }
        let caller = self.gate.identify(&asked.shown)?.reduced_to(asked.rights);
        let no_page = || AdminReply::text(404, "no such page; doc/api.md lists what is here\n");
        let wanted = Wanted::at(path).ok_or_else(no_page)?;
        check_rights(asked, wanted, &caller)?;
        let token = self.gate.admin_token();
        if wanted.is_of_a_node()
            && let Some(told) = self.nodes.forward(asked, &caller, token.as_ref())
        {
            return Ok(told);
        }
        match wanted {
            Wanted::Session => Ok(self.session(&caller)),
            Wanted::Metrics => Ok(self.metrics()),
            Wanted::Status => Ok(self.status()),
            Wanted::Trace => trace::find(self, asked.target),
            Wanted::Notifications => notifications::list(self, asked.target, caller.rights.bodies),
            Wanted::Backends => backends::list(self),
            Wanted::Disconnect => backends::disconnect(self, asked, &caller),
            Wanted::Health => Ok(health::health(self)),
            Wanted::Content(id) => notifications::content(self, id),
            Wanted::Outbox | Wanted::OutboxChange => outbox::answer(self, asked, &caller),
        }
    }

    fn session(&self, caller: &Caller) -> AdminReply {
        let session = SessionInfo {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: caller.name.clone(),
            bodies: caller.rights.bodies,
            act: caller.rights.act,
            login: self.gate.asks(),
            others: self.nodes.names(),
        };
        AdminReply::json(200, &session)
    }

    fn log_in(&self, asked: &AdminRequest<'_>) -> AdminAnswer {
        check_action(asked, false)?;
        // Not serde's words: they may quote the token.
        let log_in: LogIn =
            serde_json::from_slice(asked.body).map_err(|_| "{\"token\": \"…\"} is needed\n")?;
        let peer = asked.shown.peer;
        let (caller, cookie) = self.gate.log_in(&log_in.token, peer, asked.was_sealed)?;
        log::info!("admin: {} logs in", asked.who(&caller));
        Ok(self.session(&caller).with(cookie))
    }

    fn log_out(&self, asked: &AdminRequest<'_>) -> AdminAnswer {
        check_action(asked, false)?;
        let cookie = self.gate.log_out(asked.shown.cookie);
        Ok(AdminReply::text(200, "logged out\n").with(cookie))
    }

    fn readyz(&self) -> AdminReply {
        let reasons = (self.not_ready)();
        let warnings = heartbeat::ailments().into_iter();
        let warnings = warnings.filter_map(|ailment| (!ailment.is_vital).then_some(ailment.words));
        let outbox = self.sources.outbox.as_ref();
        let shared = outbox.and_then(|outbox| outbox.shared_warning());
        let warnings = warnings.chain(shared).collect();
        let ready = reasons.is_empty();
        let readiness = Readiness {
            ready,
            node: &self.node,
            reasons,
            warnings,
            bus: BusState::of(&*self.bus),
        };
        AdminReply::json(if ready { 200 } else { 503 }, &readiness)
    }

    fn metrics(&self) -> AdminReply {
        AdminReply {
            content_type: metrics::CONTENT_TYPE,
            ..AdminReply::text(200, &self.metrics.text(&(self.read_now)()))
        }
    }

    /// Which backends are connected where, as all nodes say.
    fn status(&self) -> AdminReply {
        let (tell, told) = bounded(1);
        self.bus.presence(Box::new(move |presence| {
            let _ = tell.try_send(presence); // it fails when this was given up
        }));
        let presence = told
            .recv_timeout(PRESENCE_WITHIN)
            .unwrap_or_else(|_| Presence {
                trouble: Some("the bus has not answered".into()),
                ..Presence::default()
            });
        AdminReply::json(
            200,
            &Status {
                node: &self.node,
                bus: &BusState::of(&*self.bus),
                presence: &presence,
            },
        )
    }
}

impl From<AuthError> for AdminReply {
    fn from(refused: AuthError) -> Self {
        match refused {
            AuthError::NoToken => Self::text(
                401,
                "a token is needed: log in at /, or send Authorization: Bearer …\n",
            )
            .with(CHALLENGE),
            AuthError::WrongToken => {
                Self::text(401, "this is no token of this relay\n").with(CHALLENGE)
            }
            AuthError::TooMany(left) => Self::text(429, "too many wrong tokens\n")
                .with(format!("Retry-After: {}", left.as_secs().max(1))),
            AuthError::OtherSite => Self::text(
                403,
                "this was asked by another site's page, or by a name that is none of this relay's; without admin.token only an \
                 address or localhost is answered\n",
            ),
        }
    }
}

impl Handler for Admin {
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder) {
        responder.answer(&self.respond(request));
    }
}

#[cfg(test)]
mod tests;

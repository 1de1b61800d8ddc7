//! What a path asks for, and why somebody does not get it.

use super::auth::Caller;
use super::query::asks_for_body;
use super::reply::{AdminReply, AdminRequest};
use crate::notification::NotificationId;

/// What one who may not see bodies is told.
pub const NO_BODIES: &str =
    "this token may not see headers and bodies; admin.read_tokens says who may: bodies = true\n";

/// What a request asks for, beyond what is open to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Session,
    Metrics,
    Status,
    Trace,
    Notifications,
    Content(NotificationId),
    Outbox,
    Backends,
    Health,
    /// It changes something.
    OutboxChange,
    Disconnect,
}

impl Wanted {
    /// What there is at `path`.
    pub fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/session" => Self::Session,
            "/metrics" => Self::Metrics,
            "/status" => Self::Status,
            "/trace" => Self::Trace,
            "/notifications" => Self::Notifications,
            "/outbox/retry" | "/outbox/drop" | "/outbox/forget" | "/outbox/import"
            | "/outbox/hand-over" => Self::OutboxChange,
            "/outbox" => Self::Outbox,
            "/backends" => Self::Backends,
            "/backends/disconnect" => Self::Disconnect,
            "/health" => Self::Health,
            path if path.starts_with("/outbox/") => Self::Outbox,
            path => {
                let id = path.strip_prefix("/notifications/")?;
                Self::Content(NotificationId::parse(id.strip_suffix("/content")?)?)
            }
        })
    }

    /// Whether it changes something.
    pub fn acts(self) -> bool {
        match self {
            Self::OutboxChange | Self::Disconnect => true,
            Self::Session
            | Self::Metrics
            | Self::Status
            | Self::Trace
            | Self::Notifications
            | Self::Content(_)
            | Self::Outbox
            | Self::Backends
            | Self::Health => false,
        }
    }

    /// Whether another node can be asked for it through this one.
    pub fn is_of_a_node(self) -> bool {
        self != Self::Session
    }
}

/// Refuses what does not ask for a change; `proven`: it shows a token.
pub fn check_action(asked: &AdminRequest<'_>, proven: bool) -> Result<(), AdminReply> {
    if asked.method != "POST" {
        return Err(AdminReply::not_allowed("POST"));
    }
    if !proven && !asked.has_action_header {
        let words = "this changes something: the header X-Payrelay-Action: 1 is needed\n";
        return Err(AdminReply::text(403, words));
    }
    if !asked.is_json {
        let words = "the body must be JSON, Content-Type: application/json\n";
        return Err(AdminReply::text(415, words));
    }
    Ok(())
}

/// Refuses what is `wanted` if `caller` may not have it.
pub fn check_rights(
    asked: &AdminRequest<'_>,
    wanted: Wanted,
    caller: &Caller,
) -> Result<(), AdminReply> {
    if wanted.acts() {
        check_action(asked, caller.proven)?;
        if !caller.rights.act {
            log::warn!("admin: {} may not change anything", asked.who(caller));
            let words = "this token may look and change nothing\n";
            return Err(AdminReply::text(403, words));
        }
        return Ok(());
    }
    if !asked.reads() {
        return Err(AdminReply::not_allowed("GET, HEAD"));
    }
    // Asked of another node, it is this one that must judge: there it comes with the admin token.
    let of_content = match wanted {
        Wanted::Content(_) => true,
        Wanted::Outbox if asked.path() == "/outbox/export" => true,
        Wanted::Outbox => asks_for_body(asked.target),
        _ => false,
    };
    match of_content && !caller.rights.bodies {
        true => Err(AdminReply::text(403, NO_BODIES)),
        false => Ok(()),
    }
}

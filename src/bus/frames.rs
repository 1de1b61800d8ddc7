//! What the nodes say to each other: frames of the backends' grammar, so that `redis-cli psubscribe 'payrelay:*'` reads
//! like the protocol.
//!
//! ```text
//! on to:<backend id>
//!   MSG id= try= route= verified= [event=] at= h= origin=<instance> ttl=<ms> =<len>     a notification, and its head
//!   DATA id= from= origin=<instance> =<len>                                             one backend to another
//! on node:<instance>
//!   ACK id= to=<backend id> try=     what became of it, to the node that sent it
//!   NACK id= to= try= [delay=] [reason=]
//!   GONE id= to= try=    BUSY …    EXPIRED …    each with session= sent=<Unix ms> if it became a MSG
//!   CANARY n=<number>                this node to itself, every second
//!   WAKE                             this node's publisher to its subscriber: there is something to subscribe to
//!   ROLL n=<number> node=<instance> more=<0|1> =<len>     an answer to WHO: "<backend id> <stamp>" and LF for each;
//!                                    n=0: to a node that asked by itself, for it may have missed a HERE
//! on all
//!   HERE node=<instance> =<len>      backends that have come: "<backend id> <stamp>" and LF for each
//!   WHO n=<number> origin=<instance> who is connected to you?
//!   ELSEWHERE node=<instance> at=<host:port>    that node uses another primary, and was here: it does not hear this one
//! on event:<channel>
//!   EVENT =<len>
//! ```
//!
//! Pure: bytes in, a [`Frame`] out, and back. What another node says is believed, since it is let into Redis; but nothing
//! that it could say makes this node panic or hold more than the message itself.

use std::borrow::Cow;
use std::time::Duration;

use super::types::{DATA_BYTES_MAX, Data, Stamp};
use crate::envelope::Sent;
use crate::notification::{Again, BackendId, Nack, Notification, NotificationId, Receipt};
use crate::wire::{self, Line, LineWriter};

/// What can be heard.
#[derive(Debug)]
pub enum Frame<'a> {
    /// A notification for a backend here; whom to tell, and how long the sender waits.
    Msg {
        notification: Notification,
        origin: &'a str,
        ttl: Duration,
    },
    /// Data for a backend here; whom to tell.
    Data {
        id: NotificationId,
        data: Data,
        origin: &'a str,
    },
    /// What became of something this node sent to the backend called `to`.
    Receipt {
        id: NotificationId,
        to: BackendId,
        receipt: Receipt,
        /// Which try it was; `None`: data, or a node of an earlier version.
        tries: Option<u32>,
        /// The MSG that it became there, if it did.
        sent: Option<Sent>,
    },
    /// This node's own word to itself.
    Canary(u64),
    /// Look what there is to subscribe to.
    Wake,
    /// Backends that have come.
    Here {
        node: &'a str,
        backends: Vec<(BackendId, Stamp)>,
    },
    /// Another node asks who is here.
    Who { n: u64, origin: &'a str },
    /// The answer to that, or a part of it.
    Roll {
        n: u64,
        node: &'a str,
        more: bool,
        backends: Vec<(BackendId, Stamp)>,
    },
    /// A node uses the primary `at`, and says so on this one.
    OtherPrimaries { node: &'a str, at: Cow<'a, str> },
    /// An event; the channel is Redis's.
    Event(&'a [u8]),
}

/// Reads a whole message. `None`: it is none of this version's, or broken.
///
/// `topic` is the backend whose channel it came on, if it was one.
pub fn read<'a>(message: &'a [u8], topic: Option<&BackendId>) -> Option<Frame<'a>> {
    let (line, used) = Line::find(message).ok()??;
    let data = match line.data_bytes {
        None => &[][..],
        Some(bytes) if bytes <= DATA_BYTES_MAX => message.get(used..used + bytes)?,
        Some(_) => return None,
    };
    let number = |key| -> Option<u64> { line.raw(key)?.parse().ok() };
    Some(match line.verb {
        "MSG" => Frame::Msg {
            notification: notification(&line, data, topic?)?,
            origin: line.raw("origin")?,
            ttl: Duration::from_millis(number("ttl")?),
        },
        "DATA" => Frame::Data {
            id: id(&line)?,
            data: Data {
                from: BackendId::parse(line.raw("from")?).ok()?,
                to: topic?.clone(),
                bytes: data.to_vec(),
            },
            origin: line.raw("origin")?,
        },
        "ACK" | "NACK" | "GONE" | "BUSY" | "EXPIRED" => Frame::Receipt {
            id: id(&line)?,
            to: BackendId::parse(line.raw("to")?).ok()?,
            receipt: receipt(&line)?,
            tries: line.raw("try").and_then(|tries| tries.parse().ok()),
            sent: number("session").and_then(|session| {
                Some(Sent {
                    at_unix_ms: number("sent")?,
                    session,
                })
            }),
        },
        "CANARY" => Frame::Canary(number("n")?),
        "WAKE" => Frame::Wake,
        "HERE" => Frame::Here {
            node: line.raw("node")?,
            backends: stamps(data),
        },
        "WHO" => Frame::Who {
            n: number("n")?,
            origin: line.raw("origin")?,
        },
        "ROLL" => Frame::Roll {
            n: number("n")?,
            node: line.raw("node")?,
            more: line.raw("more")? == "1",
            backends: stamps(data),
        },
        "ELSEWHERE" => Frame::OtherPrimaries {
            node: line.raw("node")?,
            at: line.text("at")?,
        },
        "EVENT" => Frame::Event(data),
        _ => return None,
    })
}

fn id(line: &Line<'_>) -> Option<NotificationId> {
    NotificationId::parse(line.raw("id")?)
}

fn notification(line: &Line<'_>, data: &[u8], backend: &BackendId) -> Option<Notification> {
    let head_bytes: usize = line.raw("h")?.parse().ok()?;
    let (head, body) = data.split_at_checked(head_bytes)?;
    Some(Notification {
        id: id(line)?,
        backend: backend.clone(),
        route: line.text("route")?.into(),
        verified: line.text("verified")?.into_owned().into(),
        event: line.text("event").map(Into::into),
        event_proven: false,
        at_unix_ms: line.raw("at")?.parse().ok()?,
        tries: line.raw("try")?.parse().ok()?,
        head: head.to_vec(),
        body: body.to_vec(),
    })
}

fn receipt(line: &Line<'_>) -> Option<Receipt> {
    Some(match line.verb {
        "ACK" => Receipt::Ack,
        "GONE" => Receipt::Gone,
        "BUSY" => Receipt::Busy,
        "EXPIRED" => Receipt::Expired,
        "NACK" => Receipt::Nack(Nack {
            again: match line.raw("delay") {
                None => Again::Whenever,
                Some("-1") => Again::Never,
                Some(seconds) => {
                    Again::After(Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?)
                }
            },
            reason: line.text("reason").map(Into::into),
        }),
        _ => return None,
    })
}

/// The largest stamp that is believed, in the year 2255: after the largest there is, a node could give no larger one.
const STAMP_MAX: Stamp = 1 << 53;

/// Lines of a backend and its stamp; a line that is neither is left out.
fn stamps(data: &[u8]) -> Vec<(BackendId, Stamp)> {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let one = |line: &str| {
        let (id, stamp) = line.split_once(' ')?;
        let stamp = stamp.parse().ok().filter(|stamp| *stamp <= STAMP_MAX)?;
        Some((BackendId::parse(id).ok()?, stamp))
    };
    text.lines().filter_map(one).collect()
}

/// Begins the line of a MSG, to a node or to a backend: what both are told of `notification`.
pub fn msg_line<'a>(out: &'a mut Vec<u8>, notification: &Notification) -> LineWriter<'a> {
    let mut line = wire::line(out, "MSG")
        .plain("id", notification.id)
        .plain("try", notification.tries)
        .arg("route", &notification.route)
        .arg("verified", &notification.verified);
    if let Some(event) = &notification.event {
        line = line.arg("event", event);
    }
    line.plain("at", notification.at_unix_ms)
        .plain("h", notification.head.len())
}

/// Writes a notification for another node; `origin` hears what became of it and waits for `ttl`.
pub fn msg(out: &mut Vec<u8>, notification: &Notification, origin: &str, ttl: Duration) {
    out.reserve(512 + notification.head.len() + notification.body.len());
    msg_line(out, notification)
        .arg("origin", origin)
        .plain("ttl", ttl.as_millis())
        .end_with_data(notification.head.len() + notification.body.len());
    out.extend_from_slice(&notification.head);
    out.extend_from_slice(&notification.body);
    out.push(b'\n');
}

/// Writes data for a backend on another node.
pub fn data(out: &mut Vec<u8>, id: NotificationId, data: &Data, origin: &str) {
    wire::line(out, "DATA")
        .plain("id", id)
        .arg("from", data.from.as_str())
        .arg("origin", origin)
        .end_with_data(data.bytes.len());
    out.extend_from_slice(&data.bytes);
    out.push(b'\n');
}

/// Writes what became of `id`, which was for the backend called `to`; `tries` is that of its MSG.
pub fn receipt_line(
    out: &mut Vec<u8>,
    id: NotificationId,
    to: &BackendId,
    receipt: &Receipt,
    tries: Option<u32>,
    sent: Option<Sent>,
) {
    let verb = match receipt {
        Receipt::Ack => "ACK",
        Receipt::Nack(_) => "NACK",
        // A node that cannot carry on what waited for a session does not have it.
        Receipt::Gone | Receipt::Unreachable => "GONE",
        Receipt::Busy => "BUSY",
        Receipt::Expired => "EXPIRED",
    };
    let mut line = wire::line(out, verb).plain("id", id).arg("to", to.as_str());
    if let Some(tries) = tries {
        line = line.plain("try", tries);
    }
    if let Receipt::Nack(nack) = receipt {
        line = match nack.again {
            Again::Whenever => line,
            Again::After(delay) => line.seconds("delay", delay),
            Again::Never => line.plain("delay", -1),
        };
        if let Some(reason) = &nack.reason {
            line = line.arg("reason", reason);
        }
    }
    if let Some(sent) = sent {
        line = line
            .plain("session", sent.session)
            .plain("sent", sent.at_unix_ms);
    }
    line.end();
}

/// Writes this node's word to itself.
pub fn canary(out: &mut Vec<u8>, n: u64) {
    wire::line(out, "CANARY").plain("n", n).end();
}

/// Writes the wake-up.
pub fn wake(out: &mut Vec<u8>) {
    wire::line(out, "WAKE").end();
}

/// Writes that `backends` have come to `node`.
pub fn here(out: &mut Vec<u8>, node: &str, backends: &[(BackendId, Stamp)]) {
    let list = list(backends);
    wire::line(out, "HERE")
        .arg("node", node)
        .end_with_data(list.len());
    out.extend_from_slice(&list);
    out.push(b'\n');
}

/// Writes the question who is connected where.
pub fn who(out: &mut Vec<u8>, n: u64, origin: &str) {
    wire::line(out, "WHO")
        .plain("n", n)
        .arg("origin", origin)
        .end();
}

/// Writes that `node` uses the primary `at`.
pub fn elsewhere(out: &mut Vec<u8>, node: &str, at: &str) {
    wire::line(out, "ELSEWHERE")
        .arg("node", node)
        .arg("at", at)
        .end();
}

/// Writes an answer to it, or a part of one.
pub fn roll(out: &mut Vec<u8>, n: u64, node: &str, backends: &[(BackendId, Stamp)], more: bool) {
    let list = list(backends);
    wire::line(out, "ROLL")
        .plain("n", n)
        .arg("node", node)
        .plain("more", u8::from(more))
        .end_with_data(list.len());
    out.extend_from_slice(&list);
    out.push(b'\n');
}

/// Writes an event.
pub fn event(out: &mut Vec<u8>, payload: &[u8]) {
    wire::line(out, "EVENT").end_with_data(payload.len());
    out.extend_from_slice(payload);
    out.push(b'\n');
}

fn list(backends: &[(BackendId, Stamp)]) -> Vec<u8> {
    let mut list = Vec::with_capacity(backends.len() * 32);
    for (id, stamp) in backends {
        list.extend_from_slice(id.as_str().as_bytes());
        list.extend_from_slice(format!(" {stamp}\n").as_bytes());
    }
    list
}

#[cfg(test)]
mod tests;

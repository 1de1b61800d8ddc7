//! What is asked and what is answered at the admin port, as its parts see it.

use serde::{Deserialize, Serialize};

use super::auth::{Caller, Shown};
use crate::edge::{HttpRequest, Response};
use crate::outbox::AskError;

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const JSON: &str = "application/json";

/// What is asked, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct AdminRequest<'a> {
    pub method: &'a str,
    pub target: &'a str,
    /// Whether the body says that it is JSON.
    pub is_json: bool,
    pub body: &'a [u8],
    /// Who sends it.
    pub shown: Shown<'a>,
    /// The header that no other site can make a browser send is there.
    pub has_action_header: bool,
    /// A node that asks for somebody says for whom.
    pub on_behalf_of: Option<&'a [u8]>,
    /// And with which rights.
    pub rights: Option<&'a [u8]>,
    /// A proxy in front says that it was asked through TLS.
    pub was_sealed: bool,
}

impl<'a> AdminRequest<'a> {
    /// What `request` asks.
    pub fn of(request: &'a HttpRequest<'_>) -> Self {
        let the_only = |name| the_only(request.headers, name);
        Self {
            method: request.method,
            target: request.target,
            is_json: the_only("content-type").is_some_and(|kind| {
                let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
                kind.trim_ascii().eq_ignore_ascii_case(JSON.as_bytes())
            }),
            body: request.body,
            shown: Shown {
                authorization: first_of_only(request, "authorization"),
                cookie: the_only("cookie"),
                host: the_only("host"),
                fetch_site: the_only("sec-fetch-site"),
                peer: request.peer,
            },
            has_action_header: the_only(super::auth::ACTION_HEADER).is_some(),
            on_behalf_of: the_only(super::auth::ON_BEHALF_HEADER),
            rights: the_only(super::auth::RIGHTS_HEADER),
            was_sealed: the_only("x-forwarded-proto") == Some(b"https"),
        }
    }

    /// The path, without the query.
    pub fn path(&self) -> &'a str {
        self.target.split(['?', '#']).next().unwrap_or_default()
    }

    /// `caller` as the log has it.
    pub fn who(&self, caller: &Caller) -> String {
        let told = self.on_behalf_of.filter(|_| caller.name == "admin");
        match told.and_then(|who| std::str::from_utf8(who).ok()) {
            Some(who) => who.escape_debug().take(200).collect(),
            None => format!("{} ({})", caller.name, self.shown.peer.ip()),
        }
    }

    /// What its body says in JSON.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, AdminReply> {
        serde_json::from_slice(self.body)
            .map_err(|error| AdminReply::text(400, &format!("{error}\n")))
    }

    /// Whether it only reads.
    pub fn reads(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }
}

/// Two are none, but none that can be taken for an anonymous request.
fn first_of_only<'a>(request: &'a HttpRequest<'_>, name: &str) -> Option<&'a [u8]> {
    let any = request
        .headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case(name));
    any.then(|| the_only(request.headers, name).unwrap_or_default())
}

/// The value of the header called `name`; `None` if there is none, or more than one.
pub fn the_only<'a>(headers: &'a [httparse::Header<'_>], name: &str) -> Option<&'a [u8]> {
    let mut named = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name));
    match (named.next(), named.next()) {
        (Some(header), None) => Some(header.value),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// What is answered; `Err`: in place of what was asked for.
pub type AdminAnswer = Result<AdminReply, AdminReply>;

/// What is answered.
#[derive(Debug)]
pub struct AdminReply {
    pub status: u16,
    pub content_type: &'static str,
    /// More header lines, without their CRLF.
    pub extra: Vec<String>,
    pub body: Vec<u8>,
}

impl AdminReply {
    /// `value` as JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        // What is said here, texts and numbers, always becomes JSON.
        let mut body = serde_json::to_vec(value).unwrap_or_default();
        body.push(b'\n');
        Self {
            status,
            content_type: JSON,
            extra: Vec::new(),
            body,
        }
    }

    /// A sentence for people.
    pub fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            extra: Vec::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// The same with one more header line.
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.extra.push(line.into());
        self
    }

    /// The method is not for this path.
    pub fn not_allowed(allow: &str) -> Self {
        let words = format!("only {allow} is answered here\n");
        Self::text(405, &words).with(format!("Allow: {allow}"))
    }

    /// The header lines, CRLF after each.
    pub fn head(&self) -> Vec<u8> {
        // A cached readiness would be a lie about the present, and a cached body somebody else's to find.
        let mut head = format!(
            "Content-Type: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n",
            self.content_type
        );
        for line in &self.extra {
            head.push_str(line);
            head.push_str("\r\n");
        }
        head.into_bytes()
    }
}

/// What is wrong with a request, in words.
impl From<&'static str> for AdminReply {
    fn from(words: &'static str) -> Self {
        Self::text(400, words)
    }
}

/// The outbox has not answered.
impl From<AskError> for AdminReply {
    fn from(error: AskError) -> Self {
        Self::text(503, &format!("{error}\n"))
    }
}

impl From<AdminReply> for Response {
    fn from(told: AdminReply) -> Self {
        Self {
            status: told.status,
            head: told.head(),
            body: told.body,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn two_of_a_header_are_none() {
        let one = |value| httparse::Header {
            name: "AUTHORIZATION",
            value,
        };
        assert_eq!(the_only(&[one(b"a")], "authorization"), Some(&b"a"[..]));
        assert_eq!(the_only(&[one(b"a"), one(b"a")], "authorization"), None);
        assert_eq!(the_only(&[], "authorization"), None);
        let two = [one(b"Bearer a"), one(b"Bearer b")];
        let request = HttpRequest {
            method: "GET",
            target: "/metrics?x",
            headers: &two,
            body: b"",
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        let asked = AdminRequest::of(&request);
        assert_eq!(
            asked.shown.authorization,
            Some(&b""[..]),
            "shown, and wrong"
        );
        assert_eq!(
            (asked.path(), asked.reads(), asked.is_json),
            ("/metrics", true, false)
        );
    }
}

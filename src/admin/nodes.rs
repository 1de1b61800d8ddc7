//! Asking another node: a request that carries `node=` is put to that node's admin port, and its answer handed on.
//!
//! By HTTP and not over the bus: it works while Redis is down, which is when somebody looks; no payment's body passes through
//! Redis because somebody looks at it; and the threads that carry notifications have no part in it. Who asks with `node=` asks
//! each node by itself, so that one that is silent holds up nobody's answer but its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::auth::{ACTION_HEADER, Caller, ON_BEHALF_HEADER, RIGHTS_HEADER};
use super::query::pairs;
use super::reply::{AdminReply, AdminRequest, JSON, TEXT};
use crate::config::Secret;

/// The parameter that names the node to be asked.
const PARAMETER: &str = "node";

/// How long another node may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// How long it may then take to answer: somebody looks at a page meanwhile.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How long it may take to change something: longer than its outbox waits for the disk, for what has become of it must be told.
const CHANGE_WITHIN: Duration = Duration::from_secs(40);

/// The most bytes of an answer: the largest body there can be, in base 64.
const ANSWER_BYTES_MAX: u64 = 100 << 20;

/// The other nodes' admin ports.
#[derive(Debug)]
pub struct Nodes {
    own: String,
    others: RwLock<Vec<SocketAddr>>,
}

impl Nodes {
    /// For the node called `own`.
    pub fn new(own: String, others: Vec<SocketAddr>) -> Self {
        Self {
            own,
            others: RwLock::new(others),
        }
    }

    /// From now on these.
    pub fn set(&self, others: Vec<SocketAddr>) {
        *self.others.write() = others;
    }

    /// As configuration and `node=` have them.
    pub fn names(&self) -> Vec<String> {
        let others = self.others.read();
        others.iter().map(ToString::to_string).collect()
    }

    /// Puts `asked` to the node that it names; `None`: it names none.
    pub fn forward(
        &self,
        asked: &AdminRequest<'_>,
        caller: &Caller,
        token: Option<&Secret>,
    ) -> Option<AdminReply> {
        let query = pairs(asked.target);
        let (_, name) = query.iter().find(|(key, _)| key == PARAMETER)?;
        // Only where the configuration says, so that nobody makes this node connect elsewhere.
        let others = self.others.read();
        let to = others
            .iter()
            .copied()
            .find(|other| other.to_string() == *name);
        drop(others);
        let Some(to) = to else {
            return Some(AdminReply::text(404, "node: none of admin.nodes\n"));
        };
        let who = format!(
            "{} ({}) by {}",
            caller.name,
            asked.shown.peer.ip(),
            self.own
        );
        let rights = caller.rights.word();
        let marks = format!("{ON_BEHALF_HEADER}: {who}\r\n{RIGHTS_HEADER}: {rights}\r\n");
        let request = render(asked, &to.to_string(), token, &marks);
        let within = match asked.reads() {
            true => READ_WITHIN,
            false => CHANGE_WITHIN,
        };
        Some(match exchange(to, &request, within) {
            Ok(told) => told,
            Err(words) => AdminReply::text(502, &format!("{to} {words}\n")),
        })
    }
}

/// `target` without the parameter that names a node.
fn without_node(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(PARAMETER))
        .collect();
    match kept.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", kept.join("&")),
    }
}

fn render(asked: &AdminRequest<'_>, host: &str, token: Option<&Secret>, marks: &str) -> Vec<u8> {
    let method = asked.method;
    let target = without_node(asked.target);
    let mut request =
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{marks}");
    if let Some(token) = token {
        request.push_str(&format!("Authorization: Bearer {}\r\n", token.expose()));
    }
    if !asked.reads() {
        let bytes = asked.body.len();
        request.push_str(&format!(
            "{ACTION_HEADER}: 1\r\nContent-Type: {JSON}\r\nContent-Length: {bytes}\r\n"
        ));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    if !asked.reads() {
        request.extend_from_slice(asked.body);
    }
    request
}

/// Sends `request` to `to` and reads the whole answer.
fn exchange(to: SocketAddr, request: &[u8], within: Duration) -> Result<AdminReply, String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream =
        TcpStream::connect_timeout(&to, CONNECT_WITHIN).map_err(failed("cannot be reached"))?;
    let until = Instant::now() + within;
    let _ = stream.set_nodelay(true);
    stream
        .set_write_timeout(Some(CONNECT_WITHIN))
        .and_then(|()| stream.write_all(request))
        .map_err(failed("takes no request"))?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("has not answered in time".into());
        }
        stream
            .set_read_timeout(Some(left))
            .map_err(failed("cannot be read"))?;
        match stream.read(&mut chunk) {
            Ok(0) => return parse(&answer),
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("has not answered: {error}")),
        }
        if answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err("answers without end".into());
        }
    }
}

/// The answer of another relay.
fn parse(answer: &[u8]) -> Result<AdminReply, String> {
    let no_relay = || "is no relay of this version".to_owned();
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(at)) = head.parse(answer) else {
        return Err(no_relay());
    };
    let value = |name| super::reply::the_only(head.headers, name);
    let length = value("content-length").and_then(|text| std::str::from_utf8(text).ok());
    let body = &answer[at..];
    if length.and_then(|text| text.parse().ok()) != Some(body.len()) {
        return Err("has broken off its answer".into());
    }
    let status = head.code.unwrap_or(502);
    if status == 401 {
        return Err("asks for another admin.token: all nodes must have the same".into());
    }
    Ok(AdminReply {
        status,
        content_type: match value("content-type") {
            Some(kind) if kind == JSON.as_bytes() => JSON,
            _ => TEXT,
        },
        extra: Vec::new(),
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_taken_out_of_the_query_and_nothing_else() {
        for (target, left) in [
            ("/trace?node=10.0.0.1%3A9100", "/trace"),
            ("/trace?node=x&key=a%26node&b=1", "/trace?key=a%26node&b=1"),
            ("/trace?key=a&nodes=1&node=x", "/trace?key=a&nodes=1"),
            ("/trace", "/trace"),
        ] {
            assert_eq!(without_node(target), left);
        }
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let whole =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let told = parse(whole).expect("an answer");
        assert_eq!(
            (told.status, told.content_type, &*told.body),
            (200, JSON, &b"{}"[..])
        );
        assert!(parse(&whole[..whole.len() - 1]).is_err());
        assert!(parse(b"").is_err() && parse(b"SSH-2.0\r\n").is_err());
        let other = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n";
        assert!(parse(other).is_err_and(|words| words.contains("admin.token")));
    }
}

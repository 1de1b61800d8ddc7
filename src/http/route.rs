//! The routes as the workers use them: matched by path, their answers prepared.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::digest;
use log::Level;

use super::request::{NOT_ASCII_HEADER, RequestView};
use crate::answer::{AnswerForms, PreparedReply};
use crate::config::{self, Segment};
use crate::log_once::{LogOnce, LogOncePer};
use crate::metrics::Metrics;
use crate::request::{Missing, Parts, Selector, place};
use crate::verify::{self, Refused, Verifier};

/// The longest event key that goes on the wire as it is, in bytes; a longer one goes as its SHA-256, so that a line
/// stays within its limit.
const EVENT_KEY_BYTES_MAX: usize = 128;

/// The longest value of a request that is given back in an answer, in bytes.
const VALUE_BYTES_MAX: usize = 256;

/// What follows the preset's name in `verified` if the body is what was sealed, opened.
const OPENED: &str = ":opened";

/// All routes, in the file's order.
#[derive(Debug)]
pub struct Routes(Vec<Arc<Route>>);

/// One route.
pub struct Route {
    /// What its requests are answered, and its name.
    pub answers: Arc<AnswerForms>,
    pub config: config::RouteConfig,
    pub proof: Option<Proof>,
    /// By the reason, so that a stranger's forgeries do not hide what goes wrong with the provider.
    bad_signatures: LogOncePer<&'static str>,
    no_event_key: LogOnce,
    not_opened: LogOnce,
    /// By the value's place and the reason.
    values_left_out: LogOncePer<(String, &'static str)>,
}

/// What a GET is answered that is no notification.
#[derive(Debug)]
pub struct Proof {
    pub reply: PreparedReply,
    values: Vec<(Range<usize>, Selector)>,
    pub verifier: Option<Arc<Verifier>>,
}

/// Why a value of a request is not in the answer that should give it back. Never says the value.
enum LeftOut {
    Missing(Missing),
    TooLong(usize),
    NotPlain,
}

impl LeftOut {
    /// The word by which the log's lines of one cause are counted.
    fn word(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::TooLong(_) => "too-long",
            Self::NotPlain => "not-plain",
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => missing.fmt(f),
            Self::TooLong(length) => write!(
                f,
                "it has {length} bytes, and at most {VALUE_BYTES_MAX} are given back"
            ),
            Self::NotPlain => f.write_str(
                "it has a character that is not given back: one outside printable ASCII, or one of \" \\ < > &",
            ),
        }
    }
}

impl Proof {
    fn new(proof: &config::ProofConfig) -> Self {
        Self {
            reply: prepare(&proof.answer),
            values: proof.answer.values.clone(),
            verifier: proof.verifier.clone(),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({})", self.answers.route)
    }
}

/// A route that has the path, and the path's id segment as it stands there.
#[derive(Debug)]
pub struct RouteMatch<'r, 'p> {
    pub route: &'r Arc<Route>,
    pub id: Option<&'p str>,
}

impl Routes {
    /// Prepares what the configuration says.
    pub fn new(routes: &[config::RouteConfig], metrics: &Metrics) -> Self {
        Self(
            routes
                .iter()
                .map(|route| Arc::new(Route::new(route, metrics)))
                .collect(),
        )
    }

    /// The first route that has `path`.
    pub fn find<'p>(&self, path: &'p str) -> Option<RouteMatch<'_, 'p>> {
        self.0.iter().find_map(|route| {
            let id = matches(&route.config.path.segments, path)?;
            Some(RouteMatch { route, id })
        })
    }
}

/// The id segment of `path`, if it has one, when `path` is as `segments` say.
fn matches<'p>(segments: &[Segment], path: &'p str) -> Option<Option<&'p str>> {
    let mut id = None;
    let mut parts = path.strip_prefix('/')?.split('/');
    for segment in segments {
        let part = parts.next()?;
        match segment {
            Segment::Literal(text) if text == part => {}
            Segment::Literal(_) => return None,
            Segment::Id => id = Some(part),
        }
    }
    parts.next().is_none().then_some(id)
}

impl Route {
    fn new(route: &config::RouteConfig, metrics: &Metrics) -> Self {
        Self {
            answers: Arc::new(AnswerForms {
                route: Arc::clone(&route.name),
                ok: prepare(&route.ok),
                fail: prepare(&route.fail),
                metrics: metrics.route(&route.name),
            }),
            config: route.clone(),
            proof: route.proof.as_ref().map(Proof::new),
            bad_signatures: LogOncePer::default(),
            no_event_key: LogOnce::new(),
            not_opened: LogOnce::new(),
            values_left_out: LogOncePer::default(),
        }
    }

    /// The first header that this route needs and whose value is not ASCII, so that nobody knows what it says.
    pub fn unreadable_header<'r>(&self, request: &RequestView<'r>) -> Option<&'r str> {
        let mut unreadable = request
            .headers
            .iter()
            .filter(|(name, _)| *name == NOT_ASCII_HEADER)
            .map(|(_, name)| *name);
        unreadable.find(|name| {
            let is_it = |its: &String| its.eq_ignore_ascii_case(name);
            let selects = |selector: &Selector| match selector {
                Selector::Header(names) => names.iter().any(is_it),
                _ => false,
            };
            let verifier = self.config.verifier.as_ref();
            self.config.forward_headers.iter().any(is_it)
                || selects(&self.config.id)
                || self.config.event.as_ref().is_some_and(selects)
                || verifier.is_some_and(|verifier| verifier.reads_header(name))
        })
    }

    /// The backend's id in `found`, which may have more after it.
    pub fn id_part<'f>(&self, found: &'f str) -> &'f str {
        let end = self
            .config
            .id_before
            .as_deref()
            .and_then(|end| found.split_once(end));
        end.map_or(found, |(id, _)| id)
    }

    /// The body of `ok` for the request of `parts`, if it has values of it.
    pub fn ok_body_for(&self, parts: &Parts<'_>) -> Option<Vec<u8>> {
        self.filled(&self.answers.ok.body, &self.config.ok.values, parts)
    }

    /// The body of the answer of `proof` to the request of `parts`, if it has values of it.
    pub fn proof_body_for(&self, proof: &Proof, parts: &Parts<'_>) -> Option<Vec<u8>> {
        self.filled(&proof.reply.body, &proof.values, parts)
    }

    /// `template` with the values of the request of `parts`; `None` if there are none in it.
    ///
    /// A value that could be more than a value there (a quote, markup) is left out, and so is one that is not found. The
    /// provider may not take such an answer, so the log says it.
    fn filled(
        &self,
        template: &[u8],
        values: &[(Range<usize>, Selector)],
        parts: &Parts<'_>,
    ) -> Option<Vec<u8>> {
        if values.is_empty() {
            return None;
        }
        let mut body = Vec::with_capacity(template.len());
        let mut from = 0;
        for (range, selector) in values {
            body.extend_from_slice(&template[from..range.start]);
            match given_back(selector, parts) {
                Ok(value) => body.extend_from_slice(&value),
                Err(why) => self.left_out(selector, &why),
            }
            from = range.end;
        }
        body.extend_from_slice(&template[from..]);
        Some(body)
    }

    /// Logs now and then that an answer lacks a value which it should give back.
    #[cold]
    fn left_out(&self, selector: &Selector, why: &LeftOut) {
        let (name, place) = (&self.answers.route, place(selector));
        let line = format_args!(
            "route {name}: {place} is left out of the answer that should give it back: {why}"
        );
        let cause = (place.clone(), why.word());
        self.values_left_out.log(Level::Warn, &cause, line);
    }

    /// What is allowed, as the header Allow has it.
    pub fn allowed(&self) -> &'static str {
        let methods = self.config.methods;
        match (methods.post, methods.get || self.proof.is_some()) {
            (true, false) => "POST",
            (true, true) => "GET, POST",
            (false, _) => "GET",
        }
    }

    /// Logs now and then that notifications come without their event key, so that their retries are delivered twice.
    pub fn no_event_key(&self, missing: &Missing) {
        self.no_event_key.warn(format_args!(
            "route {}: a notification has no event key, so a retry of it is delivered once more: {missing}",
            self.answers.route
        ));
    }

    /// Logs now and then that genuine callbacks are refused since they cannot be opened.
    pub fn not_opened(&self, why: &str) {
        self.not_opened.warn(format_args!(
            "route {}: a genuine callback is answered 503, since its backends get what is opened: {why}",
            self.answers.route
        ));
    }

    /// Counts a request from `peer` that was not believed, and logs it.
    pub fn bad_signature(&self, refused: &Refused, peer: Option<IpAddr>) {
        self.answers.metrics.signature_refused(refused.word());
        let name = &self.answers.route;
        let peer = peer.map_or_else(|| "nobody known".to_owned(), |ip| ip.to_string());
        let line = format_args!("route {name}: bad signature from {peer}: {refused}");
        self.bad_signatures.log(Level::Warn, &refused.word(), line);
    }

    /// What `body` holds sealed, if a selector of the route or its backends need it.
    pub fn open(&self, body: &[u8]) -> Option<Result<Vec<u8>, &'static str>> {
        let config = &self.config;
        let event = config.event.as_ref();
        let selects = config.id.is_opened() || event.is_some_and(Selector::is_opened);
        if !selects && !config.deliver_opened {
            return None;
        }
        config.verifier.as_ref()?.open(body)
    }

    /// What `verified` says of a notification whose signature was checked, and whose body was `opened` or is as it came.
    pub fn verified(&self, opened: bool) -> Cow<'static, str> {
        match &self.config.verifier {
            None => verify::NONE.into(),
            Some(verifier) if opened => format!("{}{OPENED}", verifier.name).into(),
            Some(verifier) => verifier.name.into(),
        }
    }

    /// The request line and the forwarded headers of `request`, as the backend gets them; empty if none are forwarded.
    pub fn head(&self, request: &RequestView<'_>, path: &str, query: &str) -> Vec<u8> {
        let mut head = Vec::new();
        let forwarded = &self.config.forward_headers;
        if forwarded.is_empty() {
            return head;
        }
        let mut line = |parts: [&str; 4]| {
            for part in parts {
                head.extend_from_slice(part.as_bytes());
            }
            head.extend_from_slice(b"\r\n");
        };
        let verifier = self.config.verifier.as_ref();
        let bare = verifier.and_then(|verifier| verifier.query_without_token(query));
        let shorter = bare.map(|query| match query.as_str() {
            "" => path.to_owned(),
            query => format!("{path}?{query}"),
        });
        let target = shorter.as_deref().unwrap_or(request.target);
        line([request.method, " ", target, " HTTP/1.1"]);
        for (name, value) in request.headers {
            if forwarded
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(name))
            {
                line([name, ": ", value, ""]);
            }
        }
        head
    }
}

/// The value of the request of `parts` as an answer gives it back.
fn given_back<'r>(selector: &Selector, parts: &Parts<'r>) -> Result<Cow<'r, [u8]>, LeftOut> {
    let value = parts.value(selector).map_err(LeftOut::Missing)?;
    let is_plain = |b: &u8| (b' '..=b'~').contains(b) && !b"\"\\<>&".contains(b);
    if value.len() > VALUE_BYTES_MAX {
        return Err(LeftOut::TooLong(value.len()));
    }
    match value.iter().all(is_plain) {
        true => Ok(value),
        false => Err(LeftOut::NotPlain),
    }
}

fn prepare(answer: &config::FixedAnswer) -> PreparedReply {
    let status = answer.status;
    // 503 says when to come back; without it some clients wait for hours.
    let retry = if status == 503 {
        "Retry-After: 1\r\n"
    } else {
        ""
    };
    let head = format!("Content-Type: {}\r\n{retry}", answer.content_type);
    PreparedReply {
        status,
        head: head.into_bytes(),
        body: answer.body.clone(),
    }
}

/// The event key as it goes on the wire.
pub fn event_key(found: Cow<'_, str>) -> Box<str> {
    if found.len() <= EVENT_KEY_BYTES_MAX {
        return found.into();
    }
    let hash = digest::digest(&digest::SHA256, found.as_bytes());
    let mut key = String::from("sha256:");
    for byte in hash.as_ref() {
        key.push_str(&format!("{byte:02x}"));
    }
    key.into()
}

#[cfg(test)]
mod tests;

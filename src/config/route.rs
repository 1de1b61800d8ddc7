//! `[[route]]`: every key of a route, what two routes may not share, and promise 7 for each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::address::is_loopback;
use super::answer::{self, FixedAnswer, ProofConfig};
use super::path::{PathTemplate, path};
use super::reader::{Field, Problem, Section};
use super::selectors::{SignedScope, deliver_opened, event, id};
use super::values::{distinct, header, list, networks, not_known, one_of, text_within};
use super::verify::{Check, verify};
use crate::peers::Networks;
use crate::request::Selector;
use crate::verify::preset::Scheme;
use crate::verify::{Engine, Verifier};

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// What it is called in MSG, metrics and logs; the path if the file gives no name.
    pub name: Arc<str>,
    /// The path, cut at its slashes.
    pub path: PathTemplate,
    /// Where requests for it may come from, of those that `[http]` lets in; none: from anywhere.
    pub allow: Networks,
    /// By what methods notifications come.
    pub methods: Methods,
    /// What a GET or HEAD is answered that is no notification: the provider's proof that the address is the merchant's.
    pub proof: Option<ProofConfig>,
    /// What checks the provider's signature; `None`: nothing does.
    pub verifier: Option<Arc<Verifier>>,
    /// A bad signature is answered with `fail`, because this provider reads its body; otherwise with 401.
    pub forged_gets_fail: bool,
    /// Where the backend's id is.
    pub id: Selector,
    /// What ends the id in that value: `_` in `game-01_20261128`. What follows is no part of it.
    pub id_before: Option<String>,
    /// Where the event key is, if the route has one.
    pub event: Option<Selector>,
    /// Whether the signature covers it.
    pub event_proven: bool,
    /// The backend gets what the body holds sealed, opened, in the body's place.
    pub deliver_opened: bool,
    /// Headers that go to the backend with the body, in lower case. Empty: not even the request line does.
    pub forward_headers: Vec<String>,
    /// What the provider reads when the notification is safe.
    pub ok: FixedAnswer,
    /// What the provider reads when it is not.
    pub fail: FixedAnswer,
}

/// By what methods a route's notifications come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    /// By POST.
    pub post: bool,
    /// By GET, all of them in the query.
    pub get: bool,
}

impl Methods {
    /// Whether a notification may come by `method`.
    pub fn allow(self, method: &str) -> bool {
        match method {
            "POST" => self.post,
            "GET" => self.get,
            _ => false,
        }
    }

    fn of(words: &[&str]) -> Self {
        Self {
            post: words.contains(&"POST"),
            get: words.contains(&"GET"),
        }
    }
}

/// The most routes.
const ROUTES_MAX: usize = 1000;

/// The longest route name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Reads every route; `http_listen` is where providers will reach them, `stores` whether there is an outbox.
pub fn routes(root: &mut Section<'_>, http_listen: SocketAddr, stores: bool) -> Vec<RouteConfig> {
    const WANTED: &str = "a list of tables, each headed [[route]],";
    let mut reading = Reading {
        http_listen,
        stores,
        paths: HashMap::new(),
        names: HashMap::new(),
    };
    let Some(list) = root.field("route") else {
        root.refuse("route", NO_ROUTE);
        return Vec::new();
    };
    let fields = list.read(|list| match list.list(WANTED, ROUTES_MAX)? {
        none if none.is_empty() => Err(NO_ROUTE.into()),
        fields => Ok(fields),
    });
    let fields = fields.unwrap_or_default();
    let sections = fields.iter().filter_map(|field| field.read(Field::section));
    sections
        .filter_map(|section| reading.route(section))
        .collect()
}

const NO_ROUTE: &str = "is missing; without a route every callback would be answered 404; \
    add one: [[route]] and below it path = \"/notify/{id}\"";

/// What the routes read so far have taken.
struct Reading {
    http_listen: SocketAddr,
    stores: bool,
    /// Where each path was given.
    paths: HashMap<String, usize>,
    /// Where each name was given.
    names: HashMap<String, usize>,
}

impl Reading {
    /// One route; `None` if it has no usable path, which is noted.
    fn route(&mut self, mut s: Section<'_>) -> Option<RouteConfig> {
        let what = "a route needs one, such as path = \"/notify/{id}\"";
        let path = s.required("path", what, path);
        let name = self.name(&mut s, path.as_ref());
        let check = verify(&mut s, path.as_ref(), self.http_listen);
        self.verified(&mut s, name.as_deref(), &check);
        if let Some(Engine::Adyen(adyen)) =
            check.verifier.as_deref().map(|verifier| &verifier.engine)
            && adyen.keeps_unsigned
            && !self.stores
            && let Some(field) = s.field("unsigned_items")
        {
            field.refuse(
                "dead letters lie in the outbox, and this relay has none; set delivery.undelivered = \"store\"",
            );
        }
        let preset = check.preset;
        let guard = SignedScope::new(&mut s, &check);
        let id = id(&mut s, path.as_ref(), &guard);
        let id_before = s.read("id_before", id_before);
        let event = event(&mut s, &guard);
        let event_proven = check.verifier.as_ref().zip(event.as_ref());
        let event_proven = event_proven.is_some_and(|(verifier, event)| verifier.covers(event));
        let deliver_opened = s.read("deliver", |field| deliver_opened(field, &guard));
        let forward_headers = s
            .read("forward_headers", distinct(FORWARD_HEADERS_MAX, forwarded))
            .unwrap_or_else(|| {
                let names = preset.map_or(&[][..], |preset| preset.forward_headers);
                names.iter().map(|&name| name.to_owned()).collect()
            });
        let allow = s.read("allow", networks).unwrap_or_default();
        let usual = match preset.map(|preset| preset.scheme) {
            Some(Scheme::Signed(preset)) => preset.methods,
            _ => &["POST"],
        };
        let methods = s.read("methods", methods);
        let methods = methods.unwrap_or_else(|| Methods::of(usual));
        let proof = answer::proof(&mut s, methods.get);
        let (ok, fail) = answer::both(&mut s, preset);
        s.close();
        Some(RouteConfig {
            name: name?,
            path: path?,
            verifier: check.verifier,
            forged_gets_fail: preset.is_some_and(|preset| preset.reads_fail),
            allow,
            methods,
            proof,
            id,
            id_before,
            event,
            event_proven,
            deliver_opened: deliver_opened.unwrap_or(false),
            forward_headers,
            ok,
            fail,
        })
    }

    /// The route's name, its own or its path's; neither may be another route's.
    fn name(&mut self, s: &mut Section<'_>, path: Option<&PathTemplate>) -> Option<Arc<str>> {
        let path = s.field("path").zip(path.map(|path| &*path.text));
        if let Some((field, text)) = &path {
            match self.paths.get(*text) {
                Some(&at) => field.refuse(field.again(at)),
                None => {
                    self.paths.insert((*text).to_owned(), field.at());
                }
            }
        }
        let own = s.field("name");
        let is_own = own.is_some();
        let (field, text) = match own {
            Some(field) => {
                let text = field.read(|field| field.text("a string"))?;
                (field, text)
            }
            None => path?,
        };
        if !is_name(text) {
            let why = match is_own {
                true => "",
                false => "cannot be the route's name as well; give it one with name = \"…\": ",
            };
            field.refuse(format!("{why}1 to 64 of A-Z a-z 0-9 . _ / {{ }} -"));
            return None;
        }
        match self.names.get(text) {
            // A path given twice was refused above, and once is enough.
            Some(&at) if is_own || self.paths.get(text) != Some(&at) => {
                field.refuse(field.again(at))
            }
            Some(_) => {}
            None => {
                self.names.insert(text.to_owned(), field.at());
            }
        }
        Some(text.into())
    }

    /// Promise 7: what strangers reach must be verified, or allowed by name not to be.
    fn verified(&self, s: &mut Section<'_>, name: Option<&str>, check: &Check<'_>) {
        let allowed = s.or("allow_unverified", false, Field::flag);
        let allow = s.field("allow_unverified");
        if check.preset.is_some() {
            if let (Some(field), Some(true)) = (allow, allowed) {
                field.refuse(
                    "contradicts verify: this route takes no unverified callbacks; remove one of the two",
                );
            }
            return;
        }
        // What is wrong is not yet a route that believes anybody.
        if check.is_broken || is_loopback(self.http_listen) {
            return;
        }
        match (allow, allowed) {
            (Some(field), Some(true)) => field.warn(format_args!(
                "this route checks no signature and http.listen ({}) is not loopback; \
                 the backend must check the signature before it believes a payment",
                self.http_listen
            )),
            // Wrong, and noted as such: what it should be is not known.
            (_, None) => {}
            (allow, _) => {
                let problem = format!(
                    "route {} checks no signature and http.listen ({}) is not loopback, so anybody could forge a payment; \
                     set verify to the provider's name, or listen on 127.0.0.1, or set allow_unverified = true in this route \
                     if the backend checks the signature itself",
                    name.unwrap_or("without a name"),
                    self.http_listen
                );
                match allow.as_ref().or(check.field.as_ref()) {
                    Some(field) => field.refuse(problem),
                    None => s.refuse("allow_unverified", problem),
                }
            }
        }
    }
}

fn methods(field: &Field<'_>) -> Result<Methods, Problem> {
    const METHODS: &[(&str, &str)] = &[("POST", "POST"), ("GET", "GET")];
    if field.is_empty_list() {
        return Err(not_known(None, &["POST", "GET"]));
    }
    list(METHODS.len(), one_of(METHODS))(field).map(|words| Methods::of(&words))
}

fn id_before(field: &Field<'_>) -> Result<String, Problem> {
    let rule = "1 to 16 printable ASCII characters are needed, such as \"_\"";
    text_within(field, 16, |b| b.is_ascii_graphic(), rule)
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._/{}-".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// The most headers one route forwards.
const FORWARD_HEADERS_MAX: usize = 32;

/// Headers that RFC 9110 and its forebears give to one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn forwarded(field: &Field<'_>) -> Result<String, Problem> {
    let name = header(field)?;
    let why = match name.as_str() {
        hop if HOP_BY_HOP.contains(&hop) => {
            "this header concerns one connection only and ends at the relay"
        }
        "content-length" => "the MSG frame tells the body's length",
        own if own.starts_with("x-payrelay-") => {
            "x-payrelay-* headers are the relay's own and never come from a provider"
        }
        _ => return Ok(name),
    };
    Err(format!("{why}; leave it out"))
}

//! A request that is to be signed as a provider would: what is not in it yet, and is needed, is filled in where selectors point.
//!
//! For `payrelay send --sign` only; no request from the network comes here.

use std::fmt;

use serde_json::{Map, Value};

use super::{Believed, Refused, Request, Verifier};
use crate::escape::percent_encoded;
use crate::request::{Missing, Parts, Selector, place};

/// A request that is not signed yet.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The method.
    pub method: String,
    /// The path, its id filled in.
    pub path: String,
    /// The path's segment that is the id.
    pub path_id: Option<String>,
    /// The query.
    pub query: String,
    /// Headers, in the order in which they are sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What the provider seals, or signs as a document, within the body.
    pub opened: Vec<u8>,
    /// What makes it another event than any before.
    pub event: String,
}

/// Why a request cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotSign {
    /// The route has no private key of the provider, as it should be, and none of `payrelay keys test` either.
    NoTestKey,
    /// A value cannot be put into this place.
    Place(String),
    /// What was made would be refused.
    Refused(Refused),
}

impl fmt::Display for CannotSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTestKey => f.write_str(
                "only the provider has the private key of this route; make a test key with: payrelay keys test --out FILE, put \
                 \"file:FILE\" into keys, and set allow_test = true in the route",
            ),
            Self::Place(place) => write!(
                f,
                "{place} is needed and cannot be put into this body; give a body that has it, or none"
            ),
            Self::Refused(refused) => write!(
                f,
                "the route would refuse it ({}): {refused}",
                refused.word()
            ),
        }
    }
}

impl std::error::Error for CannotSign {}

impl From<Refused> for CannotSign {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Draft {
    /// Path and query.
    pub fn target(&self) -> String {
        match &*self.query {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// Gives `read` the request as the relay will see it.
    pub fn with_request<T>(&self, read: impl FnOnce(&Request<'_>) -> T) -> T {
        let (target, headers) = (self.target(), self.headers());
        read(&Request {
            method: &self.method,
            target: &target,
            headers: &headers,
            path_id: self.path_id.as_deref(),
            query: &self.query,
            body: &self.body,
        })
    }

    /// Signs it as the provider of `verifier` would.
    ///
    /// # Errors
    /// The key for it is not there, or the route would refuse what comes of it.
    pub fn sign(&mut self, verifier: &Verifier, now_unix_s: u64) -> Result<Believed, CannotSign> {
        verifier.sign(self, now_unix_s)?;
        let verdict = self.with_request(|request| verifier.verify(request, now_unix_s));
        verdict.map_err(CannotSign::Refused)
    }

    /// What `selector` finds, as text.
    pub fn find(&self, selector: &Selector) -> Option<String> {
        self.value(selector).ok()
    }

    /// Puts `value` where `selector` points, if nothing is there.
    ///
    /// # Errors
    /// What stands there cannot be read, or leaves no room for it.
    pub fn fill(&mut self, selector: &Selector, value: &str) -> Result<(), CannotSign> {
        if let Selector::All(all) = selector {
            return all.iter().try_for_each(|one| self.fill(one, value));
        }
        match self.value(selector) {
            Ok(_) | Err(Missing::Twice(_) | Missing::NotText(_)) => Ok(()),
            Err(_) => self.set(selector, value),
        }
    }

    /// Puts `value` where `selector` points, in the place of what is there.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn set(&mut self, selector: &Selector, value: &str) -> Result<(), CannotSign> {
        let no_room = || CannotSign::Place(place(selector));
        match selector {
            Selector::Query(name) => set_field(&mut self.query, name, value),
            Selector::Param(name) if self.method == "GET" => {
                set_field(&mut self.query, name, value);
            }
            Selector::Form(name) | Selector::Param(name) => {
                let mut form = String::from_utf8(self.body.clone()).map_err(|_| no_room())?;
                set_field(&mut form, name, value);
                self.body = form.into_bytes();
            }
            Selector::Header(names) => {
                let is_it = |its: &str| names.iter().any(|name| its.eq_ignore_ascii_case(name));
                self.headers.retain(|(its, _)| !is_it(its));
                self.headers
                    .extend(names.first().map(|name| (name.clone(), value.to_owned())));
            }
            Selector::Json(pointer) => {
                self.body = with_value(&self.body, pointer, value).ok_or_else(no_room)?;
            }
            Selector::Opened(pointer) => {
                self.opened = with_value(&self.opened, pointer, value).ok_or_else(no_room)?;
            }
            Selector::Xml(names) => {
                self.body = with_element(&self.body, names, value).ok_or_else(no_room)?;
            }
            Selector::Inner(outer, pointer) => {
                let inner = self.find(outer).unwrap_or_default();
                let inner = with_value(inner.as_bytes(), pointer, value);
                let inner = inner.and_then(|inner| String::from_utf8(inner).ok());
                self.set(outer, &inner.ok_or_else(no_room)?)?;
            }
            Selector::All(_) => return Err(no_room()),
            // The path is as the route has it; the other is made of what is signed.
            Selector::Path | Selector::OfSignature => {}
        }
        Ok(())
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    fn value(&self, selector: &Selector) -> Result<String, Missing> {
        let headers = self.headers();
        let opened = Ok(self.opened.clone());
        let parts = Parts {
            path_id: self.path_id.as_deref(),
            query: &self.query,
            headers: &headers,
            body: match (&*self.method, selector) {
                // What comes by GET has no body, whatever is in this one.
                ("GET", Selector::Param(_)) => b"",
                _ => &self.body,
            },
            opened: Some(&opened),
        };
        parts.select(selector).map(|text| text.into_owned())
    }
}

/// A value that may stand in a field called `name`.
pub(super) fn sample(name: &str, now_unix_s: u64) -> String {
    match name.to_ascii_lowercase().contains("time") {
        true => now_unix_s.to_string(),
        false => "1".to_owned(),
    }
}

/// The sample for where `selector` points.
pub(super) fn sample_at(selector: &Selector, now_unix_s: u64) -> String {
    sample(&place(selector), now_unix_s)
}

/// Sets the field called `name` of a form or a query.
fn set_field(form: &mut String, name: &str, value: &str) {
    use crate::request::form;
    let is_it = |pair: &&str| {
        let (key, _) = pair.split_once('=').unwrap_or((pair, ""));
        form::decode(key.as_bytes()).as_deref() == Some(name.as_bytes())
    };
    let others = form.split('&').filter(|pair| !pair.is_empty());
    let mut all: Vec<String> = others
        .filter(|pair| !is_it(pair))
        .map(str::to_owned)
        .collect();
    let [name, value] = [name, value].map(|text| percent_encoded(text.as_bytes()));
    all.push(format!("{name}={value}"));
    *form = all.join("&");
}

/// The JSON `document` with `value` at `pointer`; an empty one is made. `None` if there is no room for it.
pub(super) fn with_value(
    document: &[u8],
    pointer: &[String],
    value: impl Into<Value>,
) -> Option<Vec<u8>> {
    let mut whole: Value = match document {
        b"" => Value::Object(Map::new()),
        document => serde_json::from_slice(document).ok()?,
    };
    let mut at = &mut whole;
    for token in pointer {
        if at.is_null() {
            *at = match token.parse::<usize>() {
                Ok(_) => Value::Array(Vec::new()),
                Err(_) => Value::Object(Map::new()),
            };
        }
        at = match at {
            Value::Object(fields) => fields.entry(token.clone()).or_insert(Value::Null),
            Value::Array(items) => {
                let n: usize = token.parse().ok()?;
                if n == items.len() {
                    items.push(Value::Null);
                }
                items.get_mut(n)?
            }
            _ => return None,
        };
    }
    *at = value.into();
    serde_json::to_vec(&whole).ok()
}

/// The XML `document` with the text `value` in the element called so, before the end of its root; an empty one is made. `None`
/// if it is there, or there is no room for it.
fn with_element(document: &[u8], names: &[String], value: &str) -> Option<Vec<u8>> {
    let text = match document {
        b"" => "<xml></xml>",
        document => str::from_utf8(document).ok()?,
    };
    let (before, end) = text.split_at(text.rfind("</")?);
    let starts: String = names.iter().map(|name| format!("<{name}>")).collect();
    let ends: String = names
        .iter()
        .rev()
        .map(|name| format!("</{name}>"))
        .collect();
    let is_there = text.contains(&starts);
    (!is_there && !value.contains("]]>"))
        .then(|| format!("{before}{starts}<![CDATA[{value}]]>{ends}{end}").into_bytes())
}

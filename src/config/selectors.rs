//! Where a route's backend id and event key are, and that they point at what its signature covers.

use super::path::{PathTemplate, Segment};
use super::reader::{Field, Problem, Section};
use super::values::{one_of, selector};
use super::verify::Check;
use crate::request::Selector;
use crate::verify::Verifier;
use crate::verify::preset::Scheme;

/// What a route's selectors may point at: what its signature covers, unless the route says otherwise.
pub struct SignedScope<'c> {
    check: &'c Check<'c>,
    allow_unsigned: bool,
}

const NOTHING_TO_OPEN: &str = "only the resource of WeChat Pay v3 can be opened, and a signed document in the body; \
    set verify = \"wechatpay-v3\" and api_v3_key, or verify = \"apple\"";

impl<'c> SignedScope<'c> {
    /// Reads `allow_unsigned_id` beside what `check` says.
    pub fn new(s: &mut Section<'_>, check: &'c Check<'c>) -> Self {
        // If it is wrong, that is enough of an error.
        let allowed = s.or("allow_unsigned_id", false, Field::flag);
        Self {
            check,
            allow_unsigned: allowed.unwrap_or(true),
        }
    }

    /// Whether the verifier can open what the body holds sealed. Of a check that is broken that is not known.
    fn opens(&self) -> bool {
        let verifier = self.check.verifier.as_deref();
        self.check.is_broken || verifier.is_some_and(Verifier::can_open)
    }

    /// Refuses a selector that points at what nobody signed.
    fn check(&self, field: &Field<'_>, selector: Selector) -> Result<Selector, Problem> {
        if selector.is_opened() && !self.opens() {
            return Err(NOTHING_TO_OPEN.into());
        }
        let verifier = self.check.verifier.as_deref();
        if verifier.is_none_or(|verifier| verifier.covers(&selector)) {
            return Ok(selector);
        }
        if !self.allow_unsigned {
            return Err(
                "the route's signature does not cover this, so whoever has one genuine callback could change it; \
                 take what is signed, or {id} in the path, or set allow_unsigned_id = true"
                    .into(),
            );
        }
        field.warn(
            "the signature does not cover this: whoever has one genuine callback can change it",
        );
        Ok(selector)
    }
}

/// Where the backend's id is: in `path`, or where `id` says.
pub fn id(s: &mut Section<'_>, path: Option<&PathTemplate>, guard: &SignedScope<'_>) -> Selector {
    const CONTRADICTION: &str =
        "contradicts the {id} in the path, which is the backend's id; remove one of the two";
    const NO_ID: &str = "the path has no {id} segment to take the backend's id from; \
        add one, or set id to \"query:NAME\", \"form:NAME\", \"json:/pointer\", \"xml:NAME\", \"opened:/pointer\" \
        or \"header:NAME\"";
    let given = s.or("id", Selector::Path, |field| {
        guard.check(field, selector(field)?)
    });
    // If one of them is wrong, which is noted, it is not known where the id should be.
    let (Some(path), Some(id)) = (path, given) else {
        return Selector::Path;
    };
    let wrong = match (path.segments.contains(&Segment::Id), &id) {
        (false, Selector::Path) => Some(NO_ID),
        (true, Selector::Path) | (false, _) => None,
        (true, _) => Some(CONTRADICTION),
    };
    if let (Some(problem), Some(field)) = (wrong, s.field("id").or(s.field("path"))) {
        field.refuse(problem);
    }
    id
}

/// Where the event key is: where the route says, or its preset.
pub fn event(s: &mut Section<'_>, guard: &SignedScope<'_>) -> Option<Selector> {
    let own = guard.check.preset.and_then(|preset| match preset.scheme {
        Scheme::Adyen => Some(Selector::OfSignature),
        _ => preset.event.and_then(Selector::of_preset),
    });
    let Some(field) = s.field("event") else {
        return own;
    };
    let given = field.read(|field| match event_selector(field)? {
        // What the preset has is what the provider offers, signed or not.
        Some(given) if own.as_ref().is_some_and(|own| own.covers(&given)) => Ok(own),
        Some(given) => guard.check(field, given).map(Some),
        None => Ok(None),
    });
    given.flatten()
}

/// The most values of which an event key is made.
const EVENT_PARTS_MAX: usize = 8;

/// Reads an `event` key; `none` takes away what the preset has.
fn event_selector(field: &Field<'_>) -> Result<Option<Selector>, Problem> {
    const FROM_PATH: &str = "the path is the same for every notification of a backend, so all would be one event; \
        allowed: \"none\", \"query:NAME\", \"form:NAME\", \"json:/pointer\", \"xml:NAME\", \"opened:/pointer\", \"header:NAME\"";
    if let Ok(fields) = field.list("a list of strings", EVENT_PARTS_MAX) {
        let parts = fields.iter().filter_map(|field| field.read(event_selector));
        // Collected first, so that each of them that is wrong is noted.
        let parts: Vec<Option<Selector>> = parts.collect();
        let parts: Option<Vec<Selector>> = parts.into_iter().collect();
        let parts = parts.filter(|parts| !parts.is_empty());
        return parts.map(Selector::All).map(Some).ok_or(FROM_PATH.into());
    }
    if field.text("a string")? == "none" {
        return Ok(None);
    }
    match selector(field)? {
        Selector::Path => Err(FROM_PATH.into()),
        other => Ok(Some(other)),
    }
}

/// Reads a `deliver` key: whether the backend gets what is sealed in the body, opened.
pub fn deliver_opened(field: &Field<'_>, guard: &SignedScope<'_>) -> Result<bool, Problem> {
    let opened = one_of(&[("exact", false), ("opened", true)])(field)?;
    match opened && !guard.opens() {
        true => Err(NOTHING_TO_OPEN.into()),
        false => Ok(opened),
    }
}

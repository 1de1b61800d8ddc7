//! Where a route's backend id and event key are, and that they point at what its signature covers.

use super::path::{PathTemplate, Segment};
use super::reader::{Field, Problem, Section};
use super::values::{one_of, selector};
use super::verify::{Check, RouteCheck};
use crate::request::Selector;
use crate::verify::Verifier;
use crate::verify::preset::Scheme;

/// What a route's selectors may point at: what its signature covers, unless the route says otherwise.
pub struct SignedScope<'c> {
    verifier: Option<&'c Verifier>,
    /// Something about the check is wrong, so that nothing can be said of what it covers, or opens.
    is_broken: bool,
    allow_unsigned: bool,
}

const NOTHING_TO_OPEN: &str = "only the resource of WeChat Pay v3 can be opened, and a signed document in the body; \
    set verify = \"wechatpay-v3\" and api_v3_key, or verify = \"apple\"";

impl<'c> SignedScope<'c> {
    /// Reads `allow_unsigned_id` beside what `check` says.
    pub fn new(s: &mut Section<'_>, check: &'c Check<'_>) -> Self {
        // If it is wrong, that is enough of an error.
        let allow = s.field("allow_unsigned_id");
        let allowed = allow.map(|field| field.read(Field::flag).unwrap_or(true));
        Self {
            verifier: check.verifier().map(AsRef::as_ref),
            is_broken: !matches!(
                &check.parsed,
                RouteCheck::Nothing | RouteCheck::Preset(_, Some(_))
            ),
            allow_unsigned: allowed.unwrap_or(false),
        }
    }

    /// Whether the verifier can open what the body holds sealed, as far as that is known.
    fn opens(&self) -> bool {
        self.is_broken || self.verifier.is_some_and(Verifier::can_open)
    }

    /// Refuses a selector that points at what nobody signed.
    fn check(&self, field: &Field<'_>, selector: Selector) -> Result<Selector, Problem> {
        if selector.is_opened() && !self.opens() {
            return Err(NOTHING_TO_OPEN.into());
        }
        let covers = |verifier: &Verifier| verifier.covers(&selector);
        if self.verifier.is_none_or(covers) {
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

/// Where the backend's id is: in `path` (its `path_field`), or where `id` says.
pub fn id(
    s: &mut Section<'_>,
    path_field: Option<&Field<'_>>,
    path: Option<&PathTemplate>,
    guard: &SignedScope<'_>,
) -> Selector {
    let field = s.field("id");
    let one = |field: &Field<'_>| guard.check(field, selector(field)?);
    let given = field.as_ref().map(|field| field.read(one));
    let Some(path) = path else {
        return Selector::Path;
    };
    let in_path = path.segments.contains(&Segment::Id);
    let id = match given {
        Some(Some(selector)) => selector,
        // It is wrong, and noted as such: where the id should be is not known.
        Some(None) => return Selector::Path,
        None => Selector::Path,
    };
    match (in_path, &field) {
        (true, Some(field)) if id != Selector::Path => field.refuse(
            "contradicts the {id} in the path, which is the backend's id; remove one of the two",
        ),
        (false, field) if id == Selector::Path => {
            if let Some(field) = field.as_ref().or(path_field) {
                field.refuse(
                    "the path has no {id} segment to take the backend's id from; \
                     add one, or set id to \"query:NAME\", \"form:NAME\", \"json:/pointer\", \"xml:NAME\", \"opened:/pointer\" \
                     or \"header:NAME\"",
                );
            }
        }
        _ => {}
    }
    id
}

/// Where the event key is: where the route says, or its preset.
pub fn event(s: &mut Section<'_>, check: &Check<'_>, guard: &SignedScope<'_>) -> Option<Selector> {
    let own = check.preset().and_then(|preset| match preset.scheme {
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

//! `payrelay send --sign`: the request that a route's provider would send.

use payrelay::config::RouteConfig;
use payrelay::notification::{BackendId, unix_ms};
use payrelay::request::{Selector, place};
use payrelay::verify::{CannotSign, Draft, Verifier};

use super::super::{ConfigFile, Failure, say, verify};

/// What follows the id where the route cuts it off.
const AFTER_ID: &str = "test";

/// Makes `request` what the provider of the route called `name` would send for the backend `id`.
pub fn sign(
    config: &ConfigFile,
    name: &str,
    id: &BackendId,
    request: &mut Draft,
) -> Result<(), Failure> {
    let loaded = config.load()?;
    let (route, verifier) = verify::route(&loaded, name)?;
    let now_ms = unix_ms();
    request.event = format!("test-{now_ms}");
    if verifier.can_open() {
        request.opened = std::mem::take(&mut request.body);
    }
    let whose = match &route.id_before {
        Some(end) => format!("{id}{end}{AFTER_ID}"),
        None => id.to_string(),
    };
    let by_get = route.methods.get && request.body.is_empty();
    let mut signed = request.clone();
    signed.method = if by_get { "GET" } else { "POST" }.to_owned();
    let mut made = make(&mut signed, route, verifier, &whose, now_ms / 1000);
    if by_get && route.methods.post && !signed.body.is_empty() {
        // What this route reads needs a body.
        signed = request.clone();
        made = make(&mut signed, route, verifier, &whose, now_ms / 1000);
    }
    made.map_err(|error| Failure::at(format_args!("route {name}"), error))?;
    if let Some(how) = verifier.test_stands_in() {
        say(format_args!(
            "the test key signs with {how}; before real payments come, test with a callback of the provider's own"
        ));
    }
    check_id(&signed, &route.id, route.id_before.as_deref(), id)?;
    *request = signed;
    Ok(())
}

/// Fills in what the route looks for, the id `whose` and a new event among it, and signs.
fn make(
    request: &mut Draft,
    route: &RouteConfig,
    verifier: &Verifier,
    whose: &str,
    now_unix_s: u64,
) -> Result<(), CannotSign> {
    let event = request.event.clone();
    let answered = route.ok.values.iter().map(|(_, selector)| selector);
    let needed = std::iter::once((&route.id, whose))
        .chain(route.event.iter().map(|selector| (selector, &*event)))
        .chain(answered.map(|selector| (selector, "1")));
    for (selector, value) in needed {
        request.fill(selector, value)?;
    }
    request.sign(verifier, now_unix_s).map(drop)
}

/// Refuses a body that is another backend's.
fn check_id(
    request: &Draft,
    selector: &Selector,
    id_before: Option<&str>,
    id: &BackendId,
) -> Result<(), Failure> {
    let Some(found) = request.find(selector) else {
        return Ok(()); // the relay will say why it is none
    };
    let cut = id_before.and_then(|end| found.split_once(end));
    let whose = cut.map_or(&*found, |(id, _)| id);
    match whose == id.as_str() {
        true => Ok(()),
        false => Err(Failure::usage(format_args!(
            "{} names another backend than {id}; name that one, or change the body",
            place(selector)
        ))),
    }
}

/// What `body` looks like.
pub fn content_type(body: &[u8]) -> &'static str {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[') => "application/json",
        Some(b'<') => "text/xml",
        _ => "application/x-www-form-urlencoded",
    }
}

//! What the relay answered to `payrelay send`: shown, judged, and explained with what to do about it.

use std::io::{self, IsTerminal};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use payrelay::notification::{BackendId, Outcome};
use serde_json::json;

use super::super::text::{one_line, readable};
use super::super::{Failure, print_bytes, print_json, say};
use super::Args;
use crate::client::http::ClientResponse;

/// Shows the answer; a refusal is this command's failure.
pub fn report(
    args: &Args,
    answer: &ClientResponse,
    took: Duration,
    target: &str,
) -> Result<(), Failure> {
    let took_ms = took.as_secs_f64() * 1000.0;
    let is_ok = is_ok(answer);
    let why = (!is_ok).then(|| explain(answer, &args.id, target));
    if args.json {
        print_json(&json!({
            "status": answer.status,
            "outcome": answer.header("x-payrelay-outcome"),
            "id": answer.header("x-payrelay-id"),
            "took_ms": (took_ms * 10.0).round() / 10.0,
            "body_base64": BASE_64.encode(&answer.body),
            "why": why,
        }))?;
    } else {
        show(answer, took_ms)?;
    }
    if is_ok {
        if answer.header("x-payrelay-outcome") == Some("stored") {
            say(format_args!(
                "it is in the outbox until {} has acknowledged it; look with: payrelay outbox list",
                args.id
            ));
        }
        return Ok(());
    }
    Err(Failure::new(why.unwrap_or_default()))
}

/// Whether the notification is safe. The status alone does not say: to providers that read the body, a refusal is 200 too.
fn is_ok(answer: &ClientResponse) -> bool {
    match answer.header("x-payrelay-outcome") {
        Some(outcome) => is_ok_outcome(outcome),
        None => (200..300).contains(&answer.status),
    }
}

/// Whether `outcome`, as it stands in X-Payrelay-Outcome, is one with which a provider is told ok, and will not send again.
pub fn is_ok_outcome(outcome: &str) -> bool {
    let is_it = |known: &Outcome| known.as_str() == outcome && known.is_ok();
    Outcome::ALL.iter().any(is_it)
}

fn show(answer: &ClientResponse, took_ms: f64) -> Result<(), Failure> {
    let or_none = |name| answer.header(name).map_or("-".into(), one_line);
    let mut shown = format!(
        "status   {} {}\noutcome  {}\nid       {}\ntook     {took_ms:.1} ms\n\n",
        answer.status,
        one_line(&answer.reason),
        or_none("x-payrelay-outcome"),
        or_none("x-payrelay-id"),
    )
    .into_bytes();
    if io::stdout().is_terminal() {
        shown.extend_from_slice(readable(&answer.body).as_bytes());
    } else {
        shown.extend_from_slice(&answer.body);
    }
    if !shown.ends_with(b"\n") {
        shown.push(b'\n');
    }
    print_bytes(&shown)
}

/// Why it is not ok, and what to do about it.
pub fn explain(answer: &ClientResponse, id: &BackendId, target: &str) -> String {
    match answer.header("x-payrelay-outcome") {
        Some("bad-signature") => format!(
            "the relay does not believe it: the route of {target} checks a signature, and this is not signed so"
        ),
        Some("unreachable") => format!(
            "\"{id}\" is not connected to this node, and the bus to the others is down; see: payrelay status"
        ),
        Some("offline") => format!("no backend \"{id}\" is connected; try: payrelay listen {id}"),
        Some("refused") => format!("{id} refused it (NACK)"),
        Some("timeout") => {
            format!("{id} did not acknowledge it in time (delivery.ack_deadline)")
        }
        Some("busy") => format!(
            "too much waits for {id} or for all backends already (tcp.queue, http.max_in_flight); try again in a moment"
        ),
        Some("draining") => "the relay is stopping; try another node, or again in a moment".into(),
        Some("no-route") => format!("the relay has no [[route]] for {target}"),
        Some("not-allowed") => format!("{id} is not in tcp.backends of the relay"),
        Some("no-id") => {
            "the route found no backend id in this request; see id = … of its [[route]]".into()
        }
        Some("not-opened") => {
            "the relay could not open the resource; see api_v3_key and deliver of the [[route]]"
                .into()
        }
        Some("too-big") => "the body is larger than http.max_body of the relay".into(),
        Some(_) => format!("the relay answered {}", answer.status),
        None => format!(
            "the answer is {}, and not from a relay: it has no X-Payrelay-Outcome",
            answer.status
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offline_backend_comes_with_the_command_that_helps() {
        let id = BackendId::parse("game-01").expect("an id");
        let answer = |outcome: &str| ClientResponse {
            status: 503,
            headers: vec![("x-payrelay-outcome".into(), outcome.into())],
            ..ClientResponse::default()
        };
        assert_eq!(
            explain(&answer("offline"), &id, "/"),
            "no backend \"game-01\" is connected; try: payrelay listen game-01"
        );
        assert!(explain(&ClientResponse::default(), &id, "/").contains("not from a relay"));
    }
}

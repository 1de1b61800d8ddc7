//! Only the provider gets in: what is signed as the provider signs it reaches the backend and is answered in the provider's
//! own words, and nothing else does, through the real HTTP port.

mod attacks;
mod bounds;
mod callback;
mod documented;
mod fields;
mod fresh;
mod genuine;
mod headers;
mod ids;
mod init;
mod init_all;
mod jws;
mod opened;
mod parts;
mod push_token;
mod recut;
mod schemes;
mod secrets;
mod signed_sends;
mod time;
mod too_many;
mod unsigned;
pub mod vectors;
mod written;

use self::callback::Callback;
use crate::support::{Answer, Backend, Relay, Setup};

/// A relay with a route for each callback: `/0/{id}`, `/1/{id}` and so on.
fn relay(callbacks: &[Callback]) -> Relay {
    Setup::with(&toml(callbacks)).start()
}

fn toml(callbacks: &[Callback]) -> String {
    // Every forgery comes from one address, and none of them is to be answered 429 in place of what is tested.
    let mut toml = "[http]\nfailures_per_minute = 1000000\n[log]\nlevel = \"trace\"\n".to_owned();
    for (n, callback) in callbacks.iter().enumerate() {
        toml += &format!(
            "[[route]]\npath = \"/{n}/{{id}}\"\nname = \"route-{n}\"\nverify = \"{}\"\n{}\n",
            callback.preset, callback.keys
        );
    }
    toml
}

/// Posts `callback` to the route with this number, for backend till-7.
fn post(relay: &Relay, n: usize, callback: &Callback) -> crate::support::Pending {
    let headers: Vec<(&str, &str)> = callback
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let path = format!("/{n}/till-7{}", callback.query);
    relay.post_with(&path, &headers, &callback.body)
}

/// The callback reaches `till` whole, and its provider reads ok in its own words.
fn accepted(relay: &Relay, till: &mut Backend, n: usize, callback: &Callback) {
    let what = &callback.name;
    let answer = post(relay, n, callback);
    let pattern = format!("MSG id=* route=route-{n} verified={} =*", callback.preset);
    let message = till.expect(&pattern, &callback.body);
    if let Some(event) = &callback.event {
        assert_eq!(message.frame.get("event"), Some(event.as_str()), "{what}");
    }
    message.ack();
    let answer = answer.answer();
    assert_eq!(answer.outcome(), "delivered", "{what}");
    let (status, body) = callback::ok(callback.preset);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (status, body),
        "{what}"
    );
}

/// The callback is answered as a forged one, and is no notification.
fn refused(relay: &Relay, n: usize, callback: &Callback) -> Answer {
    let answer = post(relay, n, callback).answer();
    is_refusal(callback, &answer);
    answer
}

fn is_refusal(callback: &Callback, answer: &Answer) {
    let what = &callback.name;
    assert_eq!(
        answer.outcome(),
        "bad-signature",
        "{what}: {}",
        answer.status
    );
    assert_eq!(answer.id(), "", "{what}: there is no notification");
    let (status, body) = callback::forged(callback.preset);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (status, body),
        "{what}"
    );
}

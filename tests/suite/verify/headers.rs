//! Headers of a callback: missing, repeated, in any case, and a token where it does not stand.

use super::attacks::{all_refused, genuine, signature_headers};
use super::callback::{Callback, listed};
use super::fresh::{self, now};
use super::{accepted, post, refused, relay};

#[test]
fn a_missing_or_repeated_header_is_refused() {
    let forge = |callback: &Callback| {
        let mut forgeries = Vec::new();
        for at in signature_headers(callback) {
            let (name, value) = callback.headers[at].clone();
            let mut without = callback.called(&format!("without {name}"));
            without.headers.remove(at);
            forgeries.push(without);
            for second in [value.as_str(), "x", ""] {
                for before in [true, false] {
                    let mut forgery = callback.called(&format!("{name} twice"));
                    let place = if before { at } else { at + 1 };
                    forgery
                        .headers
                        .insert(place, (name.to_uppercase(), second.to_owned()));
                    forgeries.push(forgery);
                }
            }
        }
        forgeries
    };
    assert!(all_refused(forge) >= 150);
}

#[test]
fn what_is_there_twice_and_differs_is_refused() {
    let at = now();
    let routes = [
        fresh::stripe(at, "{}"),
        fresh::paddle(at, "{}"),
        fresh::shopify("{}"),
    ];
    let relay = relay(&routes);
    let mut till = relay.backend("till-7");
    // Two times, and the signature is right for one of them: a backend that checks the age might take the other.
    for (n, header, prefix, separator) in [
        (0, "Stripe-Signature", "t=", ','),
        (1, "Paddle-Signature", "ts=", ';'),
    ] {
        let value = routes[n].clone().value(header).clone();
        for other in [at - 1, at] {
            for value in [
                format!("{prefix}{other}{separator}{value}"),
                format!("{value}{separator}{prefix}{other}"),
            ] {
                let mut forgery = routes[n].called(&format!("two times: {value}"));
                *forgery.value(header) = value;
                refused(&relay, n, &forgery);
            }
        }
    }
    // Shopify's header has an older name, too.
    let (genuine, right) = (&routes[2], routes[2].headers[0].1.as_str());
    for other in ["", "AAAA", &right.to_lowercase()] {
        for (new, old) in [(right, other), (other, right)] {
            let mut forgery = genuine.called(&format!("{new:?} and {old:?}"));
            *forgery.value("shopify-hmac-sha256") = new.to_owned();
            refused(&relay, 2, &forgery.header("x-shopify-hmac-sha256", old));
        }
    }
    till.settle();
    let both = genuine
        .called("twice the same")
        .header("X-Shopify-Hmac-Sha256", right);
    accepted(&relay, &mut till, 2, &both);
}

#[test]
fn a_header_may_be_written_in_any_case() {
    let genuine = genuine();
    let relay = relay(&genuine);
    let mut till = relay.backend("till-7");
    for (n, callback) in genuine.iter().enumerate() {
        let mut callback = callback.called("names in capitals");
        for (name, _) in &mut callback.headers {
            *name = name.to_uppercase();
        }
        accepted(&relay, &mut till, n, &callback);
    }
}

#[test]
fn a_token_is_taken_from_where_it_stands_and_nowhere_else() {
    let header = fresh::token("x");
    let mut query = Callback::new("token", "in the query")
        .key("secrets", &listed("a secret&more"))
        .key("token", "\"query:key\"")
        .key("forward_headers", "[\"host\"]")
        .body("x");
    query.query = "?a=1&key=a+secret%26more&b=2".to_owned();
    let basic = Callback::new("token", "Basic")
        .key("secrets", &listed("user:pass:word"))
        .key("token", "\"basic\"")
        .header(
            "Authorization",
            &format!("Basic {}", fresh::base64(b"user:pass:word")),
        )
        .body("x");
    let relay = relay(&[header.clone(), query.clone(), basic.clone()]);
    let mut till = relay.backend("till-7");
    accepted(&relay, &mut till, 0, &header);
    accepted(&relay, &mut till, 2, &basic);
    // The token goes no further than here: the backend gets the query without it.
    let answer = post(&relay, 1, &query);
    let message = till.expect("MSG id=* verified=token =*", b"x");
    let head = String::from_utf8(message.frame.head().to_vec()).expect("ASCII");
    message.ack();
    assert!(
        head.starts_with("POST /1/till-7?a=1&b=2 HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(answer.answer().told(), (200, "delivered"));

    for (change, text) in [
        ("none", "?a=1"),
        ("empty", "?key="),
        ("twice", "?key=a+secret%26more&key=a+secret%26more"),
        ("another", "?key=a+secret%26mor"),
        ("a name like it", "?keys=a+secret%26more"),
        ("bad escape", "?key=a%2"),
    ] {
        let mut forgery = query.called(change);
        forgery.query = text.to_owned();
        refused(&relay, 1, &forgery);
    }
    for value in [
        "",
        "Basic",
        "Basic ",
        "Basic x",
        "Bearer dXNlcjpwYXNzOndvcmQ=",
        "Basic dXNlcjpwYXNz",
        "Basic  dXNlcjpwYXNzOndvcmQ=",
    ] {
        let mut forgery = basic.called(value);
        *forgery.value("Authorization") = value.to_owned();
        refused(&relay, 2, &forgery);
    }
    till.settle();
}

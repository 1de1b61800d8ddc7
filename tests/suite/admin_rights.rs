//! The admin port as somebody meets it who may do less, or nothing: read tokens, forged requests, guessed tokens, hostile HTTP.

use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::hostile_http::requests::refused;
use super::outbox::{config, stored, storing};
use crate::support::{
    Answer, DEADLINE, Process, RawHttp, Relay, Setup, Steady, binary, eventually,
};

const ADMIN: &str = "Authorization: Bearer an-admin-token-0123456789\r\n";
const SUPPORT: &str = "Authorization: Bearer a-support-token-012345678\r\n";
const AUDIT: &str = "Authorization: Bearer an-audit-token-0123456789\r\n";

/// The three of them.
fn tokens() -> String {
    "[admin]\ntoken = \"an-admin-token-0123456789\"\n\
     read_tokens = [{ name = \"support\", token = \"a-support-token-012345678\" }, \
     { name = \"audit\", token = \"an-audit-token-0123456789\", bodies = true }]\n"
        .to_owned()
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn a_read_token_looks_and_changes_nothing_and_bodies_are_a_right_of_their_own() {
    let relay = Relay::with(&(config("", "") + &tokens()));
    let id = stored(&relay, "/notify/till-7", b"order=4711&secret-note=1");
    let content = format!("/notifications/{id}/content");
    for (token, status) in [(ADMIN, 200), (AUDIT, 200), (SUPPORT, 403)] {
        assert_eq!(relay.admin_with(&content, token).status, status);
        let shown = relay.admin_with(&format!("/outbox/{id}?body=1"), token);
        assert_eq!(shown.status, status);
        assert_eq!(
            relay.admin_with(&format!("/outbox/{id}"), token).status,
            200
        );
    }
    let shown = json_of(&relay.admin_with(&content, AUDIT));
    assert_eq!(shown["body_base64"], "b3JkZXI9NDcxMSZzZWNyZXQtbm90ZT0x");
    // Nor can one who may not see a body ask what is in it.
    let found = |token: &str, text: &str| {
        let listed = json_of(&relay.admin_with(&format!("/notifications?q={text}"), token));
        listed["notifications"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((found(AUDIT, "4711"), found(SUPPORT, "4711")), (1, 0));
    assert_eq!((found(AUDIT, "till-7"), found(SUPPORT, "till-7")), (1, 1));

    let order = json!({ "ids": [id], "pending": true }).to_string();
    for token in [SUPPORT, AUDIT] {
        let session = json_of(&relay.admin_with("/session", token));
        assert_eq!(session["act"], false);
        for path in ["/outbox/retry", "/outbox/drop"] {
            assert_eq!(relay.admin_post(path, token, &order).status, 403);
        }
        let which = json!({ "id": "till-7", "since_unix_ms": 0 }).to_string();
        assert_eq!(
            relay
                .admin_post("/backends/disconnect", token, &which)
                .status,
            403
        );
    }
    relay.log_contains("admin: support (127.0.0.1) may not change anything");
    assert_eq!(
        relay.metric("payrelay_outbox_messages{state=\"pending\"}"),
        0.0,
        "no token, no figures"
    );
    let dropped = relay.admin_post("/outbox/drop", ADMIN, &order);
    assert_eq!(json_of(&dropped)["changed"], 1);
    relay.log_contains(&format!(
        "admin: admin (127.0.0.1) drops 1 notifications: {id}"
    ));
    for secret in ["an-admin-token", "a-support-token", "secret-note", "=4711"] {
        assert!(!relay.log().contains(secret), "{secret} is in the log");
    }
}

#[test]
fn another_sites_page_can_neither_change_nor_read_anything() {
    let relay = storing("", "");
    let id = stored(&relay, "/notify/till-7", b"x");
    let order = json!({ "ids": [id], "pending": true }).to_string();
    let post = |headers: &str, kind: &str| {
        let request = format!(
            "POST /outbox/drop HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{order}",
            order.len()
        );
        let answer = RawHttp::connect(relay.ready().admin).exchange(request.as_bytes());
        answer.expect("an answer").status
    };
    // What a form and what a script without leave can send.
    let host = "Host: 127.0.0.1\r\n";
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json",
    ] {
        assert_eq!(
            post(&format!("{host}Origin: https://evil.example\r\n"), kind),
            403,
            "{kind}"
        );
    }
    let marked = "X-Payrelay-Action: 1\r\n";
    let cross = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(
        post(&format!("{host}{marked}{cross}"), "application/json"),
        403
    );
    // A name of theirs that leads to this address.
    assert_eq!(
        post(
            &format!("Host: evil.example\r\n{marked}"),
            "application/json"
        ),
        403
    );
    let preflight = format!(
        "OPTIONS /outbox/drop HTTP/1.1\r\n{host}Origin: https://evil.example\r\n\
        Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-payrelay-action\r\nConnection: close\r\n\r\n"
    );
    let leave = RawHttp::connect(relay.ready().admin)
        .exchange(preflight.as_bytes())
        .expect("an answer");
    assert_eq!(
        (leave.status, leave.header("access-control-allow-origin")),
        (405, None)
    );
    for path in ["/notifications", "/trace?key=x", "/status", "/metrics"] {
        assert_eq!(
            relay
                .admin_with(path, "Sec-Fetch-Site: cross-site\r\n")
                .status,
            403,
            "{path}"
        );
    }
    let listed = json_of(&relay.admin("/notifications"));
    assert_eq!(listed["notifications"][0]["id"], id, "it is there still");
    assert_eq!(post(&format!("{host}{marked}"), "application/json"), 200);
}

#[test]
fn guessed_tokens_slow_no_provider_and_fill_no_log() {
    let relay = Relay::with(&tokens());
    let steady = Steady::start(&relay);
    let admin = relay.ready().admin;
    let guessers: Vec<_> = (0..4)
        .map(|guesser| {
            thread::spawn(move || {
                let mut statuses = Vec::new();
                let mut http = RawHttp::connect(admin);
                for n in 0..500 {
                    let login = format!("{{\"token\": \"guess-{guesser}-{n}-0123456789\"}}");
                    let request = match n % 2 {
                        0 => format!("GET /metrics HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer guess-{guesser}-{n}-0123456789\r\n\r\n"),
                        _ => format!("POST /login HTTP/1.1\r\nHost: relay\r\nX-Payrelay-Action: 1\r\nContent-Type: application/json\r\n\
                            Content-Length: {}\r\n\r\n{login}", login.len()),
                    };
                    statuses.push(http.exchange(request.as_bytes()).expect("an answer").status);
                }
                statuses
            })
        })
        .collect();
    steady.still_served();
    let statuses: Vec<u16> = guessers
        .into_iter()
        .flat_map(|guesser| guesser.join().expect("done"))
        .collect();
    steady.still_served();
    assert_eq!(statuses.len(), 2000);
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)));
    assert!(
        statuses.iter().filter(|&&status| status == 401).count() <= 2 * 60,
        "60 a minute, and a minute may end meanwhile"
    );
    assert_eq!(
        relay.admin_with("/metrics", ADMIN).status,
        200,
        "the right one is taken all the same"
    );
    relay.log_contains("wrong token"); // the log is written by a thread of its own
    let lines = relay
        .log()
        .lines()
        .filter(|line| line.contains("wrong token"))
        .count();
    assert!((1..10).contains(&lines), "{lines} lines");
    assert!(!relay.log().contains("guess-"));
}

#[test]
fn the_admin_port_takes_no_hostile_request() {
    let relay = Relay::with(&format!("[http]\nmax_body = \"256KiB\"\n{}", tokens()));
    let steady = Steady::start(&relay);
    for (name, request, status) in refused() {
        // The limit here is 512 KiB and twice http.max_body: as much as providers may send by default.
        let mut http = RawHttp::connect(relay.ready().admin);
        http.send(&request);
        let answer = http
            .answer()
            .unwrap_or_else(|problem| panic!("{name}: {problem}"));
        let answer = answer.unwrap_or_else(|| panic!("{name}: closed without an answer"));
        assert!(
            answer.status == status || answer.status == 413,
            "{name}: {}",
            answer.status
        );
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
    }
    steady.still_served();
    let page = relay.admin("/");
    assert_eq!(page.status, 200);
    for (header, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(page.header(header), Some(value));
    }
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe")
    );
}

/// Two nodes that know of each other, and of themselves, with the same tokens.
fn two_nodes() -> [Relay; 2] {
    let start = |name: &str| {
        Setup::with(&format!(
            "node = \"{name}\"\n{}{}",
            config("", ""),
            tokens()
        ))
        .start()
    };
    let nodes = [start("a"), start("b")];
    let list = nodes
        .each_ref()
        .map(|node| format!("\"{}\"", node.ready().admin))
        .join(", ");
    for (node, name) in nodes.iter().zip(["a", "b"]) {
        let addresses = node.ready();
        let (http, tcp, admin) = (addresses.http, addresses.tcp, addresses.admin);
        let toml = format!(
            "node = \"{name}\"\n[http]\nlisten = \"{http}\"\n[tcp]\nlisten = \"{tcp}\"\n{}{}listen = \"{admin}\"\nnodes = [{list}]\n",
            config("", ""),
            tokens()
        );
        node.rewrite(&toml);
        node.signal(Signal::HUP);
        node.log_contains("relay.toml: reloaded");
    }
    nodes
}

#[test]
fn one_node_asks_another_with_no_more_rights_than_it_was_asked_with() {
    let [a, b] = two_nodes();
    let id = stored(
        &b,
        "/event/till-7",
        b"{\"n\": \"order-4711\", \"note\": \"inside\"}",
    );
    let other = b.ready().admin;
    let asked = |path: &str, token: &str| a.admin_with(path, token);
    let session = json_of(&asked("/session", SUPPORT));
    let others = session["others"].as_array().expect("others");
    assert!(others.contains(&json!(other.to_string())) && others.len() == 2);

    assert_eq!(
        json_of(&asked("/notifications?q=order-4711", SUPPORT))["notifications"],
        json!([])
    );
    let there = json_of(&asked(
        &format!("/notifications?q=order-4711&node={other}"),
        SUPPORT,
    ));
    assert_eq!(there["notifications"][0]["id"], id);
    assert_eq!(there["node"], b.ready().instance);
    let traced = json_of(&asked(&format!("/trace?key={id}&node={other}"), SUPPORT));
    assert_eq!(traced["found"][0]["state"], "pending");
    // At the other node it comes with the admin token, and yet sees no more than support may.
    let inside = json_of(&asked(
        &format!("/notifications?q=inside&node={other}"),
        SUPPORT,
    ));
    assert_eq!(inside["notifications"], json!([]));
    let inside = json_of(&asked(
        &format!("/notifications?q=inside&node={other}"),
        AUDIT,
    ));
    assert_eq!(inside["notifications"][0]["id"], id);
    let content = format!("/notifications/{id}/content?node={other}");
    assert_eq!(asked(&content, SUPPORT).status, 403);
    assert_eq!(json_of(&asked(&content, AUDIT))["kept"], "outbox");
    // payrelay trace asks both through the one.
    let traced = trace(&a, &["--json"]);
    let lines: Vec<Value> = traced
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!((lines.len(), &lines[0]["id"]), (1, &json!(id)), "{traced}");
    let order = json!({ "ids": [id], "pending": true }).to_string();
    let drop = format!("/outbox/drop?node={other}");
    assert_eq!(a.admin_post(&drop, AUDIT, &order).status, 403);
    assert_eq!(json_of(&a.admin_post(&drop, ADMIN, &order))["changed"], 1);
    b.log_contains(&format!(
        "admin: admin (127.0.0.1) by {} drops 1 notifications: {id}",
        a.ready().instance
    ));

    // Nobody makes a node connect anywhere else.
    for node in ["127.0.0.1:1", "evil.example:80", "", "[::1]:9100"] {
        let answer = asked(&format!("/notifications?node={node}"), ADMIN);
        assert_eq!(answer.status, 404, "{node}: {}", answer.text());
    }
    drop_node(b);
    eventually("it says that the other is silent", || {
        let answer = asked(&format!("/notifications?node={other}"), ADMIN);
        answer.status == 502 && answer.text().contains(&other.to_string())
    });
}

/// What `payrelay trace order-4711` prints, with the configuration of `relay`.
fn trace(relay: &Relay, more: &[&str]) -> String {
    let mut command = binary();
    command
        .args(["-c", "relay.toml", "trace", "order-4711"])
        .args(more);
    command.current_dir(relay.path("."));
    let mut process = Process::start("payrelay", command);
    let code = process.wait_exit(DEADLINE);
    assert_eq!(code, Some(0), "{}", process.stderr());
    process.stdout()
}

fn drop_node(node: Relay) {
    drop(node);
}

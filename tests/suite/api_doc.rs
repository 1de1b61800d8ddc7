//! doc/api.md against a relay: every request that it describes is answered, and the fields are those that it says.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::outbox::{config, stored};
use crate::support::Relay;

/// One `### METHOD /path` with the fields of its last table.
struct Described {
    method: String,
    path: String,
    fields: BTreeSet<String>,
}

fn described() -> Vec<Described> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/doc/api.md");
    let text = fs::read_to_string(file).expect("the document");
    let parts = text.split("\n### ").skip(1);
    let one = |part: &str| {
        let (heading, rest) = part.split_once('\n').expect("a heading");
        let (method, path) = heading.split_once(' ').expect("METHOD /path");
        let table = rest.split("| field | |\n").nth(1).unwrap_or_default();
        let rows = table
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("| `"));
        let names = rows.flat_map(|row| {
            let cell = row.split('|').nth(1).unwrap_or_default();
            let words = cell
                .split_whitespace()
                .map(|word| word.trim_matches('`').to_owned());
            words.collect::<Vec<_>>()
        });
        Described {
            method: method.to_owned(),
            path: path.to_owned(),
            fields: names.collect(),
        }
    };
    parts.map(one).collect()
}

#[test]
fn every_request_is_answered_as_it_is_described() {
    let relay = Relay::with(&config("", ""));
    let id = stored(&relay, "/notify/till-7", b"x");
    let _backend = relay.backend("till-8");
    let since = |relay: &Relay| {
        let backends: Value = serde_json::from_slice(&relay.admin("/backends").body).expect("JSON");
        let all = backends["backends"].as_array().expect("a list").clone();
        let till = all
            .into_iter()
            .find(|one| one["id"] == "till-8")
            .expect("it is connected");
        till["session"]["since_unix_ms"].clone()
    };
    let all = described();
    assert!(all.len() > 15, "{}", all.len());
    for Described {
        method,
        path,
        fields,
    } in all
    {
        let target = path.replace("ID", &id);
        let target = if path == "/trace" {
            format!("/trace?key={id}")
        } else {
            target
        };
        let answer = match method.as_str() {
            "GET" => relay.admin(&target),
            _ => {
                let body = match path.as_str() {
                    "/outbox/retry" | "/outbox/drop" => json!({ "backend": "nobody" }),
                    "/outbox/forget" => json!({ "event": "unknown" }),
                    "/outbox/import" => json!({ "messages": [] }),
                    "/backends/disconnect" => {
                        json!({ "id": "till-8", "since_unix_ms": since(&relay) })
                    }
                    _ => json!({}),
                };
                relay.admin_post(&target, "X-Payrelay-Action: 1\r\n", &body.to_string())
            }
        };
        let status = match &*path {
            // No token is asked for here, so there is nothing to log in with.
            "/login" => 400,
            // There is no other node. outbox_hand_over has two.
            "/outbox/hand-over" => 409,
            _ => 200,
        };
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if !fields.is_empty() && status == 200 {
            let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
            let object = json.as_object().expect("an object");
            let sent: BTreeSet<String> = object.keys().cloned().collect();
            assert_eq!(sent, fields, "{method} {path}");
        }
    }
}

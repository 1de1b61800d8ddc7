//! `payrelay init` for every preset: its file is refused for what is marked and for nothing else, is taken once that is filled in, and
//! then lets the provider's callback in.

use std::collections::BTreeSet;
use std::fs;

use payrelay::verify::presets;
use tempfile::TempDir;

use super::schemes::{self, Sent};
use super::{fresh, jws, push_token};
use crate::support::{Setup, run};

/// `text` with these lines of a route in the place of those that init wrote for the same keys.
fn fill(text: &str, keys: &str) -> String {
    let key_of = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let names: Vec<String> = keys.lines().map(key_of).collect();
    let kept = text
        .lines()
        .filter(|line| !names.contains(&key_of(line)) || is_of_tcp(text, line));
    let mut filled: String = kept.map(|line| format!("{line}\n")).collect();
    filled.push_str(keys);
    filled
}

/// Whether `line` is the secrets of `[tcp]`, which come before every route.
fn is_of_tcp(text: &str, line: &str) -> bool {
    let before = text.split("[[route]]").next().unwrap_or_default();
    before.lines().any(|other| other == line)
}

/// The presets whose callbacks are made here, and not by `schemes` or `fresh`.
const BY_HAND: [&str; 4] = ["apple", "google-play", "jws", "signed"];

/// A callback for the route that [`keys_of`] has for the preset called `name`: headers and body.
fn by_hand(name: &str) -> (Vec<(&'static str, String)>, String) {
    match name {
        "apple" => (Vec::new(), jws::notification()),
        "google-play" | "jws" => {
            let (token, body) = push_token::push();
            (vec![("Authorization", token)], body.to_owned())
        }
        _ => {
            let body = "{\"order\":\"7\",\"paid\":true}";
            let mac = fresh::mac(SIGNED_SECRET.as_bytes(), &[body.as_bytes()]);
            (vec![("X-Sign", fresh::hex(&mac))], body.to_owned())
        }
    }
}

const SIGNED_SECRET: &str = "a-secret-of-enough-length";

/// Lines that belong into the route of the preset called `name`.
fn keys_of(name: &str, sent: &[Sent]) -> String {
    if let Some(sent) = sent.iter().find(|sent| sent.preset == name) {
        return sent.keys.clone();
    }
    let callbacks = fresh::all(fresh::now());
    if let Some(callback) = callbacks.iter().find(|callback| callback.preset == name) {
        return callback.keys.clone();
    }
    let route = match name {
        "apple" => jws::apple_route(&jws::authority().pem("root"), ""),
        "google-play" => push_token::google_route(&fresh::key_set("k1"), ""),
        "signed" => format!(
            "secrets = [\"{SIGNED_SECRET}\"]\n\
             signed = {{ text = \"{{body}}\", algorithm = \"hmac-sha256\", signature = \"header:X-Sign\" }}\n"
        ),
        "jws" => {
            let google = push_token::google_route(&fresh::key_set("k1"), "");
            google + "jws = { token = \"header:Authorization\", prefix = \"Bearer \" }\n"
        }
        other => panic!("no callback of {other}"),
    };
    let wanted = ["keys", "claims", "secrets", "signed", "jws"];
    let lines = route.lines().filter(|line| {
        wanted
            .iter()
            .any(|key| line.starts_with(&format!("{key} = ")))
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_file_of_every_preset_is_taken_once_it_is_filled_in_and_lets_its_provider_in() {
    let dir = TempDir::new().expect("a folder");
    let sent = schemes::all();
    let mut posted = BTreeSet::new();
    let mut routes = String::from("[delivery]\nundelivered = \"refuse\"\n");
    for preset in presets::all() {
        let name = preset.name;
        let file = dir.path().join(format!("{name}.toml"));
        let file_name = file.to_str().expect("UTF-8");
        let (code, _, said) = run(&[
            "init",
            "-c",
            file_name,
            "--provider",
            name,
            "--backend",
            "till-7",
        ]);
        assert_eq!((code, &*said), (Some(0), ""), "{name}");
        let (code, _, refused) = run(&["check", "-c", file_name]);
        let text = fs::read_to_string(&file).expect("the file");
        assert_eq!(
            code,
            Some(if text.contains("FILL IN") { 78 } else { 0 }),
            "{name}"
        );
        let odd: Vec<&str> = refused
            .lines()
            .filter(|line| !line.contains("is not filled in yet") && !line.contains("serial"))
            .collect();
        assert!(odd.is_empty(), "{name}: {odd:?}");

        let filled = fill(&text, &keys_of(name, &sent));
        assert!(!filled.contains("FILL IN"), "{filled}");
        fs::write(&file, &filled).expect("the file");
        let (code, _, refused) = run(&["check", "-c", file_name]);
        assert_eq!(code, Some(0), "{name}: {refused}\n{filled}");

        let (_, route) = filled.split_once("[[route]]").expect("a route");
        if BY_HAND.contains(&name) {
            routes += &format!("[[route]]{route}\n");
            continue;
        }
        // Its route, where the callback below was signed for: some sign the path.
        let Some(one) = sent.iter().find(|one| one.preset == name) else {
            continue;
        };
        let (path, _) = one.target.split_once('?').unwrap_or((&one.target, ""));
        routes += &format!(
            "[[route]]{}\nid = \"header:x-test-id\"\nallow_unsigned_id = true\n",
            route.replace(
                &format!("path = \"/{name}/{{id}}\""),
                &format!("path = \"{path}\"")
            )
        );
        posted.insert(name);
    }
    let relay = Setup::with(&routes).start();
    for name in &posted {
        let one = sent
            .iter()
            .find(|one| one.preset == *name)
            .expect("a callback");
        assert!(
            schemes::gets_in(&relay, &one.request()),
            "{name}: {}",
            relay.log()
        );
    }
    for name in BY_HAND {
        let (headers, body) = by_hand(name);
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let post = |body: &str| {
            let path = format!("/{name}/till-7");
            relay.post_with(&path, &headers, body.as_bytes()).answer()
        };
        let answer = post(&body);
        assert_eq!(answer.outcome(), "offline", "{name}: {}", relay.log());
        if name == "apple" || name == "signed" {
            let forged = body.replacen('a', "b", 1);
            assert_eq!(post(&forged).outcome(), "bad-signature", "{name}");
        }
    }
    // Those of the others are posted by init.rs, beside this one.
    let mut rest: BTreeSet<&str> = presets::all().map(|preset| preset.name).collect();
    rest.retain(|name| {
        !posted.contains(name)
            && !fresh::all(fresh::now())
                .iter()
                .any(|callback| callback.preset == *name)
    });
    assert_eq!(rest, BTreeSet::from(BY_HAND));
}

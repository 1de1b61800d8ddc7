//! Seeds for the fuzzer, taken from what these tests know: genuine callbacks, hostile requests, transcripts, configurations.
//! Each target takes its own here too, in every run of the tests; `tests/fuzz/run` goes on from there.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use serde_json::Value;

use self::fuzz::signed::input;
use crate::hostile_http::requests;
use crate::verify::vectors;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// What must hold of every input of a target: it panics if it does not.
type Target = fn(&[u8]);

/// The targets of `tests/fuzz`, by name.
const TARGETS: [(&str, Target); 12] = [
    ("config", fuzz::config::run),
    ("edge", fuzz::edge::run),
    ("keys", fuzz::verify::keys),
    ("verify_adyen", fuzz::verify::adyen),
    ("verify_alipay", fuzz::verify::alipay),
    ("verify_hmac", fuzz::verify::hmac),
    ("verify_jws", fuzz::signed::jws),
    ("verify_signed", fuzz::signed::signed),
    ("verify_token", fuzz::verify::token),
    ("verify_wechatpay_v2", fuzz::verify::wechatpay_v2),
    ("verify_wechatpay_v3", fuzz::verify::wechatpay_v3),
    ("wire", fuzz::wire::run),
];

/// `tests/fuzz/run` says in which folder; each target has its own within.
const FOLDER: &str = "PAYRELAY_SEEDS";

/// Apple's and Google's documents in the same form.
fn documents() -> Vec<Vec<u8>> {
    let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let apple = read(include_str!("../data/apple_vector.json"));
    let google = read(include_str!("../data/google_vector.json"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let (body, token) = (text(&google["body"]), text(&google["authorization"]));
    vec![
        format!("POST /\n\n{}", text(&apple["body"])).into_bytes(),
        format!("POST /\nAuthorization: {token}\n\n{body}").into_bytes(),
    ]
}

#[test]
fn none_breaks_a_promise() {
    let seeds = seeds();
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(seeds.keys().eq(&targets), "a target without seeds");
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    let files = fs::read_dir(files).expect("a folder").count();
    assert_eq!(files, targets.len(), "a target that is not in the list");
    for (name, target) in TARGETS {
        seeds[name].iter().for_each(|seed| target(seed));
    }
}

#[test]
#[ignore = "not a test: tests/fuzz/run asks for it"]
fn are_written() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    for (target, inputs) in seeds() {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder).expect("a folder");
        for (n, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{n:03}")), input).expect("written");
        }
    }
}

/// Inputs for each target, by its name.
fn seeds() -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut seeds = BTreeMap::new();
    let mut write = |target: &str, inputs: Vec<Vec<u8>>| {
        assert!(!inputs.is_empty(), "no seeds for {target}");
        seeds.insert(target.to_owned(), inputs);
    };
    let genuine: Vec<_> = vectors::all()
        .into_iter()
        .map(|(callback, _)| callback)
        .collect();
    let callbacks = |wanted: &dyn Fn(&str) -> bool| {
        let chosen = genuine.iter().filter(|callback| wanted(callback.preset));
        chosen
            .map(|callback| {
                let headers = callback
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}\n"));
                [
                    headers.collect::<String>().as_bytes(),
                    b"\n",
                    &callback.body,
                ]
                .concat()
            })
            .collect()
    };
    let own = ["alipay", "wechatpay-v2", "wechatpay-v3", "adyen"];
    for preset in own {
        let target = format!("verify_{}", preset.replace('-', "_"));
        write(&target, callbacks(&|its| its == preset));
    }
    write("verify_hmac", callbacks(&|its| !own.contains(&its)));
    write(
        "verify_token",
        vec![
            b"X-Token: user:a secret\n\n".to_vec(),
            b"Authorization: Basic dXNlcjphIHNlY3JldA==\n\n".to_vec(),
            b"\na=1&key=user%3Aa+secret&b".to_vec(),
        ],
    );
    let schemes = include_str!("../data/scheme_vectors.json");
    let schemes: Vec<Value> = serde_json::from_str(schemes).expect("JSON");
    write(
        "verify_signed",
        schemes.iter().map(input::of_vector).collect(),
    );
    write("verify_jws", documents());
    write("keys", vectors::keys());
    let refused = requests::refused()
        .into_iter()
        .map(|(_, request, _)| request);
    let served = requests::served().into_iter().map(|(_, request)| request);
    let small = refused.chain(served).filter(|request| request.len() < 4096);
    // The first byte says how the rest is cut into reads.
    write(
        "edge",
        small
            .map(|request| [b"\x1f", &request[..]].concat())
            .collect(),
    );
    let document = include_str!("../../doc/protocol.md").lines();
    let lines = document.filter_map(|line| line.strip_prefix("C> ").or(line.strip_prefix("S> ")));
    write(
        "wire",
        lines.map(|line| format!("{line}\n").into_bytes()).collect(),
    );
    let transcripts = [
        include_str!("../../src/config/tests/errors.txt"),
        include_str!("../../src/config/tests/route_errors.txt"),
        include_str!("../../src/config/tests/verify_errors.txt"),
    ];
    let cases = transcripts
        .iter()
        .flat_map(|text| text.split("\n\n"))
        .map(|case| {
            let lines = case
                .lines()
                .filter(|line| !line.starts_with("! ") && !line.starts_with("##"));
            lines
                .map(|line| format!("{line}\n"))
                .collect::<String>()
                .into_bytes()
        });
    let shipped = include_str!("../../relay.toml").as_bytes().to_vec();
    write("config", cases.chain([shipped]).collect());
    seeds
}

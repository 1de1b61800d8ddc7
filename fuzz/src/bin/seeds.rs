//! Writes the seeds of every target into `DIR/<target>/`: genuine callbacks, the hostile requests of the suite, transcripts of
//! the protocol's document, configurations. All are taken from the tests, so that what they have found out is known here.

use std::path::Path;
use std::{env, fs};

use payrelay_fuzz::verify::genuine;

#[path = "../../../tests/suite/hostile_http/requests.rs"]
#[allow(dead_code)]
mod requests;

fn main() {
    let Some(folder) = env::args_os().nth(1) else {
        panic!("which folder?");
    };
    let folder = Path::new(&folder);
    let write = |target: &str, inputs: Vec<Vec<u8>>| {
        let folder = folder.join(target);
        fs::create_dir_all(&folder).expect("a folder");
        for (n, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{n:03}")), input).expect("written");
        }
        println!("{target}: {} seeds", inputs.len());
    };
    let of = |providers: &[&str]| {
        let chosen = genuine()
            .iter()
            .filter(|genuine| providers.contains(&&*genuine.provider));
        chosen.map(|genuine| genuine.input()).collect()
    };
    write(
        "verify_hmac",
        of(&[
            "stripe",
            "standard-webhooks",
            "paddle",
            "square",
            "shopify",
            "github",
            "razorpay",
            "adyen-platform",
        ]),
    );
    write("verify_alipay", of(&["alipay"]));
    write("verify_wechatpay_v2", of(&["wechatpay-v2"]));
    write("verify_wechatpay_v3", of(&["wechatpay-v3"]));
    write("verify_adyen", of(&["adyen-standard"]));
    write(
        "verify_token",
        vec![
            b"X-Token: user:a secret\n\n".to_vec(),
            b"Authorization: Basic dXNlcjphIHNlY3JldA==\n\n".to_vec(),
            b"\na=1&key=user%3Aa+secret&b".to_vec(),
        ],
    );
    let vectors = include_str!("../../../tests/data/provider_vectors.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).expect("JSON");
    let pems = vectors["vectors"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|vector| {
            [
                "platform_cert_pem",
                "platform_public_key_pem",
                "public_key_pem",
            ]
            .into_iter()
            .filter_map(|key| vector[key].as_str().map(|pem| pem.as_bytes().to_vec()))
        });
    write("keys", pems.collect());
    let cut = |request: &[u8]| [b"\x1f", request].concat();
    let refused = requests::refused()
        .into_iter()
        .map(|(_, request, _)| request);
    let served = requests::served().into_iter().map(|(_, request)| request);
    write(
        "edge",
        refused
            .chain(served)
            .filter(|request| request.len() < 4096)
            .map(|request| cut(&request))
            .collect(),
    );
    let document = include_str!("../../../doc/protocol.md");
    let lines = document
        .lines()
        .filter_map(|line| line.strip_prefix("C> ").or(line.strip_prefix("S> ")));
    write(
        "wire",
        lines.map(|line| format!("{line}\n").into_bytes()).collect(),
    );
    let transcripts = [
        include_str!("../../../src/config/tests/errors.txt"),
        include_str!("../../../src/config/tests/route_errors.txt"),
        include_str!("../../../src/config/tests/verify_errors.txt"),
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
    let shipped = include_str!("../../../relay.toml").as_bytes().to_vec();
    write("config", cases.chain([shipped]).collect());
}

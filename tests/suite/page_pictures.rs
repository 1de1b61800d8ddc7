//! The pictures of the page in doc/page, made by the page itself.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use serde_json::Value;

use super::outbox::stored;
use super::page::{GBK_FORM, dead, delivered, toml};
use crate::support::{Browser, Relay, eventually};

/// Pictures for doc/page.md, in the folder that `PAYRELAY_SCREENSHOTS` names.
#[test]
#[ignore = "makes pictures: PAYRELAY_SCREENSHOTS=doc/page cargo test --test suite -- --ignored page_pictures::"]
fn pictures() {
    let folder =
        std::env::var("PAYRELAY_SCREENSHOTS").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
    let relay = Relay::with(&format!(
        "node = \"pay-1\"\n{}[delivery]\nack_deadline = \"300ms\"\n",
        toml()
    ));
    let mut game = relay.backend("game-01");
    let _second = relay.backend("game-02");
    for n in 0..12 {
        let body = [GBK_FORM, format!("{n}").as_bytes()].concat();
        let body = String::from_utf8_lossy(&body).replace("2026112800", &format!("20261128{n:04}"));
        delivered(&relay, &mut game, "/alipay/game-01", body.as_bytes());
        match n % 5 {
            1 => drop(stored(
                &relay,
                "/event/gmae-01",
                format!("{{\"n\": \"order-47{n}\"}}").as_bytes(),
            )),
            3 => drop(dead(
                &relay,
                "shop",
                "/event/shop",
                format!("{{\"n\": \"order-48{n}\"}}").as_bytes(),
            )),
            _ => {}
        }
    }
    relay.post("/nowhere", b"x").answer();
    let listed: Value =
        serde_json::from_slice(&relay.admin("/notifications?limit=500").body).expect("JSON");
    let first = |state: &str| {
        let all = listed["notifications"].as_array().expect("a list");
        let one = all
            .iter()
            .find(|one| one["state"] == state)
            .expect("one of them");
        one["id"].as_str().expect("an id").to_owned()
    };
    let views = [
        ("list", "/".to_owned()),
        ("delivered", format!("/?id={}", first("delivered"))),
        ("dead", format!("/?id={}", first("dead"))),
        ("backends", "/?view=backends".to_owned()),
        ("health", "/?view=health".to_owned()),
    ];
    // After a start, backends have a while to come.
    eventually("the typo is one", || {
        relay.admin("/backends").text().contains("\"unknown\":true")
    });
    let take = |page: &Browser, size: (u32, u32), ending: &str| {
        page.resize(size.0, size.1);
        for (name, path) in &views {
            page.open(relay.ready().admin, path);
            page.wait(
                "it is shown",
                "return !!document.querySelector('a.row, #body, table, .node-card')",
            );
            if *name == "dead" {
                page.click("#act-drop");
            }
            let png = BASE_64.decode(page.screenshot()).expect("base 64");
            let file = folder.join(format!("{name}-{}-{ending}.png", size.0));
            fs::write(&file, png).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        }
    };
    for (language, ending) in [("en", "en"), ("zh-CN", "zh")] {
        let page = Browser::start(language);
        for size in [(1280, 720), (400, 800)] {
            take(&page, size, ending);
        }
        if language == "en" {
            page.prefer_dark();
            take(&page, (1280, 720), "en-dark");
        }
    }
}

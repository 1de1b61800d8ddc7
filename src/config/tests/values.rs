//! What is taken: every key, both ends of every limit, and what is taken with a warning.

use std::path::Path;
use std::time::Duration;

use super::super::{FixedAnswer, Secret, Segment, Selector, UndeliveredPolicy};
use super::{LEAST, bad, good};
use crate::notification::BackendId;

const EVERY_KEY: &str = r#"
node = "pay-1"
[http]
listen = "0.0.0.0:80"
workers = 8
max_body = "2MiB"
max_connections = 2000
max_in_flight = 300
request_deadline = "20s"
[tcp]
listen = "[::]:7001"
max_connections = 20000
secrets = ["0123456789abcdef", "fedcba9876543210"]
backends = ["game-01", "game-02"]
hello_deadline = "500ms"
heartbeat = "1m"
ack_timeout = "1h"
write_deadline = "30s"
queue = 128
[delivery]
ack_deadline = "2s"
undelivered = "refuse"
dedupe_window = "7d"
[outbox]
path = "/var/lib/payrelay/outbox.db"
retry_first = "2s"
retry_max = "10m"
max_tries = 7
redelivery_rate = 250
expire = "3d"
keep = "0s"
max_messages = 5
max_bytes = "1GiB"
max_log_bytes = "64MiB"
[admin]
listen = "192.0.2.1:9101"
token = "abcdef0123456789"
[log]
level = "trace"
file = "relay.log"
[[route]]
path = "/pay"
name = "pay"
verify = "none"
allow_unverified = true
id = "json:/attach/game"
event = "header:X-Order"
forward_headers = ["Content-Type", "wechatpay-signature"]
ok = { status = 201, body = "{}", content_type = "application/json" }
fail = { status = 500, body = "", content_type = "text/html; charset=utf-8" }
[[route]]
path = "/notify/{id}/a"
allow_unverified = true
"#;

#[test]
fn every_key_arrives() {
    let config = good(EVERY_KEY);
    assert_eq!(config.node, "pay-1");

    let http = &config.http;
    assert_eq!(http.listen.to_string(), "0.0.0.0:80");
    assert_eq!((http.workers, http.max_body), (8, 2 << 20));
    assert_eq!((http.max_connections, http.max_in_flight), (2000, 300));
    assert_eq!(http.request_deadline, Duration::from_secs(20));

    let tcp = &config.tcp;
    assert_eq!(tcp.listen.to_string(), "[::]:7001");
    assert_eq!((tcp.max_connections, tcp.queue), (20000, 128));
    let secrets: Vec<_> = tcp.secrets.iter().map(Secret::expose).collect();
    assert_eq!(secrets, ["0123456789abcdef", "fedcba9876543210"]);
    let backends: Vec<_> = tcp.backends.iter().map(BackendId::as_str).collect();
    assert_eq!(backends, ["game-01", "game-02"]);
    assert_eq!(tcp.hello_deadline, Duration::from_millis(500));
    assert_eq!(tcp.heartbeat, Duration::from_secs(60));
    assert_eq!(tcp.ack_timeout, Duration::from_secs(3600));
    assert_eq!(tcp.write_deadline, Duration::from_secs(30));

    assert_eq!(config.delivery.ack_deadline, Duration::from_secs(2));
    assert_eq!(config.delivery.undelivered, UndeliveredPolicy::Refuse);
    assert_eq!(
        config.delivery.dedupe_window,
        Duration::from_secs(7 * 86_400)
    );
    let outbox = &config.outbox;
    assert_eq!(outbox.path, Path::new("/var/lib/payrelay/outbox.db"));
    assert_eq!(outbox.retry_first, Duration::from_secs(2));
    assert_eq!(outbox.retry_max, Duration::from_secs(600));
    assert_eq!(outbox.expire, Duration::from_secs(3 * 86_400));
    assert_eq!(outbox.keep, Duration::ZERO);
    assert_eq!((outbox.max_tries, outbox.max_messages), (7, 5));
    assert_eq!(outbox.redelivery_rate, 250);
    assert_eq!(outbox.max_bytes, 1 << 30);
    assert_eq!(outbox.max_log_bytes, 64 << 20);
    assert_eq!(config.admin.listen.to_string(), "192.0.2.1:9101");
    assert_eq!(config.admin.token, Some(Secret::new("abcdef0123456789")));
    assert_eq!(config.log.level, log::LevelFilter::Trace);
    assert_eq!(config.log.file.as_deref(), Some(Path::new("relay.log")));

    let [pay, notify] = &config.routes[..] else {
        panic!("{:?}", config.routes)
    };
    assert_eq!(&*pay.name, "pay");
    assert_eq!(pay.path.text, "/pay");
    assert_eq!(pay.path.segments, [Segment::Literal("pay".into())]);
    assert_eq!(pay.id, Selector::Json(vec!["attach".into(), "game".into()]));
    assert_eq!(pay.event, Some(Selector::Header(vec!["x-order".into()])));
    assert_eq!(pay.forward_headers, ["content-type", "wechatpay-signature"]);
    assert_eq!(pay.ok, answer(201, "application/json", "{}"));
    assert_eq!(pay.fail, answer(500, "text/html; charset=utf-8", ""));
    assert_eq!(&*notify.name, "/notify/{id}/a");
    assert_eq!((&notify.id, &notify.event), (&Selector::Path, &None));
}

#[test]
fn the_defaults_are_these() {
    let config = good(LEAST);
    assert!(BackendId::parse(&config.node).is_ok());
    let http = &config.http;
    assert_eq!(http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((http.workers, http.max_body), (0, 1 << 20));
    let cluster = good(&format!("[redis]\nurl = \"redis://127.0.0.1\"\n{LEAST}"));
    assert!((2..=8).contains(&cluster.http.workers));
    assert_eq!((http.max_connections, http.max_in_flight), (1024, 256));
    assert_eq!(http.request_deadline, Duration::from_secs(10));
    let tcp = &config.tcp;
    assert_eq!(tcp.listen.to_string(), "127.0.0.1:7000");
    assert_eq!((tcp.max_connections, tcp.queue), (10000, 64));
    assert!(tcp.secrets.is_empty() && tcp.backends.is_empty());
    assert_eq!(tcp.hello_deadline, Duration::from_secs(5));
    assert_eq!(tcp.heartbeat, Duration::from_secs(30));
    assert_eq!(tcp.ack_timeout, Duration::from_secs(60));
    assert_eq!(tcp.write_deadline, Duration::from_secs(10));
    assert_eq!(config.delivery.ack_deadline, Duration::from_secs(4));
    assert_eq!(config.delivery.undelivered, UndeliveredPolicy::Store);
    assert_eq!(config.delivery.dedupe_window, Duration::from_secs(86_400));
    let outbox = &config.outbox;
    assert_eq!(outbox.path, Path::new("data/outbox.db"));
    assert_eq!(outbox.retry_first, Duration::from_secs(1));
    assert_eq!(outbox.retry_max, Duration::from_secs(300));
    assert_eq!(outbox.expire, Duration::from_secs(7 * 86_400));
    assert_eq!(outbox.keep, Duration::from_secs(3600));
    assert_eq!((outbox.max_tries, outbox.max_messages), (100, 1_000_000));
    assert_eq!(outbox.redelivery_rate, 6_000);
    assert_eq!(outbox.max_bytes, 4 << 30);
    assert_eq!(outbox.max_log_bytes, 256 << 20);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9100");
    assert_eq!(config.admin.token, None);
    assert_eq!(config.log.level, log::LevelFilter::Info);
    assert_eq!(config.log.file, None);
    let [route] = &config.routes[..] else {
        panic!("{:?}", config.routes)
    };
    assert_eq!(&*route.name, "/notify/{id}");
    assert_eq!(
        route.path.segments,
        [Segment::Literal("notify".into()), Segment::Id]
    );
    assert_eq!((&route.id, &route.event), (&Selector::Path, &None));
    assert_eq!(route.forward_headers, Vec::<String>::new());
    assert_eq!(route.ok, answer(200, "text/plain", "success"));
    assert_eq!(route.fail, answer(503, "text/plain", "fail"));
    assert_eq!(config.warnings, Vec::<String>::new());
}

fn answer(status: u16, content_type: &str, body: &str) -> FixedAnswer {
    FixedAnswer {
        status,
        content_type: content_type.to_owned(),
        body: body.as_bytes().to_vec(),
        values: Vec::new(),
    }
}

#[test]
fn both_ends_of_every_limit_are_allowed() {
    for (key, least, most) in [
        ("http.workers", "0", "64"),
        ("http.max_body", "\"1B\"", "\"64MiB\""),
        ("http.max_connections", "1", "65536"),
        ("http.max_in_flight", "1", "4096"),
        ("http.request_deadline", "\"100ms\"", "\"5m\""),
        (
            "http.listen",
            "\"127.0.0.1:0\"",
            "\"127.255.255.255:65535\"",
        ),
        ("tcp.max_connections", "1", "100000"),
        ("tcp.hello_deadline", "\"100ms\"", "\"60s\""),
        ("tcp.heartbeat", "\"100ms\"", "\"10m\""),
        ("tcp.ack_timeout", "\"100ms\"", "\"1h\""),
        ("tcp.write_deadline", "\"100ms\"", "\"5m\""),
        ("tcp.queue", "1", "1024"),
        ("delivery.ack_deadline", "\"50ms\"", "\"60s\""),
        ("delivery.dedupe_window", "\"1m\"", "\"30d\""),
        ("outbox.retry_first", "\"100ms\"", "\"5m\""),
        ("outbox.retry_max", "\"1s\"", "\"24h\""),
        ("outbox.expire", "\"1m\"", "\"365d\""),
        ("outbox.keep", "\"0s\"", "\"30d\""),
        ("outbox.max_tries", "1", "1000000"),
        ("outbox.redelivery_rate", "1", "1000000"),
        ("outbox.max_messages", "1", "100000000"),
        ("outbox.max_bytes", "\"1MiB\"", "\"1024GiB\""),
        ("outbox.max_log_bytes", "\"32MiB\"", "\"64GiB\""),
    ] {
        good(&format!("{key} = {least}\n{LEAST}"));
        good(&format!("{key} = {most}\n{LEAST}"));
    }
}

#[test]
fn tables_may_be_written_in_every_way_toml_has() {
    let inline =
        "http = { workers = 7 }\nroute = [{ path = \"/notify/{id}\", fail.status = 500 }]\n";
    let headed =
        "[http]\nworkers = 7\n[[route]]\npath = \"/notify/{id}\"\n[route.fail]\nstatus = 500\n";
    assert_eq!(good(inline), good(headed));
    assert_eq!(
        good(inline).routes[0].fail,
        answer(500, "text/plain", "fail")
    );
}

#[test]
fn an_answer_without_a_body_needs_none() {
    let config = good(&format!("{LEAST}ok.status = 204\n"));
    assert_eq!(config.routes[0].ok, answer(204, "text/plain", ""));
}

#[test]
fn what_is_odd_is_said_in_the_files_order() {
    let text = "[tcp]\nbackends = [\"a\"]\n[delivery]\nack_deadline = \"4501ms\"\n[http]\nlisten = \"0.0.0.0:80\"\n\
        [[route]]\npath = \"/{id}\"\nallow_unverified = true\nfail = { status = 200 }\n";
    assert_eq!(
        good(text).warnings,
        [
            "relay.toml:2:12: tcp.backends: without tcp.secrets any program on this host can connect as any of these ids",
            "relay.toml:4:16: delivery.ack_deadline: above 4.5s some providers (WeChat Pay: 5 s) give up before the \
             answer comes and send again",
            "relay.toml:9:20: route[0].allow_unverified: this route checks no signature and http.listen (0.0.0.0:80) is \
             not loopback; the backend must check the signature before it believes a payment",
            "relay.toml:10:8: route[0].fail: a failure with a status of 2xx is a success to every provider that does \
             not read the body",
        ]
    );
    for quiet in [
        "delivery.ack_deadline = \"4500ms\"",
        "tcp = { backends = [\"a\"], secrets = [\"0123456789abcdef\"] }",
    ] {
        assert_eq!(
            good(&format!("{quiet}\n{LEAST}allow_unverified = true\n")).warnings,
            Vec::<String>::new()
        );
    }
}

#[test]
fn what_is_too_long_or_too_many_is_refused_and_one_less_is_not() {
    let text = |chars: usize| "x".repeat(chars);
    for (key, most, problem) in [
        ("node", 48, "a node's name is 1 to 48 of A-Z a-z 0-9 . _ -"),
        (
            "admin.token",
            1024,
            "1025 characters are too many; at most 1024",
        ),
    ] {
        good(&format!("{key} = \"{}\"\n{LEAST}", text(most)));
        let errors = bad(&format!("{key} = \"{}\"\n{LEAST}", text(most + 1)));
        assert!(errors.ends_with(problem), "{errors}");
    }
    for (key, most, problem) in [
        ("name", 64, "1 to 64 of A-Z a-z 0-9 . _ / { } -"),
        ("ok.body", 16384, "16385 bytes are too many; at most 16384"),
        (
            "fail.body",
            16384,
            "16385 bytes are too many; at most 16384",
        ),
    ] {
        good(&format!("{LEAST}{key} = \"{}\"", text(most)));
        let errors = bad(&format!("{LEAST}{key} = \"{}\"", text(most + 1)));
        assert!(errors.ends_with(problem), "{errors}");
    }
    let path = |bytes: usize| {
        format!(
            "[[route]]\npath = \"/{{id}}/{}\"\nname = \"a\"",
            text(bytes - 6)
        )
    };
    good(&path(1024));
    let errors = bad(&path(1025));
    assert!(
        errors.ends_with("1025 bytes are too many; at most 1024"),
        "{errors}"
    );
    let secret = |bytes: usize| {
        format!(
            "{LEAST}verify = \"stripe\"\nsecrets = [\"{}\"]",
            text(bytes)
        )
    };
    good(&secret(1024));
    assert_eq!(
        bad(&secret(1025)),
        "relay.toml:4:12: route[0].secrets[0]: 1025 bytes are too many; at most 1024"
    );
    let routes = |n: usize| -> String {
        let route = |n| format!("[[route]]\npath = \"/{n}/{{id}}\"\n");
        (0..n).map(route).collect()
    };
    assert_eq!(good(&routes(1000)).routes.len(), 1000);
    assert_eq!(
        bad(&routes(1001)),
        "relay.toml:1:1: route: 1001 entries; at most 1000 are allowed"
    );
    let backends = |n: usize| {
        let ids: Vec<_> = (0..n).map(|n| format!("\"b{n}\"")).collect();
        format!(
            "tcp.backends = [{}]\ntcp.secrets = [\"0123456789abcdef\"]\n{LEAST}",
            ids.join(", ")
        )
    };
    assert_eq!(good(&backends(100_000)).tcp.backends.len(), 100_000);
    assert_eq!(
        bad(&backends(100_001)),
        "relay.toml:1:16: tcp.backends: 100001 entries; at most 100000 are allowed"
    );
}

#[test]
fn secrets_show_in_no_debug_output() {
    let shown = format!("{:?}", good(EVERY_KEY));
    for secret in ["0123456789abcdef", "fedcba9876543210", "abcdef0123456789"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn an_event_key_is_proven_where_the_signature_covers_it() {
    let proven = |keys: &str| {
        let config = good(&format!("[[route]]\npath = \"/a/{{id}}\"\n{keys}"));
        (
            config.routes[0].event.is_some(),
            config.routes[0].event_proven,
        )
    };
    let secret = "secrets = [\"0123456789abcdef\"]\n";
    assert_eq!(
        proven(&format!("verify = \"paddle\"\n{secret}")),
        (true, true)
    );
    assert_eq!(
        proven(&format!("verify = \"shopify\"\n{secret}")),
        (true, false),
        "a header that is not signed"
    );
    assert_eq!(proven("event = \"json:/id\"\n"), (true, false));
    assert_eq!(proven(""), (false, false));
}

//! The admin port without sockets: paths, methods, tokens and rights.

use std::net::SocketAddr;

use super::*;
use crate::bus::MemoryBus;
use crate::delivery;
use crate::dispatcher::Dispatcher;
use crate::session::Registry;

const BUS: &str = "{\"kind\":\"memory\",\"up\":true,\"reason\":null,\"canary_age_ms\":null,\
    \"subscriptions_wanted\":0,\"subscriptions_standing\":0,\"primaries\":[],\"buckets\":0,\"buckets_up\":0}";

const ADMIN: &str = "a-token-of-some-length";
const LOOKS: &str = "another-token-of-length";

fn config(token: Option<&str>) -> Config {
    let tokens = token.map_or(String::new(), |token| {
        format!(
            "token = \"{token}\"\nread_tokens = [{{ name = \"support\", token = \"{LOOKS}\" }}]\n"
        )
    });
    let text = format!("[admin]\n{tokens}[[route]]\npath = \"/{{id}}\"\n");
    Config::parse(&text, "relay.toml").expect("a configuration")
}

fn admin(token: Option<&str>, reasons: &'static [&'static str]) -> Admin {
    let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(
        "pay-1-0a1b2c".into(),
        Arc::new(Registry::default()),
        Arc::default(),
        Arc::new(()),
    ));
    let metrics = Arc::new(Metrics::new());
    let delivery = Delivery::start(delivery::DeliveryOptions {
        dispatcher: Dispatcher::new(Arc::default(), Arc::clone(&bus) as _),
        ack_deadline: Duration::from_secs(1),
        in_flight_max: 1,
        outbox: None,
        dedupe_window: Duration::from_secs(1),
        dedupe_store: None,
        trace: Arc::default(),
        metrics: Arc::clone(&metrics),
    });
    Admin::new(
        "pay-1-0a1b2c".into(),
        &config(token),
        metrics,
        Box::new(|| reasons.iter().map(|&reason| reason.to_owned()).collect()),
        Box::new(|| Readings {
            queue_depth: 7,
            ..Readings::default()
        }),
        bus,
        Sources {
            outbox: None,
            trace: Arc::default(),
            registry: Arc::default(),
            delivery: Arc::new(delivery.expect("a timer")),
        },
    )
}

fn answer(
    admin: &Admin,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> AdminReply {
    let mut all = vec![httparse::Header {
        name: "Host",
        value: b"127.0.0.1",
    }];
    all.extend(headers.iter().map(|(name, value)| httparse::Header {
        name,
        value: value.as_bytes(),
    }));
    admin.answer(&AdminRequest::of(&HttpRequest {
        method,
        target,
        headers: &all,
        body: body.as_bytes(),
        peer: SocketAddr::from(([127, 0, 0, 1], 9)),
    }))
}

fn ask(admin: &Admin, method: &str, target: &str, authorization: Option<&str>) -> AdminReply {
    let header = authorization.map(|value| ("Authorization", value));
    answer(admin, method, target, header.as_slice(), "")
}

fn body(told: &AdminReply) -> &str {
    std::str::from_utf8(&told.body).unwrap_or("not UTF-8")
}

fn head(told: &AdminReply) -> String {
    String::from_utf8(told.head()).unwrap_or_default()
}

#[test]
fn alive_is_ok() {
    let told = ask(&admin(None, &["draining"]), "GET", "/livez", None);
    assert_eq!((told.status, body(&told)), (200, "ok"));
}

#[test]
fn readiness_names_its_reasons() {
    for (reasons, status, listed) in [
        (&[][..], 200, "[]"),
        (&["draining"][..], 503, "[\"draining\"]"),
    ] {
        let told = ask(&admin(None, reasons), "GET", "/readyz?verbose", None);
        let ready = status == 200;
        assert_eq!(told.status, status);
        assert_eq!(
            body(&told),
            format!(
                "{{\"ready\":{ready},\"node\":\"pay-1-0a1b2c\",\"reasons\":{listed},\"bus\":{BUS}}}\n"
            )
        );
    }
}

#[test]
fn metrics_carry_the_readings_and_the_right_type() {
    let told = ask(&admin(None, &[]), "GET", "/metrics", None);
    assert_eq!(told.status, 200);
    assert!(body(&told).contains("\npayrelay_queue_depth 7\n"));
    let head = head(&told);
    assert!(head.starts_with("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(head.contains("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"));
}

#[test]
fn what_is_not_here_is_404_and_what_changes_is_405() {
    let admin = admin(None, &[]);
    assert_eq!(ask(&admin, "GET", "/", None).status, 200);
    for target in [
        "/nothing",
        "/livez/",
        "//",
        "",
        "*",
        "http://x/livez",
        "/notifications/x/content",
        "/outbox/",
    ] {
        assert_eq!(ask(&admin, "GET", target, None).status, 404, "{target}");
    }
    for method in ["POST", "DELETE", "OPTIONS", "get"] {
        for target in ["/", "/livez", "/metrics", "/notifications", "/trace"] {
            let told = ask(&admin, method, target, None);
            assert_eq!(told.status, 405, "{method} {target}");
            assert!(head(&told).ends_with("Allow: GET, HEAD\r\n"));
        }
    }
    for target in ["/login", "/logout", "/outbox/retry", "/outbox/drop"] {
        let told = ask(&admin, "GET", target, None);
        assert_eq!(told.status, 405, "{target}");
        assert!(head(&told).ends_with("Allow: POST\r\n"));
    }
}

#[test]
fn the_token_opens_all_but_the_probes_and_the_empty_page() {
    let admin = admin(Some(ADMIN), &[]);
    for target in ["/livez", "/readyz", "/", "/page/app.js"] {
        assert_eq!(ask(&admin, "GET", target, None).status, 200, "{target}");
    }
    for shown in [
        None,
        Some(""),
        Some("a-token-of-some-length"),
        Some("Basic a-token-of-some-length"),
        Some("Bearer "),
        Some("Bearer a-token-of-some-lengtH"),
        Some("Bearer a-token-of-some-length2"),
        Some("Bearer a-token-of-some-lengt"),
    ] {
        for target in [
            "/session",
            "/metrics",
            "/status",
            "/outbox",
            "/trace?key=x",
            "/notifications",
            "/nothing",
        ] {
            let told = ask(&admin, "GET", target, shown);
            assert_eq!(told.status, 401, "{target} {shown:?}");
            assert!(head(&told).contains("WWW-Authenticate: Bearer"));
        }
    }
    for shown in [
        "Bearer a-token-of-some-length",
        "bearer  a-token-of-some-length",
    ] {
        assert_eq!(ask(&admin, "GET", "/metrics", Some(shown)).status, 200);
    }
}

#[test]
fn one_who_may_look_changes_nothing_and_sees_no_content() {
    let admin = admin(Some(ADMIN), &[]);
    let looks = ("Authorization", "Bearer another-token-of-length");
    let json = ("Content-Type", "application/json");
    let content = format!("/notifications/{}/content", "0".repeat(26));
    for (target, status) in [
        ("/session", 200),
        ("/metrics", 200),
        ("/status", 200),
        ("/trace?key=x", 200),
        ("/notifications", 200),
        ("/backends", 200),
        ("/health", 200),
        (&content, 403),
        ("/outbox/00000000000000000000000000?body=1", 403),
        ("/outbox/export", 403),
    ] {
        assert_eq!(
            answer(&admin, "GET", target, &[looks], "").status,
            status,
            "{target}"
        );
    }
    for target in ["/outbox/retry", "/outbox/drop", "/backends/disconnect"] {
        let told = answer(&admin, "POST", target, &[looks, json], "{\"all\": true}");
        assert_eq!(told.status, 403, "{target}");
    }
    let session = answer(&admin, "GET", "/session", &[looks], "");
    let session: SessionInfo = serde_json::from_slice(&session.body).expect("JSON");
    assert_eq!(
        (&*session.name, session.act, session.bodies),
        ("support", false, false)
    );
    // A node that asks for somebody who may do less gets no more than that one.
    let admins = ("Authorization", "Bearer a-token-of-some-length");
    let less = ("X-Payrelay-Rights", "look");
    assert_eq!(
        answer(&admin, "GET", &content, &[admins, less], "").status,
        403
    );
    assert_eq!(answer(&admin, "GET", &content, &[admins], "").status, 200);
    assert_eq!(
        answer(&admin, "POST", "/outbox/drop", &[admins, json, less], "{}").status,
        403
    );
}

#[test]
fn what_another_site_can_send_changes_nothing() {
    // Where nobody is asked for a token, a form or a script of any site could otherwise do it.
    let open = admin(None, &[]);
    let json = ("Content-Type", "application/json");
    let action = ("X-Payrelay-Action", "1");
    let post = |headers: &[(&str, &str)]| {
        answer(&open, "POST", "/outbox/drop", headers, "{\"all\": true}").status
    };
    assert_eq!(post(&[json]), 403);
    assert_eq!(post(&[action]), 415);
    assert_eq!(post(&[json, action, ("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(post(&[json, action]), 404, "there is no outbox");
    assert_eq!(ask(&open, "OPTIONS", "/outbox/drop", None).status, 405);
}

#[test]
fn a_login_is_a_cookie_and_says_no_secret() {
    let admin = admin(Some(ADMIN), &[]);
    let marks = [
        ("Content-Type", "application/json"),
        ("X-Payrelay-Action", "1"),
    ];
    let wrong = answer(
        &admin,
        "POST",
        "/login",
        &marks,
        "{\"token\": \"wrong-token-0123\"}",
    );
    assert_eq!((wrong.status, wrong.extra.len()), (401, 1));
    let broken = answer(&admin, "POST", "/login", &marks, "{\"token\": 7}");
    assert_eq!(broken.status, 400);
    let token = format!("{{\"token\": \"{ADMIN}\"}}");
    assert_eq!(
        answer(&admin, "POST", "/login", &marks[..1], &token).status,
        403
    );
    let told = answer(&admin, "POST", "/login", &marks, &token);
    assert_eq!(told.status, 200);
    let cookie = told.extra[0]
        .strip_prefix("Set-Cookie: ")
        .and_then(|line| line.split(';').next());
    let cookie = ("Cookie", cookie.expect("a cookie"));
    for told in [&told, &answer(&admin, "GET", "/session", &[cookie], "")] {
        assert_eq!(told.status, 200);
        assert!(!body(told).contains(ADMIN) && !head(told).contains(ADMIN));
    }
    let post =
        |headers: &[(&str, &str)]| answer(&admin, "POST", "/outbox/retry", headers, "{}").status;
    assert_eq!(
        post(&[cookie, marks[0]]),
        403,
        "a cookie alone is what another site could use"
    );
    assert_eq!(post(&[cookie, marks[0], marks[1]]), 404);
    answer(&admin, "POST", "/logout", &[cookie, marks[0], marks[1]], "");
    assert_eq!(answer(&admin, "GET", "/session", &[cookie], "").status, 401);
}

#[test]
fn a_reload_changes_the_token() {
    let admin = admin(Some("the-old-token-0123"), &[]);
    admin.set(&config(Some("the-new-token-0123")));
    let old = Some("Bearer the-old-token-0123");
    assert_eq!(ask(&admin, "GET", "/metrics", old).status, 401);
    let new = Some("Bearer the-new-token-0123");
    assert_eq!(ask(&admin, "GET", "/metrics", new).status, 200);
    admin.set(&config(None));
    assert_eq!(ask(&admin, "GET", "/metrics", None).status, 200);
}

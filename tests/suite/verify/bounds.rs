//! Input that means harm: refused in bounded time and memory, whatever it is made of, and the others are served meanwhile.

use std::time::Instant;

use super::callback::Callback;
use super::fresh::{self, now};
use super::{is_refusal, post, refused, relay};
use crate::support::{DEADLINE, Relay, heavy};

const MIB: usize = 1 << 20;

/// Twelve MiB bodies, so that ten get in.
fn large(callbacks: &[Callback]) -> Relay {
    let toml = format!("[http]\nmax_body = \"12MiB\"\n{}", super::toml(callbacks));
    Relay::with(&toml)
}

/// Sends each forgery to the route it was made for; none takes long, and together they leave no memory behind.
fn all_refused_at_once(relay: &Relay, forgeries: &[(usize, Callback)]) {
    // The first few dozen pay for what the allocator keeps for each thread; after that nothing is added.
    for (n, forgery) in forgeries.iter().cycle().take(32) {
        refused(relay, *n, forgery);
    }
    let before = relay.process().rss_kib();
    for (n, forgery) in forgeries {
        let began = Instant::now();
        refused(relay, *n, forgery);
        assert!(
            began.elapsed() < DEADLINE,
            "{}: {:?}",
            forgery.name,
            began.elapsed()
        );
    }
    let after = relay.process().rss_kib();
    assert!(after < before + 64 * 1024, "{before} KiB, then {after} KiB");
}

#[test]
fn ten_megabytes_of_form_fields_are_refused() {
    let _alone = heavy();
    let genuine = fresh::alipay(&fresh::alipay_fields());
    let token = fresh::token("x");
    let relay = large(&[genuine.clone(), token]);
    let body = |change: &str, body: String| (0, genuine.called(change).body(body));
    all_refused_at_once(
        &relay,
        &[
            body("fields", "a=1&".repeat(10 * MIB / 4)),
            body(
                "distinct fields",
                (0..900_000).map(|n| format!("a{n}=1&")).collect(),
            ),
            body("names", "&".repeat(10 * MIB)),
            body("one value", format!("a={}", "x".repeat(10 * MIB))),
            body("one name", "x".repeat(10 * MIB)),
            body("escapes", format!("a={}", "%41".repeat(3 * MIB))),
            body(
                "separators in a value",
                format!("sign=AAAA&a={}", "%26b%3d".repeat(MIB)),
            ),
            body("a long sign", format!("a=1&sign={}", "A".repeat(10 * MIB))),
            body("fields after the genuine ones", {
                let genuine = String::from_utf8(genuine.body.clone()).expect("ASCII");
                genuine + &"&a=1".repeat(2 * MIB)
            }),
        ],
    );
}

#[test]
fn xml_bombs_are_refused() {
    let _alone = heavy();
    let genuine = fresh::wechatpay_v2(&fresh::wechatpay_v2_fields(), "MD5");
    let relay = large(std::slice::from_ref(&genuine));
    let body = |change: &str, body: String| (0, genuine.called(change).body(body));
    let laughs: String = (1..10)
        .map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10)))
        .collect();
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    all_refused_at_once(
        &relay,
        &[
            body(
                "a billion laughs",
                format!("<!DOCTYPE xml [<!ENTITY l0 \"ha\">{laughs}]><xml><a>&l9;</a></xml>"),
            ),
            body(
                "an outside entity",
                "<!DOCTYPE xml [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><xml><a>&e;</a></xml>"
                    .into(),
            ),
            body(
                "a bare document type",
                "<!DOCTYPE xml SYSTEM \"http://127.0.0.1/x.dtd\"><xml><a>1</a></xml>".into(),
            ),
            body("depth", nested(MIB)),
            body(
                "space and elements",
                format!(
                    "<xml>{}{}</xml>",
                    " ".repeat(5 * MIB),
                    "<a/>".repeat(MIB / 4)
                ),
            ),
            body("depth without an end", "<a>".repeat(3 * MIB)),
            body("depth in the root", format!("<xml>{}</xml>", nested(MIB))),
            body("elements", format!("<xml>{}</xml>", "<a>1</a>".repeat(MIB))),
            body(
                "empty elements",
                format!("<xml>{}</xml>", "<a/>".repeat(2 * MIB)),
            ),
            body(
                "references",
                format!("<xml><a>{}</a></xml>", "&amp;".repeat(MIB / 4)),
            ),
            body(
                "characters",
                format!("<xml><a>{}</a></xml>", "&#x41;".repeat(MIB / 4)),
            ),
            body(
                "a long value",
                format!("<xml><a>{}</a></xml>", "x".repeat(10 * MIB)),
            ),
            body(
                "a long name",
                format!("<xml><{}/></xml>", "x".repeat(10 * MIB)),
            ),
            body(
                "attributes",
                format!("<xml><a {}/></xml>", "b=\"1\" ".repeat(MIB / 4)),
            ),
            body(
                "comments",
                format!("<xml>{}</xml>", "<!---->".repeat(MIB / 4)),
            ),
            body(
                "a comment without an end",
                format!("<xml><!--{}", "-".repeat(10 * MIB)),
            ),
            body(
                "separators in a value",
                format!(
                    "<xml><a>{}</a><sign>x</sign></xml>",
                    "&amp;b=".repeat(MIB / 4)
                ),
            ),
        ],
    );
}

#[test]
fn json_bombs_are_refused() {
    let _alone = heavy();
    let at = now();
    let routes = [
        fresh::adyen_notice(&[fresh::adyen_item("PSP0001", "till-7", 1, "true")]),
        fresh::wechatpay_v3_notice(at, "{}"),
        fresh::stripe(at, "{}"),
    ];
    let relay = large(&routes);
    let nested =
        |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let bombs = [
        ("arrays", nested("[", "]", 5 * MIB)),
        ("arrays without an end", "[".repeat(10 * MIB)),
        ("objects", nested("{\"a\":", "}", MIB)),
        (
            "depth in an item",
            format!("{{\"notificationItems\":[{}]}}", nested("[", "]", 3 * MIB)),
        ),
        (
            "items",
            format!(
                "{{\"notificationItems\":[{}]}}",
                vec!["{\"NotificationRequestItem\":{}}"; 300_000].join(",")
            ),
        ),
        (
            "depth in a value",
            format!(
                "{{\"notificationItems\":[{{\"NotificationRequestItem\":{{\"success\":{}}}}}]}}",
                nested("[", "]", MIB)
            ),
        ),
        (
            "depth beside a value",
            format!(
                "{{\"x\":{},\"notificationItems\":[]}}",
                nested("[", "]", 3 * MIB)
            ),
        ),
        (
            "a long text",
            format!("{{\"notificationItems\":\"{}\"}}", "x".repeat(10 * MIB)),
        ),
        (
            "escapes",
            format!("{{\"notificationItems\":\"{}\"}}", "\\u0041".repeat(MIB)),
        ),
        (
            "a long number",
            format!("{{\"notificationItems\":{}}}", "1".repeat(10 * MIB)),
        ),
        ("keys", format!("{{{}\"a\":1}}", "\"a\":1,".repeat(MIB))),
    ];
    let mut forgeries = Vec::new();
    for (n, route) in routes.iter().enumerate() {
        for (name, bomb) in &bombs {
            forgeries.push((n, route.called(name).body(bomb.as_bytes())));
        }
    }
    all_refused_at_once(&relay, &forgeries);
}

#[test]
fn a_bomb_with_the_right_signature_finds_no_id_and_harms_nobody() {
    let _alone = heavy();
    // Who has the provider's secret may say what it likes, but not bring the relay down.
    let at = now();
    let depth = format!("{{\"x\":{}{}}}", "[".repeat(MIB), "]".repeat(MIB));
    let laughs = "<!DOCTYPE x [<!ENTITY a \"ha\">]><x><id>&a;</id></x>";
    let elements = format!("<x>{}</x>", "<id/>".repeat(MIB));
    for (id, body) in [
        ("json:/id", depth.as_str()),
        ("xml:id", laughs),
        ("xml:id", &elements),
        ("form:id", &depth),
    ] {
        let callback = fresh::stripe(at, body);
        let toml = format!(
            "[http]\nmax_body = \"12MiB\"\n[[route]]\npath = \"/0/pay\"\nverify = \"stripe\"\nid = \"{id}\"\n{}",
            callback.keys
        );
        let relay = Relay::with(&toml);
        let headers = [("Stripe-Signature", callback.headers[1].1.as_str())];
        let answer = relay
            .post_with("/0/pay", &headers, body.as_bytes())
            .answer();
        assert_eq!(answer.told(), (400, "no-id"), "{id}");
    }
    let sealed = fresh::wechatpay_v3_sealed(at, &depth);
    let relay = Relay::with(&format!(
        "[http]\nmax_body = \"12MiB\"\n[[route]]\npath = \"/0/pay\"\nverify = \"wechatpay-v3\"\nid = \"opened:/id\"\n{}",
        sealed.keys
    ));
    let headers: Vec<_> = sealed
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        relay
            .post_with("/0/pay", &headers, &sealed.body)
            .answer()
            .told(),
        (400, "no-id")
    );
}

#[test]
fn more_signatures_than_anybody_sends_are_refused() {
    let at = now();
    let genuine = [
        fresh::stripe(at, "{}"),
        fresh::paddle(at, "{}"),
        fresh::standard_webhooks(at, "{}"),
    ];
    let relay = relay(&genuine);
    let mut till = relay.backend("till-7");
    for (n, (header, separator, prefix)) in [
        ("Stripe-Signature", ",", "v1="),
        ("Paddle-Signature", ";", "h1="),
        ("webhook-signature", " ", "v1,"),
    ]
    .into_iter()
    .enumerate()
    {
        let value = genuine[n].clone().value(header).clone();
        let many = |count: usize| {
            let mut forgery = genuine[n].called(&format!("{count} more signatures"));
            let more = format!("{separator}{prefix}00").repeat(count);
            *forgery.value(header) = format!("{value}{more}");
            forgery
        };
        // A few more are a rotation of secrets; which of them is right does not matter.
        let answer = post(&relay, n, &many(15));
        till.message().ack();
        assert_eq!(answer.answer().outcome(), "delivered");
        for count in [16, 17, 1000] {
            refused(&relay, n, &many(count));
        }
        // A hundred thousand are no head at all.
        let answer = post(&relay, n, &many(100_000)).answer();
        assert_eq!(answer.told(), (431, "head-too-big"));
        let mut other = genuine[n].called("items of other kinds");
        *other.value(header) = format!("{}{value}", format!("x=1{separator}").repeat(70));
        refused(&relay, n, &other);
    }
    till.settle();
}

#[test]
fn a_flood_of_forgeries_is_a_few_lines_of_log_and_holds_up_nobody() {
    let genuine = fresh::stripe(now(), "{\"id\":\"evt_1\"}");
    let relay = relay(std::slice::from_ref(&genuine));
    let mut till = relay.backend("till-7");
    let forgery = genuine.called("another body").body("{}");
    let headers: Vec<_> = forgery
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let request = crate::support::post_request("/0/till-7", &headers, &forgery.body);
    let mut connection = relay.http();
    let began = Instant::now();
    for _ in 0..500 {
        is_refusal(&forgery, &connection.exchange(&request).expect("an answer"));
    }
    super::accepted(&relay, &mut till, 0, &genuine);
    let lines = relay
        .log()
        .lines()
        .filter(|line| line.contains("bad signature"))
        .count() as u64;
    assert!(lines <= 1 + began.elapsed().as_secs() / 10, "{lines} lines");
    let line = relay.log_contains("bad signature");
    assert!(
        line.contains("[WARN]") && line.contains("route-0") && line.contains("127.0.0.1"),
        "{line}"
    );
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total{route=\"route-0\",reason=\"mismatch\"}"),
        500.0
    );
}

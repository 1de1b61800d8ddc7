//! Health and figures: what a load balancer and Prometheus read.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Backend, Redis, Relay, eventually, post_request};

#[test]
fn a_relay_that_serves_is_live_and_ready() {
    let relay = Relay::start();
    assert_eq!(relay.admin("/livez").status, 200);
    let ready = relay.readyz();
    assert_eq!(ready.status, 200);
    assert_eq!(ready.header("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&ready.body).expect("JSON");
    assert_eq!(json["ready"], true);
    assert_eq!(json["node"], relay.ready().instance);
    assert_eq!(json["reasons"], serde_json::json!([]));
    assert_eq!(relay.admin("/nowhere").status, 404);
}

#[test]
fn what_happens_is_counted() {
    let relay = Relay::with(
        "[delivery]\nack_deadline = \"6s\"\n[tcp]\nqueue = 1\nbackends = [\"till-7\", \"absent\"]",
    );
    let mut till = relay.backend_with("till-7", "max=1");
    assert_eq!(relay.metric("payrelay_sessions"), 1.0);

    let answer = relay.post("/notify/till-7", b"x");
    let message = till.message();
    assert_eq!(relay.metric("payrelay_in_flight"), 1.0);
    message.ack();
    answer.answer();
    let answer = relay.post("/notify/till-7", b"x");
    till.message().nack("reason=no");
    answer.answer();
    relay.post("/notify/absent", b"x").answer();
    relay.post("/notify/till-9", b"x").answer();
    relay.post("/nowhere", b"x").answer();
    let answer = relay.post("/notify/till-7", b"x");
    let late = till.message().id();
    answer.answer();
    till.send(&format!("ACK id={late}"));
    till.settle();

    let notifications = |outcome: &str| {
        let labels = format!("route=\"/notify/{{id}}\",outcome=\"{outcome}\"");
        relay.metric(&format!("payrelay_notifications_total{{{labels}}}"))
    };
    let counts = ["delivered", "refused", "offline", "timeout", "busy"].map(notifications);
    assert_eq!(counts, [1.0, 1.0, 1.0, 1.0, 0.0]);
    for (result, count) in [("ack", 1.0), ("nack", 1.0), ("late", 1.0), ("expired", 0.0)] {
        let series = format!("payrelay_receipts_total{{result=\"{result}\"}}");
        assert_eq!(relay.metric(&series), count, "{series}");
    }
    for reason in ["no-route", "not-allowed"] {
        let series = format!("payrelay_http_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(relay.metric(&series), 1.0, "{series}");
    }
    assert_eq!(relay.metric("payrelay_ack_seconds_count"), 2.0);
    assert_eq!(relay.metric("payrelay_in_flight"), 0.0);
    assert_eq!(relay.metric("payrelay_build_info"), 1.0);
    assert!(relay.metric("process_resident_memory_bytes") > 1_000_000.0);
    assert!(relay.metric("process_open_fds") > 5.0);
    assert!(relay.metric("process_threads") > 5.0);
}

#[test]
fn metrics_are_the_text_that_prometheus_reads() {
    let relay = Relay::start();
    relay.post("/notify/absent", b"x").answer();
    let metrics = relay.admin("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|value| value.starts_with("text/plain; version=0.0.4"))
    );
    let mut typed = String::new();
    for line in metrics.text().lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed = rest.split(' ').next().unwrap_or_default().to_owned();
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            assert!(value == "+Inf" || value.parse::<f64>().is_ok(), "{line:?}");
            assert!(
                series.starts_with(&typed),
                "{line:?} stands under the type of {typed}"
            );
        }
    }
}

#[test]
fn with_a_token_figures_are_for_its_holder_only() {
    let relay = Relay::with("[admin]\ntoken = \"an-admin-token-0123456789\"");
    assert_eq!(relay.admin("/livez").status, 200);
    assert_eq!(relay.readyz().status, 200);
    assert_eq!(relay.admin("/metrics").status, 401);
    assert_eq!(relay.admin("/status").status, 401);
    assert_eq!(
        relay
            .admin_with(
                "/metrics",
                "Authorization: Bearer an-admin-token-012345678\r\n"
            )
            .status,
        401
    );
    assert_eq!(
        relay
            .admin_with(
                "/metrics",
                "Authorization: Bearer an-admin-token-0123456789\r\n"
            )
            .status,
        200
    );
}

#[test]
fn the_admin_listener_is_as_strict_as_the_other() {
    let relay = Relay::start();
    let told = |request: &[u8]| {
        let answer = crate::support::RawHttp::connect(relay.ready().admin).exchange(request);
        answer.map(|answer| answer.status)
    };
    assert_eq!(told(&post_request("/livez", &[], b"")), Ok(405));
    assert_eq!(told(b"GET /livez HTTP/2.0\r\nHost: relay\r\n\r\n"), Ok(505));
    assert_eq!(
        told(b"GET /livez HTTP/1.1\r\nHost: relay\r\nContent-Length: 1000000000000\r\n\r\n"),
        Ok(413)
    );
    assert_eq!(
        told(b"GET /livez HTTP/1.1\r\nHost: relay\r\nX: a\rb\r\n\r\n"),
        Ok(400)
    );
}

/// An admin answer comes within this, whatever Redis does.
const SOON: Duration = Duration::from_secs(10);

fn json_at(relay: &Relay, target: &str) -> Value {
    let began = Instant::now();
    let answer = relay.admin(target);
    assert!(
        began.elapsed() < SOON,
        "{target} took {:?}",
        began.elapsed()
    );
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// The nodes of a status, each with its backends.
fn present(status: &Value) -> Vec<(&str, Vec<&str>)> {
    let nodes = status["nodes"].as_array().expect("nodes");
    let with_backends = nodes.iter().map(|node| {
        let backends = node["backends"].as_array().expect("backends");
        let ids = backends.iter().filter_map(|backend| backend["id"].as_str());
        (node["node"].as_str().expect("a name"), ids.collect())
    });
    with_backends.collect()
}

#[test]
fn a_node_that_is_alone_says_who_is_connected() {
    let relay = Relay::start();
    let _backends = ["till-7", "a"].map(|id| relay.backend(id));
    let answer = relay.admin("/status");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status = json_at(&relay, "/status");
    let node = relay.ready().instance.as_str();
    assert_eq!(present(&status), [(node, vec!["a", "till-7"])]);
    assert_eq!(
        (&status["node"], &status["silent"]),
        (&json!(node), &json!([]))
    );
    assert_eq!(
        status["bus"],
        json!({"kind": "memory", "up": true, "reason": null, "canary_age_ms": null,
            "subscriptions_wanted": 0, "subscriptions_standing": 0,
            "primaries": [], "buckets": 0, "buckets_up": 0})
    );
    let since = status["nodes"][0]["backends"][0]["since_unix_ms"].as_u64();
    assert!(since.is_some_and(|ms| ms > 1_600_000_000_000));
}

#[test]
fn any_node_says_who_is_connected_on_all_of_them_and_how_the_bus_is() {
    let mut redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let _backends: Vec<Backend> = [(&a, "till-1"), (&b, "till-2"), (&b, "till-3")]
        .iter()
        .map(|(node, id)| node.backend(id))
        .collect();
    let wanted = [
        (&*a.ready().instance, vec!["till-1"]),
        (&*b.ready().instance, vec!["till-2", "till-3"]),
    ];
    for node in [&a, &b] {
        let mut status = Value::Null;
        // One that does not answer in time is silent, and not among them.
        eventually("all are known", || {
            status = json_at(node, "/status");
            present(&status) == wanted
        });
        assert_eq!(
            (&status["silent"], &status["trouble"]),
            (&json!([]), &Value::Null)
        );
    }
    let bus = &json_at(&b, "/readyz")["bus"];
    assert_eq!((&bus["kind"], &bus["up"]), (&json!("redis"), &json!(true)));
    assert_eq!(
        bus["subscriptions_wanted"], 4,
        "its own two, and its backends'"
    );
    assert_eq!(bus["subscriptions_standing"], 4);
    assert!(bus["canary_age_ms"].as_u64().is_some_and(|ms| ms < 3000));

    redis.kill();
    eventually("it has noticed", || a.readyz().status == 503);
    let status = json_at(&a, "/status");
    assert_eq!(present(&status), wanted[..1], "what it knows by itself");
    assert_eq!(status["bus"]["up"], false);
    for reason in [&status["trouble"], &status["bus"]["reason"]] {
        assert!(
            reason
                .as_str()
                .is_some_and(|text| text.starts_with("redis: "))
        );
    }
    let mut ready = Value::Null;
    eventually("no subscription stands", || {
        ready = json_at(&a, "/readyz");
        ready["bus"]["subscriptions_standing"] == 0
    });
    assert_eq!(ready["bus"]["subscriptions_wanted"], 3);

    redis.restart();
    eventually("all is as it was", || {
        a.readyz().status == 200 && b.readyz().status == 200
    });
    eventually("all are known again", || {
        present(&json_at(&b, "/status")) == wanted
    });
}

#[test]
fn a_redis_that_stands_still_keeps_no_admin_waiting() {
    let redis = Redis::start();
    let node = redis.node("a", "");
    let _backend = node.backend("till-1");
    redis.pause();
    let status = json_at(&node, "/status");
    assert_eq!(
        present(&status),
        [(&*node.ready().instance, vec!["till-1"])]
    );
    assert!(status["trouble"].is_string());
    eventually("it says so", || json_at(&node, "/readyz")["ready"] == false);
    json_at(&node, "/status");
    redis.resume();
    eventually("it is well again", || {
        json_at(&node, "/readyz")["ready"] == true
    });
}

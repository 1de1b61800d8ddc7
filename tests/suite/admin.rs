//! Health and figures: what a load balancer and Prometheus read.

use crate::support::{Relay, post_request};

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
        "[delivery]\nack_deadline = \"2s\"\n[tcp]\nqueue = 1\nbackends = [\"till-7\", \"absent\"]",
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

//! What is counted shows on the page, in a format that scrapers take.

use super::*;
use crate::heartbeat::ThreadReading;
use crate::notification::Nack;

fn value(metrics: &Metrics, series: &str) -> Option<String> {
    let text = metrics.text(&Readings::default());
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(str::to_owned)
}

#[test]
fn every_outcome_has_its_own_counter() {
    let metrics = Metrics::new();
    let route = metrics.route("alipay");
    for (times, outcome) in (1..).zip(Outcome::ALL) {
        for _ in 0..times {
            route.answered(outcome);
        }
    }
    for (times, outcome) in (1..).zip(Outcome::ALL) {
        let series = format!(
            "payrelay_notifications_total{{route=\"alipay\",outcome=\"{}\"}}",
            outcome.as_str()
        );
        assert_eq!(
            value(&metrics, &series),
            Some(format!("{times}")),
            "{series}"
        );
    }
}

#[test]
fn a_route_asked_for_twice_counts_on() {
    let metrics = Metrics::new();
    metrics.route("r").answered(Outcome::Delivered);
    metrics.route("r").answered(Outcome::Delivered);
    let series = r#"payrelay_notifications_total{route="r",outcome="delivered"}"#;
    assert_eq!(value(&metrics, series).as_deref(), Some("2"));
}

#[test]
fn a_route_name_cannot_break_out_of_its_label() {
    let metrics = Metrics::new();
    metrics.route("a\"b\\c\nd").answered(Outcome::Busy);
    let series = r#"payrelay_notifications_total{route="a\"b\\c\nd",outcome="busy"}"#;
    assert_eq!(value(&metrics, series).as_deref(), Some("1"));
}

#[test]
fn every_receipt_has_its_own_counter() {
    let metrics = Metrics::new();
    let receipts = [
        ("ack", Receipt::Ack),
        ("nack", Receipt::Nack(Nack::default())),
        ("gone", Receipt::Gone),
        ("busy", Receipt::Busy),
        ("expired", Receipt::Expired),
    ];
    for (times, (_, receipt)) in (1..).zip(&receipts) {
        for _ in 0..times {
            metrics.receipt(receipt);
        }
    }
    metrics.late_ack();
    for (times, (word, _)) in (1..).zip(&receipts) {
        let series = format!("payrelay_receipts_total{{result=\"{word}\"}}");
        assert_eq!(
            value(&metrics, &series),
            Some(format!("{times}")),
            "{series}"
        );
    }
    let late = r#"payrelay_receipts_total{result="late"}"#;
    assert_eq!(value(&metrics, late).as_deref(), Some("1"));
}

#[test]
fn sessions_and_waits_go_up_and_down() {
    let metrics = Metrics::new();
    metrics.session_opened();
    metrics.session_opened();
    metrics.session_closed("idle");
    metrics.session_refused("bad-token");
    metrics.in_flight_add();
    metrics.in_flight_add();
    metrics.in_flight_sub();
    metrics.http_refused("no-route");
    for (series, expected) in [
        ("payrelay_sessions", "1"),
        ("payrelay_sessions_opened_total", "2"),
        (r#"payrelay_sessions_closed_total{reason="idle"}"#, "1"),
        (r#"payrelay_sessions_closed_total{reason="takeover"}"#, "0"),
        (r#"payrelay_session_refusals_total{code="bad-token"}"#, "1"),
        ("payrelay_in_flight", "1"),
        (r#"payrelay_http_refusals_total{reason="no-route"}"#, "1"),
    ] {
        assert_eq!(
            value(&metrics, series).as_deref(),
            Some(expected),
            "{series}"
        );
    }
}

#[test]
fn acks_fall_into_their_buckets() {
    let metrics = Metrics::new();
    metrics.ack_after(Duration::from_micros(400));
    metrics.ack_after(Duration::from_millis(30));
    metrics.ack_after(Duration::from_secs(60));
    for (series, expected) in [
        (r#"payrelay_ack_seconds_bucket{le="0.0005"}"#, "1"),
        (r#"payrelay_ack_seconds_bucket{le="0.025"}"#, "1"),
        (r#"payrelay_ack_seconds_bucket{le="0.05"}"#, "2"),
        (r#"payrelay_ack_seconds_bucket{le="10.0"}"#, "2"),
        (r#"payrelay_ack_seconds_bucket{le="+Inf"}"#, "3"),
        ("payrelay_ack_seconds_count", "3"),
    ] {
        assert_eq!(
            value(&metrics, series).as_deref(),
            Some(expected),
            "{series}"
        );
    }
}

#[test]
fn readings_show_as_they_are_at_the_scrape() {
    let metrics = Metrics::new();
    let text = metrics.text(&Readings {
        queue_depth: 1,
        http_connections: 2,
        http_in_flight: 3,
        fd_budget_free: 5,
        fd_budget: 6,
        log_lines_lost: 7,
        ready: true,
        certificates: vec![("http.tls", 1_800_000_000)],
        threads: vec![ThreadReading {
            name: "deadlines".into(),
            is_well: true,
            restarts: 8,
        }],
        outbox: Some(OutboxReadings {
            pending: 9,
            done: 1,
            dead: 2,
            oldest: Duration::from_millis(7900),
            backends: vec![("till-7".into(), 5, 2), ("till-8".into(), 1, 0)],
            disk_free_bytes: 7,
            log_bytes: 8,
            unknown_backends: 4,
            shared: Some(SharedReadings {
                mirrored: 10,
                behind: 11,
                inherited: 12,
                trouble: None,
            }),
        }),
        bus: BusReadings::default(),
    });
    for line in [
        "payrelay_queue_depth 1",
        "payrelay_http_connections 2",
        "payrelay_http_in_flight 3",
        "payrelay_fd_budget_free 5",
        "payrelay_fd_budget 6",
        "payrelay_log_lines_lost_total 7",
        "payrelay_ready 1",
        "payrelay_certificate_not_after_seconds{listener=\"http.tls\"} 1800000000",
        "payrelay_thread_up{thread=\"deadlines\"} 1",
        "payrelay_thread_restarts_total{thread=\"deadlines\"} 8",
        "payrelay_outbox_messages{backend=\"till-7\",state=\"pending\"} 5",
        "payrelay_outbox_messages{backend=\"till-7\",state=\"dead\"} 2",
        "payrelay_outbox_messages{backend=\"(other)\",state=\"pending\"} 3",
        "payrelay_outbox_messages{backend=\"(other)\",state=\"dead\"} 0",
        "payrelay_outbox_done 1",
        "payrelay_outbox_disk_free_bytes 7",
        "payrelay_outbox_log_bytes 8",
        "payrelay_outbox_unknown_backend 4",
        "payrelay_outbox_mirrored 10",
        "payrelay_outbox_behind 11",
        "payrelay_outbox_inherited 12",
        "payrelay_outbox_oldest_seconds 7",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    // Who has nothing left drops out.
    let text = metrics.text(&Readings {
        outbox: Some(OutboxReadings::default()),
        ..Readings::default()
    });
    assert!(!text.contains("till-7"), "{text}");
}

/// The rules of the text format 0.0.4 that a scraper rejects a page for.
#[test]
fn the_page_is_the_classic_format() {
    let metrics = Metrics::new();
    metrics.route("r").answered(Outcome::Delivered);
    let text = metrics.text(&Readings::default());
    assert!(text.ends_with('\n'));
    let mut typed: Option<(String, String)> = None;
    let mut families = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_default();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "twice: {line}");
            typed = Some((name.to_owned(), kind.to_owned()));
        } else if line.starts_with('#') {
            assert!(line.starts_with("# HELP "), "{line}");
        } else {
            let (family, kind) = typed.as_ref().expect("a TYPE before the first sample");
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let suffixes: &[&str] = if kind == "histogram" {
                &["_sum", "_count", "_bucket"]
            } else {
                &[""]
            };
            assert!(
                suffixes.iter().any(|s| format!("{family}{s}") == name),
                "{line} is not of {family}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let number = line.rsplit(' ').next().unwrap_or_default();
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
}

//! What operators point at the relay's metrics: Prometheus itself, the alert rules, the dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::support::{Backend, Process, Relay, Setup, eventually, run};

fn packaging(name: &str) -> String {
    format!("{}/packaging/prometheus/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_alert_rules_fire_when_they_must_and_only_then() {
    for args in [
        ["check", "rules", "payrelay.rules.yml"],
        ["test", "rules", "payrelay.rules.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(&args[..2])
            .arg(packaging(args[2]))
            .output()
            .expect("promtool");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The names of payrelay's metrics in `text`.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c));
    words
        .filter(|word| word.starts_with("payrelay_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

/// A relay of which every metric is there: with certificates, and an outbox.
fn relay() -> Relay {
    Setup::with("[http]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n[delivery]\nundelivered = \"store\"\n\
                 [[route]]\npath = \"/github/{id}\"\nverify = \"github\"\nsecrets = [\"a-secret-of-enough-length\"]")
        .certified()
        .start()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let relay = relay();
    let forged = relay.post("/github/till-7", b"forged").answer();
    assert_eq!(forged.outcome(), "bad-signature");
    let mut stranger = Backend::raw(&relay);
    stranger.send("HELLO 9 id=till-7");
    stranger.next();
    let there = names(&relay.admin("/metrics").text());
    for file in ["payrelay.rules.yml", "grafana.json"] {
        let text = fs::read_to_string(packaging(file)).expect(file);
        let asked = names(&text);
        assert!(asked.len() > 8, "{file}: {asked:?}");
        let missing: Vec<_> = asked.difference(&there).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
    let dashboard = fs::read_to_string(packaging("grafana.json")).expect("the dashboard");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("JSON");
}

#[test]
fn a_real_prometheus_scrapes_the_relay_and_evaluates_the_rules() {
    let relay = relay();
    let admin = relay.ready().admin;
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
         scrape_configs: [{{job_name: payrelay, static_configs: [{{targets: ['{admin}']}}]}}]\n",
        packaging("payrelay.rules.yml")
    );
    fs::write(relay.path("prometheus.yml"), config).expect("prometheus.yml");
    let mut command = Command::new("prometheus");
    command
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=tsdb")
        .arg("--web.listen-address=127.0.0.1:0")
        .current_dir(relay.path("."));
    let prometheus = Process::start("prometheus", command);
    // `… msg="Listening on" address=127.0.0.1:41873`
    let line = prometheus.wait_log("Listening on");
    let at = line.rsplit("address=").next().unwrap_or_default();
    let at = at.split_whitespace().next().unwrap_or_default();
    let api: SocketAddr = at.trim_matches('"').parse().expect("an address");
    let ask = |target: &str| {
        // Of HTTP 1.0: the answer ends with the connection.
        let request = format!("GET {target} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
        let mut answer = String::new();
        let read = TcpStream::connect(api).and_then(|mut stream| {
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer)
        });
        let body = read.ok().and_then(|_| answer.split_once("\r\n\r\n"));
        body.map_or_else(String::new, |(_, body)| body.to_owned())
    };
    eventually("the relay is scraped", || {
        let answer = ask("/api/v1/query?query=payrelay_ready");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        answer["data"]["result"][0]["value"][1] == "1"
    });
    eventually("every rule is evaluated", || {
        let answer = ask("/api/v1/rules");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        let rules = answer["data"]["groups"][0]["rules"].as_array().cloned();
        rules
            .is_some_and(|rules| rules.len() > 8 && rules.iter().all(|rule| rule["health"] == "ok"))
    });
}

#[test]
fn a_certificate_that_ends_soon_is_a_metric_and_a_warning() {
    let relay = relay();
    let end = relay.metric("payrelay_certificate_not_after_seconds{listener=\"http.tls\"}");
    let shown = Command::new("openssl")
        .args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"])
        .arg(relay.path("cert.pem"))
        .output()
        .expect("openssl");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let date = shown.trim().trim_start_matches("notAfter=").to_owned();
    let seconds = Command::new("date")
        .args(["-d", &date, "+%s"])
        .output()
        .expect("date");
    let seconds = String::from_utf8_lossy(&seconds.stdout)
        .trim()
        .parse::<f64>();
    assert_eq!(Ok(end), seconds, "{shown}");

    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=relay",
            "-days",
            "5",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(relay.path("."))
        .output()
        .expect("openssl");
    assert!(made.status.success());
    let config = relay.path("relay.toml");
    let text = fs::read_to_string(&config).expect("relay.toml");
    let inside = |name: &str| relay.path(name).display().to_string();
    let text = text
        .replace("\"cert.pem\"", &format!("\"{}\"", inside("cert.pem")))
        .replace("\"key.pem\"", &format!("\"{}\"", inside("key.pem")));
    fs::write(&config, text).expect("relay.toml");
    let (code, said, _) = run(&["check", "-c", config.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0));
    assert!(
        said.contains("http.tls: the certificate ends in "),
        "{said}"
    );
}

//! SIGHUP: what a running relay takes over, what it leaves, and what it refuses.

use super::super::{Config, ReloadRefused};
use super::{LEAST, good};

fn reload(running: &str, new: &str) -> Result<(Config, Vec<String>), ReloadRefused> {
    let reloaded = good(running).reload(&good(new))?;
    Ok((reloaded.config, reloaded.needs_restart))
}

#[test]
fn what_can_change_is_taken_over() {
    let new = "[http]\nallow = [\"::1\"]\ntrusted_proxies = [\"::2\"]\nproxy_protocol = true\nfailures_per_minute = 5\n\
        [tcp]\nfailures_per_minute = 6\nsecrets = [\"0123456789abcdef\"]\nbackends = [\"a\"]\n[admin]\ntoken = \"0123456789abcdef\"\n\
        [log]\nlevel = \"debug\"\n[[route]]\npath = \"/other/{id}\"\nfail.status = 200\n";
    let (config, needs_restart) = reload(LEAST, new).unwrap();
    assert_eq!(needs_restart, Vec::<String>::new());
    assert_eq!(config, good(new));
}

#[test]
fn other_certificates_are_taken_over_but_not_whether_there_are_any() {
    let with = |file: &str| {
        format!(
            "http.tls = {{ cert = \"{file}\", key = \"k\" }}\n\
             tcp.tls = {{ listen = \"127.0.0.1:1\", cert = \"{file}\", key = \"k\" }}\n{LEAST}"
        )
    };
    let (config, needs_restart) = reload(&with("a"), &with("b")).unwrap();
    assert_eq!(needs_restart, Vec::<String>::new());
    assert_eq!(config, good(&with("b")));
    for (running, new) in [(with("a"), LEAST.to_owned()), (LEAST.to_owned(), with("a"))] {
        let (config, needs_restart) = reload(&running, &new).unwrap();
        let keys = [
            "needs a restart: http.tls",
            "needs a restart: tcp.tls.listen",
        ];
        assert_eq!(needs_restart, keys);
        assert_eq!(config, good(&running));
    }
}

#[test]
fn what_needs_a_restart_is_named_and_left() {
    for change in [
        "node = \"other\"",
        "http.listen = \"127.0.0.1:1\"",
        "http.workers = 5",
        "http.max_body = \"5B\"",
        "http.max_connections = 5",
        "http.max_in_flight = 5",
        "http.request_deadline = \"5s\"",
        "tcp.listen = \"127.0.0.1:1\"",
        "tcp.max_connections = 5",
        "tcp.hello_deadline = \"6s\"",
        "tcp.heartbeat = \"6s\"",
        "tcp.ack_timeout = \"6s\"",
        "tcp.write_deadline = \"6s\"",
        "tcp.queue = 5",
        "delivery.ack_deadline = \"1s\"",
        "admin.listen = \"127.0.0.1:1\"",
    ] {
        let key = change.split(' ').next().unwrap();
        let new = format!("{change}\nlog.level = \"warn\"\n{LEAST}");
        let (config, needs_restart) = reload(LEAST, &new).unwrap();
        assert_eq!(needs_restart, [format!("needs a restart: {key}")]);
        assert_eq!(config, good(&format!("log.level = \"warn\"\n{LEAST}")));
    }
}

#[test]
fn an_open_listener_is_never_left_without_its_guard() {
    let secrets = "tcp.secrets = [\"0123456789abcdef\"]\n";
    let token = "admin.token = \"0123456789abcdef\"\n";
    let tcp = "tcp.listen = \"0.0.0.0:1\"\n";
    let sealed = "tcp.tls = { listen = \"0.0.0.0:1\", cert = \"c\", key = \"k\" }\n";
    let admin = "admin.listen = \"0.0.0.0:2\"\n";
    let http = "http.listen = \"0.0.0.0:3\"\n";
    let leave = "allow_unverified = true\n";
    for (running, new, wanted) in [
        (
            format!("{tcp}{secrets}{LEAST}"),
            LEAST.to_owned(),
            Err(ReloadRefused::TcpWouldBeOpen),
        ),
        (
            format!("{tcp}{secrets}{LEAST}"),
            format!("{secrets}{LEAST}"),
            Ok(1),
        ),
        (
            format!("{sealed}{secrets}{LEAST}"),
            LEAST.to_owned(),
            Err(ReloadRefused::TcpWouldBeOpen),
        ),
        (format!("{secrets}{LEAST}"), LEAST.to_owned(), Ok(0)),
        (
            format!("{admin}{token}{LEAST}"),
            LEAST.to_owned(),
            Err(ReloadRefused::AdminWouldBeOpen),
        ),
        (
            format!("{admin}{token}{LEAST}"),
            format!("{token}{LEAST}"),
            Ok(1),
        ),
        (
            format!("{http}{LEAST}{leave}"),
            LEAST.to_owned(),
            Err(ReloadRefused::HttpWouldBeOpen),
        ),
        (LEAST.to_owned(), format!("{http}{LEAST}{leave}"), Ok(1)),
    ] {
        let restarts = reload(&running, &new).map(|(_, needs_restart)| needs_restart.len());
        assert_eq!(restarts, wanted, "{running}\n->\n{new}");
    }
}

#[test]
fn a_refused_reload_says_why() {
    for (refused, words) in [
        (
            ReloadRefused::TcpWouldBeOpen,
            "the new file has no tcp.secrets, and the TCP listener that is open is not on loopback; \
             nothing was changed, restart to move it",
        ),
        (
            ReloadRefused::HttpWouldBeOpen,
            "the new file moves http.listen to loopback, and its routes were only checked for there; \
             nothing was changed, restart to move it",
        ),
        (
            ReloadRefused::AdminWouldBeOpen,
            "the new file has no admin.token, and the admin listener that is open is not on loopback; \
             nothing was changed, restart to move it",
        ),
    ] {
        assert_eq!(refused.to_string(), words);
    }
}

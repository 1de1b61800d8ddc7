//! relay.toml as shipped: it runs, it says the defaults, and it leaves out no key.

use std::time::Duration;

use super::super::declare::Declared;
use super::super::{
    AdminConfig, Config, DeliveryConfig, HttpConfig, LogConfig, OutboxConfig, RedisConfig,
    RedisServers, Secret, TcpConfig,
};
use super::{LEAST, SHIPPED, good};

#[test]
fn the_shipped_file_says_the_defaults() {
    let shipped = good(SHIPPED);
    assert_eq!(shipped, good(LEAST));
    assert_eq!(shipped.warnings, Vec::<String>::new());
}

#[test]
fn the_shipped_file_has_every_key() {
    // A stranger in every table makes every table name the keys it knows.
    let strangers = "stranger = 1\n[http]\ntls = { cert = \"c\", key = \"k\", stranger = 1 }\nstranger = 1\n\
        [tcp]\nstranger = 1\n\
        [tcp.tls]\nlisten = \"127.0.0.1:1\"\ncert = \"c\"\nkey = \"k\"\nstranger = 1\n[delivery]\nstranger = 1\n\
        [outbox]\nstranger = 1\n[redis]\nurl = \"redis://db\"\nstranger = 1\n[admin]\nstranger = 1\n\
        read_tokens = [{ name = \"a\", token = \"0123456789abcdef\", stranger = 1 }]\ntoken = \"fedcba9876543210\"\n[log]\nstranger = 1\n[[route]]\npath = \"/{id}\"\n\
        stranger = 1\nok = { stranger = 1 }\nfail = { stranger = 1 }\nproof = { stranger = 1 }\nverify = \"hmac\"\nsecrets = [\"x\"]\n\
        hmac = { header = \"X\", stranger = 1 }\n\
        [[route]]\npath = \"/2/{id}\"\nverify = \"signed\"\nsecrets = [\"x\"]\n\
        signed = { text = \"{body}\", algorithm = \"hmac-sha256\", signature = \"header:x\", stranger = 1 }\n";
    let errors = Config::parse(strangers, "relay.toml").unwrap_err();
    let tables = [
        "",
        "tls",
        "http",
        "tcp",
        "tcp.tls",
        "delivery",
        "outbox",
        "redis",
        "admin",
        "read_tokens",
        "log",
        "route",
        "ok",
        "fail",
        "proof",
        "hmac",
        "signed",
    ];
    assert_eq!(errors.iter().count(), tables.len(), "{errors}");
    for (error, table) in errors.iter().zip(tables) {
        let known = error.problem.split_once("known here: ");
        let (_, known) = known.unwrap_or_else(|| panic!("{error}"));
        for key in known.split(", ") {
            assert!(has(table, key), "relay.toml says nothing of {table}.{key}");
        }
    }
}

/// Keys whose default depends on the machine, or on other keys; relay.toml says how in words.
const DEFAULT_IN_WORDS: [(&str, &str); 1] = [("http", "workers")];

/// The declared keys of a section, each with the section's name and the key's default.
fn declared<T: Declared>() -> Vec<(&'static str, &'static str, &'static str)> {
    let keys = T::KEYS.iter();
    keys.map(|(key, default)| (T::SECTION, *key, *default))
        .collect()
}

#[test]
fn every_declared_key_is_shown_with_its_default() {
    let keys = [
        declared::<HttpConfig>(),
        declared::<TcpConfig>(),
        declared::<DeliveryConfig>(),
        declared::<OutboxConfig>(),
        declared::<RedisConfig>(),
        declared::<AdminConfig>(),
        declared::<LogConfig>(),
    ];
    for (section, key, default) in keys.concat() {
        assert!(
            has(section, key),
            "relay.toml says nothing of {section}.{key}"
        );
        // What is not commented out is compared as a whole: the shipped file says the defaults.
        let shown = shown_commented_out(section, key);
        if default == "None" || DEFAULT_IN_WORDS.contains(&(section, key)) {
            continue;
        }
        let with = |line: &str| match section {
            "redis" => good(&format!("{LEAST}[redis]\nurl = \"redis://db\"\n{line}\n")),
            _ => good(&format!("{LEAST}[{section}]\n{line}\n")),
        };
        for line in shown {
            assert_eq!(
                with(line),
                with(""),
                "relay.toml shows another default: {line}"
            );
        }
    }
}

/// The lines that give `key` a value in `section`, commented out; none if there is one that is not: they are examples.
fn shown_commented_out(section: &str, key: &str) -> Vec<&'static str> {
    let mut current = "";
    let mut found = Vec::new();
    let start = format!("{key} = ");
    for line in SHIPPED.lines() {
        let shown = line.trim_start_matches("# ");
        if shown.starts_with('[') && shown.ends_with(']') {
            current = shown.trim_matches(['[', ']']);
        }
        if current == section && line.starts_with(&start) {
            return Vec::new();
        }
        if current == section && shown.starts_with(&start) {
            found.push(shown);
        }
    }
    found
}

/// Whether relay.toml has `key` in `table`, commented out or not.
fn has(table: &str, key: &str) -> bool {
    let mut current = "";
    SHIPPED.lines().any(|line| {
        let line = line.trim_start_matches("# ");
        if line.starts_with('[') && line.ends_with(']') {
            current = line.trim_matches(['[', ']']);
        }
        match table {
            "" => current == key || (current.is_empty() && line.starts_with(&format!("{key} = "))),
            "tcp" if key == "tls" => current == "tcp.tls",
            "read_tokens" => {
                line.starts_with("read_tokens = [{") && line.contains(&format!("{key} = "))
            }
            "ok" | "fail" | "proof" | "hmac" | "signed" | "tls" => {
                line.starts_with(&format!("{table} = {{")) && line.contains(&format!("{key} = "))
            }
            table => current == table && line.starts_with(&format!("{key} = ")),
        }
    })
}

#[test]
fn what_is_commented_out_is_right_too() {
    let text = SHIPPED
        .replace("# node = ", "node = ")
        .replace("# token = \"…\"", "token = \"0123456789abcdef\"")
        .replace("# file = ", "file = ")
        .replace("# tls = {", "tls = {")
        .replace("# [tcp.tls]", "[tcp.tls]")
        .replace(
            "# listen = \"127.0.0.1:7443\"",
            "listen = \"127.0.0.1:7443\"",
        )
        .replace("# cert = ", "cert = ")
        .replace("# key = ", "key = ")
        .replace("# name = ", "name = ")
        .replace("# event = ", "event = ")
        .replace("# [redis]", "[redis]")
        .replace("# url = \"redis", "url = \"redis")
        .replace("# prefix = ", "prefix = ")
        .replace("# connect_timeout = ", "connect_timeout = ")
        .replace("# response_timeout = ", "response_timeout = ")
        .replace("# settle_time = ", "settle_time = ")
        .replace("# ca = ", "ca = ");
    let text = text
        .replace("\nread_tokens = []", "")
        .replace("# read_tokens = ", "read_tokens = ");
    let text = text.replace("env:PAYRELAY_SUPPORT_TOKEN", "fedcba9876543210");
    let config = good(&text);
    assert_eq!(config.node, "pay-1");
    let reader = &config.admin.read_tokens[0];
    assert_eq!((&*reader.name, reader.bodies), ("support", false));
    let sealed = config.tcp.tls.as_ref().map(|tls| &tls.files);
    assert_eq!(config.http.tls.as_ref(), sealed);
    assert_eq!(&*config.routes[0].name, "notify");
    assert!(
        config.admin.token.is_some()
            && config.log.file.is_some()
            && config.routes[0].event.is_some()
    );
    let redis = config.redis.expect("a section");
    let url = Secret::new("redis://127.0.0.1:6379");
    assert_eq!(redis.servers, RedisServers::One(url));
    assert!(redis.prefix == "payrelay" && redis.ca.is_some());
    assert_eq!(redis.connect_timeout, Duration::from_secs(2));
    assert_eq!(redis.response_timeout, Duration::from_secs(1));
    assert_eq!(redis.settle_time, Duration::from_secs(5));
}

/// `[redis]` of the shipped file with these of its keys.
fn redis_with(keys: &[&str]) -> RedisServers {
    let (_, section) = SHIPPED.split_once("# [redis]").expect("a section");
    let lines = section.lines().filter_map(|line| line.strip_prefix("# "));
    let wanted = |line: &&str| {
        keys.iter()
            .any(|key| line.starts_with(&format!("{key} = ")))
    };
    let section: Vec<&str> = lines.filter(wanted).collect();
    assert_eq!(section.len(), keys.len(), "{section:?}");
    let text = section.join("\n").replace("env:", "");
    good(&format!("{LEAST}\n[redis]\n{text}\n"))
        .redis
        .expect("a section")
        .servers
}

#[test]
fn the_other_two_kinds_of_redis_are_right_too() {
    let shared = ["user", "password", "tls"];
    let cluster = redis_with(&[&shared[..], &["cluster"]].concat());
    let RedisServers::Cluster { nodes, login } = cluster else {
        panic!("{cluster:?}");
    };
    assert_eq!((nodes.len(), login.user.as_deref()), (3, Some("relay")));
    let own = [
        "sentinels",
        "master",
        "database",
        "sentinel_user",
        "sentinel_password",
        "sentinel_tls",
    ];
    let sentinel = redis_with(&[&shared[..], &own].concat());
    let RedisServers::Sentinel {
        sentinels,
        master,
        login,
        sentinel_login,
    } = sentinel
    else {
        panic!("{sentinel:?}");
    };
    assert_eq!((sentinels.len(), &*master), (3, "mymaster"));
    assert!(login.password.is_some() && sentinel_login.password.is_some());
    assert!(!login.tls && !sentinel_login.tls);
}

#[test]
fn a_redis_is_of_one_kind() {
    let wrong = |section: &str| {
        let text = format!("{LEAST}\n[redis]\n{section}\n");
        Config::parse(&text, "relay.toml").unwrap_err().to_string()
    };
    for (section, words) in [
        ("", "needs to know where Redis is"),
        (
            "url = \"redis://db\"\ncluster = [\"a:1\"]",
            "exactly one of",
        ),
        ("sentinels = [\"a:1\"]", "master"),
        ("sentinels = []\nmaster = \"m\"", "at least one address"),
        ("cluster = [\"a\"]", "host:port"),
        ("cluster = [\"a:1\"]\ndatabase = 1", "only database 0"),
        ("cluster = [\"a:1\"]\nprefix = \"p{x}\"", "hash tag"),
        ("cluster = [\"a:1\"]\nmaster = \"m\"", "needs sentinels"),
        (
            "url = \"redis://db\"\npassword = \"secret\"",
            "belongs into the URL",
        ),
    ] {
        let said = wrong(section);
        assert!(said.contains(words), "{section}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn what_a_check_of_signatures_takes_is_right_too() {
    let line = |start: &str| -> Vec<&str> {
        let lines = SHIPPED.lines().filter_map(|line| line.strip_prefix("# "));
        lines.filter(|line| line.starts_with(start)).collect()
    };
    let route = |verify: &str, keys: &[&str]| {
        let keys = keys.join("\n");
        good(&format!(
            "[[route]]\npath = \"/{{id}}\"\nverify = \"{verify}\"\n{keys}\n"
        ))
    };
    let secrets = "secrets = [\"x\"]";
    let [tolerance] = line("tolerance = ")[..] else {
        panic!("not one line of tolerance");
    };
    let [url] = line("url = \"https")[..] else {
        panic!("not one line of url");
    };
    let [token] = line("token = \"header")[..] else {
        panic!("not one line of token");
    };
    assert_eq!(
        route("stripe", &[secrets, tolerance]),
        route("stripe", &[secrets])
    );
    route("square", &[secrets, url]);
    route("token", &[secrets, token]);
    assert_eq!(line("hmac = ").len(), 3);
    for hmac in line("hmac = ") {
        route("hmac", &[secrets, hmac]);
    }
    assert_eq!(
        line("secrets = [\"env:").len()
            + line("keys = [\"file:").len()
            + line("api_v3_key = \"env:").len(),
        3
    );
}

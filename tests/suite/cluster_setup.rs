//! The three setups as README.md and doc/cluster.md describe them: they work, the rights that are listed are enough, and
//! `payrelay check` sees what is wrong.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use crate::readme::{blocks, page};
use crate::support::{Redis, RedisCluster, Relay, SentinelGroup, Setup, eventually, run};

const PASSWORD: &str = "a-password-nobody-may-read";

/// The lines of doc/cluster.md that begin with ACL: for one Redis, for the sentinels, for a cluster.
fn documented_rights() -> Vec<String> {
    let doc = concat!(env!("CARGO_MANIFEST_DIR"), "/doc/cluster.md");
    let doc = fs::read_to_string(doc).expect("doc/cluster.md");
    let lines = doc.lines().filter(|line| line.starts_with("ACL SETUSER"));
    lines
        .map(|line| line.replace("PASSWORD", PASSWORD))
        .collect()
}

/// What `payrelay check` prints of this `[redis]`.
fn check(redis: &str) -> String {
    let dir = TempDir::with_prefix("payrelay-").expect("a folder");
    let file = dir.path().join("relay.toml");
    let route = "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";
    fs::write(&file, format!("{redis}{route}")).expect("relay.toml is written");
    let (code, stdout, stderr) = run(&["check", "-c", file.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(!stdout.contains(PASSWORD) && !stderr.contains(PASSWORD));
    let lines = stdout.lines().filter(|line| line.contains("redis: "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Two nodes with this `[redis]` become green, and a backend on one is reached through the other, with an event too.
fn works(redis: &str) {
    let nodes: Vec<Relay> = (0..2)
        .map(|n| Setup::with(&format!("node = \"node{n}\"\n{redis}")).start())
        .collect();
    nodes.iter().for_each(Relay::wait_green);
    for n in 0..20 {
        let name = format!("till-{n}");
        let mut till = nodes[1].backend(&name);
        let answer = nodes[0].post(&format!("/notify/{name}"), b"x");
        till.message().ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    for node in &nodes {
        assert!(!node.log().contains("refuses a command"), "{}", node.log());
    }
}

/// The `[redis]` of README.md whose first key is `key`, with these addresses instead of its own.
fn setup_of_the_readme(key: &str, addresses: &[SocketAddr]) -> String {
    let all = blocks(&page("README.md"));
    let mut texts = all.iter().map(|block| &block.text);
    let begins = |text: &&String| {
        let mut lines = text.lines();
        let is_redis = lines.next().is_some_and(|line| line.starts_with("[redis]"));
        is_redis && lines.next().is_some_and(|line| line.starts_with(key))
    };
    let text = texts.find(begins);
    let text = text.unwrap_or_else(|| panic!("README.md has no [redis] with {key}"));
    assert!(text.lines().count() <= 5, "five lines at most: {text}");
    let mut rest = &text[..];
    let mut setup = String::new();
    for address in addresses {
        let at = rest.find("10.0.0.").expect("an address for each server");
        let end = rest[at..].find('"').expect("its end") + at;
        setup += &rest[..at];
        setup += &address.to_string();
        rest = &rest[end..];
    }
    assert!(
        !rest.contains("10.0.0."),
        "more addresses than servers: {text}"
    );
    setup + rest
}

fn addresses(servers: &[Redis]) -> Vec<SocketAddr> {
    servers.iter().map(Redis::addr).collect()
}

#[test]
fn the_three_setups_of_the_readme_work() {
    let redis = Redis::start();
    works(&setup_of_the_readme("url", &[redis.addr()]));
    let group = SentinelGroup::start();
    works(&setup_of_the_readme(
        "sentinels",
        &addresses(&group.sentinels),
    ));
    let cluster = RedisCluster::start(3, false);
    works(&setup_of_the_readme(
        "cluster",
        &addresses(&cluster.servers),
    ));
}

#[test]
fn the_documented_rights_are_enough_for_one_redis_and_check_says_what_is_wrong() {
    let redis = Redis::start();
    let rights = &documented_rights()[0];
    redis.command(rights);
    let toml = format!(
        "[redis]\nurl = \"{}\"\n",
        redis.url_with(&format!("relay:{PASSWORD}@"))
    );
    works(&toml);
    assert_eq!(check(&toml), "");
    redis.command("ACL SETUSER relay -eval");
    let said = check(&toml);
    assert!(
        said.contains("EVAL") && said.contains("lacks a right"),
        "{said}"
    );

    let plain = format!("[redis]\nurl = \"{}\"\n", redis.url());
    redis.command("CONFIG SET maxmemory-policy allkeys-lru");
    assert!(check(&plain).contains("maxmemory-policy is allkeys-lru"));
    redis.command("CONFIG SET maxmemory-policy noeviction");
    let other = Redis::start();
    redis.replicate(&other);
    assert!(check(&plain).contains("is a replica, not the primary"));
}

#[test]
fn the_documented_rights_are_enough_for_sentinels_and_check_says_what_is_wrong() {
    let group = SentinelGroup::start();
    let rights = documented_rights();
    for server in &group.servers {
        server.command(&rights[0]);
    }
    for sentinel in &group.sentinels {
        sentinel.command(&rights[1]);
    }
    let toml = format!(
        "{}user = \"relay\"\npassword = \"{PASSWORD}\"\nsentinel_user = \"relay\"\nsentinel_password = \"{PASSWORD}\"\n",
        group.toml()
    );
    works(&toml);
    assert_eq!(check(&toml), "");
    assert!(check(&group.toml()).contains("min-replicas-to-write is 0"));
    let said = check(&toml.replace("mymaster", "another"));
    assert!(
        said.contains("does not know a primary called \"another\""),
        "{said}"
    );
}

#[test]
fn the_documented_rights_are_enough_for_a_cluster_and_check_says_what_is_wrong() {
    let cluster = RedisCluster::start(3, false);
    for server in &cluster.servers {
        server.command(&documented_rights()[2]);
    }
    let toml = format!(
        "{}user = \"relay\"\npassword = \"{PASSWORD}\"\n",
        cluster.toml()
    );
    works(&toml);
    assert_eq!(check(&toml), "");
    cluster.servers[1].command("ACL SETUSER relay -ssubscribe");
    let said = check(&toml);
    assert!(
        said.contains("SSUBSCRIBE") && said.contains("lacks a right"),
        "{said}"
    );
    let url = format!("[redis]\nurl = \"{}\"\n", cluster.servers[0].url());
    assert!(check(&url).contains("is a node of a cluster"));
}

#[test]
fn a_server_without_sharded_channels_is_no_cluster_and_that_is_said() {
    // Redis 6.2 has none. A later one without these commands is the same to a node.
    let mut options = vec!["--cluster-enabled", "yes"];
    if !Redis::is_older_than_7() {
        options.extend(["--rename-command", "SPUBLISH", ""]);
        options.extend(["--rename-command", "SSUBSCRIBE", ""]);
    }
    let server = Redis::with(&options);
    let slots: Vec<String> = (0..16_384).map(|slot: u32| slot.to_string()).collect();
    server.command(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")));
    eventually("the cluster is in order", || {
        server.command("CLUSTER INFO").contains("cluster_state:ok")
    });
    let toml = format!("[redis]\ncluster = [\"{}\"]\n", server.addr());
    let needs = "needs Redis 7 or later, or Valkey";
    assert!(check(&toml).contains(needs), "{}", check(&toml));
    let node = Setup::with(&format!("node = \"alone\"\n{toml}")).start();
    let said = node.wait_red();
    assert!(said.contains(needs), "{said}");
}

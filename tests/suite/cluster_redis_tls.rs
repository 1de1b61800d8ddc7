//! TLS to Redis, to its sentinels and to a cluster.

use crate::cluster_redis::{node_on, reaches, serves_its_own};
use crate::support::{Authority, Cluster, Redis, RedisCluster, Relay, SentinelGroup, Setup};

#[test]
fn tls_is_spoken_and_the_certificate_is_checked() {
    let redis = Redis::with_tls(&[]);
    let ca = Authority::get().file().display().to_string();
    let trusting = format!("[redis]\nca = \"{ca}\"");
    let url = redis.url();
    let cluster = Cluster::on(&[url.clone(), url.clone()], &trusting);
    reaches(&cluster.nodes[0], &cluster.nodes[1]);

    let mistrusting = node_on(&url, "");
    let said = mistrusting.readyz();
    assert_eq!(said.status, 503);
    assert!(
        said.text().to_lowercase().contains("certificate"),
        "{}",
        said.text()
    );
    serves_its_own(&mistrusting);
}

/// TLS, and the authority that the servers' certificates lead to.
fn trusting(redis: &str, keys: &str) -> String {
    let ca = Authority::get().file().display().to_string();
    format!("{redis}{keys}ca = \"{ca}\"\nsettle_time = \"0s\"\n")
}

/// Two nodes with this `[redis]` reach each other; one that does not trust the authority says so.
fn tls_works(redis: &str, keys: &str) {
    let nodes = ["near", "far"].map(|name| {
        let toml = format!("node = \"{name}\"\n{}", trusting(redis, keys));
        Setup::with(&toml).start()
    });
    nodes.iter().for_each(Relay::wait_green);
    reaches(&nodes[0], &nodes[1]);
    let mistrusting = Setup::with(&format!("node = \"alone\"\n{redis}{keys}")).start();
    let said = mistrusting.wait_red();
    assert!(said.to_lowercase().contains("certificate"), "{said}");
}

#[test]
fn tls_is_spoken_to_sentinels_and_to_the_primary_that_they_name() {
    let group = SentinelGroup::start_with_tls();
    tls_works(&group.toml(), "tls = true\nsentinel_tls = true\n");
}

#[test]
fn tls_is_spoken_to_a_cluster() {
    tls_works(&RedisCluster::start_with_tls().toml(), "tls = true\n");
}

//! The page on several nodes.

use super::outbox::stored;
use crate::page::toml;
use crate::support::{Browser, Redis, Relay, Setup, eventually};
use rustix::process::Signal;

/// Two nodes; the first knows where the second's admin port is.
fn two_nodes() -> [Relay; 2] {
    let start = |name: &str| Setup::with(&format!("node = \"{name}\"\n{}", toml())).start();
    let [a, b] = [start("a"), start("b")];
    let (http, tcp, admin) = (a.ready().http, a.ready().tcp, a.ready().admin);
    a.rewrite(&format!(
        "node = \"a\"\n[http]\nlisten = \"{http}\"\n[tcp]\nlisten = \"{tcp}\"\n[admin]\nlisten = \"{admin}\"\nnodes = [\"{}\", \"{admin}\"]\n{}",
        b.ready().admin,
        toml()
    ));
    a.signal(Signal::HUP);
    a.log_contains("relay.toml: reloaded");
    [a, b]
}

#[test]
fn one_nodes_page_shows_what_is_at_another() {
    let [a, b] = two_nodes();
    let here = stored(&a, "/event/till-7", b"{\"n\": \"here\"}");
    let there = stored(&b, "/event/till-7", b"{\"n\": \"there\"}");
    let page = Browser::start("en");
    page.open(a.ready().admin, "/");
    page.wait("both are listed, each once", &format!(
        "return document.querySelectorAll('a.row').length === 2 && ['{here}', '{there}'].every((id) => document.querySelector(`a.row[data-id=\"${{id}}\"]`))"
    ));
    page.click(&format!("a.row[data-id='{there}']"));
    page.wait_text(&b.ready().instance);
    page.wait_text("\"there\"");
    page.click("#act-drop");
    page.click("#dialog-yes");
    eventually("it is gone there", || {
        b.admin(&format!("/outbox/{there}")).status == 404
    });
    let silent = b.ready().instance.clone();
    let address = b.ready().admin;
    drop(b);
    page.open(a.ready().admin, "/");
    page.wait_text(&format!("Node {address}"));
    page.wait_text("here");
    assert!(!page.text().contains(&silent));
}

#[test]
fn a_node_on_the_bus_that_cannot_be_asked_is_named() {
    let redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    eventually("they know of each other", || {
        a.admin("/status").text().contains(&b.ready().instance)
    });
    let page = Browser::start("en");
    page.open(a.ready().admin, "/");
    page.wait_text(&format!(
        "Node {} is on the bus, but none of admin.nodes leads to it",
        b.ready().instance
    ));
}

//! `deliver = "opened"`: a backend gets what WeChat Pay v3 sealed, and is told so.

use super::callback::Callback;
use super::fresh::{self, now};
use crate::support::{Cluster, Pending, Redis, Relay};

const PLAIN: &str = "{\"attach\":\"till-7\",\n \"amount\":{\"total\":648}}";

/// With `more` before it.
fn route(callback: &Callback, more: &str) -> String {
    format!(
        "{more}\n[[route]]\npath = \"/pay\"\nname = \"pay\"\nverify = \"wechatpay-v3\"\n\
         id = \"opened:/attach\"\ndeliver = \"opened\"\nforward_headers = []\n{}",
        callback.keys
    )
}

fn relay(callback: &Callback, more: &str) -> Relay {
    Relay::with(&route(callback, more))
}

fn post(relay: &Relay, path: &str, callback: &Callback) -> Pending {
    let headers: Vec<_> = callback
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    relay.post_with(path, &headers, &callback.body)
}

#[test]
fn the_backend_gets_the_plain_bytes_marked_as_opened() {
    let callback = fresh::wechatpay_v3_sealed(now(), PLAIN);
    let relay = relay(&callback, "");
    let mut till = relay.backend("till-7");
    let answer = post(&relay, "/pay", &callback);
    let pattern = "MSG id=* route=pay verified=wechatpay-v3:opened h=0 =*";
    till.expect(pattern, PLAIN.as_bytes()).ack();
    assert_eq!(answer.answer().outcome(), "delivered");
}

#[test]
fn it_is_stored_opened_and_marked() {
    let callback = fresh::wechatpay_v3_sealed(now(), PLAIN);
    let mut relay = relay(&callback, "[delivery]\nundelivered = \"store\"");
    assert_eq!(post(&relay, "/pay", &callback).answer().outcome(), "stored");
    // The key is not needed for what is stored.
    relay.restart_with("[delivery]\nundelivered = \"store\"");
    let mut till = relay.backend("till-7");
    let pattern = "MSG id=* route=pay verified=wechatpay-v3:opened =*";
    till.expect(pattern, PLAIN.as_bytes()).ack();
}

/// With another key, or when nothing is sealed: the provider sends it again, until the key is right.
#[test]
fn what_cannot_be_opened_is_not_handed_over() {
    let sealed = fresh::wechatpay_v3_sealed(now(), PLAIN);
    let mut other = fresh::wechatpay_v3_sealed(now(), PLAIN);
    other.keys = other
        .keys
        .replace(fresh::API_V3_KEY, "0123456789abcdef0123456789abcdef");
    let mut bare = fresh::wechatpay_v3_notice(now(), r#"{"attach":"till-7"}"#);
    bare.keys = sealed.keys;
    let by_path = "path = \"/pay/{id}\"\nname = \"pay\"";
    let by_resource = "path = \"/pay/till-7\"\nname = \"pay\"\nid = \"opened:/attach\"";
    for (callback, route) in [(&other, by_path), (&bare, by_path), (&other, by_resource)] {
        let relay = Relay::with(&format!(
            "[[route]]\n{route}\nverify = \"wechatpay-v3\"\ndeliver = \"opened\"\n{}",
            callback.keys
        ));
        let mut till = relay.backend("till-7");
        let answer = post(&relay, "/pay/till-7", callback).answer();
        assert_eq!(answer.told(), (503, "not-opened"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        relay.log_contains("route pay: a genuine callback is answered 503");
        till.settle();
    }
}

/// The mark goes from node to node with the notification.
#[test]
fn another_nodes_backend_gets_it_opened_and_marked() {
    let callback = fresh::wechatpay_v3_sealed(now(), PLAIN);
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &route(&callback, ""));
    let mut till = cluster.nodes[1].backend("till-7");
    let answer = post(&cluster.nodes[0], "/pay", &callback);
    let pattern = "MSG id=* route=pay verified=wechatpay-v3:opened h=0 =*";
    till.expect(pattern, PLAIN.as_bytes()).ack();
    assert_eq!(answer.answer().outcome(), "delivered");
}

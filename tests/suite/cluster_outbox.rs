//! The outbox and the knowledge of duplicates on several nodes: what one keeps, a backend on another gets; what one has
//! delivered, another does not deliver again.

use std::thread;

use crate::outbox::{config, messages, nothing_pending, stored};
use crate::outbox_operator::ask;
use crate::support::{Cluster, Redis, eventually};

const BODY: &[u8] = b"{\"n\": \"42\"}";

#[test]
fn what_a_node_keeps_is_delivered_as_soon_as_its_backend_is_on_any_node() {
    let redis = Redis::start();
    // No try but the first comes by itself in this test's time.
    let toml = config("", "").replace("\"100ms\"", "\"1h\"");
    let toml = toml.replace("[outbox]\n", "[outbox]\nretry_max = \"2h\"\n");
    let cluster = Cluster::start(&redis, 2, &toml);
    let id = stored(&cluster.nodes[0], "/notify/till-7", BODY);
    let mut till = cluster.nodes[1].backend("till-7");
    assert_eq!(till.expect("MSG id=* try=* =*", BODY).ack(), id);
    nothing_pending(&cluster.nodes[0]);
    assert_eq!(messages(&cluster.nodes[1], "pending"), 0.0);
}

#[test]
fn a_retry_that_comes_in_at_another_node_is_recognised() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &config("", ""));
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut till = b.backend("till-7");
    let first = a.post("/event/till-7", BODY);
    let id = till.expect("MSG id=* event=42 =*", BODY).id();
    // While one has it under way the other must not say ok for it, nor deliver it.
    assert_eq!(b.post("/event/till-7", BODY).answer().status, 503);
    till.send(&format!("ACK id={id}"));
    assert_eq!(first.answer().told(), (200, "delivered"));
    eventually("the other node knows it too", || {
        let retry = b.post("/event/till-7", BODY).answer();
        assert!(retry.told() == (200, "duplicate") || retry.status == 503);
        retry.told() == (200, "duplicate")
    });
    // Stored counts as well as delivered.
    stored(a, "/event/till-8", BODY);
    eventually("the other node knows that too", || {
        b.post("/event/till-8", BODY).answer().told() == (200, "duplicate")
    });
    assert_eq!(messages(b, "pending"), 0.0);
    till.settle();
}

#[test]
fn an_event_is_forgotten_by_all_nodes_and_by_redis() {
    let redis = Redis::start();
    let a = redis.node("a", &config("", ""));
    let nodes = format!("[admin]\nnodes = [\"{}\"]\n", a.ready().admin);
    let b = redis.node("b", &(config("", "") + &nodes));
    let mut till = b.backend("till-7");
    let first = a.post("/event/till-7", BODY);
    till.expect("MSG id=* event=42 =*", BODY).ack();
    assert_eq!(first.answer().told(), (200, "delivered"));
    eventually("the other node knows it too", || {
        b.post("/event/till-7", BODY).answer().told() == (200, "duplicate")
    });
    let (code, out) = ask(&b, &["outbox", "forget", "42"]);
    assert_eq!((code, out.as_str()), (Some(0), "2 forgotten"));
    let taker = thread::spawn(move || {
        till.expect("MSG id=* event=42 =*", BODY).ack();
    });
    // The word that it is free may still be on its way.
    eventually("it is delivered once more", || {
        let again = a.post("/event/till-7", BODY).answer();
        assert!(matches!(again.told(), (200, "delivered" | "duplicate")));
        again.told() == (200, "delivered")
    });
    taker.join().expect("the backend");
}

#[test]
fn an_event_that_failed_at_one_node_is_delivered_by_another() {
    let redis = Redis::start();
    let toml = config("", "").replace("\"store\"", "\"refuse\"");
    let cluster = Cluster::start(&redis, 2, &toml);
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut till = a.backend("till-7");
    let first = a.post("/event/till-7", BODY);
    let id = till.expect("MSG id=* event=42 =*", BODY).id();
    till.send(&format!("NACK id={id}"));
    assert_eq!(first.answer().told(), (503, "refused"));
    let taker = thread::spawn(move || {
        till.expect("MSG id=* event=42 =*", BODY).ack();
    });
    // The word that it is free may still be on its way.
    eventually("it is delivered", || {
        let again = b.post("/event/till-7", BODY).answer();
        assert!(matches!(again.told(), (200, "delivered") | (503, "busy")));
        again.status == 200
    });
    taker.join().expect("the backend");
}

#[test]
fn without_redis_a_retry_is_delivered_rather_than_kept_out() {
    let mut redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &config("", ""));
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut here = a.backend("till-7");
    redis.kill();
    cluster.wait_red();
    let first = a.post("/event/till-7", BODY);
    here.expect("MSG id=* event=42 =*", BODY).ack();
    assert_eq!(first.answer().told(), (200, "delivered"));
    // The other node cannot ask: better twice than never.
    stored(b, "/event/till-7", BODY);
    assert_eq!(
        a.post("/event/till-7", BODY).answer().told(),
        (200, "duplicate"),
        "a node knows its own"
    );
}

//! A node that is to be removed: other nodes take over all that it has while it lives.

use payrelay::notification::NotificationId;
use rusqlite::Connection;
use rustix::process::Signal;

use crate::outbox::{messages, nothing_pending, stored, storing};
use crate::outbox_operator::ask;
use crate::outbox_shared::{in_redis_as_on_disk, lasting_redis, sharing, url};
use crate::support::{DEADLINE, Process, Redis, Relay, binary, eventually};

fn node(name: &str, redis: &Redis) -> Relay {
    let relay = Relay::with(&sharing(name, &url(&redis.url()), "prefer"));
    in_redis_as_on_disk(&relay);
    relay
}

/// The keys of the nodes' leases.
fn leases(redis: &Redis) -> Vec<String> {
    let keys = redis::cmd("KEYS")
        .arg("*:outbox:lease:*")
        .query(&mut redis.connection());
    keys.expect("a list")
}

#[test]
fn a_node_gives_all_to_the_others_in_order_but_what_a_backend_has_in_hand() {
    let redis = lasting_redis();
    let mut a = node("a", &redis);
    let (code, out) = ask(&a, &["outbox", "hand-over"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("no other node shares its outbox"), "{out}");
    let lease = leases(&redis).pop().expect("the lease of the one node");

    let ids: Vec<String> = (0..50)
        .map(|n| stored(&a, "/notify/till-7", format!("body {n}").as_bytes()))
        .collect();
    let mut till = a.backend("till-8");
    let dead = a.post("/notify/till-8", b"dead");
    till.expect("MSG id=* =*", b"dead").nack("delay=-1");
    dead.answer();
    let in_hand = a.post("/notify/till-8", b"in hand");
    let message = till.expect("MSG id=* =*", b"in hand");
    assert_eq!(in_hand.answer().told(), (200, "stored"));
    in_redis_as_on_disk(&a);
    let b = node("b", &redis);
    a.wait_green();

    let admin = a.ready().admin.to_string();
    let mut command = binary();
    command.args(["outbox", "hand-over", "--connect", &admin]);
    eventually("it knows of the other node", || leases(&redis).len() == 2);
    a.log_contains("1 other nodes share theirs in this Redis");
    let mut hand_over = Process::start("payrelay", command);
    eventually("readyz says so", || {
        let readyz = a.readyz();
        readyz.status == 503 && readyz.text().contains("handed over to other nodes")
    });
    assert_eq!(a.post("/notify/till-7", b"late").answer().status, 503);
    // As long as a session has one in hand, nobody takes over.
    redis.command(&format!("DEL {lease}"));
    eventually("it holds its lease", || leases(&redis).contains(&lease));
    message.ack();
    assert_eq!(
        hand_over.wait_exit(DEADLINE),
        Some(0),
        "{}",
        hand_over.stderr()
    );
    assert!(hand_over.stdout().contains("can be stopped now"));
    assert_eq!((messages(&a, "pending"), messages(&a, "dead")), (0.0, 0.0));
    assert_eq!((messages(&b, "pending"), messages(&b, "dead")), (50.0, 1.0));
    in_redis_as_on_disk(&b);
    // It goes on serving its backends.
    let fresh = b.post("/notify/till-8", b"fresh");
    till.expect("MSG id=* =*", b"fresh").ack();
    assert_eq!(fresh.answer().status, 200);
    let mut till = b.backend("till-7");
    for (n, id) in ids.iter().enumerate() {
        let got = till.expect("MSG id=* =*", format!("body {n}").as_bytes());
        assert_eq!(&got.ack(), id);
    }
    nothing_pending(&b);
    drop(till);

    // A restart takes it back.
    a.restart_with(&sharing("a", &url(&redis.url()), "prefer"));
    a.wait_green();
    in_redis_as_on_disk(&a);
    assert_eq!(messages(&a, "pending"), 0.0);
    stored(&a, "/notify/till-7", b"again");
    in_redis_as_on_disk(&a);
}

#[test]
fn a_node_that_shares_with_nobody_says_how_to_move_what_it_has() {
    let relay = storing("", "");
    let (code, out) = ask(&relay, &["outbox", "hand-over"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("payrelay outbox export"), "{out}");
    assert_eq!(relay.readyz().status, 200);
}

/// A dead letter.
fn dead_letter(relay: &Relay, body: &[u8]) -> String {
    let mut till = relay.backend("till-8");
    let post = relay.post("/notify/till-8", body);
    till.expect("MSG id=* =*", body).nack("delay=-1");
    post.answer().id().to_owned()
}

/// Changes a body on the disk of a relay that is stopped.
fn damage(relay: &Relay, id: &str) {
    let file = Connection::open(relay.path("data/outbox.db")).expect("sqlite");
    let id = NotificationId::parse(id).expect("an id").to_bytes();
    let changed = file.execute(
        "UPDATE payload SET body = x'00' WHERE seq = (SELECT seq FROM notification WHERE id = ?1)",
        [id],
    );
    assert_eq!(changed, Ok(1));
}

/// Has Redis lose one record.
fn remove_record(redis: &Redis, id: &str) {
    let mut connection = redis.connection();
    let keys = redis::cmd("KEYS")
        .arg("*:outbox:out:*")
        .query(&mut connection);
    let keys: Vec<String> = keys.expect("a list");
    let mut removed = 0;
    for key in keys {
        let count = redis::cmd("HDEL")
            .arg(key)
            .arg(id)
            .query::<u64>(&mut connection);
        removed += count.expect("a number");
    }
    assert_eq!(removed, 1);
}

#[test]
fn what_is_damaged_on_disk_is_taken_over_as_redis_has_it_or_stays_and_is_told_of() {
    let redis = lasting_redis();
    let mut a = node("a", &redis);
    let whole_in_redis = dead_letter(&a, b"whole in redis");
    let in_no_place = dead_letter(&a, b"in no place");
    eventually("both are dead letters", || messages(&a, "dead") == 2.0);
    in_redis_as_on_disk(&a);
    a.signal(Signal::TERM);
    assert_eq!(a.wait_exit(DEADLINE), Some(0));
    // Of dead letters the start looks at the digests of none.
    for id in [&whole_in_redis, &in_no_place] {
        damage(&a, id);
    }
    remove_record(&redis, &in_no_place);
    a.restart_with(&sharing("a", &url(&redis.url()), "prefer"));
    a.wait_green();
    // Retried, it is found to be damaged, and written anew to Redis if that is not prevented.
    let (_, out) = ask(&a, &["outbox", "retry", &whole_in_redis]);
    assert_eq!(out, "1 retried");
    eventually("it is a dead letter again", || messages(&a, "dead") == 2.0);
    let b = node("b", &redis);
    a.log_contains("1 other nodes share theirs in this Redis");
    let (code, out) = ask(&a, &["outbox", "hand-over"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("other nodes have all but 1"), "{out}");
    let answer = a.admin_post("/outbox/hand-over", "X-Payrelay-Action: 1\r\n", "{}");
    let answer: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
    assert_eq!(
        (&answer["left"], &answer["damaged"]),
        (&1.into(), &1.into())
    );
    let (_, out) = ask(&a, &["outbox", "show", &in_no_place, "--body"]);
    assert!(out.contains("what it carries was damaged"), "{out}");
    let (_, out) = ask(&b, &["outbox", "show", &whole_in_redis, "--body"]);
    assert!(out.contains("\nwhole in redis"), "{out}");
}

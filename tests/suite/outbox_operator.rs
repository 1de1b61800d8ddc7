//! The outbox as an operator sees it: payrelay outbox, payrelay trace, and the admin port that they ask.

use serde_json::Value;

use super::outbox::{config, messages, stored, storing};
use super::outbox_shared::{in_redis_as_on_disk, lasting_redis, sharing, url};
use crate::support::{DEADLINE, Process, Relay, binary, eventually};

/// Runs `payrelay <args>` against the relay's admin port: exit code and what it said.
pub fn ask(relay: &Relay, args: &[&str]) -> (Option<i32>, String) {
    let mut command = binary();
    let admin = relay.ready().admin.to_string();
    command.args(args).args(["--connect", &admin]);
    let mut process = Process::start("payrelay", command);
    let code = process.wait_exit(DEADLINE);
    (code, process.stdout() + &process.stderr())
}

pub fn json(relay: &Relay, args: &[&str]) -> Vec<Value> {
    let (_, out) = ask(relay, &[args, &["--json"]].concat());
    out.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn steps(message: &Value) -> Vec<&str> {
    let steps = message["timeline"].as_array().expect("a timeline");
    steps
        .iter()
        .filter_map(|step| step["what"].as_str())
        .collect()
}

#[test]
fn an_operator_sees_retries_and_drops_what_is_stored() {
    let relay = storing("", "");
    let body = b"{\"n\": \"42\"}";
    let mut till = relay.backend("till-7");
    let post = relay.post("/event/till-7", body);
    till.message().nack("delay=-1 reason=closed");
    let id = post.answer().id().to_owned();
    drop(till);
    eventually("the session is gone", || {
        relay.metric("payrelay_sessions") == 0.0
    });
    stored(&relay, "/notify/till-8", b"\xff\x1b[2J");

    let (code, out) = ask(&relay, &["outbox", "list"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains(&id) && out.contains("dead") && out.contains("refused: closed"),
        "{out}"
    );
    for (option, value, count) in [
        ("--backend", "till-8", 1),
        ("--state", "dead", 1),
        ("--state", "done", 0),
        ("--event", "42", 1),
        ("--route", "/notify/{id}", 1),
        ("--since", "1h", 2),
        ("--since", "0s", 0),
    ] {
        let listed = json(&relay, &["outbox", "list", option, value]);
        assert_eq!(listed.len(), count, "{option} {value}");
    }
    let shown = json(&relay, &["outbox", "show", &id]);
    assert_eq!(shown[0]["state"], "dead");
    assert_eq!(steps(&shown[0]), ["received", "sent", "stored", "dead"]);
    assert!(
        shown[0].get("body_base64").is_none(),
        "only when it is asked for"
    );
    let (_, out) = ask(&relay, &["outbox", "show", &id, "--body"]);
    assert!(out.contains("{\"n\": \"42\"}"), "{out}");
    let other = json(&relay, &["outbox", "list", "--backend", "till-8"]);
    let other = other[0]["id"].as_str().expect("an id").to_owned();
    let (_, out) = ask(&relay, &["outbox", "show", &other, "--body"]);
    assert!(out.contains("\\xff\\u{1b}[2J"), "{out}");
    // Bodies are in no log.
    assert!(!relay.log().contains("[2J"));

    // A retry by hand is not taken for a duplicate.
    let mut till = relay.backend("till-7");
    let (code, out) = ask(&relay, &["outbox", "retry", &id]);
    assert_eq!((code, out.as_str()), (Some(0), "1 retried"));
    assert_eq!(till.expect("MSG id=* try=2 =*", body).ack(), id);
    eventually("it is done", || relay.metric("payrelay_outbox_done") == 1.0);
    let shown = json(&relay, &["outbox", "show", &id]);
    assert_eq!(
        steps(&shown[0]),
        [
            "received", "sent", "stored", "dead", "retried", "sent", "acked"
        ]
    );
    assert_eq!(
        relay.post("/event/till-7", body).answer().told(),
        (200, "duplicate")
    );
    // Dropped, it is nobody's: the next one with the same event is delivered.
    let (code, out) = ask(&relay, &["outbox", "drop", "--yes", &id, &other]);
    assert_eq!((code, out.as_str()), (Some(0), "2 dropped"));
    let (code, _) = ask(&relay, &["outbox", "drop", &id]);
    assert_eq!(code, Some(1));
    let again = relay.post("/event/till-7", body);
    till.message().ack();
    assert_eq!(again.answer().told(), (200, "delivered"));
    assert!(json(&relay, &["outbox", "list"]).is_empty());
}

#[test]
fn a_trace_tells_what_became_of_a_notification() {
    let relay = storing("", "");
    let mut till = relay.backend("till-7");
    let body = b"{\"n\": \"42\"}";
    let post = relay.post("/event/till-7", body);
    let waiting = till.message().id();
    let traced = json(&relay, &["trace", "42"]);
    assert_eq!(traced[0]["state"], "under way");
    assert_eq!(steps(&traced[0]), ["received", "sent"]);
    till.send(&format!("ACK id={waiting}"));
    post.answer();
    let retry = relay.post("/event/till-7", body).answer();
    let traced = json(&relay, &["trace", &waiting]);
    assert_eq!(
        (traced.len(), &traced[0]["state"]),
        (1, &Value::from("delivered"))
    );
    assert_eq!(steps(&traced[0]), ["received", "sent", "acked", "answered"]);
    let both = json(&relay, &["trace", "42"]);
    assert_eq!(both.len(), 2);
    let traced = json(&relay, &["trace", retry.id()]);
    assert_eq!(traced[0]["state"], "duplicate");
    let id = stored(&relay, "/notify/till-8", b"x");
    let traced = json(&relay, &["trace", &id]);
    assert_eq!(steps(&traced[0]), ["received", "stored", "answered"]);
    let (code, out) = ask(&relay, &["trace", "nobody-knows"]);
    assert_eq!(code, Some(1), "{out}");
}

#[test]
fn what_a_provider_resends_is_delivered_once_its_event_is_forgotten() {
    let mut relay = storing("", "");
    let (body, other) = (b"{\"n\": \"42\"}", b"{\"n\": \"43\"}");
    let post = |relay: &Relay, body| relay.post("/event/till-7", body).answer();
    let id = stored(&relay, "/event/till-7", body);
    let kept = stored(&relay, "/event/till-7", other);
    let forget = |relay: &Relay| ask(relay, &["outbox", "forget", "42"]);
    assert_eq!(forget(&relay), (Some(0), "1 forgotten".into()));
    // On disk, too: after a restart it is as unknown as before.
    relay.restart_with(&config("", ""));
    let again = post(&relay, body);
    assert_eq!(again.told(), (200, "stored"));
    let mut till = relay.backend("till-7");
    for (expected, body) in [(&*id, body), (&*kept, other), (again.id(), body)] {
        assert_eq!(till.expect("MSG id=* =*", body).ack(), expected);
    }
    // Of what was delivered and is in no outbox; and no other event is forgotten with it.
    assert_eq!(post(&relay, body).told(), (200, "duplicate"));
    assert_eq!(forget(&relay), (Some(0), "1 forgotten".into()));
    assert_eq!(post(&relay, other).told(), (200, "duplicate"));
    let resent = relay.post("/event/till-7", body);
    till.expect("MSG id=* event=42 =*", body).ack();
    assert_eq!(resent.answer().told(), (200, "delivered"));
    let (code, out) = ask(&relay, &["outbox", "forget", "unknown"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("none of 1 nodes knows this event"), "{out}");
    relay.log_contains("forgets 1 events called 42");
}

#[test]
fn what_all_nodes_have_is_listed_shown_and_changed_through_one() {
    let mut b = storing("", "");
    let nodes = format!("[admin]\nnodes = [\"{}\"]\n", b.ready().admin);
    let a = Relay::with(&(config("", "") + &nodes));
    let (of_a, of_b) = (
        stored(&a, "/notify/till-7", b"a"),
        stored(&b, "/notify/till-7", b"b"),
    );
    let listed = json(&a, &["outbox", "list"]);
    let found: Vec<(&Value, &Value)> = listed
        .iter()
        .map(|one| (&one["id"], &one["node"]))
        .collect();
    let names = [&a.ready().instance, &b.ready().instance].map(|name| Value::from(&**name));
    let ids = [&of_a, &of_b].map(|id| Value::from(&**id));
    assert_eq!(found, [(&ids[0], &names[0]), (&ids[1], &names[1])]);
    let (_, out) = ask(&a, &["outbox", "list", "--limit", "1"]);
    assert!(out.contains(&a.ready().instance), "{out}");
    assert!(out.contains("1 more; --limit 2 shows them"), "{out}");
    assert_eq!(json(&a, &["outbox", "show", &of_b])[0]["node"], names[1]);
    let (code, out) = ask(&a, &["outbox", "drop", &of_a, &of_b]);
    assert_eq!(code, Some(1));
    assert!(out.contains("2 of these are pending"), "{out}");
    let (code, out) = ask(&a, &["outbox", "drop", "--yes", &of_b]);
    assert_eq!((code, out.as_str()), (Some(0), "1 dropped"));
    // What does not answer is named, and the list is no whole one.
    b.kill();
    let (code, out) = ask(&a, &["outbox", "list"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains(&of_a) && out.contains("not asked: "), "{out}");
}

#[test]
fn what_a_node_that_is_gone_has_in_redis_is_counted_until_it_is_listed_by_another() {
    let mut redis = lasting_redis();
    let toml = |name| sharing(name, &url(&redis.url()), "prefer");
    let patient = toml("b").replace("inherit_after = \"6s\"", "inherit_after = \"60s\"");
    let (mut a, mut b) = (Relay::with(&toml("a")), Relay::with(&patient));
    let ids: Vec<String> = (0..3).map(|n| stored(&a, "/notify/till-7", &[n])).collect();
    in_redis_as_on_disk(&a);
    in_redis_as_on_disk(&b);
    eventually("both hold their leases", || {
        ask(&b, &["outbox", "list"]) == (Some(0), String::new())
    });
    a.kill();
    eventually("the lease has run out, and the list says so", || {
        let (code, out) = ask(&b, &["outbox", "list"]);
        code == Some(1) && out.contains("3 of the node a are in Redis")
    });
    b.restart_with(&toml("b"));
    eventually("the other node has them", || messages(&b, "pending") == 3.0);
    eventually("the list is whole", || {
        ask(&b, &["outbox", "list", "--limit", "1"]).0 == Some(0)
    });
    let listed = json(&b, &["outbox", "list"]);
    let listed: Vec<&str> = listed.iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(listed, ids);
    redis.kill();
    eventually("Redis is away, and the list says so", || {
        let (code, words) = ask(&b, &["outbox", "list"]);
        code == Some(1) && words.contains("Redis is away")
    });
}

#[test]
fn a_trace_tells_what_was_dropped_and_forgotten_and_by_whom() {
    let relay = storing("", "");
    let body = b"{\"n\": \"42\"}";
    let id = stored(&relay, "/event/till-7", body);
    assert_eq!(ask(&relay, &["outbox", "forget", "42"]).0, Some(0));
    let traced = json(&relay, &["trace", &id]);
    assert_eq!(steps(&traced[0]).last(), Some(&"forgotten"));
    assert_eq!(ask(&relay, &["outbox", "drop", "--yes", &id]).0, Some(0));
    for key in [&*id, "42"] {
        let traced = json(&relay, &["trace", key]);
        assert_eq!(
            (traced.len(), &traced[0]["state"], &traced[0]["seq"]),
            (1, &Value::from("dropped"), &Value::Null)
        );
        let expected = ["received", "stored", "answered", "forgotten", "dropped"];
        let mut steps = steps(&traced[0]);
        steps.sort_by_key(|step| expected.iter().position(|one| one == step));
        assert_eq!(steps, expected);
        let detail = traced[0]["timeline"].as_array().and_then(|all| all.last());
        let detail = detail.map(|step| step["detail"].to_string());
        assert_eq!(detail.as_deref(), Some("\"by anybody (127.0.0.1)\""));
    }
    // Of what was delivered, and is in no outbox.
    let mut till = relay.backend("till-7");
    let post = relay.post("/event/till-7", body);
    till.message().ack();
    let delivered = post.answer().id().to_owned();
    assert_eq!(ask(&relay, &["outbox", "forget", "42"]).0, Some(0));
    let traced = json(&relay, &["trace", &delivered]);
    assert_eq!(
        steps(&traced[0]),
        ["received", "sent", "acked", "answered", "forgotten"]
    );
}

#[test]
fn changes_need_the_token_and_a_body_that_no_web_page_can_send() {
    let relay = Relay::with(&format!(
        "{}[admin]\ntoken = \"0123456789abcdef\"\n",
        config("", "")
    ));
    let id = stored(&relay, "/notify/till-7", b"x");
    let post = |headers: &str, body: &str| {
        let request = format!(
            "POST /outbox/drop HTTP/1.1\r\nHost: relay\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let mut http = crate::support::RawHttp::connect(relay.ready().admin);
        let answer = http.exchange(request.as_bytes());
        answer.map(|answer| answer.status)
    };
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    let json = "Content-Type: application/json\r\n";
    let all = "{\"all\": true, \"pending\": true}";
    assert_eq!(post(json, all), Ok(401));
    assert_eq!(post(token, all), Ok(415));
    assert_eq!(post(&format!("{token}{json}"), "{}"), Ok(400));
    assert_eq!(
        post(&format!("{token}{json}"), "{\"everything\": true}"),
        Ok(400)
    );
    assert_eq!(relay.admin(&format!("/outbox/{id}")).status, 401);
    assert_eq!(post(&format!("{token}{json}"), all), Ok(200));
}

#[test]
fn pending_ones_are_not_dropped_without_a_question_and_a_list_says_how_many_more_there_are() {
    let relay = storing("", "");
    let mut till = relay.backend("till-8");
    let dead = relay.post("/notify/till-8", b"dead");
    till.message().nack("delay=-1");
    dead.answer();
    drop(till);
    let ids: Vec<String> = (0..5)
        .map(|n| stored(&relay, "/notify/till-7", &[n]))
        .collect();
    let (_, out) = ask(&relay, &["outbox", "list", "--limit", "2"]);
    assert!(out.contains("4 more; --limit 6 shows them"), "{out}");
    let pending = ["outbox", "list", "--state", "pending"];
    for (which, count) in [
        (&["--state", "pending"][..], 5),
        (&[&ids[0], &ids[1]], 2),
        (&["--state", "pending", "--backend", "till-7"], 5),
    ] {
        let (code, out) = ask(&relay, &[&["outbox", "drop"], which].concat());
        assert_eq!(code, Some(1), "{out}");
        assert!(
            out.contains(&format!("{count} of these are pending")) && out.contains("--yes"),
            "{out}"
        );
        assert_eq!(json(&relay, &pending).len(), 5);
    }
    // Nor does the admin port drop them for another program unless it says so, and then not the dead one among them either.
    let order = |order: &str| relay.admin_post("/outbox/drop", "X-Payrelay-Action: 1\r\n", order);
    for which in [
        "\"all\": true",
        "\"state\": \"pending\"",
        "\"backend\": \"till-7\"",
    ] {
        let refused = order(&format!("{{{which}}}"));
        assert_eq!(refused.status, 409, "{which}");
        let words = "5 of these are pending: their providers were told ok";
        assert!(refused.text().contains(words), "{}", refused.text());
        assert_eq!(json(&relay, &["outbox", "list"]).len(), 6);
    }
    let one = format!("{{\"ids\": [\"{}\"], \"pending\": true}}", ids[4]);
    assert_eq!(order(&one).status, 200);
    stored(&relay, "/notify/till-7", b"again");
    // Everything that may go without a question.
    let (code, out) = ask(&relay, &["outbox", "drop", "--all"]);
    assert_eq!((code, out.as_str()), (Some(0), "1 dropped"));
    assert_eq!(json(&relay, &pending).len(), 5);
    let (code, out) = ask(&relay, &["outbox", "drop", "--yes", "--state", "pending"]);
    assert_eq!((code, out.as_str()), (Some(0), "5 dropped"));
    assert!(json(&relay, &["outbox", "list"]).is_empty());
    relay.log_contains("drops 5 notifications: state=pending");
}

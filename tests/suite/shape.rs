//! The program is what its page says: a thread for each connection, a pool that publishes, a subscriber that dispatches; and one
//! peer's work is not done on another's time.

use std::net::TcpStream;

use crate::support::{Cluster, RawHttp, Redis, Relay, Steady, eventually, heavy, post_request};

#[test]
fn with_redis_every_kind_of_thread_does_its_part() {
    const EACH: usize = 100;
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, "[http]\nworkers = 2\n");
    let [here, there] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    let mut backends = [here.backend("till-1"), there.backend("till-2")];
    let kinds = ["http-conn-", "http-worker-", "bus-publish", "session-"];
    let sleeps = |node: &Relay, kind: &str| node.process().sleeps(kind).unwrap_or(0);
    let before = kinds.map(|kind| sleeps(here, kind));
    let before_there = ["bus-subscribe", "session-"].map(|kind| sleeps(there, kind));
    let mut provider = here.http();
    for _ in 0..EACH {
        for (n, backend) in backends.iter_mut().enumerate() {
            let path = format!("/notify/till-{}", n + 1);
            provider.send(&post_request(&path, &[], b"x"));
            backend.expect("MSG id=* =*", b"x").ack();
            assert_eq!(provider.must_answer().told(), (200, "delivered"));
        }
    }
    let requests = here.metric("payrelay_http_worker_requests_total");
    assert_eq!(requests, (2 * EACH) as f64);
    assert_eq!(there.metric("payrelay_http_worker_requests_total"), 0.0);
    for node in [here, there] {
        assert_eq!(node.metric("payrelay_ack_seconds_count"), EACH as f64);
    }
    // One at a time: each waited for the one before, if no busy machine kept it from it.
    let half = EACH as u64 / 2;
    for (kind, before) in kinds.into_iter().zip(before) {
        let slept = sleeps(here, kind) - before;
        assert!(slept >= half, "{kind}* slept {slept} times");
    }
    for (kind, before) in ["bus-subscribe", "session-"].into_iter().zip(before_there) {
        let slept = sleeps(there, kind) - before;
        assert!(
            slept >= half,
            "{kind}* of the other node slept {slept} times"
        );
    }
}

#[test]
fn without_workers_there_is_no_pool() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let answer = relay.post("/notify/till-7", b"x");
    till.expect("MSG id=* =*", b"x").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    assert_eq!(relay.metric("payrelay_http_worker_requests_total"), 0.0);
    let names = relay.process().thread_names();
    assert!(
        !names.iter().any(|name| name.starts_with("http-worker")),
        "{names:?}"
    );
    // tiny_http listens on a unix socket, where there is a pool.
    let pid = relay.process().pid();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("procfs");
    let sockets: Vec<_> = fds
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.to_owned()))
        .collect();
    let unix = std::fs::read_to_string("/proc/net/unix").expect("procfs");
    let is_ours = |inode: &str| {
        sockets
            .iter()
            .any(|ours| ours.trim_end_matches(']') == inode)
    };
    let listens = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&"00010000") && fields.get(6).is_some_and(|inode| is_ours(inode))
    };
    let listening = unix.lines().filter(listens).count();
    assert_eq!(listening, 0, "{unix}");
}

/// A public key of 4,096 bits that has no private one: a forged signature costs as much with it as with any other.
fn public_key(seed: u8) -> String {
    let mut modulus: Vec<u8> = (0..512)
        .map(|n| (n as u8).wrapping_mul(73) ^ seed)
        .collect();
    modulus[0] |= 0x80;
    modulus[511] |= 1;
    let tagged = |tag: u8, content: &[u8]| {
        let mut out = vec![tag, 0x82];
        out.extend((content.len() as u16).to_be_bytes());
        out.extend(content);
        out
    };
    let integer = tagged(2, &[&[0], &modulus[..]].concat());
    let key = tagged(0x30, &[&integer[..], &[2, 3, 1, 0, 1]].concat());
    let algorithm = [
        0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0,
    ];
    let bits = tagged(3, &[&[0], &key[..]].concat());
    let whole = tagged(0x30, &[&algorithm[..], &bits].concat());
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(whole)
}

/// Forged callbacks of Alipay, each with a signature of the right size.
fn forgery() -> Vec<u8> {
    use base64::Engine as _;
    let signature = base64::engine::general_purpose::STANDARD.encode([7; 512]);
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let body =
        format!("notify_id=1&out_trade_no=till-7&total_amount=1&sign_type=RSA2&sign={signature}");
    post_request(
        "/alipay/till-7",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        body.as_bytes(),
    )
}

fn costly(workers: usize) {
    let keys: Vec<_> = (1..=16).map(|n| format!("\"{}\"", public_key(n))).collect();
    let relay = Relay::with(&format!(
        "[http]\nworkers = {workers}\nmax_connections = 100\n\
         [[route]]\npath = \"/notify/{{id}}\"\n\
         [[route]]\npath = \"/alipay/{{id}}\"\nverify = \"alipay\"\nkeys = [{}]\n\
         [[route]]\npath = \"/xml\"\nid = \"xml:to\"\n",
        keys.join(", ")
    ));
    let steady = Steady::start(&relay);
    let (forgery, mut refused) = (forgery(), 0);
    let mut forger = relay.http();
    for _ in 0..300 {
        let answer = forger.exchange(&forgery).expect("an answer");
        refused += usize::from(matches!(
            answer.told(),
            (200, "bad-signature") | (429, "too-many")
        ));
    }
    assert_eq!(refused, 300);
    steady.still_served();
    let elements = post_request("/xml", &[], "<a/>".repeat(16_000).as_bytes());
    for _ in 0..20 {
        let answer = relay.http().exchange(&elements).expect("an answer");
        assert_eq!(answer.told(), (400, "no-id"));
    }
    steady.still_served();
    let threads = relay.process().threads();
    assert!(threads <= 100 + 30, "{threads} threads");
}

#[test]
fn costly_requests_are_their_senders_own_business() {
    costly(0);
}

#[test]
fn costly_requests_are_their_senders_own_business_in_the_pool_too() {
    costly(2);
}

#[test]
fn half_sent_and_malformed_heads_by_the_thousand_hold_up_nobody() {
    const MOST: usize = 5000;
    let _alone = heavy();
    let relay = Relay::with(&format!(
        "[http]\nmax_connections = {MOST}\nrequest_deadline = \"5s\"\n"
    ));
    let steady = Steady::start(&relay);
    // They all expire in the same second, and each is told so.
    let mut half: Vec<RawHttp> = (0..MOST - 200)
        .map(|_| {
            let mut http = relay.http();
            http.send(b"POST /notify/till-7 HTTP/1.1\r\nHost: x\r\n");
            http
        })
        .collect();
    let threads = relay.process().threads();
    assert!(threads <= MOST + 30, "{threads} threads");
    steady.still_served();
    for http in &mut half {
        assert_eq!(http.must_answer().told(), (408, "timeout"));
    }
    steady.still_served();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let mut http = relay.http();
                    http.send(b"POST /notify/till-7 HTTP/1.1\r\nHost: x\nX: y\r\n\r\n");
                    assert_eq!(http.must_answer().told(), (400, "bad-request"));
                }
            });
        }
    });
    steady.still_served();
    drop(half);
    eventually("the threads have ended", || {
        relay.process().threads() <= threads / 2
    });
    let _ = TcpStream::connect(relay.ready().http).expect("a free place");
}

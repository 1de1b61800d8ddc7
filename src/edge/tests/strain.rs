//! Under strain: what becomes of those who wait when the thread that waits for them is late, or no other is to be had.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// More connections than there are threads that wait, so that some share one.
const CROWD: usize = 9;

/// Keeps its thread for a while when it is asked for `/slow`.
struct Slow {
    asked: Sender<()>,
    go_on: Receiver<()>,
}

impl Handler for Slow {
    fn is_quick(&self) -> bool {
        true
    }

    fn handle(&self, request: &Request<'_>, ticket: Ticket) {
        if request.target == "/slow" {
            let _ = self.asked.send(());
            let _ = self.go_on.recv_timeout(PATIENCE);
        }
        Echo.handle(request, ticket);
    }
}

/// The handler, what it is asked, and what lets it go on.
fn slow() -> (Slow, Receiver<()>, Sender<()>) {
    let (ask, asked) = unbounded();
    let (tell, told) = unbounded();
    let slow = Slow {
        asked: ask,
        go_on: told,
    };
    (slow, asked, tell)
}

#[test]
fn what_came_in_time_is_served_however_late_it_is_looked_at() {
    let (slow, asked, tell) = slow();
    let short = Duration::from_secs(1);
    let house = open_with(
        Limits {
            max_connections: 100,
            request_deadline: short,
            ..limits()
        },
        100,
        slow,
        short,
    );
    let mut kept: Vec<_> = (0..CROWD).map(|_| house.client()).collect();
    for client in &mut kept {
        assert_eq!(client.post("a").answer().status, 200);
    }
    let mut slow: Vec<_> = (0..front::pollers()).map(|_| house.client()).collect();
    for client in &mut slow {
        client.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
        asked.recv_timeout(PATIENCE).expect("a request");
    }
    let late = Instant::now() + 2 * short;
    let mut fresh: Vec<_> = (0..CROWD).map(|_| house.client()).collect();
    for client in kept.iter_mut().chain(&mut fresh) {
        client.post("b");
    }
    house.wait_connections(2 * CROWD + slow.len());
    while Instant::now() < late {
        std::thread::yield_now();
    }
    for _ in &slow {
        tell.send(()).expect("a handler");
    }
    for client in kept.iter_mut().chain(&mut fresh) {
        assert_eq!(client.answer().body, "POST /x b");
    }
}

#[test]
fn who_waits_for_us_is_not_sent_away_for_a_newcomer() {
    let (slow, asked, tell) = slow();
    let pollers = front::pollers();
    let house = open(
        Limits {
            max_connections: pollers + 1,
            ..limits()
        },
        100,
        slow,
    );
    let mut slow: Vec<_> = (0..pollers).map(|_| house.client()).collect();
    for client in &mut slow {
        client.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
        asked.recv_timeout(PATIENCE).expect("a request");
    }
    let mut unheard = house.client();
    unheard.post("a");
    house.wait_connections(pollers + 1);
    let answer = house.client().answer();
    assert_eq!((answer.status, answer.outcome()), (503, "limit"));
    for client in &mut slow {
        tell.send(()).expect("a handler");
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(unheard.answer().body, "POST /x a");
    // Now that it has been heard, it is one of those who may have to go.
    assert_eq!(house.client().post("b").answer().status, 200);
    let words: Vec<_> = house.words.try_iter().collect();
    assert_eq!(words, ["limit", "evicted"]);
}

/// Runs `work` while no thread can be started in this process.
fn without_threads(work: impl FnOnce()) {
    let before = getrlimit(Resource::As);
    let limit = |current| {
        let maximum = before.maximum;
        setrlimit(Resource::As, Rlimit { current, maximum }).expect("a limit");
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let kib = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok());
        let kib: u64 = kib.expect("a size in KiB");
        limit(Some((kib + 64) * 1024)); // too little for any stack
        if spawn("none", 256 * 1024, || {}).is_err() {
            break;
        }
        // A thread that has just begun gave back what it had reserved too much.
        assert!(Instant::now() < deadline, "there is always a thread");
        limit(before.current);
    }
    work();
    limit(before.current);
}

#[test]
fn whose_last_answer_has_gone_out_is_told_nothing_more_for_want_of_a_thread() {
    alone(
        "edge::tests::strain::whose_last_answer_has_gone_out_is_told_nothing_more_for_want_of_a_thread",
        || {
            let house = open(limits(), 10, Echo);
            let mut client = house.client();
            assert_eq!(client.post("a").answer().status, 200);
            without_threads(|| {
                client.send("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
                assert_eq!(client.answer().status, 200);
                client.expect_end();
            });
            assert!(house.words.is_empty());
        },
    );
}

#[test]
fn who_needs_a_thread_that_is_not_to_be_had_is_told_so_once() {
    alone(
        "edge::tests::strain::who_needs_a_thread_that_is_not_to_be_had_is_told_so_once",
        || {
            let (gate, asked, tell) = gate();
            let house = open(limits(), 20, gate);
            let (mut owed, mut large, mut small) = (house.client(), house.client(), house.client());
            house.wait_connections(3);
            without_threads(|| {
                owed.post("a");
                asked.recv_timeout(PATIENCE).expect("a request");
                owed.stream.shutdown(Shutdown::Write).expect("half a close");
                large.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\nx");
                for client in [&mut owed, &mut large] {
                    let answer = client.answer();
                    assert_eq!((answer.status, answer.outcome()), (503, "limit"));
                    assert!(answer.says_close());
                    client.expect_end();
                    assert_eq!(house.word(), "limit");
                }
                // Too late to be told to anybody.
                tell.send(()).expect("a gate");
                // And whoever needs none is served.
                small.post("b");
                tell.send(()).expect("a gate");
                assert_eq!(small.answer().body, "POST /x b");
            });
            house.wait_connections(1);
            house.wait_descriptors(17);
            assert!(house.words.is_empty());
        },
    );
}

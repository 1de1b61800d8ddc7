//! Who is let in, who must go, and what is left when all have gone.

use super::*;

#[test]
fn at_the_cap_the_longest_waiting_makes_room() {
    let setup = open(
        ListenerLimits {
            max_connections: 2,
            ..limits()
        },
        10,
        Echo,
    );
    let mut first = setup.client();
    setup.wait_connections(1);
    let mut second = setup.client();
    setup.wait_connections(2);
    first.post("a").answer(); // so now it is the second who has waited longest
    let mut third = setup.client();
    assert_eq!(third.post("b").answer().status, 200);
    second.expect_end();
    assert_eq!(setup.word(), "evicted");
    assert_eq!(first.post("c").answer().status, 200);
    assert_eq!(setup.listener.connections(), 2);
}

#[test]
fn a_request_that_is_not_whole_does_not_protect_its_connection() {
    let setup = open(
        ListenerLimits {
            max_connections: 1,
            ..limits()
        },
        10,
        Echo,
    );
    let mut slow = setup.client();
    slow.send("POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    slow.head(); // its head was read, then
    slow.send("ab");
    let mut quick = setup.client();
    assert_eq!(quick.post("x").answer().status, 200);
    slow.expect_end();
    setup.wait_connections(1);
    let words: Vec<_> = setup.words.try_iter().collect();
    assert_eq!(words, ["evicted"]);
}

#[test]
fn at_the_cap_with_everybody_at_work_newcomers_are_told_to_come_again() {
    let (gate, asked, tell) = gate();
    let setup = open(
        ListenerLimits {
            max_connections: 2,
            ..limits()
        },
        10,
        gate,
    );
    let (mut one, mut two) = (setup.client(), setup.client());
    one.post("1");
    two.post("2");
    for _ in 0..2 {
        asked.recv_timeout(PATIENCE).expect("a request");
    }
    let mut third = setup.client();
    let answer = third.answer();
    assert_eq!((answer.status, answer.outcome()), (503, "limit"));
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert!(answer.says_close());
    third.expect_end();
    assert_eq!(setup.word(), "limit");
    for _ in 0..2 {
        tell.send(()).expect("a gate");
    }
    assert_eq!(one.answer().body, "POST /x 1");
    assert_eq!(two.answer().body, "POST /x 2");
}

#[test]
fn without_a_descriptor_somebody_makes_room_too() {
    let setup = open(limits(), 3, Echo); // two for the front itself
    let mut first = setup.client();
    setup.wait_connections(1);
    let mut second = setup.client();
    assert_eq!(second.post("b").answer().status, 200);
    first.expect_end();
    let Setup { listener, fds, .. } = setup;
    drop((listener, second));
    assert_eq!(fds.free(), 3 + OWN_FDS - 2);
}

#[test]
fn a_flood_of_idle_connections_locks_nobody_out() {
    let setup = open(
        ListenerLimits {
            max_connections: 8,
            ..limits()
        },
        100,
        Echo,
    );
    let mut idle = Vec::new();
    for round in 0..100 {
        idle.push(setup.client());
        if round % 10 == 0 {
            assert_eq!(setup.client().post("x").answer().status, 200);
        }
    }
    assert!(setup.listener.connections() <= 8);
}

#[test]
fn a_handler_that_panics_costs_its_own_connection_only() {
    let setup = open(limits(), 10, PanickingHandler);
    let mut unlucky = setup.client();
    unlucky.send("GET /fall HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(unlucky.answer().status, 503);
    unlucky.expect_end();
    assert_eq!(setup.client().post("x").answer().status, 200);
    setup.wait_connections(0);
    setup.wait_descriptors(8);
}

#[test]
fn closing_ends_the_idle_refuses_the_begun_and_lets_the_busy_finish() {
    let (gate, asked, tell) = gate();
    let setup = open(limits(), 20, gate);
    let [mut idle, mut begun, mut busy, mut silent, mut slow] =
        std::array::from_fn(|_| setup.client());
    tell.send(()).expect("a gate");
    idle.post("a").answer();
    asked.recv_timeout(PATIENCE).expect("a request");
    begun.send("POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    begun.head(); // its head was read, then
    busy.post("b");
    asked.recv_timeout(PATIENCE).expect("a request");
    setup.wait_connections(5);

    setup.listener.close();
    idle.expect_end();
    assert!(
        TcpStream::connect(setup.listener.addr()).is_err(),
        "still listening"
    );
    // Accepted before, so it is answered.
    let refused = slow.post("late").answer();
    assert_eq!((refused.status, refused.outcome()), (503, "draining"));
    assert!(
        !setup.listener.wait_empty(Instant::now()),
        "two are still there"
    );
    silent.expect_end();
    let refused = begun.send("xy").answer();
    assert_eq!((refused.status, refused.outcome()), (503, "draining"));
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert!(refused.says_close());
    tell.send(()).expect("a gate");
    let finished = busy.answer();
    assert_eq!(finished.body, "POST /x b");
    assert!(finished.says_close());
    drop((begun, busy));
    assert!(setup.listener.wait_empty(Instant::now() + PATIENCE));
    assert_eq!(setup.listener.connections(), 0);
    setup.wait_descriptors(18);
    setup.listener.close(); // twice is no harm
}

#[test]
fn a_request_sent_while_closing_is_told_so() {
    let (gate, asked, tell) = gate();
    let setup = open(limits(), 20, gate);
    let mut client = setup.client();
    client.post_all(&["a", "b"]); // the second waits behind the first
    asked.recv_timeout(PATIENCE).expect("a request");
    setup.listener.close();
    tell.send(()).expect("a gate");
    let first = client.answer();
    assert!(first.says_close(), "nothing is promised that is not kept");
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    client.expect_end();
}

#[test]
fn dropping_the_front_cuts_whoever_is_left() {
    let setup = open(limits(), 20, Echo);
    let mut begun = setup.client();
    begun.send("POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    begun.head();
    drop(setup.listener);
    begun.expect_end();
    assert_eq!(setup.fds.free(), 20 + OWN_FDS - 2);
}

#[test]
fn a_kept_connection_may_be_idle_for_so_long_and_ends_without_a_word() {
    let idle_max = Duration::from_secs(2);
    let limits = ListenerLimits {
        idle_max,
        ..limits()
    };
    let setup = open(limits, 10, Echo);
    let mut client = setup.client();
    let mut began = Instant::now();
    for body in ["a", "b"] {
        began = Instant::now();
        assert_eq!(client.post(body).answer().status, 200);
    }
    client.expect_end();
    assert!(began.elapsed() >= idle_max);
    assert!(setup.words.is_empty());
}

#[test]
fn no_descriptor_and_no_thread_stays_behind() {
    alone(
        "edge::tests::room::no_descriptor_and_no_thread_stays_behind",
        || {
            let count = || (entries("/proc/self/fd"), entries("/proc/self/task"));
            let before = count();
            let setup = open(
                ListenerLimits {
                    max_connections: 20,
                    ..limits()
                },
                100,
                Echo,
            );
            let mut clients: Vec<_> = (0..60).map(|_| setup.client()).collect();
            for client in clients.iter_mut().rev().take(10) {
                assert_eq!(client.post("x").answer().status, 200);
            }
            setup.client().send("GET / HTTP/2.0\r\n\r\n").answer();
            drop(clients);
            drop(setup);
            // A thread that has ended may be seen for a moment more.
            let deadline = Instant::now() + PATIENCE;
            while count() != before {
                assert!(Instant::now() < deadline, "{:?}, not {before:?}", count());
                std::thread::yield_now();
            }
        },
    );
}

#[test]
fn accept_outlives_a_lack_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use socket2::{Domain, Socket, Type};
    alone(
        "edge::tests::room::accept_outlives_a_lack_of_descriptors",
        || {
            // The budget believes in far more than the system gives.
            let setup = open(limits(), 1000, Echo);
            let mut kept = setup.client();
            assert_eq!(kept.post("a").answer().status, 200);
            let newcomer = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let newcomers = [newcomer(), newcomer()];
            let before = getrlimit(Resource::Nofile);
            let limit = |current| {
                let maximum = before.maximum;
                setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a limit");
            };
            wait_asleep("http-accept");
            limit(Some(3));
            let [mut first, mut second] = newcomers.map(|socket| {
                socket
                    .connect(&setup.listener.addr().into())
                    .expect("a connection");
                setup.client_of(socket.into())
            });
            first.post("first");
            second.post("second");
            assert_eq!(
                kept.post("b").answer().status,
                200,
                "those inside are served"
            );
            assert_eq!(setup.listener.connections(), 1);
            limit(before.current);
            assert_eq!(first.answer().body, "POST /x first");
            assert_eq!(second.answer().body, "POST /x second");
        },
    );
}

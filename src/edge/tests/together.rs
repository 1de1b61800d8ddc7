//! Connections that one thread waits for: they need none of their own, and keep nobody waiting.

use super::*;

/// Runs `work` with the number of threads that there are without connections.
fn with_threads(house: &House, work: impl FnOnce()) {
    let before = entries("/proc/self/task");
    work();
    let deadline = Instant::now() + PATIENCE;
    while entries("/proc/self/task") != before {
        assert!(Instant::now() < deadline, "threads for {:?}", house.front);
        std::thread::yield_now();
    }
}

#[test]
fn who_waits_needs_no_thread() {
    alone("edge::tests::together::who_waits_needs_no_thread", || {
        let house = open(
            Limits {
                max_connections: 300,
                ..limits()
            },
            1000,
            Echo,
        );
        let mut clients: Vec<_> = (0..200).map(|_| house.client()).collect();
        house.wait_connections(200);
        with_threads(&house, || {
            for client in &mut clients {
                assert_eq!(client.post("a").answer().body, "POST /x a");
            }
            // Half of a head, half of a body.
            for (n, client) in clients.iter_mut().enumerate() {
                client.send(match n % 2 {
                    0 => "POST /x HTTP/1.1\r\nHos",
                    _ => "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab",
                });
            }
            let mut other = house.client();
            assert_eq!(other.post("b").answer().body, "POST /x b");
        });
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(match n % 2 {
                0 => "t: h\r\nContent-Length: 4\r\n\r\nabcd",
                _ => "cd",
            });
            assert_eq!(client.answer().body, "POST /x abcd");
        }
        assert!(house.words.is_empty());
    });
}

#[test]
fn a_request_of_known_length_may_come_in_any_pieces() {
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
    let body = "0123456789".repeat(1000);
    let text = format!("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10000\r\n\r\n{body}");
    for piece in [50, 999, 4096, 9000, 20_000] {
        for bytes in text.as_bytes().chunks(piece) {
            client.send(bytes);
        }
        assert_eq!(client.answer().body, format!("POST /x {body}"));
    }
}

#[test]
fn what_takes_longer_gets_a_thread_and_gives_it_back() {
    alone(
        "edge::tests::together::what_takes_longer_gets_a_thread_and_gives_it_back",
        || {
            let house = open(limits(), 10, Echo);
            let mut client = house.client();
            house.wait_connections(1);
            with_threads(&house, || {
                let large = "y".repeat(standing::TOGETHER_BYTES_MAX);
                let length = large.len();
                let head =
                    format!("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
                client.send(&head).send(&large[..9]);
                let deadline = Instant::now() + PATIENCE;
                let thread = || {
                    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
                    tasks.filter_map(Result::ok).find(|task| {
                        let comm = std::fs::read_to_string(task.path().join("comm"));
                        comm.is_ok_and(|comm| comm.trim() == "http-conn-0")
                    })
                };
                let its_thread = loop {
                    if let Some(thread) = thread() {
                        break thread.file_name();
                    }
                    assert!(Instant::now() < deadline, "no thread for a large body");
                    std::thread::yield_now();
                };
                client.send(&large[9..]);
                assert_eq!(client.answer().body.len(), "POST /x ".len() + length);
                // It stays for the next one.
                client.send(&head).send(&large);
                assert_eq!(client.answer().body.len(), "POST /x ".len() + length);
                let now = thread().expect("its thread has gone").file_name();
                assert_eq!(now, its_thread, "a thread for each large body");
                let chunked = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
                assert_eq!(client.send(chunked).answer().body, "POST /x a");
                // The second comes with the first, and is not overlooked.
                client.post("1").post("2");
                assert_eq!(client.answer().body, "POST /x 1");
                assert_eq!(client.answer().body, "POST /x 2");
            });
            assert_eq!(client.post("3").answer().body, "POST /x 3");
        },
    );
}

#[test]
fn who_never_asks_is_closed_in_time_and_who_stops_within_a_request_is_told() {
    let house = open(
        Limits {
            request_deadline: Duration::from_millis(200),
            ..limits()
        },
        20,
        Echo,
    );
    let (mut silent, mut stuck, mut kept) = (house.client(), house.client(), house.client());
    stuck.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab");
    assert_eq!(kept.post("a").answer().status, 200);
    kept.send("POST /x HTTP/1.1\r\nHo");
    for told in [&mut stuck, &mut kept] {
        let answer = told.answer();
        assert_eq!((answer.status, answer.outcome()), (408, "timeout"));
        told.expect_end();
        assert_eq!(house.word(), "timeout");
    }
    silent.expect_end();
    assert!(house.words.is_empty(), "nobody asked anything");
}

#[test]
fn a_handler_that_panics_leaves_the_others_waiting_as_before() {
    let house = open(limits(), 30, Clumsy);
    let mut others: Vec<_> = (0..8).map(|_| house.client()).collect();
    for other in &mut others {
        assert_eq!(other.post("a").answer().status, 200);
        other.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na");
    }
    for _ in 0..8 {
        let mut unlucky = house.client();
        assert_eq!(
            unlucky
                .send("GET /fall HTTP/1.1\r\nHost: h\r\n\r\n")
                .answer()
                .status,
            503
        );
        unlucky.expect_end();
    }
    for other in &mut others {
        assert_eq!(other.send("b").answer().body, "POST /x ab");
    }
}

//! Peers that do everything at once, at random: whoever is owed an answer gets it, once and in its turn, and nothing of the
//! others stays behind.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// How many peers there are at a time, and how many requests each may send.
const PEERS: usize = 24;
const REQUESTS: usize = 40;

/// xorshift64*, from a seed that a failure names.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }
}

/// Answers at once, or hands the responder to one of some answerers, who are now quick and now slow.
struct RandomHandler {
    answerers: Vec<Sender<(Response, Responder)>>,
    asked: AtomicUsize,
    /// The bodies of all that it was asked, if anybody wants to know.
    heard: Option<Sender<Vec<u8>>>,
    _threads: Vec<JoinOnDrop>,
}

impl Handler for RandomHandler {
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder) {
        let reply = Response {
            status: 200,
            head: Vec::new(),
            body: request.body.to_vec(),
        };
        if let Some(heard) = &self.heard {
            let _ = heard.send(request.body.to_vec());
        }
        let n = self.asked.fetch_add(1, Ordering::Relaxed);
        match self.answerers.get(n % (self.answerers.len() + 2)) {
            None => responder.answer(&reply),
            Some(answerer) => {
                let _ = answerer.send((reply, responder));
            }
        }
    }
}

fn random_handler(seed: u64, heard: Option<Sender<Vec<u8>>>) -> RandomHandler {
    let (mut answerers, mut threads) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let (pay, owed) = unbounded::<(Response, Responder)>();
        answerers.push(pay);
        let mut random = Random(seed ^ (n + 1));
        let work = move || {
            for (reply, responder) in owed {
                for _ in 0..random.below(20) {
                    std::thread::yield_now();
                }
                responder.answer(&reply);
            }
        };
        threads.push(spawn("answerer", SMALL_STACK_BYTES, work).expect("a thread"));
    }
    RandomHandler {
        answerers,
        asked: AtomicUsize::new(0),
        heard,
        _threads: threads,
    }
}

/// One peer's life. Its requests say who it is and which of its requests they are, and are answered with just that.
fn live(to: SocketAddr, who: usize, seed: u64) {
    let mut random = Random(seed ^ ((who as u64 + 1) << 20));
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    let mut client = Client {
        stream,
        unread: Vec::new(),
    };
    let mut owed = VecDeque::new();
    for n in 0..REQUESTS {
        let body = format!("{who}-{n}-{}", "x".repeat(random.below(300)));
        let large = match random.below(20) {
            0 => "y".repeat(70_000),
            _ => String::new(),
        };
        let body = body + &large;
        let length = body.len();
        let text = match random.below(8) {
            0 => format!(
                "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ),
            _ => format!("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"),
        };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let most = match random.below(3) {
                0 => rest.len(),
                _ => 1 + random.below(rest.len().min(4000)),
            };
            let (piece, after) = rest.split_at(most);
            client.send(piece);
            rest = after;
            if random.below(3) == 0 {
                std::thread::yield_now();
            }
        }
        owed.push_back(body);
        if random.below(40) == 0 {
            // It breaks off: nobody waits for this one.
            let linger = Some(Duration::ZERO);
            let socket = socket2::SockRef::from(&client.stream);
            return socket.set_linger(linger).expect("a linger");
        }
        // Answered at once, or some requests later.
        while owed.len() > 1 + random.below(3) {
            expect(&mut client, owed.pop_front());
        }
        if random.below(2) == 0 {
            while let Some(body) = owed.pop_front() {
                expect(&mut client, Some(body));
            }
        }
    }
    let last = client.stream.shutdown(Shutdown::Write);
    last.expect("half a close");
    while let Some(body) = owed.pop_front() {
        expect(&mut client, Some(body));
    }
    client.expect_end();
}

fn expect(client: &mut Client, body: Option<String>) {
    let answer = client.answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(Some(&answer.body) == body.as_ref(), "another's: {answer:?}");
}

fn seed() -> u64 {
    let seed = std::env::var("PAYRELAY_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64 | 1)
    });
    println!("PAYRELAY_SEED={seed}");
    seed
}

#[test]
fn in_a_storm_each_gets_its_own_answers_in_their_turn() {
    let seed = seed();
    let setup = open(
        ListenerLimits {
            max_connections: 2 * PEERS,
            ..limits()
        },
        100,
        random_handler(seed, None),
    );
    let to = setup.listener.addr();
    for round in 0..4 {
        let peers: Vec<_> = (0..PEERS)
            .map(|who| std::thread::spawn(move || live(to, round * PEERS + who, seed)))
            .collect();
        for peer in peers {
            peer.join().expect("a peer that was served");
        }
    }
    setup.wait_connections(0);
    setup.wait_descriptors(98);
    assert!(setup.words.is_empty(), "somebody was refused");
    setup.listener.close();
    assert!(setup.listener.wait_empty(Instant::now() + PATIENCE));
}

/// Asks again and again until nobody lets it in any more, or `is_closed`: another test may have the port by then. Gives back what
/// it was answered 200 for.
fn insist(to: SocketAddr, who: usize, seed: u64, is_closed: &AtomicBool) -> Vec<String> {
    let mut random = Random(seed ^ ((who as u64 + 1) << 20));
    let mut answered = Vec::new();
    for n in 0.. {
        if is_closed.load(Ordering::Relaxed) {
            break;
        }
        let Ok(mut stream) = TcpStream::connect(to) else {
            break; // closed
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        for m in 0.. {
            let body = format!("{who}-{n}-{m}");
            let close = match random.below(4) {
                0 => "Connection: close\r\n",
                _ => "",
            };
            let length = body.len();
            let text = format!(
                "POST /x HTTP/1.1\r\nHost: h\r\n{close}Content-Length: {length}\r\n\r\n{body}"
            );
            let (begin, end) = text.split_at(random.below(text.len()));
            let sent = stream.write_all(begin.as_bytes()).is_ok();
            if random.below(4) == 0 {
                std::thread::yield_now();
            }
            if !sent || stream.write_all(end.as_bytes()).is_err() {
                break;
            }
            let mut client = Client {
                stream: stream.try_clone().expect("a descriptor"),
                unread: Vec::new(),
            };
            let mut buffer = [0; 1024];
            let Ok(read @ 1..) = client.stream.read(&mut buffer) else {
                break; // it was told to go before it was heard
            };
            client.unread.extend_from_slice(&buffer[..read]);
            let answer = client.answer();
            if answer.status == 200 {
                assert_eq!(answer.body, body);
                answered.push(body);
            } else {
                assert!(
                    ["draining", "limit"].contains(&answer.outcome()),
                    "{answer:?}"
                );
            }
            if answer.says_close() || random.below(5) == 0 {
                break;
            }
        }
    }
    answered
}

#[test]
fn closing_in_a_storm_leaves_nobody_unanswered_who_was_heard() {
    let seed = seed();
    for round in 0..8 {
        let (hear, heard) = unbounded();
        let setup = open(
            ListenerLimits {
                max_connections: PEERS / 2,
                ..limits()
            },
            100,
            random_handler(seed, Some(hear)),
        );
        let to = setup.listener.addr();
        let is_closed = Arc::new(AtomicBool::new(false));
        let peers: Vec<_> = (0..PEERS)
            .map(|who| {
                let is_closed = Arc::clone(&is_closed);
                std::thread::spawn(move || insist(to, who, seed ^ round, &is_closed))
            })
            .collect();
        let mut asked: Vec<_> = heard.iter().take(500).collect();
        setup.listener.close();
        is_closed.store(true, Ordering::Relaxed);
        let mut answered: Vec<String> = Vec::new();
        for peer in peers {
            answered.extend(peer.join().expect("a peer that was served"));
        }
        assert!(setup.listener.wait_empty(Instant::now() + PATIENCE));
        setup.wait_descriptors(98);
        asked.extend(heard.try_iter());
        let mut asked: Vec<_> = asked
            .into_iter()
            .map(|body| String::from_utf8(body).expect("text"))
            .collect();
        asked.sort();
        answered.sort();
        assert!(asked == answered, "somebody was heard and not answered");
    }
}

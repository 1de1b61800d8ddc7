//! Others' sockets that a thread looks at beside its connections.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use parking_lot::Mutex;

use super::*;
use crate::readiness::{Readiness, Sideline};

/// What has been done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Request(String),
    Look(u64),
}

/// By which thread, and when.
type News = (String, Instant, Done);

type Told = Sender<News>;

fn tell(told: &Told, done: Done) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default().to_owned();
    let _ = told.send((name, Instant::now(), done)); // a test that is over does not listen
}

/// Tells what it is asked. For `/wait` it waits until it is told to go on, and there and for `/slow` it takes so long that a
/// sideline gets its turn.
struct Teller {
    told: Told,
    go: Receiver<()>,
}

impl Handler for Teller {
    fn is_quick(&self) -> bool {
        true
    }

    fn handle(&self, request: &Request<'_>, ticket: Ticket) {
        tell(&self.told, Done::Request(request.target.into()));
        if request.target == "/wait" {
            let _ = self.go.recv_timeout(PATIENCE);
        }
        let began = Instant::now();
        while matches!(request.target, "/slow" | "/wait")
            && began.elapsed() < 2 * poller::SIDELINE_MAX
        {
            std::thread::yield_now();
        }
        ticket.pay(&Echo::reply(request));
    }
}

/// Sockets with something to read each, which takes them to be looked at once; then a client may have something to ask.
struct Well {
    readiness: Readiness,
    sockets: Vec<(UnixStream, UnixStream)>,
    asks: Mutex<HashMap<u64, TcpStream>>,
    told: Told,
}

impl Well {
    fn new(sockets: usize, told: Told) -> Arc<Self> {
        let pair = || UnixStream::pair().expect("sockets");
        let well = Self {
            readiness: Readiness::new().expect("an epoll"),
            sockets: (0..sockets).map(|_| pair()).collect(),
            asks: Mutex::default(),
            told,
        };
        for (number, (ours, _)) in well.sockets.iter().enumerate() {
            let added = well.readiness.add(ours, number as u64);
            added.expect("room for one more");
        }
        Arc::new(well)
    }

    fn fill(&self) {
        for (_, theirs) in &self.sockets {
            (&*theirs).write_all(b".").expect("room");
        }
    }
}

impl Sideline for Well {
    fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn look(&self, number: u64) {
        let (ours, _) = &self.sockets[number as usize];
        (&*ours).read_exact(&mut [0]).expect("something");
        tell(&self.told, Done::Look(number));
        if let Some(mut client) = self.asks.lock().remove(&number) {
            let sent = client.write_all(&get("/asked"));
            sent.expect("an open connection");
        }
    }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

struct Setup {
    _house: House,
    well: Arc<Well>,
    /// Kept connections to the thread that looks at the well.
    clients: Vec<Client>,
    told: Receiver<News>,
    go: Sender<()>,
}

impl Setup {
    fn new(sockets: usize, clients: usize) -> Self {
        let (tell, told) = unbounded();
        let (go, going) = unbounded();
        let teller = Teller {
            told: tell.clone(),
            go: going,
        };
        let room = Limits {
            max_connections: 1000,
            ..limits()
        };
        let house = open(room, 1000, teller);
        let well = Well::new(sockets, tell);
        let looks_after = house.front.look_after(Arc::clone(&well) as _);
        looks_after.expect("a thread that waits");
        // Which of the threads that is, it tells.
        let (_, first) = &well.sockets[0];
        (&*first).write_all(b".").expect("room");
        let next = || told.recv_timeout(PATIENCE).expect("news");
        let (thread, _, done) = next();
        assert_eq!(done, Done::Look(0));
        let mut kept = Vec::new();
        while kept.len() < clients {
            let mut client = house.client();
            client.send(get("/first"));
            assert_eq!(client.answer().status, 200);
            if next().0 == thread {
                kept.push(client);
            }
        }
        Self {
            _house: house,
            well,
            clients: kept,
            told,
            go,
        }
    }

    fn next(&self) -> Done {
        self.told.recv_timeout(PATIENCE).expect("news").2
    }

    /// The next so many.
    fn story(&self, many: usize) -> Vec<Done> {
        (0..many).map(|_| self.next()).collect()
    }

    /// Holds the thread up with the first client's request, after which the well has a turn.
    fn hold(&mut self) {
        self.clients[0].send(get("/wait"));
        assert_eq!(self.next(), Done::Request("/wait".into()));
    }
}

#[test]
fn requests_go_before_a_sideline_and_both_are_seen_to() {
    let mut setup = Setup::new(40, 21);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "always too slow to tell");
        setup.hold();
        setup.well.fill();
        for client in &mut setup.clients[1..] {
            client.send(get("/x"));
        }
        let stream = setup.clients[1].stream.try_clone();
        let asks = stream.expect("a descriptor");
        setup.well.asks.lock().insert(4, asks);
        setup.go.send(()).expect("it waits");
        let news: Vec<_> = (0..61)
            .map(|_| setup.told.recv_timeout(PATIENCE).expect("news"))
            .collect();
        for client in &mut setup.clients {
            assert_eq!(client.answer().status, 200);
        }
        assert_eq!(setup.clients[1].answer().status, 200); // to what it was made to ask
        // Where the machine lets the thread stand still, the sideline has a turn in between.
        if news[24].1 - news[0].1 > poller::SIDELINE_MAX / 2 {
            continue;
        }
        let is_look = |(_, _, done): &News| matches!(done, Done::Look(_));
        let kinds = news.chunk_by(|one, next| is_look(one) == is_look(next));
        let lengths: Vec<_> = kinds.map(<[_]>::len).collect();
        // Behind the one that took so long a turn; all requests; for that many three turns; what they brought about; the rest.
        return assert_eq!(lengths, [4, 20, 12, 1, 24], "{news:?}");
    }
}

#[test]
fn a_request_that_a_sideline_brings_about_goes_before_the_rest_of_it() {
    let setup = Setup::new(40, 40);
    for (number, client) in setup.clients.iter().enumerate() {
        let stream = client.stream.try_clone().expect("a descriptor");
        setup.well.asks.lock().insert(number as u64, stream);
    }
    setup.well.fill();
    let story = setup.story(80);
    let (mut looks, mut most) = (0, 0);
    for done in &story {
        match done {
            Done::Look(_) => looks += 1,
            Done::Request(_) => looks = 0,
        }
        most = most.max(looks);
    }
    assert!(most <= 16, "{most} looks in a row: {story:?}");
}

#[test]
fn a_sideline_that_is_alone_for_a_while_has_larger_turns() {
    let mut setup = Setup::new(200, 2);
    setup.hold();
    let stream = setup.clients[1].stream.try_clone();
    let asks = stream.expect("a descriptor");
    // Behind eighteen small turns, and at the beginning of the first large one.
    setup.well.asks.lock().insert(75, asks);
    setup.well.fill();
    setup.go.send(()).expect("it waits");
    let story = setup.story(201);
    let place = |wanted: &Done| story.iter().position(|done| done == wanted);
    let asked = place(&Done::Request("/asked".into())).expect("a request");
    let brought = place(&Done::Look(75)).expect("a look");
    assert!(asked - brought > 20, "{story:?}");
}

#[test]
fn requests_that_take_long_do_not_keep_a_sideline_waiting_till_their_end() {
    let mut setup = Setup::new(12, 7);
    setup.hold();
    setup.well.fill();
    for client in &mut setup.clients[1..] {
        client.send(get("/slow"));
    }
    setup.go.send(()).expect("it waits");
    let story = setup.story(18);
    let looks = |part: &[Done]| part.iter().all(|done| matches!(done, Done::Look(_)));
    assert!(looks(&story[..4]) && looks(&story[5..9]), "{story:?}");
    let slow = Done::Request("/slow".into());
    assert_eq!([&story[4], &story[9]], [&slow; 2], "{story:?}");
}

#[test]
fn a_front_whose_handler_takes_its_time_has_nobody_to_look_after_a_sideline() {
    struct Slow;
    impl Handler for Slow {
        fn handle(&self, request: &Request<'_>, ticket: Ticket) {
            Echo.handle(request, ticket);
        }
    }
    let house = open(limits(), 10, Slow);
    let (tell, _told) = unbounded();
    let refused = house.front.look_after(Well::new(1, tell));
    let refused = refused.map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::Unsupported));
}

//! Providers and backends at work while nodes, disks and Redis are lost; each notes what it does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::history::{LossHistory, Moment};
use super::site::{LossSite, NODES};
use crate::support::delivery_log::{AckNumber, AckState};
use crate::support::{FlappingSession, Next, NodeLocator, Random, post_request};

/// Backends that come and go all the while, and those that are there in some rounds only.
pub const FLAPPING: usize = 3;
const BACKENDS: usize = 6;

const PROVIDERS: usize = 6;

/// Between two posts of one provider.
const POST_EVERY: Duration = Duration::from_millis(10);

/// When a slow backend acknowledges: after `ack_deadline`, before `ack_timeout`.
const SLOW: Duration = Duration::from_millis(500);

/// Providers and backends.
pub struct Clients {
    providers: Vec<JoinHandle<()>>,
    backends: Vec<JoinHandle<()>>,
    no_more_posts: Arc<AtomicBool>,
    calm: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    /// Whether each backend may have a session.
    pub open: Arc<Vec<AtomicBool>>,
}

impl Clients {
    pub fn begin(site: &LossSite, random: &mut Random) -> Self {
        let flag = || Arc::new(AtomicBool::new(false));
        let (no_more_posts, calm, over) = (flag(), flag(), flag());
        let open: Vec<AtomicBool> = (0..BACKENDS)
            .map(|n| AtomicBool::new(n < FLAPPING))
            .collect();
        let open = Arc::new(open);
        let providers = (0..PROVIDERS).map(|n| {
            let (locators, history) = (site.locators.clone(), site.history.clone());
            let over = no_more_posts.clone();
            thread::spawn(move || provide(n, &locators, &history, &over))
        });
        let providers = providers.collect();
        let backends = (0..BACKENDS).map(|n| {
            let backend = FlappingBackend {
                number: n,
                locators: site.locators.clone(),
                history: site.history.clone(),
                calm: calm.clone(),
                over: over.clone(),
                open: open.clone(),
            };
            let random = random.fork();
            thread::spawn(move || backend.serve(random))
        });
        Self {
            providers,
            backends: backends.collect(),
            no_more_posts,
            calm,
            over,
            open,
        }
    }

    /// Waits until everything is delivered.
    pub fn end(self, site: &LossSite) {
        self.no_more_posts.store(true, Ordering::SeqCst);
        for provider in self.providers {
            provider.join().expect("a provider failed");
        }
        self.calm.store(true, Ordering::SeqCst);
        for open in self.open.iter() {
            open.store(true, Ordering::SeqCst);
        }
        site.wait_delivered();
        self.over.store(true, Ordering::SeqCst);
        for backend in self.backends {
            backend.join().expect("a backend failed");
        }
    }
}

/// Posts one after another, each with a body of its own, and notes what was answered ok.
fn provide(number: usize, locators: &[NodeLocator], history: &LossHistory, over: &AtomicBool) {
    let mut n = 0;
    let origin = number % locators.len();
    locators[origin].keep_posting(over, |connection| {
        crate::support::let_pass(POST_EVERY);
        let _posting = history.posting.read();
        n += 1;
        let body = format!("{number}-{n}");
        let path = format!("/notify/game-{}", n % BACKENDS);
        history.posts(&body, origin);
        // No answer is no promise.
        let answer = connection.exchange(&post_request(&path, &[], body.as_bytes()));
        let answer = answer.ok()?;
        if answer.status == 200 {
            history.promised(&body, answer.id());
        }
        Some(())
    });
}

/// A backend that acknowledges, at once or late, refuses, stays silent and goes away, until it is told to be calm.
struct FlappingBackend {
    number: usize,
    locators: Arc<Vec<NodeLocator>>,
    history: Arc<LossHistory>,
    calm: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    open: Arc<Vec<AtomicBool>>,
}

/// A MSG that was read.
struct PendingMessage {
    id: String,
    body: String,
    at: Moment,
}

type Session = FlappingSession<(AckNumber, String)>;

impl FlappingBackend {
    fn is_open(&self) -> bool {
        self.open[self.number].load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn serve(&self, mut random: Random) {
        while !self.is_over() {
            let node = random.below(NODES);
            let addresses = self.locators[node].wait(&self.over);
            let session = addresses.filter(|_| self.is_open()).and_then(|addresses| {
                Session::open(addresses.tcp, &format!("game-{}", self.number))
            });
            match session {
                Some(session) => self.session(session, &mut random),
                None => crate::support::let_pass(Duration::from_millis(5)),
            }
        }
    }

    fn session(&self, mut session: Session, random: &mut Random) {
        let messages = random.below(60);
        let mut slow: VecDeque<(Instant, PendingMessage)> = VecDeque::new();
        let mut got = 0;
        let is_calm = || self.calm.load(Ordering::SeqCst);
        while !self.is_over() && self.is_open() && (got < messages || is_calm()) {
            while slow.front().is_some_and(|(due, ..)| *due <= Instant::now()) {
                if let Some((_, message)) = slow.pop_front() {
                    self.acknowledge(&mut session, message);
                }
            }
            let frame = match session.next() {
                Next::Frame(frame) => frame,
                Next::Nothing => continue,
                Next::Over => break,
            };
            match frame.verb.as_str() {
                "PONG" => {
                    if let Some((ack, _)) = session.unsure.pop_front() {
                        self.history.becomes(&ack, AckState::Read);
                    }
                }
                "PING" => session.say("PONG\n"),
                "MSG" => {
                    got += 1;
                    let message = PendingMessage {
                        id: frame.field("id").to_owned(),
                        body: String::from_utf8_lossy(frame.body()).into_owned(),
                        at: self.history.now(),
                    };
                    match if is_calm() { 99 } else { random.below(100) } {
                        0..10 => session.say(&format!("NACK id={} delay=0.1\n", message.id)),
                        10..15 => {} // silent: the session forgets it
                        // Later than `ack_deadline`: by then it is stored, and held for this session.
                        15..20 => slow.push_back((Instant::now() + SLOW, message)),
                        _ => self.acknowledge(&mut session, message),
                    }
                }
                "ERR" if frame.get("code") == Some("unknown-id") => {
                    let id = frame.field("id");
                    let late = session.unsure.iter().find(|(_, its)| its == id);
                    if let Some((ack, _)) = late {
                        self.history.becomes(ack, AckState::TooLate);
                    }
                }
                _ => {}
            }
        }
        for (ack, _) in &session.unsure {
            self.history.becomes(ack, AckState::Doubtful);
        }
    }

    fn acknowledge(&self, session: &mut Session, message: PendingMessage) {
        // Noted first: once it is written it may arrive.
        let ack = self.history.acks(&message.body, &message.id, message.at);
        session.say(&format!("ACK id={}\nPING\n", message.id));
        session.unsure.push_back((ack, message.id));
    }
}

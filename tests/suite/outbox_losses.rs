//! The shared outbox against every kind of loss, in rounds from a seed: nodes are killed, their disks are deleted or come back old,
//! Redis is killed, cut off, emptied or replaced. What was answered ok is delivered, but for what both its disk and Redis have lost
//! in the same round, which the test names; and whatever is delivered twice is explained. The test keeps its own history.

mod history;
mod site;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::history::{LossHistory, Moment};
use self::site::{DiskState, LossSite, NODES, RedisFault};
use crate::support::delivery_log::{AckNumber, AckState};
use crate::support::{FlappingSession, Next, NodeLocator, Random, RawHttp, heavy, post_request};

/// Backends that come and go all the while, and those that are there in some rounds only.
const FLAPPING: usize = 3;
const BACKENDS: usize = 6;

const PROVIDERS: usize = 6;

/// Between two posts of one provider.
const POST_EVERY: Duration = Duration::from_millis(10);

/// When a slow backend acknowledges: after `ack_deadline`, before `ack_timeout`.
const SLOW: Duration = Duration::from_millis(500);

/// How many kinds of rounds there are; the last one loses disks and Redis together.
const KINDS: usize = 11;

#[test]
fn what_was_answered_ok_outlives_disks_and_redis_but_not_both_at_once() {
    rounds(6, "prefer");
}

#[test]
#[ignore = "long: part of tests/run --soak"]
fn fifty_losses_of_disks_and_redis_with_prefer() {
    rounds(50, "prefer");
}

#[test]
#[ignore = "long: part of tests/run --soak"]
fn fifty_losses_of_disks_and_redis_with_require() {
    rounds(50, "require");
}

/// A node that dies.
#[derive(Clone, Copy)]
struct NodeDeath {
    node: usize,
    disk: DiskState,
    /// It comes back when others have taken over what it had.
    is_late: bool,
}

/// What happens in a round.
#[derive(Default)]
struct RoundPlan {
    deaths: Vec<NodeDeath>,
    fault: Option<RedisFault>,
    fault_is_first: bool,
}

impl RoundPlan {
    fn of(kind: usize, random: &mut Random) -> Self {
        let node = random.below(NODES);
        let death = |node, disk, random: &mut Random| NodeDeath {
            node,
            disk,
            is_late: random.below(2) == 0,
        };
        let mut plan = Self {
            fault_is_first: random.below(2) == 0,
            ..Self::default()
        };
        let lost = [DiskState::Deleted, DiskState::Old][random.below(2)];
        match kind {
            0 => {}
            1 | 2 => plan.deaths.push(NodeDeath {
                node,
                disk: DiskState::Kept,
                is_late: kind == 2,
            }),
            3 => plan.deaths.push(death(node, DiskState::Deleted, random)),
            4 => plan.deaths.push(death(node, DiskState::Old, random)),
            5..=8 => plan.fault = Some(Self::fault(kind - 5, node, random)),
            9 => {
                let disks = [DiskState::Kept, DiskState::Deleted, DiskState::Old];
                for node in [node, (node + 1) % NODES] {
                    let disk = disks[random.below(3)];
                    plan.deaths.push(death(node, disk, random));
                }
            }
            _ => {
                plan.deaths.push(death(node, lost, random));
                plan.fault = Some(Self::fault(random.below(4), node, random));
            }
        }
        plan
    }

    fn fault(kind: usize, node: usize, random: &mut Random) -> RedisFault {
        let coin = random.below(2) == 0;
        match kind {
            0 => RedisFault::Killed,
            1 => RedisFault::CutOff { node, long: coin },
            2 => RedisFault::Flushed,
            _ => RedisFault::FailedOver { crash: coin },
        }
    }
}

/// So many rounds; each kind comes once before any comes again.
fn rounds(count: usize, mode: &'static str) {
    let _alone = heavy();
    let mut random = Random::new();
    let history = Arc::new(LossHistory::default());
    let mut site = LossSite::start(mode, Arc::clone(&history));
    site.settle();
    let clients = Clients::begin(&site, &mut random);
    let mut deck: Vec<usize> = Vec::new();
    for round in 0..count {
        if deck.is_empty() {
            deck = (0..KINDS).collect();
            for n in (1..KINDS).rev() {
                deck.swap(n, random.below(n + 1));
            }
        }
        let last_of_few = count < KINDS && round == count - 1;
        let kind = match last_of_few {
            true => KINDS - 1,
            false => deck.pop().unwrap_or_default(),
        };
        for open in &clients.open[FLAPPING..] {
            open.store(random.below(2) == 0, Ordering::SeqCst);
        }
        let plan = RoundPlan::of(kind, &mut random);
        run(&mut site, &plan, &mut random);
        let standing_still = history.posting.write();
        site.settle();
        drop(standing_still);
    }
    clients.end(&site);

    let report = history.report();
    eprintln!(
        "{} answered ok, {} acknowledged\nmore than once: {:#?}\nboth lost (all, never acknowledged): {:#?}",
        report.promised, report.acknowledged, report.twice, report.both_lost
    );
    for id in &report.unexplained {
        site.tell(id);
    }
    assert!(
        report.promised > 50 * count,
        "only {} were answered ok",
        report.promised
    );
    let (lost, twice) = (&report.lost, &report.without_reason);
    assert!(lost.is_empty(), "{} lost: {lost:#?}", lost.len());
    assert!(
        twice.is_empty(),
        "{} acknowledged twice without a reason: {twice:#?}",
        twice.len()
    );
}

/// One round, until everybody is back.
fn run(site: &mut LossSite, plan: &RoundPlan, random: &mut Random) {
    let mut a_while =
        || crate::support::let_pass(Duration::from_millis(50 + random.below(600) as u64));
    a_while();
    let mut fault = plan.fault;
    if let Some(fault) = fault.filter(|_| plan.fault_is_first) {
        site.begin(fault);
        a_while();
    }
    for death in &plan.deaths {
        let held: HashSet<String> = site.held(death.node).into_iter().collect();
        let had_lost_redis = site.has_lost_redis(death.node);
        site.kill(death.node, death.disk);
        if death.disk != DiskState::Kept {
            name_what_loses_both(site, plan, death.node, held, had_lost_redis);
        }
    }
    if let Some(fault) = fault.filter(|_| !plan.fault_is_first) {
        site.begin(fault);
    }
    a_while();
    // Those that come back at once may do so while Redis is at fault.
    for death in plan.deaths.iter().filter(|death| !death.is_late) {
        if random.below(2) == 0 {
            site.revive(death.node);
        }
    }
    if let Some(fault) = fault.take() {
        site.end(fault);
    }
    if plan.deaths.iter().any(|death| death.is_late) {
        site.wait_inherited();
    }
    for death in &plan.deaths {
        site.revive(death.node);
    }
}

/// What the node that is killed now has nowhere else.
fn name_what_loses_both(
    site: &LossSite,
    plan: &RoundPlan,
    node: usize,
    held: HashSet<String>,
    had_lost_redis: bool,
) {
    let history = &site.history;
    match plan.fault {
        Some(RedisFault::Flushed) => {
            history.loses_both(node, held, "a disk, and everything in Redis");
        }
        Some(RedisFault::FailedOver { .. }) => {
            history.loses_both(node, HashSet::new(), "a disk, and what a replica lacked");
        }
        // What was stored while Redis was away is on the disk alone; with "require" nothing is.
        Some(RedisFault::Killed | RedisFault::CutOff { .. }) if !site.is_required() => {
            history.loses_both(node, HashSet::new(), "a disk, while Redis was away");
        }
        _ if had_lost_redis && !site.is_required() => {
            history.loses_both(node, HashSet::new(), "a disk of a node that had lost Redis");
        }
        _ => {}
    }
}

/// Providers and backends.
struct Clients {
    providers: Vec<JoinHandle<()>>,
    backends: Vec<JoinHandle<()>>,
    no_more_posts: Arc<AtomicBool>,
    calm: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    open: Arc<Vec<AtomicBool>>,
}

impl Clients {
    fn begin(site: &LossSite, random: &mut Random) -> Self {
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
    fn end(self, site: &LossSite) {
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
    let is_over = || over.load(Ordering::SeqCst);
    while let Some(addresses) = locators[origin].wait(over).filter(|_| !is_over()) {
        let Some(mut connection) = RawHttp::try_connect(addresses.http) else {
            crate::support::let_pass(Duration::from_millis(5));
            continue;
        };
        while !is_over() {
            crate::support::let_pass(POST_EVERY);
            let _posting = history.posting.read();
            n += 1;
            let body = format!("{number}-{n}");
            let path = format!("/notify/game-{}", n % BACKENDS);
            history.posts(&body, origin);
            // No answer is no promise.
            let Ok(answer) = connection.exchange(&post_request(&path, &[], body.as_bytes())) else {
                break;
            };
            if answer.status == 200 {
                history.promised(&body, answer.id());
            }
        }
    }
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

//! Delivery between a provider and a bus that are the test's own: every envelope comes into the test's hands.

use crossbeam_channel::Receiver;

use super::table::DUE_SPARE;
use super::*;
use crate::answer::{AnswerForms, PreparedReply};
use crate::bus::Forward;
use crate::edge::tests::{Client, handed_over};
use crate::metrics::Readings;
use crate::notification::{BackendId, IdMint, Nack, Receipt};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// An ACK deadline that is over in a test.
const SOON: Duration = Duration::from_secs(1);

/// Hands every envelope to the test, unless it is told to settle them itself.
struct Hand {
    envelopes: Sender<Box<Envelope>>,
    at_once: Option<Receipt>,
}

impl Forward for Hand {
    fn forward(&self, envelope: Box<Envelope>) {
        match &self.at_once {
            Some(receipt) => envelope.settle(receipt.clone()),
            None => assert!(self.envelopes.try_send(envelope).is_ok()),
        }
    }
}

struct Setup {
    delivery: Delivery,
    envelopes: Receiver<Box<Envelope>>,
    mint: IdMint,
    metrics: Arc<Metrics>,
}

impl Setup {
    fn open(ack_deadline: Duration, in_flight_max: usize) -> Self {
        Self::open_with(ack_deadline, in_flight_max, None)
    }

    fn open_with(ack_deadline: Duration, in_flight_max: usize, at_once: Option<Receipt>) -> Self {
        let (put, envelopes) = bounded(1000);
        let bus = Arc::new(Hand {
            envelopes: put,
            at_once,
        });
        let metrics = Arc::new(Metrics::new());
        let delivery = Delivery::start(DeliveryOptions {
            dispatcher: Dispatcher::new(Arc::default(), bus),
            ack_deadline,
            in_flight_max,
            outbox: None,
            dedupe_window: PATIENCE,
            dedupe_store: None,
            trace: Arc::default(),
            metrics: Arc::clone(&metrics),
        });
        Self {
            delivery: delivery.expect("a timer"),
            envelopes,
            mint: IdMint::new(0),
            metrics,
        }
    }

    /// Delivers to `backend`; the answer reaches the client.
    fn deliver(&self, backend: &str) -> Client {
        let (responder, client) = handed_over();
        let notification = Notification {
            id: self.mint.mint(0),
            backend: BackendId::parse(backend).expect("an id"),
            route: "r".into(),
            verified: "none".into(),
            event: None,
            event_proven: false,
            at_unix_ms: 0,
            tries: 1,
            head: Vec::new(),
            body: Vec::new(),
        };
        let answer = Answer::new(responder, forms(&self.metrics), notification.id, None);
        self.delivery.deliver(notification, answer);
        client
    }

    fn envelope(&self) -> Box<Envelope> {
        self.envelopes.try_recv().expect("an envelope")
    }

    fn metric(&self, start: &str) -> u64 {
        let text = self.metrics.text(&Readings::default());
        let line = text.lines().find_map(|line| line.strip_prefix(start));
        let value = line.and_then(|rest| rest.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {start} in\n{text}"))
    }
}

/// A route whose answers say nothing but the outcome.
pub(super) fn forms(metrics: &Metrics) -> Arc<AnswerForms> {
    let reply = |status| PreparedReply {
        status,
        head: Vec::new(),
        body: Vec::new(),
    };
    Arc::new(AnswerForms {
        route: "r".into(),
        ok: reply(200),
        fail: reply(503),
        metrics: metrics.route("r"),
    })
}

/// The outcome that the client is told.
fn answer(client: &mut Client) -> Outcome {
    let answer = client.answer();
    let word = answer.outcome().to_owned();
    let outcome = Outcome::ALL.into_iter().find(|o| o.as_str() == word);
    let outcome = outcome.unwrap_or_else(|| panic!("{word}"));
    assert_eq!(answer.status, if outcome.is_ok() { 200 } else { 503 });
    assert!(client.has_no_answer(), "a second one");
    outcome
}

#[test]
fn each_receipt_has_its_outcome() {
    let setup = Setup::open(PATIENCE, 10);
    for (receipt, outcome) in [
        (Receipt::Ack, Outcome::Delivered),
        (Receipt::Nack(Nack::default()), Outcome::Refused),
        (Receipt::Busy, Outcome::Busy),
        (Receipt::Expired, Outcome::TimedOut),
        (Receipt::Gone, Outcome::Offline),
    ] {
        let mut paid = setup.deliver("a");
        assert!(paid.has_no_answer() && setup.delivery.in_flight() == 1);
        setup.envelope().settle(receipt);
        assert_eq!(
            (answer(&mut paid), setup.delivery.in_flight()),
            (outcome, 0)
        );
    }
    let mut paid = setup.deliver("a");
    drop(setup.envelope()); // in silence, as a session that panics would
    assert_eq!(answer(&mut paid), Outcome::Offline);
}

#[test]
fn an_ack_that_is_faster_than_the_sending_finds_its_wait() {
    let setup = Setup::open_with(PATIENCE, 10, Some(Receipt::Ack));
    assert_eq!(answer(&mut setup.deliver("a")), Outcome::Delivered);
    assert_eq!(setup.metric("payrelay_in_flight "), 0);
}

#[test]
fn silence_is_answered_at_the_deadline_and_not_again_by_a_late_ack() {
    let setup = Setup::open(SOON, 10);
    let began = Instant::now();
    let mut answers = [setup.deliver("a"), setup.deliver("b"), setup.deliver("a")];
    for paid in &mut answers {
        assert_eq!(answer(paid), Outcome::TimedOut);
    }
    assert!(began.elapsed() >= SOON);
    assert_eq!(
        (
            setup.delivery.in_flight(),
            setup.metric("payrelay_in_flight ")
        ),
        (0, 0)
    );
    for _ in 0..answers.len() {
        setup.envelope().settle(Receipt::Ack);
    }
    assert_eq!(setup.metric("payrelay_receipts_total{result=\"late\"}"), 3);
    // The table is as it was: the next one is served like the first.
    let mut paid = setup.deliver("a");
    setup.envelope().settle(Receipt::Ack);
    assert_eq!(answer(&mut paid), Outcome::Delivered);
}

#[test]
fn silent_backends_leave_room_for_the_others() {
    let setup = Setup::open(PATIENCE, 8);
    let mut waiting = Vec::new();
    for (silent, most) in [("a", 4), ("b", 2), ("c", 1)] {
        for _ in 0..most {
            waiting.push(setup.deliver(silent));
        }
        assert_eq!(
            answer(&mut setup.deliver(silent)),
            Outcome::Busy,
            "{silent}"
        );
    }
    assert!(waiting.iter().all(Client::has_no_answer));
    let mut served = setup.deliver("d");
    let first = setup.envelope();
    std::iter::from_fn(|| setup.envelopes.try_recv().ok())
        .last()
        .expect("d's envelope")
        .settle(Receipt::Ack);
    assert_eq!(answer(&mut served), Outcome::Delivered);
    // Every other one was dropped, so told; what is free again may be used by anybody.
    assert_eq!(setup.delivery.in_flight(), 1);
    for _ in 0..3 {
        waiting.push(setup.deliver("a"));
    }
    assert_eq!(answer(&mut setup.deliver("a")), Outcome::Busy);
    first.settle(Receipt::Ack);
    assert_eq!(answer(&mut waiting[0]), Outcome::Delivered);
    assert!(setup.delivery.waits.sizes().by_backend == 1);
}

#[test]
fn what_is_concluded_does_not_pile_up_behind_a_wait_that_lasts() {
    let setup = Setup::open(Duration::from_secs(3600), 10);
    let _lasting = setup.deliver("silent");
    let _envelope = setup.envelope();
    for _ in 0..1000 {
        let mut paid = setup.deliver("quick");
        setup.envelope().settle(Receipt::Ack);
        assert_eq!(answer(&mut paid), Outcome::Delivered);
    }
    let sizes = setup.delivery.waits.sizes();
    assert!(sizes.due <= DUE_SPARE + 4, "{}", sizes.due);
    assert_eq!((sizes.waits, sizes.by_backend), (1, 1));
}

#[test]
fn a_drain_takes_nothing_new_and_waits_for_what_is_under_way() {
    let setup = Setup::open(PATIENCE, 10);
    let (mut first, mut second) = (setup.deliver("a"), setup.deliver("a"));
    let (envelope, untaken) = (setup.envelope(), setup.envelope());
    setup.delivery.begin_drain();
    assert_eq!(answer(&mut setup.deliver("a")), Outcome::Draining);
    assert!(setup.envelopes.is_empty());
    drop(untaken);
    assert_eq!(answer(&mut second), Outcome::Draining);
    assert!(!setup.delivery.wait_empty(Instant::now() + SOON));
    let paid = crate::thread::spawn("ack", SMALL_STACK_BYTES, move || {
        envelope.settle(Receipt::Ack);
    });
    assert!(setup.delivery.wait_empty(Instant::now() + PATIENCE));
    assert_eq!(answer(&mut first), Outcome::Delivered);
    drop(paid);
}

#[test]
fn a_drain_ends_with_the_last_deadline() {
    let setup = Setup::open(SOON, 10);
    let mut paid = setup.deliver("a");
    let _envelope = setup.envelope();
    setup.delivery.begin_drain();
    assert!(setup.delivery.wait_empty(Instant::now() + PATIENCE));
    assert_eq!(answer(&mut paid), Outcome::TimedOut);
}

#[test]
fn stopping_lets_every_answer_go() {
    let setup = Setup::open(PATIENCE, 10);
    let mut paid = setup.deliver("a");
    let envelope = setup.envelope();
    drop(setup.delivery);
    drop(envelope);
    // Whoever brought it has it back in one way or the other, and no thread is left to wait for.
    assert_eq!(answer(&mut paid), Outcome::Offline);
}

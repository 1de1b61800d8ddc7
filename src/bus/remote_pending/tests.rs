//! Counts, receipts and refusals in every order, and how long each is waited for.

use std::sync::Arc;

use super::*;
use crate::envelope::Receipts;
use crate::notification::{IdMint, Nack};

#[derive(Default)]
struct Log(Mutex<Vec<Receipt>>);

impl Receipts for Log {
    fn receipt(&self, _id: NotificationId, receipt: Receipt) {
        self.0.lock().push(receipt);
    }
}

struct Setup {
    pending: RemotePending,
    log: Arc<Log>,
    to: BackendId,
    mint: IdMint,
    now: Instant,
}

impl Setup {
    fn new() -> Self {
        Self {
            pending: RemotePending::new(Duration::from_secs(4)),
            log: Arc::default(),
            to: BackendId::parse("a").expect("an id"),
            mint: IdMint::new(0),
            now: Instant::now(),
        }
    }

    fn send(&self) -> NotificationId {
        let id = self.mint.mint(0);
        let reply = Reply::new(id, Arc::clone(&self.log) as Arc<dyn Receipts>);
        let until = self.now + Duration::from_secs(60);
        let sent = self.pending.register(&self.to, reply, Some(1), until);
        assert!(sent.is_ok());
        id
    }

    fn receipts(&self) -> Vec<Receipt> {
        std::mem::take(&mut *self.log.0.lock())
    }
}

#[test]
fn heard_by_nobody_is_gone_and_heard_by_one_waits_for_that_one() {
    let setup = Setup::new();
    setup.pending.counted(&setup.to, setup.send(), 0);
    assert_eq!(setup.receipts(), [Receipt::Gone]);
    let id = setup.send();
    setup.pending.counted(&setup.to, id, 1);
    assert_eq!(setup.receipts(), []);
    assert!(
        setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Busy, None)
    );
    assert!(
        !setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Ack, None),
        "too late"
    );
    assert_eq!(
        (setup.receipts(), setup.pending.len()),
        (vec![Receipt::Busy], 0)
    );
}

#[test]
fn a_receipt_may_be_faster_than_the_count() {
    let setup = Setup::new();
    let id = setup.send();
    assert!(
        setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Gone, None)
    );
    assert_eq!(setup.receipts(), [], "there may be another node");
    setup.pending.counted(&setup.to, id, 1);
    assert_eq!(setup.receipts(), [Receipt::Gone]);
    let id = setup.send();
    assert!(
        setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Ack, None)
    );
    setup.pending.counted(&setup.to, id, 1);
    assert_eq!(setup.receipts(), [Receipt::Ack]);
}

#[test]
fn while_a_backend_moves_only_the_last_refusal_decides_and_any_ack_does() {
    let setup = Setup::new();
    let id = setup.send();
    setup.pending.counted(&setup.to, id, 2);
    assert!(
        setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Busy, None)
    );
    assert_eq!(setup.receipts(), []);
    assert!(
        setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Gone, None)
    );
    assert_eq!(setup.receipts(), [Receipt::Busy], "it says more");
    let id = setup.send();
    setup.pending.counted(&setup.to, id, 2);
    assert!(
        setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Gone, None)
    );
    assert!(
        setup
            .pending
            .on_receipt(&setup.to, id, Some(1), Receipt::Nack(Nack::default()), None)
    );
    assert_eq!(setup.receipts(), [Receipt::Nack(Nack::default())]);
}

#[test]
fn what_nobody_answers_ends_and_earlier_when_the_backend_has_moved() {
    let setup = Setup::new();
    let after = |s| setup.now + Duration::from_secs(s);
    let (first, second) = (setup.send(), setup.send());
    setup.pending.counted(&setup.to, first, 1);
    setup.pending.fail(&setup.to, second, Receipt::Unreachable);
    assert_eq!(setup.receipts(), [Receipt::Unreachable]);
    setup.pending.sweep(after(59));
    assert_eq!(setup.receipts(), []);
    // A session that was there before is announced again: it may still answer.
    setup.pending.moved(&setup.to, 1, after(1));
    setup.pending.sweep(after(59));
    assert_eq!(setup.receipts(), []);
    setup.pending.moved(&setup.to, Stamp::MAX, after(10));
    setup.pending.sweep(after(14));
    assert_eq!(setup.receipts(), []);
    setup.pending.sweep(after(15));
    assert_eq!(
        (setup.receipts(), setup.pending.len()),
        (vec![Receipt::Gone], 0)
    );
}

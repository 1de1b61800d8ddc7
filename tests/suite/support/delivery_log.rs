//! What a test with losses knows by itself: what was posted where and answered ok, and what was acknowledged.
//!
//! Of two ACKs of one body the first was in vain. Whether that can be is for each test to judge, by what it has done meanwhile.

use std::collections::HashMap;

use parking_lot::Mutex;

/// A body, which is posted once.
pub struct PostedBody<P> {
    /// The node that it was posted to.
    pub origin: usize,
    /// When, as the test counts.
    pub at: P,
    /// The id under which it was answered ok, if it was.
    pub promised: Option<String>,
}

/// An ACK that a backend has written.
#[derive(Debug)]
pub struct AckRecord<A> {
    pub id: String,
    /// When and where, as the test counts.
    pub at: A,
    pub state: AckState,
}

/// What is known of an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckState {
    /// Written, and nothing heard yet.
    Written,
    /// A later PONG shows that the relay has read it.
    Read,
    /// Its connection broke before: it may not have arrived.
    Doubtful,
    /// The relay said that it came too late.
    TooLate,
}

/// An ACK of one body: the how manieth.
pub type AckNumber = (String, usize);

/// What providers and backends note.
pub struct DeliveryLog<P, A> {
    posts: Mutex<HashMap<String, PostedBody<P>>>,
    /// Of each body, in the order of the ACKs.
    acks: Mutex<HashMap<String, Vec<AckRecord<A>>>>,
}

impl<P, A> Default for DeliveryLog<P, A> {
    fn default() -> Self {
        Self {
            posts: Mutex::default(),
            acks: Mutex::default(),
        }
    }
}

impl<P, A> DeliveryLog<P, A> {
    /// `body` is about to be posted to the node `origin`.
    pub fn posts(&self, body: &str, origin: usize, at: P) {
        let post = PostedBody {
            origin,
            at,
            promised: None,
        };
        let before = self.posts.lock().insert(body.to_owned(), post);
        assert!(before.is_none(), "{body} is posted twice");
    }

    /// `body` was answered ok, as `id`.
    pub fn promised(&self, body: &str, id: &str) {
        if let Some(post) = self.posts.lock().get_mut(body) {
            post.promised = Some(id.to_owned());
        }
    }

    /// A backend is about to acknowledge `body`.
    pub fn acks(&self, body: &str, id: &str, at: A) -> AckNumber {
        let mut acks = self.acks.lock();
        let list = acks.entry(body.to_owned()).or_default();
        list.push(AckRecord {
            id: id.to_owned(),
            at,
            state: AckState::Written,
        });
        (body.to_owned(), list.len() - 1)
    }

    /// More is known of an ACK.
    pub fn becomes(&self, (body, number): &AckNumber, state: AckState) {
        if let Some(list) = self.acks.lock().get_mut(body)
            && list[*number].state == AckState::Written
        {
            list[*number].state = state;
        }
    }

    /// How many bodies were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acks.lock().len()
    }

    /// Shows `judge` each body with its ACKs, in their order.
    pub fn for_each(&self, mut judge: impl FnMut(&str, &PostedBody<P>, &[AckRecord<A>])) {
        let acks = self.acks.lock();
        for (body, post) in self.posts.lock().iter() {
            let list = acks.get(body).map_or(&[][..], Vec::as_slice);
            if let Some(id) = &post.promised {
                let same = list.iter().all(|ack| &ack.id == id);
                assert!(same, "{body} came under two ids");
            }
            judge(body, post, list);
        }
    }
}

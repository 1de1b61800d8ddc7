//! Many providers at once, each on a connection of its own that it keeps: one notification after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http::{RawHttp, post_request};
use super::{DEADLINE, let_pass, pause};

/// How long a steady provider waits between an answer and its next notification.
const BETWEEN: Duration = Duration::from_millis(5);

/// A notification to be posted.
#[derive(Clone, Debug)]
pub struct Shot {
    /// Where to.
    pub http: SocketAddr,
    /// The backend it is for.
    pub to: String,
    pub body: Vec<u8>,
}

/// What its provider was told.
#[derive(Clone, Debug)]
pub struct Answered {
    pub to: String,
    pub body: Vec<u8>,
    pub status: u16,
    pub outcome: String,
    pub id: String,
    /// When it was posted, and how long the answer took.
    pub posted: Instant,
    pub elapsed: Duration,
}

/// Posts going out.
pub struct Barrage {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Answered>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Barrage {
    /// One thread for each of `guns`, which posts what that gives until it gives nothing, or the barrage is ended.
    pub fn begin<G: FnMut() -> Option<Shot> + Send + 'static>(guns: Vec<G>) -> Self {
        Self::begin_every(Duration::ZERO, guns)
    }

    /// The same with a pause after each answer: what happens meanwhile needs a notification under way at each moment, not as many
    /// as the machine can take, which the tests beside it would miss.
    pub fn begin_steady<G: FnMut() -> Option<Shot> + Send + 'static>(guns: Vec<G>) -> Self {
        Self::begin_every(BETWEEN, guns)
    }

    fn begin_every<G: FnMut() -> Option<Shot> + Send + 'static>(
        between: Duration,
        guns: Vec<G>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = guns.into_iter().map(|gun| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || fire(gun, between, &shared))
        });
        Self {
            threads: threads.collect(),
            shared,
        }
    }

    /// Waits until `more` answers have come from now on.
    pub fn wait_for_more(&self, more: usize) {
        let enough = self.shared.answered.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + 2 * DEADLINE;
        while self.shared.answered.load(Ordering::SeqCst) < enough {
            assert!(
                Instant::now() < deadline && !self.threads.iter().any(JoinHandle::is_finished),
                "posts are not answered any more"
            );
            pause();
        }
    }

    /// Waits until all guns have given everything, and gives what was told.
    pub fn finish(mut self) -> Vec<Answered> {
        let threads = std::mem::take(&mut self.threads).into_iter();
        let shares = threads.map(|thread| thread.join().expect("a provider failed"));
        shares.flatten().collect()
    }

    /// Posts nothing new, and gives what was told.
    pub fn end(self) -> Vec<Answered> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.finish()
    }
}

impl Drop for Barrage {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn fire(
    mut gun: impl FnMut() -> Option<Shot>,
    between: Duration,
    shared: &Shared,
) -> Vec<Answered> {
    let mut connection: Option<(SocketAddr, RawHttp)> = None;
    let mut told = Vec::new();
    while !shared.stop.load(Ordering::SeqCst)
        && let Some(shot) = gun()
    {
        let request = post_request(&format!("/notify/{}", shot.to), &[], &shot.body);
        let kept = connection.take().filter(|(http, _)| *http == shot.http);
        let (http, mut raw) = kept.unwrap_or_else(|| (shot.http, RawHttp::connect(shot.http)));
        let posted = Instant::now();
        let answer = raw.exchange(&request);
        let answer = answer.unwrap_or_else(|e| panic!("a notification to {}: {e}", shot.to));
        told.push(Answered {
            to: shot.to,
            body: shot.body,
            status: answer.status,
            outcome: answer.outcome().to_owned(),
            id: answer.id().to_owned(),
            posted,
            elapsed: answer.elapsed,
        });
        if answer.header("connection") != Some("close") {
            connection = Some((http, raw));
        }
        shared.answered.fetch_add(1, Ordering::SeqCst);
        if !between.is_zero() {
            let_pass(between);
        }
    }
    told
}

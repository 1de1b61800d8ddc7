//! Many providers at once. Each has one connection, keeps it, and posts one notification after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http::{RawHttp, post_request};
use super::{DEADLINE, let_pass, pause};

/// How long a paced provider waits between an answer and its next notification.
const PAUSE: Duration = Duration::from_millis(5);

/// A notification that a provider is to post.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Where to.
    pub http: SocketAddr,
    /// The backend it is for.
    pub to: String,
    pub body: Vec<u8>,
}

/// A notification with the answer to its provider.
#[derive(Clone, Debug)]
pub struct AnsweredNotification {
    pub to: String,
    pub body: Vec<u8>,
    pub status: u16,
    pub outcome: String,
    pub id: String,
    /// When it was posted, and how long the answer took.
    pub posted: Instant,
    pub elapsed: Duration,
}

/// The providers at work.
pub struct Providers {
    state: Arc<ProvidersState>,
    threads: Vec<JoinHandle<Vec<AnsweredNotification>>>,
}

#[derive(Default)]
struct ProvidersState {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Providers {
    /// One thread for each of `sources`. It posts what its source gives, until that is `None` or [`Self::stop`] is called.
    pub fn start<S: FnMut() -> Option<Notification> + Send + 'static>(sources: Vec<S>) -> Self {
        Self::start_with_pause(Duration::ZERO, sources)
    }

    /// The same with a pause after each answer: what happens meanwhile needs a notification under way at each moment, not as many
    /// as the machine can take, which the tests beside it would miss.
    pub fn start_paced<S: FnMut() -> Option<Notification> + Send + 'static>(
        sources: Vec<S>,
    ) -> Self {
        Self::start_with_pause(PAUSE, sources)
    }

    fn start_with_pause<S: FnMut() -> Option<Notification> + Send + 'static>(
        pause_after: Duration,
        sources: Vec<S>,
    ) -> Self {
        let state = Arc::new(ProvidersState::default());
        let threads = sources.into_iter().map(|source| {
            let state = Arc::clone(&state);
            thread::spawn(move || post_all(source, pause_after, &state))
        });
        Self {
            threads: threads.collect(),
            state,
        }
    }

    /// Waits until `more` answers have come from now on.
    pub fn wait_for_more(&self, more: usize) {
        let enough = self.state.answered.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + 2 * DEADLINE;
        while self.state.answered.load(Ordering::SeqCst) < enough {
            assert!(
                Instant::now() < deadline && !self.threads.iter().any(JoinHandle::is_finished),
                "posts are not answered any more"
            );
            pause();
        }
    }

    /// Waits until every source is at its end; returns the answers.
    pub fn finish(mut self) -> Vec<AnsweredNotification> {
        let threads = std::mem::take(&mut self.threads).into_iter();
        let shares = threads.map(|thread| thread.join().expect("a provider failed"));
        shares.flatten().collect()
    }

    /// Posts nothing new; returns the answers.
    pub fn stop(self) -> Vec<AnsweredNotification> {
        self.state.stop.store(true, Ordering::SeqCst);
        self.finish()
    }
}

impl Drop for Providers {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn post_all(
    mut source: impl FnMut() -> Option<Notification>,
    pause_after: Duration,
    state: &ProvidersState,
) -> Vec<AnsweredNotification> {
    let mut connection: Option<(SocketAddr, RawHttp)> = None;
    let mut answered = Vec::new();
    while !state.stop.load(Ordering::SeqCst)
        && let Some(notification) = source()
    {
        let request = post_request(
            &format!("/notify/{}", notification.to),
            &[],
            &notification.body,
        );
        let last = connection
            .take()
            .filter(|(http, _)| *http == notification.http);
        let (http, mut raw) =
            last.unwrap_or_else(|| (notification.http, RawHttp::connect(notification.http)));
        let posted = Instant::now();
        let answer = raw.exchange(&request);
        let answer =
            answer.unwrap_or_else(|e| panic!("a notification to {}: {e}", notification.to));
        answered.push(AnsweredNotification {
            to: notification.to,
            body: notification.body,
            status: answer.status,
            outcome: answer.outcome().to_owned(),
            id: answer.id().to_owned(),
            posted,
            elapsed: answer.elapsed,
        });
        if answer.header("connection") != Some("close") {
            connection = Some((http, raw));
        }
        state.answered.fetch_add(1, Ordering::SeqCst);
        if !pause_after.is_zero() {
            let_pass(pause_after);
        }
    }
    answered
}

//! The providers' side of a run: all posts in one thread, on connections that are kept.
//!
//! With a rate, a notification is due at its time whether or not there is a connection for it, and its latency counts from
//! then: a relay that stalls is not spared the posts that the stall held up (no coordinated omission).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::answers::RelayAnswer;
use super::cpu;
use super::error::BenchError;
use super::histogram::Histogram;
use super::load_thread::LoadThread;
use super::plan::{Plan, Until};
use super::poller::{BELL, Bell, Poller};
use super::provider_connection::ProviderConnection;
use super::run_state::RunState;
use super::stamp::{BodyStamp, NOTIFICATIONS_MAX};
use crate::cli::send::answer::is_ok_outcome;

/// How long an answer may take before the post counts as unanswered; `delivery.ack_deadline` is 4 s by default.
const ANSWER_DEADLINE_NS: u64 = 60 * SECOND_NS;

/// A connection that was idle for so long is not used again: the relay closes it after 60 s, perhaps just now.
const IDLE_NS_MAX: u64 = 30 * SECOND_NS;

const SECOND_NS: u64 = 1_000_000_000;

/// How often deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The most different outcomes told apart; a relay has about twenty.
const OUTCOMES_MAX: usize = 32;

/// What the providers have seen.
#[derive(Debug, Default)]
pub struct ProviderStats {
    /// From when it was due to its answer.
    pub latency: Histogram,
    /// How many answers of each outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Answered `delivered` before its backend had it.
    pub early: u64,
    /// Posts whose connection ended, or whose time was up, without an answer.
    pub unanswered: u64,
    /// Due, and not posted when the time was up: the rate was not kept.
    pub unsent: u64,
    /// When the first post was begun, in nanoseconds since the run's clock was started.
    pub began_ns: u64,
    /// From then until no more were posted.
    pub took: Duration,
    /// Processor time of the thread since its start.
    pub cpu: Duration,
    /// Why it ended before its time.
    pub error: Option<BenchError>,
}

/// Opens all connections, and begins.
///
/// # Errors
/// The system has no room, or the relay is not there.
pub fn start(plan: &Arc<Plan>, state: &Arc<RunState>) -> io::Result<LoadThread<ProviderStats>> {
    let bell = Bell::new()?;
    let poller = Poller::new(&bell)?;
    let mut crowd = Crowd {
        connections: Vec::new(),
        free: Vec::new(),
        poller,
        plan: Arc::clone(plan),
        state: Arc::clone(state),
        next: 0,
        in_flight: 0,
        posting: true,
        seen: ProviderStats::default(),
    };
    for number in 0..plan.concurrency {
        let mut connection = ProviderConnection::at(number);
        connection.open(&crowd.plan, &crowd.poller, state.now_ns())?;
        crowd.connections.push(connection);
    }
    crowd.free = (0..plan.concurrency).rev().collect();
    LoadThread::start("bench-providers", bell, move || crowd.run())
}

/// All providers, in their thread.
struct Crowd {
    connections: Vec<ProviderConnection>,
    /// Connections without a post; the last used comes first.
    free: Vec<usize>,
    poller: Poller,
    plan: Arc<Plan>,
    state: Arc<RunState>,
    /// The number of the next post.
    next: u64,
    in_flight: usize,
    posting: bool,
    seen: ProviderStats,
}

impl Crowd {
    fn run(mut self) -> ProviderStats {
        self.seen.began_ns = self.state.now_ns();
        let mut looked_ns = self.seen.began_ns;
        let mut ready = Vec::new();
        let ended = loop {
            if let Err(error) = self.post_what_is_due() {
                break Some(BenchError::Connect(error));
            }
            if !self.posting && self.in_flight == 0 {
                break None;
            }
            if let Err(error) = self.poller.wait(self.patience(), &mut ready) {
                break Some(BenchError::Poll(error));
            }
            let now_ns = self.state.now_ns();
            for &number in &ready {
                match number {
                    BELL => self.stop(now_ns),
                    number => self.serve(number as usize, now_ns),
                }
            }
            if now_ns - looked_ns >= SECOND_NS {
                looked_ns = now_ns;
                self.give_up_the_silent(now_ns);
            }
        };
        let now_ns = self.state.now_ns();
        self.stop(now_ns);
        self.seen.unanswered += self.in_flight as u64;
        self.seen.error = ended;
        self.seen.cpu = cpu::of_this_thread();
        self.seen
    }

    /// When notification `n` is due; without a rate, now.
    fn due_ns(&self, n: u64, now_ns: u64) -> u64 {
        let Some(rate) = self.plan.rate else {
            return now_ns;
        };
        let after = u128::from(n) * u128::from(SECOND_NS) / u128::from(rate);
        self.seen.began_ns + after as u64
    }

    /// Posts on every free connection what is due.
    fn post_what_is_due(&mut self) -> io::Result<()> {
        while self.posting {
            let now_ns = self.state.now_ns();
            let due_ns = self.due_ns(self.next, now_ns);
            if self.is_over(self.next, due_ns.max(now_ns)) {
                self.stop(now_ns);
                break;
            }
            if due_ns > now_ns {
                break;
            }
            let Some(number) = self.free.pop() else {
                break;
            };
            let connection = &mut self.connections[number];
            if connection.socket.is_none() || now_ns - connection.used_ns > IDLE_NS_MAX {
                connection.open(&self.plan, &self.poller, now_ns)?;
            }
            let post = BodyStamp {
                run: self.plan.run,
                n: self.next,
                at_ns: due_ns,
            };
            self.next += 1;
            self.in_flight += 1;
            self.state.posted.store(self.next, Ordering::SeqCst);
            connection.used_ns = now_ns;
            connection.begin(post, &self.plan);
            // A connection that is broken is read to its end: the answer may say why.
            if connection.write(&self.plan).is_err() {
                self.serve(number, now_ns);
            }
        }
        Ok(())
    }

    /// Whether notification `n` is not to be posted any more at `at_ns`.
    fn is_over(&self, n: u64, at_ns: u64) -> bool {
        match self.plan.until {
            Until::Total(total) => n >= total,
            Until::Passed(time) => {
                u128::from(at_ns - self.seen.began_ns) >= time.as_nanos() || n >= NOTIFICATIONS_MAX
            }
        }
    }

    /// Posts no more. What is due by now and was not posted counts with the time that it has waited so far.
    fn stop(&mut self, now_ns: u64) {
        if !self.posting {
            return;
        }
        self.posting = false;
        self.seen.took = Duration::from_nanos(now_ns - self.seen.began_ns);
        // Without a rate nothing is due before now.
        for n in self.next.. {
            let due_ns = self.due_ns(n, now_ns);
            if due_ns >= now_ns || self.is_over(n, due_ns) {
                break;
            }
            self.seen.unsent += 1;
            self.seen.latency.record(now_ns - due_ns);
        }
    }

    /// How long there is nothing to do but wait for answers.
    fn patience(&self) -> Duration {
        if !self.posting || self.free.is_empty() || self.plan.rate.is_none() {
            return LOOK_EVERY;
        }
        let now_ns = self.state.now_ns();
        let due_ns = self.due_ns(self.next, now_ns);
        Duration::from_nanos(due_ns.saturating_sub(now_ns)).min(LOOK_EVERY)
    }

    /// Does what a connection is ready for.
    fn serve(&mut self, number: usize, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let broken = connection.write(&self.plan).is_err();
        let over = connection.read() || broken;
        let Some(post) = connection.post else {
            // Idle, and closed by the relay; or something came that nobody asked for.
            if over || !connection.came.is_empty() {
                connection.socket = None;
            }
            return;
        };
        let came = std::mem::take(&mut connection.came);
        match RelayAnswer::find(&came) {
            Ok(Some(answer)) => {
                if over || answer.closes || answer.bytes < came.len() {
                    connection.socket = None;
                }
                self.answered(post, answer, now_ns);
                self.release(number, now_ns);
            }
            Ok(None) if !over => {
                connection.came = came;
                return;
            }
            Ok(None) | Err(_) => self.lose(number, now_ns),
        }
        // The buffer is kept for the next.
        let connection = &mut self.connections[number];
        connection.came = came;
        connection.came.clear();
    }

    fn answered(&mut self, post: BodyStamp, answer: RelayAnswer<'_>, now_ns: u64) {
        let outcomes = &mut self.seen.outcomes;
        if let Some(count) = outcomes.get_mut(answer.outcome) {
            *count += 1;
        } else {
            let name = match answer.outcome {
                _ if outcomes.len() >= OUTCOMES_MAX => "other".to_owned(),
                "" => format!("http-{}", answer.status),
                outcome => outcome.to_owned(),
            };
            *outcomes.entry(name).or_default() += 1;
        }
        if is_ok_outcome(answer.outcome) {
            self.state.ok.set(post.n);
        }
        if answer.outcome == "delivered" && !self.state.arrived.has(post.n) {
            self.seen.early += 1;
        }
        self.state.answered.fetch_add(1, Ordering::Relaxed);
        let latency = &mut self.seen.latency;
        latency.record(now_ns.saturating_sub(post.at_ns));
    }

    /// The post on a connection gets no answer any more.
    fn lose(&mut self, number: usize, now_ns: u64) {
        self.seen.unanswered += 1;
        self.connections[number].socket = None;
        self.release(number, now_ns);
    }

    fn release(&mut self, number: usize, now_ns: u64) {
        let connection = &mut self.connections[number];
        connection.post = None;
        connection.used_ns = now_ns;
        self.in_flight -= 1;
        self.free.push(number);
    }

    fn give_up_the_silent(&mut self, now_ns: u64) {
        for number in 0..self.connections.len() {
            let ProviderConnection { post, used_ns, .. } = &self.connections[number];
            if post.is_some() && now_ns.saturating_sub(*used_ns) >= ANSWER_DEADLINE_NS {
                self.lose(number, now_ns);
            }
        }
    }
}

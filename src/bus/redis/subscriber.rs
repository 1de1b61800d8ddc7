//! The thread that owns the subscribing connection to one primary and blocks in it.
//!
//! No other thread can subscribe on that connection. A session or listener puts its topic into the link's requests and wakes
//! the thread through Redis; the thread then looks whether the topic is wanted *now*. So two sessions that come and go in any
//! order leave the right subscription behind, and a new connection subscribes to all that is wanted.

mod wanted;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use redis::Value;

use super::RECONNECT;
use super::connection::RedisConnection;
use super::health::SILENCE_MAX;
use super::link::{LinkError, Server};
use super::names::Bucket;
use super::parts::BusParts;
use super::queue::PublishQueue;
use super::resp;
use super::subscriptions::{ByBucket, Carries, ChannelSubscriptions};
use crate::backoff::Backoff;
use crate::heartbeat::{self, Pulse, Role};
use crate::thread::JoinOnDrop;

/// How long something wanted may be unconfirmed before the node says that it does not hear everything.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(1);

/// How often a link that has no bucket yet looks for one.
const NO_BUCKET_WAIT: Duration = Duration::from_millis(20);

/// Starts the thread. It ends when `queue` is told to leave, at its next message; `stopped` ends its wait for the next try.
///
/// # Errors
/// The system has no room for another thread.
pub fn start(
    server: Server,
    queue: Arc<PublishQueue>,
    parts: Arc<BusParts>,
    stopped: Receiver<()>,
) -> io::Result<JoinOnDrop> {
    let mut work = Work {
        server,
        queue,
        parts,
        subscriptions: ChannelSubscriptions::default(),
        buckets: Vec::new(),
        version: 0,
        canary_at: Instant::now(),
        has_canary: false,
        wants_canary: false,
        deaf: Vec::new(),
        stands: false,
    };
    let role = Role::vital(
        super::thread_name("bus-subscriber", work.queue.number),
        "nothing is heard from other nodes",
    );
    heartbeat::supervise(role, super::STACK_BYTES, move |pulse| {
        work.run(pulse, &stopped);
    })
}

struct Work {
    server: Server,
    queue: Arc<PublishQueue>,
    parts: Arc<BusParts>,
    subscriptions: ChannelSubscriptions,
    /// The buckets of this link, in order, as far as this thread knows.
    buckets: Vec<Bucket>,
    /// The version of the router's table that they are of.
    version: u64,
    /// When the last canary came.
    canary_at: Instant,
    /// One has come on the present connection.
    has_canary: bool,
    /// Something was subscribed to anew: once that is confirmed, the next canary is wanted at once, for until then its bucket is
    /// not up.
    wants_canary: bool,
    /// Buckets that were not heard for a while and whose channels are being subscribed to.
    deaf: Vec<Bucket>,
    /// Health was told that everything stands.
    stands: bool,
}

impl Work {
    fn run(&mut self, pulse: &Pulse, stopped: &Receiver<()>) {
        if !self.buckets.is_empty() {
            self.lose(LinkError("the thread that subscribes has panicked".into()));
        }
        let mut backoff = RECONNECT;
        loop {
            pulse.idle(); // while it connects, too: Redis may take its time, and the bus itself says so
            if !self.wait_for_buckets(stopped) {
                return;
            }
            let Err(why) = self.listen(pulse, &mut backoff) else {
                return self.forget();
            };
            pulse.idle();
            self.lose(why);
            match stopped.recv_timeout(backoff.next_wait()) {
                Err(error) if error.is_timeout() => {}
                Ok(()) | Err(_) => return,
            }
        }
    }

    /// The connection is gone, and with it every subscription.
    fn lose(&mut self, why: LinkError) {
        self.forget();
        let router = &self.parts.router;
        let buckets = router.buckets_of(&self.queue);
        let wanted = self.wanted(&buckets).len() + self.own(&buckets).len();
        let health = &self.parts.health;
        health.subscriptions(self.queue.number, wanted, 0);
        health.subscriber(self.queue.number, Err(why));
        router.look_now();
    }

    fn forget(&mut self) {
        self.subscriptions
            .clear()
            .into_iter()
            .for_each(|ready| ready());
        self.queue.requests.close();
        self.queue.unsettled.store(false, Ordering::Relaxed);
    }

    /// Waits until the link has a bucket: without one there is no channel to be woken on. `false`: the link ends.
    fn wait_for_buckets(&self, stopped: &Receiver<()>) -> bool {
        while self.parts.router.buckets_of(&self.queue).is_empty() {
            match stopped.recv_timeout(NO_BUCKET_WAIT) {
                Err(error) if error.is_timeout() => {}
                Ok(()) | Err(_) => return false,
            }
        }
        true
    }

    /// Listens until it is told to stop, or the connection is lost.
    fn listen(&mut self, pulse: &Pulse, backoff: &mut Backoff) -> Result<(), LinkError> {
        let mut connection = self.server.connect(Some(SILENCE_MAX))?;
        self.canary_at = Instant::now();
        (self.has_canary, self.stands) = (false, false);
        (self.buckets, self.deaf, self.version) = (Vec::new(), Vec::new(), 0);
        self.queue.take_reconnect();
        // Opened before everything is looked at: what comes after the look is asked for.
        self.queue.requests.open();
        self.follow_buckets(&mut connection)?;
        loop {
            self.receive(pulse, &mut connection)?;
            if self.queue.is_leaving() {
                return Ok(());
            }
            if let Some(why) = self.queue.take_reconnect() {
                return Err(why);
            }
            self.follow_buckets(&mut connection)?;
            self.answer_requests(&mut connection)?;
            self.ask_again(&mut connection)?;
            if self.wants_canary && self.subscriptions.all_confirmed() {
                self.wants_canary = false;
                self.queue.ask_for_canary();
            }
            self.judge(backoff)?;
        }
    }

    /// Tells health whether everything wanted is heard.
    fn judge(&mut self, backoff: &mut Backoff) -> Result<(), LinkError> {
        if self.canary_at.elapsed() > SILENCE_MAX {
            return Err(LinkError(
                "this node does not receive its own canary".into(),
            ));
        }
        let confirmed = self.subscriptions.all_confirmed();
        self.queue.unsettled.store(!confirmed, Ordering::Relaxed);
        let health = &self.parts.health;
        // That Redis has confirmed is not enough: a node that may not publish would hear nothing, not even itself.
        if confirmed && self.has_canary {
            if !self.deaf.is_empty() {
                self.parts.hears_again(&std::mem::take(&mut self.deaf));
            }
            if !self.stands {
                self.stands = true;
                backoff.reset();
                health.subscriber(self.queue.number, Ok(()));
            }
        } else if self.stands && !confirmed {
            let missing_for = self.subscriptions.missing_for(Instant::now());
            if missing_for > UNCONFIRMED_MAX {
                self.stands = false;
                let why = "Redis does not confirm a subscription that this node needs";
                health.subscriber(self.queue.number, Err(LinkError(why.into())));
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        pulse: &Pulse,
        connection: &mut RedisConnection,
    ) -> Result<(), LinkError> {
        pulse.idle();
        let received = connection.receive();
        pulse.busy();
        let message = match received {
            Ok(message) => message,
            Err(error) if error.is_timeout() => {
                let silent = format!("silent for {} s", SILENCE_MAX.as_secs());
                return Err(LinkError(silent));
            }
            // The slot is another primary's, or nobody's at the moment: the topology says whose.
            Err(error) if matches!(error.code(), Some("MOVED" | "CLUSTERDOWN" | "TRYAGAIN")) => {
                self.parts.router.look_now();
                return Ok(());
            }
            Err(error) => return Err(LinkError::from(error)),
        };
        let Some((kind, channel, payload)) = resp::message(&message) else {
            return Ok(()); // no message of a subscription
        };
        match kind {
            b"message" | b"smessage" => {
                if let Value::BulkString(payload) = payload {
                    self.on_message(connection, channel, payload)?;
                }
            }
            b"subscribe" | b"ssubscribe" => self.on_confirmed(channel),
            b"unsubscribe" | b"sunsubscribe" => {
                if self.subscriptions.ended(channel, Instant::now()) {
                    self.wants_canary = true;
                    if let Some((bucket, _)) = self.subscriptions.carries(channel)
                        && !self.deaf.contains(&bucket)
                    {
                        self.deaf.push(bucket);
                    }
                    self.parts.router.look_now();
                }
                self.count();
            }
            _ => {}
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        connection: &mut RedisConnection,
        channel: &str,
        payload: &[u8],
    ) -> Result<(), LinkError> {
        let Some((bucket, carries)) = self.subscriptions.carries(channel) else {
            return Ok(());
        };
        let Carries::Topic(topic) = carries else {
            if self.parts.own(bucket, payload) {
                self.canary_at = Instant::now();
                self.has_canary = true;
            }
            return Ok(());
        };
        let perhaps_unwanted = self.parts.on(topic, payload);
        if perhaps_unwanted
            && !self.parts.wants(topic)
            && let Some((bucket, waiting)) = self.subscriptions.leave(channel)
        {
            let names = ByBucket::from([(bucket, vec![channel.to_owned()])]);
            let verb = self.parts.router.names.verbs.unsubscribe;
            self.command(connection, verb, &names)?;
            // A listener that listens once may have heard before it was told that it is heard.
            waiting.into_iter().for_each(|ready| ready());
        }
        Ok(())
    }

    fn on_confirmed(&mut self, channel: &str) {
        if let Some((carries, waiting)) = self.subscriptions.confirmed(channel) {
            if let Carries::Topic(topic) = carries {
                self.parts.stands(&topic);
            }
            waiting.into_iter().for_each(|ready| ready());
        }
        self.count();
    }
}

//! The way in from Redis: a thread that owns its connection and blocks in it.
//!
//! Nobody else can subscribe on that connection. Whoever wants something puts the topic into [`Asks`] and wakes the
//! thread through Redis; the thread then looks whether the topic is wanted *now*. So two sessions that come and go in
//! any order leave behind what is right, and a connection that is new subscribes to all that is wanted.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use redis::{Connection, Value};

use super::backoff::Backoff;
use super::health::{Health, SILENCE_MAX};
use super::link::{self, Place, Trouble};
use super::post::Post;
use crate::bus::{Reach, Ready, Topic};
use crate::thread::{self, JoinOnDrop};

/// Channels in one SUBSCRIBE.
const SUBSCRIBE_MAX: usize = 512;

/// What the thread hears is given to this.
pub trait Ear: Send {
    /// A message on this node's own channel or on that of all nodes. A canary's word is given back.
    fn own(&mut self, message: &[u8]) -> Option<u64>;

    /// A message for `topic`; whether the topic may not be wanted any more.
    fn on(&mut self, topic: &Topic, message: &[u8]) -> bool;

    /// Whether this node wants to hear of `topic`.
    fn wants(&self, topic: &Topic) -> bool;

    /// Everything it wants to hear of.
    fn wanted(&self) -> Vec<Topic>;

    /// `topic` is heard from now on.
    fn stands(&mut self, topic: &Topic);

    /// Everything that is wanted is heard, after a time of deafness.
    fn hears_again(&mut self);
}

/// Topics to look at.
#[derive(Default)]
pub struct Asks {
    inner: Mutex<Asked>,
    some: AtomicBool,
}

#[derive(Default)]
struct Asked {
    /// The thread has a connection. If not, it will look at everything once it has.
    open: bool,
    /// Each comes from a session or a listener that came or went, and waits for one round trip.
    list: Vec<(Topic, Option<Ready>)>,
}

impl Asks {
    /// Asks to look at `topic`; `None`: there is no connection.
    pub fn ask(&self, topic: Topic, ready: Option<Ready>, post: &Post) -> Option<Reach> {
        let mut asked = self.inner.lock();
        if !asked.open {
            return None;
        }
        let reach = ready.as_ref().map_or(Reach::Settled, |_| Reach::Soon);
        asked.list.push((topic, ready));
        drop(asked);
        self.some.store(true, Ordering::Release);
        post.wake_subscriber();
        Some(reach)
    }

    /// Asks from the thread itself, which looks after each message and needs no waking.
    pub fn note(&self, topic: Topic) {
        self.inner.lock().list.push((topic, None));
        self.some.store(true, Ordering::Release);
    }

    fn open(&self) {
        self.inner.lock().open = true;
    }

    fn take(&self) -> Vec<(Topic, Option<Ready>)> {
        if !self.some.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.inner.lock().list)
    }

    /// Nobody can be kept waiting for a connection that is gone.
    fn close(&self) {
        let left = {
            let mut asked = self.inner.lock();
            asked.open = false;
            std::mem::take(&mut asked.list)
        };
        for ready in left.into_iter().filter_map(|(_, ready)| ready) {
            ready();
        }
    }
}

/// The thread.
pub struct Subscriber {
    stopping: Arc<AtomicBool>,
    post: Arc<Post>,
    _stop: Sender<()>, // dropped before the thread: it ends a wait for the next try
    _thread: JoinOnDrop,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // If Redis is dead, its silence ends the read.
        self.post.wake_subscriber();
    }
}

/// What the thread works with.
pub struct Tools<E> {
    pub place: Arc<Place>,
    /// This node's own channel, and that of all nodes.
    pub own: [String; 2],
    /// The channel of a topic.
    pub name: Box<dyn Fn(&Topic) -> String + Send>,
    pub ear: E,
    pub asks: Arc<Asks>,
    pub health: Arc<Health>,
    pub post: Arc<Post>,
}

impl Subscriber {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start<E: Ear + 'static>(tools: Tools<E>) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let stopping = Arc::new(AtomicBool::new(false));
        let post = Arc::clone(&tools.post);
        let work = Work {
            tools,
            stopping: Arc::clone(&stopping),
            book: HashMap::new(),
            unconfirmed: 0,
            canary: Instant::now(),
            sung: false,
        };
        let thread = thread::spawn("bus-subscribe", super::STACK_BYTES, move || {
            work.run(&stopped);
        })?;
        Ok(Self {
            stopping,
            post,
            _stop: stop,
            _thread: thread,
        })
    }
}

/// What is subscribed to on the present connection.
struct Entry {
    /// `None`: one of the node's own two.
    topic: Option<Topic>,
    wanted: bool,
    /// SUBSCRIBEs that Redis has not confirmed.
    unconfirmed: u32,
    waiting: Vec<Ready>,
}

struct Work<E> {
    tools: Tools<E>,
    stopping: Arc<AtomicBool>,
    book: HashMap<String, Entry>,
    /// In all of the book.
    unconfirmed: usize,
    canary: Instant,
    /// A canary was heard on the present connection.
    sung: bool,
}

impl<E: Ear> Work<E> {
    fn run(mut self, stopped: &Receiver<()>) {
        let mut backoff = Backoff::default();
        loop {
            let ended = self.listen(&mut backoff);
            for entry in self.book.drain().map(|(_, entry)| entry) {
                entry.waiting.into_iter().for_each(|ready| ready());
            }
            self.tools.asks.close();
            let Err(why) = ended else { return };
            let wanted = self.tools.own.len() + self.tools.ear.wanted().len();
            self.tools.health.subscriptions(wanted, 0);
            self.tools.health.subscriber(Err(why));
            match stopped.recv_timeout(backoff.next()) {
                Err(error) if error.is_timeout() => {}
                Ok(()) | Err(_) => return,
            }
        }
    }

    /// Hears until it is told to stop, or the connection is lost.
    fn listen(&mut self, backoff: &mut Backoff) -> Result<(), Trouble> {
        let mut connection = self.tools.place.connect(Some(SILENCE_MAX))?;
        self.unconfirmed = 0;
        self.canary = Instant::now();
        self.sung = false;
        let own = self.tools.own.clone();
        self.subscribe(&mut connection, own.map(|name| (name, None)).into())?;
        // Opened before everything is looked at: what comes after the look is asked for.
        self.tools.asks.open();
        let wanted = self.tools.ear.wanted();
        let named = wanted.into_iter().map(|topic| self.named(topic));
        let named: Vec<_> = named.collect();
        self.subscribe(&mut connection, named)?;
        let (mut standing, mut hearing) = (false, false);
        loop {
            let message =
                link::receive(&mut connection).map_err(|error| match error.is_timeout() {
                    true => Trouble(format!("silent for {} s", SILENCE_MAX.as_secs())),
                    false => Trouble::from(error),
                })?;
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.hear(&mut connection, message)?;
            self.look_at_asks(&mut connection)?;
            if !standing && self.unconfirmed == 0 {
                standing = true;
                self.tools.post.sing();
            }
            // That Redis has confirmed is not enough: a node that may not publish would hear nothing, not even itself.
            if standing && self.sung && !hearing {
                hearing = true;
                *backoff = Backoff::default();
                self.tools.ear.hears_again();
                self.tools.health.subscriber(Ok(()));
            }
            if self.canary.elapsed() > SILENCE_MAX {
                return Err(Trouble("this node does not hear its own canary".into()));
            }
        }
    }

    fn named(&self, topic: Topic) -> (String, Option<Topic>) {
        ((self.tools.name)(&topic), Some(topic))
    }

    fn look_at_asks(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let asked = self.tools.asks.take();
        if asked.is_empty() {
            return Ok(());
        }
        // Each topic is looked at once, however often it was asked about: two looks could see a session come and go, and
        // the commands would leave in the wrong order.
        let mut topics: HashMap<Topic, Vec<Ready>> = HashMap::new();
        for (topic, ready) in asked {
            topics.entry(topic).or_default().extend(ready);
        }
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for (topic, ready) in topics {
            let wants = self.tools.ear.wants(&topic);
            let name = (self.tools.name)(&topic);
            match (wants, self.book.get_mut(&name)) {
                (true, Some(entry)) if entry.wanted && entry.unconfirmed == 0 => {
                    // Who waits is new, even if the topic is not: others may hold an older session.
                    if !ready.is_empty() {
                        self.tools.ear.stands(&topic);
                    }
                    ready.into_iter().for_each(|ready| ready());
                }
                (true, Some(entry)) if entry.wanted => entry.waiting.extend(ready),
                (true, _) => {
                    self.enter(&name, Some(topic)).waiting.extend(ready);
                    wanted.push(name);
                }
                (false, entry) => {
                    if let Some(entry) = entry
                        && std::mem::replace(&mut entry.wanted, false)
                    {
                        entry.waiting.drain(..).for_each(|ready| ready());
                        unwanted.push(name);
                    }
                    ready.into_iter().for_each(|ready| ready());
                }
            }
        }
        self.command(connection, b"UNSUBSCRIBE", &unwanted)?;
        self.command(connection, b"SUBSCRIBE", &wanted)?;
        self.count();
        Ok(())
    }

    fn subscribe(
        &mut self,
        connection: &mut Connection,
        topics: Vec<(String, Option<Topic>)>,
    ) -> Result<(), Trouble> {
        let mut names = Vec::with_capacity(topics.len());
        for (name, topic) in topics {
            self.enter(&name, topic);
            names.push(name);
        }
        self.command(connection, b"SUBSCRIBE", &names)?;
        self.count();
        Ok(())
    }

    /// Notes that `name` is about to be subscribed to.
    fn enter(&mut self, name: &str, topic: Option<Topic>) -> &mut Entry {
        self.unconfirmed += 1;
        let entry = self.book.entry(name.to_owned()).or_insert(Entry {
            topic,
            wanted: true,
            unconfirmed: 0,
            waiting: Vec::new(),
        });
        entry.wanted = true;
        entry.unconfirmed += 1;
        entry
    }

    fn command(
        &self,
        connection: &mut Connection,
        verb: &[u8],
        names: &[String],
    ) -> Result<(), Trouble> {
        for names in names.chunks(SUBSCRIBE_MAX) {
            let mut parts = vec![verb];
            parts.extend(names.iter().map(|name| name.as_bytes()));
            let mut bytes = Vec::new();
            link::command(&mut bytes, &parts);
            connection.send_packed_command(&bytes)?;
        }
        Ok(())
    }

    fn count(&self) {
        let standing = self.book.len().saturating_sub(self.unconfirmed);
        self.tools.health.subscriptions(self.book.len(), standing);
    }

    fn hear(&mut self, connection: &mut Connection, message: Value) -> Result<(), Trouble> {
        let Some((kind, channel, payload)) = parts(&message) else {
            return Ok(()); // no message of a subscription
        };
        match kind {
            b"message" => {
                let Value::BulkString(payload) = payload else {
                    return Ok(());
                };
                self.take(connection, channel, payload)
            }
            b"subscribe" => {
                self.confirmed(channel);
                Ok(())
            }
            b"unsubscribe" => {
                if self
                    .book
                    .get(channel)
                    .is_some_and(|entry| !entry.wanted && entry.unconfirmed == 0)
                {
                    self.book.remove(channel);
                    self.count();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take(
        &mut self,
        connection: &mut Connection,
        channel: &str,
        payload: &[u8],
    ) -> Result<(), Trouble> {
        let Some(entry) = self.book.get(channel) else {
            return Ok(());
        };
        let Some(topic) = &entry.topic else {
            if let Some(word) = self.tools.ear.own(payload) {
                self.canary = Instant::now();
                self.sung = true;
                self.tools.health.canary(word);
            }
            return Ok(());
        };
        let perhaps_unwanted = self.tools.ear.on(topic, payload);
        if perhaps_unwanted && !self.tools.ear.wants(topic) && entry.wanted {
            let name = channel.to_owned();
            self.command(connection, b"UNSUBSCRIBE", std::slice::from_ref(&name))?;
            if let Some(entry) = self.book.get_mut(&name) {
                entry.wanted = false;
                // A listener that listens once may have heard before it was told that it is heard.
                entry.waiting.drain(..).for_each(|ready| ready());
            }
        }
        Ok(())
    }

    fn confirmed(&mut self, channel: &str) {
        let Some(entry) = self.book.get_mut(channel) else {
            return;
        };
        if entry.unconfirmed == 0 {
            return;
        }
        entry.unconfirmed -= 1;
        self.unconfirmed -= 1;
        if entry.unconfirmed == 0 && entry.wanted {
            let waiting = std::mem::take(&mut entry.waiting);
            if let Some(topic) = &entry.topic {
                self.tools.ear.stands(topic);
            }
            waiting.into_iter().for_each(|ready| ready());
        }
        self.count();
    }
}

/// The three parts of whatever a subscribed connection hears.
fn parts(message: &Value) -> Option<(&[u8], &str, &Value)> {
    let Value::Array(parts) = message else {
        return None;
    };
    let [Value::BulkString(kind), Value::BulkString(channel), last] = &parts[..] else {
        return None;
    };
    Some((kind, std::str::from_utf8(channel).ok()?, last))
}

//! Waiting for many sockets at once, by one thread; with a bell, so that others can wake it. And a thread's sidelines: others'
//! sockets that it looks at too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

/// The descriptors of a [`Readiness`]: what it waits with, and its bell.
pub const FDS: usize = 2;

/// How many sockets are told of before the system is asked again.
const EVENTS_MAX: usize = 64;

/// Stands for the bell among the numbers of sockets.
const BELL: u64 = u64::MAX;

/// The sockets that somebody waits for, each under a number below [`u64::MAX`].
#[derive(Debug)]
pub struct Readiness {
    epoll: OwnedFd,
    bell: OwnedFd,
}

/// What was waited for.
pub struct Ready {
    events: Vec<epoll::Event>,
}

impl Readiness {
    /// Nothing is waited for yet but the bell.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &bell,
            epoll::EventData::new_u64(BELL),
            epoll::EventFlags::IN,
        )?;
        Ok(Self { epoll, bell })
    }

    /// From now on `socket` is told of, as `number`, whenever something can be read from it, its end included.
    ///
    /// # Errors
    /// The system has no memory for one more, or may not watch so many.
    pub fn add(&self, socket: impl AsFd, number: u64) -> io::Result<()> {
        epoll::add(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN | epoll::EventFlags::RDHUP,
        )?;
        Ok(())
    }

    /// From now on `socket` is not told of any more, but for what [`Readiness::wait`] has told already.
    pub fn remove(&self, socket: impl AsFd) {
        // It fails when the system has forgotten the socket, which is just as well.
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Wakes who waits.
    pub fn ring(&self) {
        // It fails only when it has been rung 2^64 times.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Tells in `ready` which sockets are ready, without waiting. A bell is not heard.
    pub fn look(&self, ready: &mut Ready) {
        ready.events.clear();
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // If the system does not let us, the next look may find more.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut ready.events), Some(&now));
        ready.events.retain(|event| event.data.u64() != BELL);
    }

    /// Waits for a socket, the bell, or `until`; tells of some dozens at once in `ready`, and whether the bell was rung.
    ///
    /// # Errors
    /// The system does not let us wait; `ready` is empty.
    pub fn wait(&self, ready: &mut Ready, until: Option<Instant>) -> io::Result<bool> {
        ready.events.clear();
        let timeout = until.map(|until| {
            let wait = until.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: wait.as_secs() as _,
                tv_nsec: wait.subsec_nanos() as _,
            }
        });
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut ready.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let rung = ready
            .events
            .iter()
            .position(|event| event.data.u64() == BELL);
        if let Some(at) = rung {
            ready.events.remove(at);
            let _ = rustix::io::read(&self.bell, &mut [0; 8]); // there is nothing but the count in it
        }
        Ok(rung.is_some())
    }
}

/// So that one can be waited for by another: readable while a socket is ready.
impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            events: Vec::with_capacity(EVENTS_MAX),
        }
    }
}

impl Ready {
    /// Is told of so many sockets at once, at most.
    pub fn with_room(most: usize) -> Self {
        Self {
            events: Vec::with_capacity(most),
        }
    }

    /// The numbers of the sockets, in the order the system tells of them.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.events.iter().map(|event| event.data.u64())
    }
}

/// Sockets that are looked at by a thread that has others to wait for, a few at a time.
///
/// Their owner waits for nothing: a thread of its own would have to be woken, would be let run when the system sees fit, and
/// would meet the other at every lock.
pub trait Sideline: Send + Sync {
    /// Where they are waited for.
    fn readiness(&self) -> &Readiness;

    /// Something has come from the socket called `number`, or an end. It must not wait for anything, nor panic.
    fn look(&self, number: u64);
}

/// How many sockets of a sideline are looked at in one turn. Measured with requests and, as their sideline, ACKs: the fewer
/// ACKs at a time, the sooner a request is served; below four, the turns themselves take the time.
const TURN: usize = 4;

/// Looks at sidelines.
pub struct Turns {
    few: Ready,
    many: Ready,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            few: Ready::with_room(TURN),
            many: Ready::default(),
        }
    }
}

impl Turns {
    /// Looks at a few sockets of `sideline`; says whether there may be more.
    pub fn take(&mut self, sideline: &dyn Sideline) -> bool {
        look_at(sideline, &mut self.few) == TURN
    }

    /// Looks at some dozens: for a thread that has nothing else to do.
    pub fn take_many(&mut self, sideline: &dyn Sideline) {
        look_at(sideline, &mut self.many);
    }
}

/// Looks at as many sockets of `sideline` as `ready` has room for; says how many those were.
fn look_at(sideline: &dyn Sideline, ready: &mut Ready) -> usize {
    sideline.readiness().look(ready);
    for number in ready.numbers() {
        sideline.look(number);
    }
    ready.events.len()
}

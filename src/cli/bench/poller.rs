//! Many sockets in one thread: `epoll`, edge-triggered, with a bell to wake it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// What the bell is called among the ready.
pub const BELL: u64 = u64::MAX;

/// How many ready sockets are told at once.
const READY_MAX: usize = 256;

/// A timeout from here on may come a millisecond late, which saves a system call.
const COARSE: Duration = Duration::from_millis(100);

/// Wakes the thread that waits in a [`Poller`].
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// # Errors
    /// No file descriptor is left.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Wakes it, once for each ring: nobody needs to stop the bell.
    pub fn ring(&self) {
        // Fails only when the count would overflow, and then it is rung anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Sockets to wait for.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    // A descriptor that is closed wakes nobody, and the bell's other owner rings it as he goes.
    _bell: Bell,
}

impl Poller {
    /// One that waits for the bell.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new(bell: &Bell) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &bell.0,
            EventData::new_u64(BELL),
            EventFlags::IN | EventFlags::ET,
        )?;
        Ok(Self {
            epoll,
            _bell: bell.clone(),
        })
    }

    /// Waits for `socket` too, under the name `token`, until it is closed. Each change is told once: read and write until
    /// the socket would have to wait.
    ///
    /// # Errors
    /// The system has no room for another.
    pub fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(token),
            both,
        )?)
    }

    /// Waits until something is ready, `within` at most, and puts the names of what is into `ready`.
    ///
    /// # Errors
    /// The system's; nothing can be waited for then.
    pub fn wait(&self, within: Duration, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        let mut timeout = timespec(within);
        if !within.is_zero() && within < COARSE {
            // epoll_wait knows whole milliseconds only, and rounds up.
            let mut all = [PollFd::new(&self.epoll, PollFlags::IN)];
            match poll(&mut all, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => timeout = timespec(Duration::ZERO),
                Err(error) => return Err(error.into()),
            }
        }
        let mut room = [const { MaybeUninit::<Event>::uninit() }; READY_MAX];
        match epoll::wait(&self.epoll, &mut room, Some(&timeout)) {
            Ok((events, _)) => ready.extend(events.iter().map(|event| {
                let data = event.data; // a copy: the struct is packed
                data.u64()
            })),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as _,
        tv_nsec: duration.subsec_nanos() as _,
    }
}

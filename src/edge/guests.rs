//! Who is connected, since when each has kept us waiting, and who must go when there is no room.
//!
//! Nothing here reads or writes a socket; the only things done to one are to ask whether there is something to read, and to
//! shut it down.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::channel::Channel;
use super::exchange::Exchange;
use crate::fds::{FdBudget, FdPermit};

/// How long a newcomer waits for the evicted to leave: their threads only have to wake up.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// How long a newcomer waits for somebody to become free to go when all are at work: whoever is just being answered will
/// be, in a moment.
const GRACE: Duration = Duration::from_millis(5);

/// How many may have to go for one newcomer: another room of the house may take the descriptor that came free.
const EVICTIONS_MAX: u32 = 3;

/// How many of those who have waited longest are asked whether something has come from them. If it has from all, the house is
/// behind with its work.
const PASSED_OVER_MAX: usize = 64;

/// Its request is whole: it is ours to answer, and cannot be evicted.
const BUSY: u64 = 0;

/// It was told to go.
const GONE: u64 = u64::MAX;

/// Set in a waiting state when a part of the request is here already.
const BEGUN: u64 = 1;

/// One connection.
pub struct Guest {
    /// Unique in this front.
    pub number: u64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    /// [`BUSY`], [`GONE`], or since when it has been waiting (see [`waiting`]).
    state: AtomicU64,
    /// Closed before the permit goes back.
    pub channel: Channel,
    /// The request that was handed over last, and its answer.
    pub exchange: Exchange,
    _permit: FdPermit,
}

impl Guest {
    /// From now on it waits for its next request, of which a part may be here already. Only to be said while it is busy.
    pub fn waits(&self, epoch: Instant, begun: bool) {
        let state = waiting(epoch, begun);
        self.state.store(state, Ordering::SeqCst);
    }

    /// From now on it only waits to be closed: the first to go.
    pub fn lingers(&self) {
        self.state.store(BEGUN, Ordering::SeqCst);
    }

    /// A part of its request is here.
    pub fn has_begun(&self) {
        let seen = self.state.load(Ordering::SeqCst);
        if !matches!(seen, BUSY | GONE) && seen & BEGUN == 0 {
            // Fails only if it was told to go meanwhile, which it will notice.
            let _ =
                self.state
                    .compare_exchange(seen, seen | BEGUN, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Its request is whole. `false`: it was told to go first.
    pub fn is_whole(&self) -> bool {
        let seen = self.state.load(Ordering::SeqCst);
        seen != GONE
            && self
                .state
                .compare_exchange(seen, BUSY, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    /// Whether it was told to go.
    pub fn is_gone(&self) -> bool {
        self.state.load(Ordering::SeqCst) == GONE
    }

    /// Whether it is us that it waits for: something has come that nobody has looked at yet. Not if it only waits to be closed.
    fn is_unheard(&self, seen: u64) -> bool {
        seen != BEGUN && self.channel.has_unread()
    }

    /// Tells it to go if it waits with nothing begun.
    fn dismiss_if_idle(&self) {
        let seen = self.state.load(Ordering::SeqCst);
        if !matches!(seen, BUSY | GONE) && seen & BEGUN == 0 {
            // Read only: if a request arrives this very moment, it can still be answered.
            self.tell_to_go(seen, Shutdown::Read);
        }
    }

    fn tell_to_go(&self, seen: u64, how: Shutdown) -> bool {
        let told = self
            .state
            .compare_exchange(seen, GONE, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if told {
            self.channel.shutdown(how);
        }
        told
    }
}

/// The state of one who waits from now on: the longer, the smaller.
fn waiting(epoch: Instant, begun: bool) -> u64 {
    let micros = epoch.elapsed().as_micros() as u64;
    // + 1, so that it never looks like BUSY.
    ((micros + 1) << 1) | u64::from(begun)
}

/// All connections of one front.
pub struct Guests {
    /// What waiting times are counted from.
    epoch: Instant,
    /// [`GRACE`], but in tests.
    grace: Duration,
    roll: Mutex<Roll>,
    changed: Condvar,
    closing: AtomicBool,
    /// A newcomer wants to hear of whoever begins to wait.
    wanted: AtomicBool,
}

#[derive(Default)]
struct Roll {
    guests: HashMap<u64, Arc<Guest>>,
    /// Those and the leaving ones whose descriptor may still be open.
    present: usize,
    next: u64,
    departures: u64,
    /// How many times a newcomer was told that somebody began to wait.
    told: u64,
}

/// A guest's place, given up when dropped.
pub struct Seat {
    guests: Arc<Guests>,
    guest: Option<Arc<Guest>>,
    number: u64,
}

impl Seat {
    /// Who sits there.
    pub fn guest(&self) -> Option<&Arc<Guest>> {
        self.guest.as_ref()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let listed = self.guests.roll.lock().guests.remove(&self.number);
        // Outside the lock, for it closes the socket; before the departure is told, for that promises the descriptor.
        drop((listed, self.guest.take()));
        let mut roll = self.guests.roll.lock();
        roll.present -= 1;
        roll.departures += 1;
        drop(roll);
        self.guests.changed.notify_all();
    }
}

/// Who has to go for a newcomer.
enum Evicted {
    /// It was told.
    Told(Arc<Guest>),
    /// Nobody yet: all who wait, wait for us.
    Unheard,
    /// Nobody waits.
    Nobody,
}

/// What came of a request for a place.
pub enum Admission {
    /// Sit down.
    Seated(Seat),
    /// There is no room, and nobody to send away.
    Full(Channel),
}

impl Guests {
    /// Nobody yet.
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            grace: GRACE,
            roll: Mutex::default(),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
        }
    }

    /// What waiting times are counted from.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Finds a place for `channel`, evicting whoever has waited longest if need be; tells `evicted` of each.
    pub fn admit(
        self: &Arc<Self>,
        channel: Channel,
        peer: SocketAddr,
        most: usize,
        fds: &FdBudget,
        evicted: impl Fn(&Guest),
    ) -> Admission {
        let mut permit = self.take_place(most, fds);
        if permit.is_none() {
            // Said first: whoever begins to wait after we have looked will tell us.
            self.wanted.store(true, Ordering::SeqCst);
            permit = self.make_place(most, fds, evicted);
            self.wanted.store(false, Ordering::SeqCst);
        }
        match permit {
            Some(permit) => Admission::Seated(self.seat(channel, peer, permit)),
            None => Admission::Full(channel),
        }
    }

    /// Counts one more in, if there is room.
    fn take_place(&self, most: usize, fds: &FdBudget) -> Option<FdPermit> {
        let mut roll = self.roll.lock();
        if roll.present >= most {
            return None;
        }
        let permit = fds.try_take(1)?;
        roll.present += 1;
        Some(permit)
    }

    /// Takes the place of somebody who goes by himself or is evicted. If all are at work it waits for the grace.
    fn make_place(
        &self,
        most: usize,
        fds: &FdBudget,
        evicted: impl Fn(&Guest),
    ) -> Option<FdPermit> {
        let now = Instant::now();
        let mut evictions = 0;
        loop {
            let (departures, told) = {
                let roll = self.roll.lock();
                (roll.departures, roll.told)
            };
            if let Some(permit) = self.take_place(most, fds) {
                return Some(permit);
            }
            if evictions == EVICTIONS_MAX {
                return None;
            }
            let is_news = |roll: &Roll| roll.departures != departures || roll.told != told;
            let has_room = match self.evict_longest_waiting() {
                Evicted::Told(guest) => {
                    evictions += 1;
                    evicted(&guest);
                    drop(guest); // or we would keep its descriptor ourselves
                    self.wait_until(now + LEAVE_MAX, |roll| roll.departures != departures)
                }
                Evicted::Unheard => {
                    // They are looked at in a moment, if we are not hopelessly behind.
                    self.wait_until(Instant::now() + self.grace, is_news);
                    now.elapsed() < LEAVE_MAX && !self.is_closing()
                }
                Evicted::Nobody => {
                    // Whoever is on the way out only has to close its socket.
                    let leaving = self.is_somebody_leaving();
                    let most = if leaving { LEAVE_MAX } else { self.grace };
                    self.wait_until(now + most, is_news)
                }
            };
            if !has_room {
                return None;
            }
        }
    }

    fn is_somebody_leaving(&self) -> bool {
        let roll = self.roll.lock();
        roll.present > roll.guests.len()
    }

    fn seat(self: &Arc<Self>, channel: Channel, peer: SocketAddr, permit: FdPermit) -> Seat {
        let mut roll = self.roll.lock();
        let number = roll.next;
        let guest = Arc::new(Guest {
            number,
            peer,
            since: Instant::now(),
            state: AtomicU64::new(waiting(self.epoch, false)),
            channel,
            exchange: Exchange::default(),
            _permit: permit,
        });
        roll.next += 1;
        roll.guests.insert(number, Arc::clone(&guest));
        Seat {
            guests: Arc::clone(self),
            guest: Some(guest),
            number,
        }
    }

    /// Tells whoever has waited longest to go. Those who wait for us are passed over: at the cap, a newcomer would else come
    /// in for each whose request is there already, and would go for the next.
    fn evict_longest_waiting(&self) -> Evicted {
        let (mut passed, mut count) = ((0, 0), 0);
        while count < PASSED_OVER_MAX {
            let Some(((seen, number), guest)) = self.longest_waiting(passed) else {
                break;
            };
            if guest.is_unheard(seen) {
                (passed, count) = ((seen, number), count + 1);
                continue;
            }
            // Otherwise its request became whole this very moment, or the first part came: look again.
            if guest.tell_to_go(seen, Shutdown::Both) {
                return Evicted::Told(guest);
            }
        }
        match count {
            0 => Evicted::Nobody,
            _ => Evicted::Unheard,
        }
    }

    /// Who has waited longest of those who come behind `passed` in the order of their states and numbers.
    fn longest_waiting(&self, passed: (u64, u64)) -> Option<((u64, u64), Arc<Guest>)> {
        let roll = self.roll.lock();
        let waiting = roll.guests.values().filter_map(|guest| {
            let key = (guest.state.load(Ordering::SeqCst), guest.number);
            (!matches!(key.0, BUSY | GONE) && key > passed).then_some((key, guest))
        });
        let (key, guest) = waiting.min_by_key(|(key, _)| *key)?;
        Some((key, Arc::clone(guest)))
    }

    /// To be said after [`Guest::waits`]: a newcomer may be looking for somebody who does, and whoever closes the front
    /// sends away only those it finds waiting.
    pub fn has_begun_to_wait(&self, guest: &Guest) {
        if self.is_closing() {
            guest.dismiss_if_idle();
        }
        if self.wanted.load(Ordering::SeqCst) {
            self.roll.lock().told += 1;
            self.changed.notify_all();
        }
    }

    /// Waits until `news` is so; `false`: it is not by `deadline`, or we close.
    fn wait_until(&self, deadline: Instant, news: impl Fn(&Roll) -> bool) -> bool {
        let mut roll = self.roll.lock();
        while !news(&roll) {
            if self.is_closing() || self.changed.wait_until(&mut roll, deadline).timed_out() {
                return news(&roll);
            }
        }
        true
    }

    /// Waits until somebody leaves, the front closes or `most` has passed.
    pub fn wait_change(&self, most: Duration) {
        let mut roll = self.roll.lock();
        if !self.is_closing() {
            self.changed.wait_for(&mut roll, most);
        }
    }

    /// Waits until nobody is connected, or `deadline`; says whether nobody is.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut roll = self.roll.lock();
        while roll.present > 0 {
            if self.changed.wait_until(&mut roll, deadline).timed_out() {
                break;
            }
        }
        roll.present == 0
    }

    /// How many are connected.
    pub fn present(&self) -> usize {
        self.roll.lock().present
    }

    /// Whether the front is closing.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// From now on nobody is admitted by waiting for another's place.
    pub fn begin_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
        // Under the lock, so that nobody who has just looked at the flag sleeps through it.
        drop(self.roll.lock());
        self.changed.notify_all();
    }

    /// Wakes those who wait with nothing begun, so that they see that the front closes.
    pub fn wake_idle(&self) {
        for guest in self.all() {
            guest.dismiss_if_idle();
        }
    }

    /// Cuts everybody off.
    pub fn cut_all(&self) {
        for guest in self.all() {
            guest.exchange.forfeit();
            guest.channel.shutdown(Shutdown::Both);
        }
    }

    fn all(&self) -> Vec<Arc<Guest>> {
        self.roll.lock().guests.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::edge::tests::wait_asleep;

    fn seat(guests: &Arc<Guests>, most: usize) -> io::Result<(Admission, TcpStream)> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (stream, peer) = listener.accept()?;
        let fds = FdBudget::with(100);
        Ok((
            guests.admit(Channel::new(stream, None), peer, most, &fds, |_| ()),
            client,
        ))
    }

    fn seated(guests: &Arc<Guests>) -> io::Result<(Seat, Arc<Guest>)> {
        match seat(guests, usize::MAX)?.0 {
            Admission::Seated(seat) => {
                let guest = seat.guest().map(Arc::clone);
                Ok((seat, guest.ok_or(io::ErrorKind::NotFound)?))
            }
            Admission::Full(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn evicted(guests: &Guests) -> Option<Arc<Guest>> {
        match guests.evict_longest_waiting() {
            Evicted::Told(guest) => Some(guest),
            Evicted::Unheard | Evicted::Nobody => None,
        }
    }

    #[test]
    fn of_evicted_and_whole_exactly_one_wins() -> io::Result<()> {
        let guests = Arc::new(Guests::new());
        let (_seat, guest) = seated(&guests)?;
        assert!(guest.is_whole());
        guest.has_begun(); // its next one
        assert!(evicted(&guests).is_none(), "it is at work");
        guest.waits(guests.epoch(), false);
        guest.has_begun();
        assert!(evicted(&guests).is_some());
        assert!(guest.is_gone());
        assert!(!guest.is_whole(), "it was evicted first");
        assert!(evicted(&guests).is_none(), "twice");
        Ok(())
    }

    #[test]
    fn who_lingers_goes_before_whoever_waits() -> io::Result<()> {
        let guests = Arc::new(Guests::new());
        let (_first, first) = seated(&guests)?;
        let (_second, second) = seated(&guests)?;
        second.lingers();
        assert!(evicted(&guests).is_some());
        assert!(second.is_gone() && !first.is_gone());
        Ok(())
    }

    #[test]
    fn only_who_has_begun_nothing_is_woken_by_closing() -> io::Result<()> {
        let guests = Arc::new(Guests::new());
        let (_idle, idle) = seated(&guests)?;
        let (_begun, begun) = seated(&guests)?;
        let (_busy, busy) = seated(&guests)?;
        begun.has_begun();
        assert!(busy.is_whole());
        guests.begin_closing();
        guests.wake_idle();
        assert_eq!(
            [idle, begun, busy].map(|guest| guest.is_gone()),
            [true, false, false]
        );
        Ok(())
    }

    #[test]
    fn a_newcomer_waits_a_moment_for_somebody_who_is_just_being_answered() -> io::Result<()> {
        let guests = Arc::new(Guests {
            grace: Duration::from_secs(20),
            ..Guests::new()
        });
        let (place, guest) = seated(&guests)?;
        assert!(guest.is_whole());
        let theirs = Arc::clone(&guests);
        let answered = crate::thread::spawn("answered", 64 * 1024, move || {
            // The newcomer is at the door...
            while !theirs.wanted.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            guest.waits(theirs.epoch(), false);
            theirs.has_begun_to_wait(&guest);
            while !guest.is_gone() {
                std::thread::yield_now();
            }
            drop((guest, place));
        })?;
        assert!(matches!(seat(&guests, 1)?.0, Admission::Seated(_)));
        drop(answered);
        Ok(())
    }

    #[test]
    fn a_newcomer_waits_for_whoever_is_on_the_way_out() -> io::Result<()> {
        let guests = Arc::new(Guests {
            grace: Duration::ZERO,
            ..Guests::new()
        });
        let (place, guest) = seated(&guests)?;
        // Off the list, as when a seat begins to be given up; its socket is still open.
        guests.roll.lock().guests.remove(&guest.number);
        let theirs = Arc::clone(&guests);
        let newcomer = crate::thread::spawn("newcomer-17", 64 * 1024, move || {
            let came = seat(&theirs, 1);
            assert!(matches!(came, Ok((Admission::Seated(_), _))));
        })?;
        wait_asleep("newcomer-17");
        drop((guest, place));
        drop(newcomer);
        assert_eq!(guests.present(), 0, "it came in, and has left");
        assert_eq!(guests.roll.lock().next, 2);
        Ok(())
    }
}

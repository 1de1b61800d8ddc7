//! One thread waits for many connections, and serves at once what is small and whole.
//!
//! A plain connection needs no thread of its own while it waits, nor for a request that can be judged without waiting for
//! anybody. Measured: a thread woken for each request costs more than the request does, and on a busy machine it is woken
//! late. Whatever takes longer, or is not simply right, goes on with a thread of its own ([`conn::serve`]) and may come back: a
//! large body, a chunked one, a head that is wrong, an answer that the peer does not take. So a slow peer, or a bad one, keeps
//! nobody else waiting.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::alarms::Alarms;
use super::conn;
use super::episode::Episode;
use super::exchange::Stage;
use super::guests::Seat;
use super::house::House;
use super::socket::{Received, receive_now};
use super::standing::{Look, Standing, TOGETHER_BYTES_MAX};
use crate::readiness::{Readiness, Ready, Sideline, Turns};
use crate::thread::{Crew, JoinOnDrop, spawn};

/// Its stack, in bytes: it judges requests as a connection's own thread does.
const STACK_BYTES: usize = 256 * 1024;

/// How long to wait after the system did not let us wait for connections.
const AFTER_AN_ERROR: Duration = Duration::from_millis(100);

/// The first sideline's number; the others' are below, and far above any guest's.
const SIDELINES_TO: u64 = u64::MAX - 1;

/// Who has a number above it is a sideline.
const SIDELINES_FROM: u64 = u64::MAX / 2;

/// For how many requests a sideline gets one turn more: it keeps pace with whatever comes.
const REQUESTS_A_TURN: usize = 8;

/// After so many turns without a request they are larger: no request seems to be on its way, as on the node to which others'
/// notifications go, and small turns would cost it a twentieth of its time.
const IDLE_TURNS_MAX: usize = 16;

/// How long a sideline waits at most while requests are looked at, but for the one that takes longer.
pub(super) const SIDELINE_MAX: Duration = Duration::from_millis(1);

/// The way to the thread that waits.
pub struct Poller {
    readiness: Readiness,
    inbox: Mutex<Inbox>,
    /// Known to `readiness` by [`SIDELINES_TO`] and the numbers below it.
    sidelines: RwLock<Vec<Arc<dyn Sideline>>>,
}

#[derive(Default)]
struct Inbox {
    /// Bounded by the connections: each is in one place only.
    new: Vec<Waiting>,
    /// Whose answer has been sent that was being sent when they were looked at; each once for that look.
    called: Vec<u64>,
    stopped: bool,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.called.is_empty()
    }
}

/// A connection without a thread.
pub struct Waiting {
    seat: Seat,
    standing: Standing,
    /// The earliest time at which it is looked at in any case.
    alarm: Option<Instant>,
}

/// What becomes of a connection that was looked at.
enum Next {
    /// It goes on waiting.
    Wait,
    /// It goes on with a thread of its own.
    Thread,
    Close,
}

impl Poller {
    /// Nobody waits yet, nor is there a thread.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            readiness: Readiness::new()?,
            inbox: Mutex::default(),
            sidelines: RwLock::default(),
        })
    }

    /// How many sidelines it has.
    pub fn sidelines(&self) -> usize {
        self.sidelines.read().len()
    }

    fn sideline(&self, place: usize) -> Option<Arc<dyn Sideline>> {
        self.sidelines.read().get(place).map(Arc::clone)
    }

    /// From now on the thread looks at `sideline` too.
    ///
    /// # Errors
    /// The system has no memory for one more, or may not watch so many.
    pub fn look_after(&self, sideline: Arc<dyn Sideline>) -> io::Result<()> {
        let mut sidelines = self.sidelines.write();
        let number = SIDELINES_TO - sidelines.len() as u64;
        self.readiness.add(sideline.readiness(), number)?;
        sidelines.push(sideline);
        Ok(())
    }

    /// Starts the thread, called `name`, for the connections of `house`. What needs a thread of its own joins `crew`.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(
        self: &Arc<Self>,
        name: String,
        house: &Arc<House>,
        crew: &Arc<Crew>,
    ) -> io::Result<Running> {
        let mut watch = Watch {
            poller: Arc::clone(self),
            house: Arc::clone(house),
            crew: Arc::clone(crew),
            waiting: HashMap::new(),
            alarms: Alarms::default(),
            looked: 0,
            idle_turns: 0,
            turn_due: Instant::now(),
            trouble: Episode::default(),
            input: Vec::with_capacity(TOGETHER_BYTES_MAX),
        };
        let thread = spawn(name, STACK_BYTES, move || watch.run())?;
        Ok(Running {
            poller: Arc::clone(self),
            _thread: thread,
        })
    }

    /// From now on the connection needs no thread of the caller's.
    pub fn watch(&self, seat: Seat, standing: Standing) {
        let waiting = Waiting {
            seat,
            standing,
            alarm: None,
        };
        let mut inbox = self.inbox.lock();
        if inbox.stopped {
            drop(inbox);
            return; // the seat with it: everything ends
        }
        let first = inbox.is_empty();
        inbox.new.push(waiting);
        drop(inbox);
        if first {
            self.readiness.ring();
        }
    }

    /// The answer to connection `number`, which was being sent when it was looked at, has been.
    pub fn call(&self, number: u64) {
        let mut inbox = self.inbox.lock();
        let first = inbox.is_empty();
        inbox.called.push(number);
        drop(inbox);
        if first {
            self.readiness.ring();
        }
    }
}

/// A poller's thread. Dropping it closes the connections that still wait, and waits for the thread.
pub struct Running {
    poller: Arc<Poller>,
    _thread: JoinOnDrop,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.poller.inbox.lock().stopped = true;
        self.poller.readiness.ring();
    }
}

/// What the thread knows.
struct Watch {
    poller: Arc<Poller>,
    house: Arc<House>,
    crew: Arc<Crew>,
    /// By the guests' numbers.
    waiting: HashMap<u64, Waiting>,
    alarms: Alarms,
    /// How many guests have been looked at since the sidelines' turn.
    looked: usize,
    /// How many times in a row nobody had been.
    idle_turns: usize,
    /// When the sidelines have waited for long enough while guests are looked at.
    turn_due: Instant,
    /// The system does not let us wait.
    trouble: Episode,
    /// What is received into, first. Never without spare capacity.
    input: Vec<u8>,
}

impl Watch {
    fn run(&mut self) {
        let (mut ready, mut turns) = (Ready::default(), Turns::default());
        loop {
            match self.poller.readiness.wait(&mut ready, self.alarms.next()) {
                Ok(rung) => {
                    self.turn_due = Instant::now() + SIDELINE_MAX;
                    if rung && self.hear(&mut turns).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if self.trouble.begins() {
                        log::error!("{}: epoll: {error}; trying on", self.house.name);
                    }
                    self.house.guests.wait_change(AFTER_AN_ERROR);
                }
            }
            self.look_at_all(&ready, &mut turns);
            self.keep_alarms();
        }
    }

    /// Looks at those from whom something has come: all guests, and then a few of each sideline. So a request overtakes the
    /// answers that go out; and providers who have read theirs come one by one, and not all at once.
    fn look_at_all(&mut self, ready: &Ready, turns: &mut Turns) {
        for number in ready.numbers().filter(|number| *number < SIDELINES_FROM) {
            self.look_at(number, Self::came);
            self.give_overdue_turn(turns);
        }
        let looked = std::mem::take(&mut self.looked);
        self.idle_turns = match looked {
            0 => self.idle_turns.saturating_add(1),
            _ => 0,
        };
        for number in ready.numbers().filter(|number| *number > SIDELINES_FROM) {
            let Some(sideline) = self.poller.sideline((SIDELINES_TO - number) as usize) else {
                continue;
            };
            if self.idle_turns > IDLE_TURNS_MAX {
                turns.take_many(&*sideline);
                continue;
            }
            let mut more = 1 + looked / REQUESTS_A_TURN;
            while more > 0 && turns.take(&*sideline) {
                more -= 1;
            }
        }
    }

    /// A guest was looked at. Gives all sidelines a turn if they have waited for long.
    fn give_overdue_turn(&mut self, turns: &mut Turns) {
        self.looked += 1;
        if Instant::now() < self.turn_due {
            return;
        }
        for place in 0..self.poller.sidelines() {
            if let Some(sideline) = self.poller.sideline(place) {
                turns.take(&*sideline);
            }
        }
        self.turn_due = Instant::now() + SIDELINE_MAX;
    }

    /// Takes in who has come, and looks at who is called. An error: it is over.
    fn hear(&mut self, turns: &mut Turns) -> Result<(), ()> {
        let mut inbox = self.poller.inbox.lock();
        if inbox.stopped {
            let late = std::mem::take(&mut inbox.new);
            drop(inbox);
            drop(late);
            return Err(());
        }
        let new = std::mem::take(&mut inbox.new);
        let called = std::mem::take(&mut inbox.called);
        drop(inbox);
        for number in called {
            self.look_at(number, Self::came);
        }
        for waiting in new {
            self.welcome(waiting);
            self.give_overdue_turn(turns);
        }
        Ok(())
    }

    /// Looks at a newcomer, and waits for more of it. First the look: most come with their request, and one that is answered
    /// for good need not be waited for. At the cap it may be told to go before the system has told of it.
    fn welcome(&mut self, mut waiting: Waiting) {
        let next = self.look(&mut waiting, Self::came);
        let Some(guest) = waiting.seat.guest() else {
            return;
        };
        match next {
            Next::Wait => {}
            Next::Thread => return self.on_its_own(waiting),
            Next::Close => return drop(waiting),
        }
        let stream = guest.channel.stream();
        let added = self.poller.readiness.add(stream, guest.number);
        if let Err(error) = added {
            if self.trouble.begins() {
                log::error!(
                    "{}: epoll: {error}; {} is served alone",
                    self.house.name,
                    guest.peer
                );
            }
            return self.on_its_own(waiting);
        }
        self.wait_on(guest.number, waiting);
    }

    /// Looks at one that waits, and does what follows from it.
    fn look_at(&mut self, number: u64, look: fn(&mut Self, &mut Waiting) -> Next) {
        let Some(mut waiting) = self.waiting.remove(&number) else {
            return; // it went, after the system had told of it
        };
        let next = self.look(&mut waiting, look);
        if let Next::Wait = next {
            return self.wait_on(number, waiting);
        }
        if let Some(guest) = waiting.seat.guest() {
            // By hand: whoever holds an answer may keep the socket open for longer.
            self.poller.readiness.remove(guest.channel.stream());
        }
        match next {
            Next::Wait | Next::Close => drop(waiting),
            Next::Thread => self.on_its_own(waiting),
        }
    }

    /// Looks at one. What it makes panic ends that connection only.
    fn look(&mut self, waiting: &mut Waiting, look: fn(&mut Self, &mut Waiting) -> Next) -> Next {
        catch_unwind(AssertUnwindSafe(|| look(self, waiting))).unwrap_or_else(|_| {
            self.input = Vec::with_capacity(TOGETHER_BYTES_MAX);
            Next::Close
        })
    }

    /// It waits, and is looked at in time.
    fn wait_on(&mut self, number: u64, mut waiting: Waiting) {
        let due = self.due(&waiting);
        if waiting.alarm.is_none_or(|alarm| alarm > due) {
            waiting.alarm = Some(due);
            self.alarms.set(due, number);
        }
        self.waiting.insert(number, waiting);
    }

    /// When its time is over, or may be.
    fn due(&self, waiting: &Waiting) -> Instant {
        if let Some(by) = waiting.standing.whole_by {
            return by;
        }
        let (idle_max, answer_due) = (self.house.idle_max, waiting.standing.answer_due);
        match waiting.seat.guest().map(|guest| guest.exchange.stage()) {
            Some(Stage::Written(at)) => at + idle_max,
            // It may go out the next moment, and then leaves nobody more time than that.
            Some(Stage::Owed | Stage::Sending) => answer_due.min(Instant::now() + idle_max),
            Some(Stage::Clear | Stage::Left | Stage::Last) | None => answer_due,
        }
    }

    fn keep_alarms(&mut self) {
        let waiting = &self.waiting;
        self.alarms.tidy(waiting.len(), |when, number| {
            let waiting = waiting.get(&number);
            waiting.is_some_and(|waiting| waiting.alarm == Some(when))
        });
        let now = Instant::now();
        while let Some((when, number)) = self.alarms.take_due(now) {
            if let Some(waiting) = self.waiting.get_mut(&number)
                && waiting.alarm == Some(when)
            {
                waiting.alarm = None;
                self.look_at(number, Self::time_has_passed);
            }
        }
    }

    fn time_has_passed(&mut self, waiting: &mut Waiting) -> Next {
        if self.due(waiting) > Instant::now() {
            return Next::Wait;
        }
        // What has come in time is not lost because this thread is late.
        match self.came(waiting) {
            Next::Wait if self.due(waiting) <= Instant::now() => {}
            next => return next,
        }
        let stage = waiting.seat.guest().map(|guest| guest.exchange.stage());
        match stage {
            // Nothing was asked, or nothing more.
            Some(Stage::Clear | Stage::Written(_)) if waiting.standing.input.is_empty() => {
                Next::Close
            }
            // It is told so, or what is overdue.
            _ => Next::Thread,
        }
    }

    /// Something has come, or an end.
    fn came(&mut self, waiting: &mut Waiting) -> Next {
        let Some(guest) = waiting.seat.guest() else {
            return Next::Close;
        };
        let standing = &mut waiting.standing;
        let is_fresh = standing.input.is_empty();
        if is_fresh {
            // Nothing is kept for whom nothing has come.
            std::mem::swap(&mut standing.input, &mut self.input);
        }
        // What was put off is here already.
        let here = standing.is_put_off.then_some(Received::Bytes(0));
        let received = receive_now(guest.channel.stream(), &mut standing.input).or(here);
        let stage = match received {
            Some(Received::Bytes(_)) => guest.exchange.stage_or_call(),
            Some(_) | None => guest.exchange.stage(),
        };
        standing.is_put_off = false;
        let next = match (received, stage) {
            (None, _) => Next::Wait,
            (Some(Received::Bytes(_)), Stage::Sending) => {
                standing.is_put_off = true;
                Next::Wait
            }
            (Some(Received::Bytes(_)), Stage::Clear | Stage::Written(_)) => {
                match standing.serve_at_once(guest, &self.house) {
                    Look::Waits => Next::Wait,
                    Look::Alone => Next::Thread,
                    Look::Over => Next::Close,
                }
            }
            // One thing after another.
            (Some(Received::Bytes(_)), Stage::Owed | Stage::Left | Stage::Last) => Next::Thread,
            (Some(Received::End | Received::TimedOut | Received::Broken), stage) => match stage {
                Stage::Owed | Stage::Sending | Stage::Left => Next::Thread,
                Stage::Last => Next::Close,
                Stage::Clear | Stage::Written(_) if is_fresh || guest.is_gone() => Next::Close,
                // It is told that its request is cut short.
                Stage::Clear | Stage::Written(_) => Next::Thread,
            },
        };
        if is_fresh {
            std::mem::swap(&mut standing.input, &mut self.input);
            standing.input.extend_from_slice(&self.input);
            self.input.clear();
        }
        if standing.input.is_empty() {
            standing.input = Vec::new();
            return next;
        }
        match next {
            // It is told that there is no memory.
            Next::Wait if !standing.make_room() => Next::Thread,
            next => next,
        }
    }

    /// Gives it a thread.
    fn on_its_own(&self, waiting: Waiting) {
        let Waiting { seat, standing, .. } = waiting;
        conn::start(seat, standing, &self.house, &self.crew);
    }
}

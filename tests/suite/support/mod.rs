//! The harness: a real relay in a process of its own, and real sockets around it.
//!
//! Tests read as transcripts with it. Every helper waits for an event under one generous deadline; nothing sleeps, and
//! no test picks a port.

mod backend;
mod backends;
mod browser;
mod cluster;
pub mod delivery_log;
mod flapping;
mod frame;
mod health_watch;
mod http;
mod load;
mod lua;
mod lua55;
mod mounted;
mod overlay;
mod process;
mod providers;
mod proxy;
mod redis;
mod redis_group;
mod relay;
mod requests;
mod scripted;
mod steady;
mod strace;
mod switch_watch;
mod terminal;
mod tls;
mod traffic;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use parking_lot::{Mutex, MutexGuard};
use socket2::{Domain, Socket, Type};

pub use self::redis::Redis;
pub use self::redis_group::{RedisCluster, SentinelGroup};
pub use self::traffic::Traffic;
pub use backend::Backend;
pub use backends::{Backends, REFUSE, ReceivedMessage};
pub use browser::{Browser, DOWN, ENTER, ESCAPE, TAB};
pub use cluster::{Cluster, assert_ok_means_acked, node_toml};
pub use flapping::{FlappingSession, Next, NodeAddresses, NodeLocator};
pub use frame::{Frame, difference};
pub use health_watch::{HealthWatch, Interval};
pub use http::{Answer, Gate, Pending, RawHttp, post_request};
pub use load::{Load, shares};
pub use lua::{Adapter, Lua, LuaBackend, LuaSetup, adler32, nginx_command, nginx_preamble};
pub use mounted::Mounted;
pub use process::Process;
pub use providers::{AnsweredNotification, Notification, Providers};
pub use proxy::TcpProxy;
pub use relay::{Relay, Setup, UNDER, binary, copy_binary, run};
pub use scripted::ScriptedRelay;
pub use steady::Steady;
pub use strace::strace;
pub use switch_watch::SwitchWatch;
pub use terminal::Terminal;
pub use tls::{Authority, Via, Wire};

/// Every test over both transports: what is promised does not depend on whether it is sealed.
macro_rules! over_both {
    ($($(#[$attribute:meta])* $name:ident;)*) => {
        mod in_the_clear {
            $(
                #[test]
                $(#[$attribute])*
                fn $name() {
                    super::$name(crate::support::Via::Clear);
                }
            )*
        }
        mod through_tls {
            $(
                #[test]
                $(#[$attribute])*
                fn $name() {
                    super::$name(crate::support::Via::Tls);
                }
            )*
        }
    };
}
pub(crate) use over_both;

/// How long anything may take before a test gives up on it. Generous, because it is only reached when something is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `holds`, looking again and again; panics with `what` when the deadline has passed.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        let waited = began.elapsed();
        assert!(waited < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        // What takes long is looked at seldom: asking a relay costs what the tests beside this one need.
        let_pass((waited / 10).clamp(Duration::from_millis(2), Duration::from_millis(50)));
    }
}

/// A breath between two looks at something that gives no sign by itself.
pub fn pause() {
    let_pass(Duration::from_millis(5));
}

/// Binds `addr` and does not listen: the system gives the port to nobody else, and a program that is told to can listen there.
pub fn hold(addr: SocketAddr) -> Socket {
    let held = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    held.set_reuse_address(true).expect("an option");
    let bound = held.bind(&addr.into());
    bound.unwrap_or_else(|e| panic!("{addr} cannot be held: {e}"));
    held
}

/// The address of a socket of [`hold`], with the port that it was given.
pub fn held_addr(held: &Socket) -> SocketAddr {
    let addr = held.local_addr().expect("its address");
    addr.as_socket().expect("an address with a port")
}

/// Keeps the heavy tests apart from each other: each holds this for as long as it runs.
pub fn heavy() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock()
}

/// Keeps the failovers apart from each other. They wait for servers more than they compute: one may run beside a heavy test.
pub fn failovers() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock()
}

/// A backend's token, reckoned apart from the relay's own code: hex HMAC-SHA256(secret, id).
pub fn token(secret: &str, id: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, id.as_bytes());
    tag.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Lets `time` pass, in which load goes on, a fault lasts, or something is looked at that gives no sign by itself.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests let time pass; for all else they wait for an event"
)]
pub fn let_pass(time: Duration) {
    thread::park_timeout(time);
}

/// Random numbers for tests (splitmix64); the seed is printed, and `PAYRELAY_SEED` sets it.
pub struct Random(u64);

impl Random {
    /// A new sequence, whose seed goes to the test's output.
    pub fn new() -> Self {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        let seed = std::env::var("PAYRELAY_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(clock);
        eprintln!("PAYRELAY_SEED={seed}");
        Self(seed)
    }

    /// The sequence of a seed that was printed.
    pub fn from(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, for another thread, that comes of the same seed.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

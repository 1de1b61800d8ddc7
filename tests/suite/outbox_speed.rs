//! How fast the outbox is, in ratios that hold on any disk: `cargo test --release --test suite -- --ignored outbox_speed
//! --nocapture`, on a machine that does nothing else.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use payrelay::config;
use payrelay::dispatcher::Dispatcher;
use payrelay::envelope::Envelope;
use payrelay::notification::{BackendId, EventKey, IdMint, Notification, unix_ms};
use payrelay::outbox::{Inbox, Outbox, OutboxOptions, Undelivered};
use payrelay::timeline::Timeline;

use crate::outbox_backlog::{self, p99};
use crate::outbox_shared::{in_redis_as_on_disk, lasting_redis};
use crate::support::{Redis, Relay, Steady, eventually, heavy};

const CONFIG: &str = "[delivery]\nundelivered = \"store\"\n[outbox]\nmax_messages = 2000000\n";

/// relay.toml of a node that shares its outbox.
fn sharing(mode: &str, redis: &Redis) -> String {
    let url = redis.url();
    format!(
        "[redis]\nurl = \"{url}\"\n{CONFIG}max_bytes = \"16GiB\"\nshared = \"{mode}\"\ninherit_after = \"2s\"\n"
    )
}

/// What a release build must reach; a debug build is only to be seen to work.
fn in_release(factor: f64) -> f64 {
    if cfg!(debug_assertions) { 0.0 } else { factor }
}

/// How often 4 KiB can be synced in a second, where the relay's files are.
fn syncs_per_second(relay: &Relay) -> f64 {
    let mut file = File::create(relay.path("probe")).expect("a file");
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&[7; 4096]).expect("written");
        rustix::fs::fdatasync(&file).expect("synced");
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// How many are stored in a second when 64 post, measured for five seconds.
fn stored_per_second(relay: &Relay) -> f64 {
    let (stop, stored) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lasted = Duration::from_secs(5);
    thread::scope(|scope| {
        for _ in 0..64 {
            let mut http = relay.http();
            let (stop, stored) = (&stop, &stored);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let told = http.post("/notify/till-7", &[b'x'; 500]);
                    assert_eq!(told.told(), (200, "stored"));
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        crate::support::let_pass(lasted);
        stop.store(true, Ordering::Relaxed);
    });
    stored.load(Ordering::Relaxed) as f64 / lasted.as_secs_f64()
}

#[test]
#[ignore = "a figure, worth something on a quiet machine only"]
fn stored_answers_with_prefer_and_require_beside_off() {
    let _alone = heavy();
    let redis = lasting_redis();
    let alone = Relay::with(CONFIG);
    let [off, prefer, require] =
        ["off", "prefer", "require"].map(|mode| Relay::with(&sharing(mode, &redis)));
    in_redis_as_on_disk(&prefer);
    in_redis_as_on_disk(&require);
    // In turns, so that what else the machine does is in each of them; in the order of their sizes, the middle one of each.
    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..3 {
        for (relay, rates) in [&alone, &off, &prefer, &require]
            .into_iter()
            .zip(&mut rates)
        {
            rates.push(stored_per_second(relay));
        }
    }
    let [alone, off, prefer, require] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[1]
    });
    // What is asked is what the mirror costs: all three look for their backends by way of Redis, which costs too.
    let ratio = prefer / off;
    eprintln!(
        "stored/s: {alone:.0} without [redis]; with it {off:.0} off, {prefer:.0} prefer ({ratio:.2}), {require:.0} require ({:.2})",
        require / off
    );
    assert!(ratio >= in_release(0.65), "{ratio:.2}");
}

#[test]
#[ignore = "a figure, worth something on a quiet machine only"]
fn stored_answers_per_sync_at_64_posting() {
    let _alone = heavy();
    let relay = Relay::with(CONFIG);
    let before = syncs_per_second(&relay);
    let rate = stored_per_second(&relay);
    let syncs = (before + syncs_per_second(&relay)) / 2.0;
    let ratio = rate / syncs;
    eprintln!("{rate:.0} stored/s, {syncs:.0} fdatasync/s: {ratio:.2} for each");
    // 10,000/s where one takes 300 µs; on a disk that syncs much faster the processor is the limit, not the disk.
    assert!(
        ratio >= in_release(3.0) || rate >= in_release(10_000.0),
        "{ratio:.2} for each sync, {rate:.0}/s"
    );
}

/// How many of `count` stored ones are delivered in a second to one backend with credit 64.
fn redelivered_per_second(toml: &str, count: usize) -> f64 {
    let relay = Relay::with(toml);
    thread::scope(|scope| {
        for _ in 0..32 {
            let mut http = relay.http();
            scope.spawn(move || {
                for _ in 0..count / 32 {
                    assert_eq!(http.post("/notify/till-7", &[b'x'; 500]).status, 200);
                }
            });
        }
    });
    let mut till = relay.backend_with("till-7", "max=64");
    let began = Instant::now();
    for _ in 0..count / 32 * 32 {
        till.message().ack();
    }
    count as f64 / began.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a figure, worth something on a quiet machine only"]
fn redelivery_to_one_backend_with_credit_64() {
    let _alone = heavy();
    let paced = redelivered_per_second(CONFIG, 50_000);
    let flat_out = redelivered_per_second(&format!("{CONFIG}redelivery_rate = 1000000\n"), 50_000);
    eprintln!("{paced:.0} delivered/s at the default pace, {flat_out:.0}/s without one");
    assert!(paced >= in_release(5000.0), "{paced:.0}/s");
    // The pace is what holds it back, and not the machine: a disk or a processor that is half as fast would do as well.
    assert!(flat_out >= in_release(2.0 * paced), "{flat_out:.0}/s");
}

/// Nobody is anywhere.
struct Nowhere;

impl payrelay::bus::Forward for Nowhere {
    fn forward(&self, envelope: Box<Envelope>) {
        envelope.settle(payrelay::notification::Receipt::Gone);
    }
}

/// Fills the outbox at `path` with `count` notifications for a thousand backends.
fn fill(path: std::path::PathBuf, count: usize) {
    let minute = Duration::from_secs(60);
    let opened = Outbox::open(OutboxOptions {
        config: config::OutboxConfig {
            path,
            retry_first: minute,
            retry_max: minute,
            max_tries: 100,
            redelivery_rate: 6_000,
            expire: minute * 10_000,
            keep: minute,
            max_messages: 2_000_000,
            max_bytes: 64 << 30,
            max_log_bytes: 256 << 20,
            shared: config::SharedOutbox::Off,
            inherit_after: minute,
        },
        patience: minute,
        queue: 4096,
        inbox: Arc::new(Inbox::default()),
        dispatcher: Dispatcher::new(Arc::default(), Arc::new(Nowhere)),
        metrics: Arc::default(),
        shared: None,
    });
    let (outbox, works) = opened.expect("an outbox");
    let mint = IdMint::new(7);
    let under_way = Arc::new(AtomicUsize::new(0));
    for n in 0..count {
        eventually("there is room", || under_way.load(Ordering::SeqCst) < 2000);
        let notification = Notification {
            id: mint.mint(unix_ms()),
            backend: BackendId::parse(&format!("till-{}", n % 1000)).expect("an id"),
            route: "/notify/{id}".into(),
            verified: "stripe".into(),
            event: Some(format!("event-{n}").into()),
            event_proven: true,
            at_unix_ms: unix_ms(),
            tries: 1,
            head: Vec::new(),
            body: vec![b'x'; 300],
        };
        let key = EventKey::of(&notification);
        let mut timeline = Timeline::default();
        timeline.add(unix_ms(), "received", "route=/notify/{id}");
        let undelivered = Undelivered {
            notification: Arc::new(notification),
            key,
            why: "offline".into(),
            again: None,
            sent: None,
            held: false,
            timeline,
        };
        under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = Arc::clone(&under_way);
        outbox.store(undelivered, move |stored| {
            assert!(stored.is_ok());
            under_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
    drop(works);
}

/// How many a build of this kind starts with.
fn very_many() -> usize {
    let count = if cfg!(debug_assertions) {
        100_000
    } else {
        1_000_000
    };
    let given = std::env::var("PAYRELAY_PENDING");
    given.map_or(count, |given| given.parse().expect("a number"))
}

/// A relay that was started and has ended, with so many in its outbox; and how many KiB it took while it had none.
fn stopped_with(toml: &str, count: usize) -> (Relay, usize) {
    let mut relay = Relay::with(toml);
    let empty = relay.process().rss_kib();
    relay.signal(rustix::process::Signal::TERM);
    assert_eq!(relay.wait_exit(Duration::from_secs(20)), Some(0));
    fill(relay.path("data/outbox.db"), count);
    (relay, empty)
}

#[test]
#[ignore = "a figure, worth something on a quiet machine only"]
fn a_million_pending_and_a_full_mirror_start_within_five_seconds() {
    let _alone = heavy();
    let redis = lasting_redis();
    let (toml, count) = (sharing("prefer", &redis), very_many());
    let (mut relay, empty) = stopped_with(&toml, count);
    let mirrored = |relay: &Relay| {
        let began = Instant::now();
        within(Duration::from_secs(600), "all is in Redis", || {
            let [mirrored, behind] =
                relay.metrics(["payrelay_outbox_mirrored", "payrelay_outbox_behind"]);
            (mirrored, behind) == (count as f64, 0.0)
        });
        began.elapsed()
    };
    relay.restart_with(&toml);
    let filled = mirrored(&relay);
    let began = Instant::now();
    relay.restart_with(&toml);
    let started = began.elapsed();
    let compared = mirrored(&relay);
    let more = relay.process().rss_kib().saturating_sub(empty);
    eprintln!(
        "{count} pending: an empty Redis was filled in {filled:?}; with a full one started in {started:?}, compared after \
         {compared:?} more, {more} KiB more than empty ({empty} KiB)"
    );
    assert!(started < Duration::from_secs(5), "{started:?}");
}

/// As `eventually`, and for longer.
fn within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < until, "waited {time:?} in vain: {what}");
        crate::support::let_pass(Duration::from_millis(20));
    }
}

/// What a dead node had is taken over, and delivered by another one, beside fresh ones of its own.
#[test]
#[ignore = "a figure, worth something on a quiet machine only"]
fn a_hundred_thousand_of_a_dead_node_are_taken_over_beside_fresh_ones() {
    let _alone = heavy();
    let (redis, count, providers) = (lasting_redis(), 100_000, 20);
    let mut dead = Relay::with(&sharing("prefer", &redis));
    outbox_backlog::fill(&dead, count, providers);
    within(Duration::from_secs(60), "all is in Redis", || {
        dead.metric("payrelay_outbox_behind") == 0.0
    });
    let successor = Relay::with(&sharing("prefer", &redis));
    let steady = Steady::start_every(&successor, Duration::from_millis(1));
    let calm = p99(&steady.next_latencies(10_000));
    let pending = || successor.metric("payrelay_outbox_messages{state=\"pending\"}");
    let meanwhile = |is_over: &dyn Fn() -> bool| {
        let mut latencies = Vec::new();
        while !is_over() {
            latencies.extend(steady.next_latencies(200));
        }
        latencies.sort();
        p99(&latencies)
    };
    dead.kill();
    let died = Instant::now();
    within(Duration::from_secs(60), "it begins", || pending() > 0.0);
    let (began, waited) = (Instant::now(), died.elapsed());
    let taking = meanwhile(&|| pending() >= count as f64);
    let took = began.elapsed();
    let mut till = successor.backend_with("till-7", "max=64");
    let (delivering, delivered) = thread::scope(|scope| {
        let all = scope.spawn(move || outbox_backlog::take_in_order(&mut till, count, providers));
        let p99 = meanwhile(&|| all.is_finished());
        (p99, all.join().expect("the backend failed"))
    });
    eprintln!(
        "{count} taken over in {took:?}, {waited:?} after the death; delivered in order in {delivered:?}; p99 of fresh ones {calm:?} \
         calm, {taking:?} while it takes over, {delivering:?} while it delivers"
    );
    for busy in [taking, delivering] {
        assert!(busy <= calm * 2, "p99 {calm:?} calm, {busy:?} meanwhile");
    }
}

#[test]
#[ignore = "a figure, worth something on a quiet machine only"]
fn a_million_pending_start_quickly_and_stay_on_disk() {
    let _alone = heavy();
    let count = very_many();
    let (mut relay, empty) = stopped_with(CONFIG, count);
    let began = Instant::now();
    relay.restart_with(CONFIG);
    let started = began.elapsed();
    let pending = relay.metric("payrelay_outbox_messages{state=\"pending\"}");
    assert_eq!(pending, count as f64);
    // The redelivery thread looks at every backend once meanwhile.
    crate::support::let_pass(Duration::from_secs(5));
    let more = relay.process().rss_kib().saturating_sub(empty);
    eprintln!("{count} pending: started in {started:?}, {more} KiB more than empty ({empty} KiB)");
    assert!(started < Duration::from_secs(2), "{started:?}");
    assert!(more < 100 * 1024, "{more} KiB");
}

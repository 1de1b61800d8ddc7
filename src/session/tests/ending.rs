//! How sessions end: nobody is left waiting, and nothing of them stays.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::setup::{Heard, PATIENCE, Setup};
use crate::envelope::Receipts;
use crate::notification::{NotificationId, Receipt};
use crate::session::link::Link;
use crate::session::mailbox::{Command, Mailbox};
use crate::session::outgoing::Outgoing;
use crate::session::state::LINGER;
use crate::session::state::Session;

struct Bomb;

impl Receipts for Bomb {
    fn receipt(&self, _id: NotificationId, receipt: Receipt) {
        assert_ne!(receipt, Receipt::Ack, "an accident, part of the test");
    }
}

#[test]
fn a_panic_ends_one_session_and_nobody_waits_for_it() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a max=2");
    let bomb = setup.sender.envelope_for("a", "r", b"x", Arc::new(Bomb));
    let bomb_id = bomb.notification.id;
    setup.context.registry.send(bomb).expect("a place for it");
    let flying = setup.sender.send("a", b"y");
    let waiting = setup.sender.send("a", b"z");
    client.msg();
    client.msg();
    client.say(&format!("ACK id={bomb_id}"));
    let mut told = [setup.sender.receipt(), setup.sender.receipt()];
    told.sort_by_key(|(id, _)| *id);
    assert_eq!(told, [(flying, Receipt::Gone), (waiting, Receipt::Gone)]);
    client.expect_closed();
    assert!(setup.context.registry.is_empty());
    setup.backend("HELLO 1 id=a"); // and the door is still open
}

#[test]
fn acks_count_that_came_before_the_connection_broke() {
    const MANY: usize = 300;
    let setup = Setup::with(|tcp| tcp.queue = 1024);
    let mut client = setup.narrow_client();
    client.say("HELLO 1 id=a max=1024");
    assert!(client.line().starts_with("OK "));
    let sent: Vec<_> = (0..MANY).map(|_| setup.sender.send("a", b"x")).collect();
    let mut acks = String::new();
    for _ in &sent {
        acks.push_str(&format!("ACK id={}\n", client.msg().id));
    }
    let large = vec![0; 1 << 20];
    for _ in 0..8 {
        setup.sender.send("a", &large); // is being written when the client goes
    }
    client.socket.write_all(acks.as_bytes()).expect("taken");
    drop(client); // with bytes unread: a reset
    let told: Vec<_> = (0..MANY + 8).map(|_| setup.sender.receipt()).collect();
    for id in sent {
        assert!(told.contains(&(id, Receipt::Ack)), "{id}");
    }
}

/// A node that was stopped meanwhile reads the HELLO of a connection that its client has given up.
#[test]
fn a_connection_that_is_closed_before_its_hello_is_read_takes_over_from_none() {
    let setup = Setup::new();
    let mut live = setup.backend("HELLO 1 id=a");
    let (ours, mut theirs) = UnixStream::pair().expect("a socket");
    ours.set_nonblocking(true).expect("an option");
    let socket = Arc::new(OwnedFd::from(ours));
    let link = Link::new(Arc::clone(&socket), None, Instant::now());
    let mailbox = Mailbox::new(4, Outgoing::new(link, PATIENCE)).map(Arc::new);
    theirs.write_all(b"HELLO 1 id=a\n").expect("taken");
    drop(theirs);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let context = Arc::clone(&setup.context);
    let mailbox = mailbox.expect("an eventfd");
    Box::new(Session::new(u64::MAX, socket, peer, mailbox, context)).run();
    live.ping(); // and was told no BYE
    assert_eq!(setup.context.registry.len(), 1);
}

#[test]
fn a_hello_that_crosses_the_bye_is_not_at_fault() {
    let setup = Setup::new();
    let (ours, mut theirs) = UnixStream::pair().expect("a socket");
    ours.set_nonblocking(true).expect("an option");
    let socket = Arc::new(OwnedFd::from(ours));
    let outgoing = Outgoing::new(
        Link::new(Arc::clone(&socket), None, Instant::now()),
        PATIENCE,
    );
    let mailbox = Arc::new(Mailbox::new(4, outgoing).expect("an eventfd"));
    theirs.write_all(b"HELLO 1 id=a\n").expect("taken");
    theirs.shutdown(Shutdown::Write).expect("an open socket");
    mailbox.command(Command::Drain);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    Box::new(Session::new(
        1,
        socket,
        peer,
        mailbox,
        Arc::clone(&setup.context),
    ))
    .run();
    let mut said = String::new();
    theirs.read_to_string(&mut said).expect("an end");
    assert_eq!(said, "BYE reason=drain retry=1\n");
}

#[test]
fn a_word_after_the_relay_has_closed_does_not_reset_the_connection() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a");
    let began = Instant::now();
    client.say("BYE");
    client.expect_closed(); // it sends no more...
    let words = b"PING\n".repeat(100);
    // ...and takes this in, to no effect
    let is_taken = (0..200).all(|_| client.socket.write_all(&words).is_ok());
    let end = client.socket.read(&mut [0]);
    // It closes for good after that, and then it may reset.
    if began.elapsed() < LINGER {
        assert!(is_taken && matches!(end, Ok(0)), "{end:?}");
    }
}

#[test]
fn what_waits_for_a_backend_that_says_bye_is_told_so() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a max=1");
    let flying = setup.sender.send("a", b"x");
    let waiting = setup.sender.send("a", b"y");
    client.msg();
    client.say("BYE");
    assert_eq!(setup.sender.receipt(), (waiting, Receipt::Gone));
    assert!(setup.context.registry.is_empty());
    client.ping();
    client.say(&format!("ACK id={flying}"));
    assert_eq!(setup.sender.receipt(), (flying, Receipt::Ack));
    client.expect_closed();
}

/// Its provider hears so at the same moment, and it hears the same from whoever is first.
#[test]
fn what_a_session_that_was_taken_over_does_not_answer_in_time_was_not_away() {
    let setup = Setup::with_ack_deadline(Duration::from_millis(50));
    let mut old = setup.backend("HELLO 1 id=a");
    let flying = setup.sender.send("a", b"x");
    old.msg();
    let _new = setup.backend("HELLO 1 id=a");
    assert_eq!(setup.sender.receipt(), (flying, Receipt::Expired));
    assert_eq!(old.line(), "BYE reason=takeover retry=5");
    old.expect_closed();
}

#[test]
fn a_drain_waits_for_what_is_in_flight_and_no_longer() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a max=1");
    let flying = setup.sender.send("a", b"x");
    let waiting = setup.sender.send("a", b"y");
    client.msg();
    setup.listener().drain();
    assert_eq!(setup.sender.receipt(), (waiting, Receipt::Gone));
    assert_eq!(client.line(), "BYE reason=drain retry=1");
    assert!(!setup.listener().wait_empty(Instant::now()));
    client.say(&format!("ACK id={flying}"));
    assert_eq!(setup.sender.receipt(), (flying, Receipt::Ack));
    client.expect_closed();
    drop(client);
    assert!(setup.listener().wait_empty(Instant::now() + PATIENCE));
}

#[test]
fn a_door_that_is_dropped_cuts_everything_at_once() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a max=1");
    let greeting = setup.client();
    setup.sender.send("a", b"x");
    setup.sender.send("a", b"y");
    client.msg();
    let sender = Arc::clone(&setup.sender);
    setup.stop();
    assert_eq!(sender.receipt().1, Receipt::Gone);
    assert_eq!(sender.receipt().1, Receipt::Gone);
    assert!(matches!(client.hear(), Heard::Closed));
    drop(greeting);
}

#[test]
fn a_crowd_that_comes_and_goes_leaves_nothing_behind() {
    let setup = Setup::new();
    for _ in 0..10 {
        let crowd: Vec<_> = (0..50).map(|_| setup.client()).collect();
        for (n, mut client) in crowd.into_iter().enumerate() {
            if n % 3 == 0 {
                client.say("HELLO 1 id=a");
            } else if n % 3 == 1 {
                client.socket.write_all(b"HELLO").expect("taken");
            }
        }
    }
    assert!(setup.listener().wait_empty(Instant::now() + PATIENCE));
    assert!(setup.context.registry.is_empty());
}

#[test]
fn a_full_door_says_so_even_to_who_has_spoken_already() {
    let setup = Setup::with(|tcp| tcp.max_connections = 1);
    let _inside = setup.backend("HELLO 1 id=a");
    for _ in 0..20 {
        let mut client = setup.client();
        let _ = client.socket.write_all(b"HELLO 1 id=b\n");
        let line = client.line();
        assert!(line.starts_with("ERR code=limit fatal=1 "), "{line}");
    }
}

//! ACKs, alone and among other verbs, whole and in pieces.

use std::io::Write;
use std::time::{Duration, Instant};

use super::setup::{PATIENCE, Setup};
use crate::notification::{Again, Nack, Receipt};

#[test]
fn what_comes_with_acks_in_one_write_is_heard_in_its_place() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a max=4");
    for _ in 0..8 {
        let ids = [0; 4].map(|_| setup.sender.send("a", b"x"));
        for id in ids {
            assert_eq!(client.msg().id, id.to_string());
        }
        let [first, second, third, fourth] = ids;
        client.say(&format!(
            "ACK id={first}\nPONG\nPING\nNACK id={second} delay=-1\nACK id={third}\nX\nACK id={fourth}"
        ));
        let never = Nack {
            again: Again::Never,
            reason: None,
        };
        assert_eq!(setup.sender.receipt(), (first, Receipt::Ack));
        assert_eq!(setup.sender.receipt(), (second, Receipt::Nack(never)));
        assert_eq!(setup.sender.receipt(), (third, Receipt::Ack));
        assert_eq!(setup.sender.receipt(), (fourth, Receipt::Ack));
        assert_eq!(client.line(), "PONG");
        let error = client.line();
        assert!(error.starts_with("ERR code=unknown-verb "), "{error}");
    }
}

#[test]
fn an_ack_in_pieces_is_put_together() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a");
    for at in 1.."ACK id=\n".len() + 26 {
        let id = setup.sender.send("a", b"x");
        assert_eq!(client.msg().id, id.to_string());
        let ack = format!("ACK id={id}\n");
        let (half, rest) = ack.split_at(at);
        client.socket.write_all(half.as_bytes()).expect("taken");
        if at % 3 == 1 {
            let other = setup.sender.send("a", b"y");
            assert_eq!(client.msg().id, other.to_string());
            client.socket.write_all(rest.as_bytes()).expect("taken");
            client.say(&format!("PING\nACK id={other}"));
            assert_eq!(setup.sender.receipt(), (id, Receipt::Ack));
            assert_eq!(setup.sender.receipt(), (other, Receipt::Ack));
            assert_eq!(client.line(), "PONG");
        } else {
            client.socket.write_all(rest.as_bytes()).expect("taken");
            assert_eq!(setup.sender.receipt(), (id, Receipt::Ack));
        }
    }
}

#[test]
fn an_ack_before_the_close_counts_and_the_close_is_heard() {
    let setup = Setup::new();
    for rest in ["", "ACK id="].repeat(20) {
        let mut client = setup.backend("HELLO 1 id=a");
        let (acked, lost) = (setup.sender.send("a", b"x"), setup.sender.send("a", b"y"));
        client.msg();
        client.msg();
        client
            .socket
            .write_all(format!("ACK id={acked}\n{rest}").as_bytes())
            .expect("taken");
        drop(client);
        assert_eq!(setup.sender.receipt(), (acked, Receipt::Ack));
        assert_eq!(setup.sender.receipt(), (lost, Receipt::Gone));
    }
    assert!(setup.listener().wait_empty(Instant::now() + PATIENCE));
}

#[test]
fn every_ack_makes_room_for_what_waits() {
    const MANY: usize = 60;
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a max=1");
    let ids: Vec<_> = (0..MANY).map(|_| setup.sender.send("a", b"x")).collect();
    for id in ids {
        assert_eq!(client.msg().id, id.to_string());
        client.say(&format!("ACK id={id}"));
        assert_eq!(setup.sender.receipt(), (id, Receipt::Ack));
    }
}

#[test]
fn an_ack_of_what_is_not_in_flight_is_answered_after_what_was_said_before() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a");
    let id = setup.sender.send("a", b"x");
    client.msg();
    client.say(&format!("ACK id={id}\nACK id={id}"));
    assert_eq!(setup.sender.receipt(), (id, Receipt::Ack));
    let error = client.line();
    let told = format!("ERR code=unknown-id id={id} ");
    assert!(error.starts_with(&told), "{error}");
    client.ping();
}

#[test]
fn who_says_nothing_but_pong_is_alive() {
    let setup = Setup::with(|tcp| tcp.heartbeat = Duration::from_secs(1));
    let mut client = setup.backend("HELLO 1 id=a");
    for _ in 0..3 {
        assert_eq!(client.line(), "PING"); // and not BYE, after two and a half heartbeats
        client.say("PONG");
    }
}

//! Greeting, credit, time, and peers that do not read.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use super::setup::{PATIENCE, Setup};
use crate::notification::Receipt;

#[test]
fn nothing_comes_before_ok_and_no_more_than_the_credit_after_it() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a max=2");
    let ids: Vec<_> = (0..5).map(|_| setup.sender.send("a", b"x")).collect();
    let (first, second) = (client.msg(), client.msg());
    client.ping(); // or there would be a third before the PONG
    client.say(&format!("TOUCH id={}", first.id));
    client.ping();
    client.say(&format!("ACK id={}", second.id));
    assert_eq!(client.msg().id, ids[2].to_string());
    client.say("RDY max=4");
    assert_eq!(client.msg().id, ids[3].to_string());
    assert_eq!(client.msg().id, ids[4].to_string());
    assert_eq!(setup.sender.receipt(), (ids[1], Receipt::Ack));
    drop(client);
    for _ in 0..4 {
        assert_eq!(setup.sender.receipt().1, Receipt::Gone);
    }
}

#[test]
fn what_is_not_answered_in_time_is_forgotten_and_makes_room() {
    let setup = Setup::with(|tcp| tcp.ack_timeout = Duration::from_secs(2));
    let mut client = setup.backend("HELLO 1 id=a max=1");
    let first = setup.sender.send("a", b"x");
    let second = setup.sender.send("a", b"y");
    assert_eq!(client.msg().id, first.to_string());
    assert_eq!(setup.sender.receipt(), (first, Receipt::Expired));
    assert_eq!(client.msg().id, second.to_string());
    client.say(&format!("ACK id={second}"));
    assert_eq!(setup.sender.receipt(), (second, Receipt::Ack));
    client.say(&format!("ACK id={first}"));
    let answer = client.line();
    assert!(
        answer.starts_with(&format!("ERR code=unknown-id id={first} ")),
        "{answer}"
    );
}

#[test]
fn a_peer_that_takes_no_byte_is_cut_and_the_senders_hear_of_it() {
    let setup = Setup::with(|tcp| tcp.write_deadline = Duration::from_secs(3));
    let mut client = setup.narrow_client();
    client.say("HELLO 1 id=a max=1024");
    assert!(client.line().starts_with("OK "));
    let large = vec![0; 1 << 20];
    let sent: Vec<_> = (0..12).map(|_| setup.sender.send("a", &large)).collect();
    let mut told: Vec<_> = sent.iter().map(|_| setup.sender.receipt()).collect();
    told.sort_by_key(|(id, _)| *id);
    let all_gone: Vec<_> = sent.into_iter().map(|id| (id, Receipt::Gone)).collect();
    assert_eq!(told, all_gone);
    assert!(setup.context.registry.is_empty());
}

#[test]
fn a_large_body_arrives_whole_without_another_sound() {
    // Whoever brings it writes what the socket takes; the rest must wake the session's thread, whenever it looked last.
    let setup = Setup::new();
    let mut client = setup.narrow_client();
    client.say("HELLO 1 id=a max=1");
    assert!(client.line().starts_with("OK "));
    let large: Vec<u8> = (0..600_000u32).map(|n| (n >> 3) as u8).collect();
    for _ in 0..40 {
        let id = setup.sender.send("a", &large);
        let msg = client.msg();
        assert_eq!((msg.id, msg.body == large), (id.to_string(), true));
        client.say(&format!("ACK id={id}"));
        assert_eq!(setup.sender.receipt(), (id, Receipt::Ack));
    }
}

#[test]
fn an_ack_is_heard_while_a_large_body_is_on_its_way() {
    let setup = Setup::new();
    let mut client = setup.narrow_client();
    client.say("HELLO 1 id=a max=20");
    assert!(client.line().starts_with("OK "));
    let small: Vec<_> = (0..4).map(|_| setup.sender.send("a", b"x")).collect();
    for id in &small {
        assert_eq!(client.msg().id, id.to_string());
    }
    for _ in 0..16 {
        setup.sender.send("a", &vec![0; 1 << 20]); // more than all buffers of the system
    }
    // The first may still be heard in the turn that fills the buffers.
    for id in small {
        client.say(&format!("ACK id={id}"));
        assert_eq!(setup.sender.receipt(), (id, Receipt::Ack));
    }
}

#[test]
fn a_peer_that_asks_without_reading_is_not_listened_to() {
    asks_without_reading("A\n");
}

#[test]
fn nor_is_one_that_acknowledges_what_it_does_not_have() {
    asks_without_reading("ACK id=00000000000000000000000000\n");
    asks_without_reading("PING a=\n"); // a number of them fills what is read at once
}

fn asks_without_reading(asking: &str) {
    // A busy machine may be slow to fill what the peer has room for.
    let setup = Setup::with(|tcp| tcp.write_deadline = Duration::from_secs(3600));
    let mut client = setup.narrow_client();
    client.say("HELLO 1 id=a");
    assert!(client.line().starts_with("OK "));
    let asking = asking.repeat(8 * 1024 / asking.len());
    client
        .socket
        .set_write_timeout(Some(Duration::from_secs(3)))
        .expect("an option");
    let mut said = 0;
    let stuck = loop {
        match client.socket.write(asking.as_bytes()) {
            Ok(bytes) => said += bytes,
            Err(error) => break error,
        }
        assert!(said < 64 << 20, "the relay listens on and on");
    };
    assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
    // One that reads again is heard again.
    let mut reader = client.socket.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        let hung = scope.spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let option = client.socket.set_write_timeout(Some(PATIENCE));
        option.expect("an option");
        client.say(""); // ends a half "A", or is an empty line, which is fatal
        client.say("");
        let bytes = hung.join().expect("no panic").expect("an end, no reset");
        assert!(bytes > 1 << 20);
    });
}

#[test]
fn a_reference_is_said_back_only_if_it_fits() {
    let setup = Setup::new();
    let mut client = setup.backend("HELLO 1 id=a");
    let longest = "!".repeat(64);
    client.say(&format!("X ref={longest}"));
    let line = client.line();
    assert!(
        line.contains(&format!(" ref={} ", "%21".repeat(64))),
        "{line}"
    );
    client.say(&format!("X ref={longest}!"));
    assert!(client.line().starts_with("ERR code=unknown-verb msg="));
    client.say(&format!("X ref={}", "!".repeat(1018)));
    assert!(client.line().starts_with("ERR code=unknown-verb msg="));
}

#[test]
fn half_lines_and_data_across_reads_are_put_together() {
    let setup = Setup::new();
    let mut client = setup.client();
    let data = format!("JUGGLE =5000\n{}\n", "\n\0PING\n".repeat(1000)).replace("\0", "");
    let data = &data[..13 + 5000];
    for piece in ["HEL", "LO 1 id=", "a\r", "\nPI", "NG\n"] {
        client.socket.write_all(piece.as_bytes()).expect("taken");
    }
    assert!(client.line().starts_with("OK "));
    assert_eq!(client.line(), "PONG");
    for chunk in data.as_bytes().chunks(997) {
        client.socket.write_all(chunk).expect("taken");
    }
    client.say("");
    assert!(client.line().starts_with("ERR code=unknown-verb "));
    client.ping();
}

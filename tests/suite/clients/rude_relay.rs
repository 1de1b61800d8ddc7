//! A relay or a network that is slow or hostile to its clients.

use crate::support::{Adapter, LuaSetup, ScriptedRelay, adler32};

/// A body that takes many heartbeats: as long as something comes, the relay is not silent. Each piece follows the client's
/// PING, which it sends after 1.5 heartbeats without a byte.
pub fn slow_body(adapter: Adapter) {
    const PIECES: usize = 4;
    let relay = ScriptedRelay::start(adapter.via());
    let mut till = LuaSetup::new(adapter, "till-7", "ack").start(relay.addr());
    let mut session = relay.accept();
    session.send(b"OK id=till-7 node=n session=1 heartbeat=0.3 max_body=1048576\n");
    let piece = [b'x'; 1000];
    session.send(format!("MSG id=A h=0 ={}\n", PIECES * piece.len()).as_bytes());
    for _ in 1..PIECES {
        assert_eq!(session.line(), "PING");
        session.send(&piece);
    }
    assert_eq!(session.line(), "PING");
    // In one: a pause before the LF would be time for another PING.
    session.send(&[&piece[..], b"\n"].concat());
    assert_eq!(session.line(), "ACK id=A");
    let got = till.got();
    assert_eq!(got.adler32, adler32(&piece.repeat(PIECES)));
    assert_eq!(till.count("READY"), 1, "{}", till.printed());
}

/// A line without an end, and data that is too much: before OK, and after it.
pub fn endless_line(adapter: Adapter) {
    let relay = ScriptedRelay::start(adapter.via());
    let mut till = LuaSetup::new(adapter, "till-7", "ack").start(relay.addr());
    let before = {
        let mut session = relay.accept();
        let taken = session.send_until_closed(&[b'x'; 65_536], 4096);
        assert!(taken < 4096, "it reads on");
        session.expect_closed();
        till.line("LOG warn the relay sent a broken frame: a line of more than 1024 bytes");
        till.process().rss_kib()
    };
    for said in [
        "OK id=till-7 node=n session=1 heartbeat=20 max_body=1024\n",
        "OK id=till-7 node=n session=1 heartbeat=20 max_body=1024\nMSG id=A =1099511\n",
    ] {
        let mut session = relay.accept();
        session.send(said.as_bytes());
        let taken = session.send_until_closed(&[b'x'; 65_536], 4096);
        assert!(taken < 4096, "it reads on");
        session.expect_closed();
        till.line("LOG warn the relay sent a broken frame: ");
    }
    let grown = till.process().rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

/// A relay that is killed closes before it has been answered: what is written then costs the connection, and not the program
/// (as SIGPIPE would).
pub fn closes_with_messages_in_flight(adapter: Adapter) {
    const OK: &[u8] = b"OK id=till-7 node=n session=1 heartbeat=20 max_body=1024\n";
    let relay = ScriptedRelay::start(adapter.via());
    let mut till = LuaSetup::new(adapter, "till-7", "quiet").start(relay.addr());
    let mut session = relay.accept();
    let mut said = OK.to_vec();
    for n in 0..20 {
        said.extend(format!("MSG id=A{n} =0\n\n").bytes());
    }
    session.send(&said);
    drop(session);
    let mut session = relay.accept();
    session.send(OK);
    session.send(b"MSG id=B =0\n\n");
    assert_eq!(session.line(), "ACK id=B");
    till.line("READY");
    till.line("READY");
}

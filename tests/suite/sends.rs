//! SEND and DATA from one backend to another, and the limits of what backends may say to each other.

use crate::events::say;
use crate::support::{Backend, Random, Redis, Relay, eventually};

#[test]
fn what_is_sent_reaches_a_backend_on_any_node_byte_for_byte() {
    let redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let mut ones = [a.backend("a-1"), a.backend("a-2"), b.backend("b-1")];
    let names = ["a-1", "a-2", "b-1"];
    let every: Vec<u8> = (0..=255).collect();
    let large = Random::new().bytes(300_000);
    for data in [&b""[..], b"\n", &every, &large] {
        for (from, to) in [(0, 1), (0, 2), (2, 0), (1, 2)] {
            say(
                &mut ones[from],
                &format!("SEND to={} ref=r", names[to]),
                data,
            );
            let line = format!("DATA from={} ={}", names[from], data.len());
            ones[to].expect(&line, data);
            ones[from].expect_line("OK ref=r");
        }
    }
    // To itself, too.
    say(&mut ones[0], "SEND to=a-1", b"note");
    ones[0].expect("DATA from=a-1 =4", b"note");
    // A client may escape more than it has to.
    say(&mut ones[0], "SEND to=%62%2d1 ref=%72", b"x");
    ones[2].expect("DATA from=a-1 =1", b"x");
    ones[0].expect_line("OK ref=r");
}

#[test]
fn a_backend_that_is_nowhere_is_offline_whether_it_was_there_or_not() {
    let redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let mut sender = a.backend("sender");
    say(&mut sender, "SEND to=nobody", b"x");
    sender.expect_error("offline");
    for round in 0..20 {
        let mut other = b.backend("other");
        say(&mut sender, "SEND to=other ref=r", b"x");
        other.expect("DATA from=sender =1", b"x");
        sender.expect_line("OK ref=r");
        other.send("BYE");
        other.expect_closed();
        say(&mut sender, &format!("SEND to=other ref={round}"), b"x");
        sender.expect_line(&format!("ERR code=offline ref={round} msg=*"));
    }
}

#[test]
fn whoever_does_not_read_is_busy_and_costs_nobody_else() {
    let redis = Redis::start();
    let fast = "[tcp]\ndata_rate = \"1GiB\"";
    let (a, b) = (redis.node("a", fast), redis.node("b", fast));
    let (mut near, mut far) = (b.backend("near"), a.backend("far"));
    let mut full = Backend::raw_with_small_window(&b);
    full.hello("full", "");
    let mut other = b.backend("other");
    let data = vec![b'x'; 64 * 1024];
    let mut written = 0;
    for sender in [&mut far, &mut near] {
        loop {
            say(sender, "SEND to=full ref=r", &data);
            let answer = sender.next().expect("an answer");
            if answer.verb == "ERR" {
                assert_eq!(answer.matches("ERR code=busy ref=r msg=*"), Ok(()));
                break;
            }
            written += 1;
            assert!(written < 1000, "it is never full");
        }
        say(sender, "SEND to=other ref=r", b"x");
        other.expect_line("DATA from=* =1");
        sender.expect_line("OK ref=r");
    }
    for _ in 0..written {
        full.expect_line("DATA from=* =65536");
    }
    say(&mut far, "SEND to=full ref=r", b"again");
    full.expect("DATA from=far =5", b"again");
    far.expect_line("OK ref=r");
}

#[test]
fn data_comes_in_pieces_of_any_size() {
    let node = Relay::start();
    let (mut sender, mut other) = (node.backend("sender"), node.backend("other"));
    let mut random = Random::new();
    for _ in 0..20 {
        let data = {
            let size = random.below(20_000);
            random.bytes(size)
        };
        let mut bytes = format!("SEND to=other ref=r ={}\n", data.len()).into_bytes();
        bytes.extend_from_slice(&data);
        bytes.extend_from_slice(b"\nPING\n");
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + random.below(3000)).min(rest.len()));
            sender.send_bytes(piece);
            rest = after;
        }
        sender.expect_line("OK ref=r");
        sender.expect_line("PONG");
        other.expect(&format!("DATA from=sender ={}", data.len()), &data);
    }
}

#[test]
fn data_that_ends_wrongly_or_names_nobody_says_so() {
    let node = Relay::start();
    let mut other = node.backend("other");
    for (wrong, fatal) in [
        ("SEND to=other =3\nabcd\n", true),
        ("PUB ch=news =0\nx\n", true),
        ("SUB ch=news =1\nxy\n", true),
        ("SEND to=other ref=r\n", false),
        ("SEND ref=r =1\nx\n", false),
        ("SEND to=a/b ref=r =1\nx\n", false),
        ("PUB ref=r =1\nx\n", false),
        ("PUB ch=no,comma ref=r =1\nx\n", false),
        ("PUB ch=news ref=r\n", false),
        ("SUB ref=r\n", false),
        ("SUB ch= ref=r\n", false),
        ("SUB ch=news once=2 ref=r\n", false),
        ("UNSUB ch=%00 ref=r\n", false),
        ("UNSUB ref=r\n", false),
    ] {
        let mut sender = node.backend("sender");
        sender.send_bytes(wrong.as_bytes());
        if fatal {
            sender.expect_fatal("bad-frame");
        } else {
            sender.expect_line("ERR code=bad-frame ref=r msg=*");
            sender.settle();
        }
    }
    let long = "c".repeat(129);
    let mut sender = node.backend("sender");
    sender.send(&format!("SUB ch={long} ref=r"));
    sender.expect_line("ERR code=bad-frame ref=r msg=*");
    sender.send(&format!("SUB ch={} ref=r", &long[1..]));
    sender.expect_line("OK ref=r");
    other.settle(); // it has heard nothing of all that
}

#[test]
fn a_session_listens_to_so_many_channels_and_no_more() {
    let node = Relay::with("[tcp]\nchannels = 2");
    let mut backend = node.backend("a");
    for (channel, answer) in [
        ("one", "OK ref=r"),
        ("two once=1", "OK ref=r"),
        ("three", "ERR code=limit ref=r msg=*"),
        ("one", "OK ref=r"), // anew
    ] {
        backend.send(&format!("SUB ch={channel} ref=r"));
        backend.expect_line(answer);
    }
    say(&mut backend, "PUB ch=three", b"x");
    say(&mut backend, "PUB ch=two", b"x");
    backend.expect("EVENT ch=two =1", b"x");
    backend.send("SUB ch=three ref=r"); // the one that has heard does not count
    backend.expect_line("OK ref=r");
    backend.send("SUB ch=four ref=r");
    backend.expect_line("ERR code=limit ref=r msg=*");
    backend.send("UNSUB ch=one");
    backend.send("SUB ch=four ref=r");
    backend.expect_line("OK ref=r");
    node.backend("b").send("SUB ch=one"); // another's are its own

    let none = Relay::with("[tcp]\nchannels = 0");
    let mut backend = none.backend("a");
    backend.send("SUB ch=one ref=r");
    backend.expect_line("ERR code=limit ref=r msg=*");
}

#[test]
fn a_session_says_so_much_a_second_and_no_more() {
    let node = Relay::with("[http]\nmax_body = \"4KiB\"\n[tcp]\ndata_rate = \"1KiB\"");
    let (mut sender, mut other) = (node.backend("sender"), node.backend("other"));
    let largest = vec![b'x'; 4096];
    say(&mut sender, "SEND to=other ref=r", &largest);
    other.expect("DATA from=sender =4096", &largest);
    sender.expect_line("OK ref=r");
    say(&mut sender, "SEND to=other ref=r", &largest);
    sender.expect_line("ERR code=limit ref=r msg=*");
    sender.settle(); // its data was read past
    eventually("it may say more after a while", || {
        say(&mut sender, "SEND to=other ref=r", &largest);
        let answer = sender.next().expect("an answer");
        answer.verb == "OK"
    });
    other.expect("DATA from=sender =4096", &largest);

    // Frames without data are not free: each costs the other nodes something.
    for (line, data) in [
        ("PUB ch=news ref=r", true),
        ("SEND to=other ref=r", true),
        ("SUB ch=news ref=r", false),
    ] {
        let mut flooder = node.backend("flooder");
        let mut limited = 0;
        for _ in 0..200 {
            match data {
                true => say(&mut flooder, line, b""),
                false => flooder.send(line),
            }
        }
        for _ in 0..200 {
            let answer = flooder.next().expect("an answer");
            limited += usize::from(answer.get("code") == Some("limit"));
        }
        assert!(limited > 100, "{line}: {limited} of 200 were refused");
    }
    say(&mut sender, "SEND to=other", &vec![b'x'; 4097]);
    sender.expect_fatal("too-big");
}

#[test]
fn answers_come_although_much_is_unread() {
    let node = Relay::with("[tcp]\ndata_rate = \"1GiB\"");
    let mut teller = node.backend("teller");
    let mut slow = Backend::raw_with_small_window(&node);
    slow.hello("slow", "");
    let data = vec![b'x'; 64 * 1024];
    // Until it has no room for what others say.
    let mut written = 0;
    loop {
        say(&mut teller, "SEND to=slow ref=r", &data);
        if teller.next().expect("an answer").verb == "ERR" {
            break;
        }
        written += 1;
    }
    slow.send("SUB ch=news ref=s");
    say(&mut slow, "PUB ch=other ref=p", b"x");
    say(&mut slow, "SEND to=nobody", b"x");
    say(&mut slow, "SEND to=teller ref=t", b"x");
    teller.expect("DATA from=slow =1", b"x");
    for _ in 0..written {
        slow.expect_line("DATA from=teller =65536");
    }
    for answer in ["OK ref=s", "OK ref=p", "ERR code=offline msg=*", "OK ref=t"] {
        slow.expect_line(answer);
    }
}

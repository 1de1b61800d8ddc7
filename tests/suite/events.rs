//! Channels: SUB, UNSUB, PUB and EVENT, on one node and across two.

use std::process::Command;
use std::thread;

use crate::support::{Backend, Frame, Lua, Process, Random, Redis, Relay, eventually};

/// Says `line` with `data`.
pub fn say(backend: &mut Backend, line: &str, data: &[u8]) {
    let mut frame = format!("{line} ={}\n", data.len()).into_bytes();
    frame.extend_from_slice(data);
    frame.push(b'\n');
    backend.send_bytes(&frame);
}

fn listen(backend: &mut Backend, channel: &str, keys: &str) {
    backend.send(&format!("SUB ch={channel} ref=sub{keys}"));
    backend.expect_line("OK ref=sub");
}

#[test]
fn what_is_published_reaches_every_listener_on_every_node_byte_for_byte() {
    let redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let mut listeners: Vec<Backend> = [(&a, "a-1"), (&a, "a-2"), (&b, "b-1"), (&b, "b-2")]
        .into_iter()
        .map(|(node, id)| node.backend(id))
        .collect();
    for listener in &mut listeners {
        listen(listener, "news/today", "");
    }
    let mut deaf = b.backend("b-3");
    listen(&mut deaf, "news", "");
    let every: Vec<u8> = (0..=255).collect();
    let random = Random::new().bytes(1 << 20);
    for (n, data) in [&b""[..], b"{\"order\": 7}", &every, &random]
        .into_iter()
        .enumerate()
    {
        let from = n % listeners.len();
        say(&mut listeners[from], "PUB ch=news/today ref=p", data);
        for (at, listener) in listeners.iter_mut().enumerate() {
            let mut events = 0;
            // Its own event and the OK come in either order.
            for _ in 0..1 + usize::from(at == from) {
                let frame = listener.next().expect("a frame");
                if frame.verb == "OK" {
                    assert_eq!((at, frame.get("ref")), (from, Some("p")));
                    continue;
                }
                assert_eq!((&*frame.verb, frame.field("ch")), ("EVENT", "news/today"));
                assert!(frame.body() == data, "other bytes");
                events += 1;
            }
            assert_eq!(events, 1);
        }
    }
    deaf.settle();
    eventually("each is counted, and none more", || {
        b.metric("payrelay_events_total{result=\"sent\"}") == 8.0
    });
}

#[test]
fn ok_to_sub_means_that_the_next_event_of_any_node_is_heard() {
    let redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let (mut teller, mut listener) = (a.backend("teller"), b.backend("listener"));
    for round in 0..200 {
        let channel = format!("round-{}", round % 150); // new ones, and some a second time
        listen(&mut listener, &channel, "");
        say(&mut teller, &format!("PUB ch={channel}"), b"now");
        listener.expect(&format!("EVENT ch={channel} =3"), b"now");
        listener.send(&format!("UNSUB ch={channel} ref=u"));
        listener.expect_line("OK ref=u");
        say(&mut teller, &format!("PUB ch={channel} ref=p"), b"unheard");
        teller.expect_line("OK ref=p");
        listener.settle();
    }
}

#[test]
fn once_is_once_although_two_nodes_publish_together() {
    let redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let (mut one, mut other) = (a.backend("one"), b.backend("other"));
    let mut listener = b.backend("listener");
    listen(&mut listener, "after", "");
    for round in 0..200 {
        listen(&mut listener, "race", " once=1");
        thread::scope(|scope| {
            for teller in [&mut one, &mut other] {
                scope.spawn(move || {
                    say(teller, "PUB ch=race ref=r", b"x");
                    teller.expect_line("OK ref=r");
                    say(teller, "PUB ch=after ref=r", b"y");
                    teller.expect_line("OK ref=r");
                });
            }
        });
        listener.expect("EVENT ch=race =1", b"x");
        for _ in 0..2 {
            let frame = listener.next().expect("a frame");
            assert_eq!(frame.field("ch"), "after", "a second one in round {round}");
        }
    }
}

#[test]
fn a_channel_can_be_left_while_events_fly_and_nothing_of_it_stays() {
    let redis = Redis::start();
    // The teller says more than a busy machine lets the listener follow.
    let roomy = "[tcp]\ndata_rate = \"64MiB\"";
    let (a, b) = (redis.node("a", roomy), redis.node("b", ""));
    let teller = a.backend_with("teller", "");
    let mut listener = b.backend("listener");
    let end = teller.shutdown_handle();
    thread::scope(|scope| {
        let mut teller = teller;
        scope.spawn(move || {
            // Until its connection is ended.
            while teller.try_send(b"PUB ch=news ref=p =1\nx\n")
                && teller.next().is_some_and(|frame| frame.verb == "OK")
            {}
        });
        for round in 0..300 {
            let once = if round % 2 == 0 { " once=1" } else { "" };
            listener.send(&format!("SUB ch=news ref=s{round}{once}"));
            let mut heard = 0;
            let mut stands = false;
            while !stands || heard == 0 {
                let frame = listener.next().expect("a frame");
                match &*frame.verb {
                    "OK" => stands = frame.get("ref") == Some(&format!("s{round}")),
                    _ => heard += 1,
                }
            }
            listener.send(&format!("UNSUB ch=news ref=u{round}"));
            let left = loop {
                let frame = listener.next().expect("a frame");
                if frame.verb == "OK" {
                    break frame;
                }
                heard += 1;
            };
            assert_eq!(left.field("ref"), format!("u{round}"));
            assert!(heard == 1 || once.is_empty(), "{heard} events, once");
        }
        let _ = end.shutdown(std::net::Shutdown::Both);
    });
    eventually("nobody is subscribed", || {
        redis.subscribers(&["payrelay:event:news".into()])[0] == 0
    });
}

#[test]
fn the_end_of_a_session_ends_its_listening() {
    let redis = Redis::start();
    let node = redis.node("a", "");
    let subscribers = || redis.subscribers(&["payrelay:event:news".into()])[0];
    for end in ["close", "reset", "bye", "takeover", "fault"] {
        let mut listener = node.backend("listener");
        listen(&mut listener, "news", "");
        assert_eq!(subscribers(), 1);
        match end {
            "close" => drop(listener),
            "reset" => listener.reset(),
            "bye" => listener.send("BYE"),
            "takeover" => drop(node.backend("listener")),
            _ => listener.send("PUB ch"),
        }
        eventually(end, || subscribers() == 0);
    }
    // It still has something to acknowledge, and wants to hear something new.
    let mut leaving = node.backend("leaving");
    let answer = node.post("/notify/leaving", b"x");
    let message = leaving.message().id();
    leaving.send("BYE");
    leaving.send("SUB ch=news ref=late");
    leaving.expect_line("ERR code=offline ref=late msg=*");
    say(&mut leaving, "PUB ch=news ref=last", b"x");
    leaving.expect_line("OK ref=last");
    leaving.send(&format!("ACK id={message}"));
    assert_eq!(answer.answer().told(), (200, "delivered"));
    leaving.expect_closed();
    eventually("nothing is left", || subscribers() == 0);
}

#[test]
fn a_bus_that_fails_and_recovers_is_told_to_every_listener() {
    let mut redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let (mut teller, mut listener) = (a.backend("teller"), b.backend("listener"));
    let mut neighbour = b.backend("neighbour");
    listen(&mut listener, "news", "");
    listen(&mut listener, "other", " once=1");
    let channels = |backend: &mut Backend, line: &str| {
        let mut told: Vec<String> = (0..2)
            .map(|_| backend.expect_line(line).field("ch").to_owned())
            .collect();
        told.sort();
        assert_eq!(told, ["news", "other"]);
    };
    redis.kill();
    channels(&mut listener, "ERR code=offline ch=* msg=*");
    eventually("the other node has noticed", || a.readyz().status == 503);
    say(&mut teller, "PUB ch=news", b"lost");
    teller.expect_error("offline");
    say(&mut teller, "SEND to=listener ref=r", b"lost");
    teller.expect_line("ERR code=offline ref=r msg=*");
    say(&mut listener, "SEND to=neighbour ref=r", b"here");
    neighbour.expect("DATA from=listener =4", b"here");
    listener.expect_line("OK ref=r");
    // Whoever comes meanwhile is told the same.
    neighbour.send("SUB ch=late ref=s");
    neighbour.expect_line("ERR code=offline ch=late msg=*");
    neighbour.expect_line("ERR code=offline ref=s msg=*");

    redis.restart();
    channels(&mut listener, "OK ch=*");
    neighbour.expect_line("OK ch=late");
    eventually("the other node is back", || a.readyz().status == 200);
    for channel in ["news", "other", "late"] {
        say(&mut teller, &format!("PUB ch={channel} ref=p"), b"again");
        teller.expect_line("OK ref=p");
        let backend = match channel {
            "late" => &mut neighbour,
            _ => &mut listener,
        };
        backend.expect(&format!("EVENT ch={channel} =5"), b"again");
    }
}

/// Reads until the relay has told of every event, heard or lost: how many of each.
fn heard_and_lost(listener: &mut Backend, of: usize) -> (usize, usize) {
    let (mut heard, mut lost) = (0, 0);
    while heard + lost < of {
        let frame = listener.next().expect("a frame");
        match &*frame.verb {
            "EVENT" => heard += 1,
            _ => lost += count_of_lost(&frame),
        }
    }
    assert_eq!(heard + lost, of);
    (heard, lost)
}

fn count_of_lost(frame: &Frame) -> usize {
    frame
        .matches("ERR code=busy ch=news msg=*")
        .unwrap_or_else(|problem| panic!("{problem}"));
    let words = frame.field("msg").split(' ').next();
    words.and_then(|n| n.parse().ok()).expect("how many")
}

#[test]
fn a_listener_that_does_not_read_loses_events_is_told_how_many_and_slows_nobody() {
    const EVENTS: usize = 200;
    let redis = Redis::start();
    let fast = "[tcp]\ndata_rate = \"1GiB\"\nwrite_deadline = \"60s\"";
    let (a, b) = (redis.node("a", fast), redis.node("b", fast));
    let mut teller = a.backend("teller");
    let mut quick = b.backend("quick");
    let mut slow = Backend::raw_with_small_window(&b);
    slow.hello("slow", "");
    listen(&mut slow, "news", "");
    listen(&mut slow, "last", " once=1");
    listen(&mut quick, "news", "");
    let data = vec![b'x'; 64 * 1024];
    for n in 0..EVENTS {
        say(&mut teller, "PUB ch=news ref=p", &data);
        teller.expect_line("OK ref=p");
        let event = quick.next().expect("a frame");
        assert_eq!(event.verb, "EVENT", "the quick one hears event {n}");
    }
    let metric = |result| b.metric(&format!("payrelay_events_total{{result=\"{result}\"}}"));
    eventually("each is counted", || {
        metric("sent") + metric("lost") == 2.0 * EVENTS as f64
    });
    // Also the only event of a channel that is listened to once.
    say(&mut teller, "PUB ch=last ref=p", &data);
    teller.expect_line("OK ref=p");
    eventually("it is lost", || metric("sent") + metric("lost") == 401.0);
    let lost_of_all = metric("lost") as usize;
    // What it asks for itself is answered all the same.
    slow.send("SUB ch=more ref=m");

    let mut told = (0, 0, 0, 0);
    while told != (1, 1, EVENTS - (lost_of_all - 1), lost_of_all - 1) {
        let frame = slow.next().expect("a frame");
        match (&*frame.verb, frame.get("ch")) {
            ("OK", _) => told.0 += usize::from(frame.get("ref") == Some("m")),
            ("ERR", Some("last")) => told.1 += 1,
            ("EVENT", Some("news")) => told.2 += 1,
            _ => told.3 += count_of_lost(&frame),
        }
    }
    slow.settle(); // and nothing more
    say(&mut teller, "PUB ch=news", b"y");
    slow.expect("EVENT ch=news =1", b"y");
}

#[test]
fn lost_events_are_told_before_the_next_and_on_one_node_too() {
    let node = Relay::with("[tcp]\ndata_rate = \"1GiB\"\nwrite_deadline = \"60s\"");
    let mut teller = node.backend("teller");
    let mut slow = Backend::raw_with_small_window(&node);
    slow.hello("slow", "");
    listen(&mut slow, "news", "");
    let data = vec![b'x'; 64 * 1024];
    for _ in 0..150 {
        say(&mut teller, "PUB ch=news ref=p", &data);
        teller.expect_line("OK ref=p");
    }
    let (heard, lost) = heard_and_lost(&mut slow, 150);
    assert!(heard > 0 && lost > 0, "{heard} heard, {lost} lost");
}

#[test]
fn lua_programs_on_two_nodes_talk_to_each_other() {
    let redis = Redis::start();
    let (a, b) = (redis.node("a", ""), redis.node("b", ""));
    let programs: Vec<Process> = Lua::ALL
        .iter()
        .zip([&a, &b].into_iter().cycle())
        .map(|(lua, node)| {
            let to = node.ready().tcp;
            let mut command: Command = lua.command();
            command.arg("tests/lua/chat.lua");
            command.args([&to.ip().to_string(), &to.port().to_string(), lua.program()]);
            let process = Process::start(lua.program(), command);
            process.wait_line(0, |line| line == "READY");
            process
        })
        .collect();
    let mut asker = a.backend("asker");
    listen(&mut asker, "answers", "");
    say(&mut asker, "PUB ch=questions", b"are you\nthere?\0\xff");
    let mut answers: Vec<Vec<u8>> = (0..programs.len())
        .map(|_| asker.expect_line("EVENT ch=answers =*").body().to_vec())
        .collect();
    answers.sort();
    let mut wanted: Vec<Vec<u8>> = Lua::ALL
        .iter()
        .map(|lua| [lua.program().as_bytes(), b": are you\nthere?\0\xff"].concat())
        .collect();
    wanted.sort();
    assert_eq!(answers, wanted);
    for lua in Lua::ALL {
        let data = Random::new().bytes(200_000);
        say(&mut asker, &format!("SEND to={}", lua.program()), &data);
        let back: Vec<u8> = data.into_iter().rev().collect();
        asker.expect(&format!("DATA from={} =200000", lua.program()), &back);
    }
}

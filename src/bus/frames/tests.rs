//! Whatever is written is read again, and whatever else comes harms nobody.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::notification::IdMint;

fn backend() -> BackendId {
    BackendId::parse(&"a".repeat(64)).expect("an id")
}

/// The longest name that an instance can have: `node` with its random end.
fn instance() -> String {
    "n".repeat(48) + "-0a1b2c"
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    let line = out.iter().position(|&b| b == b'\n').expect("a line");
    assert!(line <= wire::LINE_BYTES_MAX, "a line of {line} bytes");
    assert_eq!(out.last(), Some(&b'\n'), "redis-cli shows it in lines");
    out
}

fn longest_notification() -> Notification {
    Notification {
        id: IdMint::new(u64::MAX).mint(u64::MAX),
        backend: backend(),
        route: "{".repeat(64).into(),
        verified: "a-preset-of-a-later-version-with-a-very-long-name".into(),
        event: Some("\u{7f}".repeat(128).into()),
        event_proven: false,
        at_unix_ms: u64::MAX,
        tries: u32::MAX,
        head: (0..=255).collect(),
        body: (0..=255).rev().cycle().take(70_000).collect(),
    }
}

#[test]
fn a_notification_is_read_as_it_was_written_however_long_its_line() {
    let longest = longest_notification();
    let plain = Notification {
        event: None,
        head: Vec::new(),
        body: Vec::new(),
        ..longest_notification()
    };
    for sent in [longest, plain] {
        let ttl = Duration::from_millis(60_000);
        let bytes = written(|out| msg(out, &sent, &instance(), ttl));
        let Some(Frame::Msg {
            notification: got,
            origin,
            ttl: left,
        }) = read(&bytes, Some(&backend()))
        else {
            panic!("no MSG");
        };
        assert_eq!((origin, left), (&*instance(), ttl));
        assert_eq!(
            (got.id, got.backend, got.route, got.verified),
            (sent.id, sent.backend, sent.route, sent.verified)
        );
        assert_eq!(
            (got.event, got.at_unix_ms, got.tries),
            (sent.event, sent.at_unix_ms, sent.tries)
        );
        assert!(got.head == sent.head && got.body == sent.body);
        assert!(read(&bytes, None).is_none(), "not on a backend's channel");
    }
}

#[test]
fn every_receipt_is_read_as_it_was_written() {
    let id = IdMint::new(7).mint(7);
    let nack = |again, reason: Option<String>| {
        let reason = reason.map(Into::into);
        Receipt::Nack(Nack { again, reason })
    };
    let longest = Some("\u{3a9}".repeat(100));
    for receipt in [
        Receipt::Ack,
        Receipt::Gone,
        Receipt::Busy,
        Receipt::Expired,
        nack(Again::Whenever, None),
        nack(Again::Never, longest.clone()),
        nack(Again::After(Duration::from_millis(500)), longest),
        nack(Again::After(Duration::from_secs(604_800)), Some("".into())),
        nack(Again::After(Duration::ZERO), Some(" =\n%".into())),
    ] {
        let msg = Sent {
            at_unix_ms: 5,
            session: 7,
        };
        for sent in [None, Some(msg)] {
            let bytes = written(|out| receipt_line(out, id, &backend(), &receipt, Some(3), sent));
            let Some(Frame::Receipt {
                id: got_id,
                to,
                receipt: got,
                tries: Some(3),
                sent: got_sent,
            }) = read(&bytes, None)
            else {
                panic!("no receipt");
            };
            assert_eq!((got_id, to, &got), (id, backend(), &receipt));
            assert_eq!(got_sent, sent);
        }
    }
    let bytes = written(|out| receipt_line(out, id, &backend(), &Receipt::Unreachable, None, None));
    assert!(matches!(
        read(&bytes, None),
        Some(Frame::Receipt {
            receipt: Receipt::Gone,
            ..
        })
    ));
}

#[test]
fn data_and_events_keep_every_byte() {
    let id = IdMint::new(7).mint(7);
    let every: Vec<u8> = (0..=255).collect();
    for bytes in [vec![], every, b"\n".to_vec(), vec![b'\n'; 70_000]] {
        let sent = Data {
            from: backend(),
            to: BackendId::parse("till").expect("an id"),
            bytes: bytes.clone(),
        };
        let frame = written(|out| data(out, id, &sent, &instance()));
        let Some(Frame::Data {
            id: got_id,
            data: got,
            origin,
        }) = read(&frame, Some(&sent.to))
        else {
            panic!("no DATA");
        };
        assert_eq!((got_id, origin), (id, &*instance()));
        assert!(got.bytes == bytes && got.from == sent.from && got.to == sent.to);

        let frame = written(|out| event(out, &bytes));
        let Some(Frame::Event(got)) = read(&frame, None) else {
            panic!("no EVENT");
        };
        assert!(got == bytes);
    }
}

#[test]
fn what_nodes_say_of_themselves_is_read_as_it_was_written() {
    let some = vec![(backend(), 0), (BackendId::parse("b").expect("an id"), 7)];
    let many: Vec<_> = (0..1000)
        .map(|n| BackendId::parse(&format!("till-{n}")).expect("an id"))
        .map(|id| (id, STAMP_MAX))
        .collect();
    for backends in [Vec::new(), some, many] {
        let bytes = written(|out| here(out, &instance(), &backends));
        let Some(Frame::Here {
            node,
            backends: got,
        }) = read(&bytes, None)
        else {
            panic!("no HERE");
        };
        assert_eq!((node, &got), (&*instance(), &backends));
        for more in [false, true] {
            let bytes = written(|out| roll(out, u64::MAX, &instance(), &backends, more));
            let Some(Frame::Roll {
                n,
                node,
                more: got_more,
                backends: got,
            }) = read(&bytes, None)
            else {
                panic!("no ROLL");
            };
            assert_eq!(
                (n, node, got_more, &got),
                (u64::MAX, &*instance(), more, &backends)
            );
        }
    }
    let bytes = written(|out| who(out, 0, &instance()));
    let Some(Frame::Who { n: 0, origin }) = read(&bytes, None) else {
        panic!("no WHO");
    };
    assert_eq!(origin, instance());
    let bytes = written(|out| canary(out, u64::MAX));
    assert!(matches!(read(&bytes, None), Some(Frame::Canary(u64::MAX))));
    assert!(matches!(read(&written(wake), None), Some(Frame::Wake)));
    let bytes = written(|out| elsewhere(out, &instance(), "[::1]:6379"));
    let Some(Frame::OtherPrimaries { node, at }) = read(&bytes, None) else {
        panic!("no ELSEWHERE");
    };
    assert_eq!((node, &*at), (&*instance(), "[::1]:6379"));
}

#[test]
fn what_is_cut_short_or_says_too_much_is_nothing() {
    let sent = longest_notification();
    let bytes = written(|out| msg(out, &sent, &instance(), Duration::ZERO));
    let line = bytes.iter().position(|&b| b == b'\n').expect("a line");
    for cut in (0..line).chain([line + 1, bytes.len() / 2, bytes.len() - 2]) {
        assert!(read(&bytes[..cut], Some(&backend())).is_none(), "{cut}");
    }
    for bad in [
        "",
        "\n",
        "MSG\n",
        "WHAT n=1\n",
        "CANARY n=-1\n",
        "CANARY n=18446744073709551616\n",
        "EVENT =9999999999\nx\n",
        "EVENT =5\nabc\n",
        "NACK id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D to=a delay=NaN\n",
        "NACK id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D to=a delay=-2\n",
        "NACK id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D to=a delay=1e300\n",
        "ACK id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D to=a/b\n",
        "MSG id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D try=1 route=r verified=none at=1 h=5 origin=n ttl=1 =4\nabcd\n",
        "MSG id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D try=1 route=r verified=none at=1 h=0 ttl=1 =1\nx\n",
    ] {
        assert!(read(bad.as_bytes(), Some(&backend())).is_none(), "{bad:?}");
    }
}

#[test]
fn garbage_harms_nobody() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let given = std::env::var("PAYRELAY_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or_else(|| clock.map_or(1, |since| since.as_nanos() as u64));
    println!("PAYRELAY_SEED={state}");
    let mut below = |end: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let id = IdMint::new(7).mint(7);
    let good: Vec<Vec<u8>> = vec![
        written(|out| {
            let mut sent = longest_notification();
            sent.body.truncate(300);
            msg(out, &sent, &instance(), Duration::from_secs(4));
        }),
        written(|out| {
            receipt_line(
                out,
                id,
                &backend(),
                &Receipt::Nack(Nack::default()),
                Some(1),
                None,
            )
        }),
        written(|out| here(out, &instance(), &[(backend(), 7)])),
        written(|out| roll(out, 7, &instance(), &[(backend(), 7)], true)),
        written(|out| event(out, b"{}")),
        written(|out| canary(out, 7)),
    ];
    for _ in 0..200_000 {
        let mut bytes = good[below(good.len())].clone();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] = below(256) as u8,
                1 => bytes.insert(at, b"=% \n0"[below(5)]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        for topic in [None, Some(&backend())] {
            let _ = read(&bytes, topic); // whatever it makes of it, it does not panic
        }
    }
}

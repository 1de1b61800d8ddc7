//! Lines of the protocol, read and written.

use std::hint::black_box;

use payrelay::notification::{IdMint, NotificationId};
use payrelay::wire::{Line, line};

use super::{Count, Work};

pub const WORK: [Work; 4] = [
    Work {
        name: "codec: an ACK is read",
        prepare: read_ack,
        count: Count::Same,
    },
    Work {
        name: "codec: a HELLO is read",
        prepare: read_hello,
        count: Count::Same,
    },
    Work {
        name: "codec: a MSG line is read",
        prepare: read_msg,
        count: Count::Same,
    },
    Work {
        name: "codec: a MSG line is written",
        prepare: write_msg,
        count: Count::Same,
    },
];

const ACK: &[u8] = b"ACK id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D\n";

const HELLO: &[u8] = b"HELLO 1 id=game-01 \
    token=de023237f3126b5b649249082b6250462f8429cb4ba4f1a2cb56cc36babf1079 max=16\n";

const MSG: &[u8] = b"MSG id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D try=1 route=/notify/%7Bid%7D verified=none \
    event=2026112400000000000000000001 at=1764000000000 h=0 =1024\n";

fn read_ack() -> Box<dyn FnMut()> {
    Box::new(|| {
        let (line, _) = whole(black_box(ACK));
        let id = line.text("id");
        black_box(id.as_deref().and_then(NotificationId::parse)).expect("an id");
    })
}

fn read_hello() -> Box<dyn FnMut()> {
    Box::new(|| {
        let (line, _) = whole(black_box(HELLO));
        black_box((
            line.number,
            line.text("id"),
            line.raw("max"),
            line.text("token"),
        ));
    })
}

fn read_msg() -> Box<dyn FnMut()> {
    Box::new(|| {
        let (line, used) = whole(black_box(MSG));
        black_box((line.text("id"), line.text("route"), line.text("event")));
        black_box((line.raw("h"), line.data_bytes, used));
    })
}

fn write_msg() -> Box<dyn FnMut()> {
    let id = IdMint::new(7).mint(1_764_000_000_000);
    let mut out = Vec::with_capacity(1024);
    Box::new(move || {
        out.clear();
        line(&mut out, "MSG")
            .plain("id", black_box(id))
            .plain("try", 1)
            .arg("route", black_box("/notify/{id}"))
            .arg("verified", "none")
            .arg("event", black_box("2026112400000000000000000001"))
            .plain("at", black_box(1_764_000_000_000_u64))
            .plain("h", 0)
            .end_with_data(black_box(1024));
        black_box(&out);
    })
}

fn whole(input: &[u8]) -> (Line<'_>, usize) {
    Line::find(input).expect("well-formed").expect("whole")
}

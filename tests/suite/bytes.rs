//! The body reaches the backend byte for byte, with the headers that its route forwards; and nowhere else. (How every Lua
//! takes it is in clients.rs.)

use crate::support::{Backend, Random, Relay, eventually, token};

/// The default of `http.max_body`.
const MAX_BODY: usize = 1024 * 1024;

fn every_byte_value() -> Vec<u8> {
    (0..=255).collect()
}

/// Bodies that have broken line-based and text-minded code before.
fn awkward_bodies() -> Vec<Vec<u8>> {
    let mut bodies = vec![
        Vec::new(),
        b"\n".to_vec(),
        b"\r\n".to_vec(),
        b"\r\n\r\n".to_vec(),
        b"\0".to_vec(),
        b"ACK id=1\nMSG id=2 =5\nhello\n".to_vec(),
        b"\r\r\n\n\r".to_vec(),
        "支付成功 ¥88".as_bytes().to_vec(),
        vec![0xd6, 0xa7, 0xb8, 0xb6, 0xb3, 0xc9, 0xb9, 0xa6], // the same in GBK, which is no UTF-8
        vec![0xff; 4096],
        every_byte_value(),
        every_byte_value().into_iter().rev().collect(),
    ];
    // Sizes around the buffers that are likely on the way.
    let mut random = Random::new();
    bodies.extend(
        [1023, 1024, 1025, 8191, 8192, 65_535, 65_536, 65_537].map(|size| random.bytes(size)),
    );
    bodies
}

#[test]
fn every_awkward_body_arrives_unchanged() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    for body in awkward_bodies() {
        let answer = relay.post("/notify/till-7", &body);
        till.expect("MSG id=* h=0 =*", &body).ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

#[test]
fn a_body_of_exactly_max_body_arrives_and_one_byte_more_does_not() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let body = Random::new().bytes(MAX_BODY + 1);
    let answer = relay.post("/notify/till-7", &body[1..]);
    till.expect("MSG id=* h=0 =1048576", &body[1..]).ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));

    let answer = relay.post("/notify/till-7", &body).answer();
    assert_eq!(answer.told(), (413, "too-big"));
    till.settle();
}

#[test]
fn a_chunked_body_arrives_as_its_bytes() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let body = every_byte_value();
    let mut request =
        b"POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for chunk in body.chunks(100) {
        request.extend(format!("{:X};ext=1\r\n", chunk.len()).bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let mut connection = relay.http();
    connection.send(&request);
    till.expect("MSG id=* h=0 =256", &body).ack();
    assert_eq!(connection.must_answer().told(), (200, "delivered"));
}

#[test]
fn forwarded_headers_come_before_the_body_as_they_were_sent() {
    let relay = Relay::with(
        "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\nforward_headers = [\"x-signature\", \"content-type\"]",
    );
    let mut till = relay.backend("till-7");
    let headers = [
        ("X-Signature", "a=1, b=\"2\";c"),
        ("Content-Type", "text/xml; charset=GBK"),
        ("X-Other", "no"),
    ];
    let body = b"\r\nbody: with a line like a header\r\n\r\n";
    let answer = relay.post_with("/notify/till-7?a=1&b=%20", &headers, body);
    let message = till.expect("MSG id=* h=* =*", body);
    let head = String::from_utf8(message.frame.head().to_vec()).expect("ASCII");
    message.ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));

    let lines: Vec<&str> = head.split_terminator("\r\n").collect();
    assert!(head.ends_with("\r\n"), "{head:?}");
    assert_eq!(lines[0], "POST /notify/till-7?a=1&b=%20 HTTP/1.1");
    let mut fields: Vec<(String, &str)> = lines[1..]
        .iter()
        .map(|line| line.split_once(": ").expect("a header line"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    fields.sort();
    let wanted = [
        ("content-type", "text/xml; charset=GBK"),
        ("x-signature", "a=1, b=\"2\";c"),
    ];
    assert_eq!(fields, wanted.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn bodies_headers_and_tokens_stay_out_of_the_log_and_the_metrics() {
    let relay = Relay::with(
        "[tcp]\nsecrets = [\"CANARY-secret-0123456789-0123456789\"]\n[log]\nlevel = \"trace\"\n\
         [[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\nforward_headers = [\"x-signature\"]",
    );
    let token = token("CANARY-secret-0123456789-0123456789", "till-7");
    let mut till = relay.backend_with("till-7", &format!("token={token}"));
    let headers = [("X-Signature", "CANARY-signature")];
    for reply in ["ACK", "NACK"] {
        let answer = relay.post_with("/notify/till-7?CANARY-query=1", &headers, b"CANARY-body");
        let message = till.expect("MSG id=* =*", b"CANARY-body");
        match reply {
            "ACK" => message.ack(),
            _ => message.nack("reason=no"),
        };
        answer.answer();
    }
    // Neither what is refused nor what breaks the protocol is quoted.
    relay.post("/notify/nobody", b"CANARY-absent").answer();
    let mut raw = Backend::raw(&relay);
    raw.send("HELLO 1 id=till-7 token=CANARYCANARY");
    raw.expect_fatal("bad-token");
    till.send_bytes(b"ACK \xffCANARY-garbage\n");
    till.expect_fatal("bad-frame");
    eventually("the log is on", || relay.log().lines().count() > 5);
    let metrics = relay.admin("/metrics").text();
    for (place, text) in [("log", relay.log()), ("metrics", metrics)] {
        let line = text
            .lines()
            .find(|line| line.contains("CANARY") || line.contains(&token));
        assert_eq!(
            line.map(|_| "a line with it"),
            None,
            "the {place} shows what it must not"
        );
    }
}

//! How a genuine callback may be written: by GET, with second names of headers, a byte order mark, another charset.

use super::fresh::{self, now};
use super::genuine::alipay_fields;
use super::{accepted, post, refused, relay};
use crate::support::Relay;

#[test]
fn a_notification_comes_by_get_where_the_route_says_so() {
    let toml = "[[route]]\npath = \"/get/{id}\"\nmethods = [\"GET\", \"POST\"]\nverify = \"token\"\n\
                secrets = [\"a long secret\"]\ntoken = \"query:key\"\nevent = \"query:order\"\nforward_headers = [\"host\"]\n\
                [[route]]\npath = \"/proof/{id}\"\nproof = { body = \"I am here\" }\n\
                [[route]]\npath = \"/post/{id}\"\n";
    let relay = Relay::with(toml);
    let mut till = relay.backend("till-7");
    let answer =
        relay.send(b"GET /get/till-7?key=a+long+secret&order=5 HTTP/1.1\r\nHost: x\r\n\r\n");
    let message = till.expect("MSG id=* event=5 =*", b"");
    let head = String::from_utf8(message.frame.head().to_vec()).expect("ASCII");
    assert!(
        head.starts_with("GET /get/till-7?order=5 HTTP/1.1\r\n"),
        "{head}"
    );
    message.ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    let told = |method: &str, target: &str| {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        relay.send(request.as_bytes()).answer()
    };
    assert_eq!(
        told("GET", "/get/till-7?order=5").told(),
        (401, "bad-signature")
    );
    let proof = told("GET", "/proof/till-7");
    assert_eq!((proof.status, proof.text().as_str()), (200, "I am here"));
    // A HEAD has no body, whatever its Content-Length says.
    let mut connection = relay.http();
    connection.send(b"HEAD /proof/till-7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    connection.expect_bytes(b"HTTP/1.1 200 ");
    for (method, target, allow) in [
        ("PUT", "/get/till-7", "GET, POST"),
        ("PUT", "/proof/till-7", "GET, POST"),
        ("GET", "/post/till-7", "POST"),
    ] {
        let answer = told(method, target);
        assert_eq!(answer.status, 405, "{method} {target}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {target}");
    }
    till.settle();
}

#[test]
fn the_second_names_of_headers_count_as_the_first() {
    let body = r#"{"id":"evt_1"}"#;
    let mut svix = fresh::standard_webhooks(now(), body);
    for (name, _) in &mut svix.headers {
        *name = name.replace("webhook-", "svix-");
    }
    let mut shopify = fresh::shopify(body);
    for (name, _) in &mut shopify.headers {
        *name = name.to_lowercase().replace("x-shopify-", "shopify-");
    }
    let genuine = [svix, shopify.header("shopify-topic", "orders/paid")];
    let relay = relay(&genuine);
    let mut till = relay.backend("till-7");
    for (n, callback) in genuine.iter().enumerate() {
        accepted(&relay, &mut till, n, callback);
    }
    let answer = post(&relay, 1, &genuine[1]);
    assert_eq!(answer.answer().told(), (200, "duplicate"));
    let two = genuine[0].called("two ids").header("webhook-id", "another");
    refused(&relay, 0, &two);
    till.settle();
}

#[test]
fn a_byte_order_mark_and_other_charsets_do_not_hide_the_id() {
    let toml = |id: &str| format!("[[route]]\npath = \"/pay\"\nid = \"{id}\"\nevent = \"none\"\n");
    let gbk = b"<?xml version=\"1.0\" encoding=\"GBK\"?><xml><n>\xd6\xa7\xb8\xb6|\xb3\x5c</n><id>till-7</id></xml>";
    let latin =
        b"<?xml version='1.0' encoding='ISO-8859-1'?><xml><n>S\xe3o</n><id>till-7</id></xml>";
    for (id, body) in [
        ("json:/id", b"\xef\xbb\xbf{\"id\":\"till-7\"}".as_slice()),
        ("form:id", b"\xef\xbb\xbfid=till-7"),
        ("xml:id", b"\xef\xbb\xbf<xml><id>till-7</id></xml>"),
        ("xml:id", gbk),
        ("xml:id", latin),
        (
            "xml:id",
            b"<?xml version=\"1.0\" encoding=\"US-ASCII\"?><xml><id>till-7</id></xml>",
        ),
        (
            "xml:id",
            b"<?xml version=\"1.0\" encoding=\"utf8\"?><xml><id>till-7</id></xml>",
        ),
    ] {
        let relay = Relay::with(&toml(id));
        let mut till = relay.backend("till-7");
        let answer = relay.post_with("/pay", &[], body);
        till.expect("MSG id=* =*", body).ack();
        assert_eq!(answer.answer().told(), (200, "delivered"), "{id}");
    }
    // What cannot be read says so.
    for (id, header, value, why) in [
        ("json:/id", "Content-Encoding", "gzip", "compressed"),
        (
            "form:id",
            "Content-Type",
            "multipart/form-data; boundary=x",
            "multipart",
        ),
    ] {
        let relay = Relay::with(&toml(id));
        let answer = relay
            .post_with("/pay", &[(header, value)], b"\x1f\x8b")
            .answer();
        assert_eq!(answer.told(), (400, "no-id"));
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    let genuine = fresh::alipay(&alipay_fields("subject", "x"));
    let mut marked = genuine.called("marked");
    marked.body.splice(..0, *b"\xef\xbb\xbf");
    let zipped = genuine.called("zipped").header("Content-Encoding", "gzip");
    let both = super::relay(&[marked.clone(), zipped.clone()]);
    let mut till = both.backend("till-7");
    accepted(&both, &mut till, 0, &marked);
    refused(&both, 1, &zipped);
    assert!(both.log_contains("bad signature").contains("compressed"));
}

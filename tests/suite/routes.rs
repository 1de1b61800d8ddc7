//! Where a route finds the backend's id and the event key, and what the backend is told of the route.

use crate::support::Relay;

type Headers = &'static [(&'static str, &'static str)];

const ROUTES: &str = r#"
[[route]]
path = "/path/{id}/paid"
verify = "none"
name = "by-path"
[[route]]
path = "/query"
verify = "none"
id = "query:till"
event = "query:no"
[[route]]
path = "/form"
verify = "none"
id = "form:till"
event = "form:trade_no"
[[route]]
path = "/json"
verify = "none"
id = "json:/meta/till"
event = "json:/id"
[[route]]
path = "/header"
verify = "none"
id = "header:X-Till"
event = "header:X-Event"
"#;

#[test]
fn the_id_and_the_event_are_found_where_the_route_says() {
    let relay = Relay::with(ROUTES);
    let mut till = relay.backend("till-7");
    let form: Headers = &[("Content-Type", "application/x-www-form-urlencoded")];
    let header: Headers = &[("X-Till", "till-7"), ("X-Event", "e 1")];
    let cases: [(&str, Headers, &str, &str); 6] = [
        ("/path/till-7/paid", &[], "x", "MSG id=* route=by-path =*"),
        (
            "/path/%74ill-7/paid?x=1",
            &[],
            "x",
            "MSG id=* route=by-path =*",
        ),
        (
            "/query?no=a%2Bb&till=till-7",
            &[],
            "x",
            "MSG id=* route=/query event=a%2Bb =*",
        ),
        (
            "/form",
            form,
            "trade_no=12%2034&till=till%2D7",
            "MSG id=* route=/form event=12%2034 =*",
        ),
        (
            "/json",
            &[],
            "{\"meta\":{\"till\":\"till-7\"},\"id\":4711}",
            "MSG id=* route=/json event=4711 =*",
        ),
        (
            "/header",
            header,
            "x",
            "MSG id=* route=/header event=e%201 =*",
        ),
    ];
    for (path, headers, body, pattern) in cases {
        let answer = relay.post_with(path, headers, body.as_bytes());
        till.expect(pattern, body.as_bytes()).ack();
        assert_eq!(answer.answer().told(), (200, "delivered"), "{path}");
    }
}

#[test]
fn a_request_without_a_usable_id_is_no_id() {
    let relay = Relay::with(ROUTES);
    let header: Headers = &[("X-Till", "not an id")];
    let cases: [(&str, Headers, &[u8]); 10] = [
        ("/path/no%20id/paid", &[], b"x"),
        ("/query", &[], b"x"),
        ("/query?till=", &[], b"x"),
        ("/query?till=a%2Fb", &[], b"x"),
        ("/form", &[], b"other=1"),
        ("/form", &[], b"\xff\xfe%zz=%"),
        ("/json", &[], b"{\"meta\":{}}"),
        ("/json", &[], b"{\"meta\":{\"till\":["),
        ("/json", &[], b"{\"meta\":{\"till\":{\"a\":1}}}"),
        ("/header", header, b"x"),
    ];
    for (path, headers, body) in cases {
        let answer = relay.post_with(path, headers, body).answer();
        assert_eq!(
            answer.told(),
            (400, "no-id"),
            "{path} {}",
            body.escape_ascii()
        );
    }
}

#[test]
fn a_path_matches_whole_and_exactly() {
    let relay = Relay::with(ROUTES);
    let mut till = relay.backend("till-7");
    for path in [
        "/",
        "/path/till-7",
        "/path/till-7/paid/",
        "/path//paid",
        "/PATH/till-7/paid",
        "/query/",
        "/path/till-7/paid/x",
    ] {
        let answer = relay.post(path, b"x").answer();
        assert_eq!(
            answer.status,
            if path == "/path//paid" {
                answer.status
            } else {
                404
            },
            "{path}"
        );
        assert_ne!(answer.status, 200, "{path}");
    }
    // Dots and escaped slashes do not lead elsewhere.
    for path in [
        "/x/../path/till-7/paid",
        "/path/till-7%2Fpaid",
        "/path/../query?till=till-7",
    ] {
        let answer = relay.post(path, b"x").answer();
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    till.settle();
}

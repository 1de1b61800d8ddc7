//! Documents taken apart: where they stand, what they cover, and when they are believed.

use super::*;

fn json(name: &str) -> Selector {
    Selector::Json(vec![name.to_owned()])
}

fn jws(place: Selector) -> Jws {
    Jws {
        place,
        prefix: "".into(),
        signer: Signer::Named(Vec::new()),
        claims: Vec::new(),
        tolerance: None,
    }
}

#[test]
fn a_document_in_the_body_covers_itself_and_what_it_says() {
    let jws = jws(json("signedPayload"));
    let opened = Selector::Opened(vec!["data".to_owned()]);
    assert!(jws.covers(&opened) && jws.covers(&json("signedPayload")));
    for beside in [json("data"), Selector::Header(vec!["x-id".to_owned()])] {
        assert!(!jws.covers(&beside), "{beside:?}");
    }
    assert!(jws.is_in_body() && !jws.reads_header("x-id"));
    let body = format!(r#"{{"signedPayload":"e30.{}.AA"}}"#, "eyJhIjoxfQ");
    assert_eq!(jws.open(body.as_bytes()), Some(Ok(br#"{"a":1}"#.to_vec())));
    assert!(matches!(jws.open(b"{}"), Some(Err(_))));
}

#[test]
fn a_document_in_a_header_is_nothing_to_open_and_lets_the_body_say_anything() {
    let jws = jws(Selector::Header(vec!["authorization".to_owned()]));
    assert!(jws.covers(&json("data")));
    assert!(!jws.is_in_body() && jws.reads_header("authorization"));
    assert_eq!(jws.open(b"{}"), None);
}

#[test]
fn a_document_follows_its_prefix_in_any_case_and_nothing_else() {
    let mut jws = jws(Selector::Header(vec!["authorization".to_owned()]));
    jws.prefix = "Bearer ".into();
    for (value, document) in [
        ("Bearer e30.e30.AA", Some("e30.e30.AA")),
        ("bEARER e30.e30.AA", Some("e30.e30.AA")),
        ("Bearer ", Some("")),
        ("Basic: e30.e30.AA", None),
        ("e30.e30.AA", None),
        ("Bearer", None),
        ("", None),
    ] {
        let request = Request {
            method: "POST",
            target: "",
            headers: &[("Authorization", value)],
            path_id: None,
            query: "",
            body: b"",
        };
        let found = jws.text(&request).ok();
        assert_eq!(found.as_deref(), document, "{value}");
    }
}

#[test]
fn a_document_is_believed_within_its_own_times_and_the_tolerance() {
    let mut named = jws(Selector::Header(vec!["authorization".to_owned()]));
    named.tolerance = Some(std::time::Duration::from_secs(60));
    let mut chained = named.clone();
    chained.signer = Signer::Chain(Chain {
        roots: Vec::new(),
        leaf_oid: None,
        issuer_oid: None,
        time: Vec::new(),
        test: Vec::new(),
    });
    for (payload, wanted) in [
        (r#"{"exp":940}"#, Ok(())),
        (r#"{"exp":"940.9"}"#, Ok(())),
        (r#"{"exp":939}"#, Err("expired")),
        (r#"{"exp":940,"nbf":1}"#, Ok(())),
        (r#"{"exp":940,"nbf":1060}"#, Ok(())),
        (r#"{"exp":940,"nbf":1061}"#, Err("expired")),
        (r#"{"exp":940,"exp":941}"#, Err("repeated")),
        (r#"{"exp":"soon"}"#, Err("malformed")),
        (r#"{"exp":-1}"#, Err("malformed")),
        (r#"{"exp":null}"#, Err("malformed")),
        // Without an end a token would be believed for ever.
        (r#"{"nbf":1}"#, Err("missing")),
    ] {
        let found = |jws: &Jws| jws.check_times(payload.as_bytes(), 1000);
        assert_eq!(found(&named).map_err(|r| r.word()), wanted, "{payload}");
        // What a chain signs has a time of its own.
        let wanted = wanted.or_else(|why| if why == "missing" { Ok(()) } else { Err(why) });
        assert_eq!(found(&chained).map_err(|r| r.word()), wanted, "{payload}");
    }
    named.tolerance = None;
    assert_eq!(named.check_times(b"{}", 1000), Ok(()));
}

#[test]
fn a_header_is_as_long_as_a_chain_needs_and_no_longer() {
    let read = |bytes: usize| Parts::of(&format!("{}.e30.AA", "A".repeat(bytes))).map(|_| ());
    assert_eq!(read(HEADER_BYTES_MAX), Ok(()));
    let longer = read(HEADER_BYTES_MAX + 4);
    assert!(matches!(longer, Err(Refused::TooMany(_))), "{longer:?}");
    for none in [
        "",
        "e30",
        "e30.e30",
        "e30.e30.A",
        "e3 .e30.AA",
        "e30.e30.AA=",
        "e30.e30.e30.AA",
    ] {
        let refused = Parts::of(none).map(|_| ());
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{none}");
    }
}

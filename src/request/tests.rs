//! Selectors: what each finds, and what none takes.

use super::*;

fn parts<'a>(query: &'a str, body: &'a [u8]) -> Parts<'a> {
    Parts {
        path_id: Some("game%2D01"),
        query,
        headers: &[],
        body,
        opened: None,
    }
}

fn pointer(text: &str) -> Selector {
    Selector::Json(text.split('/').skip(1).map(str::to_owned).collect())
}

#[test]
fn path_query_and_form_values_are_decoded() {
    let here = parts("a=1&id=x%20y+z&b", b"id=till%2D7&empty=&gbk=%C4%E3");
    let select = |selector| here.select(&selector);
    assert_eq!(select(Selector::Path).as_deref(), Ok("game-01"));
    assert_eq!(select(Selector::Query("id".into())).as_deref(), Ok("x y z"));
    assert_eq!(select(Selector::Query("b".into())).as_deref(), Ok(""));
    assert_eq!(select(Selector::Form("id".into())).as_deref(), Ok("till-7"));
    assert_eq!(select(Selector::Form("empty".into())).as_deref(), Ok(""));
    assert!(matches!(
        select(Selector::Form("gbk".into())),
        Err(Missing::NotText(_))
    ));
    assert!(matches!(
        select(Selector::Form("no".into())),
        Err(Missing::Nowhere(_))
    ));
}

#[test]
fn a_value_that_is_there_twice_is_not_taken() {
    let here = parts("id=a&id=b", br#"{"a":{"id":1},"a":{"id":2}}"#);
    assert!(matches!(
        here.select(&Selector::Query("id".into())),
        Err(Missing::Twice(_))
    ));
    assert!(matches!(
        here.select(&pointer("/a/id")),
        Err(Missing::Twice(_))
    ));
    for body in [
        br#"{"a":{"id":1},"a":5}"#.as_slice(),
        br#"{"a":5,"a":{"id":1}}"#,
        br#"{"a":{"id":1},"\u0061":{}}"#,
    ] {
        assert!(matches!(
            parts("", body).select(&pointer("/a/id")),
            Err(Missing::Twice(_))
        ));
    }
    let escaped = parts("id=a&i%64=b", b"");
    assert!(matches!(
        escaped.select(&Selector::Query("id".into())),
        Err(Missing::Twice(_))
    ));
}

#[test]
fn json_pointers_reach_texts_and_whole_numbers() {
    let body = br#" {"x":[{"id":"till-7"},{"id":88}],"n":-5,"f":1.5,"t":true,"e":"\u0061"} "#;
    let here = parts("", body);
    for (path, value) in [
        ("/x/0/id", "till-7"),
        ("/x/1/id", "88"),
        ("/n", "-5"),
        ("/e", "a"),
    ] {
        assert_eq!(here.select(&pointer(path)).as_deref(), Ok(value), "{path}");
    }
    for path in ["/f", "/t", "/x", ""] {
        assert!(
            matches!(here.select(&pointer(path)), Err(Missing::NotText(_))),
            "{path}"
        );
    }
    for path in ["/y", "/x/2/id", "/x/id", "/n/1"] {
        assert!(
            matches!(here.select(&pointer(path)), Err(Missing::Nowhere(_))),
            "{path}"
        );
    }
}

#[test]
fn an_element_is_found_by_its_way_from_the_root() {
    let body =
        b"<xml>\n<a><![CDATA[till-7]]></a><b><a>x</a><c>1 &lt; 2</c></b><d/><e>1</e><e>2</e></xml>";
    let here = parts("", body);
    let select =
        |path: &str| here.select(&Selector::Xml(path.split('/').map(str::to_owned).collect()));
    assert_eq!(select("a").as_deref(), Ok("till-7"));
    assert_eq!(select("b/a").as_deref(), Ok("x"));
    assert_eq!(select("b/c").as_deref(), Ok("1 < 2"));
    assert_eq!(select("d").as_deref(), Ok(""));
    assert!(matches!(select("b"), Err(Missing::Nowhere(_))));
    assert!(matches!(select("xml/a"), Err(Missing::Nowhere(_))));
    assert!(matches!(select("e"), Err(Missing::Twice(_))));
    for body in [
        &b""[..],
        b"<xml><a>1</a>",
        b"<!DOCTYPE x><xml><a>1</a></xml>",
        b"<xml><a>1<!-- -->2</a></xml>",
    ] {
        let found = parts("", body).select(&Selector::Xml(vec!["a".into()]));
        assert!(matches!(found, Err(Missing::Unreadable(_))), "{found:?}");
    }
}

#[test]
fn what_was_opened_is_looked_into_as_json() {
    let opened = Ok(br#"{"out_trade_no":"till-7"}"#.to_vec());
    let sealed = Err("no key");
    let select = |opened| {
        let parts = Parts {
            opened,
            ..parts("", b"")
        };
        parts.select(&Selector::Opened(vec!["out_trade_no".into()]))
    };
    assert_eq!(select(Some(&opened)).as_deref(), Ok("till-7"));
    assert_eq!(select(Some(&sealed)), Err(Missing::Sealed("no key")));
    assert!(matches!(select(None), Err(Missing::Sealed(_))));
}

#[test]
fn a_body_that_is_no_json_is_refused() {
    for body in [&b""[..], b"{", b"{\"id\":\"a\"} x", b"\xff"] {
        let found = parts("", body).select(&pointer("/id"));
        assert_eq!(found, Err(Missing::Unreadable("JSON")));
    }
}

#[test]
fn depth_beside_the_pointer_costs_no_stack() {
    let nest = |n| [b"[".repeat(n), b"]".repeat(n)].concat();
    let body = [b"{\"x\":".as_slice(), &nest(100_000), b",\"id\":\"a\"}"].concat();
    assert_eq!(parts("", &body).select(&pointer("/id")).as_deref(), Ok("a"));
    assert!(parts("", &nest(100_000)).select(&pointer("/id")).is_err());
}

/// Every leaf's text, by its name.
fn texts(body: &[u8]) -> Result<Vec<(String, String)>, xml::BadXml> {
    let mut all = Vec::new();
    let read = xml::leaves(body, |leaf| {
        let name = leaf.path.last().expect("a name").clone();
        all.push((name, leaf.text.into_owned()));
        true
    });
    read.map(|()| all)
}

#[test]
fn the_second_byte_of_a_chinese_character_is_no_markup() {
    for (bytes, text) in [
        // ']' as a second byte, so that what follows does not end the section.
        (&b"\x81\x5d]>"[..], "\u{fffd}]>"),
        (b"\x81\x40A", "\u{fffd}A"),
        (b"\xfe\xfe", "\u{fffd}"),
        // No first byte of two, and one whose second is none.
        (b"\x80A", "\u{fffd}A"),
        (b"\x81\x30\x81\x30", "\u{fffd}0\u{fffd}0"),
    ] {
        let head = b"<?xml version=\"1.0\" encoding=\"GBK\"?><x><n><![CDATA[";
        let body = [head, bytes, b"]]></n></x>"].concat();
        let found = texts(&body).expect("a document");
        assert_eq!(found, [("n".to_owned(), text.to_owned())], "{bytes:x?}");
    }
}

#[test]
fn an_empty_element_is_an_element_like_others() {
    use xml::BadXml;
    let found = texts(b"<x><a/><b>1</b></x>").expect("a document");
    assert_eq!(found[0], ("a".to_owned(), String::new()));
    assert_eq!(texts(b"<x>text<a/></x>"), Err(BadXml::Mixed));
    assert_eq!(texts(b"<x/><y/>"), Err(BadXml::NotXml));
    let unwanted = xml::leaves(b"<x><a/><b>1</b></x>", |leaf| {
        leaf.path.last().expect("a name") != "a"
    });
    assert_eq!(unwanted, Err(BadXml::Unwanted));
}

#[test]
fn of_an_object_with_too_many_fields_one_more_than_the_most_is_kept() {
    let object = |count: usize| {
        let fields: Vec<String> = (0..count).map(|n| format!("\"f{n}\":null")).collect();
        let body = format!("{{{}}}", fields.join(","));
        json::object(body.as_bytes(), &[]).map(|fields| fields.len())
    };
    assert_eq!(object(FIELDS_MAX), Ok(FIELDS_MAX));
    assert_eq!(object(4 * FIELDS_MAX), Ok(FIELDS_MAX + 1));
}

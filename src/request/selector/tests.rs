//! What a selector's text may be, and what it points at.

use super::*;

#[test]
fn selectors_name_one_place_each() {
    let json = |tokens: &[&str]| {
        Ok(Selector::Json(
            tokens.iter().map(|t| t.to_string()).collect(),
        ))
    };
    for (text, wanted) in [
        ("path", Ok(Selector::Path)),
        ("query:order", Ok(Selector::Query("order".into()))),
        ("query:订单:no", Ok(Selector::Query("订单:no".into()))),
        (
            "form:out_trade_no",
            Ok(Selector::Form("out_trade_no".into())),
        ),
        (
            "header:X-Order",
            Ok(Selector::Header(vec!["x-order".into()])),
        ),
        (
            "header:A,b",
            Ok(Selector::Header(vec!["a".into(), "b".into()])),
        ),
        ("header:a,", Err("a header's name")),
        ("json:/", json(&[""])),
        ("json:/data/0/id", json(&["data", "0", "id"])),
        ("json:/a~1b/~0~01", json(&["a/b", "~~1"])),
        ("", Err("allowed:")),
        ("Path", Err("allowed:")),
        ("body", Err("allowed:")),
        ("cookie:x", Err("allowed:")),
        ("query:", Err("a name of")),
        ("form:a\u{7}", Err("a name of")),
        (
            "xml:transaction_id",
            Ok(Selector::Xml(vec!["transaction_id".into()])),
        ),
        ("xml:a/b", Ok(Selector::Xml(vec!["a".into(), "b".into()]))),
        (
            "opened:/out_trade_no",
            Ok(Selector::Opened(vec!["out_trade_no".into()])),
        ),
        ("xml:", Err("an element")),
        ("xml:/a", Err("an element")),
        ("xml:a//b", Err("an element")),
        ("xml:a b", Err("an element")),
        ("opened:id", Err("a JSON pointer")),
        ("json:", Err("a JSON pointer")),
        ("json:id", Err("a JSON pointer")),
        ("json:/a~2", Err("a JSON pointer")),
        ("json:/a~", Err("a JSON pointer")),
        ("header:", Err("a header's name")),
        ("header:a b", Err("a header's name")),
    ] {
        match (Selector::parse(text), wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{text}"),
            (Err(why), Err(wanted)) => assert!(why.starts_with(wanted), "{text}: {why}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
    for (kind, most) in [
        ("form:", 256),
        ("json:/", 255),
        ("xml:", 256),
        ("header:", 128),
    ] {
        let text = |bytes: usize| format!("{kind}{}", "x".repeat(bytes));
        assert!(Selector::parse(&text(most)).is_ok(), "{kind}");
        assert!(Selector::parse(&text(most + 1)).is_err(), "{kind}");
    }
}

#[test]
fn what_points_into_what_is_opened_is_known_wherever_it_stands() {
    for (text, opened) in [
        ("opened:/a", true),
        ("opened:/a>/b", true),
        ("json:/a opened:/b", true),
        ("json:/a>/b", false),
        ("json:/a query:b", false),
    ] {
        let selector = Selector::of_preset(text).expect("a selector");
        assert_eq!(selector.is_opened(), opened, "{text}");
    }
}

#[test]
fn a_text_that_is_json_is_read_as_it_stands_and_decoded_only_if_it_is_not() {
    let selector = Selector::parse("form:data>/id").expect("a selector");
    // In the first are two dots, as in a signed document.
    for data in [
        r#" {"v":"1.2345.6","id":"till-7"}"#.to_owned(),
        STANDARD.encode(r#"{"id":"till-7"}"#),
        format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(r#"{"id":"till-7"}"#)),
    ] {
        let body = format!("data={}", crate::escape::percent_encoded(data.as_bytes()));
        let parts = Parts {
            path_id: None,
            query: "",
            headers: &[],
            body: body.as_bytes(),
            opened: None,
        };
        assert_eq!(parts.select(&selector).as_deref(), Ok("till-7"), "{data}");
    }
}

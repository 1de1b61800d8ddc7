//! How a path matches a route, and how an event key goes on the wire.

use super::*;

#[test]
fn a_path_matches_segment_by_segment() {
    let lit = |text: &str| Segment::Literal(text.into());
    let notify = [lit("notify"), Segment::Id];
    assert_eq!(matches(&notify, "/notify/a"), Some(Some("a")));
    assert_eq!(matches(&notify, "/notify/"), Some(Some("")));
    for other in [
        "/notify",
        "/notify/a/",
        "/notify/a/b",
        "/Notify/a",
        "notify/a",
        "",
    ] {
        assert_eq!(matches(&notify, other), None, "{other}");
    }
    assert_eq!(matches(&[lit("cb")], "/cb"), Some(None));
    assert_eq!(matches(&[lit("")], "/"), Some(None));
}

#[test]
fn a_long_event_key_is_hashed_so_that_its_line_fits() {
    assert_eq!(&*event_key("evt_1".into()), "evt_1");
    let long = event_key("x".repeat(129).into());
    assert!(long.starts_with("sha256:") && long.len() == 71);
    assert_ne!(long, event_key("x".repeat(130).into()));
}

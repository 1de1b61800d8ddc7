//! Ids and event keys: their limits, their order, what makes two the same.

use super::*;

#[test]
fn backend_ids_are_bounded_and_plain() {
    assert!(BackendId::parse("game-01.A_z").is_ok());
    assert!(BackendId::parse(&"x".repeat(64)).is_ok());
    assert_eq!(BackendId::parse(""), Err(BadBackendId::Empty));
    assert_eq!(
        BackendId::parse(&"x".repeat(65)),
        Err(BadBackendId::TooLong(65))
    );
    assert_eq!(BackendId::parse("a b"), Err(BadBackendId::BadByte(1)));
    assert_eq!(BackendId::parse("é"), Err(BadBackendId::BadByte(0)));
}

#[test]
fn notification_ids_read_back_and_sort_by_time() {
    let mint = IdMint::new(u64::MAX);
    let ids: Vec<_> = (0..100)
        .map(|n| mint.mint(1_764_000_000_000 + n / 10))
        .collect();
    assert!(ids.is_sorted());
    for id in ids {
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(NotificationId::parse(&text), Some(id));
        assert_eq!(NotificationId::parse(&text.to_lowercase()), Some(id));
        assert_eq!(NotificationId::from_bytes(id.to_bytes()), id);
    }
}

#[test]
fn an_event_key_is_of_what_makes_a_retry_the_same() {
    let notification =
        |verified: &'static str, route: &str, backend: &str, event: &str, body: &str| {
            Notification {
                id: IdMint::new(0).mint(0),
                backend: BackendId::parse(backend).expect("an id"),
                route: route.into(),
                verified: verified.into(),
                event: Some(event.into()),
                event_proven: verified != "none",
                at_unix_ms: 0,
                tries: 1,
                head: Vec::new(),
                body: body.into(),
            }
        };
    let of = |verified, route, backend, event, body| {
        EventKey::of(&notification(verified, route, backend, event, body)).expect("a key")
    };
    let key = of("stripe", "pay", "till", "42", "paid");
    assert_eq!(of("stripe", "pay", "till", "42", "paid"), key);
    assert_eq!(EventKey::from_bytes(*key.bytes()), key);
    assert_eq!(
        of("stripe", "pay", "till", "42", "paid, it says again"),
        key
    );
    for other in [
        of("stripe", "pa", "till", "42", "paid"),
        of("stripe", "pay", "till-2", "42", "paid"),
        of("stripe", "pay", "till", "43", "paid"),
        of("stripe", "payt", "ill", "42", "paid"),
        of("stripe", "pay", "till4", "2", "paid"),
    ] {
        assert_ne!(other, key);
    }
    // What anybody can have sent is the same only if it is the same.
    let unsure = of("none", "pay", "till", "42", "paid");
    assert_eq!(of("none", "pay", "till", "42", "paid"), unsure);
    assert_ne!(of("none", "pay", "till", "42", "forged"), unsure);
    let mut without = notification("none", "pay", "till", "42", "paid");
    without.event = None;
    assert_eq!(EventKey::of(&without), None);
}

#[test]
fn what_is_no_notification_id_is_refused() {
    for bad in ["", "0", &"U".repeat(26), &"8".repeat(26), &"0".repeat(27)] {
        assert_eq!(NotificationId::parse(bad), None, "{bad}");
    }
    assert!(NotificationId::parse(&"7".repeat(26)).is_some());
}

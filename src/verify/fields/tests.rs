//! Which reading of a text is believed, and that no text is believed in two.

use super::{Fields, Known};
use crate::verify::Refused;

#[test]
fn more_fields_than_anybody_sends_are_not_looked_at() {
    let fields = |count: usize| {
        let all = (0..count).map(|n| {
            let name: std::borrow::Cow<'_, [u8]> = format!("a{n}").into_bytes().into();
            Ok((name, b"1".as_slice().into()))
        });
        Fields::new(all).map(|_| ())
    };
    assert_eq!(fields(256), Ok(()));
    assert_eq!(fields(257), Err(Refused::TooMany("fields")));
}

/// The quick way of the reading's check counts beginnings, which have such names only.
#[test]
fn a_name_has_nothing_in_it_that_names_have_not() {
    let named = |name: &'static str| {
        let field = (name.as_bytes().into(), b"1".as_slice().into());
        Fields::new(std::iter::once(Ok(field))).map(|_| ())
    };
    for name in ["a", "total_fee", "coupon_id_$0", "data.id", "X-1"] {
        assert_eq!(named(name), Ok(()), "{name}");
    }
    for name in ["", "a b", "a&b", "a=b", "a%", "a\u{e9}", "a\0"] {
        let refused = named(name);
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{name:?}");
    }
}

const KNOWN: Known<'static> = Known {
    always: &["b_id", "d_amount", "f_status"],
    sometimes: &["a_note", "e_fee"],
    more: &[],
    free_text: &["a_note", "c_subject"],
    never: &["sign"],
};

/// Whether this reading of its text is believed.
fn is_believed(all: &[(&str, &str)], skips_empty: bool) -> Result<(), Refused> {
    is_believed_with("&", all, skips_empty)
}

/// The same with `join` between the fields.
fn is_believed_with(join: &str, all: &[(&str, &str)], skips_empty: bool) -> Result<(), Refused> {
    let all = all
        .iter()
        .map(|(name, value)| Ok((name.as_bytes().into(), value.as_bytes().into())));
    let fields = Fields::new(all).expect("fields");
    let text = fields.text(skips_empty, join, |name| name != b"sign");
    text.check_reading(&KNOWN)
}

#[test]
fn a_value_may_look_like_fields_where_no_reading_makes_them_some() {
    let usual = [("b_id", "1"), ("d_amount", "5"), ("f_status", "OK")];
    let with =
        |more: &[(&'static str, &'static str)]| is_believed(&[&usual[..], more].concat(), false);
    assert_eq!(with(&[]), Ok(()));
    for genuine in [
        // The names are out of order, or there again, or never in the text.
        ("a_note", "a&d_amount=1"),
        ("a_note", "uid=5&key=abc"),
        ("a_note", "https://x.cn/?a=1&sign=1"),
        ("a_note", "&b_id=&f_status=OK&b_id=1"),
        ("c_subject", "1&d_amount=2"),
        ("c_subject", "&a=1&b=2"),
        // Not known, in a text that may hold anything.
        ("a_note", "x&auid=5"),
        ("c_subject", "x&cuid=5&cx="),
        ("g_new", "1"),
        ("e_fee", "1"),
    ] {
        assert_eq!(with(&[genuine]), Ok(()), "{genuine:?}");
    }
    // One of the payment's fields hidden in another, and free text that has been cut.
    for forged in [
        &[("b_id", "1&d_amount=5"), ("f_status", "OK")][..],
        &[("b_id", "1"), ("d_amount", "5&e_fee=1"), ("f_status", "OK")],
        &[("b_id", "1"), ("d_amount", "5"), ("f_status", "OK&g_new=1")],
        &[
            ("a_note", "x"),
            ("auid", "5"),
            ("b_id", "1"),
            ("d_amount", "5"),
            ("f_status", "OK"),
        ],
        &[
            ("a_note", "x"),
            ("d_amount", "1&b_id=1&d_amount=5"),
            ("f_status", "OK"),
        ],
    ] {
        let refused = is_believed(forged, false);
        assert!(matches!(refused, Err(Refused::Ambiguous(_))), "{forged:?}");
    }
}

/// Every reading of every text is tried: at most one of them is believed, and the reading that was signed is, unless its
/// values imitate fields that are as likely.
#[test]
fn no_text_is_believed_in_two_readings() {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64)
        | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    const NAMES: [&str; 9] = [
        "a_note",
        "auid",
        "b_id",
        "c_subject",
        "cx",
        "d_amount",
        "e_fee",
        "f_status",
        "g_new",
    ];
    let mut believed = [0; 2];
    for _ in 0..4_000 {
        let pieces: Vec<(usize, bool)> = (0..2 + below(8))
            .map(|_| (below(NAMES.len()), below(8) == 0))
            .collect();
        for (join, skips_empty) in [("&", false), ("&", true), ("", false), ("", true)] {
            let mut readings = 0;
            for cut in 0..1u32 << (pieces.len() - 1) {
                let mut fields: Vec<(&str, String)> = Vec::new();
                for (at, (name, is_empty)) in pieces.iter().enumerate() {
                    let value = if *is_empty { "" } else { "1" };
                    match fields.last_mut() {
                        Some((_, last)) if cut >> (at - 1) & 1 == 0 => {
                            *last += &format!("{join}{}={value}", NAMES[*name]);
                        }
                        _ => fields.push((NAMES[*name], value.to_owned())),
                    }
                }
                // Otherwise it is another text, or none.
                let in_order = fields.windows(2).all(|pair| pair[0].0 < pair[1].0);
                let left_out = skips_empty && fields.iter().any(|(_, value)| value.is_empty());
                if !in_order || left_out {
                    continue;
                }
                let fields: Vec<(&str, &str)> = fields
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                readings += usize::from(is_believed_with(join, &fields, skips_empty).is_ok());
            }
            assert!(
                readings <= 1,
                "{readings} readings of {pieces:?}, seed {seed}"
            );
            believed[readings] += usize::from(join == "&");
        }
    }
    // Most random texts have one reading that is likelier than all others.
    assert!(believed[1] > believed[0], "{believed:?}");
}

#[test]
fn a_text_full_of_beginnings_is_refused_in_bounded_time() {
    let value = "1&x=".repeat(600);
    let refused = is_believed(&[("a_note", &value), ("b_id", "1")], false);
    assert_eq!(refused, Err(Refused::TooMany("fields in values")));
    let value = "1&x=".repeat(500);
    assert_eq!(
        is_believed(&[("a_note", &value), ("b_id", "1")], false),
        Ok(())
    );
}

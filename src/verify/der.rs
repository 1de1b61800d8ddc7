//! As much of DER (X.690) as certificates and keys need.

pub const SEQUENCE: u8 = 0x30;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;

const OBJECT_IDENTIFIER: u8 = 0x06;

/// One element of DER.
pub struct Element<'a> {
    pub whole: &'a [u8],
    pub content: &'a [u8],
}

/// The first element of `der`, if it has this tag, and what follows it.
pub fn element(der: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let [its, first, rest @ ..] = der else {
        return None;
    };
    if *its != tag {
        return None;
    }
    let (length, content) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        0x81 => {
            let (length, content) = rest.split_first()?;
            (usize::from(*length), content)
        }
        0x82 => {
            let (length, content) = rest.split_at_checked(2)?;
            (
                usize::from(length[0]) << 8 | usize::from(length[1]),
                content,
            )
        }
        // No field of a certificate that is worth reading is longer than 64 KiB.
        _ => return None,
    };
    let (content, after) = content.split_at_checked(length)?;
    let whole = &der[..der.len() - after.len()];
    Some((Element { whole, content }, after))
}

/// Whether the X.509 certificate `der` has an extension with this identifier (RFC 5280 section 4.1), in DER without tag and
/// length.
pub fn has_extension(der: &[u8], oid: &[u8]) -> bool {
    find_extension(der, oid).is_some()
}

fn find_extension(der: &[u8], oid: &[u8]) -> Option<()> {
    const EXTENSIONS: u8 = 0xa3;
    let (certificate, _) = element(der, SEQUENCE)?;
    let (to_be_signed, _) = element(certificate.content, SEQUENCE)?;
    // They are the last of its fields.
    let mut fields = to_be_signed.content;
    let extensions = loop {
        let tag = *fields.first()?;
        let (field, rest) = element(fields, tag)?;
        if tag == EXTENSIONS {
            break field.content;
        }
        fields = rest;
    };
    let (list, _) = element(extensions, SEQUENCE)?;
    let mut rest = list.content;
    loop {
        let (extension, after) = element(rest, SEQUENCE)?;
        let (its, _) = element(extension.content, OBJECT_IDENTIFIER)?;
        if its.content == oid {
            return Some(());
        }
        rest = after;
    }
}

/// An object identifier such as `1.2.840.113635` in DER, without tag and length (X.690 section 8.19); `None`: it is none.
pub fn oid(text: &str) -> Option<Vec<u8>> {
    let arcs: Option<Vec<u32>> = text.split('.').map(|arc| arc.parse().ok()).collect();
    let arcs = arcs?;
    let [first @ 0..=2, second @ 0..=39, rest @ ..] = &arcs[..] else {
        return None;
    };
    let mut der = vec![(40 * first + second) as u8];
    for arc in rest {
        let digits = (0..5).rev().map(|n| (arc >> (7 * n)) as u8 & 0x7f);
        let mut digits: Vec<u8> = digits.skip_while(|digit| *digit == 0).collect();
        let last = digits.pop().unwrap_or(0);
        der.extend(digits.iter().map(|digit| digit | 0x80));
        der.push(last);
    }
    (!rest.is_empty()).then_some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, content.len() as u8], content].concat()
    }

    #[test]
    fn an_element_is_read_by_its_tag_and_as_far_as_its_length_says() {
        let long = |length: &[u8], bytes| [&[SEQUENCE], length, &vec![7; bytes]].concat();
        for (der, bytes) in [
            (long(&[0x00], 0), 0),
            (long(&[0x7f], 0x7f), 0x7f),
            (long(&[0x81, 0x80], 0x80), 0x80),
            (long(&[0x82, 0x01, 0x02], 0x102), 0x102),
        ] {
            let followed = [&der[..], b"after"].concat();
            let (element, after) = super::element(&followed, SEQUENCE).expect("an element");
            assert_eq!((element.whole, after), (&der[..], &b"after"[..]));
            assert_eq!(element.content, vec![7; bytes]);
            assert!(super::element(&followed, INTEGER).is_none());
            for cut in 0..der.len() {
                assert!(super::element(&der[..cut], SEQUENCE).is_none(), "{cut}");
            }
        }
        for length in [&[0x80][..], &[0x83, 0, 0, 1], &[0x84, 0, 0, 0, 1]] {
            assert!(super::element(&long(length, 9), SEQUENCE).is_none());
        }
    }

    #[test]
    fn an_extension_is_one_only_among_the_extensions() {
        let apple = oid("1.2.840.113635.100.6.11.1").expect("an identifier");
        assert_eq!(apple, b"\x2a\x86\x48\x86\xf7\x63\x64\x06\x0b\x01");
        let extension = |oid: &[u8]| tlv(SEQUENCE, &tlv(OBJECT_IDENTIFIER, oid));
        let [other, its] = [b"\x55\x1d\x13", &apple[..]].map(extension);
        let certificate = |tag, extensions: &[u8]| {
            let fields = [
                tlv(INTEGER, &[1]),
                // A field before them that looks the same is a name or a key: anybody's own words.
                tlv(SEQUENCE, &tlv(SEQUENCE, &extension(&apple))),
                tlv(tag, &tlv(SEQUENCE, extensions)),
            ];
            tlv(SEQUENCE, &tlv(SEQUENCE, &fields.concat()))
        };
        for (tag, extensions, has) in [
            (0xa3, [&its[..], &other].concat(), true),
            (0xa3, [&other[..], &its].concat(), true),
            (0xa3, other.clone(), false),
            (0xa3, Vec::new(), false),
            (0xa1, its.clone(), false),
            // Its beginning, and what begins with it.
            (0xa3, extension(&apple[..9]), false),
            (0xa3, extension(&[&apple[..], &[1]].concat()), false),
        ] {
            let der = certificate(tag, &extensions);
            assert_eq!(has_extension(&der, &apple), has, "{der:x?}");
        }
    }

    #[test]
    fn identifiers_are_written_as_certificates_have_them() {
        assert_eq!(oid("2.5.29.19").as_deref(), Some(&b"\x55\x1d\x13"[..]));
        assert_eq!(
            oid("0.39.0.127.128.4294967295").as_deref(),
            Some(&b"\x27\x00\x7f\x81\x00\x8f\xff\xff\xff\x7f"[..])
        );
        for none in [
            "",
            "1",
            "1.2",
            "3.1.1",
            "1.40.1",
            "1.2.x",
            "1.2.-1",
            "1.2.4294967296",
            "1..2",
        ] {
            assert_eq!(oid(none), None, "{none}");
        }
    }
}

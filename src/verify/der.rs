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
    let arcs = arcs.filter(|arcs| arcs.len() <= 32)?;
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

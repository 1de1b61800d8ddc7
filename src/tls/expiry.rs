//! Until when a certificate is good: the one field of X.509 that the relay itself looks at. Pure.
//!
//! DER (X.690) is read only as far as RFC 5280 puts `notAfter`; rustls judges everything else.

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of the certificate's validity, in Unix seconds; `None` if `der` is no certificate.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = any(rest)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = any(rest)?.2;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, time, _) = any(rest)?;
    unix_seconds(tag, time)
}

/// The content of the element that `bytes` begins with, and what follows it, if its tag is `tag`.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the element that `bytes` begins with, and what follows it.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes of length follow; a certificate has less than 2^32.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`; RFC 5280 (4.1.2.5) allows no other form.
fn unix_seconds(tag: u8, time: &[u8]) -> Option<i64> {
    let digits = time.strip_suffix(b"Z")?;
    let number = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok()?;
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<i64>().ok())?
    };
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year = number(year)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year)?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| number(&rest[at..at + 2]);
    let (month, day) = (part(0)?, part(2)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970, with years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read() {
        for (tag, time, seconds) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (UTC_TIME, "500101000000Z", -631_152_000),
            (GENERALIZED_TIME, "20000229120000Z", 951_825_600),
            (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(unix_seconds(tag, time.as_bytes()), Some(seconds), "{time}");
        }
        for time in [
            "",
            "Z",
            "7001010000Z",
            "+00101000000Z",
            "701301000000Z",
            "7001010000000",
        ] {
            assert_eq!(unix_seconds(UTC_TIME, time.as_bytes()), None, "{time}");
        }
    }

    #[test]
    fn what_is_cut_off_or_no_certificate_has_no_end() {
        // Certificate, TBSCertificate, [version], serial, algorithm, issuer, validity.
        let der = b"\x30\x2e\x30\x2c\xa0\x03\x02\x01\x02\x02\x01\x01\x30\x00\x30\x00\x30\x1e\
                    \x17\x0d700101000000Z\x17\x0d491231235959Z";
        assert_eq!(not_after(der), Some(2_524_607_999));
        for end in 0..der.len() {
            assert_eq!(not_after(&der[..end]), None, "{end}");
        }
        assert_eq!(not_after(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}

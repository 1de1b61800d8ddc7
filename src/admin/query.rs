//! The query of a request's target. Pure.

/// The pairs of `target`'s query, percent-decoded; what is no UTF-8 then is left out.
pub fn pairs(target: &str) -> Vec<(String, String)> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(key)?, decode(value)?))
    };
    query
        .split('&')
        .filter(|text| !text.is_empty())
        .filter_map(pair)
        .collect()
}

/// `text` with each `%XX` as its byte.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        bytes.push(u8::from_str_radix(digits?, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_cut_and_decoded() {
        let of = |target| pairs(target);
        assert_eq!(
            of("/x?a=1&b=%2Fn%7B%7d&c&&=d"),
            [("a", "1"), ("b", "/n{}"), ("c", ""), ("", "d")].map(|(k, v)| (k.into(), v.into()))
        );
        assert!(of("/x").is_empty() && of("/x?a=%f").is_empty() && of("/x?a=%ff").is_empty());
    }
}

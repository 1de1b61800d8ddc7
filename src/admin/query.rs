//! The query of a request's target. Pure.

use crate::escape::percent_decode;

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

/// Whether the query of `target` asks for what a notification carried.
pub fn asks_for_body(target: &str) -> bool {
    let pairs = pairs(target);
    pairs
        .iter()
        .any(|(key, value)| key == "body" && value == "1")
}

fn decode(text: &str) -> Option<String> {
    String::from_utf8(percent_decode(text.as_bytes(), false)?.into_owned()).ok()
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

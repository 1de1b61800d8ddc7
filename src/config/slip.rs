//! What a line of relay.toml was meant to be that is no TOML: the usual slips, each with what to write instead.

/// Quotes that word processors, chat programs and Chinese keyboards make.
const OTHER_QUOTES: &[char] = &[
    '“', '”', '„', '‟', '‘', '’', '＂', '＇', '「', '」', '『', '』',
];

/// The longest key that is shown: `trusted_proxies` with its section, and some more.
const KEY_CHARS_MAX: usize = 32;

/// Signs of a Chinese keyboard, and what TOML has in their place.
const OTHER_SIGNS: &[(char, char)] = &[
    ('＝', '='),
    ('，', ','),
    ('、', ','),
    ('。', '.'),
    ('【', '['),
    ('】', ']'),
    ('［', '['),
    ('］', ']'),
    ('｛', '{'),
    ('｝', '}'),
    ('＃', '#'),
    ('\u{3000}', ' '),
];

/// What to write in place of `line`, which the parser does not take; `None`: that is not known. Never shows what stands behind the
/// `=` unless it is an address: it may be a secret.
pub fn in_line(line: &str) -> Option<String> {
    let code = outside_of_strings(line);
    if let Some(quote) = code.chars().find(|c| OTHER_QUOTES.contains(c)) {
        return Some(format!(
            "{quote} is no quotation mark here; put texts between two \" of an English keyboard"
        ));
    }
    let sign = |c| OTHER_SIGNS.iter().find(|(other, _)| *other == c);
    if let Some((other, meant)) = code.chars().find_map(sign) {
        let meant = match meant {
            ' ' => "a space".to_owned(),
            meant => meant.to_string(),
        };
        return Some(format!(
            "{other} is not {meant}; write {meant} with an English keyboard"
        ));
    }
    let (key, value) = code.split_once('=')?;
    let (key, value) = (
        key.trim(),
        value.split('#').next().unwrap_or_default().trim(),
    );
    // A bare text. Of an address only digits, dots and colons are shown.
    let is_address = value.starts_with("localhost:")
        || value.contains('.')
            && value
                .chars()
                .all(|c| c.is_ascii_digit() || matches!(c, '.' | ':' | '/'));
    let is_text = value.starts_with(|c: char| c.is_alphabetic() || c == '/');
    if !is_address && (!is_text || matches!(value, "true" | "false")) {
        return None;
    }
    let shown = match is_address {
        true => value,
        false => "…",
    };
    // What stands before the sign may be a part of a secret that has one in it.
    let is_key = key.len() <= KEY_CHARS_MAX
        && key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'));
    let key = if is_key { key } else { "KEY" };
    Some(format!(
        "a text stands between quotation marks; write {key} = \"{shown}\""
    ))
}

/// `line` without what stands between two `"` or two `'`.
fn outside_of_strings(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut inside = None;
    for c in line.chars() {
        match (inside, c) {
            (None, '#') => break,
            (None, '"' | '\'') => {
                inside = Some(c);
                out.push(c);
            }
            (None, c) => out.push(c),
            (Some(open), c) if c == open => inside = None,
            (Some(_), _) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_say_what_to_write() {
        for (line, advice) in [
            (
                "listen = 0.0.0.0:8080",
                Some("write listen = \"0.0.0.0:8080\""),
            ),
            (
                "listen = localhost:80 # here",
                Some("write listen = \"localhost:80\""),
            ),
            ("token = correct-horse", Some("write token = \"…\"")),
            ("My-horse7=battery", Some("write KEY = \"…\"")),
            ("listen = “127.0.0.1:8080”", Some("“ is no quotation mark")),
            ("verify ＝ \"alipay\"", Some("＝ is not =; write =")),
            ("secrets = [\"a\"，\"b\"]", Some("， is not ,; write ,")),
            ("body = \"“成功”，\" x", None),
            ("[[route]", None),
            ("a = 08", None),
            ("a = 1", None),
            ("a = true", None),
        ] {
            let found = in_line(line);
            match advice {
                Some(advice) => assert!(
                    found.as_ref().is_some_and(|found| found.contains(advice)),
                    "{line}: {found:?}"
                ),
                None => assert_eq!(found, None, "{line}"),
            }
            assert!(!found.unwrap_or_default().contains("horse"));
        }
    }
}

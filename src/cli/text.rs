//! Bytes of strangers on a terminal: readable, and unable to command it.

/// `text` on one line: what a terminal would act upon is escaped, line breaks too.
pub fn one_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut safe, c));
    safe
}

/// `bytes` as text: line breaks and tabs stay, other control characters and what is not UTF-8 is escaped.
pub fn readable(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' | '\t' => safe.push(c),
                other => push(&mut safe, other),
            }
        }
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02x}"));
        }
    }
    safe
}

/// `text` on one line between `before` and `behind`; nothing if there is no text.
pub fn one_line_after(before: &str, text: Option<&str>, behind: &str) -> String {
    text.map_or_else(String::new, |text| {
        format!("{before}{}{behind}", one_line(text))
    })
}

fn push(safe: &mut String, c: char) {
    match c {
        // escape_debug would make bodies full of quotes unreadable; these three harm no terminal.
        '\\' | '"' | '\'' => safe.push(c),
        other => safe.extend(other.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_left_alone() {
        let text = "{\"amount\": 88, \"名\": 'é\\n'}\n\tok";
        assert_eq!(readable(text.as_bytes()), text);
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(
            readable(b"a\x1b[2Jb\0\r\n\x7f"),
            "a\\u{1b}[2Jb\\0\\r\n\\u{7f}"
        );
        assert_eq!(readable(b"\xb4\xfb|\xe5\xae"), "\\xb4\\xfb|\\xe5\\xae");
        assert_eq!(readable("\u{202e}".as_bytes()), "\\u{202e}");
        assert_eq!(one_line("a\nb"), "a\\nb");
    }
}

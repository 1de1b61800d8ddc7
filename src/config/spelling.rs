//! Words as errors show them: quoted, cut short, and the one that was probably meant.

use strsim::osa_distance;

/// How many characters of a value an error shows.
const SHOWN_CHARS_MAX: usize = 60;

/// A word that begins with another one of at least so many letters may be meant for that.
const SHARED_CHARS_MIN: usize = 4;

/// `text` as TOML would write it, on one line and without anything that moves a terminal's cursor.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for (n, c) in text.chars().enumerate() {
        if n == SHOWN_CHARS_MAX {
            out.push('…');
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\'' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out.push('"');
    out
}

/// `text` cut to what an error shows.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The one of `known` that `word` is probably a slip for.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A word much longer than any key is no slip, and its distance is not worth computing.
    if word.len() > 2 * SHOWN_CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let distances = known.iter().map(|&key| (osa_distance(&word, key), key));
    let (distance, best) = distances.min()?;
    if distance <= (best.len() / 3).max(1) {
        return Some(best);
    }
    // "warning" for "warn", "max_conn" for "max_connections": if it is the only one.
    let longer = |a: &str, b: &str| b.len() >= SHARED_CHARS_MIN && a.starts_with(b);
    let mut like = known
        .iter()
        .filter(|key| longer(&word, key) || longer(key, &word));
    let one = like.next().copied();
    one.filter(|_| like.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_key() {
        let known = ["listen", "workers", "max_body", "id"];
        for (slip, meant) in [
            ("wrokers", Some("workers")),
            ("worker", Some("workers")),
            ("Workers", Some("workers")),
            ("max-body", Some("max_body")),
            ("maxbody", Some("max_body")),
            ("ids", Some("id")),
            ("listening", Some("listen")),
            ("work", Some("workers")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, &known), meant, "{slip}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), &known), None);
    }

    #[test]
    fn what_is_shown_stays_on_its_line_and_short() {
        assert_eq!(quoted("a\"b\\c'd"), r#""a\"b\\c'd""#);
        assert_eq!(
            quoted("a\nb\u{1b}[2J\u{202e}"),
            r#""a\nb\u{1b}[2J\u{202e}""#
        );
        assert_eq!(
            quoted(&"支".repeat(61)),
            format!("\"{}…\"", "支".repeat(60))
        );
        assert_eq!(cut(&"9".repeat(61)), format!("{}…", "9".repeat(60)));
    }
}

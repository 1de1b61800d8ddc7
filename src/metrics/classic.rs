//! From OpenMetrics, which prometheus-client writes, to the classic text format 0.0.4.
//!
//! Prometheus reads both, but older scrapers and agents read only the classic one, and no scraper refuses it. The two
//! differ, for what this relay exports, in three things: the name of a counter in HELP and TYPE, UNIT lines, and EOF.

/// `open` in the classic format.
pub(super) fn from_open_metrics(open: &str) -> String {
    let mut classic = String::with_capacity(open.len() + 256);
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            // The kind stands on the next line, and the name depends on it.
            let counter = lines
                .peek()
                .and_then(|next| next.strip_prefix("# TYPE "))
                .is_some_and(|kind| kind.ends_with(" counter"));
            describe(&mut classic, "# HELP ", help, counter);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            describe(&mut classic, "# TYPE ", kind, kind.ends_with(" counter"));
        } else if !line.starts_with('#') {
            classic.push_str(line);
            classic.push('\n');
        }
    }
    classic
}

/// One HELP or TYPE line; in the classic format a counter's carries the name of its samples.
fn describe(classic: &mut String, what: &str, rest: &str, counter: bool) {
    let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
    classic.push_str(what);
    classic.push_str(name);
    if counter {
        classic.push_str("_total");
    }
    classic.push(' ');
    classic.push_str(words);
    classic.push('\n');
}

/// `value` as it may stand between the quotes of a label, in either format.
pub(super) fn label_escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_renamed_and_the_rest_is_kept() {
        let open = "# HELP a Things.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"# y\"} 1\n\
                    # HELP b Level.\n# TYPE b gauge\nb 2\n# EOF\n";
        let classic = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# y\"} 1\n\
                       # HELP b Level.\n# TYPE b gauge\nb 2\n";
        assert_eq!(from_open_metrics(open), classic);
    }

    #[test]
    fn a_label_is_escaped() {
        assert_eq!(label_escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}

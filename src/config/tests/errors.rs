//! Every kind of error, in its exact words: transcripts, of a text and the lines that `payrelay check` says about it.
//!
//! In the `.txt` files a `##` line is a heading; lines up to the next `!` are a text, the `!` lines are its errors, or its warnings.

use super::{LEAST, bad, good};

#[test]
fn every_error_outside_the_routes_reads_as_written() {
    // Each of these texts is only what is wrong; a route is added to make it whole.
    let cases = transcript(include_str!("errors.txt"));
    assert!(!cases.is_empty());
    for (text, errors) in cases {
        assert_eq!(bad(&format!("{text}\n{LEAST}")), errors, "of:\n{text}");
    }
}

#[test]
fn every_error_of_a_route_reads_as_written() {
    let cases = transcript(include_str!("route_errors.txt"));
    assert!(!cases.is_empty());
    for (text, errors) in cases {
        assert_eq!(bad(&text), errors, "of:\n{text}");
    }
}

#[test]
fn every_error_of_a_check_reads_as_written() {
    let file = include_str!("verify_errors.txt");
    assert!(file.matches("hunter2").count() > 20);
    for (text, errors) in transcript(file) {
        assert_eq!(bad(&text), errors, "of:\n{text}");
        assert!(!errors.contains("hunter2"), "a secret is shown");
    }
}

#[test]
fn every_warning_reads_as_written() {
    let cases = transcript(include_str!("warnings.txt"));
    assert!(cases.len() > 10);
    for (text, warnings) in cases {
        let whole = match text.contains("[[route]]") {
            true => text,
            false => format!("{text}\n{LEAST}"),
        };
        assert_eq!(good(&whole).warnings.join("\n"), warnings, "of:\n{whole}");
    }
}

/// The texts of a transcript, each with its errors, one per line.
fn transcript(file: &str) -> Vec<(String, String)> {
    let mut cases = Vec::new();
    let (mut text, mut errors) = (Vec::new(), Vec::new());
    for line in file.lines().chain([""]) {
        if let Some(error) = line.strip_prefix("! ") {
            errors.push(error);
            continue;
        }
        if !errors.is_empty() {
            cases.push((text.join("\n"), errors.join("\n")));
            (text, errors) = (Vec::new(), Vec::new());
        }
        if !line.is_empty() && !line.starts_with("##") {
            text.push(line);
        }
    }
    cases
}

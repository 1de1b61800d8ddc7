//! A route's path: text in, segments out.
//!
//! Matching a request against it is the business of whoever serves it.

use std::fmt;

use super::problem::Problem;
use super::reader::Field;
use super::{PathTemplate, Segment};

/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// Why a text is no route's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// It does not begin with a slash.
    NoSlash,
    /// It is longer than a path may be; the number is its length.
    TooLong(usize),
    /// It has `?` or `#`.
    Query,
    /// It has an empty segment before its last.
    DoubleSlash,
    /// It has `.` or `..` for a segment.
    Dots,
    /// It has `{id}` more than once.
    TwoIds,
    /// It has braces that are not one whole segment `{id}`.
    Braces,
    /// It has a character that must be percent-encoded.
    Char(char),
    /// It has a `%` without two hex digits.
    Escape,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => f.write_str("a path begins with a slash, as in \"/notify/{id}\""),
            Self::TooLong(bytes) => {
                write!(f, "{bytes} bytes are too many; at most {PATH_BYTES_MAX}")
            }
            Self::Query => f.write_str(
                "a path has no ? and no #; a value in the query is named by id = \"query:NAME\"",
            ),
            Self::DoubleSlash => f.write_str("a path has no two slashes in a row"),
            Self::Dots => {
                f.write_str("a path has no segments . or ..; clients resolve them before they send")
            }
            Self::TwoIds => f.write_str("a path has {id} at most once"),
            Self::Braces => f.write_str(
                "the only braces in a path are {id}, which must be a whole segment between slashes",
            ),
            Self::Char(c) => write!(
                f,
                "{c:?} cannot stand in a path; allowed: A-Z a-z 0-9 - . _ ~ and %XX for every other byte"
            ),
            Self::Escape => f.write_str("% must be followed by two hex digits"),
        }
    }
}

/// Reads a `path` key.
pub fn path(field: &Field<'_>) -> Result<PathTemplate, Problem> {
    parse(field.text("a string")?).map_err(Problem::Path)
}

/// Cuts `text` at its slashes: `/` has one empty segment, and a trailing slash makes an empty last one.
fn parse(text: &str) -> Result<PathTemplate, BadPath> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(BadPath::NoSlash);
    };
    if text.len() > PATH_BYTES_MAX {
        return Err(BadPath::TooLong(text.len()));
    }
    if text.contains(['?', '#']) {
        return Err(BadPath::Query);
    }
    if text.contains("//") {
        return Err(BadPath::DoubleSlash);
    }
    let segments = rest
        .split('/')
        .map(segment)
        .collect::<Result<Vec<_>, _>>()?;
    if segments
        .iter()
        .filter(|segment| **segment == Segment::Id)
        .count()
        > 1
    {
        return Err(BadPath::TwoIds);
    }
    Ok(PathTemplate {
        text: text.to_owned(),
        segments,
    })
}

fn segment(text: &str) -> Result<Segment, BadPath> {
    if text == "{id}" {
        return Ok(Segment::Id);
    }
    if text == "." || text == ".." {
        return Err(BadPath::Dots);
    }
    if text.contains(['{', '}']) {
        return Err(BadPath::Braces);
    }
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '.' | '_' | '~' => {}
            '%' => {
                let hex = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
                if !hex(rest.next()) || !hex(rest.next()) {
                    return Err(BadPath::Escape);
                }
            }
            c => return Err(BadPath::Char(c)),
        }
    }
    Ok(Segment::Literal(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    #[test]
    fn paths_are_cut_at_their_slashes() {
        for (text, segments) in [
            ("/", vec![literal("")]),
            ("/notify/{id}", vec![literal("notify"), Segment::Id]),
            ("/{id}/pay/", vec![Segment::Id, literal("pay"), literal("")]),
            ("/a.b_c~d-%E6%94%AF", vec![literal("a.b_c~d-%E6%94%AF")]),
        ] {
            let path = parse(text).unwrap();
            assert_eq!((path.text.as_str(), path.segments), (text, segments));
        }
    }

    #[test]
    fn what_no_request_can_match_is_no_path() {
        for (text, bad) in [
            ("", BadPath::NoSlash),
            ("notify/{id}", BadPath::NoSlash),
            ("/n?id={id}", BadPath::Query),
            ("/n#x", BadPath::Query),
            ("//n", BadPath::DoubleSlash),
            ("/n//{id}", BadPath::DoubleSlash),
            ("/n/../{id}", BadPath::Dots),
            ("/./n", BadPath::Dots),
            ("/{id}/{id}", BadPath::TwoIds),
            ("/n-{id}", BadPath::Braces),
            ("/{name}", BadPath::Braces),
            ("/{id", BadPath::Braces),
            ("/a b", BadPath::Char(' ')),
            ("/支", BadPath::Char('支')),
            ("/a\n", BadPath::Char('\n')),
            ("/a%", BadPath::Escape),
            ("/a%4", BadPath::Escape),
            ("/a%zz", BadPath::Escape),
        ] {
            assert_eq!(parse(text), Err(bad), "{text}");
        }
        assert_eq!(
            parse(&format!("/{}", "x".repeat(1024))),
            Err(BadPath::TooLong(1025))
        );
    }
}

//! A route's path: text in, segments out.
//!
//! Matching a request against it is the business of whoever serves it.

use super::reader::{Field, Problem};

/// A route's path: literal segments, of which at most one is `{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// The path as the file has it.
    pub text: String,
    /// Its segments in order; `/notify/{id}` has two.
    pub segments: Vec<Segment>,
}

/// One segment of a route's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Matches exactly these characters.
    Literal(String),
    /// Matches any one segment, and is the backend's id.
    Id,
}

/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// Reads a `path` key.
pub fn path(field: &Field<'_>) -> Result<PathTemplate, Problem> {
    parse(field.text("a string")?)
}

/// Cuts `text` at its slashes: `/` has one empty segment, and a trailing slash makes an empty last one.
fn parse(text: &str) -> Result<PathTemplate, Problem> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("a path begins with a slash, as in \"/notify/{id}\"".into());
    };
    if text.len() > PATH_BYTES_MAX {
        let bytes = text.len();
        return Err(format!(
            "{bytes} bytes are too many; at most {PATH_BYTES_MAX}"
        ));
    }
    if text.contains(['?', '#']) {
        return Err(
            "a path has no ? and no #; a value in the query is named by id = \"query:NAME\"".into(),
        );
    }
    if text.contains("//") {
        return Err("a path has no two slashes in a row".into());
    }
    let segments = rest
        .split('/')
        .map(segment)
        .collect::<Result<Vec<_>, _>>()?;
    let ids = segments.iter().filter(|segment| **segment == Segment::Id);
    if ids.count() > 1 {
        return Err("a path has {id} at most once".into());
    }
    Ok(PathTemplate {
        text: text.to_owned(),
        segments,
    })
}

/// What other routers take for the place of a value: `:id`, `<id>`, `{backend}`, `*`, `$id`.
fn placeholder(text: &str) -> Option<&str> {
    let inside = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let name = text
        .strip_prefix([':', '$'])
        .or_else(|| inside('<', '>'))
        .or_else(|| inside('{', '}'));
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (text == "*" || name.is_some_and(is_name)).then_some(text)
}

fn segment(text: &str) -> Result<Segment, Problem> {
    if text == "{id}" {
        return Ok(Segment::Id);
    }
    if text == "." || text == ".." {
        return Err("a path has no segments . or ..; clients resolve them before they send".into());
    }
    if let Some(of) = placeholder(text) {
        return Err(format!(
            "{of} is no placeholder here; the segment that is the backend's id is written {{id}}, as in \"/notify/{{id}}\""
        ));
    }
    if text.contains(['{', '}']) {
        return Err(
            "the only braces in a path are {id}, which must be a whole segment between slashes"
                .into(),
        );
    }
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '.' | '_' | '~' => {}
            '%' => {
                let hex = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
                if !hex(rest.next()) || !hex(rest.next()) {
                    return Err("% must be followed by two hex digits".into());
                }
            }
            c => {
                return Err(format!(
                    "{c:?} cannot stand in a path; allowed: A-Z a-z 0-9 - . _ ~ and %XX for every other byte"
                ));
            }
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
            ("", "a path begins"),
            ("notify/{id}", "a path begins"),
            ("/n?id={id}", "a path has no ?"),
            ("/n#x", "a path has no ?"),
            ("//n", "a path has no two"),
            ("/n//{id}", "a path has no two"),
            ("/n/../{id}", "a path has no segments"),
            ("/./n", "a path has no segments"),
            ("/{id}/{id}", "a path has {id}"),
            ("/n-{id}", "the only braces"),
            ("/{name}", "{name} is no placeholder"),
            ("/:id", ":id is no placeholder"),
            ("/<game>/pay", "<game> is no placeholder"),
            ("/*", "* is no placeholder"),
            ("/{id", "the only braces"),
            ("/a b", "' ' cannot"),
            ("/支", "'支' cannot"),
            ("/a\n", "'\\n' cannot"),
            ("/a%", "% must"),
            ("/a%4", "% must"),
            ("/a%zz", "% must"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with(bad), "{text}: {why}");
        }
    }
}

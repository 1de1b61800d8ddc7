//! Texts with placeholders in braces.

use crate::verify::Part;

/// The parts of a text, in which `placeholder` knows what stands between braces; `unknown`: a brace stands alone.
pub fn parts(
    text: &str,
    unknown: &'static str,
    mut placeholder: impl FnMut(&str) -> Result<Part, &'static str>,
) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (literal, after) = rest.split_at(at);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        let inside = after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'));
        let Some((name, after)) = inside else {
            return Err(unknown);
        };
        parts.push(placeholder(name)?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.into()));
    }
    Ok(parts)
}

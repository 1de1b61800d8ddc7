//! `message` of the table `hmac`: a text with `{timestamp}`, `{id}`, `{url}` and `{body}`.

use super::braces::parts;
use crate::request::Selector;
use crate::verify::{Part, Template, ValueForm};

/// The id in one of these headers.
fn id(headers: Vec<String>) -> Part {
    Part::Value(Selector::Header(headers), ValueForm::default())
}

const UNKNOWN: &str = "the only braces in a message are {timestamp}, {id}, {url} and {body}";

/// Reads a template such as `{timestamp}.{body}`. The header of `{id}` is named elsewhere in the table.
///
/// # Errors
/// It has no `{body}`, or could be the message of two different requests.
pub fn parse(text: &str) -> Result<Template, &'static str> {
    let mut seen = Vec::new();
    let parts = parts(text, UNKNOWN, |name| {
        let part = match name {
            "timestamp" => Part::Timestamp,
            "id" => id(Vec::new()),
            "url" => Part::Url,
            "body" => Part::Body,
            _ => return Err(UNKNOWN),
        };
        if seen.iter().any(|seen| seen == name) {
            return Err("each of {timestamp}, {id}, {url} and {body} may be there once");
        }
        seen.push(name.to_owned());
        Ok(part)
    })?;
    if !parts.contains(&Part::Body) {
        return Err("{body} is missing, so nothing of the payment would be signed");
    }
    let apart = parts.windows(2).all(|pair| seam_holds(&pair[0], &pair[1]));
    apart.then_some(Template(parts)).ok_or("where {id} or {timestamp} ends could not be told; put a separator between it and the next, no digit beside {timestamp}")
}

/// Whether `{id}` is in `message`.
pub fn has_id(message: &Template) -> bool {
    message.parts().any(|part| matches!(part, Part::Value(..)))
}

/// `message` with the id from `id_header`.
pub fn with_id_header(message: Template, id_header: Option<String>) -> Template {
    let headers = Vec::from_iter(id_header);
    let named = |part| match part {
        Part::Value(..) => id(headers.clone()),
        other => other,
    };
    Template(message.0.into_iter().map(named).collect())
}

/// Whether it can be told from the text alone where `a` ends and `b` begins. A timestamp beside the body is judged when the
/// body is there.
fn seam_holds(a: &Part, b: &Part) -> bool {
    match (a, b) {
        (Part::Timestamp, Part::Literal(text)) => !text.starts_with(|c: char| c.is_ascii_digit()),
        (Part::Literal(text), Part::Timestamp) => !text.ends_with(|c: char| c.is_ascii_digit()),
        (Part::Value(..), Part::Literal(_)) | (Part::Literal(_), Part::Value(..)) => true,
        (Part::Value(..), _) | (_, Part::Value(..)) => false,
        (Part::Timestamp, Part::Url) | (Part::Url, Part::Timestamp) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_refused_when_its_parts_cannot_be_told_apart() {
        for good in [
            "{body}",
            "{url}{body}",
            "{timestamp}.{body}",
            "{timestamp}{body}",
            "{body}{timestamp}",
            "{id}.{timestamp}.{body}",
            "v0:{timestamp}:{body}",
            "{body}&key=x",
            "{timestamp}\n{id}\n{body}\n",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "{body}"),
            ("{timestamp}", "{body}"),
            ("body", "{body}"),
            ("{Body}", "the only"),
            ("{body", "the only"),
            ("body}", "the only"),
            ("{}{body}", "the only"),
            ("{{body}}", "the only"),
            ("{body}{body}", "each of"),
            ("{id}{body}", "where"),
            ("{body}{id}", "where"),
            ("{id}{timestamp}.{body}", "where"),
            ("{timestamp}0{body}", "where"),
            ("{body}0{timestamp}", "where"),
            ("{timestamp}{url}{body}", "where"),
        ] {
            let said = parse(bad).unwrap_err();
            assert!(said.starts_with(why), "{bad}: {said}");
        }
    }
}

//! The kinds of value that relay.toml has: each takes a field and gives a checked value, or says what is wrong.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Field, Problem, Section};
use super::spelling::nearest;
use super::units::{DURATION, SIZE, Scale};
use crate::notification::BackendId;
use crate::peers::{BadNetwork, Networks};
use crate::request::{Selector, header_name};

/// A whole number within `allowed`.
pub fn count<T: TryFrom<u64>>(
    allowed: RangeInclusive<u64>,
) -> impl Fn(&Field<'_>) -> Result<T, Problem> {
    move |field| {
        let n = field.whole()?.filter(|n| allowed.contains(n));
        n.and_then(|n| T::try_from(n).ok()).ok_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            format!("out of range; allowed: {least} to {most}")
        })
    }
}

/// A duration within `allowed`, in milliseconds.
pub fn duration(allowed: RangeInclusive<u64>) -> impl Fn(&Field<'_>) -> Result<Duration, Problem> {
    move |field| quantity(field, &DURATION, &allowed).map(Duration::from_millis)
}

/// A size within `allowed`, in bytes.
pub fn size<T: TryFrom<u64>>(
    allowed: RangeInclusive<u64>,
) -> impl Fn(&Field<'_>) -> Result<T, Problem> {
    move |field| {
        let bytes = quantity(field, &SIZE, &allowed)?;
        T::try_from(bytes).map_err(|_| "more than this machine can address".into())
    }
}

fn quantity(
    field: &Field<'_>,
    scale: &Scale,
    allowed: &RangeInclusive<u64>,
) -> Result<u64, Problem> {
    match field.whole() {
        Ok(Some(number)) => Err(scale.bare(&number.to_string(), allowed.clone())),
        _ => scale.parse(field.text(scale.wanted)?, allowed.clone()),
    }
}

/// One of `words`, and what it stands for.
pub fn one_of<T: Copy + 'static>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Field<'_>) -> Result<T, Problem> {
    move |field| {
        let text = field.text("a string")?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, what)| *what).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let meant = nearest(text, &known).map(|meant| format!("\"{meant}\""));
            not_known(meant, &known)
        })
    }
}

/// The error of a word that is none of `known`; `meant`: which of them it may be a slip for, in quotes.
pub fn not_known(meant: Option<String>, known: &[&str]) -> Problem {
    let meant = meant.map(|meant| format!("did you mean {meant}? "));
    let (meant, known) = (meant.unwrap_or_default(), known.join("\", \""));
    format!("not known; {meant}allowed: \"{known}\"")
}

/// Any text.
pub fn text_of(field: &Field<'_>) -> Result<String, Problem> {
    field.text("a string").map(str::to_owned)
}

/// The text in `field`: 1 to `most` bytes, all of them `allowed`; `rule` says so.
pub fn text_within(
    field: &Field<'_>,
    most: usize,
    allowed: impl Fn(u8) -> bool,
    rule: &str,
) -> Result<String, Problem> {
    let text = field.text("a string")?;
    let is_right = (1..=most).contains(&text.len()) && text.bytes().all(allowed);
    is_right.then(|| text.to_owned()).ok_or(rule.to_owned())
}

/// What names are made of: A-Z a-z 0-9 . _ -
pub fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// What `read` reads, of a key that may be absent.
pub fn some<T>(
    read: impl Fn(&Field<'_>) -> Result<T, Problem>,
) -> impl Fn(&Field<'_>) -> Result<Option<T>, Problem> {
    move |field| read(field).map(Some)
}

/// The table in `field`, all of whose keys `read` takes; `None` if something in it is wrong, which is noted.
pub fn table<T>(
    read: impl Fn(&mut Section<'_>) -> Option<T>,
) -> impl Fn(&Field<'_>) -> Result<Option<T>, Problem> {
    move |field| {
        let mut section = field.section()?;
        let read = read(&mut section);
        section.close();
        Ok(read)
    }
}

/// A list of at most `most`, each as `read` takes it; those that are wrong are noted and left out.
pub fn list<T>(
    most: usize,
    read: impl Fn(&Field<'_>) -> Result<T, Problem>,
) -> impl Fn(&Field<'_>) -> Result<Vec<T>, Problem> {
    move |field| {
        let fields = field.list("a list of strings", most)?;
        Ok(fields
            .iter()
            .filter_map(|field| field.read(&read))
            .collect())
    }
}

/// A backend's id.
pub fn backend_id(field: &Field<'_>) -> Result<BackendId, Problem> {
    BackendId::parse(field.text("a string")?).map_err(|bad| bad.to_string())
}

/// Where in a request a value is.
pub fn selector(field: &Field<'_>) -> Result<Selector, Problem> {
    Selector::parse(field.text("a string")?)
}

/// A header's name, in lower case.
pub fn header(field: &Field<'_>) -> Result<String, Problem> {
    const RULE: &str = "not a header's name: 1 to 128 of A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~";
    header_name(field.text("a string")?).ok_or_else(|| RULE.into())
}

/// The same; one that is there twice is noted, and left out.
pub fn distinct<T: Clone + Eq + Hash>(
    most: usize,
    read: impl Fn(&Field<'_>) -> Result<T, Problem>,
) -> impl Fn(&Field<'_>) -> Result<Vec<T>, Problem> {
    move |field| {
        let mut all = Vec::new();
        let mut seen: HashMap<T, usize> = HashMap::new();
        for field in field.list("a list of strings", most)? {
            let Some(one) = field.read(&read) else {
                continue;
            };
            match seen.get(&one) {
                Some(&at) => field.refuse(field.again(at)),
                None => {
                    seen.insert(one.clone(), field.at());
                    all.push(one);
                }
            }
        }
        Ok(all)
    }
}

/// The most networks in one list.
const NETWORKS_MAX: usize = 1000;

/// A list of networks.
pub fn networks(field: &Field<'_>) -> Result<Networks, Problem> {
    let one = |field: &Field<'_>| {
        field
            .text("a string")?
            .parse()
            .map_err(|bad: BadNetwork| bad.to_string())
    };
    list(NETWORKS_MAX, one)(field).map(Networks::new)
}

/// A file's name.
pub fn file_name(field: &Field<'_>) -> Result<PathBuf, Problem> {
    let text = field.text("a file name")?;
    if text.contains('\n') || text.starts_with("-----BEGIN") {
        field.hide(); // a private key, perhaps
        return Err(
            "this is the content of a file, and not its name; write it to a file and give its name here".into(),
        );
    }
    // The system takes a name up to its first NUL and would open another file, or refuse with no hint why.
    if text.is_empty() || text.contains('\0') {
        return Err("a file name is needed: not empty, no NUL in it".into());
    }
    Ok(PathBuf::from(text))
}

/// The longest node name, in bytes: with its random suffix it must still fit where a backend id does.
const NODE_BYTES_MAX: usize = 48;

/// A node's name.
pub fn node(field: &Field<'_>) -> Result<String, Problem> {
    let rule = format!("a node's name is 1 to {NODE_BYTES_MAX} of A-Z a-z 0-9 . _ -");
    text_within(field, NODE_BYTES_MAX, is_of_name, &rule)
}

/// The host's name, made fit for a node's.
pub fn node_of_host() -> String {
    fit(&rustix::system::uname().nodename().to_string_lossy())
}

fn fit(host: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fitting = host.chars().map(|c| if allowed(c) { c } else { '-' });
    match fitting.take(NODE_BYTES_MAX).collect::<String>() {
        name if name.is_empty() => "node".to_owned(),
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_makes_a_node_name() {
        for (host, node) in [
            ("pay-1.example", "pay-1.example"),
            ("böse host", "b-se-host"),
            ("", "node"),
        ] {
            assert_eq!(fit(host), node);
        }
        assert_eq!(fit(&"x".repeat(300)).len(), NODE_BYTES_MAX);
        assert!(BackendId::parse(&node_of_host()).is_ok());
    }
}

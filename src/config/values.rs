//! The kinds of value that relay.toml has: each takes a field and gives a checked value, or says what is wrong.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::Problem;
use super::reader::Field;
use super::units::{DURATION, SIZE, Scale};
use crate::peers::Networks;

/// A whole number within `allowed`.
pub fn count(allowed: RangeInclusive<u64>) -> impl Fn(&Field<'_>) -> Result<usize, Problem> {
    move |field| {
        field
            .whole()?
            .filter(|n| allowed.contains(n))
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| Problem::OutOfRange(allowed.clone()))
    }
}

/// A duration within `allowed`, in milliseconds.
pub fn duration(allowed: RangeInclusive<u64>) -> impl Fn(&Field<'_>) -> Result<Duration, Problem> {
    move |field| quantity(field, &DURATION, &allowed).map(Duration::from_millis)
}

/// A size within `allowed`, in bytes.
pub fn size(allowed: RangeInclusive<u64>) -> impl Fn(&Field<'_>) -> Result<u64, Problem> {
    move |field| quantity(field, &SIZE, &allowed)
}

fn quantity(
    field: &Field<'_>,
    scale: &'static Scale,
    allowed: &RangeInclusive<u64>,
) -> Result<u64, Problem> {
    if let Some(digits) = field.digits() {
        return Err(Problem::Quantity(scale.bare(&digits, allowed.clone())));
    }
    let text = field.text(scale.wanted)?;
    scale
        .parse(text, allowed.clone())
        .map_err(Problem::Quantity)
}

/// The most networks in one list.
const NETWORKS_MAX: usize = 1000;

/// A list of networks.
pub fn networks(field: &Field<'_>) -> Result<Networks, Problem> {
    let fields = field.list("a list of strings", NETWORKS_MAX)?;
    let one = |field: &Field<'_>| field.text("a string")?.parse().map_err(Problem::Network);
    let networks = fields.iter().filter_map(|field| field.read(one));
    Ok(Networks::new(networks.collect()))
}

/// A file's name.
pub fn file_name(field: &Field<'_>) -> Result<PathBuf, Problem> {
    let text = field.text("a file name")?;
    // The system takes a name up to its first NUL and would open another file, or refuse with no hint why.
    if text.is_empty() || text.contains('\0') {
        return Err(Problem::FileName);
    }
    Ok(PathBuf::from(text))
}

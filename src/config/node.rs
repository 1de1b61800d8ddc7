//! The node's name: the one the file gives, or one made of the host's.

use super::problem::Problem;
use super::reader::Field;
use crate::notification::BackendId;

/// The longest node name, in bytes: with its random suffix it must still fit where a backend id does.
pub const NODE_BYTES_MAX: usize = 48;

/// Reads the `node` key.
pub fn name(field: &Field<'_>) -> Result<String, Problem> {
    let text = field.text("a string")?;
    if text.len() > NODE_BYTES_MAX || BackendId::parse(text).is_err() {
        return Err(Problem::Node);
    }
    Ok(text.to_owned())
}

/// The host's name, made fit for a node's.
pub fn of_host() -> String {
    fit(&rustix::system::uname().nodename().to_string_lossy())
}

fn fit(host: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = host
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(NODE_BYTES_MAX)
        .collect();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name
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
        assert!(BackendId::parse(&of_host()).is_ok());
    }
}

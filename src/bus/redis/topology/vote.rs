//! Which primary to use, by what sentinels say. Pure.

/// What the sentinels' answers mean.
#[derive(Debug, PartialEq, Eq)]
pub enum Vote {
    /// Use this primary.
    Use(String),
    /// Stay with the present one, if there is one.
    Stay,
}

/// What `answers` mean: for each sentinel the primary that it names, or `None` if it did not answer. `healthy`: the present
/// primary works, as far as this node can see.
///
/// A primary that works is left only for the word of a majority of all sentinels: one that was cut off and has come back names
/// an old primary. While none works, any answer will do, and first one that names another server.
pub fn vote(answers: &[Option<String>], present: Option<&str>, healthy: bool) -> Vote {
    let votes = |name: &str| {
        answers
            .iter()
            .flatten()
            .filter(|answer| *answer == name)
            .count()
    };
    let mut named: Vec<&str> = answers.iter().flatten().map(String::as_str).collect();
    named.sort_unstable();
    named.dedup();
    let most = named.iter().copied().max_by_key(|name| {
        let is_other = present.is_some_and(|present| present != *name);
        (votes(name), is_other)
    });
    let Some(most) = most else {
        return Vote::Stay;
    };
    let is_majority = votes(most) * 2 > answers.len();
    match present {
        Some(present) if present == most => Vote::Stay,
        Some(_) if healthy && !is_majority => Vote::Stay,
        Some(_) | None => Vote::Use(most.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(names: &str) -> Vec<Option<String>> {
        let name = |c: char| (c != '-').then(|| c.to_string());
        names.chars().map(name).collect()
    }

    #[test]
    fn a_primary_that_works_is_left_only_for_a_majority() {
        for (said, present, healthy, wanted) in [
            ("aaa", None, false, Some("a")),
            ("---", None, false, None),
            ("---", Some("a"), true, None),
            ("---", Some("a"), false, None),
            ("-b-", Some("a"), true, None),
            ("-b-", Some("a"), false, Some("b")),
            ("bba", Some("a"), true, Some("b")),
            ("aab", Some("a"), true, None),
            ("ab-", Some("a"), true, None),
            ("ab-", Some("a"), false, Some("b")),
            ("bb", Some("a"), true, Some("b")),
            ("b-", Some("a"), true, None),
            ("abc", Some("a"), true, None),
        ] {
            let wanted = wanted.map_or(Vote::Stay, |name| Vote::Use(name.to_owned()));
            assert_eq!(
                vote(&answers(said), present, healthy),
                wanted,
                "{said} {present:?} {healthy}"
            );
        }
    }
}

//! Functions are short, or stand in a list that says why not.

use super::{Source, none, sources};

/// Functions of more than [`FUNCTION_LINES_MAX`] lines, and why each is better in one piece.
const MAY_BE_LONG: &[(&str, &str, &str)] = &[
    (
        "src/cli/bench/plan.rs",
        "new",
        "a list: each argument, and the configuration for what it leaves out",
    ),
    (
        "src/cli/init/file.rs",
        "route",
        "a list: what is written for each key",
    ),
    (
        "src/cli/init/steps.rs",
        "tell",
        "a list: the steps, as they are shown",
    ),
    (
        "src/config/verify/signed.rs",
        "table",
        "a list: each key of the table",
    ),
    (
        "src/metrics.rs",
        "new",
        "a list: each metric with its name and help text",
    ),
    (
        "src/metrics/outbox.rs",
        "register",
        "a list: each metric with its name and help text",
    ),
    (
        "src/outbox/store/error.rs",
        "fmt",
        "a list: the words for each cause",
    ),
];

/// The most lines of a function, from its name to its end.
const FUNCTION_LINES_MAX: usize = 60;

#[test]
fn functions_are_short_or_stand_in_the_list() {
    let mut long = Vec::new();
    let mut excused = Vec::new();
    for source in sources() {
        for (name, lines) in function_lengths(&source) {
            let place = MAY_BE_LONG
                .iter()
                .position(|(path, function, _)| *path == source.path && *function == name);
            match place {
                _ if lines <= FUNCTION_LINES_MAX => {}
                Some(place) => excused.push(place),
                None => long.push(format!("{}: {name}: {lines} lines", source.path)),
            }
        }
    }
    none(
        &long,
        &format!("functions of more than {FUNCTION_LINES_MAX} lines"),
    );
    let idle = MAY_BE_LONG.iter().enumerate();
    let idle = idle.filter(|(place, _)| !excused.contains(place));
    let idle: Vec<String> = idle
        .map(|(_, (path, function, _))| format!("{path}: {function}"))
        .collect();
    none(&idle, "in MAY_BE_LONG, and short or gone");
}

/// The functions of a file, and how many lines each has. By their indentation, which rustfmt keeps.
fn function_lengths(source: &Source) -> Vec<(String, usize)> {
    let lines: Vec<(usize, &str)> = source.code().collect();
    let mut found = Vec::new();
    for (at, (_, line)) in lines.iter().enumerate() {
        let words = line.trim_start();
        let indentation = &line[..line.len() - words.len()];
        let Some(name) = function_name(words) else {
            continue;
        };
        let end = format!("{indentation}}}");
        let is_end = |line: &str| {
            line == end || line.ends_with(';') && line.find(|c| c != ' ') == Some(indentation.len())
        };
        let length = match words.ends_with('}') || words.ends_with(';') {
            true => Some(0),
            false => lines[at..].iter().position(|(_, line)| is_end(line)),
        };
        if let Some(length) = length {
            found.push((name, length + 1));
        }
    }
    found
}

/// The name of the function that begins on a line with these words.
fn function_name(words: &str) -> Option<String> {
    if words.starts_with("//") {
        return None;
    }
    let (before, after) = words.split_once("fn ")?;
    let is_declaration = before.split_whitespace().all(|word| {
        word.starts_with("pub")
            || matches!(
                word,
                "const" | "async" | "unsafe" | "extern" | "\"C\"" | "in"
            )
            || word.ends_with(')')
    });
    is_declaration.then(|| {
        let name = |c: &char| c.is_alphanumeric() || *c == '_';
        after.chars().take_while(name).collect()
    })
}

#[test]
fn the_lengths_of_functions_are_found() {
    let source = Source {
        path: "src/a.rs".into(),
        text: "fn one() {}\npub(in crate::b) const fn three(\n) {\n}\ntrait T {\n    fn two(\n    );\n}\n\
               impl T for U {\n    fn four() {\n        fn inner() {\n        }\n    }\n}\n// fn none() {\n"
            .into(),
    };
    let found = function_lengths(&source);
    let found: Vec<(&str, usize)> = found.iter().map(|(n, l)| (n.as_str(), *l)).collect();
    assert_eq!(
        found,
        [
            ("one", 1),
            ("three", 3),
            ("two", 2),
            ("four", 4),
            ("inner", 2)
        ]
    );
}

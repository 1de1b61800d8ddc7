//! The project's rules, as a test: what every file begins with, what none may contain, and who may know whom.
//!
//! It reads the sources as text. A rule that has exceptions lists them, each with its reason, at the top. What clippy can see, it is
//! told in Cargo.toml, src/lib.rs and clippy.toml; the rules here are about words, or about the sources without their tests.

#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/lua.rs"]
mod lua;
#[path = "tidy/names.rs"]
mod names;

use std::fs;
use std::path::{Path, PathBuf};

/// Where a channel without a bound is right, and why.
const MAY_BE_UNBOUNDED: &[(&str, &str)] = &[
    (
        "src/thread.rs",
        "each member of a group sends once, so the group's own limit bounds it",
    ),
    (
        "src/session/mailbox.rs",
        "a counter bounds it, so that an idle session has no slots; its tests fill it",
    ),
];

/// The most lines of a file, its unit tests not counted.
const LINES_MAX: usize = 400;

/// What a longer file says in its first lines, followed by the reason.
const REASON: &str = "Over 400 lines because";

struct Source {
    /// From the project's folder, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Numbered lines, without the unit tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test_file = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        let tests_at = self.text.find("#[cfg(test)]\nmod tests {");
        let end = match tests_at {
            _ if is_test_file => 0,
            Some(at) => at,
            None => self.text.len(),
        };
        let lines = self.text[..end].lines().enumerate();
        lines.map(|(n, line)| (n + 1, line))
    }

    /// The same, without comments.
    fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The same as one text.
    fn code_text(&self) -> String {
        let lines = self.statements();
        lines.map(|(_, line)| format!("{line}\n")).collect()
    }
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files under `folder` that end in one of `endings`.
fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![project().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue; // a folder that this version does not have
        };
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if endings
                .iter()
                .any(|ending| path.to_string_lossy().ends_with(ending))
            {
                found.push(read(&path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(path: &PathBuf) -> Source {
    let inside = path.strip_prefix(project()).expect("inside the project");
    Source {
        path: inside.to_string_lossy().replace('\\', "/"),
        text: fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
    }
}

fn sources() -> Vec<Source> {
    let found = files("src", &[".rs"]);
    assert!(found.len() > 10, "the sources are elsewhere");
    found
}

fn rust_files(folders: &[&str]) -> Vec<Source> {
    folders
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .collect()
}

/// Everything that a person wrote.
fn everything() -> Vec<Source> {
    let mut all = Vec::new();
    for folder in ["src", "tests", "doc", "clients", "packaging", ".ci"] {
        all.extend(files(
            folder,
            &[
                ".rs", ".lua", ".py", ".mjs", ".html", ".js", ".md", ".toml", ".yml", ".service",
                "/run",
            ],
        ));
    }
    for file in [
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "Cargo.toml",
        "relay.toml",
    ] {
        let path = project().join(file);
        if path.exists() {
            all.push(read(&path));
        }
    }
    all
}

fn none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

/// Every line: its file, its number and its text.
fn all_lines(all: &[Source]) -> impl Iterator<Item = (&str, usize, &str)> {
    all.iter().flat_map(|source| {
        let lines = source.text.lines().enumerate();
        lines.map(|(n, line)| (source.path.as_str(), n + 1, line))
    })
}

/// The same of what is neither a comment nor a test, without the files in `excused`.
fn statements_of<'a>(
    all: &'a [Source],
    excused: &'a [&'a str],
) -> impl Iterator<Item = (&'a str, usize, &'a str)> {
    all.iter()
        .filter(|source| !excused.contains(&source.path.as_str()))
        .flat_map(|source| {
            let lines = source.statements();
            lines.map(|(n, line)| (source.path.as_str(), n, line))
        })
}

/// Lines of `sources` that contain one of `needles`, as `file:line: text`.
fn having<'a>(
    lines: impl Iterator<Item = (&'a str, usize, &'a str)>,
    needles: &[&str],
) -> Vec<String> {
    lines
        .filter(|(_, _, line)| needles.iter().any(|needle| line.contains(needle)))
        .map(|(path, n, line)| format!("{path}:{n}: {}", line.trim()))
        .collect()
}

#[test]
fn every_file_says_what_lives_in_it() {
    let all = rust_files(&["src", "tests"]);
    let silent: Vec<String> = all
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path.clone())
        .collect();
    none(&silent, "the first line is not `//! what lives here`");
}

#[test]
fn nothing_is_left_over() {
    // In two halves, so that this file does not find itself.
    let needles = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("<<<", "<<<<"),
        concat!(">>>", ">>>>"),
    ];
    let all = everything();
    let lines = all_lines(&all);
    none(&having(lines, &needles), "left over");
}

#[test]
fn no_path_of_somebodys_machine_is_in_the_project() {
    let needles = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
    ];
    let all = everything();
    let lines = all_lines(&all);
    none(&having(lines, &needles), "a path of one machine");
}

#[test]
fn files_are_short_or_say_why_not() {
    let all = rust_files(&["src", "tests"]);
    let long: Vec<String> = all
        .iter()
        .map(|source| {
            let lines = match source.path.starts_with("tests/") {
                true => source.text.lines().count(),
                false => source.code().count(),
            };
            (source, lines)
        })
        .filter(|(source, lines)| {
            let reasoned = source
                .text
                .lines()
                .take(10)
                .any(|line| line.contains(REASON));
            *lines > LINES_MAX && !reasoned
        })
        .map(|(source, lines)| format!("{}: {lines} lines", source.path))
        .collect();
    none(
        &long,
        &format!("longer than {LINES_MAX} lines, and no {REASON:?} in the first lines"),
    );
}

#[test]
fn threads_are_started_in_one_place() {
    // Elsewhere `thread::spawn` is the project's own, which names and joins.
    let needles = [
        "std::thread::spawn",
        "std::thread::Builder",
        "std::thread::scope",
        "use std::thread;",
        "use std::thread::{",
    ];
    let all = sources();
    let lines = statements_of(&all, &["src/thread.rs"]);
    none(
        &having(lines, &needles),
        "a thread started outside src/thread.rs",
    );
}

#[test]
fn every_queue_has_a_bound() {
    let needles = ["unbounded(", "unbounded::<"];
    let all = sources();
    let excused: Vec<&str> = MAY_BE_UNBOUNDED.iter().map(|(path, _)| *path).collect();
    let lines = statements_of(&all, &excused);
    none(&having(lines, &needles), "a queue without a bound");
}

#[test]
fn errors_are_enums() {
    let needles = [
        "Box<dyn Error",
        "Box<dyn std::error::Error",
        "-> Result<(), String>",
    ];
    let all = sources();
    let lines = statements_of(&all, &[]);
    none(&having(lines, &needles), "errors of the library are enums");
}

//! The project's rules, as a test: what every file begins with, what none may contain, and who may know whom.
//!
//! It reads the sources as text. A rule that has exceptions lists them, each with its reason, at the top. What clippy can see, it is
//! told in Cargo.toml, src/lib.rs and clippy.toml; the rules here are about words, or about the sources without their tests.

#[path = "tidy/lua.rs"]
mod lua;
#[path = "tidy/names.rs"]
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Imports point one way (the map in src/lib.rs): each module with the modules it may use, those below it first.
///
/// `relay` wires all modules together and nobody uses it; the binary (`main`, `cli`, `client`) uses the library by its name.
#[rustfmt::skip]
const MAY_USE: &[(&str, &[&str])] = &[
    ("notification", &[]),
    ("peers", &[]),
    ("thread", &[]),
    ("log_once", &[]),
    ("backoff", &[]),
    ("escape", &[]),
    ("heartbeat", &["thread"]),
    ("fds", &[]),
    ("lock", &[]),
    ("timeline", &[]),
    ("wire", &["escape"]),
    ("systemd", &[]),
    ("envelope", &["notification"]),
    ("trace", &["notification", "envelope", "timeline"]),
    ("metrics", &["notification", "heartbeat"]),
    ("request", &["escape"]),
    ("verify", &["escape", "request"]),
    ("config", &["notification", "peers", "request", "verify"]),
    ("logging", &["notification", "thread", "log_once", "heartbeat", "config"]),
    ("tls", &["config"]),
    ("listener", &["thread", "log_once", "heartbeat"]),
    ("edge", &["peers", "thread", "lock", "fds", "listener", "log_once", "tls"]),
    ("answer", &["notification", "metrics", "edge"]),
    ("bus", &["notification", "thread", "backoff", "heartbeat", "wire", "envelope", "metrics", "config"]),
    ("session", &["notification", "escape", "peers", "thread", "lock", "fds", "wire", "envelope", "metrics", "config", "tls", "listener", "log_once", "bus"]),
    ("dispatcher", &["notification", "envelope", "bus", "session"]),
    ("outbox", &["notification", "escape", "thread", "log_once", "backoff", "heartbeat", "timeline", "envelope", "metrics", "config", "bus", "session", "dispatcher"]),
    ("delivery", &["notification", "thread", "lock", "log_once", "heartbeat", "envelope", "trace", "metrics", "answer", "bus", "session", "dispatcher", "outbox"]),
    ("http", &["notification", "peers", "thread", "lock", "fds", "log_once", "heartbeat", "metrics", "request", "verify", "config", "edge", "answer", "session", "delivery"]),
    ("admin", &["notification", "escape", "heartbeat", "peers", "log_once", "timeline", "trace", "metrics", "config", "bus", "session", "outbox", "delivery", "edge"]),
];

/// Files that stand above all modules.
const ABOVE: &[&str] = &["lib", "main", "relay", "cli", "client"];

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

/// Modules whose files are checked too: each file may use others of its module, but never in a circle.
const FILES_WITHOUT_CIRCLES: &[&str] = &["bus", "config", "edge", "http", "session"];

/// The most lines of a file, its unit tests not counted.
const LINES_MAX: usize = 500;

/// What a longer file says in its first lines, followed by the reason.
const REASON: &str = "Over 500 lines because";

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

    /// `src/session/wire.rs` belongs to `session`.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = inside.split('/').next().unwrap_or(inside);
        first.strip_suffix(".rs").unwrap_or(first)
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

#[test]
fn imports_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut offences = Vec::new();
    for source in sources() {
        let module = source.module();
        if ABOVE.contains(&module) {
            continue;
        }
        let Some(may_use) = allowed.get(module) else {
            offences.push(format!(
                "{}: the module {module} has no line in MAY_USE",
                source.path
            ));
            continue;
        };
        let code = source.code_text();
        for used in used_modules(&code) {
            if used != module && !may_use.contains(&used.as_str()) {
                offences.push(format!("{}: {module} uses {used}", source.path));
            }
        }
    }
    none(&offences, "against the direction of the map in src/lib.rs");
}

#[test]
fn the_table_of_imports_has_no_circle_and_no_module_that_is_gone() {
    let modules: BTreeSet<String> = sources()
        .iter()
        .map(|source| source.module().to_owned())
        .collect();
    let mut below = BTreeSet::new();
    for (module, may_use) in MAY_USE {
        assert!(
            modules.contains(*module),
            "{module} is gone; take it out of MAY_USE"
        );
        for used in *may_use {
            assert!(
                below.contains(used),
                "{module} may use {used}, which does not stand above it in MAY_USE"
            );
        }
        below.insert(module);
    }
}

#[test]
fn files_of_a_module_do_not_use_each_other_in_a_circle() {
    let all = sources();
    for module in FILES_WITHOUT_CIRCLES {
        let folder = format!("src/{module}/");
        let mut uses = BTreeMap::new();
        for source in &all {
            let Some(file) = source.path.strip_prefix(&folder) else {
                continue;
            };
            let Some(name) = file.strip_suffix(".rs").filter(|name| !name.contains('/')) else {
                continue; // a folder of a file
            };
            if matches!(name, "mod" | "tests") {
                continue;
            }
            let code = source.code_text();
            let mut used = used_files(&code, &format!("crate::{module}::"));
            used.extend(used_files(&code, "super::"));
            uses.insert(name.to_owned(), used);
        }
        assert!(uses.len() > 1, "{module} has no files");
        // Takes away, again and again, the files that use none of those that are left.
        while !uses.is_empty() {
            let left: BTreeSet<String> = uses.keys().cloned().collect();
            uses.retain(|name, used| used.iter().any(|file| file != name && left.contains(file)));
            assert!(
                uses.len() < left.len(),
                "files of {module} that use each other in a circle, or a circle: {uses:?}"
            );
        }
    }
}

/// The files named by `super::file` or `crate::module::file`; the first word of each path.
fn used_files(code: &str, prefix: &str) -> BTreeSet<String> {
    let found = code.match_indices(prefix);
    found
        .map(|(at, _)| word(&code[at + prefix.len()..]))
        .collect()
}

/// The modules named by `crate::module` and `crate::{module, module::Thing}`.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, char) in group.char_indices() {
            match char {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                _ if begins && !char.is_whitespace() => {
                    modules.insert(word(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    modules
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|char| char.is_alphanumeric() || *char == '_')
        .collect()
}

#[test]
fn the_reader_of_imports_finds_them_all() {
    let code = "use crate::a::X;\nuse crate::{b, c::{Y, d::Z}, e};\nlet x = crate::f::g();\n";
    let modules: Vec<String> = used_modules(code).into_iter().collect();
    assert_eq!(modules, ["a", "b", "c", "e", "f"]);
}

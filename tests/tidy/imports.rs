//! Who may know whom: modules one way, and no circle among the parts of a module.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, none, sources};

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

impl Source {
    /// `src/outbox/store/rows.rs` is `outbox::store::rows`, and `src/outbox/mod.rs` is `outbox`.
    fn module_path(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inside = inside.strip_suffix(".rs").unwrap_or(inside);
        let inside = inside.strip_suffix("/mod").unwrap_or(inside);
        inside.split('/').map(str::to_owned).collect()
    }

    /// What it names of the project, from the top.
    fn imports(&self) -> BTreeSet<Vec<String>> {
        let code = self.code_text();
        let here = self.module_path();
        let mut all = paths_from(&code, "crate::", &[]);
        all.extend(paths_from(&code, "self::", &here));
        all.extend(paths_from(&code, "super::", &here[..here.len() - 1]));
        all.retain(|path| !path.is_empty());
        all
    }

    /// `src/session/wire.rs` belongs to `session`.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = inside.split('/').next().unwrap_or(inside);
        first.strip_suffix(".rs").unwrap_or(first)
    }
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
        let imports = source.imports();
        let used: BTreeSet<&str> = imports.iter().map(|path| path[0].as_str()).collect();
        for used in used {
            if used != module && !may_use.contains(&used) {
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
fn parts_of_a_module_do_not_use_each_other_in_a_circle() {
    let all = sources();
    let folders: BTreeSet<Vec<String>> = all
        .iter()
        .map(Source::module_path)
        .flat_map(|path| (1..path.len()).map(move |depth| path[..depth].to_vec()))
        .collect();
    assert!(folders.len() > 10, "the folders are not found");
    let mut circles = Vec::new();
    for folder in folders {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in &all {
            let path = source.module_path();
            // The folder's own mod.rs puts the parts together.
            let part = path
                .strip_prefix(&folder[..])
                .and_then(|rest| rest.first().cloned());
            if let Some(part) = part.filter(|part| part != "tests") {
                let imports = source.imports();
                let inside = imports.iter().filter_map(|import| {
                    let rest = import.strip_prefix(&folder[..])?;
                    rest.first().filter(|used| **used != part).cloned()
                });
                uses.entry(part.clone()).or_default().extend(inside);
            }
        }
        // Takes away, again and again, the parts that use none of those that are left.
        loop {
            let left: BTreeSet<String> = uses.keys().cloned().collect();
            uses.retain(|_, used| used.iter().any(|part| left.contains(part)));
            if uses.len() == left.len() {
                break;
            }
        }
        if !uses.is_empty() {
            circles.push(format!("src/{}: {uses:?}", folder.join("/")));
        }
    }
    none(
        &circles,
        "files and folders that use each other in a circle, or a circle",
    );
}

/// The paths that begin with `prefix`, which stands for the module `base`: `prefix::{b, c::{Y, d}}` are three.
fn paths_from(code: &str, prefix: &str, base: &[String]) -> BTreeSet<Vec<String>> {
    let mut paths = BTreeSet::new();
    for (at, found) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            add_paths(&code[at + found.len()..], base.to_vec(), &mut paths);
        }
    }
    paths
}

/// Adds what `text` names below `base`, and says what is behind it.
fn add_paths<'a>(
    text: &'a str,
    mut base: Vec<String>,
    paths: &mut BTreeSet<Vec<String>>,
) -> &'a str {
    if let Some(mut group) = text.strip_prefix('{') {
        loop {
            group = group.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            match group.chars().next() {
                None => return group,
                Some('}') => return &group[1..],
                Some(c) if c.is_alphanumeric() || c == '_' || c == '{' => {
                    group = add_paths(group, base.clone(), paths);
                    let next = group.find([',', '}']).unwrap_or(group.len()); // behind `as other`
                    group = &group[next..];
                }
                Some(c) => group = &group[c.len_utf8()..],
            }
        }
    }
    let name = word(text);
    let rest = &text[name.len()..];
    match name.as_str() {
        "super" => drop(base.pop()),
        "self" => {}
        _ => base.push(name),
    }
    match rest.strip_prefix("::") {
        Some(more) => add_paths(more, base, paths),
        None => {
            paths.insert(base);
            rest
        }
    }
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|char| char.is_alphanumeric() || *char == '_')
        .collect()
}

#[test]
fn the_reader_of_imports_finds_them_all() {
    let source = Source {
        path: "src/a/b.rs".into(),
        text: "use crate::a::X;\nuse crate::{b, c::{Y, d::Z}, e as f};\nlet x = crate::g::h();\nuse super::i::J;\n\
               use super::super::k;\nuse self::l::{M, n};\nuse other::crate_::o;\n"
            .into(),
    };
    let imports = source.imports();
    let paths: Vec<String> = imports.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        paths,
        [
            "a::X",
            "a::b::l::M",
            "a::b::l::n",
            "a::i::J",
            "b",
            "c::Y",
            "c::d::Z",
            "e",
            "g::h",
            "k"
        ]
    );
}

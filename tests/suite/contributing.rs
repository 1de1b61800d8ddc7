//! CONTRIBUTING.md as a new developer follows it: the questions are answered where it says, and the examples, added to a copy of the
//! project by its steps, build. What it asks to be documented is documented.
//!
//! A `rust`, `toml` or `md` block whose first line says `FILE, below: LINE` or `FILE, above: LINE` is put there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use payrelay::verify::presets;

use super::readme::{blocks, page};
use crate::support::{Redis, Relay, Setup};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Texts in backticks, in a cell of a table.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_questions_of_a_new_reader_are_answered_where_it_says() {
    let page = page("CONTRIBUTING.md");
    let (_, section) = page.split_once("## Ten questions").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.skip(1).collect();
    assert_eq!(rows.len(), 10, "questions");
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let (files, words) = (quoted(cells[1]), quoted(cells[2]));
        assert_eq!(files.len(), words.len(), "{row}");
        for (file, words) in files.iter().zip(words) {
            let path = project().join(file);
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert!(
                text.contains(words),
                "{file} has no {words:?}; mend the table of questions in CONTRIBUTING.md"
            );
        }
    }
}

/// A copy of what cargo needs, always in the same place, so that its build replaces the last one's.
fn copy_of_the_project() -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contributing");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).expect("a folder");
    for name in ["Cargo.toml", "Cargo.lock", "relay.toml", "README.md"] {
        let text = fs::read_to_string(project().join(name)).expect("a file");
        // Of another version, or cargo takes what it has built of the copy for the project's own.
        let name_of_package = "name = \"payrelay\"\nversion = \"";
        let text = text.replacen(name_of_package, &format!("{name_of_package}9"), 1);
        fs::write(copy.join(name), text).expect("copied");
    }
    for folder in ["src", "doc"] {
        copy_folder(&project().join(folder), &copy.join(folder));
    }
    for folder in ["tests", "clients", "packaging"] {
        symlink(project().join(folder), copy.join(folder)).expect("a link");
    }
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let there = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &there),
            false => drop(fs::copy(&path, &there).expect("copied")),
        }
    }
}

/// Puts `added` into the file that its first line names.
fn insert(copy: &Path, added: &str) -> bool {
    let Some((first, code)) = added.split_once('\n') else {
        return false;
    };
    let place = first.trim_start_matches(['/', '#', '<', '!', '-', ' ']);
    let place = place.trim_end_matches(" -->");
    let (file, line, is_below) =
        match (place.split_once(", below: "), place.split_once(", above: ")) {
            (Some((file, line)), _) => (file, line, true),
            (None, Some((file, line))) => (file, line, false),
            (None, None) => return false,
        };
    let path = copy.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut lines: Vec<&str> = text.lines().collect();
    let is_there = |text: &&str| text.trim() == line;
    let at = lines.iter().position(is_there);
    let at = at.unwrap_or_else(|| panic!("{file} has no line {line:?}; mend CONTRIBUTING.md"));
    lines.insert(at + usize::from(is_below), code.trim_end_matches('\n'));
    fs::write(path, lines.join("\n") + "\n").expect("written");
    true
}

#[test]
fn what_is_added_by_its_steps_builds_and_passes_the_checks_of_relay_toml() {
    let copy = copy_of_the_project();
    let page = page("CONTRIBUTING.md");
    let added = blocks(&page)
        .into_iter()
        .filter(|block| insert(&copy, &block.text));
    assert_eq!(
        added.count(),
        5,
        "two for a key, one for a verb, two for a provider"
    );
    // The dependencies are those that this test was built with.
    let target = Path::new(env!("CARGO_BIN_EXE_payrelay"));
    let target = target.ancestors().nth(2).expect("the target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", target)
        .args(["test", "--locked", "--offline", "--quiet", "--lib", "--"])
        .args(["config::tests::shipped", "verify::tests", "session::tests"]);
    let output = cargo.output().expect("cargo");
    let (out, err) = (&output.stdout, &output.stderr);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    );
}

#[test]
fn every_preset_is_in_relay_toml_and_has_its_words_in_the_document() {
    let (toml, document) = (page("relay.toml"), page("doc/providers.md"));
    for preset in presets::all() {
        let name = preset.name;
        assert!(toml.contains(&format!("\"{name}\"")), "relay.toml: {name}");
        let is_there = document.contains(&format!("`{name}`"))
            || document.contains(&format!("## {name}"))
            || document.contains(&format!("\"{name}\""));
        assert!(is_there, "doc/providers.md: {name}");
    }
}

#[test]
fn every_metric_is_in_the_tables_for_operators() {
    let redis = Redis::start();
    let setup = format!(
        "[delivery]\nundelivered = \"store\"\n[redis]\nurl = \"{}\"\n",
        redis.url()
    );
    let relay: Relay = Setup::with(&setup).start();
    let metrics = relay.admin("/metrics").text();
    let served = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let served: Vec<&str> = served.filter_map(|line| line.split(' ').next()).collect();
    assert!(served.len() > 40, "{served:?}");
    for name in ["doc/operating.md", "doc/operating.zh-CN.md"] {
        let document = page(name);
        let is_there = |metric: &&str| {
            metric.starts_with("process_")
                || document.contains(&format!("`{metric}`"))
                || document.contains(&format!("`{metric}{{"))
        };
        let missing: Vec<_> = served.iter().filter(|metric| !is_there(metric)).collect();
        assert!(missing.is_empty(), "{name} has no row for {missing:?}");
    }
    // A family that has counted nothing yet is not served, but it is registered.
    let mut registered = page("src/metrics.rs");
    for file in fs::read_dir(project().join("src/metrics")).expect("a folder") {
        registered += &fs::read_to_string(file.expect("a file").path()).unwrap_or_default();
    }
    for word in page("doc/operating.md").split('`') {
        let name = word.split('{').next().unwrap_or(word);
        let name = name.strip_suffix("_total").unwrap_or(name);
        let is_metric =
            name.starts_with("payrelay_") && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let is_there = registered.contains(&format!("\"{name}\""));
        assert!(
            !is_metric || is_there,
            "doc/operating.md: {name} is no metric"
        );
    }
}

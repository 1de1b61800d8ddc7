//! The README is short, its links lead somewhere, and both languages say the same.

use crate::readme::{blocks, page};
use std::fs;
use std::path::Path;

/// The most words of README.md, code and tables included.
const WORDS_MAX: usize = 1300;

#[test]
fn the_readme_is_short() {
    let words = page("README.md").split_whitespace().count();
    assert!(words <= WORDS_MAX, "{words} words, at most {WORDS_MAX}");
}

/// Code without its comments, and without the folder for it.
fn code(page: &str) -> Vec<String> {
    let line = |line: &str| {
        let code = ["  # ", "  -- "]
            .iter()
            .fold(line, |line, mark| line.split(mark).next().unwrap_or(line));
        code.trim_end().to_owned()
    };
    let runs = blocks(page)
        .into_iter()
        .filter(|block| !block.language.is_empty());
    runs.flat_map(|block| {
        let lines: Vec<String> = block.text.lines().map(line).collect();
        lines
    })
    .collect()
}

#[test]
fn both_languages_have_the_same_commands_and_sections() {
    let (english, chinese) = (page("README.md"), page("README.zh-CN.md"));
    assert_eq!(code(&english), code(&chinese));
    let sections = |page: &str| page.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(sections(&english), sections(&chinese));
    let rows = |page: &str| page.lines().filter(|line| line.starts_with('|')).count();
    assert_eq!(rows(&english), rows(&chinese), "rows of tables");
    let items = |page: &str| {
        page.lines()
            .filter(|line| line.starts_with("- [ ] "))
            .count()
    };
    assert_eq!(items(&english), items(&chinese), "items of lists");
}

/// The pages for users, whose links are looked at.
const LINKED: &[&str] = &[
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
];

/// A heading as GitHub makes an anchor of it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'))
        .map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = fs::read_dir(project.join("doc")).expect("doc");
    let documents = documents.map(|entry| entry.expect("doc").file_name());
    let documents = documents.map(|name| format!("doc/{}", name.to_string_lossy()));
    let documents = documents.filter(|name| name.ends_with(".md"));
    let mut broken = Vec::new();
    for name in LINKED
        .iter()
        .map(|name| (*name).to_owned())
        .chain(documents)
    {
        let text = page(&name);
        let folder = Path::new(&name).parent().expect("a folder");
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            if target.contains("://") || target.is_empty() {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => project.join(&name),
                _ => project.join(folder).join(file),
            };
            let anchored = || {
                let page = fs::read_to_string(&path).unwrap_or_default();
                page.contains(&format!("<a id=\"{heading}\">"))
                    || page
                        .lines()
                        .filter(|line| line.starts_with('#'))
                        .any(|line| anchor(line.trim_start_matches('#')) == heading)
            };
            if !path.exists() || (!heading.is_empty() && !anchored()) {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

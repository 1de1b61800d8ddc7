//! What comes of the command line for shells, for `man`, and for packages.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::run;

#[test]
fn every_command_has_a_manual_page_that_man_can_show() {
    let dir = TempDir::new().expect("a folder");
    let (code, _, said) = run(&["man", dir.path().to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{said}");
    for name in [
        "payrelay",
        "payrelay-run",
        "payrelay-send",
        "payrelay-outbox-list",
    ] {
        let text = fs::read_to_string(dir.path().join(format!("{name}.1"))).expect(name);
        assert!(text.contains(&format!(".TH {name} 1")), "{text}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(text.contains(section), "{name} has no {section}");
        }
    }
    let send = fs::read_to_string(dir.path().join("payrelay-send.1")).expect("the page");
    assert!(
        send.contains("payrelay send game\\-01"),
        "no example: {send}"
    );
    let (code, _, said) = run(&["man", "/no/such/folder"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/no/such/folder"), "{said}");
}

#[test]
fn completions_are_scripts_that_the_shell_understands() {
    let (code, script, _) = run(&["completions", "bash"]);
    assert_eq!(code, Some(0));
    let mut bash = Command::new("bash")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    // As bash does when a person types `payrelay outbox li` and Tab.
    let ask = "\nCOMP_WORDS=(payrelay outbox li); COMP_CWORD=2; COMPREPLY=()\n\
               _payrelay payrelay li outbox; echo \"${COMPREPLY[@]}\"\n";
    let mut stdin = bash.stdin.take().expect("piped");
    stdin.write_all((script + ask).as_bytes()).expect("written");
    drop(stdin);
    let output = bash.wait_with_output().expect("bash ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "list");
    for shell in ["zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert!(code == Some(0) && script.contains("outbox"), "{shell}");
    }
}

/// The packages name files of this project; one that was moved is found here, not at the next release.
#[test]
fn every_file_of_the_packages_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let metadata = &manifest["package"]["metadata"];
    let of_deb = metadata["deb"]["assets"].as_array().expect("a list");
    let of_rpm = metadata["generate-rpm"]["assets"]
        .as_array()
        .expect("a list");
    let sources = of_deb
        .iter()
        .map(|asset| &asset[0])
        .chain(of_rpm.iter().map(|asset| &asset["source"]));
    for source in sources.map(|source| source.as_str().expect("a path")) {
        // What .ci/release makes.
        if source.starts_with("target/dist/") {
            continue;
        }
        let before_pattern = source.split('*').next().unwrap_or_default();
        let there = match source.contains('*') {
            true => root
                .join(before_pattern)
                .parent()
                .is_some_and(|folder| folder.is_dir()),
            false => root.join(source).is_file(),
        };
        assert!(there, "{source}");
    }
    for script in [
        "pre_install",
        "post_install",
        "pre_uninstall",
        "post_uninstall",
    ] {
        let path = metadata["generate-rpm"][format!("{script}_script")].as_str();
        let path = root.join(path.expect("a path"));
        let checked = Command::new("sh")
            .arg("-n")
            .arg(&path)
            .status()
            .expect("sh");
        assert!(checked.success(), "{}", path.display());
    }
    for script in fs::read_dir(root.join("packaging/debian")).expect("a folder") {
        let path = script.expect("a script").path();
        let checked = Command::new("sh")
            .arg("-n")
            .arg(&path)
            .status()
            .expect("sh");
        assert!(checked.success(), "{}", path.display());
    }
}

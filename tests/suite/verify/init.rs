//! `payrelay init`: for every provider a configuration that is refused until it is filled in, and then takes what that provider
//! signs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Callback, fresh};
use crate::support::{Setup, binary, run};

/// One callback of each preset.
fn one_of_each() -> Vec<Callback> {
    let mut seen = BTreeSet::new();
    let all = fresh::all(fresh::now()).into_iter();
    all.filter(|callback| seen.insert(callback.preset))
        .collect()
}

/// Puts the keys of `callback` in the place of what init wrote for its route.
fn fill(text: &str, callbacks: &[Callback]) -> String {
    let mut filled = String::new();
    let mut keys: Vec<&str> = Vec::new();
    for line in text.lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        if keys.contains(&key) {
            continue;
        }
        filled.push_str(line);
        filled.push('\n');
        if let Some(preset) = line.strip_prefix("verify = \"") {
            let preset = preset.trim_end_matches('"');
            let callback = callbacks.iter().find(|callback| callback.preset == preset);
            let callback = callback.expect("a callback of this preset");
            filled.push_str(&callback.keys);
            keys = callback
                .keys
                .lines()
                .filter_map(|line| line.split(" = ").next())
                .collect();
        }
    }
    filled
}

#[test]
fn for_every_provider_it_writes_what_check_takes_once_it_is_filled_in() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("relay.toml");
    let file_name = file.to_str().expect("UTF-8");
    let callbacks = one_of_each();
    let mut args = vec!["init", "-c", file_name, "--backend", "till-7"];
    for callback in &callbacks {
        args.extend(["--provider", callback.preset]);
    }
    let (code, told, said) = run(&args);
    assert_eq!((code, &*said), (Some(0), ""), "{told}");
    let mode = fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let text = fs::read_to_string(&file).expect("the file");

    // Every mark is told with its line, and check refuses each.
    let (code, _, refused) = run(&["check", "-c", file_name]);
    assert_eq!(code, Some(78));
    for (n, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("FILL IN"))
    {
        let place = format!("{file_name}:{}:", n + 1);
        assert!(told.contains(&format!("{place} {line}")), "{told}");
        assert!(refused.contains(&place), "{line} is not refused: {refused}");
    }
    assert!(
        refused
            .lines()
            .all(|line| line.contains("is not filled in yet") || line.contains("serial")),
        "{refused}"
    );

    let filled = fill(&text, &callbacks);
    assert!(!filled.contains("FILL IN"), "{filled}");
    fs::write(&file, &filled).expect("the file");
    let (code, _, refused) = run(&["check", "-c", file_name]);
    assert_eq!(code, Some(0), "{refused}");

    // The token of the page is that of the file.
    let page = told
        .split("http://127.0.0.1:9100/ asks for this token: ")
        .nth(1);
    let page = page.and_then(|rest| rest.lines().next()).expect("a token");
    assert!(text.contains(&format!(
        "[admin]\nlisten = \"127.0.0.1:9100\"\ntoken = \"{page}\""
    )));

    // The token that was told is the backend's, and each provider's callback reaches it.
    let token = told
        .split("token = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let token = token.expect("a token");
    let (_, printed, _) = run(&["token", "till-7", "-c", file_name]);
    assert_eq!(token, printed);
    let mut any_port = filled;
    for port in [":8080", ":7000", ":9100"] {
        any_port = any_port.replace(port, ":0");
    }
    // Of the admin token only the tests' own requests would have to know.
    let any_port: String = any_port
        .split("\n[admin]")
        .enumerate()
        .map(|(n, part)| match (n, part.split_once("\n\n")) {
            (0, _) => format!("{part}\n"),
            (_, Some((_, rest))) => format!("\n{rest}"),
            (_, None) => String::new(),
        })
        .collect();
    let relay = Setup::with(&any_port).start();
    let mut till = relay.backend_with("till-7", &format!("token={token}"));
    for callback in &callbacks {
        assert!(
            told.contains(&format!("/{}/till-7\n", callback.preset)),
            "{told}"
        );
        let send = format!(
            "payrelay send till-7 --sign {} -c {file_name}",
            callback.preset
        );
        assert!(told.contains(&send), "{told}");
        let headers: Vec<(&str, &str)> = callback
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let path = format!("/{}/till-7{}", callback.preset, callback.query);
        let answer = relay.post_with(&path, &headers, &callback.body);
        let pattern = format!("MSG id=* route={0} verified={0} =*", callback.preset);
        till.expect(&pattern, &callback.body).ack();
        assert_eq!(answer.answer().outcome(), "delivered", "{}", callback.name);
    }
}

#[test]
fn it_overwrites_nothing_and_says_what_it_needs() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("relay.toml");
    let file_name = file.to_str().expect("UTF-8");
    fs::write(&file, "# mine\n").expect("a file");
    let (code, _, said) = run(&["init", "--provider", "stripe", "-c", file_name]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("is there already and is not overwritten"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&file).expect("the file"), "# mine\n");

    let (code, _, said) = run(&["init", "-c", "/nowhere/relay.toml"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("name at least one --provider"), "{said}");
    let (code, _, said) = run(&["init", "--provider", "wxpay"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("wechatpay-v3"), "{said}");
    let (code, _, said) = run(&["init", "--provider", "支付宝"]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("no provider is called \"支付宝\"; did you mean \"alipay\"?"),
        "{said}"
    );
}

#[test]
fn in_a_terminal_it_asks() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("relay.toml");
    // `script` gives it a terminal.
    let command = format!(
        "{} init -c {}",
        binary().get_program().display(),
        file.display()
    );
    let mut script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script");
    let mut stdin = script.stdin.take().expect("piped");
    stdin
        .write_all("wxpay\n回调\ngithub，stripe\ncash-1\nhttps://pay.example.com\nmaybe\ny\nredis://10.0.0.5:6379\n".as_bytes())
        .expect("written");
    let output = script.wait_with_output().expect("script ends");
    drop(stdin);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains("did you mean \"wechatpay-v3\"")
            && shown.contains("no provider is called \"回调\"; known are")
            && shown.contains("y or n"),
        "{shown}"
    );
    assert!(
        shown.contains("https://pay.example.com/github/cash-1"),
        "{shown}"
    );
    let text = fs::read_to_string(&file).expect("the file");
    for line in [
        "listen = \"0.0.0.0:8080\"",
        "listen = \"0.0.0.0:7000\"",
        "url = \"redis://10.0.0.5:6379\"",
        "verify = \"github\"",
        "verify = \"stripe\"",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

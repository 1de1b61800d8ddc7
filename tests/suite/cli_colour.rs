//! Colour and progress: in a terminal, and nowhere else.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::outbox::{config, stored};
use crate::support::{Relay, Terminal, binary};

const ROUTE: &str =
    "delivery.ack_deadline = \"10s\"\n[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[1m\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// What `payrelay ARGS` shows in a terminal of the kind `term`, with these variables.
fn in_terminal(dir: &Path, args: &str, term: &str, variables: &[(&str, &str)]) -> String {
    let run = format!("{} {args}", binary().get_program().display());
    let terminal = Terminal::start(&run, |script| {
        script.current_dir(dir);
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
            script.env_remove(name);
        }
        script.env("TERM", term).envs(variables.iter().copied());
    });
    terminal.end().1
}

/// The same in pipes: standard output and standard error.
fn in_pipes(dir: &Path, args: &str) -> String {
    let mut command = binary();
    command.args(args.split(' ')).current_dir(dir);
    command.env("TERM", "xterm-256color");
    let said = command.output().expect("payrelay runs");
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

/// Colour in a terminal as `wanted`; nothing but text in pipes, in a terminal without colours, and if the user wants none.
fn coloured(dir: &Path, args: &str, wanted: &[String]) {
    let shown = in_terminal(dir, args, "xterm-256color", &[]);
    for words in wanted {
        assert!(shown.contains(words), "{args}: no {words:?} in {shown:?}");
    }
    for shown in [
        in_terminal(dir, args, "xterm-256color", &[("NO_COLOR", "1")]),
        in_terminal(dir, args, "dumb", &[]),
        in_pipes(dir, args),
    ] {
        assert!(!shown.contains("\x1b["), "{args}: {shown:?}");
        assert!(!shown.is_empty(), "{args}");
    }
}

#[test]
fn check_is_coloured_in_a_terminal_and_nowhere_else() {
    let dir = TempDir::new().expect("a folder");
    fs::write(dir.path().join("relay.toml"), ROUTE).expect("relay.toml");
    let wanted = [
        format!("relay.toml: {GREEN}ok{PLAIN}"),
        format!("\x1b[1mroute /notify/{{id}}{PLAIN}: nothing is checked"),
        format!("{YELLOW}warning{PLAIN}: relay.toml:"),
    ];
    coloured(dir.path(), "check", &wanted);
    let wrong = format!("http.workers = -1\n{ROUTE}");
    fs::write(dir.path().join("relay.toml"), wrong).expect("relay.toml");
    let wanted = [format!("{RED}relay.toml:1:16{PLAIN}: http.workers = -1")];
    coloured(dir.path(), "check", &wanted);
    fs::remove_file(dir.path().join("relay.toml")).expect("it was there");
    coloured(
        dir.path(),
        "check -c none.toml",
        &[format!("{RED}none.toml{PLAIN}: ")],
    );
}

#[test]
fn the_outbox_is_coloured_in_a_terminal_and_its_orders_say_how_far_they_are() {
    let relay = Relay::with(&config("", ""));
    let id = stored(&relay, "/event/till-7", b"{\"n\": \"order-1\"}");
    let dir = TempDir::new().expect("a folder");
    let admin = relay.ready().admin;
    let list = format!("outbox list --connect {admin}");
    let wanted = [format!("{YELLOW}pending {PLAIN}"), "\x1b[1mID ".to_owned()];
    coloured(dir.path(), &list, &wanted);
    let json = in_terminal(dir.path(), &format!("{list} --json"), "xterm", &[]);
    assert!(json.contains(&id) && !json.contains('\x1b'), "{json:?}");

    let retry = format!("outbox retry {id} --connect {admin}");
    let shown = in_terminal(dir.path(), &retry, "xterm", &[]);
    for words in [
        "\r\x1b[K1 retried so far\r\x1b[K",
        &format!("{GREEN}1 retried{PLAIN}"),
    ] {
        assert!(shown.contains(words), "{words:?} in {shown:?}");
    }
    let shown = in_pipes(dir.path(), &retry);
    assert_eq!(shown, "1 retried\n");
}

#[test]
fn what_saves_and_brings_back_the_outbox_says_how_far_it_is() {
    let relay = Relay::with(&config("", ""));
    stored(&relay, "/event/till-7", b"{\"n\": \"order-1\"}");
    let dir = TempDir::new().expect("a folder");
    let admin = relay.ready().admin;
    for (args, wanted) in [
        ("export all.jsonl", "\r\x1b[K1 exported so far\r\x1b[K"),
        ("import all.jsonl", "\r\x1b[K0 imported so far\r\x1b[K"),
        ("backup copy.db", "\r\x1b[K1 saved so far\r\x1b[K"),
    ] {
        let args = format!("outbox {args} --connect {admin}");
        let shown = in_terminal(dir.path(), &args, "xterm", &[]);
        assert!(shown.contains(wanted), "{args}: no {wanted:?} in {shown:?}");
    }
    for (args, wanted) in [
        ("export again.jsonl", "payrelay: exported 1 notifications: "),
        ("import again.jsonl", "0 imported, 1 were there already\n"),
        ("backup again.db", "saved 1 notifications: "),
    ] {
        let shown = in_pipes(dir.path(), &format!("outbox {args} --connect {admin}"));
        assert!(shown.starts_with(wanted), "{args}: {shown:?}");
    }
    // The lines themselves go to the terminal, and nothing comes between them.
    let export = format!("outbox export --connect {admin}");
    let shown = in_terminal(dir.path(), &export, "xterm", &[]);
    assert!(
        shown.starts_with("{\"format\":") && !shown.contains('\x1b'),
        "{shown:?}"
    );
}

#[test]
fn bench_is_coloured_in_a_terminal_and_says_how_far_it_is() {
    let relay = Relay::start();
    let dir = TempDir::new().expect("a folder");
    let (http, tcp) = (relay.ready().http, relay.ready().tcp);
    let bench = format!(
        "bench --http {http} --tcp {tcp} --path /notify/{{id}} --backends 2 --rate 20 --duration 2s"
    );
    let shown = in_terminal(
        dir.path(),
        &bench.replace('{', "'{").replace('}', "}'"),
        "xterm",
        &[],
    );
    for words in [
        &format!("  {GREEN}delivered{PLAIN}"),
        "\x1b[1mms  ",
        " on their way\r\x1b[K",
    ] {
        assert!(shown.contains(words), "{words:?} in {shown:?}");
    }
    let shown = in_pipes(dir.path(), &bench);
    assert!(
        shown.contains("  delivered\n") && !shown.contains('\x1b'),
        "{shown:?}"
    );
}

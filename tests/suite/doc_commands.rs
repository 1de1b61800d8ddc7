//! The commands in the documents beside README.md: each is run here as it stands, or by the test that is named below, or says below why
//! no test runs it. And what the text says of payrelay's own commands has options that exist.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::providers_doc;
use super::readme::{Network, Reader, blocks, page};
use crate::support::{DEADLINE, Process, eventually, run};

/// The documents whose commands the tests of README.md and README.zh-CN.md do not run.
fn documents() -> Vec<String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = fs::read_dir(project.join("doc")).expect("doc");
    let names = folder.map(|file| file.expect("a file").file_name());
    let names = names.map(|name| format!("doc/{}", name.to_string_lossy()));
    let mut all: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    for name in [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "clients/lua/README.md",
    ] {
        all.push(name.to_owned());
    }
    all.sort();
    all
}

const CI: &str = ".ci/run runs it, as do those who change payrelay: it builds, or it is this suite";
const DEBIAN: &str = "packaging/try-deb installs, upgrades and removes the package in a fresh Debian; .ci/release --try runs it";
const BY_HAND: &str = "changes the machine it runs on; the package does the same, see packaging/debian and packaging/try-deb";
const SYSTEMD: &str = "needs systemd as the first process; systemd:: runs what the units say";

/// Commands that are not run here: how they begin, and who runs them, or why nobody does.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cargo ", CI),
    ("tests/run", CI),
    (".ci/run", CI),
    ("tests/fuzz/run ", CI),
    ("tests/sdk/run", "needs npm, PyPI and a quarter of an hour"),
    (
        "tests/mutants ",
        "builds for hours; .ci/run runs tests/mutants --check",
    ),
    ("lua5.1 tests/lua/", CI),
    ("lua5.4 tests/lua/", CI),
    ("apt install ./payrelay_", DEBIAN),
    ("install -", BY_HAND),
    ("useradd ", BY_HAND),
    ("systemctl ", SYSTEMD),
    (
        "payrelay init",
        "verify::init_all runs it for every preset; cli_operator as a dialogue",
    ),
    ("payrelay bench ", "cli_bench runs it"),
    (
        "payrelay outbox hand-over",
        "outbox_hand_over runs it: it needs nodes with outbox.shared",
    ),
];

/// The commands of a document, without comments: lines of `sh` blocks, and those of `console` blocks behind a `$`.
fn commands(document: &str) -> Vec<String> {
    let mut all = Vec::new();
    for block in blocks(document) {
        let text = block.text.replace("\\\n", " ");
        let lines = text
            .lines()
            .filter_map(|line| match block.language.as_str() {
                "sh" => Some(line),
                "console" => line.strip_prefix("$ "),
                _ => None,
            });
        for line in lines {
            let command = line.split("  #").next().unwrap_or(line).trim();
            if !command.is_empty() {
                all.push(command.to_owned());
            }
        }
    }
    all
}

/// Somebody who follows the documents in a folder with the project's relay.toml; remembers every command.
struct Follower {
    reader: Reader,
    done: Vec<String>,
}

impl Follower {
    /// Runs a command of the documents to its end, with what stands for a name in it replaced.
    fn runs(&mut self, command: &str, replaced: &[(&str, &str)]) -> String {
        self.done.push(command.to_owned());
        let mut script = command.to_owned();
        for (name, value) in replaced {
            assert!(script.contains(name), "{name} in {command}");
            script = script.replace(name, value);
        }
        self.also(&script)
    }

    /// Runs what no document says.
    fn also(&self, script: &str) -> String {
        let mut process = Process::start(script, self.reader.command(script));
        let code = process.wait_exit(DEADLINE);
        let said = [process.stdout(), process.stderr()].join("\n");
        assert_eq!(code, Some(0), "{script}\n{said}");
        said
    }

    /// One that runs on.
    fn starts(&self, script: &str, until: &str) -> Process {
        let process = Process::start(script, self.reader.command(&format!("exec {script}")));
        process.wait_line(0, |line| line.contains(until));
        process
    }

    /// The id of a notification that the relay stores now.
    fn stored(&self, body: &str) -> String {
        let sent = self.also(&format!("payrelay send game-01 --body '{body}'"));
        assert!(sent.contains("outcome  stored"), "{sent}");
        let id = sent.lines().find_map(|line| line.strip_prefix("id "));
        id.expect("it has an id").trim().to_owned()
    }

    fn outbox(&mut self) {
        let toml = "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\nevent = \"json:/id\"\n";
        self.reader.write_file("relay.toml", toml);
        let mut relay = self.starts("payrelay", "ready ");
        let event = "{\"id\":\"evt_1PqXyz\"}";
        let id = self.stored(event);
        self.runs("payrelay outbox list --state dead", &[]);
        self.runs("payrelay outbox show ID --body", &[("ID", &id)]);
        self.runs("payrelay trace ID", &[("ID", &id)]);
        self.runs("payrelay outbox forget EVENT", &[("EVENT", "evt_1PqXyz")]);
        self.runs("payrelay outbox retry ID", &[("ID", &id)]);
        let folder = [("/var/tmp/", "./")];
        let saved = self.runs("payrelay outbox rescue /var/tmp/saved.db", &folder);
        assert!(
            saved.starts_with("saved 1 notifications: 1 pending"),
            "{saved}"
        );
        self.runs("payrelay outbox backup copy.db", &[]);
        self.runs("payrelay outbox export all.jsonl", &[]);
        self.runs("payrelay outbox drop ID", &[("ID", &format!("{id} --yes"))]);
        let here = [("other:9100", "127.0.0.1:9100")];
        let imported = self.runs("payrelay outbox import all.jsonl --admin other:9100", &here);
        assert!(
            imported.starts_with("1 imported, 0 were there"),
            "{imported}"
        );
        self.stored(event);
        let forgotten = self.runs("payrelay outbox forget evt_1PqXyz", &[]);
        assert_eq!(forgotten.trim_end(), "1 forgotten");
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait_exit(DEADLINE), Some(0), "{}", relay.stderr());
    }

    /// What doc/providers.md begins with: a callback signed with a test key.
    fn test_key(&mut self) {
        self.runs("payrelay keys test --out test-key.pem", &[]);
        let toml = "[[route]]\nname = \"alipay\"\npath = \"/alipay/{id}\"\nverify = \"alipay\"\nkeys = [\"file:test-key.pem\"]\nallow_test = true\n";
        self.reader.write_file("relay.toml", toml);
        let _relay = self.starts("payrelay", "ready ");
        let sent = self.runs("payrelay send game-01 --sign alipay", &[]);
        assert!(sent.contains("outcome  stored"), "{sent}");
    }

    /// Two nodes and a Redis, as doc/cluster.md has them.
    fn cluster(&mut self) {
        let shipped = page("relay.toml");
        self.reader.write_file("relay.toml", &shipped);
        let redis = "redis-server --save \"\" --daemonize yes";
        self.done.push(redis.to_owned());
        let _redis = self.starts(&redis.replace(" --daemonize yes", ""), "Ready to accept");
        for command in commands(&page("doc/cluster.md")) {
            if command.starts_with("sed ") {
                self.runs(&command, &[]);
            }
        }
        let both = "payrelay -c a.toml & payrelay -c b.toml &";
        self.done.push(both.to_owned());
        let nodes =
            ["a", "b"].map(|name| self.starts(&format!("payrelay -c {name}.toml"), "ready "));
        let _backend = self.starts("payrelay listen game-01 -c b.toml 2>&1", "connected to");
        let mut said = String::new();
        eventually("both nodes are known, and the backend", || {
            // It fails while a node does not answer in time.
            said = self.also("payrelay status -c a.toml || true");
            said.contains("1 backend on 2 nodes")
        });
        self.done.push("payrelay status -c a.toml".to_owned());
        let sent = self.also("payrelay send game-01 --body hello -c a.toml");
        assert!(sent.contains("outcome  delivered"), "{sent}");
        drop(nodes);
    }
}

#[test]
fn every_command_of_the_documents_is_run_or_says_why_not() {
    let Some(network) = Network::new() else {
        return;
    };
    let mut follower = Follower {
        reader: Reader::new(network),
        done: Vec::new(),
    };
    follower.outbox();
    follower.cluster();
    follower.test_key();
    let mut done = follower.done;
    done.extend(providers_doc::commands());

    let mut unused: Vec<&str> = ELSEWHERE.iter().map(|(begins, _)| *begins).collect();
    let mut never = Vec::new();
    for name in documents() {
        for command in commands(&page(&name)) {
            let elsewhere = ELSEWHERE
                .iter()
                .find(|(begins, _)| command.starts_with(begins));
            if let Some((begins, _)) = elsewhere {
                unused.retain(|other| other != begins);
                let program = command.split(' ').next().unwrap_or_default();
                let is_own = program.starts_with("tests/") || program.starts_with(".ci/");
                let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(program).exists();
                assert!(there || !is_own, "{name}: there is no {program}");
            } else if !done.contains(&command) {
                never.push(format!("{name}: {command}"));
            }
        }
    }
    assert!(
        never.is_empty(),
        "no test runs them, and {} does not say why: {never:#?}",
        file!()
    );
    assert!(unused.is_empty(), "in no document any more: {unused:?}");
}

/// The code in the text, and the commands.
fn code(document: &str) -> Vec<String> {
    let mut all = commands(document);
    let mut text = String::new();
    let mut is_text = true;
    for line in document.lines() {
        match line.starts_with("```") {
            true => is_text = !is_text,
            false if is_text => text += &format!("{line}\n"),
            false => {}
        }
    }
    let spans = text.split('`').skip(1).step_by(2);
    all.extend(spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")));
    all
}

#[test]
fn what_the_documents_say_of_commands_and_options_exists() {
    let mut help: HashMap<String, String> = HashMap::new();
    let mut count = 0;
    let readmes = ["README.md", "README.zh-CN.md"].map(str::to_owned);
    for name in documents().into_iter().chain(readmes) {
        for code in code(&page(&name)) {
            // What stands behind it in a pipe or a list is another program.
            let Some((_, rest)) = format!(" {code}")
                .split_once(" payrelay ")
                .map(|(before, rest)| (before.to_owned(), rest.to_owned()))
            else {
                continue;
            };
            let mut words = rest
                .split(' ')
                .take_while(|word| !["|", "&&", "&", ">", ";"].contains(word))
                .peekable();
            let mut command: Vec<&str> = Vec::new();
            while let Some(word) = words.peek()
                && command.len() < 2
                && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                && !word.starts_with('-')
                && (command.is_empty() || matches!(command[0], "outbox" | "keys"))
            {
                command.extend(words.next());
            }
            let text = help.entry(command.join(" ")).or_insert_with(|| {
                let args = [command.as_slice(), &["--help"]].concat();
                let (code, said, words) = run(&args);
                assert_eq!(code, Some(0), "{name}: payrelay {rest}: {words}");
                said
            });
            for option in words.filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap_or(option);
                assert!(
                    text.contains(option),
                    "{name}: payrelay {rest}: there is no {option}"
                );
                count += 1;
            }
        }
    }
    assert!(help.len() > 15 && count > 100, "{} {count}", help.len());
}

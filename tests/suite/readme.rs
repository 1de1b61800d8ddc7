//! README.md and README.zh-CN.md as a new user follows them: every file is written, every command is run, in order, in an empty folder
//! beside the project, and what they print is what the page says. The ports are those of the page, in a network of the test's own.
//!
//! How the pages are written: a `toml` or `lua` block whose first line is a comment with a file's name is that file. A line of a
//! `console` block that begins with `$ ` is a command, and the others are what it prints. An `sh` block is run as one script; a `text`
//! block behind it is what it prints. `…` stands for what differs from run to run; a line with `…` alone, for any number of lines.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{DEADLINE, Process};

/// It builds for minutes, and what it installs is what the test runs.
const INSTALL: &str = "cargo install --path . --locked";

/// A page of the project.
pub fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A fenced block of a page.
pub struct Block {
    /// The number of its first line.
    line: usize,
    pub language: String,
    pub text: String,
}

/// The fenced blocks of a page.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => {
                open = Some(Block {
                    line: n + 2,
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                let text = block.text + line + "\n";
                open = Some(Block { text, ..block });
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    blocks
}

/// A network with nothing in it but its loopback, for as long as this lives.
pub struct Network(Process);

impl Network {
    /// `None`, loudly, where one may not be made.
    pub fn new() -> Option<Self> {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let up =
            "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && echo up && exec tail -f /dev/null";
        command.args(["--net", "sh", "-c", up]);
        let mut holder = Process::start("a network", command);
        let is_up = |holder: &Process| holder.stdout().contains("up");
        while holder.is_running() && !is_up(&holder) {
            crate::support::pause();
        }
        if is_up(&holder) {
            return Some(Self(holder));
        }
        eprintln!(
            "NOT TESTED: no network of its own here: {}",
            holder.stderr()
        );
        None
    }

    /// `script`, to be run there by bash.
    fn bash(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.pid().to_string(), "--net"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["bash", "-euo", "pipefail", "-c", script]);
        command
    }
}

/// A command that runs on while the reader goes on, with what it is to print.
struct Running {
    name: String,
    process: Process,
    expected: Vec<String>,
    /// How many lines of both have been compared.
    seen: usize,
    /// It ends by itself.
    ends: bool,
}

/// Somebody who does what the page says.
pub struct Reader {
    network: Network,
    dir: TempDir,
    running: Vec<Running>,
    /// The lines that the last script has printed.
    printed: Vec<String>,
}

impl Reader {
    pub fn new(network: Network) -> Self {
        let dir = TempDir::with_prefix("payrelay-readme-").expect("a folder");
        let inside = |name: &str| dir.path().join(name);
        symlink(env!("CARGO_MANIFEST_DIR"), inside("payrelay")).expect("a link to the project");
        fs::create_dir(inside("bin")).expect("a folder");
        symlink(env!("CARGO_BIN_EXE_payrelay"), inside("bin/payrelay")).expect("a link");
        fs::create_dir(inside("try")).expect("an empty folder");
        Self {
            network,
            dir,
            running: Vec::new(),
            printed: Vec::new(),
        }
    }

    /// Writes a file into the folder in which the reader works.
    pub fn write_file(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("try").join(name), text).expect("written");
    }

    /// `script`, to be run in that folder.
    pub fn command(&self, script: &str) -> Command {
        let mut command = self.network.bash(script);
        let bin = self.dir.path().join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(self.dir.path().join("try"))
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("TMPDIR", self.dir.path())
            .env_remove("PAYRELAY_TOKEN");
        command
    }

    fn follow(&mut self, name: &str, block: &Block) {
        eprintln!("{name}:{}: {}", block.line, block.language);
        match block.language.as_str() {
            "toml" | "lua" => self.write(block),
            "sh" => self.run(&block.text),
            "text" => {
                let expected: Vec<String> = block.text.lines().map(str::to_owned).collect();
                compare(&expected, &self.printed);
            }
            "console" => self.type_in(block),
            "" => {}
            other => panic!("{name}:{}: what is a block of {other:?}?", block.line),
        }
    }

    fn write(&self, block: &Block) {
        let first = block.text.lines().next().unwrap_or_default();
        let file = first.trim_start_matches(['#', '-']).trim();
        if file == "relay.toml" || file.ends_with(".lua") {
            self.write_file(file, &block.text);
        } else {
            self.check_fragment(&block.text);
        }
    }

    /// A part of relay.toml is a valid one, with a route.
    fn check_fragment(&self, toml: &str) {
        let route = "\n[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";
        let file = self.dir.path().join("fragment.toml");
        fs::write(&file, format!("{toml}{route}")).expect("written");
        let command = self.command("payrelay check -c ../fragment.toml");
        let mut check = Process::start("payrelay check", command);
        let code = check.wait_exit(DEADLINE);
        assert_eq!(
            code,
            Some(0),
            "{toml}: {}{}",
            check.stdout(),
            check.stderr()
        );
    }

    /// Runs a script to its end.
    fn run(&mut self, script: &str) {
        if script.trim() == INSTALL {
            return;
        }
        let mut process = Process::start(script, self.command(script));
        let code = process.wait_exit(DEADLINE);
        // What goes to standard error comes last in the pages.
        let lines = [process.stdout(), process.stderr()].join("\n");
        assert_eq!(code, Some(0), "{script}\n{lines}");
        self.printed = lines.trim_end().lines().map(str::to_owned).collect();
        self.see_ends();
    }

    fn type_in(&mut self, block: &Block) {
        let mut lines = block.text.lines();
        let command = lines.next().and_then(|line| line.strip_prefix("$ "));
        let command = command.expect("a console block begins with a command");
        let expected: Vec<String> = lines.map(str::to_owned).collect();
        assert!(
            expected.iter().all(|line| !line.starts_with("$ ")),
            "one command a console block"
        );
        let runs_on = command == "payrelay"
            || command.starts_with("payrelay listen")
            || command.starts_with("lua");
        if !runs_on {
            self.run(command);
            compare(&expected, &self.printed);
            return;
        }
        if command == "payrelay" {
            self.stop_relays();
        }
        // Lines as they come, as in a terminal; a relay's log lines are in none of the pages.
        let whole = match command {
            "payrelay" => "exec payrelay".to_owned(),
            _ => format!("exec stdbuf -oL {command} 2>&1"),
        };
        let mut running = Running {
            name: command.to_owned(),
            process: Process::start(command, self.command(&whole)),
            expected,
            seen: 0,
            ends: command.contains("--count"),
        };
        running.expect_next();
        self.running.push(running);
    }

    /// As the page says, with Ctrl-C; who else runs on loses the connection.
    fn stop_relays(&mut self) {
        for mut running in self.running.drain(..) {
            if running.name == "payrelay" {
                running.process.signal(Signal::INT);
                assert_eq!(running.process.wait_exit(DEADLINE), Some(0));
            }
        }
    }

    /// Those that end by themselves have printed all that the page says when the next script has been run.
    fn see_ends(&mut self) {
        let (mut ending, going): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|running| running.ends);
        ending.iter_mut().for_each(Running::finish);
        self.running = going;
    }

    /// Waits for all that is to be printed yet.
    fn end(mut self) {
        self.running.iter_mut().for_each(Running::finish);
    }
}

impl Running {
    fn expect_next(&mut self) {
        let expected = &self.expected[self.seen];
        let (_, line) = self.process.wait_line(self.seen, |_| true);
        assert!(
            alike(expected, &line),
            "{}: expected {expected:?}, and it printed {line:?}",
            self.name
        );
        self.seen += 1;
    }

    fn finish(&mut self) {
        while self.seen < self.expected.len() {
            self.expect_next();
        }
        if self.ends {
            assert_eq!(self.process.wait_exit(DEADLINE), Some(0), "{}", self.name);
        }
    }
}

/// Whether a line is as a page has it; between words any space counts for one.
fn alike(expected: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, line) = (words(expected), words(line));
    let mut rest = line.as_str();
    for (n, piece) in expected.split('…').enumerate() {
        let Some(at) = rest.find(piece).filter(|at| n > 0 || *at == 0) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty() || expected.ends_with('…')
}

/// Asserts that `lines` are as a page has them.
fn compare(expected: &[String], lines: &[String]) {
    let mut at = 0;
    let mut any = false;
    for wanted in expected {
        if wanted == "…" {
            any = true;
            continue;
        }
        let found = lines[at..].iter().position(|line| alike(wanted, line));
        let found = found.filter(|skipped| any || *skipped == 0);
        let found =
            found.unwrap_or_else(|| panic!("{wanted:?} is not next in {:#?}", &lines[at..]));
        at += found + 1;
        any = false;
    }
    assert!(any || at == lines.len(), "more: {:#?}", &lines[at..]);
}

fn followed(name: &str) {
    let Some(network) = Network::new() else {
        return;
    };
    let mut reader = Reader::new(network);
    for block in blocks(&page(name)) {
        reader.follow(name, &block);
    }
    reader.end();
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    followed("README.md");
}

#[test]
fn every_command_of_the_chinese_readme_does_what_it_says() {
    followed("README.zh-CN.md");
}

//! doc/protocol.md cannot drift: its transcripts are run against a live relay, line by line.
//!
//! The notation is defined in that document's last section.

use std::collections::HashMap;
use std::fs;
use std::thread;

use crate::support::{Backend, Frame, Pending, Relay, difference};

/// One block of the document, and where it stands there.
struct Transcript {
    line: usize,
    /// What the info string says beyond `transcript`.
    setting: String,
    steps: Vec<(usize, String)>,
}

#[test]
fn every_transcript_happens_as_it_is_written() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/doc/protocol.md");
    let text = fs::read_to_string(file).expect("doc/protocol.md");
    let transcripts = transcripts(&text);
    assert!(
        transcripts.len() >= 10,
        "only {} transcripts were found",
        transcripts.len()
    );
    // Each on a thread of its own, so that one that goes wrong does not hide the others.
    let wrong: Vec<String> = transcripts
        .into_iter()
        .filter_map(|transcript| {
            let place = format!("doc/protocol.md:{}", transcript.line);
            let played =
                thread::spawn(move || ExampleRun::set(&transcript.setting).play(&transcript));
            played.join().is_err().then_some(place)
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "transcripts that did not happen as written: {wrong:?}"
    );
}

fn transcripts(text: &str) -> Vec<Transcript> {
    let mut found: Vec<Transcript> = Vec::new();
    let mut inside = false;
    for (n, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(info) if !inside && info.split(' ').next() == Some("transcript") => {
                inside = true;
                found.push(Transcript {
                    line: n + 1,
                    setting: info["transcript".len()..].trim().to_owned(),
                    steps: Vec::new(),
                });
            }
            Some(_) => inside = false,
            None if inside => {
                let steps = &mut found.last_mut().expect("one was begun").steps;
                steps.push((n + 1, line.to_owned()));
            }
            None => {}
        }
    }
    found
}

/// A relay, and whoever talks to it.
struct ExampleRun {
    relay: Relay,
    clients: HashMap<char, Client>,
    providers: HashMap<char, Pending>,
}

struct Client {
    backend: Backend,
    /// The ids of the MSGs that it was sent.
    ids: Vec<String>,
    /// The last frame, until its data has been looked at.
    frame: Option<Frame>,
}

impl ExampleRun {
    fn set(setting: &str) -> Self {
        let undelivered = match setting {
            "store" => "store",
            _ => "refuse",
        };
        let tcp = match setting.split_once('=') {
            None if setting.is_empty() || setting == "store" => String::new(),
            None if setting == "secrets" => {
                "secrets = [\"correct horse battery staple\"]".to_owned()
            }
            Some(("backends", ids)) => format!("backends = [\"{}\"]", ids.replace(',', "\", \"")),
            _ => panic!("no such setting of a transcript: {setting:?}"),
        };
        Self {
            relay: Relay::with(&format!(
                "node = \"pay-1\"\n[delivery]\nack_deadline = \"4s\"\n\
                 undelivered = \"{undelivered}\"\n[tcp]\n{tcp}"
            )),
            clients: HashMap::new(),
            providers: HashMap::new(),
        }
    }

    fn play(mut self, transcript: &Transcript) {
        for (line, step) in &transcript.steps {
            eprintln!("doc/protocol.md:{line}: {step}");
            self.step(step);
        }
        for (number, client) in &self.clients {
            let unread = client
                .frame
                .as_ref()
                .is_some_and(|frame| frame.data.is_some());
            assert!(
                !unread,
                "the data of the last frame to C{number} is not in the transcript"
            );
        }
        assert!(
            self.providers.is_empty(),
            "a provider's answer is not in the transcript"
        );
    }

    fn step(&mut self, step: &str) {
        if step.is_empty() || step.starts_with("--") {
            return;
        }
        let mut rest = step.chars();
        let who = rest.next().unwrap_or(' ');
        let mut what = rest.next().unwrap_or(' ');
        let mut number = '1';
        if what.is_ascii_digit() {
            number = what;
            what = rest.next().unwrap_or(' ');
        }
        let text = rest.as_str();
        let text = text.strip_prefix(' ').unwrap_or(text);
        match (who, what) {
            ('C', '>') => {
                let line = self.client(number).with_ids(text);
                self.client(number).send(&line);
            }
            ('C', '+') => self.client(number).send(text),
            ('C', '|') if text == "close" => drop(self.clients.remove(&number)),
            ('S', '>') => self.client(number).hear(text),
            ('S', '+') => self.client(number).hear_data(text),
            ('S', '|') if text == "closed" => self.client(number).backend.expect_closed(),
            ('P', '>') => {
                let (path, body) = text.split_once(' ').unwrap_or((text, ""));
                let posted = self.relay.post(path, &unescape(body));
                let before = self.providers.insert(number, posted);
                assert!(before.is_none(), "P{number} has a request out already");
            }
            ('P', '<') => {
                let answer = self
                    .providers
                    .remove(&number)
                    .expect("a request is out")
                    .answer();
                let mut wanted = text.splitn(3, ' ');
                assert_eq!(wanted.next(), Some(answer.status.to_string().as_str()));
                assert_eq!(wanted.next(), Some(answer.outcome()));
                match wanted.next() {
                    Some("*") => assert!(!answer.body.is_empty()),
                    body => assert_eq!(body.unwrap_or_default(), answer.text()),
                }
            }
            _ => panic!("no step of a transcript: {step:?}"),
        }
    }

    fn client(&mut self, number: char) -> &mut Client {
        let relay = &self.relay;
        self.clients.entry(number).or_insert_with(|| Client {
            backend: Backend::raw(relay),
            ids: Vec::new(),
            frame: None,
        })
    }
}

impl Client {
    fn send(&mut self, text: &str) {
        let mut bytes = unescape(text);
        bytes.push(b'\n');
        self.backend.send_bytes(&bytes);
    }

    /// Puts the ids of earlier MSGs where a line to be sent has `=*` or `=*2`.
    fn with_ids(&self, line: &str) -> String {
        let tokens = line.split(' ').map(|token| match token.split_once("=*") {
            Some((key, "")) => format!("{key}={}", self.ids.last().expect("a MSG came before")),
            Some((key, nth)) if nth.len() == 1 && nth.as_bytes()[0].is_ascii_digit() => {
                let nth: usize = nth.parse().expect("a digit");
                format!("{key}={}", self.ids[nth - 1])
            }
            _ => token.to_owned(),
        });
        tokens.collect::<Vec<_>>().join(" ")
    }

    /// The next frame has this verb and exactly these keys.
    fn hear(&mut self, pattern: &str) {
        let frame = self.backend.expect_line(pattern);
        let keys = |line: &str| {
            let mut keys: Vec<String> = line
                .split(' ')
                .skip(1)
                .map(|token| token.split('=').next().unwrap_or_default().to_owned())
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(
            keys(&frame.line),
            keys(pattern),
            "other keys in {:?}",
            frame.line
        );
        if frame.verb == "MSG" {
            self.ids.push(frame.field("id").to_owned());
        }
        self.frame = Some(frame);
    }

    fn hear_data(&mut self, text: &str) {
        let frame = self.frame.take().expect("a frame came before its data");
        let data = frame.data.as_deref().expect("the frame has data");
        if let Some(difference) = difference(&unescape(text), data) {
            panic!("other data: {difference}");
        }
    }
}

/// `\r`, `\n`, `\t`, `\\`, `\xNN`, and `\[x*1025]` for 1025 times x.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend(plain.bytes());
        let kind = escape.chars().next().expect("something after a backslash");
        rest = &escape[kind.len_utf8()..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hex digits"));
                rest = &rest[2..];
            }
            '[' => {
                let (repeat, after) = rest.split_once(']').expect("a closing bracket");
                let (what, count) = repeat.split_once('*').expect("x*count");
                bytes.extend(what.repeat(count.parse().expect("a count")).bytes());
                rest = after;
            }
            other => panic!("no escape: \\{other}"),
        }
    }
    bytes.extend(rest.bytes());
    bytes
}

#[test]
fn escapes_are_the_bytes_they_mean() {
    assert_eq!(unescape(r"a\r\n\t\\\x00\xffb"), b"a\r\n\t\\\0\xffb");
    assert_eq!(unescape(r"x\[ab*3]y"), b"xabababy");
}

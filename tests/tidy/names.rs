//! Names: one meaning for each type's, and none of the words that the project has left behind.

use std::collections::BTreeMap;

use super::{Source, all_lines, everything, files, none, sources};

/// The one name that may stand for several types: each command of the binary has its own arguments.
const COMMANDS: &str = "Args";

/// Words that are gone from code and prose, and what is said instead.
const WORDS: &[(&str, &str)] = &[
    ("barrage", "providers"),
    ("bequeath", "transfer"),
    ("berth", "id and address"),
    ("berths", "ids and addresses"),
    ("courier", "dispatcher"),
    ("courtesy", "cooperative yield"),
    ("crew", "thread group"),
    ("fleet", "backends"),
    ("fleets", "groups of backends"),
    ("gatehouse", "HTTP front end"),
    ("guest", "connection"),
    ("guests", "connections"),
    ("gun", "source of notifications"),
    ("guns", "sources of notifications"),
    ("heir", "the node that takes over"),
    ("house", "the relay, the module, the project"),
    ("houses", "projects"),
    ("lane", "worker link, backend queue"),
    ("lanes", "worker links, backend queues"),
    ("ledger", "history, delivery log"),
    ("ledgers", "histories, delivery logs"),
    ("lodge", "sessions"),
    ("parcel", "envelope"),
    ("porter", "listener"),
    ("purse", "token bucket"),
    ("sideline", "nothing: it is gone"),
    ("signpost", "node locator"),
    ("signposts", "node locators"),
];

/// Names of types and functions that are gone: each stood for several things, or for none that the field knows. What some of them
/// became stands beside them.
const NAMES: &[(&str, &str)] = &[
    ("Abroad", "RemotePending"),
    ("Asked", "RequestView"),
    ("Books", "AdminState"),
    ("Complaints", "LogOnce"),
    ("Counter", "what it counts"),
    ("Desk", "Handler"),
    ("Door", "BackendListener"),
    ("Due", "Batch"),
    ("Ear", "Subscriber"),
    ("Episode", "LogOnce"),
    ("Exchange", "Responder"),
    ("Fate", "AckState"),
    ("Figures", "Stats"),
    ("Front", "HttpListener"),
    ("Hearing", "BusParts"),
    ("Kept", "PendingRequest"),
    ("Ledger", "what it is a record of"),
    ("Look", "ConnectionState"),
    ("Mark", "Stamp"),
    ("Odd", "Warning"),
    ("Owed", "Responder"),
    ("Pace", "RateLimiter"),
    ("Paid", "Responder"),
    ("Place", "Position, Endpoint"),
    ("Places", "what stands there"),
    ("Post", "PublishQueue"),
    ("Roll", "Presence"),
    ("Room", "what there is room for"),
    ("Said", "Parsed"),
    ("Seat", "ConnectionGuard"),
    ("Setting", "OutboxOptions"),
    ("Settlement", "StatusUpdate"),
    ("Ship", "BackendConnection"),
    ("Shot", "Notification"),
    ("Stage", "ConnectionState"),
    ("Standing", "ConnectionState"),
    ("Sums", "CountDelta"),
    ("Then", "Next"),
    ("Ticket", "Responder"),
    ("Told", "a callback named for what it reports"),
    ("Trouble", "Error"),
    ("Verdict", "NextState"),
    ("Whom", "FilterParams"),
    ("Works", "OutboxThreads"),
    ("drain_rate", "redelivery_rate"),
    ("give_way", "yield_to_newer"),
    ("landed", "on_receipt"),
    ("let_go", "on_held_receipt"),
    ("lie_down", "prepare_sleep"),
    ("look_forward", "schedule"),
    ("own_up", "report_lost"),
];

/// The tests on the real binary, and their harness.
fn suite() -> Vec<Source> {
    files("tests/suite", &[".rs"])
}

/// The lower-case words of `line`: `StreamHouse` and `stream_house` are two each.
fn words(line: &str) -> impl Iterator<Item = String> {
    let runs = line.split(|c: char| !c.is_ascii_alphabetic());
    runs.filter(|run| !run.is_empty()).flat_map(|run| {
        let mut cuts: Vec<usize> = vec![0];
        let bytes = run.as_bytes();
        cuts.extend(
            (1..run.len())
                .filter(|&at| bytes[at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase()),
        );
        cuts.push(run.len());
        let pairs: Vec<String> = cuts
            .windows(2)
            .map(|pair| run[pair[0]..pair[1]].to_ascii_lowercase())
            .collect();
        pairs
    })
}

/// The name that `line` declares, and by which keyword.
fn declared(line: &str) -> Option<(&str, &str)> {
    let mut tokens = line.split_whitespace().skip_while(|token| {
        token.starts_with("pub") || matches!(*token, "in" | "const" | "static" | "async")
    });
    let keyword = tokens.next()?;
    let is_declaration = matches!(keyword, "struct" | "enum" | "trait" | "type" | "fn" | "mod");
    let name = tokens.next().filter(|_| is_declaration)?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
    let name = &name[..end.unwrap_or(name.len())];
    (!name.is_empty()).then_some((keyword, name)) // in a macro it is a variable
}

#[test]
fn words_that_are_gone_stay_gone() {
    let all: Vec<_> = everything()
        .into_iter()
        .filter(|source| source.path != "tests/tidy/names.rs")
        .collect();
    let mut offences = Vec::new();
    for (path, n, line) in all_lines(&all) {
        for word in words(line) {
            if let Some((_, instead)) = WORDS.iter().find(|(gone, _)| *gone == word) {
                offences.push(format!("{path}:{n}: {word}: say {instead}"));
            }
        }
    }
    none(&offences, "words that are gone");
}

#[test]
fn names_that_are_gone_stay_gone() {
    let mut all = sources();
    all.extend(suite());
    let mut offences = Vec::new();
    for (path, n, line) in all_lines(&all) {
        let Some((_, name)) = declared(line) else {
            continue;
        };
        if let Some((_, instead)) = NAMES.iter().find(|(gone, _)| *gone == name) {
            offences.push(format!("{path}:{n}: {name}: was {instead}"));
        }
    }
    none(&offences, "names that are gone");
}

#[test]
fn a_type_of_the_sources_has_a_name_of_its_own() {
    let all = sources();
    let (types, twice) = types_of(all.iter(), |line| line.starts_with("pub"));
    assert!(types > 300, "the types are not found");
    none(&twice, "two public types with one name");
}

/// Private ones too: a test's own types stand beside those of the harness.
#[test]
fn a_type_of_the_suite_has_a_name_of_its_own() {
    let all = suite();
    let (types, twice) = types_of(all.iter(), |_| true);
    assert!(types > 80, "the types are not found");
    none(&twice, "two types of the suite with one name");
}

/// How many names the types of `all` have whose lines are `counted`, and which of the names belong to two types.
fn types_of<'a>(
    all: impl Iterator<Item = &'a Source>,
    counted: impl Fn(&str) -> bool,
) -> (usize, Vec<String>) {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in all {
        for (n, line) in source.statements() {
            if !counted(line.trim_start()) {
                continue;
            }
            if let Some(("struct" | "enum" | "trait" | "type", name)) = declared(line) {
                let place = format!("{}:{n}", source.path);
                places.entry(name).or_default().push(place);
            }
        }
    }
    let twice = places
        .iter()
        .filter(|(name, places)| places.len() > 1 && **name != COMMANDS);
    let twice = twice.map(|(name, places)| format!("{name}: {}", places.join(", ")));
    (places.len(), twice.collect())
}

#[test]
fn names_and_words_are_found_however_they_are_written() {
    let found: Vec<String> = words("struct StreamHouse(full_house); // HTTP's house2").collect();
    assert_eq!(
        found,
        [
            "struct", "stream", "house", "full", "house", "http", "s", "house"
        ]
    );
    assert_eq!(
        declared("    pub(super) const fn new() -> Self {"),
        Some(("fn", "new"))
    );
    assert_eq!(declared("pub type Stamp = u64;"), Some(("type", "Stamp")));
    assert_eq!(declared("pub struct Lane<'a> {"), Some(("struct", "Lane")));
    assert_eq!(declared("/// a struct"), None);
}

//! Files that are no configuration: no panic, always a place, never a secret.

use super::super::Config;
use super::{SHIPPED, bad};

#[test]
fn what_is_not_toml_says_where() {
    for (text, lines) in [
        (
            "[http",
            "relay.toml:1:6: not valid TOML: unclosed table, expected `]`",
        ),
        (
            "a = 1\na = 2\n",
            "relay.toml:2:1: not valid TOML: duplicate key",
        ),
        (
            "[http]\r\n\tworkers = 4 4\r\n",
            "relay.toml:2:12: not valid TOML: string values must be quoted, expected literal string",
        ),
        (
            "node = \"支付\" x\n",
            "relay.toml:1:13: not valid TOML: unexpected key or value, expected newline, `#`",
        ),
        // The rest of a line that went wrong is guesswork: one error says enough.
        (
            "tcp.secrets = [\"0123456789abcdef\nqueue = 1",
            "relay.toml:1:33: not valid TOML: invalid basic string, expected `\"`\n\
             relay.toml:2:1: not valid TOML: missing comma between array elements, expected `,`",
        ),
        (
            "a = 08\nb = 2020-13-01\n",
            "relay.toml:1:5: not valid TOML: unexpected leading zero, expected nothing\n\
             relay.toml:2:5: not valid TOML: invalid date, expected month between 01 and 12",
        ),
    ] {
        assert_eq!(bad(text), lines);
    }
}

#[test]
fn places_count_characters_and_every_kind_of_line_end() {
    let text =
        "\u{feff}# 支付\r\n[http]\r\n\tworkers = 99\r\n\t\"é\" = 1\n[[route]]\npath = \"/支{id}\"";
    let places: Vec<_> = bad(text)
        .lines()
        .map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        places,
        [
            "relay.toml:3:12 http.workers = 99",
            "relay.toml:4:2 http.\"é\"",
            "relay.toml:6:8 route[0].path = \"/支{id}\""
        ]
    );
}

#[test]
fn every_error_is_told_in_the_files_order() {
    let text = "[admin]\nlisten = 1\n[[route]]\nid = \"?\"\n[log]\nlevel = \"loud\"\n[tcp]\nqueue = 0\n\
        [http]\nworkers = 99\nworker = 1\n[[route]]\npath = 1\n";
    let lines: Vec<_> = bad(text)
        .lines()
        .map(|line| line.split(':').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["2", "3", "4", "6", "8", "10", "11", "13"]);
}

/// Numbers that are the same again for the same seed.
struct Dice(u64);

impl Dice {
    /// Below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        // Marsaglia's xorshift64: enough to find odd places, and the same on every machine.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// What mutations put in: TOML's own marks, odd characters, and values of other types.
const BITS: [&str; 28] = [
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\0",
    "\\",
    "支",
    "\u{feff}",
    "0",
    "-1",
    "99999999999999999999",
    "true",
    "1979-05-27",
    "1e9",
    "[route.ok]",
];

const SECRET: &str = "correct-horse-battery-staple";

#[test]
fn no_mutation_panics_or_shows_a_secret() {
    let seed = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(1, |since| since.as_nanos() as u64 | 1);
    let secret = format!("\"{SECRET}\"");
    let original = SHIPPED
        .replace("secrets = []", &format!("secrets = [{secret}, {secret}]"))
        .replace("# token = \"…\"", &format!("token = {secret}"))
        .replace("# url = \"redis://", &format!("url = \"redis://:{SECRET}@"))
        .replace("# [redis]", "[redis]");
    let lines = original
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    assert!(lines.join("\n").matches(SECRET).count() == 4);
    for round in 0..5000 {
        let text = mutated(&lines, &mut Dice(seed.wrapping_add(round * 2)));
        let outcome = std::panic::catch_unwind(|| Config::parse(&text, "relay.toml"));
        let shown = match outcome {
            Ok(Ok(config)) => format!("{config:?}"),
            Ok(Err(errors)) => {
                let placed = errors.iter().all(|error| error.place.is_some());
                assert!(
                    placed && errors.iter().count() > 0,
                    "seed {seed}, round {round}:\n{text}"
                );
                format!("{errors}\n{errors:?}")
            }
            Err(_) => panic!("panic with seed {seed}, round {round}:\n{text}"),
        };
        assert!(
            !shown.contains("horse-battery"),
            "seed {seed}, round {round}:\n{text}\n{shown}"
        );
    }
}

/// The lines with one to four changes: a line dropped, doubled or moved, a bit put in, characters cut out. What cuts into
/// the lines with the secrets keeps the secret itself in one piece, so that it can be looked for.
fn mutated(lines: &[&str], dice: &mut Dice) -> String {
    let mut lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
    for _ in 0..=dice.roll(4) {
        let n = dice.roll(lines.len());
        match dice.roll(6) {
            0 => drop(lines.remove(n)),
            1 => lines.insert(n, lines[n].clone()),
            2 => {
                let line = lines.remove(n);
                lines.insert(dice.roll(lines.len()), line);
            }
            _ => {
                let line = &lines[n];
                let edges: Vec<usize> = line.char_indices().map(|(at, _)| at).collect();
                let at = edges
                    .get(dice.roll(edges.len().max(1)))
                    .copied()
                    .unwrap_or(0);
                let cut = line[at..]
                    .chars()
                    .take(dice.roll(4))
                    .map(char::len_utf8)
                    .sum::<usize>();
                let bit = BITS[dice.roll(BITS.len())];
                lines[n] = format!("{}{bit}{}", &line[..at], &line[at + cut..]);
            }
        }
    }
    lines.join("\n")
}

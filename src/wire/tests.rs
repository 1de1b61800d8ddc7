//! Lines are read as they were written; what is malformed is said where; random bytes and cuts harm nothing.

use super::*;

fn one(input: &[u8]) -> Result<Line<'_>, FrameError> {
    Line::find(input).map(|found| found.expect("a whole line").0)
}

#[test]
fn a_line_is_read_as_it_was_written() {
    let mut out = Vec::new();
    line(&mut out, "MSG")
        .plain("id", 7)
        .arg("route", "/notify/{id}")
        .arg("event", "a b=%\u{e9}")
        .seconds("retry", Duration::from_millis(1500))
        .end_with_data(0);
    assert_eq!(
        String::from_utf8_lossy(&out),
        "MSG id=7 route=/notify/%7Bid%7D event=a%20b%3D%25%C3%A9 retry=1.5 =0\n"
    );
    let (read, used) = Line::find(&out).expect("well-formed").expect("whole");
    assert_eq!((read.verb, used), ("MSG", out.len()));
    assert_eq!(read.data_bytes, Some(0));
    assert_eq!(read.text("event").as_deref(), Some("a b=%\u{e9}"));
    assert_eq!(read.raw("id"), Some("7"));
    assert_eq!(read.raw("ev"), None);
}

#[test]
fn every_split_of_a_line_waits_for_its_end() {
    let whole = b"HELLO 1 id=game-01 max=16\r\n";
    for cut in 0..whole.len() {
        assert!(
            matches!(Line::find(&whole[..cut]), Ok(None)),
            "cut at {cut}"
        );
    }
    let line = one(whole).expect("well-formed");
    assert_eq!((line.number, line.raw("max")), (Some("1"), Some("16")));
}

#[test]
fn a_line_of_exactly_the_limit_passes_and_one_more_does_not() {
    for end in ["\n", "\r\n"] {
        let mut text = format!("PUB ch={}", "x".repeat(LINE_BYTES_MAX - 7));
        assert!(one(format!("{text}{end}").as_bytes()).is_ok());
        text.push('x');
        assert_eq!(
            Line::find(format!("{text}{end}").as_bytes()).err(),
            Some(FrameError::TooLong)
        );
        assert_eq!(
            Line::find(text.as_bytes()).err(),
            Some(FrameError::TooLong),
            "the end need not come"
        );
    }
}

#[test]
fn malformed_lines_say_what_is_wrong_and_where() {
    use FrameError::*;
    let many = format!(
        "ACK {}\n",
        (0..33)
            .map(|n| {
                let letter = |n: u8| (b'a' + n % 26) as char;
                format!("{}{}=1", letter(n / 26), letter(n))
            })
            .collect::<Vec<_>>()
            .join(" ")
    );
    for (input, error) in [
        (&b"\n"[..], EmptyLine),
        (b"\r\n", EmptyLine),
        (b"ack id=1\n", BadVerb),
        (b" ACK id=1\n", BadVerb),
        (b"ABCDEFGHIJKLMNOPQ\n", BadVerb),
        (b"ACK\tid=1\n", BadByte(4)),
        (b"ACK id=\xc3\xa9\n", BadByte(8)),
        (b"ACK id=1\0\n", BadByte(9)),
        (b"ACK id=1\r\r\n", BadByte(9)),
        (b"ACK id\n", BadToken(1)),
        (b"ACK \n", BadToken(1)),
        (b"ACK  id=1\n", BadToken(1)),
        (b"ACK id=1 \n", BadToken(2)),
        (b"ACK Id=1\n", BadToken(1)),
        (b"ACK id=1 7\n", BadToken(2)),
        (b"ACK 7\n", BadToken(1)),
        (b"ACK 7 id=1\n", BadToken(1)),
        (b"HELLO 1 2\n", BadToken(2)),
        (b"HELLO 12345678901\n", BadToken(1)),
        (b"SEND =5 to=a\n", BadToken(1)),
        (b"SEND =-5\n", BadToken(1)),
        (b"SEND =\n", BadToken(1)),
        (b"SEND =12345678901\n", BadToken(1)),
        (b"ACK id=%\n", BadEscape(1)),
        (b"ACK id=%4\n", BadEscape(1)),
        (b"ACK id=%4g\n", BadEscape(1)),
        (b"ACK id=1 id=2\n", RepeatedKey(2)),
        (many.as_bytes(), TooManyTokens),
    ] {
        assert_eq!(one(input).err(), Some(error), "{}", input.escape_ascii());
    }
}

#[test]
fn random_bytes_never_panic_and_what_parses_keeps_its_values() {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| d.as_nanos() as u64);
    println!("seed {seed}");
    let mut state = seed;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let alphabet = b"ABHELO =%09az_id\r\n\x00\xff/";
    for _ in 0..20_000 {
        let input: Vec<u8> = (0..random(40))
            .map(|_| alphabet[random(alphabet.len())])
            .collect();
        if let Ok(Some((parsed, used))) = Line::find(&input) {
            assert!(used <= input.len());
            let mut again = Vec::new();
            let mut writer = line(&mut again, parsed.verb);
            if let Some(text) = parsed.text("id") {
                writer = writer.arg("id", &text);
            }
            writer.end();
            let read = one(&again).expect("what is written is well-formed");
            assert_eq!(read.text("id"), parsed.text("id"));
        }
    }
}

/// Random numbers (splitmix64), the same again for the same seed, which a failure prints.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    fn new() -> Self {
        let given = std::env::var("PAYRELAY_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let clock = || {
            std::time::UNIX_EPOCH
                .elapsed()
                .map_or(1, |since| since.as_nanos() as u64)
        };
        let seed = given.unwrap_or_else(clock);
        eprintln!("PAYRELAY_SEED={seed}");
        Self { seed, state: seed }
    }

    /// Below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn text(&mut self, longest: usize) -> String {
        const CHARS: [char; 20] = [
            'a',
            'Z',
            '0',
            '-',
            '.',
            '_',
            '~',
            '/',
            ':',
            ' ',
            '%',
            '=',
            '\n',
            '\r',
            '\0',
            '"',
            '\u{7f}',
            '\u{e9}',
            '支',
            '\u{1f4b0}',
        ];
        (0..self.roll(longest + 1))
            .map(|_| CHARS[self.roll(CHARS.len())])
            .collect()
    }

    fn key(&mut self, n: usize) -> String {
        let letters = (0..self.roll(12)).map(|_| (b'a' + self.roll(26) as u8) as char);
        // Each with a beginning of its own: a key is there once in a line.
        let first = (b'a' + n as u8) as char;
        std::iter::once(first).chain(letters).collect()
    }
}

/// A frame as it is written, and as it should be read.
struct Written {
    verb: String,
    number: Option<u32>,
    args: Vec<(String, String)>,
    data: Option<Vec<u8>>,
}

impl Written {
    fn random(dice: &mut Dice) -> Self {
        let verb: String = (0..1 + dice.roll(VERB_BYTES_MAX))
            .map(|_| (b'A' + dice.roll(26) as u8) as char)
            .collect();
        let hello = dice.roll(4) == 0;
        let args = (0..dice.roll(8)).map(|n| (dice.key(n), dice.text(8)));
        Self {
            args: args.collect(),
            number: hello.then(|| dice.roll(usize::MAX) as u32),
            verb: if hello { "HELLO".to_owned() } else { verb },
            data: (dice.roll(2) == 0).then(|| dice.text(40).into_bytes()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut line = line(out, &self.verb);
        if let Some(number) = self.number {
            line = line.number(number);
        }
        for (key, value) in &self.args {
            line = line.arg(key, value);
        }
        match &self.data {
            None => line.end(),
            Some(data) => {
                line.end_with_data(data.len());
                out.extend_from_slice(data);
                out.push(b'\n');
            }
        }
    }

    /// Takes this frame off the front of `input`, if it has come whole.
    fn read(&self, input: &mut Vec<u8>) -> bool {
        let Some((line, used)) = Line::find(input).expect("well-formed") else {
            return false;
        };
        let number = self.number.map(|number| number.to_string());
        assert_eq!((line.verb, line.number), (&*self.verb, number.as_deref()));
        assert_eq!(line.data_bytes, self.data.as_ref().map(Vec::len));
        for (key, value) in &self.args {
            assert_eq!(line.text(key).as_deref(), Some(value.as_str()), "{key}");
        }
        let Some(data) = &self.data else {
            input.drain(..used);
            return true;
        };
        let Some(rest) = input.get(used..=used + data.len()) else {
            return false;
        };
        assert!(rest.starts_with(data) && rest.ends_with(b"\n"));
        input.drain(..=used + data.len());
        true
    }
}

#[test]
fn what_is_written_is_read_however_it_is_cut_into_reads() {
    let mut dice = Dice::new();
    for round in 0..500 {
        let frames: Vec<Written> = (0..1 + dice.roll(6))
            .map(|_| Written::random(&mut dice))
            .collect();
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        let (mut rest, mut buffer, mut next) = (&bytes[..], Vec::new(), 0);
        while !rest.is_empty() {
            let longest = [1, 2, 7, rest.len()][dice.roll(4)].min(rest.len());
            let (read, left) = rest.split_at(1 + dice.roll(longest));
            buffer.extend_from_slice(read);
            rest = left;
            while next < frames.len() && frames[next].read(&mut buffer) {
                next += 1;
            }
        }
        assert_eq!(
            (next, buffer.len()),
            (frames.len(), 0),
            "seed {}, round {round}",
            dice.seed
        );
    }
}

#[test]
fn a_verdict_on_the_beginning_stands_whatever_follows() {
    let mut dice = Dice::new();
    for round in 0..5000 {
        let mut bytes = Vec::new();
        Written::random(&mut dice).write(&mut bytes);
        for _ in 0..dice.roll(4) {
            let at = dice.roll(bytes.len());
            match dice.roll(3) {
                0 => bytes[at] = dice.roll(256) as u8,
                1 => bytes.insert(at, b" =%\r\n\0A1"[dice.roll(8)]),
                _ => drop(bytes.remove(at)),
            }
            bytes.push(b'\n');
        }
        let told = |bytes: &[u8]| {
            Line::find(bytes).map(|found| {
                found.map(|(line, used)| (line.verb.to_owned(), line.data_bytes, used))
            })
        };
        let mut earlier = Ok(None);
        for end in 0..=bytes.len() {
            let now = told(&bytes[..end]);
            assert!(
                earlier == Ok(None) || earlier == now,
                "seed {}, round {round}: {earlier:?}, then {now:?}, of {:?}",
                dice.seed,
                bytes.escape_ascii().to_string()
            );
            earlier = now;
        }
    }
}

//! Random mutations of requests: none panics, and what is let in reads the same when it is written anew.

use super::*;

/// xorshift64*: enough for choosing where to hurt an input.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        const SPICE: [&[u8]; 12] = [
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b":",
            b",",
            b"\xff",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"0\r\n\r\n",
            b"chunked",
        ];
        let at = self.below(input.len());
        match self.below(5) {
            0 => input[at] = self.below(256) as u8,
            1 => {
                input.remove(at);
            }
            2 => {
                let spice = SPICE[self.below(SPICE.len())];
                input.splice(at..at, spice.iter().copied());
            }
            3 => input.truncate(at),
            _ => {
                let end = (at + self.below(20)).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
        }
    }
}

/// The head as the HTTP front end understood it, written anew.
fn rewritten(read: &Read) -> Vec<u8> {
    let minor = if read.shape.http_1_0 { 0 } else { 1 };
    let mut text = format!("{} {} HTTP/1.{minor}\r\n", read.method, read.target).into_bytes();
    for (name, value) in &read.headers {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    match read.shape.body {
        Body::Length(_) => text.extend_from_slice(&read.body),
        Body::Chunked => {
            for piece in read.body.chunks(7) {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
        }
    }
    text
}

#[test]
fn mutations_never_panic_and_what_is_accepted_means_the_same_again() {
    let seeds: [Vec<u8>; 4] = [
        b"POST /notify/a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close, x\r\n\r\nhello".to_vec(),
        chunked("5;q\r\nhello\r\n3\r\n wo\r\n0\r\nA: b\r\n\r\n"),
        b"GET http://pay/a HTTP/1.0\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n".to_vec(),
        b"\r\nPUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab".to_vec(),
    ];
    let seed = 0x7061_7972_656C_6179;
    let mut dice = Dice(seed);
    let mut let_in = 0;
    for round in 0..60_000 {
        let mut input = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(4) {
            if !input.is_empty() {
                dice.mutate(&mut input);
            }
        }
        let whole = read(&input);
        let piece = 1 + dice.below(input.len());
        assert_eq!(
            whole,
            read_in_pieces(&input, piece),
            "seed {seed}, round {round}: pieces of {piece} differ for {:?}",
            String::from_utf8_lossy(&input)
        );
        if let Ok(Some(mut accepted)) = whole {
            let_in += 1;
            accepted.left = 0;
            assert_eq!(
                read(&rewritten(&accepted)),
                Ok(Some(accepted)),
                "seed {seed}, round {round}: {:?}",
                String::from_utf8_lossy(&input)
            );
        }
    }
    assert!(
        let_in > 5_000,
        "only {let_in} mutations were let in: the test tests little"
    );
}

//! Chunked bodies: how they are cut makes no difference, and which are refused.

use super::*;

#[test]
fn a_chunked_request_reads_the_same_however_it_is_split() {
    let mut input = chunked(
        "5\r\nhello\r\n006;a=\"b\"\r\n world\r\nA\r\n0123\r\n6789\r\n0;x\r\nTrailer: x\r\nB:\r\n\r\n",
    );
    input.extend_from_slice(b"GET /");
    let whole = accepted(&input);
    assert_eq!(whole.body, b"hello world0123\r\n6789");
    assert_eq!(whole.left, 5);
    for piece in 1..input.len() {
        assert_eq!(
            read_in_pieces(&input, piece),
            Ok(Some(whole.clone())),
            "pieces of {piece}"
        );
    }
    // And cut anywhere in two.
    let start = with("Transfer-Encoding: Chunked\r\n").len();
    for cut in start..input.len() - 5 {
        let (mut front, mut back) = (input[start..cut].to_vec(), input[cut..].to_vec());
        let mut chunks = Chunks::new(BODY_MAX);
        let first = chunks.decode(&mut front);
        let second = chunks.decode(&mut back);
        let (Ok(first), Ok(second)) = (first, second) else {
            panic!("cut at {cut}: {first:?}, {second:?}");
        };
        assert!(!first.done && second.done);
        assert_eq!(
            [&front[..first.kept], &back[..second.kept]].concat(),
            whole.body
        );
        assert_eq!(back.len() - second.consumed, 5);
    }
}

#[test]
fn hostile_chunks_are_refused() {
    let chunk = Refusal::from(Malformed::Chunk);
    let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(256));
    let many_trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(33));
    let long_trailer = format!("0\r\nA: {}\r\n\r\n", "x".repeat(8192));
    let endless_name = format!("0\r\n{}", "x".repeat(8193));
    for (what, body, refusal) in [
        ("no size", "\r\nhello\r\n0\r\n\r\n", chunk),
        ("no hex", "g\r\nhello\r\n0\r\n\r\n", chunk),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n", chunk),
        ("sign", "+5\r\nhello\r\n0\r\n\r\n", chunk),
        ("minus", "-5\r\nhello\r\n0\r\n\r\n", chunk),
        ("space", "5 \r\nhello\r\n0\r\n\r\n", chunk),
        ("space first", " 5\r\nhello\r\n0\r\n\r\n", chunk),
        ("nine digits", "000000005\r\nhello\r\n0\r\n\r\n", chunk),
        ("huge", "ffffffff\r\n", too_long(None)),
        ("too long", "3e9\r\n", too_long(None)),
        ("too long in sum", "1\r\na\r\n3e8\r\n", too_long(None)),
        ("size too small", "4\r\nhello\r\n0\r\n\r\n", chunk),
        ("size too large", "6\r\nhello\r\n0\r\n\r\n", chunk),
        ("lf after size", "5\nhello\r\n0\r\n\r\n", chunk),
        ("cr after size", "5\rhello\r\n0\r\n\r\n", chunk),
        ("lf after data", "5\r\nhello\n0\r\n\r\n", chunk),
        ("lf after zero", "0\n\r\n", chunk),
        ("lf at the end", "0\r\n\n", chunk),
        ("cr at the end", "0\r\n\rx", chunk),
        ("nul in extension", "5;\0\r\nhello\r\n0\r\n\r\n", chunk),
        ("lf in extension", "5;a\nhello\r\n0\r\n\r\n", chunk),
        (
            "non-ascii extension",
            "5;\u{e9}\r\nhello\r\n0\r\n\r\n",
            chunk,
        ),
        ("long extension", &long_extension, chunk),
        ("trailer without colon", "0\r\nabc\r\n\r\n", chunk),
        ("trailer without name", "0\r\n: b\r\n\r\n", chunk),
        ("folded trailer", "0\r\nA: b\r\n c\r\n\r\n", chunk),
        ("space before colon", "0\r\nA : b\r\n\r\n", chunk),
        ("bare cr in trailer", "0\r\nA: b\rc\r\n\r\n", chunk),
        ("bare lf in trailer", "0\r\nA: b\n\r\n", chunk),
        ("nul in trailer", "0\r\nA: \0\r\n\r\n", chunk),
        ("33 trailers", &many_trailers, Refusal::TooManyTrailers),
        ("long trailer", &long_trailer, Refusal::TooManyTrailers),
        (
            "endless trailer name",
            &endless_name,
            Refusal::TooManyTrailers,
        ),
    ] {
        for piece in [1, 5, usize::MAX] {
            assert_eq!(
                read_in_pieces(&chunked(body), piece),
                Err(refusal),
                "{what}"
            );
        }
    }
}

#[test]
fn the_limits_of_chunks_are_let_in() {
    let longest_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(255));
    assert_eq!(accepted(&chunked(&longest_extension)).body, b"a");
    let most_trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(32));
    assert_eq!(accepted(&chunked(&most_trailers)).body, b"");
    let most = format!("000003e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000));
    assert_eq!(accepted(&chunked(&most)).body.len(), 1000);
}

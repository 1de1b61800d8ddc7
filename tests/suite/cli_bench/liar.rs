//! A relay that lies, as a benchmark must find out.

use super::{bench_at, figures, number};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// What a relay must not do, each to one notification.
#[derive(Clone, Copy)]
enum Lie {
    None,
    /// `delivered`, and nobody got it.
    Lose,
    Twice,
    /// One byte is another.
    Damage,
    /// `delivered` before the ACK, and the MSG after it.
    Early,
    /// An honest 503.
    Busy,
    /// The connection ends without an answer.
    Hang,
    /// The HTTP answer of something else.
    Stranger,
}

#[test]
fn a_relay_that_lies_is_found_out() {
    use Lie::{Busy, Damage, Early, Hang, Lose, Stranger, Twice};
    // The first is the probe.
    let lies = vec![
        Lie::None,
        Lie::None,
        Lose,
        Twice,
        Damage,
        Early,
        Busy,
        Hang,
        Stranger,
        Lie::None,
    ];
    let total = (lies.len() - 1).to_string();
    let (http, tcp) = liar(lies);
    let args = [
        "--backends",
        "1",
        "--concurrency",
        "1",
        "--total",
        &total,
        "--json",
    ];
    let (code, figures, said) = figures(&mut bench_at(http, tcp, &args));
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(number(&figures, "posted"), 9);
    assert_eq!(number(&figures, "duplicates"), 1);
    assert_eq!(number(&figures, "damaged"), 1);
    assert_eq!(
        number(&figures, "lost"),
        2,
        "the lost and the damaged one: {figures:#}"
    );
    assert_eq!(
        number(&figures, "early"),
        3,
        "these two and the early one: {figures:#}"
    );
    assert_eq!(number(&figures, "unanswered"), 1);
    let outcomes = serde_json::json!({"delivered": 6, "busy": 1, "http-404": 1});
    assert_eq!(figures["outcomes"], outcomes);
    for words in [
        "2 lost",
        "1 duplicates",
        "1 damaged",
        "1 unanswered",
        "2 not answered ok",
    ] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

/// Something that looks like a relay with one backend, and lies by the list. It ends with its peers.
fn liar(lies: Vec<Lie>) -> (SocketAddr, SocketAddr) {
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let (http, tcp) = (listen(), listen());
    let places = (
        http.local_addr().expect("an address"),
        tcp.local_addr().expect("an address"),
    );
    thread::spawn(move || {
        let (backend, _) = tcp.accept().expect("a backend");
        let mut backend = BufReader::new(backend);
        line(&mut backend); // HELLO
        say(
            backend.get_mut(),
            b"OK id=bench-1 node=liar session=1 heartbeat=60 max_body=1048576\n",
        );
        let mut lies = lies.into_iter();
        let mut owed: Option<Vec<u8>> = None;
        while lies.len() > 0 {
            let (provider, _) = http.accept().expect("a provider");
            let mut provider = BufReader::new(provider);
            while lies.len() > 0 {
                let Some(body) = request(&mut provider) else {
                    break; // it asks on another connection
                };
                // By now the answer before this request has been read.
                if let Some(late) = owed.take() {
                    deliver(&late, &mut backend);
                }
                let lie = lies.next().expect("one is left");
                tell(lie, &body, &mut backend, provider.get_mut());
                match lie {
                    Lie::Early => owed = Some(body),
                    Lie::Hang => break,
                    _ => {}
                }
            }
        }
        // Until the backend has gone, so that nothing ends early.
        let _ = backend.read_to_end(&mut Vec::new());
    });
    places
}

fn tell(lie: Lie, body: &[u8], backend: &mut BufReader<TcpStream>, provider: &mut TcpStream) {
    let mut body = body.to_vec();
    if matches!(lie, Lie::Damage) {
        body[500] ^= 1;
    }
    let copies = match lie {
        Lie::None | Lie::Damage => 1,
        Lie::Twice => 2,
        Lie::Early | Lie::Lose | Lie::Busy | Lie::Hang | Lie::Stranger => 0,
    };
    for _ in 0..copies {
        deliver(&body, backend);
    }
    let head = match lie {
        Lie::Busy => "503 No\r\nX-Payrelay-Outcome: busy",
        Lie::Stranger => "404 No",
        Lie::Hang => return,
        Lie::None | Lie::Early | Lie::Lose | Lie::Twice | Lie::Damage => {
            "200 OK\r\nX-Payrelay-Outcome: delivered"
        }
    };
    let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
    say(provider, answer.as_bytes());
}

/// Sends a MSG and waits for its ACK.
fn deliver(body: &[u8], backend: &mut BufReader<TcpStream>) {
    let line_of = format!(
        "MSG id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D try=1 h=0 ={}\n",
        body.len()
    );
    say(
        backend.get_mut(),
        &[line_of.as_bytes(), body, b"\n"].concat(),
    );
    assert!(line(backend).starts_with("ACK id=01JD"));
}

/// The body of the next request; `None`: the connection has ended.
fn request(provider: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let header = line(provider);
        if let Some(value) = header.strip_prefix("Content-Length: ") {
            length = value.trim().parse().expect("a length");
        }
        match header.as_str() {
            "" => return None,
            "\r\n" => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    provider.read_exact(&mut body).expect("a body");
    Some(body)
}

fn line(from: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    line
}

fn say(to: &mut TcpStream, bytes: &[u8]) {
    to.write_all(bytes).expect("it listens");
}

//! The log, when nobody reads it.

use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::support::Setup;

#[test]
fn a_log_that_nobody_reads_costs_lines_and_no_answer() {
    let relay = Setup::with("[log]\nlevel = \"debug\"").unread_log().start();
    let log = File::open(relay.path("log")).expect("the log's other end");
    let mut till = relay.backend("till-7");
    let mut provider = relay.http();
    // A pipe takes 64 KiB, and each of these has a line of some 60 bytes at least.
    for n in 0..3000 {
        let body = format!("{n}");
        provider.send(
            format!(
                "POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        till.expect("MSG id=* =*", body.as_bytes()).ack();
        assert_eq!(provider.must_answer().told(), (200, "delivered"));
    }
    assert_eq!(relay.admin("/readyz").status, 200);
    // Whoever reads again is told how much is missing.
    let lines = BufReader::new(log).lines();
    let mut lines = lines.map(|line| line.expect("a line of the log"));
    let told = lines.by_ref().take(3000).any(|line| {
        // Each makes a line, which tells of those before it.
        provider.post("/notify/nobody", b"x");
        line.contains("of the log before this one were lost")
    });
    assert!(told, "no line says that others were lost");
}

//! What a test asks of a relay over HTTP, in one call.

use super::{Answer, Pending, RawHttp, Relay, post_request};

impl Relay {
    /// POSTs `body` to `path` on a new connection.
    pub fn post(&self, path: &str, body: &[u8]) -> Pending {
        self.post_with(path, &[], body)
    }

    /// POSTs with further headers.
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Pending {
        let headers = [headers, &[("Connection", "close")]].concat();
        Pending::send(
            self.gate(),
            &format!("POST {path}"),
            post_request(path, &headers, body),
        )
    }

    /// Sends a whole request on a new connection.
    pub fn send(&self, request: &[u8]) -> Pending {
        Pending::send(self.gate(), "a request", request.to_vec())
    }

    /// A socket to the HTTP front.
    pub fn http(&self) -> RawHttp {
        RawHttp::connect(self.gate())
    }

    /// GETs `path` from the admin listener.
    pub fn admin(&self, path: &str) -> Answer {
        self.admin_with(path, "")
    }

    /// GETs `path` from the admin listener with further header lines, each ending in CRLF.
    pub fn admin_with(&self, path: &str, headers: &str) -> Answer {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        let answer = RawHttp::connect(self.ready().admin).exchange(request.as_bytes());
        answer.unwrap_or_else(|problem| panic!("GET {path}: {problem}"))
    }

    /// POSTs JSON to the admin listener with further header lines, each ending in CRLF.
    pub fn admin_post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let answer = RawHttp::connect(self.ready().admin).exchange(request.as_bytes());
        answer.unwrap_or_else(|problem| panic!("POST {path}: {problem}"))
    }
}

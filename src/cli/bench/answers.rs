//! The relay's HTTP answers, as much of them as a benchmark wants to know.

use crate::client::http::{HttpError, ResponseHead};

/// The largest answer taken, head and body, in bytes. A route's answer has at most 16 KiB.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An answer that has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAnswer<'a> {
    /// The status code.
    pub status: u16,
    /// `X-Payrelay-Outcome`; empty: whoever answered is no relay.
    pub outcome: &'a str,
    /// The connection ends with it.
    pub closes: bool,
    /// Its head and its body.
    pub bytes: usize,
}

impl<'a> RelayAnswer<'a> {
    /// The answer at the beginning of `came`; `None`: it has not come whole yet.
    ///
    /// # Errors
    /// It is none, or too big.
    pub fn find(came: &'a [u8]) -> Result<Option<Self>, HttpError> {
        let partial = || match came.len() {
            0..ANSWER_BYTES_MAX => Ok(None),
            _ => Err(HttpError::TooBig),
        };
        let Some(head) = ResponseHead::find(came)? else {
            return partial();
        };
        let body_bytes = head.length()?.ok_or(HttpError::NotHttp)?; // a relay always says how long
        if body_bytes > ANSWER_BYTES_MAX {
            return Err(HttpError::TooBig);
        }
        let bytes = head.bytes + body_bytes;
        if came.len() < bytes {
            return partial();
        }
        Ok(Some(Self {
            status: head.status,
            outcome: head.header("x-payrelay-outcome").unwrap_or_default(),
            closes: head.closes,
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::discriminant;

    #[test]
    fn an_answer_is_found_once_it_is_whole() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nX-Payrelay-Outcome: delivered\r\nContent-Length: 7\r\n\r\nsuccess";
        for cut in 0..bytes.len() {
            let found = RelayAnswer::find(&bytes[..cut]).expect("HTTP");
            assert_eq!(found, None, "cut at {cut}");
        }
        let more = [&bytes[..], b"HTTP/1.1 2"].concat();
        let expected = RelayAnswer {
            status: 200,
            outcome: "delivered",
            closes: false,
            bytes: bytes.len(),
        };
        assert_eq!(RelayAnswer::find(&more).expect("HTTP"), Some(expected));
    }

    #[test]
    fn a_close_is_noticed_and_what_is_no_answer_too() {
        let close = b"HTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let answer = RelayAnswer::find(close).expect("HTTP").expect("whole");
        assert!(answer.closes && answer.outcome.is_empty() && answer.status == 503);
        for (bytes, why) in [
            (&b"ERR code=bad-frame fatal=1\n"[..], HttpError::NotHttp),
            (b"HTTP/1.1 200 OK\r\n\r\n", HttpError::NotHttp),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                HttpError::NotHttp,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n",
                HttpError::TooBig,
            ),
        ] {
            let error = RelayAnswer::find(bytes).expect_err("no answer");
            assert_eq!(discriminant(&error), discriminant(&why));
        }
        let endless = [
            b"HTTP/1.1 200 OK\r\nA: ".to_vec(),
            vec![b'a'; ANSWER_BYTES_MAX],
        ]
        .concat();
        assert!(matches!(
            RelayAnswer::find(&endless),
            Err(HttpError::TooBig)
        ));
    }
}

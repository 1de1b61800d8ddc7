//! Where something is: `http://host:port/path`.

/// `http://host:port/path?query`, cut in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// It begins with `https`.
    pub sealed: bool,
    /// `host:port`
    pub place: String,
    /// Path and query.
    pub target: String,
}

const NOT_HTTP: &str = "an address begins with http:// or https://";
const NO_HOST: &str = "there is no host between http:// or https:// and the path";
const BAD_TARGET: &str =
    "a path begins with / and has no spaces and no bytes beyond ASCII; escape them as %XX";

impl HttpUrl {
    /// Reads `http://…` or `https://…`.
    ///
    /// # Errors
    /// Why it is no address.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (sealed, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").ok_or(NOT_HTTP)?),
        };
        let (host, target) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        if host.is_empty() || host.contains(['@', ' ', '?', '#']) {
            return Err(NO_HOST);
        }
        // An IPv6 address has its colons within brackets.
        let has_port = host
            .rsplit(']')
            .next()
            .is_some_and(|after| after.contains(':'));
        Ok(Self {
            sealed,
            place: match (has_port, sealed) {
                (true, _) => host.to_owned(),
                (false, false) => format!("{host}:80"),
                (false, true) => format!("{host}:443"),
            },
            target: parse_target(target)?,
        })
    }
}

/// Reads a path, with its query if it has one.
///
/// # Errors
/// It cannot stand in a request line.
pub fn parse_target(text: &str) -> Result<String, &'static str> {
    let fits = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    fits.then(|| text.to_owned()).ok_or(BAD_TARGET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_cut_at_its_path() {
        for (text, place, target) in [
            (
                "http://h:8080/notify/{id}?x=1",
                "h:8080",
                "/notify/{id}?x=1",
            ),
            ("http://h", "h:80", "/"),
            ("https://h/x", "h:443", "/x"),
            ("https://h:8443/x", "h:8443", "/x"),
            ("http://[::1]/x", "[::1]:80", "/x"),
            ("http://[::1]:8080/x", "[::1]:8080", "/x"),
        ] {
            let url = HttpUrl::parse(text).expect(text);
            assert_eq!(url.sealed, text.starts_with("https"));
            assert_eq!((url.place.as_str(), url.target.as_str()), (place, target));
        }
        for (text, bad) in [
            ("ftp://h/", NOT_HTTP),
            ("h:8080", NOT_HTTP),
            ("http:///x", NO_HOST),
            ("http://u@h/x", NO_HOST),
            ("http://h/a b", BAD_TARGET),
            ("http://h/a\r\nb", BAD_TARGET),
            ("http://h/\u{e9}", BAD_TARGET),
        ] {
            assert_eq!(HttpUrl::parse(text), Err(bad), "{text}");
        }
    }
}

//! Addresses to listen on: `ip:port`, `[v6]:port`, `localhost:port`, and who can reach them.
//!
//! No name is looked up here or anywhere in this module: a listener must not move because DNS did.

use std::net::{Ipv4Addr, SocketAddr};

use super::reader::{Field, Problem};

/// What may be written, for errors.
const ALLOWED: &str = "allowed: \"127.0.0.1:8080\", \"[::1]:8080\", \"localhost:8080\"; \"0.0.0.0:8080\" is every address of this host";

/// Reads a `listen` key.
pub fn listen(field: &Field<'_>) -> Result<SocketAddr, Problem> {
    let text = field.text("an address with its port, such as \"127.0.0.1:8080\",")?;
    parse(text).map_err(|why| format!("{why}; {ALLOWED}"))
}

fn parse(text: &str) -> Result<SocketAddr, &'static str> {
    const HALF: &str = "both address and port are needed";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(HALF);
    }
    let (host, port) = text.rsplit_once(':').ok_or(HALF)?;
    if host.is_empty() || port.is_empty() || text.ends_with(']') {
        return Err(HALF);
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err("an IPv6 address needs brackets");
    }
    // Digits only: `u16::from_str` would take "+80" too.
    let port: u16 = match port.parse() {
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ => return Err("the port must be 0 to 65535 (0: the system chooses)"),
    };
    match host {
        "localhost" => Ok(loopback(port)),
        _ => Err("names are not looked up, give the address itself"),
    }
}

/// This host alone, at `port`.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether only this host reaches `address`.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether two listeners cannot both have these addresses.
pub fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let every = |x: SocketAddr| x.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || every(a) || every(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_and_names_are_not() {
        for (text, wanted) in [
            ("127.0.0.1:8080", Ok("127.0.0.1:8080")),
            ("0.0.0.0:0", Ok("0.0.0.0:0")),
            ("[::1]:7000", Ok("[::1]:7000")),
            ("localhost:9100", Ok("127.0.0.1:9100")),
            ("", Err("both")),
            ("8080", Err("both")),
            (":8080", Err("both")),
            ("127.0.0.1", Err("both")),
            ("127.0.0.1:", Err("both")),
            ("[::1]", Err("both")),
            ("::1", Err("both")),
            ("fe80::1:99999", Err("an IPv6")),
            ("127.0.0.1:65536", Err("the port")),
            ("127.0.0.1:http", Err("the port")),
            ("localhost:+80", Err("the port")),
            ("relay.example:80", Err("names")),
            ("*:80", Err("names")),
            ("127.0.0.1 :80", Err("names")),
        ] {
            match (parse(text), wanted) {
                (Ok(address), Ok(wanted)) => assert_eq!(address.to_string(), wanted),
                (Err(why), Err(wanted)) => assert!(why.starts_with(wanted), "{text}: {why}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn listeners_that_would_meet_are_seen() {
        for (a, b, meet) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::]:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
        ] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((collide(a, b), collide(b, a)), (meet, meet), "{a} {b}");
        }
    }
}

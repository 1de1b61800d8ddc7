//! Addresses to listen on: `ip:port`, `[v6]:port`, `localhost:port`, and who can reach them.
//!
//! No name is looked up here or anywhere in this room: a listener must not move because DNS did.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use super::problem::Problem;
use super::reader::Field;

/// Why a text is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadListen {
    /// An address without a port, or a port without an address.
    Half,
    /// The port is not 0 to 65535.
    Port,
    /// A host name.
    Name,
    /// An IPv6 address without brackets.
    Brackets,
}

impl fmt::Display for BadListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Half => "both address and port are needed",
            Self::Port => "the port must be 0 to 65535 (0: the system chooses)",
            Self::Name => "names are not looked up, give the address itself",
            Self::Brackets => "an IPv6 address needs brackets",
        })?;
        f.write_str("; allowed: \"127.0.0.1:8080\", \"[::1]:8080\", \"localhost:8080\"; \"0.0.0.0:8080\" is every address of this host")
    }
}

/// Reads a `listen` key.
pub fn listen(field: &Field<'_>) -> Result<SocketAddr, Problem> {
    parse(field.text("an address with its port, such as \"127.0.0.1:8080\",")?)
        .map_err(Problem::Listen)
}

fn parse(text: &str) -> Result<SocketAddr, BadListen> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(BadListen::Half);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(BadListen::Half);
    };
    if host.is_empty() || port.is_empty() || text.ends_with(']') {
        return Err(BadListen::Half);
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err(BadListen::Brackets);
    }
    // Digits only: `u16::from_str` would take "+80" too.
    let port: u16 = match port.parse() {
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ => return Err(BadListen::Port),
    };
    if host == "localhost" {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    Err(BadListen::Name)
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
            ("", Err(BadListen::Half)),
            ("8080", Err(BadListen::Half)),
            (":8080", Err(BadListen::Half)),
            ("127.0.0.1", Err(BadListen::Half)),
            ("127.0.0.1:", Err(BadListen::Half)),
            ("[::1]", Err(BadListen::Half)),
            ("::1", Err(BadListen::Half)),
            ("fe80::1:99999", Err(BadListen::Brackets)),
            ("127.0.0.1:65536", Err(BadListen::Port)),
            ("127.0.0.1:http", Err(BadListen::Port)),
            ("localhost:+80", Err(BadListen::Port)),
            ("relay.example:80", Err(BadListen::Name)),
            ("*:80", Err(BadListen::Name)),
            ("127.0.0.1 :80", Err(BadListen::Name)),
        ] {
            assert_eq!(
                parse(text).map(|a| a.to_string()),
                wanted.map(str::to_owned),
                "{text}"
            );
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

//! Where a client connects when it knows only where the relay listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Failure;

/// The address at which a program on this machine reaches a listener on `listen`; `key` is its name in the file, and
/// `option` what names another.
///
/// # Errors
/// The port is 0, which the system replaces by one that only the relay knows.
pub fn reachable(listen: SocketAddr, key: &str, option: &str) -> Result<SocketAddr, Failure> {
    if listen.port() == 0 {
        return Err(Failure::usage(format_args!(
            "{key} has port 0, so the relay chose one at start; give the address of its ready line with {option}"
        )));
    }
    let mut reachable = listen;
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => reachable.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => reachable.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(reachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_on_the_loopback_of_its_family() {
        for (listen, expected) in [
            ("0.0.0.0:7000", "127.0.0.1:7000"),
            ("[::]:7000", "[::1]:7000"),
            ("10.0.0.1:7000", "10.0.0.1:7000"),
            ("127.0.0.2:1", "127.0.0.2:1"),
        ] {
            let listen = listen.parse().expect("an address");
            let reached = reachable(listen, "tcp.listen", "--connect").expect("a port");
            assert_eq!(reached.to_string(), expected);
        }
    }

    #[test]
    fn port_0_cannot_be_guessed() {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let failure = reachable(listen, "tcp.listen", "--connect").expect_err("no port");
        assert!(failure.words.contains("--connect"));
    }
}

//! For whom a proxy speaks: the PROXY protocol's header before a connection, and `X-Forwarded-For` in a request. Pure.
//!
//! Both are believed only when they come from `http.trusted_proxies`; nothing here decides that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use httparse::Header;

use crate::peers::Networks;

/// How a header of version 2 begins. Neither HTTP nor TLS begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header taken, in bytes. With every extension that HAProxy sends it has a few hundred.
pub const HEADER_BYTES_MAX: usize = 2048;

/// The longest line of version 1, with its CRLF.
const LINE_BYTES_MAX: usize = 107;

/// What a whole header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Who connected to the proxy; `None`: the proxy speaks for itself.
    pub source: Option<SocketAddr>,
    /// How many bytes the header has.
    pub bytes: usize,
}

/// It is no header of the PROXY protocol, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader;

/// Reads the header at the beginning of `input`; `None`: more of it is to come.
pub fn read(input: &[u8]) -> Result<Option<ProxyHeader>, NoHeader> {
    if input.starts_with(SIGNATURE) {
        return read_v2(input);
    }
    if input.starts_with(b"PROXY ") {
        return read_v1(input);
    }
    let may_become = |begin: &[u8]| begin.starts_with(input);
    if may_become(SIGNATURE) || may_become(b"PROXY ") {
        return Ok(None);
    }
    Err(NoHeader)
}

fn read_v2(input: &[u8]) -> Result<Option<ProxyHeader>, NoHeader> {
    let Some([version_command, family, high, low]) = input.get(12..16) else {
        return Ok(None);
    };
    let bytes = 16 + usize::from(u16::from_be_bytes([*high, *low]));
    let command = match version_command {
        0x20 => None,
        0x21 => Some(family),
        _ => return Err(NoHeader),
    };
    if bytes > HEADER_BYTES_MAX {
        return Err(NoHeader);
    }
    let Some(addresses) = input.get(16..bytes) else {
        return Ok(None);
    };
    let source = match command {
        // TCP over IPv4: both addresses, then both ports.
        Some(0x11) => {
            part::<12>(addresses, 0)?;
            let ip: [u8; 4] = part(addresses, 0)?;
            Some((
                Ipv4Addr::from(ip).into(),
                u16::from_be_bytes(part(addresses, 8)?),
            ))
        }
        Some(0x21) => {
            part::<36>(addresses, 0)?;
            let ip: [u8; 16] = part(addresses, 0)?;
            Some((
                Ipv6Addr::from(ip).into(),
                u16::from_be_bytes(part(addresses, 32)?),
            ))
        }
        // A proxy's own check, or a client on a unix socket.
        Some(_) | None => None,
    };
    Ok(Some(ProxyHeader {
        source: source.map(|(ip, port): (IpAddr, u16)| SocketAddr::new(ip, port)),
        bytes,
    }))
}

fn part<const N: usize>(addresses: &[u8], at: usize) -> Result<[u8; N], NoHeader> {
    let part = addresses.get(at..at + N).ok_or(NoHeader)?;
    part.try_into().map_err(|_| NoHeader)
}

fn read_v1(input: &[u8]) -> Result<Option<ProxyHeader>, NoHeader> {
    let window = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < LINE_BYTES_MAX {
            Ok(None)
        } else {
            Err(NoHeader)
        };
    };
    let line = str::from_utf8(&window[..end]).map_err(|_| NoHeader)?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let ip: IpAddr = source.parse().map_err(|_| NoHeader)?;
            if ip.is_ipv4() != (family == "TCP4") {
                return Err(NoHeader);
            }
            Some(SocketAddr::new(ip, port.parse().map_err(|_| NoHeader)?))
        }
        _ => return Err(NoHeader),
    };
    Ok(Some(ProxyHeader {
        source,
        bytes: end + 2,
    }))
}

/// Who a request is from that came over `hop`, a trusted proxy: the nearest of those that `X-Forwarded-For` lists who is not
/// one himself. What stands before that one, anybody can have written. `hop` itself if the list does not say.
pub fn forwarded_for(headers: &[Header<'_>], hop: IpAddr, trusted: &Networks) -> IpAddr {
    let lists = headers
        .iter()
        .rev()
        .filter(|header| header.name.eq_ignore_ascii_case("x-forwarded-for"));
    let mut nearest = hop;
    for item in lists.flat_map(|header| header.value.rsplit(|b| *b == b',')) {
        let Some(ip) = str::from_utf8(item)
            .ok()
            .and_then(|item| address(item.trim()))
        else {
            return nearest;
        };
        nearest = ip;
        if !trusted.contains(ip) {
            break;
        }
    }
    nearest
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let with_port = || text.parse().ok().map(|both: SocketAddr| both.ip());
    bare.unwrap_or(text).parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = (addresses.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    fn tcp4() -> Vec<u8> {
        v2(
            0x21,
            0x11,
            &[203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 1, 187],
        )
    }

    fn source(header: &[u8]) -> Option<String> {
        let said = read(header).expect("a header").expect("the whole of it");
        assert_eq!(said.bytes, header.len());
        said.source.map(|source| source.to_string())
    }

    #[test]
    fn the_source_is_read_in_both_versions() {
        assert_eq!(source(&tcp4()), Some("203.0.113.7:12345".to_owned()));
        let mut six = [0; 36];
        (six[0], six[1], six[15], six[33]) = (0x20, 0x01, 0x09, 80);
        assert_eq!(
            source(&v2(0x21, 0x21, &six)),
            Some("[2001::9]:80".to_owned())
        );
        // With an extension behind the addresses.
        let extended = [&tcp4()[16..], &[4, 0, 1, 0]].concat();
        assert_eq!(
            source(&v2(0x21, 0x11, &extended)),
            Some("203.0.113.7:12345".to_owned())
        );
        let line = b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 443\r\n";
        assert_eq!(source(line), Some("203.0.113.7:12345".to_owned()));
        assert_eq!(
            source(b"PROXY TCP6 2001::9 ::1 80 443\r\n"),
            Some("[2001::9]:80".to_owned())
        );
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        assert_eq!(source(&v2(0x20, 0x00, &[])), None);
        assert_eq!(source(&v2(0x20, 0x11, &[0; 12])), None);
        assert_eq!(source(&v2(0x21, 0x31, &[0; 216])), None);
        assert_eq!(source(b"PROXY UNKNOWN\r\n"), None);
    }

    #[test]
    fn a_header_may_come_in_any_pieces_and_what_follows_it_is_left() {
        let line = b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 443\r\n".to_vec();
        for header in [tcp4(), line] {
            for cut in 0..header.len() {
                assert_eq!(read(&header[..cut]), Ok(None), "{cut} bytes");
            }
            let more = [&header[..], b"POST / HTTP/1.1\r\n"].concat();
            let said = read(&more).expect("a header").expect("the whole of it");
            assert_eq!(said.bytes, header.len());
        }
    }

    #[test]
    fn what_is_none_is_refused_at_once() {
        for bad in [
            &b"POST / HTTP/1.1\r\n"[..],
            b"PROXYTCP4",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 12345\r\n",
            b"PROXY TCP4 2001::9 ::1 80 443\r\n",
            b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 99999 443\r\n",
            b"\x16\x03\x01\x02\x00",
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x11, &[0; HEADER_BYTES_MAX]),
            &[&b"PROXY TCP4 "[..], &[b'1'; LINE_BYTES_MAX]].concat(),
        ] {
            assert_eq!(read(bad), Err(NoHeader), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_nearest_that_is_no_trusted_proxy_is_who_it_is_from() {
        let trusted = ["10.0.0.0/8", "::1"].map(|text| text.parse().expect("a network"));
        let trusted = Networks::new(trusted.to_vec());
        let hop: IpAddr = "10.0.0.1".parse().expect("an address");
        for (lists, from) in [
            (&[][..], "10.0.0.1"),
            (&["203.0.113.7"], "203.0.113.7"),
            // What stands before the nearest is anybody's word.
            (&["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, 10.0.0.9"], "203.0.113.7"),
            (&["203.0.113.7", "10.0.0.9,::1"], "203.0.113.7"),
            (&["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
            (&["10.0.0.8, 10.0.0.9"], "10.0.0.8"),
            (&["203.0.113.7:4711"], "203.0.113.7"),
            (&["[2001::9]:80"], "2001::9"),
            (&["[2001::9]"], "2001::9"),
            (&["unknown"], "10.0.0.1"),
            (&["203.0.113.7, unknown, 10.0.0.9"], "10.0.0.9"),
            (&[""], "10.0.0.1"),
        ] {
            let headers: Vec<_> = lists
                .iter()
                .map(|list| Header {
                    name: "X-Forwarded-For",
                    value: list.as_bytes(),
                })
                .collect();
            let found = forwarded_for(&headers, hop, &trusted);
            assert_eq!(found.to_string(), from, "{lists:?}");
        }
    }
}

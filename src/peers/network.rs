//! Networks in CIDR notation. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadNetwork {
    /// Neither an address nor an address, a slash and a number of bits.
    Form,
    /// More bits than such an address has.
    Bits(u8),
    /// Bits beyond the network's are set; this is the network that holds the address.
    Beyond(Network),
}

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str(
                "not an address or a network; allowed: \"203.0.113.7\", \"10.0.0.0/8\", \"2001:db8::/32\"",
            ),
            Self::Bits(most) => write!(f, "such an address has no more than {most} bits"),
            Self::Beyond(network) => write!(
                f,
                "has bits set beyond the network's; did you mean \"{network}\"?"
            ),
        }
    }
}

impl std::error::Error for BadNetwork {}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork::Form)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // Digits only: `u8::from_str` would take "+8" too.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 3 => {
                let bits: u16 = digits.parse().map_err(|_| BadNetwork::Form)?;
                u8::try_from(bits)
                    .ok()
                    .filter(|bits| *bits <= most)
                    .ok_or(BadNetwork::Bits(most))?
            }
            Some(_) => return Err(BadNetwork::Form),
        };
        let network = Self {
            address: masked(address, bits),
            bits,
        };
        if network.address != address {
            return Err(BadNetwork::Beyond(network));
        }
        Ok(network)
    }
}

impl Network {
    /// Whether `address` is in it. An IPv4 address is one however it is written (`::ffff:10.0.0.1`).
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// These.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether `address` may come in: it is in one of them, or there are none to be in.
    pub fn admit(&self, address: IpAddr) -> bool {
        self.is_empty() || self.contains(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn addresses_are_in_their_networks_and_in_no_other() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("203.0.113.7", "203.0.113.7", "203.0.113.6"),
            ("203.0.113.4/30", "203.0.113.7", "203.0.113.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("::1", "::1", "::2"),
        ] {
            let network = network(text);
            assert!(
                network.contains(inside.parse().expect("an address")),
                "{text}"
            );
            assert!(
                !network.contains(outside.parse().expect("an address")),
                "{text}"
            );
        }
        let mapped = "::ffff:10.1.2.3".parse().expect("an address");
        assert!(network("10.0.0.0/8").contains(mapped));
    }

    #[test]
    fn what_is_no_network_is_said_to_be_none_and_what_was_meant() {
        for (text, bad) in [
            ("", BadNetwork::Form),
            ("10.0.0.0/", BadNetwork::Form),
            ("10.0.0/8", BadNetwork::Form),
            ("10.0.0.0/+8", BadNetwork::Form),
            ("10.0.0.0/8 ", BadNetwork::Form),
            ("example.com", BadNetwork::Form),
            ("10.0.0.0/255.0.0.0", BadNetwork::Form),
            ("10.0.0.0/33", BadNetwork::Bits(32)),
            ("::/129", BadNetwork::Bits(128)),
            ("::/999", BadNetwork::Bits(128)),
            ("10.0.0.1/8", BadNetwork::Beyond(network("10.0.0.0/8"))),
            (
                "2001:db8::1/32",
                BadNetwork::Beyond(network("2001:db8::/32")),
            ),
        ] {
            assert_eq!(text.parse::<Network>(), Err(bad), "{text}");
        }
    }

    #[test]
    fn no_networks_admit_everybody_and_contain_nobody() {
        let none = Networks::default();
        let address = "10.0.0.1".parse().expect("an address");
        assert!(none.admit(address) && !none.contains(address));
        let some = Networks::new(vec![network("10.0.0.0/8"), network("::1")]);
        assert!(some.admit(address) && some.contains("::1".parse().expect("an address")));
        assert!(!some.admit("192.0.2.1".parse().expect("an address")));
    }
}

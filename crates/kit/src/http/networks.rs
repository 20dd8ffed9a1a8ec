//! Networks by their addresses, and which addresses are the public internet.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 that is not the public internet: the IANA special-purpose registry (RFC 6890), multicast, and all that is reserved;
/// and Azure's host, which answers its guests on an address of the public internet.
const INTERNAL_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];
/// All of IPv6 that is assigned; loopback, unique local, link-local, multicast and translated addresses lie outside.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0], 3);
/// What in it is not the public internet, or hides an IPv4 address: protocol assignments with Teredo, documentation, 6to4.
const INTERNAL_V6: [Ipv6Net; 4] =
    [v6([0x2001, 0], 23), v6([0x2001, 0x0db8], 32), v6([0x2002, 0], 16), v6([0x3fff, 0], 20)];

/// Networks as in `10.0.0.0/8,fd00::/8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Takes a list with commas between; `None` where one of them is no network.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = text.split(',').map(str::trim).filter(|one| !one.is_empty());
        named.map(|one| one.parse().ok()).collect::<Option<_>>().map(Self)
    }

    /// Whether a message may be sent there: to the public internet, and to these networks.
    #[must_use]
    pub fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.0.iter().any(|network| network.contains(&address))
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&named.join(","))
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !INTERNAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !INTERNAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

const fn v4(octets: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(std::net::Ipv4Addr::from_octets(octets), bits)
}

const fn v6([first, second]: [u16; 2], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_permitted() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.8.8.8",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
        ];
        let permitted = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "168.63.129.15",
            "168.63.129.17",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
            "3ffe::1",
        ];
        let nothing = Networks::default();
        for address in refused {
            assert!(!nothing.permit(address.parse().unwrap()), "{address}");
        }
        for address in permitted {
            assert!(nothing.permit(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn networks_are_read_and_permit_what_they_hold() {
        let networks = Networks::parse(" 127.0.0.0/8, fd00::/8 ").unwrap();
        assert_eq!(networks.to_string(), "127.0.0.0/8,fd00::/8");
        let table =
            [("127.0.0.1", true), ("::ffff:127.0.0.1", true), ("fd00::1", true), ("::1", false), ("10.0.0.1", false)];
        for (address, permitted) in table {
            assert_eq!(networks.permit(address.parse().unwrap()), permitted, "{address}");
        }
        assert_eq!(Networks::parse(""), Some(Networks::default()));
        for text in ["10.0.0.0", "10.0.0.0/33", "localhost/8", "10.0.0.0/8;fd00::/8"] {
            assert_eq!(Networks::parse(text), None, "{text}");
        }
    }
}

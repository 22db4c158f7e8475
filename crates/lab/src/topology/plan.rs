//! Who has which address. Public addresses come from the documentation ranges (RFC 5737, RFC 3849).
//!
//! | where | IPv4 | IPv6 |
//! |---|---|---|
//! | public servers: portal 0, relays from 1 | 203.0.113.0/24, a /29 each | 2001:db8:a::/48, a /64 each |
//! | outside of client routers | 198.51.100.0/24, a /29 each | 2001:db8:c::/48, a /64 each |
//! | outside of gateway routers | 192.0.2.0/24, a /29 each | 2001:db8:b::/48, a /64 each |
//! | behind client router *i* | 10.1.*i*.0/24 | 2001:db8:c:1*ii*::/64 |
//! | behind gateway router *i* | 10.2.*i*.0/24 | 2001:db8:b:1*ii*::/64 |
//! | private network of site *s* | 10.30.*s*.0/24 | fd00:ad17:*s*::/64 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All outside addresses of client routers.
pub const CLIENT_PUBLIC: (&str, &str) = ("198.51.100.0/24", "2001:db8:c::/48");
/// All outside addresses of gateway routers, and the networks behind them.
pub const GATEWAY_PUBLIC: (&str, &str) = ("192.0.2.0/24", "2001:db8:b::/48");
/// The resolver every client is told to use; it runs on the `internet` machine.
pub const PUBLIC_RESOLVER: Pair =
    Pair { v4: Ipv4Addr::new(203, 0, 113, 253), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 0x53) };

/// The IPv4 and the IPv6 address of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The address of one version.
    pub fn of(self, families: Families) -> IpAddr {
        match families {
            Families::V6 => self.v6.into(),
            Families::Both | Families::V4 => self.v4.into(),
        }
    }
}

/// IP versions of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Families {
    /// Whether IPv4 is there.
    pub const fn has_v4(self) -> bool {
        !matches!(self, Self::V6)
    }

    /// Whether IPv6 is there.
    pub const fn has_v6(self) -> bool {
        !matches!(self, Self::V4)
    }
}

/// A point-to-point network: the near end routes, the far end is the machine it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Address of the router.
    pub near: Pair,
    /// Address of the machine.
    pub far: Pair,
    /// IPv4 prefix length.
    pub v4_length: u8,
}

/// Kinds of outside networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Portal and relays.
    Servers,
    /// Client routers.
    Clients,
    /// Gateway routers.
    Gateways,
}

impl Zone {
    const fn v4(self, last: u8) -> Ipv4Addr {
        match self {
            Self::Servers => Ipv4Addr::new(203, 0, 113, last),
            Self::Clients => Ipv4Addr::new(198, 51, 100, last),
            Self::Gateways => Ipv4Addr::new(192, 0, 2, last),
        }
    }

    const fn v6(self, subnet: u16, last: u16) -> Ipv6Addr {
        let zone = match self {
            Self::Servers => 0xa,
            Self::Gateways => 0xb,
            Self::Clients => 0xc,
        };
        Ipv6Addr::new(0x2001, 0xdb8, zone, subnet, 0, 0, 0, last)
    }

    /// Between the `internet` machine and number `index` of this zone, 0 to 29.
    pub fn outside(self, index: u8) -> Subnet {
        let pair = |last: u8| Pair { v4: self.v4(8 * index + last), v6: self.v6(index.into(), last.into()) };
        Subnet { near: pair(1), far: pair(2), v4_length: 29 }
    }

    /// Between router number `index` of this zone and the machine behind it.
    pub fn inside(self, index: u8) -> Subnet {
        let second = if matches!(self, Self::Clients) { 1 } else { 2 };
        let pair = |last: u8| Pair {
            v4: Ipv4Addr::new(10, second, index, last),
            v6: self.v6(0x100 + u16::from(index), last.into()),
        };
        Subnet { near: pair(1), far: pair(2), v4_length: 24 }
    }
}

/// An address in the private network of a site: 11 and up gateways, 53 DNS, 80 web.
pub const fn site_address(site: u8, last: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(10, 30, site, last),
        v6: Ipv6Addr::new(0xfd00, 0xad17, site as u16, 0, 0, 0, 0, last as u16),
    }
}

//! Which traffic of a resource is let through.

use serde::{Deserialize, Serialize};

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The ports from `first` to `last`, both included; `None` when the range is empty.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// Whether `port` is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The first and the last port.
    pub const fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }
}

impl TryFrom<(u16, u16)> for PortRange {
    type Error = String;

    fn try_from((first, last): (u16, u16)) -> Result<Self, Self::Error> {
        Self::new(first, last).ok_or_else(|| format!("port range {first}-{last} is empty"))
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> Self {
        range.bounds()
    }
}

/// One kind of traffic that a resource lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum Filter {
    /// TCP to these destination ports.
    Tcp {
        /// The destination ports.
        ports: PortRange,
    },
    /// UDP to these destination ports.
    Udp {
        /// The destination ports.
        ports: PortRange,
    },
    /// ICMP and ICMPv6 echo.
    Icmp,
}

/// The first packet of a flow, as far as filters look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// TCP to a destination port.
    Tcp(u16),
    /// UDP to a destination port.
    Udp(u16),
    /// ICMP or ICMPv6.
    Icmp,
    /// Any other IP protocol.
    Other(u8),
}

/// Whether `filters` let `traffic` through: an empty list permits all, otherwise one must match.
pub fn permits(filters: &[Filter], traffic: Traffic) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.permits(traffic))
}

impl Filter {
    /// Whether this filter lets `traffic` through.
    pub fn permits(&self, traffic: Traffic) -> bool {
        match (self, traffic) {
            (Self::Tcp { ports }, Traffic::Tcp(port)) | (Self::Udp { ports }, Traffic::Udp(port)) => {
                ports.contains(port)
            }
            (Self::Icmp, Traffic::Icmp) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_permits_all() {
        assert!(permits(&[], Traffic::Other(47)));
    }

    #[test]
    fn a_list_permits_only_what_it_names() {
        let filters = [Filter::Tcp { ports: PortRange::new(80, 443).unwrap() }, Filter::Icmp];
        assert!(permits(&filters, Traffic::Tcp(80)));
        assert!(permits(&filters, Traffic::Tcp(443)));
        assert!(!permits(&filters, Traffic::Tcp(444)));
        assert!(!permits(&filters, Traffic::Udp(80)));
        assert!(permits(&filters, Traffic::Icmp));
        assert!(!permits(&filters, Traffic::Other(47)));
    }

    #[test]
    fn an_empty_range_is_refused_on_the_wire() {
        assert!(serde_json::from_str::<PortRange>("[2,1]").is_err());
        let range: PortRange = serde_json::from_str("[1,2]").unwrap();
        assert_eq!(serde_json::to_string(&range).unwrap(), "[1,2]");
    }
}

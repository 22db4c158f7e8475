//! Which traffic of a resource is let through.

use std::fmt;

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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// Why a filter could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a filter; write tcp/80,443 or udp/5000-5010 or tcp or icmp")]
pub struct FilterError(String);

impl Filter {
    /// Reads filters as people write them: `tcp/80,443`, `udp/5000-5010`, `tcp`, `icmp`.
    ///
    /// One text may give several filters, one for each range of ports.
    ///
    /// # Errors
    ///
    /// When the text has none of these forms.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, FilterError> {
        let wrong = || FilterError(text.chars().take(100).collect());
        let lower = text.trim().to_ascii_lowercase();
        let (protocol, ports) = match lower.split_once('/') {
            Some((protocol, ports)) => (protocol, Some(ports)),
            None => (lower.as_str(), None),
        };
        let ranges = match ports {
            None => vec![PortRange::ALL],
            Some(list) => list.split(',').map(parse_range).collect::<Option<Vec<_>>>().ok_or_else(wrong)?,
        };
        match (protocol, ports) {
            ("tcp", _) => Ok(ranges.into_iter().map(|ports| Self::Tcp { ports }).collect()),
            ("udp", _) => Ok(ranges.into_iter().map(|ports| Self::Udp { ports }).collect()),
            ("icmp", None) => Ok(vec![Self::Icmp]),
            _ => Err(wrong()),
        }
    }
}

fn parse_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(first.trim().parse().ok()?, last.trim().parse().ok()?)
}

/// The form that [`Filter::parse_list`] reads.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, ports) = match self {
            Self::Tcp { ports } => ("tcp", *ports),
            Self::Udp { ports } => ("udp", *ports),
            Self::Icmp => return f.write_str("icmp"),
        };
        match ports.bounds() {
            _ if ports == PortRange::ALL => f.write_str(protocol),
            (first, last) if first == last => write!(f, "{protocol}/{first}"),
            (first, last) => write!(f, "{protocol}/{first}-{last}"),
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

    #[test]
    fn filters_are_read_and_written_in_one_form() {
        let written = |text: &str| {
            Filter::parse_list(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(written("TCP/80, 443,8000-8080").unwrap(), ["tcp/80", "tcp/443", "tcp/8000-8080"]);
        assert_eq!(written("udp").unwrap(), ["udp"]);
        assert_eq!(written("icmp").unwrap(), ["icmp"]);
        for wrong in ["", "tcp/", "tcp/80,", "tcp/443-80", "tcp/65536", "icmp/1", "sctp/1", "80"] {
            assert!(written(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn filters_survive_both_of_their_forms(first in 0..=u16::MAX, length in 0..=u16::MAX, which in 0..3_u8) {
            let ports = PortRange::new(first, first.saturating_add(length)).unwrap();
            let filter = match which {
                0 => Filter::Tcp { ports },
                1 => Filter::Udp { ports },
                _ => Filter::Icmp,
            };
            proptest::prop_assert_eq!(Filter::parse_list(&filter.to_string()), Ok(vec![filter]));
            let json = serde_json::to_string(&filter).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,60}") {
            let _ = Filter::parse_list(&text);
        }
    }
}

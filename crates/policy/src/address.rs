//! Reading and checking the address of a resource as an administrator wrote it.
//!
//! A resource that covers loopback, link-local or multicast addresses would reach the gateway
//! itself or its neighbours' discovery protocols, never what was meant; a default route would
//! swallow all traffic where an Internet resource is the deliberate way to do so. All of these
//! are refused before they are stored.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ResourceAddress;

/// The longest name in presentation form, without the trailing dot (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;

/// The longest label (RFC 1035, 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Ranges that no resource may touch, with what they are for.
const FORBIDDEN_V4: [(Ipv4Net, &str); 5] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8), "\"this network\""),
    (Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8), "loopback"),
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), "link-local"),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), "multicast"),
    (Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32), "broadcast"),
];

/// Ranges that no resource may touch, with what they are for.
const FORBIDDEN_V6: [(Ipv6Net, &str); 5] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "unspecified"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), "IPv4-mapped"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), "link-local"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), "multicast"),
];

/// Why an address cannot be a resource. Always the administrator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not an address of that type.
    #[error("`{0}` is not {1}")]
    Syntax(String, &'static str),
    /// The type is none of `dns`, `ip`, `cidr`, `internet`.
    #[error("type `{0}` is not one of dns, ip, cidr, internet")]
    UnknownType(String),
    /// A network of every address; there is a resource type for that.
    #[error("{0} is the default route; use a resource of type internet")]
    DefaultRoute(IpNet),
    /// The network touches a range that is not routed to a resource.
    #[error("{network} touches the {purpose} range {range}")]
    Forbidden {
        /// What was asked for.
        network: IpNet,
        /// What it touches.
        range: IpNet,
        /// What that range is for.
        purpose: &'static str,
    },
    /// The name pattern is not usable.
    #[error("`{0}`: {1}")]
    Pattern(String, &'static str),
}

impl ResourceAddress {
    /// Reads an address of type `kind` (`dns`, `ip`, `cidr`, `internet`) and checks it.
    ///
    /// `text` is ignored for `internet`.
    ///
    /// # Errors
    ///
    /// See [`AddressError`].
    pub fn parse(kind: &str, text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let syntax = |what| AddressError::Syntax(text.chars().take(300).collect(), what);
        let address = match kind {
            "dns" => Self::Dns { pattern: text.to_owned() },
            "ip" => Self::Ip { address: text.parse().map_err(|_| syntax("an IP address"))? },
            "cidr" => Self::Cidr { network: text.parse().map_err(|_| syntax("a network (address/bits)"))? },
            "internet" => Self::Internet,
            other => return Err(AddressError::UnknownType(other.chars().take(32).collect())),
        };
        address.validated()
    }

    /// Checks the address and brings it into its canonical form: names lower case and without
    /// trailing dot, networks without host bits.
    ///
    /// # Errors
    ///
    /// See [`AddressError`].
    pub fn validated(self) -> Result<Self, AddressError> {
        match self {
            Self::Dns { pattern } => Ok(Self::Dns { pattern: check_pattern(&pattern)? }),
            Self::Ip { address } => {
                check_network(IpNet::from(address))?;
                Ok(Self::Ip { address })
            }
            Self::Cidr { network } => Ok(Self::Cidr { network: check_network(network.trunc())? }),
            Self::Internet => Ok(Self::Internet),
        }
    }

    /// The type as [`Self::parse`] takes it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns",
            Self::Ip { .. } => "ip",
            Self::Cidr { .. } => "cidr",
            Self::Internet => "internet",
        }
    }
}

/// The text as [`ResourceAddress::parse`] takes it; `*` for the Internet.
impl fmt::Display for ResourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { pattern } => f.write_str(pattern),
            Self::Ip { address } => address.fmt(f),
            Self::Cidr { network } => network.fmt(f),
            Self::Internet => f.write_str("*"),
        }
    }
}

fn check_network(network: IpNet) -> Result<IpNet, AddressError> {
    if network.prefix_len() == 0 {
        return Err(AddressError::DefaultRoute(network));
    }
    let touched = match network {
        IpNet::V4(v4) => FORBIDDEN_V4
            .iter()
            .find(|(range, _)| overlap(v4.contains(range), range.contains(&v4)))
            .map(|(range, purpose)| (IpNet::V4(*range), *purpose)),
        IpNet::V6(v6) => FORBIDDEN_V6
            .iter()
            .find(|(range, _)| overlap(v6.contains(range), range.contains(&v6)))
            .map(|(range, purpose)| (IpNet::V6(*range), *purpose)),
    };
    match touched {
        None => Ok(network),
        Some((range, purpose)) => Err(AddressError::Forbidden { network, range: range.trunc(), purpose }),
    }
}

/// Two networks share addresses exactly when one contains the other.
const fn overlap(contains: bool, contained: bool) -> bool {
    contains || contained
}

fn check_pattern(text: &str) -> Result<String, AddressError> {
    let pattern = text.trim().trim_end_matches('.').to_ascii_lowercase();
    let wrong = |why| AddressError::Pattern(text.chars().take(300).collect(), why);
    if pattern.is_empty() {
        return Err(wrong("a name is needed"));
    }
    if pattern.len() > LONGEST_NAME {
        return Err(wrong("a name has at most 253 characters"));
    }
    for label in pattern.split('.') {
        check_label(label).map_err(wrong)?;
    }
    let last = pattern.rsplit('.').next().unwrap_or_default();
    if last.contains(['*', '?']) {
        return Err(wrong("the last label must be without wildcards"));
    }
    if pattern.parse::<IpAddr>().is_ok() {
        return Err(wrong("this is an address; use type ip"));
    }
    Ok(pattern)
}

fn check_label(label: &str) -> Result<(), &'static str> {
    if label == "*" || label == "**" {
        return Ok(());
    }
    if label.is_empty() {
        return Err("a label is empty");
    }
    if label.len() > LONGEST_LABEL {
        return Err("a label has at most 63 characters");
    }
    if label.contains('*') {
        return Err("`*` and `**` stand for whole labels");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("a label cannot begin or end with a hyphen");
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '?');
    if !label.chars().all(allowed) {
        return Err(
            "only letters, digits, `-`, `_` and wildcards; write other scripts in A-label form (xn--)",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, text: &str) -> Result<String, String> {
        ResourceAddress::parse(kind, text)
            .map(|address| address.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_come_out_canonical() {
        for (kind, text, canonical) in [
            ("dns", " Wiki.Corp. ", "wiki.corp"),
            ("dns", "**.corp", "**.corp"),
            ("dns", "*.db-?.corp.example", "*.db-?.corp.example"),
            ("dns", "_sip.corp", "_sip.corp"),
            ("ip", "10.1.2.3", "10.1.2.3"),
            ("ip", "2001:DB8::1", "2001:db8::1"),
            ("cidr", "10.1.2.3/8", "10.0.0.0/8"),
            ("cidr", "2001:db8::1/32", "2001:db8::/32"),
            ("internet", "", "*"),
        ] {
            assert_eq!(parse(kind, text).as_deref(), Ok(canonical), "{kind} {text}");
        }
    }

    #[test]
    fn networks_that_are_no_resource_are_refused() {
        for (kind, text, says) in [
            ("cidr", "0.0.0.0/0", "default route"),
            ("cidr", "::/0", "default route"),
            ("ip", "127.0.0.1", "loopback"),
            ("cidr", "64.0.0.0/2", "loopback"),
            ("ip", "::1", "loopback"),
            ("ip", "0.0.0.0", "this network"),
            ("ip", "169.254.169.254", "link-local"),
            ("ip", "fe80::1", "link-local"),
            ("ip", "239.1.2.3", "multicast"),
            ("cidr", "ff02::/16", "multicast"),
            ("ip", "255.255.255.255", "broadcast"),
            ("ip", "::ffff:10.0.0.1", "IPv4-mapped"),
            ("cidr", "::/1", "unspecified"),
        ] {
            let error = parse(kind, text).unwrap_err();
            assert!(error.contains(says), "{kind} {text}: {error}");
        }
    }

    #[test]
    fn patterns_that_match_nothing_or_too_much_are_refused() {
        let long_label = format!("{}.corp", "a".repeat(64));
        let long_name = format!("{}corp", "abcdefg.".repeat(32));
        for text in [
            "",
            ".",
            "a..b",
            "*",
            "**",
            "corp.*",
            "a?",
            "w*.corp",
            "***.corp",
            "-a.corp",
            "a-.corp",
            "a b",
            "ä.corp",
            "10.1.2.3",
            "a/b",
            "a:80",
            &long_label,
            &long_name,
        ] {
            assert!(parse("dns", text).is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(parse("ip", "10.1").unwrap_err(), "`10.1` is not an IP address");
        assert_eq!(parse("cidr", "10.0.0.0").unwrap_err(), "`10.0.0.0` is not a network (address/bits)");
        assert_eq!(parse("url", "x").unwrap_err(), "type `url` is not one of dns, ip, cidr, internet");
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_is_accepted_again_and_stays_the_same(text in "[a-zA-Z0-9*?._:/-]{0,40}") {
            for kind in ["dns", "ip", "cidr"] {
                if let Ok(address) = ResourceAddress::parse(kind, &text) {
                    let again = ResourceAddress::parse(kind, &address.to_string());
                    proptest::prop_assert_eq!(again, Ok(address));
                }
            }
        }

        #[test]
        fn no_text_makes_parsing_panic(kind in ".{0,8}", text in ".{0,400}") {
            let _ = ResourceAddress::parse(&kind, &text);
            let _ = ResourceAddress::parse("dns", &text);
        }

        #[test]
        fn no_accepted_network_holds_a_forbidden_address(bits in proptest::prelude::any::<u32>(), prefix in 0..=32_u8) {
            let network = Ipv4Net::new(Ipv4Addr::from(bits), prefix).unwrap();
            if ResourceAddress::parse("cidr", &network.to_string()).is_ok() {
                for bad in ["127.0.0.1", "169.254.169.254", "224.0.0.251", "255.255.255.255", "0.0.0.0"] {
                    proptest::prop_assert!(!network.contains(&bad.parse::<Ipv4Addr>().unwrap()), "{network} {bad}");
                }
            }
        }
    }
}

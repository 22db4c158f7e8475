//! What the operating system's tunnel interface is to look like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The MTU of the interface until a path is known to carry more.
///
/// Most paths carry it. For those that do not, or are not known yet, TCP is cut more finely on its way, and the senders
/// of anything else are told.
pub const DEFAULT_MTU: u16 = 1420;

/// The whole desired state of the tunnel interface; applying it twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The interface's own address (a /32).
    pub ipv4: Ipv4Addr,
    /// The interface's own address (a /128).
    pub ipv6: Ipv6Addr,
    /// The largest inner packet in bytes.
    pub mtu: u16,
    /// Ranges of which names get their addresses, a part of `routes`; empty on a gateway.
    pub proxy_ranges: Vec<IpNet>,
    /// Networks that are routed into the interface, sorted; none covers another.
    pub routes: Vec<IpNet>,
    /// Whether everything else is routed into the interface too (an Internet resource).
    pub default_route: bool,
    /// Where the system's resolver is to send its queries; empty on a gateway.
    pub dns_servers: Vec<IpAddr>,
    /// Domains that the system's resolver appends to single labels.
    pub search_domains: Vec<String>,
}

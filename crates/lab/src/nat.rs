//! What stands between the peers: routers with address translation and a firewall, and paths that are cut.
//!
//! All of it is nftables. A rule set is always loaded whole, so a router's state is what was asked for last.
//! Translations of flows already known to the kernel stay when the kind of NAT changes; start new flows after.

use anyhow::Result;

use crate::world::Host;

/// How a router translates IPv4 sources. IPv6 is never translated, only filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Keeps the source port when it is free, whatever the destination: peers can predict it, and meet.
    PortPreserving,
    /// A new random port for every destination ("symmetric"): peers cannot predict it.
    Symmetric,
    /// No translation.
    None,
    /// Neither translation nor firewall: a plain network with a router in it.
    Open,
}

/// What a router lets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udp {
    /// Everything.
    Open,
    /// All but UDP, of which only DNS passes.
    Blocked,
    /// DNS and HTTPS alone, as in a strict company network.
    OnlyHttps,
}

/// A router with one inside and one outside interface; unsolicited packets from outside are dropped.
#[derive(Clone, Debug)]
pub struct Router {
    /// The machine itself.
    pub host: Host,
    inside: String,
    outside: String,
}

impl Router {
    /// Makes `host` a router between these interfaces and loads its first rules.
    ///
    /// # Errors
    /// When `nft` refuses the rules.
    pub fn new(host: &Host, inside: &str, outside: &str, nat: Nat) -> Result<Self> {
        let router = Self { host: host.clone(), inside: inside.to_owned(), outside: outside.to_owned() };
        router.set(nat, Udp::Open)?;
        Ok(router)
    }

    /// Replaces the rules.
    ///
    /// # Errors
    /// When `nft` refuses the rules.
    pub fn set(&self, nat: Nat, udp: Udp) -> Result<()> {
        self.host.nft(&router_rules(&self.inside, &self.outside, nat, udp))
    }
}

/// The rules of a router.
///
/// Unsolicited packets to the router itself are dropped in `input` before their connection is confirmed. An
/// answer would confirm it, and would then take the port that the inside host's own packet to the same peer
/// needs: the classic way to make hole punching fail on Linux.
fn router_rules(inside: &str, outside: &str, nat: Nat, udp: Udp) -> String {
    if nat == Nat::Open {
        return "flush ruleset\n".to_owned();
    }
    let masquerade = match nat {
        Nat::PortPreserving => format!("oifname \"{outside}\" masquerade"),
        Nat::Symmetric => format!("oifname \"{outside}\" masquerade random,fully-random"),
        Nat::None | Nat::Open => String::new(),
    };
    let udp = match udp {
        Udp::Open => String::new(),
        Udp::Blocked => "meta l4proto udp udp dport != 53 drop".to_owned(),
        Udp::OnlyHttps => format!(
            "meta l4proto udp udp dport != 53 drop
        iifname \"{inside}\" tcp dport != {{ 53, 443 }} drop"
        ),
    };
    format!(
        "flush ruleset
table inet filter {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname \"{outside}\" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname \"{outside}\" ct state established,related accept
        iifname \"{outside}\" drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        {udp}
        ct state established,related accept
        iifname \"{inside}\" oifname \"{outside}\" accept
    }}
}}
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {masquerade}
    }}
}}
"
    )
}

/// Two groups of public addresses that may be kept from talking to each other directly.
#[derive(Clone, Debug)]
pub struct DirectPaths {
    transit: Host,
    ipv4: [String; 2],
    ipv6: [String; 2],
}

impl DirectPaths {
    /// Paths that cross `transit` between the two groups, given as prefixes in CIDR form.
    pub fn new(transit: &Host, ipv4: [&str; 2], ipv6: [&str; 2]) -> Self {
        Self { transit: transit.clone(), ipv4: ipv4.map(str::to_owned), ipv6: ipv6.map(str::to_owned) }
    }

    /// Drops UDP between the groups, both ways, so that only a relay can carry it; also for flows that exist.
    ///
    /// # Errors
    /// When `nft` refuses the rules.
    pub fn block(&self) -> Result<()> {
        let ([a4, b4], [a6, b6]) = (&self.ipv4, &self.ipv6);
        self.transit.nft(&format!(
            "flush ruleset
table inet filter {{
    counter blocked {{ }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ip saddr {a4} ip daddr {b4} meta l4proto udp counter name blocked drop
        ip saddr {b4} ip daddr {a4} meta l4proto udp counter name blocked drop
        ip6 saddr {a6} ip6 daddr {b6} meta l4proto udp counter name blocked drop
        ip6 saddr {b6} ip6 daddr {a6} meta l4proto udp counter name blocked drop
    }}
}}
"
        ))
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// When `nft` refuses the rules.
    pub fn unblock(&self) -> Result<()> {
        self.transit.nft("flush ruleset\n")
    }
}

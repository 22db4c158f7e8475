//! The decision about each query: answer at once, or forward.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use domain::base::iana::{Rcode, Rtype};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::answer::{self, Records};
use crate::name::Name;
use crate::pattern::Pattern;
use crate::pattern_index::PatternIndex;
use crate::proxy_addresses::{Assignment, ProxyAddresses};
use crate::query::{DropReason, Query, Refusal};

/// Firefox turns its own DNS over HTTPS off when this name does not exist; with it on, resource names would bypass us.
const FIREFOX_CANARY: &str = "use-application-dns.net";
/// Discovery of encrypted resolvers (RFC 9462): forwarders answer for it themselves (section 6.4), or clients would find
/// the upstream's encrypted service and bypass us.
const RESOLVER_DISCOVERY: &str = "resolver.arpa";

/// Whether the resolver answers for `name` itself, because an upstream's answer would lead programs past it.
pub fn is_kept_from_upstreams(name: &Name) -> bool {
    name.as_str() == FIREFOX_CANARY || name.is_within(RESOLVER_DISCOVERY)
}

/// What to do with a query.
#[derive(Debug)]
pub enum Decision<'a> {
    /// Send this response.
    Answer(Vec<u8>),
    /// Ask an upstream resolver.
    Forward(Query<'a>),
    /// Nothing.
    Drop(DropReason),
}

/// Answers queries for names of resources; `K` is what the caller calls a resource.
#[derive(Debug)]
pub struct StubResolver<K> {
    resources: PatternIndex<K>,
    proxies: ProxyAddresses,
}

impl<K> StubResolver<K> {
    /// Without resources, with proxy addresses out of these ranges.
    pub fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Self {
        Self { resources: PatternIndex::default(), proxies: ProxyAddresses::new(ipv4, ipv6) }
    }

    /// Replaces all resources; names keep the addresses they have.
    pub fn set_resources(&mut self, resources: Vec<(Pattern, K)>) {
        let mut index = PatternIndex::default();
        for (pattern, key) in resources {
            index.insert(&pattern, key);
        }
        self.resources = index;
    }

    /// Changes the proxy ranges; if they differ, all names lose their addresses.
    pub fn set_proxy_ranges(&mut self, ipv4: Ipv4Net, ipv6: Ipv6Net) {
        if self.proxies.ranges() != (ipv4.trunc(), ipv6.trunc()) {
            self.proxies = ProxyAddresses::new(ipv4, ipv6);
        }
    }

    /// Decides about a DNS message that an application sent.
    pub fn handle_query<'a>(&mut self, now: Instant, message: &'a [u8]) -> Decision<'a> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Refusal::Drop(reason)) => return Decision::Drop(reason),
            Err(Refusal::Error(rcode)) => return Decision::from(answer::error(message, rcode)),
            Err(Refusal::EdnsVersion) => return Decision::from(answer::bad_edns_version(message)),
        };
        let Some(name) = query.name() else { return Decision::Forward(query) };
        match self.decide(now, &name, query.rtype()) {
            Some((rcode, records)) => Decision::from(answer::response(&query, rcode, records)),
            None => Decision::Forward(query),
        }
    }

    /// The resources whose patterns match `name`, most specific first.
    pub fn resources(&self, name: &Name) -> impl Iterator<Item = &K> {
        self.resources.find(name)
    }

    /// Whether `address` lies in the proxy ranges, assigned or not.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.contains(address)
    }

    /// The name and the addresses of the assignment that `address` belongs to.
    pub fn assignment_of(&self, address: IpAddr) -> Option<(&Name, Assignment)> {
        self.proxies.assignment_of(address)
    }

    /// Notes traffic to a proxy address, so that its name keeps it.
    pub fn touch(&mut self, now: Instant, address: IpAddr) {
        self.proxies.touch(now, address);
    }

    /// The answer to a question that is not for upstream.
    fn decide(&mut self, now: Instant, name: &Name, rtype: Rtype) -> Option<(Rcode, Records<'_>)> {
        if name.as_str() == FIREFOX_CANARY {
            return Some((Rcode::NXDOMAIN, Records::None));
        }
        if name.is_within(RESOLVER_DISCOVERY) {
            return Some((Rcode::NOERROR, Records::None));
        }
        if let Some(address) = reverse_address(name).filter(|address| self.proxies.contains(*address)) {
            return Some(match self.proxies.name(address) {
                Some(_) if !matches!(rtype, Rtype::PTR | Rtype::ANY) => (Rcode::NOERROR, Records::None),
                Some(owner) => (Rcode::NOERROR, Records::Pointer(owner)),
                None => (Rcode::NXDOMAIN, Records::None),
            });
        }
        if !self.resources.contains(name) {
            return None;
        }
        Some(self.addresses(now, name, rtype))
    }

    /// Only addresses are known here. All other types are empty, HTTPS and SVCB among them (their hints would bypass the
    /// proxy addresses): asking upstream would tell a stranger the name.
    fn addresses(&mut self, now: Instant, name: &Name, rtype: Rtype) -> (Rcode, Records<'static>) {
        if !matches!(rtype, Rtype::A | Rtype::AAAA | Rtype::ANY) {
            return (Rcode::NOERROR, Records::None);
        }
        match self.proxies.assign(now, name) {
            Ok(assignment) if rtype == Rtype::AAAA => (Rcode::NOERROR, Records::Ipv6(assignment)),
            // One type is enough for ANY (RFC 8482, 4.1).
            Ok(assignment) => (Rcode::NOERROR, Records::Ipv4(assignment)),
            Err(_) => (Rcode::SERVFAIL, Records::None),
        }
    }
}

impl From<Result<Vec<u8>, DropReason>> for Decision<'_> {
    fn from(answer: Result<Vec<u8>, DropReason>) -> Self {
        match answer {
            Ok(message) => Self::Answer(message),
            Err(reason) => Self::Drop(reason),
        }
    }
}

/// The address that a name of the reverse trees stands for (RFC 1035, 3.5; RFC 3596, 2.5).
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let text = name.as_str();
    if let Some(octets) = text.strip_suffix(".in-addr.arpa") {
        let mut address = [0; 4];
        let mut labels = octets.split('.').rev();
        for octet in &mut address {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(address)));
    }
    let mut bits: u128 = 0;
    let mut labels = text.strip_suffix(".ip6.arpa")?.split('.').rev();
    for _ in 0..32 {
        let nibble = labels.next().filter(|label| label.len() == 1)?;
        bits = bits << 4 | u128::from(u8::from_str_radix(nibble, 16).ok()?);
    }
    labels.next().is_none().then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

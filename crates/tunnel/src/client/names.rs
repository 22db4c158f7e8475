//! Names of DNS resources and their proxy addresses; the resolver that applications ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use adit_packet::PacketView;
use adit_policy::ResourceId;
use adit_protocol::Interface as Configuration;

use super::Client;

/// Names a query to an upstream resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsQueryId(pub u64);

/// How to ask an upstream resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DnsTransport {
    /// One datagram each way.
    Udp,
    /// Two bytes of length, then the message (RFC 7766).
    Tcp,
}

/// Why an upstream resolver gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DnsFailure {
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It could not be reached.
    #[error("not reachable")]
    Unreachable,
}

/// Who has a proxy address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) resource: ResourceId,
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Debug)]
pub(super) struct Names {
    resolver: (Ipv4Addr, Ipv6Addr),
}

impl Names {
    pub(super) fn new(_now: Instant, _seed: [u8; 32]) -> Self {
        Self { resolver: (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED) }
    }

    pub(super) fn configure(&mut self, _now: Instant, _configuration: &Configuration) {}

    pub(super) fn set_resources<'a>(
        &mut self,
        _now: Instant,
        _patterns: impl Iterator<Item = (ResourceId, &'a str)>,
    ) {
    }

    pub(super) const fn resolver(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.resolver
    }

    pub(super) fn is_resolver(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.resolver.0) || address == IpAddr::V6(self.resolver.1)
    }

    pub(super) fn is_proxy(&self, _address: IpAddr) -> bool {
        false
    }

    pub(super) fn owner(&mut self, _now: Instant, _address: IpAddr) -> Option<Owner> {
        None
    }

    pub(super) fn handle_timeout(&mut self, _now: Instant) {}

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }
}

impl Client {
    /// Resolvers of the system, for all names that are no resources.
    pub fn set_system_resolvers(&mut self, _now: Instant, _resolvers: Vec<SocketAddr>) {}

    /// Takes the answer of an upstream resolver.
    pub fn handle_dns_response(
        &mut self,
        _now: Instant,
        _id: DnsQueryId,
        _response: Result<Vec<u8>, DnsFailure>,
    ) {
    }

    pub(super) fn handle_resolver_packet(&mut self, _now: Instant, _packet: &[u8], _view: &PacketView) {}

    pub(super) fn collect_names(&mut self, _now: Instant) {}
}

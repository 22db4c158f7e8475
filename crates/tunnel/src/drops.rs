//! Why the slow path drops packets, by name and counted.

use std::fmt;

/// Why a packet went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Not a well-formed IP packet.
    Malformed,
    /// A packet from the TUN device that looks like a peer control message.
    ControlLookalike,
    /// A peer control message that cannot be read, or whose sender is not the peer.
    InvalidControl,
    /// Not a packet that starts a flow (fragment without ports, unknown protocol, ICMP without a flow).
    NotAFlow,
    /// No resource covers the destination.
    NoRoute,
    /// An address of the proxy range that no name has.
    UnknownProxyAddress,
    /// The tunnel is not configured yet.
    NotConfigured,
    /// The resource's filters do not let this traffic through.
    Filtered,
    /// The portal refused access.
    Refused,
    /// No gateway of the site is online.
    Offline,
    /// The name does not resolve where the resource lives.
    NameUnresolved,
    /// The name has addresses of the other IP family only, and the packet cannot be translated.
    Untranslatable,
    /// It waited for an authorization or a connection for too long.
    WaitedTooLong,
    /// Too much was waiting already.
    QueueFull,
    /// The source is not the address of the peer, or not ours.
    WrongSource,
    /// The destination may never be reached through a tunnel.
    ForbiddenDestination,
    /// No authorization covers the packet.
    Unauthorized,
    /// It came without a flow from the side that may not start one.
    Unsolicited,
    /// The peer is not known (any more).
    UnknownPeer,
    /// Neither a free port nor a free flow entry is left for the peer.
    NoFreePort,
    /// The connection could not carry it.
    NotConnected,
    /// A datagram from the network that belongs to nobody.
    UnknownDatagram,
    /// A packet to the resolver that is no query.
    InvalidQuery,
    /// An answer to a DNS query that nobody asked, or that does not answer it.
    UnknownQuery,
    /// A message of the portal that does not fit our state.
    StaleMessage,
    /// The machine was shut down.
    ShutDown,
}

impl DropReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 26] = [
        Self::Malformed,
        Self::ControlLookalike,
        Self::InvalidControl,
        Self::NotAFlow,
        Self::NoRoute,
        Self::UnknownProxyAddress,
        Self::NotConfigured,
        Self::Filtered,
        Self::Refused,
        Self::Offline,
        Self::NameUnresolved,
        Self::Untranslatable,
        Self::WaitedTooLong,
        Self::QueueFull,
        Self::WrongSource,
        Self::ForbiddenDestination,
        Self::Unauthorized,
        Self::Unsolicited,
        Self::UnknownPeer,
        Self::NoFreePort,
        Self::NotConnected,
        Self::UnknownDatagram,
        Self::InvalidQuery,
        Self::UnknownQuery,
        Self::StaleMessage,
        Self::ShutDown,
    ];

    /// The stable name, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ControlLookalike => "control_lookalike",
            Self::InvalidControl => "invalid_control",
            Self::NotAFlow => "not_a_flow",
            Self::NoRoute => "no_route",
            Self::UnknownProxyAddress => "unknown_proxy_address",
            Self::NotConfigured => "not_configured",
            Self::Filtered => "filtered",
            Self::Refused => "refused",
            Self::Offline => "offline",
            Self::NameUnresolved => "name_unresolved",
            Self::Untranslatable => "untranslatable",
            Self::WaitedTooLong => "waited_too_long",
            Self::QueueFull => "queue_full",
            Self::WrongSource => "wrong_source",
            Self::ForbiddenDestination => "forbidden_destination",
            Self::Unauthorized => "unauthorized",
            Self::Unsolicited => "unsolicited",
            Self::UnknownPeer => "unknown_peer",
            Self::NoFreePort => "no_free_port",
            Self::NotConnected => "not_connected",
            Self::UnknownDatagram => "unknown_datagram",
            Self::InvalidQuery => "invalid_query",
            Self::UnknownQuery => "unknown_query",
            Self::StaleMessage => "stale_message",
            Self::ShutDown => "shut_down",
        }
    }
}

impl DropReason {
    /// What a worker counts while it drops the packets of a refused flow by itself.
    pub(crate) const fn for_worker(self) -> adit_dataplane::DropReason {
        use adit_dataplane::DropReason as Worker;
        match self {
            Self::NoRoute | Self::UnknownProxyAddress | Self::ForbiddenDestination => Worker::NoResource,
            Self::Filtered => Worker::FilteredByPolicy,
            Self::Offline => Worker::NoGateway,
            Self::NameUnresolved => Worker::NameUnresolved,
            Self::Untranslatable => Worker::Untranslatable,
            Self::NoFreePort => Worker::TooManyFlows,
            Self::WrongSource => Worker::SpoofedSource,
            Self::Unauthorized => Worker::NotAuthorized,
            _ => Worker::Refused,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each [`DropReason`] occurred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    pub(crate) const fn new() -> Self {
        Self([0; DropReason::ALL.len()])
    }

    pub(crate) fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&mut self, reason: DropReason, packets: usize) {
        self.0[reason as usize] += packets as u64;
    }

    /// Packets dropped for `reason` so far.
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All counters that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason))).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason}");
        }
    }
}

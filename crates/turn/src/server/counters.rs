//! What the server machine counts.

use crate::stun::Method;
use std::collections::BTreeMap;

/// Why a datagram went nowhere.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum DropReason {
    /// Neither STUN nor ChannelData.
    Garbage,
    /// STUN, but nothing a server accepts, or an indication it does not understand.
    Unexpected,
    /// Data for a channel that is not bound.
    UnknownChannel,
    /// Data from or for a peer without permission.
    NoPermission,
    /// Data for an address that policy forbids.
    Forbidden,
    /// Data at a relayed port that nobody holds.
    UnknownPort,
    /// The prefix has had enough unauthenticated replies for now.
    OverBudget,
    /// The buffer lacks room for the header.
    NoHeadroom,
    /// The user has had its share of packets or bytes for now.
    OverQuota,
    /// Too long to be wrapped up.
    TooLong,
}

impl DropReason {
    /// Every reason, in the order of [`Counters::dropped`].
    pub const ALL: [Self; 10] = [
        Self::Garbage,
        Self::Unexpected,
        Self::UnknownChannel,
        Self::NoPermission,
        Self::Forbidden,
        Self::UnknownPort,
        Self::OverBudget,
        Self::NoHeadroom,
        Self::OverQuota,
        Self::TooLong,
    ];

    /// A short name, fit as a metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Unexpected => "unexpected",
            Self::UnknownChannel => "unknown_channel",
            Self::NoPermission => "no_permission",
            Self::Forbidden => "forbidden",
            Self::UnknownPort => "unknown_port",
            Self::OverBudget => "over_budget",
            Self::NoHeadroom => "no_headroom",
            Self::OverQuota => "over_quota",
            Self::TooLong => "too_long",
        }
    }
}

/// What the server counts; nothing here grows with clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Data packets and bytes from clients to peers.
    pub to_peers: (u64, u64),
    /// Data packets and bytes from peers to clients.
    pub to_clients: (u64, u64),
    /// Responses by method and error code; 0 for success.
    pub responses: BTreeMap<(Method, u16), u64>,
    /// Dropped datagrams, indexed as [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Adds what another machine of the same relay has counted.
    pub fn add(&mut self, other: &Self) {
        let pairs = [(&mut self.to_peers, other.to_peers), (&mut self.to_clients, other.to_clients)];
        for (ours, (packets, bytes)) in pairs {
            ours.0 += packets;
            ours.1 += bytes;
        }
        for (kind, count) in &other.responses {
            *self.responses.entry(*kind).or_default() += count;
        }
        for (ours, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *ours += theirs;
        }
    }

    /// How many responses of any method had this error code; 0 for success.
    pub fn responses(&self, code: u16) -> u64 {
        self.responses.iter().filter(|((_, other), _)| *other == code).map(|(_, count)| count).sum()
    }

    /// How many datagrams were dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}

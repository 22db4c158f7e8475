//! Named reasons for dropped packets and datagrams.

use adit_packet::TranslateError;
use adit_wireguard::{DropReason as TunnelDrop, SealError};

/// Why a packet or datagram was dropped.
///
/// The last group is for refusals by the control thread, which it caches in the flow table
/// with [`Update::FlowRefused`](crate::Update::FlowRefused).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Not a well-formed IPv4 or IPv6 packet.
    MalformedPacket,
    /// A packet from the TUN device that looks like a peer-to-peer control message.
    ControlLookalike,
    /// A later fragment whose first fragment was not seen just before.
    FragmentWithoutFirst,
    /// ICMP that is neither echo nor an error, such as router advertisements.
    UnsupportedIcmp,
    /// An ICMP error that quotes nothing usable.
    MalformedIcmpError,
    /// An ICMP error for a flow that does not exist, or not addressed to that flow's sender.
    UnrelatedIcmpError,
    /// The rewrite does not fit the packet.
    RewriteFailed,
    /// The buffer has no room for headers and tag.
    BufferTooSmall,
    /// Longer than what the path carries; its sender is told.
    PacketTooBig,
    /// The session cannot seal any more.
    SealFailed,
    /// Channel data that is shorter than its header says.
    MalformedChannelData,
    /// Packets without a flow come faster than they may: a scan, as a rule.
    NewFlowsTooFast,
    /// A datagram that does not decrypt.
    Decryption,
    /// A datagram whose counter was seen before.
    Replayed,
    /// A datagram whose counter lies below the replay window.
    BelowWindow,
    /// A datagram of a session past its end of life.
    SessionExpired,
    /// A flow whose parts contradict each other was to be installed.
    InconsistentFlow,
    /// A fragment of a flow whose ends speak different IP families.
    UntranslatableFragment,
    /// A packet of such a flow with nothing that corresponds to it in the other family.
    Untranslatable,

    /// Refused, without a finer reason.
    Refused,
    /// The destination belongs to no resource.
    NoResource,
    /// The destination belongs to a resource, but the portal did not grant access.
    NotAuthorized,
    /// The resource is granted, but not this protocol or port.
    FilteredByPolicy,
    /// The authorization is over.
    AuthorizationExpired,
    /// A packet from a peer that does not carry the peer's own tunnel address.
    SpoofedSource,
    /// No gateway serves the resource now.
    NoGateway,
    /// The name behind the destination could not be resolved.
    NameUnresolved,
    /// The peer or resource has as many flows as it may.
    TooManyFlows,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 28] = [
        Self::MalformedPacket,
        Self::ControlLookalike,
        Self::FragmentWithoutFirst,
        Self::UnsupportedIcmp,
        Self::MalformedIcmpError,
        Self::UnrelatedIcmpError,
        Self::RewriteFailed,
        Self::BufferTooSmall,
        Self::PacketTooBig,
        Self::SealFailed,
        Self::MalformedChannelData,
        Self::NewFlowsTooFast,
        Self::Decryption,
        Self::Replayed,
        Self::BelowWindow,
        Self::SessionExpired,
        Self::InconsistentFlow,
        Self::UntranslatableFragment,
        Self::Untranslatable,
        Self::Refused,
        Self::NoResource,
        Self::NotAuthorized,
        Self::FilteredByPolicy,
        Self::AuthorizationExpired,
        Self::SpoofedSource,
        Self::NoGateway,
        Self::NameUnresolved,
        Self::TooManyFlows,
    ];

    /// The name used in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedPacket => "malformed_packet",
            Self::ControlLookalike => "control_lookalike",
            Self::FragmentWithoutFirst => "fragment_without_first",
            Self::UnsupportedIcmp => "unsupported_icmp",
            Self::MalformedIcmpError => "malformed_icmp_error",
            Self::UnrelatedIcmpError => "unrelated_icmp_error",
            Self::RewriteFailed => "rewrite_failed",
            Self::BufferTooSmall => "buffer_too_small",
            Self::PacketTooBig => "packet_too_big",
            Self::SealFailed => "seal_failed",
            Self::MalformedChannelData => "malformed_channel_data",
            Self::NewFlowsTooFast => "new_flows_too_fast",
            Self::Decryption => "decryption",
            Self::Replayed => "replayed",
            Self::BelowWindow => "below_window",
            Self::SessionExpired => "session_expired",
            Self::InconsistentFlow => "inconsistent_flow",
            Self::UntranslatableFragment => "untranslatable_fragment",
            Self::Untranslatable => "untranslatable",
            Self::Refused => "refused",
            Self::NoResource => "no_resource",
            Self::NotAuthorized => "not_authorized",
            Self::FilteredByPolicy => "filtered_by_policy",
            Self::AuthorizationExpired => "authorization_expired",
            Self::SpoofedSource => "spoofed_source",
            Self::NoGateway => "no_gateway",
            Self::NameUnresolved => "name_unresolved",
            Self::TooManyFlows => "too_many_flows",
        }
    }
}

impl From<TunnelDrop> for DropReason {
    /// Data datagrams fail for four reasons; the handshake's reasons do not occur here and
    /// count as undecryptable.
    fn from(reason: TunnelDrop) -> Self {
        match reason {
            TunnelDrop::Replayed => Self::Replayed,
            TunnelDrop::BelowWindow => Self::BelowWindow,
            TunnelDrop::SessionExpired => Self::SessionExpired,
            _ => Self::Decryption,
        }
    }
}

impl From<SealError> for DropReason {
    fn from(error: SealError) -> Self {
        match error {
            SealError::BufferTooSmall => Self::BufferTooSmall,
            SealError::NoSession | SealError::CounterExhausted | SealError::Cipher => Self::SealFailed,
        }
    }
}

impl From<TranslateError> for DropReason {
    fn from(error: TranslateError) -> Self {
        match error {
            TranslateError::Fragment => Self::UntranslatableFragment,
            TranslateError::NoCounterpart | TranslateError::Checksum => Self::Untranslatable,
            TranslateError::FamilyMismatch | TranslateError::WrongView => Self::RewriteFailed,
            TranslateError::TooLong => Self::BufferTooSmall,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        for (position, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
        let names: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::name).into();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}

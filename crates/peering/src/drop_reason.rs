//! Named reasons for dropped datagrams, and counters.

use adit_wireguard::DropReason as WireGuardReason;

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum DropReason {
    /// No protocol that we speak starts like this.
    #[error("unknown kind of datagram")]
    UnknownKind,
    /// It looks like STUN and is not.
    #[error("malformed STUN message")]
    MalformedStun,
    /// A check for credentials that no connection has.
    #[error("STUN for an unknown user name")]
    UnknownUser,
    /// A response to no request of ours.
    #[error("STUN response to nothing")]
    UnmatchedResponse,
    /// Wrong message integrity, or not for this agent.
    #[error("unauthentic STUN message")]
    UnauthenticStun,
    /// A copy of an initiation that was handled already.
    #[error("copy of an initiation")]
    DuplicateInitiation,
    /// WireGuard refused it.
    #[error("WireGuard: {0:?}")]
    WireGuard(WireGuardReason),
    /// Authentic, but its connection is gone.
    #[error("no such connection")]
    UnknownConnection,
    /// It came over a stream that is ours no more.
    #[error("no such stream")]
    UnknownStream,
    /// A reset that no stored ticket confirms.
    #[error("reset without a valid token")]
    InvalidReset,
    /// A peer control message that does not parse or names other addresses.
    #[error("malformed peer control message")]
    MalformedControl,
}

impl DropReason {
    /// The name used in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown_kind",
            Self::MalformedStun => "malformed_stun",
            Self::UnknownUser => "unknown_user",
            Self::UnmatchedResponse => "unmatched_response",
            Self::UnauthenticStun => "unauthentic_stun",
            Self::DuplicateInitiation => "duplicate_initiation",
            Self::WireGuard(reason) => reason.name(),
            Self::UnknownConnection => "unknown_connection",
            Self::UnknownStream => "unknown_stream",
            Self::InvalidReset => "invalid_reset",
            Self::MalformedControl => "malformed_control",
        }
    }
}

/// How often each reason applied, and a few facts worth a number.
///
/// WireGuard's own reasons are counted by the device, see
/// [`Node::wireguard_counters`](crate::Node::wireguard_counters).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// [`DropReason::UnknownKind`].
    pub unknown_kind: u64,
    /// [`DropReason::MalformedStun`].
    pub malformed_stun: u64,
    /// [`DropReason::UnknownUser`].
    pub unknown_user: u64,
    /// [`DropReason::UnmatchedResponse`].
    pub unmatched_response: u64,
    /// [`DropReason::UnauthenticStun`].
    pub unauthentic_stun: u64,
    /// [`DropReason::DuplicateInitiation`].
    pub duplicate_initiation: u64,
    /// [`DropReason::WireGuard`], all together.
    pub wireguard: u64,
    /// [`DropReason::UnknownConnection`].
    pub unknown_connection: u64,
    /// [`DropReason::UnknownStream`].
    pub unknown_stream: u64,
    /// [`DropReason::InvalidReset`].
    pub invalid_reset: u64,
    /// [`DropReason::MalformedControl`].
    pub malformed_control: u64,
    /// Resets sent to clients whose session is unknown.
    pub resets_sent: u64,
    /// Resets not sent because of the rate limit.
    pub resets_suppressed: u64,
    /// Datagrams not sent because no relay or permission could carry them.
    pub unsendable: u64,
    /// Times that probes began.
    pub probings: u64,
}

impl Counters {
    pub(crate) fn count(&mut self, reason: DropReason) {
        let counter = match reason {
            DropReason::UnknownKind => &mut self.unknown_kind,
            DropReason::MalformedStun => &mut self.malformed_stun,
            DropReason::UnknownUser => &mut self.unknown_user,
            DropReason::UnmatchedResponse => &mut self.unmatched_response,
            DropReason::UnauthenticStun => &mut self.unauthentic_stun,
            DropReason::DuplicateInitiation => &mut self.duplicate_initiation,
            DropReason::WireGuard(_) => &mut self.wireguard,
            DropReason::UnknownConnection => &mut self.unknown_connection,
            DropReason::UnknownStream => &mut self.unknown_stream,
            DropReason::InvalidReset => &mut self.invalid_reset,
            DropReason::MalformedControl => &mut self.malformed_control,
        };
        *counter += 1;
    }
}

//! Named reasons for dropped datagrams, and counters.

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than the smallest message, or not the exact length of its type.
    WrongLength,
    /// The type byte is none of the four, or a reserved byte is not zero.
    UnknownMessageType,
    /// MAC1 is wrong: the sender does not know our public key.
    InvalidMac1,
    /// The source sent more handshakes than one address may while we are under load.
    RateLimited,
    /// An initiation that is authentic but from a key that is no peer.
    UnknownPeer,
    /// A handshake message that does not decrypt.
    HandshakeDecryption,
    /// A key agreement gave an all-zero secret: the other public key has low order.
    LowOrderKey,
    /// An initiation whose timestamp is not newer than the newest one seen: a replay.
    StaleTimestamp,
    /// Initiations of one peer that follow each other too closely.
    InitiationFlood,
    /// No session and no pending handshake has this receiver index.
    UnknownReceiver,
    /// A cookie reply that does not decrypt, or that answers nothing we sent.
    InvalidCookie,
    /// A data datagram that does not decrypt.
    Decryption,
    /// A data datagram whose counter was seen before.
    Replayed,
    /// A data datagram whose counter lies below the replay window.
    BelowWindow,
    /// A data datagram of a session past its end of life (180 s).
    SessionExpired,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 15] = [
        Self::WrongLength,
        Self::UnknownMessageType,
        Self::InvalidMac1,
        Self::RateLimited,
        Self::UnknownPeer,
        Self::HandshakeDecryption,
        Self::LowOrderKey,
        Self::StaleTimestamp,
        Self::InitiationFlood,
        Self::UnknownReceiver,
        Self::InvalidCookie,
        Self::Decryption,
        Self::Replayed,
        Self::BelowWindow,
        Self::SessionExpired,
    ];

    /// The name used in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongLength => "wrong_length",
            Self::UnknownMessageType => "unknown_message_type",
            Self::InvalidMac1 => "invalid_mac1",
            Self::RateLimited => "rate_limited",
            Self::UnknownPeer => "unknown_peer",
            Self::HandshakeDecryption => "handshake_decryption",
            Self::LowOrderKey => "low_order_key",
            Self::StaleTimestamp => "stale_timestamp",
            Self::InitiationFlood => "initiation_flood",
            Self::UnknownReceiver => "unknown_receiver",
            Self::InvalidCookie => "invalid_cookie",
            Self::Decryption => "decryption",
            Self::Replayed => "replayed",
            Self::BelowWindow => "below_window",
            Self::SessionExpired => "session_expired",
        }
    }
}

/// What a device counted since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    drops: [u64; DropReason::ALL.len()],
    /// X25519 operations, key generation included. The cost that MAC1 and cookies protect.
    pub key_agreements: u64,
    /// Initiations sent, retries included.
    pub initiations_sent: u64,
    /// Responses sent.
    pub responses_sent: u64,
    /// Cookie replies sent while under load.
    pub cookie_replies_sent: u64,
    /// Cookie replies received and kept.
    pub cookies_received: u64,
    /// Keepalives sent, the one that confirms a new session included.
    pub keepalives_sent: u64,
    /// Handshakes completed, in either role.
    pub handshakes_completed: u64,
}

impl Counters {
    /// Datagrams dropped for one reason.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// All reasons with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.drops)
    }

    pub(crate) const fn note_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let mut counters = Counters::default();
        for (position, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
            counters.note_drop(reason);
        }
        assert!(counters.drops().all(|(_, count)| count == 1));
        let names: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::name).into();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
